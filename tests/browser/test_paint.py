"""paint_pattern in JupyterLab: brush, keyboard, undo and a real training, and what Python knows of it."""

import re

import pytest

expect = pytest.importorskip("playwright.sync_api", reason="needs the extra browser").expect

CELLS = [
    # one thread: of steps of milliseconds two make seconds while others use the machine
    "import torch; torch.set_num_threads(1)\nfrom bigbird_mini.viz import paint_pattern, paint_run",
    "w = paint_pattern(8, block_size=4, task='broadcast', seconds=120)\nw",
]
LEFT, TOP, SIDE, N = 46, 40, 448, 8  # of the grid in its canvas
SLOW = 150_000  # milliseconds that a training may take on a busy machine
COLOURS = {1: "#0072b2", 2: "#e69f00", 3: "#009e73", 4: "#cc79a7"}
NOTHING = [[0] * N for _ in range(N)]


@pytest.fixture
def view(fresh):
    return fresh.page.locator(".bb-paint")


@pytest.fixture
def grid(view):
    return view.locator("canvas").first


@pytest.fixture
def empty(view, fresh):
    """Nothing painted yet."""
    view.get_by_role("combobox", name="start from").select_option("nothing")
    fresh.until("kinds(w)", NOTHING)
    return fresh


@pytest.fixture(autouse=True)
def helper(notebook):
    code = "import numpy as np; kinds = lambda w: np.frombuffer(w.kinds, np.uint8).reshape(w.n_blocks, -1).tolist()"
    notebook.python(code)


def middle(i, j):
    """Where a cell is in the canvas."""
    return {"x": LEFT + (j + 0.5) * SIDE / N, "y": TOP + (i + 0.5) * SIDE / N}


def on_page(grid, i, j):
    box, at = grid.bounding_box(), middle(i, j)
    return box["x"] + at["x"], box["y"] + at["y"]


def drag(notebook, grid, *cells):
    """Press at the first cell, move over the others, let go."""
    mouse = notebook.page.mouse
    mouse.move(*on_page(grid, *cells[0]))
    mouse.down()
    for cell in cells[1:]:
        mouse.move(*on_page(grid, *cell))
    mouse.up()


def colour(grid, i, j):
    """The colour near a corner of a cell, where no mark is."""
    x, y = LEFT + (j + 0.15) * SIDE / N, TOP + (i + 0.15) * SIDE / N
    look = "(c, [x, y]) => [...c.getContext('2d').getImageData(x, y, 1, 1).data]"
    r, g, b, _ = grid.evaluate(look, [x, y])
    return f"#{r:02x}{g:02x}{b:02x}"


def same_picture(grid, notebook):
    """Every cell has the colour of the kind that Python says, and Python's pattern has these kinds."""
    notebook.page.mouse.move(5, 5)
    kinds = notebook.value("w.pattern.kinds()[0].tolist()")
    assert kinds == notebook.value("kinds(w)")
    for i in range(N):
        for j in range(N):
            seen = colour(grid, i, j)
            assert (seen == COLOURS[kinds[i][j]]) if kinds[i][j] else (seen not in COLOURS.values()), f"cell {i}, {j}"


def wait(notebook, *cells, kind=4):
    """Until Python has exactly these cells."""
    wanted = [row[:] for row in NOTHING]
    for i, j in cells:
        wanted[i][j] = kind
    notebook.until("kinds(w)", wanted)


def press(notebook, *keys):
    for key in keys:
        notebook.page.keyboard.press(key)


def test_the_first_frame_teaches(view, grid, fresh):
    same_picture(grid, fresh)
    expect(view.locator(".bb-ask")).to_contain_text("One token is flagged")
    for words in ("density", "hops between blocks", "spectral gap", "clustering", "price of a layer"):
        expect(view.locator("th").get_by_text(words)).to_be_visible()
    row = view.get_by_role("row", name="far copy")
    assert row.locator("td").all_inner_texts() == fresh.value("w.task_rows[2][1:]")
    for canvas in view.locator("canvas").all():
        assert len(canvas.get_attribute("aria-label")) > 60
    expect(view.locator("canvas").nth(1)).to_have_attribute("aria-label", re.compile("A guess is right in 6%"))
    expect(view.get_by_role("button", name="Train it on broadcast, at most 120 seconds")).to_be_visible()
    expect(view.locator(".bb-heard[aria-live=polite]")).to_contain_text("8 blocks of 4 tokens, global")


def test_the_brush(view, grid, empty):
    grid.click(position=middle(2, 5))
    wait(empty, (2, 5))
    expect(view.locator(".bb-cell")).to_contain_text("query block 2 reads key block 5: other. This row reads 1 of 8")
    drag(empty, grid, (4, 1), (4, 4), (6, 6))  # a fast mouse leaves no gaps
    line = [(4, 1), (4, 2), (4, 3), (4, 4), (5, 5), (6, 6)]
    wait(empty, (2, 5), *line)
    same_picture(grid, empty)
    expect(view.get_by_role("row", name="density")).to_contain_text("10.9%")
    expect(view.locator(".bb-heard")).to_contain_text("7 cells painted")
    view.get_by_role("checkbox", name="erase").check()
    drag(empty, grid, (4, 2), (4, 3))
    wait(empty, (2, 5), (4, 1), (4, 4), (5, 5), (6, 6))
    empty.page.keyboard.down("Shift")  # the other way round
    grid.click(position=middle(0, 0))
    empty.page.keyboard.up("Shift")
    wait(empty, (0, 0), (2, 5), (4, 1), (4, 4), (5, 5), (6, 6))
    same_picture(grid, empty)
    assert empty.value("w.preset") == "your own"


