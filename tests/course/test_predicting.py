"""predict without a browser: reading numbers, committing once, and what a saved notebook shows."""

import html
import math
import subprocess
import sys

import pytest

pytest.importorskip("anywidget")
import numpy as np

from bigbird_mini import BlockPattern
from bigbird_mini.course import forget_predictions, guesses, predict, predicting, predictions
from bigbird_mini.course.cells import read_cells
from bigbird_mini.course.predicting import how_far, read_number

SVG = '<svg xmlns="http://www.w3.org/2000/svg"></svg>'


@pytest.fixture(autouse=True)
def nothing_committed_before(monkeypatch):
    monkeypatch.setattr(predicting, "_committed", {})


@pytest.mark.parametrize(
    ("text", "unit", "number"),
    [
        ("4096", "", 4096),
        (" 7 ", "", 7),
        ("1e6", "", 1e6),
        ("1.5E-3", "", 0.0015),
        ("1,000,000", "", 1e6),
        ("1 000 000", "", 1e6),
        ("1_000", "", 1000),
        ("1,234.5", "", 1234.5),
        (".5", "", 0.5),
        ("-3", "", -3),
        ("\u22123", "", -3),
        ("4k", "", 4000),
        ("4 K", "", 4000),
        ("4Ki", "", 4096),
        ("2.5 million", "", 2.5e6),
        ("2.5M", "", 2.5e6),
        ("3 billion", "", 3e9),
        ("10 thousand", "", 1e4),
        ("2^20", "", 2**20),
        ("10**6", "", 1e6),
        ("12%", "", 0.12),
        ("12 %", "%", 12),
        ("448 keys", "keys", 448),
        ("1 key", "keys", 1),
        ("4k tokens", "tokens", 4000),
        ("3 million tokens", "tokens", 3e6),
        ("3 GB", "bytes", 3e9),
        ("3GB", "GB", 3),
        ("3 GiB", "MiB", 3072),
        ("64", "MiB", 64),
        ("5s", "s", 5),
    ],
)
def test_numbers_as_people_write_them(text, unit, number):
    assert math.isclose(read_number(text, unit), number, rel_tol=1e-12)


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        *[(text, "") for text in ("", "  ", "abc", "nan", "inf", "1.2.3", "1,5", "1,00", "0x10", "1e", "--3", "9^9^9")],
        *[(text, "") for text in ("1e999", "99999^64", "12 apples", "4096 4096")],
        ("5 ms", "s"),
        ("3G", "MiB"),
    ],
)
def test_anything_else_is_one_sentence(text, unit):
    with pytest.raises(ValueError) as caught:
        read_number(text, unit)
    said = str(caught.value)
    assert "\n" not in said and (text.strip() in said if text.strip() else "type a number first" in said)


@pytest.mark.parametrize(
    ("guess", "answer", "tolerance", "words"),
    [
        (4096, 4096, None, "right"),
        (2048, 4096, None, "2 times too low"),
        (6144, 4096, None, "1.5 times too high"),
        (1e6, 4096, None, "244 times too high"),
        (97, 100, None, "3% too low"),
        (97, 100, 0.05, "right, within 5%"),
        (90, 100, 0.05, "1.1 times too low"),
        (100.0001, 100, None, "less than 0.01% too high"),
        (0, 5, None, "5 too low"),
        (5, 0, None, "5 too high"),
        (0, 0, None, "right"),
    ],
)
def test_how_far_in_words(guess, answer, tolerance, words):
    assert how_far(guess, answer, tolerance) == words


def test_commit_shows_the_answer_once_and_for_all():
    asked = []
    card = predict("3.1", "How many keys?", lambda: asked.append(1) or 4096, "tokens", explain="Blocks of 64.")
    assert not card.committed and card.guess is None and card.outcome == {} and asked == []
    said = card.commit("2,048")
    assert said == "You said 2,048 tokens; it is 4,096 tokens: 2 times too low. Blocks of 64."
    assert card.committed and card.guess == 2048 and asked == [1]
    assert card.commit("4096").startswith("Already committed. You said 2,048 tokens")
    assert card.guess == 2048


def test_the_browser_is_told_nothing_before_committing():
    card = predict("3.1", "How many keys?", 98765, explain="Secret reason.")
    assert "98765" not in str(card.get_state()) and "Secret" not in str(card.get_state())
    card.commit(1)
    assert "98,765" in str(card.get_state()) and "Secret" in str(card.get_state())


