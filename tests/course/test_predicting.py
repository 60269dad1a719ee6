"""predict without a browser: reading numbers, committing once, and what a saved notebook shows."""

import html
import math
import subprocess
import sys

import pytest

pytest.importorskip("anywidget")
from bigbird_mini.course import predict, predicting
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
    for tag in ("button", "input"):
        lines = [line for line in script.splitlines() if f'element("{tag}"' in line]
        assert lines and all("...OWN_KEYS" in line for line in lines)