@pytest.mark.parametrize(
    ("shape", "cells"),
    [
        ("row", [(3, k) for k in range(8)]),
        ("column", [(k, 1) for k in range(8)]),
        ("diagonal", [(k, k - 2) for k in range(2, 8)]),
    ],
)
def test_fill_by_mouse(view, grid, empty, shape, cells):
    tool = view.locator(f"button[data-shape={shape}]")
    tool.click()
    expect(tool).to_have_attribute("aria-pressed", "true")
    grid.click(position=middle(3, 1))
    wait(empty, *cells)
    same_picture(grid, empty)


def test_a_box_by_mouse_and_mirrored(view, grid, empty):
    view.locator("button[data-shape=box]").click()
    drag(empty, grid, (1, 5), (2, 6))
    wait(empty, *(box := [(1, 5), (1, 6), (2, 5), (2, 6)]))
    view.get_by_role("checkbox", name="mirror (both ways)").check()
    empty.until("w.mirror", True)
    drag(empty, grid, (7, 1), (6, 0))
    low = [(i, j) for i in (6, 7) for j in (0, 1)]
    wait(empty, *box, *low, *((j, i) for i, j in low))
    same_picture(grid, empty)


def test_by_keyboard_alone(view, grid, empty):
    grid.focus()
    press(empty, "ArrowDown", "ArrowDown", "ArrowRight")  # the first shows the cursor
    assert "2px" in grid.evaluate("(c) => getComputedStyle(c).outline")  # the focus is seen
    expect(view.locator(".bb-cell")).to_contain_text("query block 1 does not read key block 1.")
    press(empty, " ")
    wait(empty, (1, 1))
    expect(view.locator(".bb-cell")).to_contain_text("query block 1 reads key block 1: other")
    press(empty, "Shift+ArrowRight", "Shift+ArrowRight", "Shift+ArrowDown")  # a line
    wait(empty, (1, 1), (1, 2), (1, 3), (2, 3))
    press(empty, "Control+z")
    wait(empty, (1, 1), (1, 2), (1, 3))
    press(empty, "Control+z", "Control+z", "Control+z")
    wait(empty)
    press(empty, "r", "ArrowDown", " ")  # a row
    empty.until("w.shape", "row")
    row = [(3, k) for k in range(8)]
    wait(empty, *row)
    press(empty, "e", "k", " ")  # erase a column
    wait(empty, *(row[:3] + row[4:]))
    press(empty, "Control+z")
    wait(empty, *row)
    press(empty, "Control+y")
    wait(empty, *(row[:3] + row[4:]))
    press(empty, "Control+z", "Control+Shift+Z")
    wait(empty, *(row[:3] + row[4:]))
    press(empty, "e", "d", "Home", " ")  # paint a diagonal
    wait(empty, *(row[:3] + row[4:]), *((k, k - 3) for k in range(4, 8)))
    press(empty, "b", " ", "ArrowUp", "ArrowRight")
    expect(view.locator(".bb-cell")).to_contain_text("A box starts at 3, 0; space ends it here.")
    press(empty, " ")
    cells = {*row[:3], *row[4:], *((k, k - 3) for k in range(4, 8)), (2, 0), (2, 1)}
    wait(empty, *cells)
    press(empty, "Escape")  # without the cursor
    same_picture(grid, empty)
    assert empty.value("w.erasing") is False


def test_presets_and_undo_by_button(view, grid, fresh):
    preset = view.get_by_role("combobox", name="start from")
    preset.select_option("window + random")
    fresh.until("w.preset", "window + random")
    same_picture(grid, fresh)
    grid.click(position=middle(0, 7))
    fresh.until("kinds(w)[0][7] > 0", True)
    expect(preset).to_have_value("your own")
    undo, redo = view.get_by_role("button", name="Undo"), view.get_by_role("button", name="Do it again")
    expect(redo).to_be_disabled()
    undo.click()
    undo.click()
    fresh.until("w.preset", "global")
    same_picture(grid, fresh)
    expect(undo).to_be_disabled()
    redo.click()
    fresh.until("w.preset", "window + random")
    same_picture(grid, fresh)
    preset.select_option("your own")  # is no pattern: the name of the present one comes back
    expect(preset).to_have_value("window + random")
    expect(view.get_by_role("alert")).to_have_text("")


