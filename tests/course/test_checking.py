"""check(): what it shows, how it fails, and what it makes of calls that no task foresaw."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import bigbird_mini.course as course
from bigbird_mini.course import catalogue, checking, judging
from bigbird_mini.course.catalogue import Case, Look, Mistake, Task, add, all_tasks
from bigbird_mini.course.checking import Misuse, NotPassed, check
from bigbird_mini.course.judging import evaluate


def seven():
    return 7


TOO_MANY = Mistake("one too <many>", "you count from the other end. Where does it begin?", (lambda: 8,))
SAMPLE = Task(
    number="99.1",
    title="a <sample>",
    points=3,
    solution=seven,
    cases=lambda: [Case("For nothing", {})],
    mistakes=(TOO_MANY,),
    hints=("first", "second", "third"),
    small={},
    lesson="99_sample",
    look=Look("The section", "cell", "line = 1"),
)


@pytest.fixture
def sample(monkeypatch):
    """A task of our own beside those of the course."""
    monkeypatch.setattr(catalogue, "_TASKS", dict(catalogue._TASKS))
    return add(SAMPLE).number


def shown_by(number, *answers):
    """What a notebook would show of a check: the output's data, and the exception (None where it passed)."""
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    InteractiveShell.instance()
    caught = None
    try:
        with capture_output() as shown:
            try:
                check(number, *answers)
            except NotPassed as error:
                caught = error
    finally:
        InteractiveShell.clear_instance()
    (output,) = shown.outputs
    return output.data, caught, shown.stdout


def test_check_is_the_function_whatever_is_imported_first():
    assert course.check is check and callable(course.check)
    code = (
        "import importlib, pkgutil, bigbird_mini.course.checking, bigbird_mini.course as c\n"
        "for m in pkgutil.iter_modules(c.__path__):\n"
        "    m.name in ('pytest_grade', '__main__') or importlib.import_module('bigbird_mini.course.' + m.name)\n"
        "assert all(callable(getattr(c, name)) for name in c.__all__)\n"
        "from bigbird_mini.course import check; check('1.3', ...)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8")
    assert "○ Task 1.3 (the memory of the scores): not attempted yet, 0 of 1 point." in done.stdout
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = course.nothing


def test_check_loads_no_matplotlib_and_no_compiler():
    code = (
        "import sys; from bigbird_mini.course import check\n"
        "try: check('1.1', lambda q, k, v: q @ k.T @ v)\n"
        "except AssertionError: pass\n"
        "import torch; from bigbird_mini.course.tally import tallied; tallied(lambda: torch.ones(2, 2))\n"
        "print({'matplotlib', 'anywidget', 'IPython', 'torch._dynamo'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8")
    assert done.stdout.splitlines()[-1] == "set()"


def test_right_prints_one_line_and_returns_nothing(sample, capsys):
    assert check(sample, seven) is None
    assert capsys.readouterr().out == "✔ Task 99.1 (a <sample>): right, 3 of 3 points.\n"


def test_wrong_raises_quietly(sample, capsys, learner):
    with pytest.raises(NotPassed) as caught:
        check(sample, lambda: 9)
    assert capsys.readouterr().out.startswith(
        "✘ Task 99.1 (a <sample>): wrong, 0 of 3 points. For nothing: found 9, expected 7."
    )
    (line,) = caught.value._render_traceback_()
    assert "\n" not in line and "see the message above" in line


def test_a_grader_sees_the_same_line_as_the_learner(sample, capsys):
    """Also a grader that reads no records, such as nbval alone: it shows the exception."""
    with pytest.raises(NotPassed) as caught:
        check(sample, lambda: 8)
    said = capsys.readouterr().out
    assert caught.value._render_traceback_() == [said.strip()] and "One too <many>" in said


def test_in_a_notebook_it_shows_words_picture_colours_of_the_theme_and_a_record(sample):
    data, caught, _ = shown_by(sample, lambda: 8)
    page = data["text/html"]
    assert data["text/plain"].startswith("✘ Task 99.1") and str(caught) == data["text/plain"]
    assert 'role="status"' in page and "wrong, 0 of 3 points" in page and "a &lt;sample&gt;" in page
    assert "color: var(--jp-content-font-color1, inherit)" in page and "background: var(--jp-layout-color1" in page
    assert 'src="data:image/svg+xml;base64,' in page and 'alt="Two bars: expected 7, yours 8."' in page
    why = f"One too <many>: {TOO_MANY.says} For nothing: found 8, expected 7."
    row = {"task": "99.1", "title": "a <sample>", "points": 0, "max": 3, "outcome": "wrong", "why": why}
    assert data[checking.MIME] == row


