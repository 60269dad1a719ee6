"""explore_pattern in JupyterLab: mouse and keyboard, picture and words, and what Python knows of it."""

import re

import pytest

expect = pytest.importorskip("playwright.sync_api", reason="needs the extra browser").expect

CELLS = ["from bigbird_mini.viz import explore_pattern", "w = explore_pattern(16, random=2)\nw"]
LEFT, TOP, SIDE = 46, 40, 448  # of the grid in its canvas
COLOURS = {None: None, "window": "#0072b2", "global": "#e69f00", "random": "#009e73"}


@pytest.fixture
def view(fresh):
    return fresh.page.locator(".bb-pattern")


@pytest.fixture
def grid(view):
    return view.locator("canvas")


def caption(view):
    return view.locator(".bb-cell")


def middle(i, j, n=16):
    """Where a cell is in the canvas."""
    return {"x": LEFT + (j + 0.5) * SIDE / n, "y": TOP + (i + 0.5) * SIDE / n}


def colour(grid, i, j, n=16):
    """The colour near a corner of a cell, where no mark is."""
    x, y = LEFT + (j + 0.2) * SIDE / n, TOP + (i + 0.2) * SIDE / n
    look = "(c, [x, y]) => [...c.getContext('2d').getImageData(x, y, 1, 1).data]"
    r, g, b, _ = grid.evaluate(look, [x, y])
    return f"#{r:02x}{g:02x}{b:02x}"


def kind_names(notebook):
    """For each cell the name of its kind, as Python has it."""
    names = [None, "window", "global", "random", "other"]
    return [[names[k] for k in row] for row in notebook.value("w.pattern.kinds()[w.head].tolist()")]


def same_picture(grid, notebook):
    """Every cell has the colour of the kind that Python says."""
    kinds = kind_names(notebook)
    for i in range(16):
        for j in range(16):
            seen = colour(grid, i, j)
            if kinds[i][j]:
                assert seen == COLOURS[kinds[i][j]], f"cell {i}, {j}"
            else:
                assert seen not in COLOURS.values(), f"cell {i}, {j}"


def test_the_first_frame_teaches(view, grid, fresh):
    same_picture(grid, fresh)
    expect(view.locator(".bb-ask")).not_to_be_empty()
    for words in ("density", "hops between blocks", "spectral gap", "65,536"):
        expect(view.locator("th").get_by_text(words)).to_be_visible()
    signs = [text.split() for text in view.locator(".bb-legend li").all_inner_texts()]
    assert signs == [["W", "window"], ["G", "global"], ["R", "random"], ["not", "read"]]
    expect(grid).to_have_attribute("aria-label", re.compile("16 blocks of 64 tokens; window 3"))
    expect(view.locator(".bb-heard[aria-live=polite]")).to_contain_text("density")


def test_sliders_by_keyboard(view, grid, fresh):
    slider = view.get_by_role("slider", name="window")
    slider.focus()
    fresh.page.keyboard.press("ArrowRight")
    fresh.until("w.window", 5)
    expect(slider).to_have_attribute("aria-valuetext", "5 blocks")
    expect(grid).to_have_attribute("aria-label", re.compile("window 5"))
    same_picture(grid, fresh)
    expect(view.locator(".bb-heard")).to_contain_text("window 5")
    seed = view.get_by_role("slider", name="seed")
    seed.focus()
    fresh.page.keyboard.press("ArrowRight")
    fresh.page.keyboard.press("ArrowRight")
    fresh.until("w.seed", 2)
    expect(grid).to_have_attribute("aria-label", re.compile("seed 2"))
    same_picture(grid, fresh)


def test_sliders_by_mouse(view, grid, fresh):
    before = view.get_by_role("row", name="density").inner_text()
    box = view.get_by_role("slider", name="random blocks").bounding_box()
    fresh.page.mouse.click(box["x"] + box["width"] - 8, box["y"] + box["height"] / 2)
    fresh.until("w.random", 16)
    expect(view.get_by_role("row", name="density")).to_contain_text("100.0%")
    assert before != view.get_by_role("row", name="density").inner_text()
    same_picture(grid, fresh)


def test_a_cell_by_mouse(view, grid, fresh):
    kinds = kind_names(fresh)
    wanted = next((5, j) for j in range(16) if kinds[5][j] == "random")
    grid.hover(position=middle(*wanted))
    expect(caption(view)).to_contain_text(f"query block 5 reads key block {wanted[1]}: random")
    empty = next((5, j) for j in range(16) if not kinds[5][j])
    grid.hover(position=middle(*empty))
    expect(caption(view)).to_contain_text(f"query block 5 does not read key block {empty[1]}")
    grid.click(position=middle(*wanted))
    fresh.until("w.cell", list(wanted))
    fresh.page.mouse.move(5, 5)
    expect(caption(view)).to_contain_text("Point at a cell")


def test_cells_by_keyboard(view, grid, fresh):
    kinds = kind_names(fresh)
    grid.focus()
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight"):  # the first shows the cursor
        fresh.page.keyboard.press(key)
    fresh.until("w.cell", [2, 2])
    expect(caption(view)).to_contain_text("query block 2 reads key block 2: window. This row reads")
    row = sum(kind is not None for kind in kinds[2])
    expect(caption(view)).to_contain_text(f"reads {row} of 16 key blocks")
    fresh.page.keyboard.press("End")
    expect(caption(view)).to_contain_text("query block 2 reads key block 15: global")
    fresh.page.keyboard.press("Home")
    expect(caption(view)).to_contain_text("query block 2 reads key block 0: global")
    assert "2px" in grid.evaluate("(c) => getComputedStyle(c).outline")  # the focus is seen
    fresh.until("w.cell", [2, 0])
    fresh.python("w.cell = [7, 9]")  # pointed at from Python
    expect(caption(view)).to_contain_text("query block 7")