def test_the_task_and_the_rings(view, grid, empty):
    view.get_by_role("combobox", name="task").select_option("far copy")
    empty.until("w.task", "far copy")
    expect(view.locator(".bb-ask")).to_contain_text("from 3 blocks before")
    view.get_by_role("checkbox", name="ring the cells the task asks for").check()
    empty.until("w.hint", True)
    grid.hover(position=middle(5, 2))
    expect(view.locator(".bb-cell")).to_contain_text("far copy: 25.0% of the questions go from here to there")
    grid.hover(position=middle(5, 3))
    expect(view.locator(".bb-cell")).to_contain_text("far copy: no questions go from here to there")
    expect(view.locator("canvas").nth(1)).to_have_attribute("aria-label", re.compile("edges alone in 6%, paths in 6%"))
    view.locator("button[data-shape=diagonal]").click()
    grid.click(position=middle(5, 2))
    expect(view.locator("canvas").nth(1)).to_have_attribute("aria-label", re.compile("edges alone in 100%"))
    expect(view.get_by_role("row", name="far copy").locator("td").first).to_have_text("100%")


def test_training_streams_and_the_page_answers(view, grid, fresh):
    fresh.python("paint_run.STEPS['broadcast'] = 160")
    view.get_by_role("button", name="Train it on broadcast").click()
    expect(view.locator(".bb-status")).to_contain_text(re.compile(r"step \d+ of 160"), timeout=SLOW)
    stop = view.get_by_role("button", name="Stop the training")
    expect(stop).to_be_visible()
    chart, preset = view.locator("canvas").nth(1), view.get_by_role("combobox", name="start from")
    expect(chart).to_have_attribute("aria-label", re.compile(r"training 1 \(density \d+%\): \d+%"), timeout=SLOW)
    before = chart.screenshot()
    preset.select_option("nothing")  # while it trains
    expect(view.get_by_role("row", name="density")).to_contain_text("0.0%", timeout=3000)
    grid.click(position=middle(2, 2))
    expect(view.get_by_role("row", name="density")).to_contain_text("1.6%", timeout=3000)
    assert fresh.value("w.training") is True
    view.get_by_role("button", name="Undo").click()
    view.get_by_role("button", name="Undo").click()
    expect(view.locator(".bb-status")).to_contain_text("right after 160 steps", timeout=SLOW)
    accuracy = fresh.value("w.runs[0].accuracy")
    assert accuracy > 0.8  # by the global block
    expect(view.get_by_role("row", name="broadcast").locator("td").last).to_have_text(f"{accuracy:.0%}")
    expect(view.locator(".bb-heard")).to_contain_text("Training 1, broadcast")
    assert chart.screenshot() != before
    expect(view.get_by_role("button", name="Train it on broadcast")).to_be_visible()


def test_a_training_is_stopped_by_keyboard(view, fresh):
    fresh.python("paint_run.STEPS['broadcast'] = 100_000")
    view.get_by_role("button", name="Train it on broadcast").focus()
    press(fresh, "Enter")
    expect(view.locator(".bb-status")).to_contain_text(re.compile(r"\d+% right so far"), timeout=SLOW)
    press(fresh, "Enter")  # the same button, which now says Stop
    expect(view.locator(".bb-status")).to_contain_text(re.compile(r"right after \d+ steps"), timeout=SLOW)
    fresh.until("w.training", False)
    assert fresh.value("w.runs[0].done < w.runs[0].steps") is True


def test_what_fails_is_shown_and_the_next_change_works(view, grid, fresh):
    fresh.python("w.seconds = 500")
    expect(view.get_by_role("alert")).to_contain_text("seconds=500 is out of range")
    slider = view.get_by_role("slider", name="a training takes at most")
    slider.focus()
    press(fresh, "ArrowLeft")
    expect(view.get_by_role("alert")).to_have_text("")
    fresh.python("import bigbird_mini.viz.paint_widget as module; module.train, kept = None, module.train")
    view.get_by_role("button", name="Train it on broadcast").click()
    expect(view.get_by_role("alert")).to_contain_text("'NoneType' object is not callable")
    expect(view.get_by_role("button", name="Train it on broadcast")).to_be_visible()
    fresh.python("module.train = kept")
    grid.click(position=middle(3, 6))
    expect(view.get_by_role("alert")).to_have_text("")
    same_picture(grid, fresh)


def test_in_words(view, fresh):
    summary = view.locator("summary")
    summary.focus()
    press(fresh, "Enter")
    expect(view.locator("pre")).to_contain_text("query block 5 reads: window 5, global 0")
    assert view.locator("pre").inner_text() == fresh.python("print(w.description)")


def test_light_and_dark(view, grid, fresh, shot):
    fresh.python("paint_run.STEPS['broadcast'] = 60; w.hint = True; r = w.train()")
    looks = {}
    for theme in ("Dark", "Light"):
        fresh.theme(theme)
        looks[theme] = shot(view, f"paint_{theme.lower()}")
        for canvas in view.locator("canvas").all():  # nothing is squeezed
            assert canvas.evaluate("(c) => c.getBoundingClientRect().width === parseFloat(c.style.width)")
    assert looks["Dark"] != looks["Light"]
    fresh.python("w.hint = False")
    same_picture(grid, fresh)