@pytest.mark.parametrize("bad", ["abc", "", "-5", "nan"])
def test_bad_input_loses_nothing(bad):
    card = predict("3.1", "How many keys?", 4096)
    said = card.commit(bad)
    assert said == card.message and said.endswith(".") and said[0] in '"TN-'
    assert not card.committed and card.outcome == {}
    card.commit("4096")
    assert card.committed and card.message == "" and card.outcome["verdict"] == "right"


def test_negative_predictions_where_they_make_sense():
    card = predict("3.1", "What is the log of the weight?", -4.0)
    assert "2 times too high" in card.commit("-2")


def test_the_button_does_what_commit_does(monkeypatch):
    card = predict("3.1", "How many keys?", 4096)
    sent = []
    monkeypatch.setattr(card, "send", sent.append)
    card._handle_custom_msg({"kind": "commit", "text": "abc"}, [])
    assert "cannot be read" in card.message and sent == [{"kind": "answered"}]
    card._handle_custom_msg({"kind": "commit", "text": "4k"}, [])
    assert card.committed and card.guess == 4000


def test_choices():
    card = predict("3.2", "Which blocks are read by all?", "global", choices=["window", "global", "random"])
    assert card.commit("") == "Choose one of: window, global, random."
    assert card.commit("Window") == "You said window; it is global: not right."
    assert predict("3.3", "Which?", lambda: 2, choices=[1, 2]).commit("2").endswith("right.")


def test_a_cell_that_runs_again_keeps_the_prediction():
    predict("3.1", "How many keys?", 4096).commit("1000")
    again = predict("3.1", "How many keys?", 4096)
    assert again.committed and again.guess == 1000
    assert not predict("3.1", "Another question?", 4096).committed


def test_figure_and_its_words():
    card = predict("3.1", "How many?", 4, show=lambda: (SVG, "a curve"))
    assert "svg" not in str(card.get_state()["outcome"])
    card.commit(4)
    assert card.outcome["figure"].startswith("data:image/svg+xml;base64,") and card.outcome["alt"] == "a curve"


def test_the_prediction_can_be_drawn_in():
    card = predict("3.1", "How many?", 4, show=lambda guess: (SVG, f"a curve and your {guess}"))
    assert "a curve and your None" in card._repr_mimebundle_()[0]["text/html"]
    card.commit(3)
    assert card.outcome["alt"] == "a curve and your 3.0"


@pytest.mark.parametrize("show", [lambda: SVG, lambda: (SVG, ""), lambda: (1 / 0, "words")])
def test_a_figure_that_fails_does_not_take_the_answer_away(show):
    card = predict("3.1", "How many?", 4, show=show)
    card.commit(4)
    assert card.committed and "figure" not in card.outcome and "could not be drawn" in card.outcome["alt"]


def test_an_answer_that_fails_is_tried_again():
    measured = {}
    card = predict("3.1", "How many?", lambda: measured["n"])
    assert "Run the notebook to see the answer" in card._repr_mimebundle_()[0]["text/html"]
    assert "KeyError" in card.commit(4) and "run the cells above" in card.message and not card.committed
    measured["n"] = 8
    assert "2 times too low" in card.commit(4)


def test_saved_notebook_folds_the_answer_away():
    asked = []
    card = predict(
        "3.1",
        "Is 1 < 2 & how many?",
        lambda: asked.append(1) or 4096,
        "keys",
        lambda: (SVG, 'a "curve"'),
        explain="Why.",
    )
    data, _ = card._repr_mimebundle_()
    assert data["text/plain"] == repr(card) == "Predict 3.1: Is 1 < 2 & how many?"
    assert "4,096" not in data["text/plain"] and data["application/vnd.jupyter.widget-view+json"]
    before, inside = data["text/html"].split("<details><summary>Show the answer</summary>")
    assert html.escape("Is 1 < 2 & how many?") in before and "4,096" not in before and "Why." not in before
    assert "4,096 keys" in inside and "Why." in inside and 'alt="a &quot;curve&quot;"' in inside
    card.commit(1)
    assert asked == [1]  # computed once, for the saved notebook and for the reader


def test_repr_does_not_change_with_the_session():
    one, two = (predict("3.2", "Which?", "a", choices=["a", "b"]) for _ in range(2))
    one.commit("b")
    assert repr(one) == repr(two) == "Predict 3.2: Which? (a / b)"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"question": " "}, "a key and a question"),
        ({"choices": ["4"]}, "at least two"),
        ({"choices": ["a", "A"]}, "two of the choices are the same"),
        ({"choices": ["a", "b"]}, "none of its choices"),
        ({"tolerance": 10}, "0.1 stands for 10 %"),
        ({"answer": "many"}, "is no number"),
        ({"answer": float("nan")}, "not a number to compare with"),
    ],
)
def test_a_card_that_makes_no_sense(wrong, words):
    with pytest.raises(ValueError, match=words):
        predict(**{"key": "3.1", "question": "How many?", "answer": 4} | wrong)


