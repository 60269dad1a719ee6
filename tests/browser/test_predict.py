"""The prediction card and the failure picture in JupyterLab: mouse and keyboard, what Python knows, both themes."""

import json

import pytest
from browser import rig

expect = pytest.importorskip("playwright.sync_api", reason="needs the extra browser").expect

CELLS = [
    "import os\nos.environ.pop('PYTEST_VERSION', None)  # a learner's kernel keeps a score\n"
    "os.environ['BIGBIRD_MINI_PROGRESS'] = 'progress.json'\n"
    "import numpy as np\nfrom bigbird_mini import BlockPattern\n"
    "from bigbird_mini.course import forget_predictions, guesses, predict, predicting, predictions\n"
    "from bigbird_mini.viz import show\nfrom bigbird_mini.viz.failure import Failure, describe_failure, draw_failure",
    "predicting._committed.clear()\nnumber = predict('1.1', 'How many keys does a query read?', 448, 'keys', "
    "tolerance=0.1, explain='Seven blocks of 64.')\nnumber",
    "choice = predict('1.2', 'Which blocks does everybody read?', 'global', choices=['window', 'global', 'random'])\n"
    "choice",
    "drawn = predict('1.3', 'Draw a window of 3 over 6 blocks.', lambda: BlockPattern.window(6, 3), cells=6)\ndrawn",
    "wanted = np.arange(36.0).reshape(6, 6) / 36\nyours = wanted.copy()\nyours[3, 1] += 0.4\nyours[5, 4:] = np.nan, 0\n"
    "picture = Failure(wanted, yours, ~(wanted == yours), ('query', 'key'), (2, 3))\n"
    "show(draw_failure(picture), describe_failure(picture))",
]
LEFT, TOP, SIDE = 46, 40, 24  # of the grid in its canvas


def open_cards(lab, chromium, name, **window):
    opened = rig.open_notebook(lab, chromium, name, CELLS, **window)
    opened.python(CELLS[0])
    run(opened)
    return opened


def run(opened):
    """All cells anew, no prediction made and none kept."""
    opened.python("forget_predictions()")
    opened.page.evaluate("() => document.querySelectorAll('.bb-predict').forEach((e) => { e.dataset.old = '1' })")
    opened.page.evaluate("async () => { await window.jupyterapp.commands.execute('notebook:run-all-cells') }")
    opened.page.wait_for_function("() => document.querySelectorAll('.bb-predict:not([data-old])').length === 3")
    opened.page.wait_for_function("() => !document.querySelector('.bb-predict[data-old]')")


@pytest.fixture(scope="module")
def cards(lab, chromium):
    opened = open_cards(lab, chromium, "predict.ipynb")
    yield opened
    opened.page.context.close()


@pytest.fixture
def fresh(cards):
    run(cards)
    yield cards
    assert cards.take_errors() == []


def card(opened, key):
    return opened.page.get_by_role("region", name=f"Prediction {key}")


def spot(i, j):
    return {"x": LEFT + (j + 0.5) * SIDE, "y": TOP + (i + 0.5) * SIDE}


def test_a_number_by_keyboard_with_how_sure(fresh):
    view = card(fresh, "1.1")
    view.get_by_role("textbox", name="Your prediction in keys").focus()
    fresh.page.keyboard.type("4x")
    fresh.page.keyboard.press("Enter")
    expect(view).to_contain_text("cannot be read as a number of keys")
    fresh.page.keyboard.press("ControlOrMeta+a")
    fresh.page.keyboard.type("460")
    fresh.page.keyboard.press("Tab")
    fresh.page.keyboard.press("End")  # 99 %
    fresh.page.keyboard.press("Enter")
    fresh.until("[number.guess, number.sure, number.committed]", [460.0, 99.0, True])
    expect(view).to_contain_text("right, within 10%")
    expect(view.locator(".bb-score")).to_contain_text("1 of 1 predictions right so far. 99 % sure: right 1 of 1.")
    assert "448" not in view.locator(".bb-form").inner_html()


def test_a_choice_by_mouse(fresh):
    view = card(fresh, "1.2")
    view.get_by_role("radio", name="window").check()
    view.get_by_role("combobox", name="How sure are you?").select_option("70")
    view.get_by_role("button", name="Commit").click()
    fresh.until("[choice.guess, choice.sure]", ["window", 70.0])
    expect(view).to_contain_text("not right")
    kept = json.loads(fresh.python("print(guesses.place().read_text())"))
    assert [(row["key"], row["right"], row["sure"]) for row in kept["cards"].values()] == [("1.2", False, 70.0)]
    fresh.python("forget_predictions()")
    assert fresh.value("guesses.place().exists()") is False