def test_zoom_from_blocks_to_tokens(view, grid, fresh):
    grid.focus()
    for key in ("ArrowDown", *["ArrowDown"] * 5, *["ArrowRight"] * 5, *["+"] * 4, "ArrowRight"):
        fresh.page.keyboard.press(key)
    assert grid.get_attribute("data-view") == "5 5 1"
    expect(caption(view)).to_contain_text("query token 320 reads key token 321: window (block 5 reads block 5).")
    expect(caption(view)).to_contain_text("A block is 64 x 64 scores")
    for _ in range(63):  # past the right edge of the block: the view follows
        fresh.page.keyboard.press("ArrowRight")
    expect(caption(view)).to_contain_text("query token 320 reads key token 384: window (block 5 reads block 6).")
    fresh.until("w.cell", [5, 6])
    view.get_by_role("button", name="Zoom out").click()
    assert grid.get_attribute("data-view").endswith(" 2")
    view.get_by_role("button", name="See the whole pattern").click()
    assert grid.get_attribute("data-view") == "0 0 16"
    grid.dblclick(position=middle(0, 15))
    assert grid.get_attribute("data-view") == "0 8 8"
    fresh.page.mouse.move(5, 5)
    fresh.page.keyboard.press("Escape")
    assert colour(grid, 0, 3, 8) == COLOURS["global"] == colour(grid, 0, 7, 8)


def test_row_by_row(view, grid, fresh):
    step = view.get_by_role("button", name="One step on")
    step.click()
    fresh.until("w.step", 0)
    expect(caption(view)).to_contain_text("Step 1 of")
    expect(caption(view)).to_contain_text("query block 0 reads every key block (global).")
    assert colour(grid, 0, 3) == COLOURS["global"] and colour(grid, 1, 1) not in COLOURS.values()
    step.click()
    expect(caption(view)).to_contain_text("query block 1 reads key blocks 1 and 2 (window).")
    assert colour(grid, 1, 1) == COLOURS["window"] and colour(grid, 1, 0) not in COLOURS.values()
    view.get_by_role("button", name="One step back").click()
    fresh.until("w.step", 0)
    grid.focus()
    fresh.page.keyboard.press(".")
    fresh.until("w.step", 1)
    fresh.page.keyboard.press(" ")  # play
    fresh.page.wait_for_timeout(2200)
    view.get_by_role("button", name="Pause").click()
    here = fresh.value("w.step")
    assert here > 2
    fresh.page.wait_for_timeout(900)
    assert fresh.value("w.step") == here  # it stands still
    view.get_by_role("button", name="The whole picture").click()
    fresh.until("w.step", -1)
    same_picture(grid, fresh)


def test_presets_and_the_released_code(view, grid, fresh):
    preset = view.get_by_role("combobox", name="start from")
    preset.select_option("window")
    fresh.until("[w.window, w.n_global, w.random]", [3, 0, 0])
    same_picture(grid, fresh)
    expect(view.get_by_role("slider", name="global blocks")).to_have_attribute("aria-valuetext", "none")
    preset.focus()
    fresh.page.keyboard.press("End")  # "your own settings"
    fresh.page.keyboard.press("ArrowUp")
    fresh.until("w.preset", "released code: hf_eval")
    expect(view.locator(".bb-ask")).to_contain_text("find the random blocks")
    same_picture(grid, fresh)
    assert not any("random" in row for row in kind_names(fresh))
    grid.hover(position=middle(5, 0))
    expect(caption(view)).to_contain_text("query block 5 reads key block 0: global, counted 4 times")


def test_heads_and_layers(view, grid, fresh):
    fresh.python("w.heads = 4")
    head = view.get_by_role("slider", name="head shown")
    expect(head).to_be_enabled()
    head.focus()
    fresh.page.keyboard.press("End")
    fresh.until("w.head", 3)
    expect(view.locator(".bb-heard")).to_contain_text("head 3 of 4")
    same_picture(grid, fresh)
    layer = view.get_by_role("slider", name="layer")
    layer.focus()
    fresh.page.keyboard.press("ArrowRight")
    fresh.until("w.layer", 1)
    expect(grid).to_have_attribute("aria-label", re.compile("layer 1"))
    same_picture(grid, fresh)


def test_what_fails_is_shown_and_the_next_change_works(view, grid, fresh):
    view.get_by_role("combobox", name="random blocks").select_option(index=2)
    view.get_by_role("slider", name="window").focus()
    fresh.page.keyboard.press("ArrowRight")
    expect(view.get_by_role("alert")).to_contain_text("has window=3")
    fresh.page.keyboard.press("ArrowLeft")
    expect(view.get_by_role("alert")).to_have_text("")
    fresh.until("w.problem", "")
    same_picture(grid, fresh)


def test_in_words(view, fresh):
    summary = view.locator("summary")
    summary.focus()
    fresh.page.keyboard.press("Enter")
    expect(view.locator("pre")).to_contain_text("query block 5 reads: window 4-6, global 0 and 15, random")
    assert view.locator("pre").inner_text() == fresh.python("print(w.description)")


def test_light_and_dark(view, grid, fresh, shot):
    def paper():
        return view.evaluate("(e) => getComputedStyle(e.querySelector('canvas')).backgroundColor")

    looks = {}
    for theme in ("Dark", "Light"):
        fresh.theme(theme)
        looks[theme] = paper(), shot(view, f"pattern_{theme.lower()}")
    assert looks["Dark"][0] != looks["Light"][0] and looks["Dark"][1] != looks["Light"][1]
    same_picture(grid, fresh)
