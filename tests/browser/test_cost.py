"""explore_cost in JupyterLab: mouse and keyboard, picture and words, and what Python knows of it."""

import math

import pytest

expect = pytest.importorskip("playwright.sync_api", reason="needs the extra browser").expect

CELLS = ["from bigbird_mini.viz import explore_cost", "w = explore_cost()\nw"]
LEFT, RIGHT, TOP, BOTTOM, WIDE, HIGH = 66, 112, 14, 44, 620, 400  # of the chart in its canvas


@pytest.fixture
def view(fresh):
    return fresh.page.locator(".bb-cost")


def chart(view):
    return view.locator("canvas")


def places(notebook):
    """Where the points of the sparse line are in the canvas, by Python's numbers."""
    lengths, curves, memory = notebook.value("[w.lengths, w.curves, w.memory]")
    values = [v for way in curves.values() for v in way]
    low, high = math.log(min(*values, memory * 1e9)), math.log(max(values))
    for n, v in zip(lengths, curves["sparse"], strict=True):
        part = (math.log(n) - math.log(lengths[0])) / (math.log(lengths[-1]) - math.log(lengths[0]))
        x = LEFT + part * (WIDE - LEFT - RIGHT)
        yield x, TOP + (1 - (math.log(v) - low) / (high - low)) * (HIGH - TOP - BOTTOM)


def same_line(view, notebook):
    """At every length the marker of the sparse line stands where Python's bytes put it."""
    look = "(c, [x, y]) => [...c.getContext('2d').getImageData(x, y, 1, 1).data]"
    for k, (x, y) in enumerate(places(notebook)):
        if 2 < k < 8:  # the first are hidden by other lines, and a ring with its number lies near the last ones
            r, g, b, _ = chart(view).evaluate(look, [x, y])
            assert (r, g, b) == (0, 114, 178), f"point {k} is #{r:02x}{g:02x}{b:02x}"


def test_the_first_frame_teaches(view, fresh):
    same_line(view, fresh)
    row = view.get_by_role("row", name="fits 11 GB up to")
    assert row.locator("td").all_inner_texts() == [f"{n:,}" for n in fresh.value("list(w.fits.values())")]
    expect(row).to_contain_text("10,516")
    expect(view.locator("p", has_text="The wrong arithmetic counts")).to_contain_text("n² x 768")
    expect(view.locator(".bb-ask")).not_to_be_empty()


def test_by_keyboard(view, fresh):
    chart(view).focus()
    assert "2px" in chart(view).evaluate("(c) => getComputedStyle(c).outline")
    fresh.page.keyboard.press("ArrowRight")
    fresh.page.keyboard.press("ArrowRight")
    fresh.until("w.tokens", 8192)
    expect(view.get_by_role("row", name="bytes at 8,192 tokens")).to_be_visible()
    memory = view.get_by_role("slider", name="device memory")
    memory.focus()
    fresh.page.keyboard.press("End")
    fresh.until("w.memory", 192.0)
    expect(view.get_by_role("row", name="fits 192 GB up to")).to_contain_text(
        fresh.python("print(f\"{w.fits['dense']:,}\")")
    )
    expect(view.locator(".bb-heard")).to_contain_text("192 GB hold, in tokens: ")
    same_line(view, fresh)


def test_by_mouse(view, fresh):
    x, y = list(places(fresh))[5]
    chart(view).hover(position={"x": x, "y": y})
    expect(view.locator(".bb-cell")).to_contain_text("16,384 tokens: wrong")
    expect(view.locator(".bb-cell")).to_contain_text(
        fresh.python("from bigbird_mini.viz.cost import gigabytes; print(gigabytes(w.curves['sparse'][5]))")
    )
    chart(view).click(position={"x": x, "y": y})
    fresh.until("w.tokens", 16384)
    box = view.get_by_role("slider", name="width").bounding_box()
    fresh.page.mouse.click(box["x"] + 2, box["y"] + box["height"] / 2)
    fresh.until("w.width", 64)
    expect(view.get_by_role("alert")).to_contain_text("hidden_size=64 is not a multiple of num_attention_heads=12")
    fresh.page.mouse.click(box["x"] + 8 + (box["width"] - 16) * 6 / 13, box["y"] + box["height"] / 2)
    expect(view.get_by_role("alert")).to_have_text("")
    same_line(view, fresh)


def test_the_whole_model(view, fresh):
    expect(view.get_by_role("slider", name="layers")).to_be_hidden()
    view.get_by_role("combobox", name="what is counted").select_option(index=2)
    fresh.until("w.mode", "training")
    layers = view.get_by_role("slider", name="layers")
    before = fresh.value("w.fits['dense']")
    layers.focus()
    fresh.page.keyboard.press("Home")
    fresh.until("[w.layers, w.cost.config.num_hidden_layers]", [1, 1])
    assert fresh.value("w.fits['dense']") > before
    same_line(view, fresh)


def test_light_and_dark(view, fresh, shot):
    looks = {}
    for theme in ("Dark", "Light"):
        fresh.theme(theme)
        looks[theme] = shot(view, f"cost_{theme.lower()}")
        same_line(view, fresh)
    assert looks["Dark"] != looks["Light"]