def test_show_must_be_a_function():
    with pytest.raises(TypeError, match="drawn only when needed"):
        predict("3.1", "How many?", 4, show=(SVG, "words"))


def test_no_matplotlib_without_a_figure():
    code = (
        "import sys; from bigbird_mini.course import predict; c = predict('1', 'How many?', 4); c.commit('3'); "
        "c._repr_mimebundle_(); print('matplotlib' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"


def test_every_focused_element_keeps_its_keys_in_jupyterlab():
    script = str(predict("3.1", "How many?", 4)._esm)
    for tag in ("button", "input", "select", "canvas"):
        lines = [line for line in script.splitlines() if f'element("{tag}"' in line]
        assert lines and all("...OWN_KEYS" in line for line in lines)


# ---------------------------------------------------------------- drawn cells

WINDOW = BlockPattern.window(4, 3)


def test_cells_are_read_as_people_give_them():
    wanted = np.zeros((2, 3), bool)
    wanted[0, 1] = wanted[1, 2] = True
    for given in (
        "0,1 1,2",
        "(0, 1), (1, 2)",
        [(0, 1), (1, 2)],
        {(0, 1): 1, (1, 2): 1}.keys(),
        wanted,
        wanted.tolist(),
    ):
        found = read_cells(list(given) if not isinstance(given, str | list | np.ndarray) else given, (2, 3))
        assert np.array_equal(found, wanted)
    assert np.array_equal(read_cells(WINDOW, (4, 4)), WINDOW.grid()[0].numpy())
    assert not read_cells([], (2, 3)).any()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("0,3", "cell 0,3 is outside the grid of 2 rows and 3 columns"),
        ("abc", '"abc" cannot be read as cells'),
        ([(0, 1, 2)], "cannot be read"),
        ([(0.5, 1)], "cannot be read"),
        (np.ones((3, 2), bool), r"a grid of shape \(3, 2\); it must be \(2, 3\)"),
        (BlockPattern.bigbird(8, heads=2), "a pattern of 2 heads"),
    ],
)
def test_cells_that_cannot_be_read(given, words):
    with pytest.raises(ValueError, match=words):
        read_cells(given, (2, 3))


def test_a_drawing_is_compared_cell_by_cell():
    card = predict("3.4", "Draw a window of 3 on 4 blocks.", lambda: WINDOW, cells=4)
    assert card.shape == [4, 4] and "axes" in card.get_state() and "10 cells" not in str(card.get_state())
    assert card.commit("") == "Draw at least one cell first." and not card.committed
    said = card.commit("0,0 0,1 1,0 1,1 1,2 2,1 2,2 2,3 3,3 0,3")
    assert said == "You said 10 cells; it is 10 cells: 9 of 10 cells found, 1 missing, 1 too many."
    assert np.argwhere(card.guess != WINDOW.grid()[0].numpy()).tolist() == [[0, 3], [3, 2]]
    assert card.outcome["figure"].startswith("data:image/svg+xml")
    assert card.outcome["alt"].startswith(
        "First differing block: query block 0, key block 3: expected False, yours True"
    )
    right = predict("3.5", "And again?", WINDOW, cells=(4, 4))
    assert right.commit(WINDOW).endswith("it is 10 cells: right.")
    assert right.outcome["alt"] == (
        "10 cells. query block 0: key block 0 and 1. query block 1: key block 0-2. query block 2: key block 1-3. "
        "query block 3: key block 2 and 3."
    )


def test_a_saved_drawing_card_folds_the_grid_away():
    data, _ = predict("3.4", "Draw it.", WINDOW, cells=4, axes=("row", "column"))._repr_mimebundle_()
    before, inside = data["text/html"].split("<details>")
    assert "10 cells" not in before and "10 cells" in inside and 'alt="10 cells. row 0: column 0 and 1.' in inside


@pytest.mark.parametrize("cells", [0, 25, (2, 3, 4), (3, 30), 2.5])
def test_a_grid_that_nobody_could_draw(cells):
    with pytest.raises((ValueError, TypeError)):
        predict("3.4", "Draw it.", [], cells=cells)


def test_choices_or_cells():
    with pytest.raises(ValueError, match="not both"):
        predict("3.4", "Draw it.", "a", choices=["a", "b"], cells=4)


