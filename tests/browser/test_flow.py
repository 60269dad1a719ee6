"""explore_flow in JupyterLab: mouse and keyboard, picture and words, and what Python knows of it."""

import pytest

expect = pytest.importorskip("playwright.sync_api", reason="needs the extra browser").expect

CELLS = [
    "from bigbird_mini import BlockPattern\nfrom bigbird_mini.viz import explore_flow",
    "near = BlockPattern.window(16)\n"
    "far = near | BlockPattern.random(16, 1, seed=2, avoid=near)\n"
    "w = explore_flow({'far': far, 'near': near}, token=200, layers=4)\nw",
]
RING, PAD = 330, 32


@pytest.fixture
def view(fresh):
    return fresh.page.locator(".bb-flow")


def ring(view):
    return view.locator("canvas").nth(0)


def spot(i, n=16):
    """Where a block is on the ring."""
    from math import cos, pi, sin

    radius, turn = RING / 2 - PAD, 2 * pi * i / n - pi / 2
    return {"x": RING / 2 + radius * cos(turn), "y": RING / 2 + radius * sin(turn)}


def lit(view, i):
    """The fill of a block on the ring, beside its number."""
    look = "(c, [x, y]) => [...c.getContext('2d').getImageData(x, y, 1, 1).data]"
    at = spot(i)
    r, g, b, _ = ring(view).evaluate(look, [at["x"], at["y"] - 9])
    return f"#{r:02x}{g:02x}{b:02x}"


def same_ring(view, notebook):
    """Every block has the colour of the layer in which Python says it heard, the others none."""
    heard, layer, shades = notebook.value("[w.heard, w.layer, w.shades]")
    for i in range(16):
        known = 0 <= heard[i] <= layer
        assert (lit(view, i) == shades[heard[i]]) if known else (lit(view, i) not in shades), f"block {i}"


def test_the_first_frame_teaches(view, fresh):
    same_ring(view, fresh)
    heard, target = fresh.value("[w.heard, w.target]")
    assert heard[target] == max(heard)
    expect(view.locator(".bb-cell")).to_contain_text(f"Block {target} hears of block 3 in layer {max(heard)}")
    expect(view.locator(".bb-status")).to_contain_text("blocks have heard of block 3")
    for canvas in view.locator("canvas").all():
        assert len(canvas.get_attribute("aria-label")) > 40


def test_by_keyboard(view, fresh):
    ring(view).focus()
    assert "2px" in ring(view).evaluate("(c) => getComputedStyle(c).outline")
    fresh.page.keyboard.press("Home")
    fresh.until("w.target", 0)
    fresh.page.keyboard.press("ArrowLeft")
    fresh.until("w.target", 15)  # it is a ring
    expect(view.locator(".bb-cell")).to_contain_text("Block 15")
    assert view.locator(".bb-cell").inner_text() == fresh.python("print(w.path_words)")
    before = fresh.value("w.layer")
    fresh.page.keyboard.press("ArrowUp")
    fresh.until("w.layer", before - 1)
    expect(view.locator(".bb-status")).to_contain_text(f"After layer {before - 1} of 4")
    same_ring(view, fresh)
    fresh.page.keyboard.press("Enter")  # the news now starts there
    fresh.until("[w.token, w.source]", [15 * 64, 15])
    expect(view.locator(".bb-status")).to_contain_text("have heard of block 15")
    same_ring(view, fresh)


def test_by_mouse(view, fresh):
    ring(view).click(position=spot(9))
    fresh.until("w.target", 9)
    expect(view.locator(".bb-cell")).to_contain_text("Block 9")
    matrix, cone = view.locator("canvas").nth(1), view.locator("canvas").nth(2)
    matrix.click(position={"x": 100, "y": 34 + 5.5 * 300 / 16})
    fresh.until("w.target", 5)
    cone.click(position={"x": 34 + 12.5 * 630 / 16, "y": 2.5 * 20})
    fresh.until("[w.target, w.layer]", [12, 2])
    expect(view.locator(".bb-status")).to_contain_text("After layer 2 of 4")
    same_ring(view, fresh)
    ring(view).dblclick(position=spot(8))
    fresh.until("w.source", 8)
    expect(view.locator(".bb-status")).to_contain_text("have heard of block 8")
    same_ring(view, fresh)


def test_sliders_switch_and_choice(view, fresh):
    token = view.get_by_role("slider", name="the news starts at token")
    token.focus()
    fresh.page.keyboard.press("End")
    fresh.until("[w.token, w.source]", [1023, 15])
    expect(token).to_have_attribute("aria-valuetext", "1,023 (block 15)")
    switch = view.get_by_role("checkbox", name="fresh random blocks in every layer")
    switch.focus()
    fresh.page.keyboard.press("Space")
    fresh.until("w.fresh", False)
    same_ring(view, fresh)
    expect(view.locator(".bb-heard")).to_contain_text("the same layers")
    view.get_by_role("combobox", name="pattern").select_option("near")
    fresh.until("w.chosen", "near")
    fresh.until("w.heard[:11]", [-1] * 11)  # four layers of a window of 3 get four blocks far
    same_ring(view, fresh)
    expect(switch).to_be_hidden()  # nothing in this pattern is drawn


def test_layer_by_layer(view, fresh):
    fresh.python("w.layer = 0")
    expect(view.locator(".bb-status")).to_contain_text("After layer 0 of 4: 1 of 16 blocks")
    same_ring(view, fresh)
    view.get_by_role("button", name="One layer on").click()
    fresh.until("w.layer", 1)
    same_ring(view, fresh)
    view.get_by_role("button", name="Play").click()
    fresh.until("w.layer", 4)
    expect(view.get_by_role("button", name="Play")).to_be_visible()  # it stops at the end
    view.get_by_role("button", name="One layer back").click()
    fresh.until("w.layer", 3)
    same_ring(view, fresh)


def test_what_fails_is_shown_and_the_next_change_works(view, fresh):
    fresh.python("w.token = 5000")
    expect(view.get_by_role("alert")).to_contain_text("token=5000 is out of range")
    ring(view).focus()
    fresh.page.keyboard.press("Enter")
    expect(view.get_by_role("alert")).to_have_text("")
    same_ring(view, fresh)


def test_light_and_dark(view, fresh, shot):
    looks = {}
    for theme in ("Dark", "Light"):
        fresh.theme(theme)
        looks[theme] = shot(view, f"flow_{theme.lower()}")
        same_ring(view, fresh)
    assert looks["Dark"] != looks["Light"]