def test_the_picture_of_a_tensor_has_words_and_survives_a_broken_drawing(monkeypatch):
    answer = lambda q, k, v: torch.softmax(q @ k.T, -1) @ v  # noqa: E731
    data, _, _ = shown_by("1.1", answer)
    assert 'alt="First differing place: query 0, key 0: expected 0.24' in data["text/html"]
    assert "Different are: queries 0-5: keys 0-5." in data["text/html"]

    def broken(_failure):
        raise RuntimeError("no ink")

    monkeypatch.setattr(judging, "draw_failure", broken)
    data, _, _ = shown_by("1.1", answer)
    assert "<img" not in data["text/html"] and "No 1/√d" in data["text/html"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        ("1.9", r"there is no task '1\.9'; did you mean 1\.\d"),
        ("1.1x", r"did you mean 1\.1 \(one head by hand\)"),
        ("head_atention", r"did you mean 1\.1 \(one head by hand\)"),
        ("multihead", r"did you mean 1\.2"),
        ("memory of the scores", r"did you mean 1\.3"),
        ("", r"there are 1\.1 \(one head by hand\), 1\.2"),
        ("zzz", r"there are 1\.1"),
    ],
)
def test_unknown_task_offers_the_nearest(number, words):
    with pytest.raises(Misuse, match=words) as caught:
        check(number, 1)
    assert caught.value._render_traceback_() == [str(caught.value)] and isinstance(caught.value, ValueError)


def test_number_without_quotes():
    with pytest.raises(Misuse, match="in quotes"):
        check(1.1, 1)
    with pytest.raises(Misuse, match="in quotes"):
        check(seven, "1.1")


def test_wrong_count_of_answers():
    with pytest.raises(Misuse, match=r'write check\("1.1", head_attention\): 1 to check, 0 given'):
        check("1.1")
    with pytest.raises(Misuse, match="1 to check, 2 given"):
        check("1.1", 1, 2)


def test_a_task_that_asks_for_a_value(sample):
    add(replace(SAMPLE, number="99.2", solution=42, cases=list, mistakes=(Mistake("six by eight", "Count.", (48,)),)))
    assert evaluate("99.2", 42).outcome == "right"
    assert evaluate("99.2", 48).mistake.name == "six by eight"
    assert evaluate("99.2", 41).why == "The answer: found 41, expected 42."
    assert evaluate("99.2", ...).outcome == "not attempted"
    assert "this is a str ('42')" in evaluate("99.2", "42").why
    add(replace(SAMPLE, number="99.3", solution="window", cases=list, mistakes=()))
    assert evaluate("99.3", "window").outcome == "right"
    assert evaluate("99.3", "global").why == "The answer: a str ('global') came back, a str ('window') should."


def test_registry_refuses_mistakes(sample):
    with pytest.raises(ValueError, match=r"task 99\.1 is there twice: seven and test_registry"):
        add(replace(SAMPLE, solution=test_registry_refuses_mistakes))
    with pytest.raises(ValueError, match="looks like"):
        replace(SAMPLE, number="9")
    with pytest.raises(ValueError, match="at least 1 point"):
        replace(SAMPLE, points=0)


def test_tasks_are_in_order(monkeypatch):
    monkeypatch.setattr(catalogue, "_TASKS", {})
    for number in ("10.1", "9.2", "9.10"):
        add(replace(SAMPLE, number=number))
    assert [n for n in all_tasks() if n[0] in "19" and n[1:2] != "."] + ["9.2", "9.10"] == ["10.1", "9.2", "9.10"]
    assert list(all_tasks())[-3:] == ["9.2", "9.10", "10.1"]


# ---------------------------------------------------------------- the record of the tasks of the course


@pytest.mark.parametrize("number", ["1.1", "1.2", "1.3", "1.4", "1.5"])
def test_right_answer_is_a_plain_record(number):
    task = all_tasks()[number]
    record = evaluate(number, task.solution).record()
    points = {"points": task.points, "max": task.points}
    assert record == {"task": number, "title": task.title, **points, "outcome": "right", "why": ""}


def test_points_of_exercise_01():
    assert sum(t.points for t in all_tasks().values() if t.lesson == "01_dense_attention") == 10


def test_where_it_differs_is_said():
    why = evaluate("1.2", lambda *x: all_tasks()["1.2"].solution(*x).flip(-1)).why
    assert why.startswith(
        "Where every token is real (one-hot values): first differing place: document 0, head 0, query 0"
    )
    why = evaluate("1.1", lambda q, k, v: (s := (q @ k.T / q.shape[1] ** 0.5).exp()) / s.sum(-1, keepdim=True) @ v).why
    assert "With scores in the thousands" in why and "yours nan" in why and "nan comes from" in why
    assert (
        evaluate("1.3", lambda n, heads, size=4: n).why
        == "For n = 7, heads = 3: found 7, expected 588, 84 times too small."
    )