# ---------------------------------------------------------------- the score


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A place for the score, as where a learner sits."""
    monkeypatch.delenv("PYTEST_VERSION")
    monkeypatch.setenv("BIGBIRD_MINI_PROGRESS", str(tmp_path / "here" / "progress.json"))
    return tmp_path / "here" / "predictions.json"


def test_a_grader_and_pytest_keep_nothing():
    card = predict("3.1", "How many keys?", 4)
    card.commit(4, sure=90)
    assert card.score == "" and guesses.place() is None and card.sure == 90
    assert repr(predictions()) == "No prediction is kept yet.\nPredictions are not kept here."
    assert forget_predictions() == "There is no file of predictions."


def test_score_and_calibration(kept):
    assert not kept.exists()
    card = predict("3.1", "How many keys?", 100, tolerance=0.1)
    card.commit(95, sure="90")
    assert card.score == (
        "1 of 1 predictions right so far. 90 % sure: right 1 of 1. Half of your numbers were off by less than a factor "
        "of 1.1."
    )
    predict("3.2", "Which?", "a", choices=["a", "b"]).commit("b", sure=90)
    predict("3.3", "How many?", 10).commit(40, sure=99)
    predict("3.4", "Draw it.", WINDOW, cells=4).commit("0,0", sure=50)
    last = predict("3.5", "Which?", "a", choices=["a", "b"])
    last.commit("a")
    assert last.score == (
        "2 of 5 predictions right so far. 50 % sure: right 0 of 1. 90 % sure: right 1 of 2. 99 % sure: right 0 of 1. "
        "Half of your numbers were off by less than a factor of 2.5. "
        "You said 82 % on average and were right 25 %: you are surer than you should be."
    )
    assert predictions().calibration() == [(50, 0, 1), (90, 1, 2), (99, 0, 1)]
    page = repr(predictions())
    assert "✔ 3.1 (" in page and "✘ 3.4 (" in page and str(kept) in page
    assert "<td>1 of 2</td>" in predictions()._repr_html_()


def test_the_first_prediction_of_a_card_counts(kept, monkeypatch):
    predict("3.1", "How many?", 10).commit(40)
    monkeypatch.setattr(predicting, "_committed", {})  # another day, another kernel
    again = predict("3.1", "How many?", 10)
    again.commit(10)
    assert again.score.startswith("0 of 1 predictions right") and again.outcome["verdict"] == "right"
    assert forget_predictions() == f"{kept} is deleted." and not kept.exists()
    assert repr(predictions()).startswith("No prediction is kept yet.")


def test_well_judged():
    score = predictions()
    score.rows = {str(k): {"right": k != 0, "sure": 75.0, "factor": None, "key": "1", "day": ""} for k in range(4)}
    assert score.words().endswith("You said 75 % on average and were right 75 %: well judged.")
    score.rows = {str(k): {"right": True, "sure": 50.0, "factor": None, "key": "1", "day": ""} for k in range(4)}
    assert score.words().endswith("you are better than you think.")


@pytest.mark.parametrize("text", ["", "{", '{"version": 1, "cards": {"a": {"right": 1}}}', "[]", '{"version": "x"}'])
def test_a_damaged_file_is_put_aside(kept, text):
    kept.parent.mkdir()
    kept.write_text(text)
    card = predict("3.1", "How many?", 10)
    card.commit(10)
    assert card.score.startswith("1 of 1 predictions right") and "it is now predictions.damaged-" in card.score
    assert predictions().notice == "" and len(list(kept.parent.iterdir())) == 2


def test_a_file_of_a_newer_course_stays(kept):
    kept.parent.mkdir()
    kept.write_text('{"version": 2, "new": true}')
    card = predict("3.1", "How many?", 10)
    card.commit(10)
    assert "newer version" in card.score and kept.read_text() == '{"version": 2, "new": true}'


def test_a_place_that_cannot_be_written(kept):
    kept.parent.write_text("a file where the folder should be")
    card = predict("3.1", "How many?", 10)
    card.commit(10)
    assert card.outcome["verdict"] == "right" and "cannot be" in card.score


@pytest.mark.parametrize("sure", [-1, 101, "very", float("nan")])
def test_how_sure_is_a_percentage(sure):
    card = predict("3.1", "How many?", 10)
    assert "a percentage from 0 to 100" in card.commit(10, sure=sure) and not card.committed
    card._handle_custom_msg({"kind": "commit", "text": "10", "sure": ""}, [])
    assert card.committed and card.sure is None