def test_a_drawing_by_mouse(fresh):
    view = card(fresh, "1.3")
    grid = view.locator("canvas")
    view.get_by_role("button", name="Commit").click()
    expect(view).to_contain_text("Draw at least one cell first.")
    box = grid.bounding_box()
    for k in range(6):  # along the diagonal, and back beside it; a drag goes on with what its first cell did
        grid.click(position=spot(k, k))
    fresh.page.mouse.move(box["x"] + spot(0, 1)["x"], box["y"] + spot(0, 1)["y"])
    fresh.page.mouse.down()
    for i, j in [(0, 2), (0, 3)]:
        fresh.page.mouse.move(box["x"] + spot(i, j)["x"], box["y"] + spot(i, j)["y"])
    fresh.page.mouse.up()
    assert grid.get_attribute("data-filled") == "0,0 0,1 0,2 0,3 1,1 2,2 3,3 4,4 5,5"
    grid.click(position=spot(0, 3))  # once more empties it
    blue = grid.evaluate("(c, [x, y]) => [...c.getContext('2d').getImageData(x, y, 1, 1).data]", [LEFT + 4, TOP + 4])
    assert blue[:3] == [0, 114, 178]
    view.get_by_role("button", name="Commit").click()
    fresh.until("np.argwhere(drawn.guess).tolist()", [[0, 0], [0, 1], [0, 2], *([k, k] for k in range(1, 6))])
    expect(view).to_contain_text("7 of 16 cells found, 9 missing, 1 too many")
    expect(view.get_by_role("img")).to_have_attribute("alt", fresh.python("print(drawn.outcome['alt'])"))


def test_a_drawing_by_keyboard(fresh):
    view = card(fresh, "1.3")
    grid = view.locator("canvas")
    press = fresh.page.keyboard.press
    grid.focus()
    press("ArrowUp")
    assert "2px" in grid.evaluate("(c) => getComputedStyle(c).outline")
    for i in range(6):
        columns = [j for j in (i - 1, i, i + 1) if 0 <= j < 6]
        for j in range(6):
            if j in columns:
                press(" ")
            press("ArrowRight")
        for _ in range(6):
            press("ArrowLeft")
        press("ArrowDown")
    expect(view.locator(".bb-cell")).to_contain_text("16 of 36 cells are filled.")
    press("Tab")
    press("Enter")  # "clear"
    expect(view.locator(".bb-cell")).to_contain_text("0 of 36 cells are filled.")
    grid.focus()
    for _ in range(9):
        press("ArrowUp")
    press(" ")
    expect(view.locator(".bb-cell")).to_have_text("query block 0, key block 0: filled. 1 of 36 cells are filled.")
    press("Enter")  # commits
    fresh.until("np.argwhere(drawn.guess).tolist()", [[0, 0]])


def test_the_failure_picture_has_its_words(fresh):
    picture = fresh.page.locator(".jp-OutputArea-output img").last
    assert picture.get_attribute("alt") == fresh.python("print(describe_failure(picture))")
    assert picture.evaluate("(i) => i.naturalWidth") > 300


@pytest.mark.parametrize("theme", ["Dark", "Light"])
def test_light_and_dark(fresh, shot, theme):
    fresh.theme(theme)
    grid = card(fresh, "1.3").locator("canvas")
    grid.click(position=spot(2, 2))
    page = fresh.page.locator(".jp-Notebook")
    shot(page, f"predict_{theme.lower()}_before")
    fresh.python("number.commit(300, 90); choice.commit('global', 50); drawn.commit('0,0 1,1 2,2 3,3', 70)")
    expect(card(fresh, "1.3").get_by_role("img")).to_be_visible()
    shot(page, f"predict_{theme.lower()}_after")
    red = card(fresh, "1.1").evaluate("(e) => Number(getComputedStyle(e).color.match(/[0-9.]+/)[0])")
    assert (red > 128) == (theme == "Dark")


def test_at_200_percent_nothing_is_cut_off(lab, chromium, fresh, shot):
    opened = open_cards(lab, chromium, "predict_200.ipynb", width=640, height=3000, scale=2)
    opened.page.evaluate("window.jupyterapp.commands.execute('application:toggle-left-area')")
    opened.python("number.commit(300, 90)")
    expect(card(opened, "1.1")).to_contain_text("too low")
    for view in opened.page.locator(".bb-predict").all():
        over = "(e) => [...e.querySelectorAll('*')].filter((x) => x.getBoundingClientRect().right > "
        assert view.evaluate(over + "e.getBoundingClientRect().right + 1).map((x) => x.outerHTML.slice(0, 80))") == []
    picture = opened.page.locator(".jp-OutputArea-output img").last
    assert picture.evaluate("(i) => i.getBoundingClientRect().right <= innerWidth + 1")
    shot(opened.page.locator(".jp-Notebook"), "predict_200")
    opened.page.context.close()
