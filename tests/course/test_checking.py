"""check(): what it shows, how it fails, and what it makes of calls that no task foresaw."""

import subprocess
import sys

import pytest

import bigbird_mini.course as course
from bigbird_mini.course import checking
from bigbird_mini.course.checking import Crashed, NotPassed, Result, Task, Wrong, check, evaluate, task
from bigbird_mini.course.compare import call, same_integer


@pytest.fixture
def sample(monkeypatch):
    """A task of our own beside those of the course."""
    monkeypatch.setattr(checking, "_TASKS", dict(checking._TASKS))

    @task("99.1", "a <sample>", points=3)
    def sample_test(answer):
        if answer == "break the test":
            raise KeyError("oops")
        same_integer(call(answer) if callable(answer) else answer, 7, "For nothing")

    return "99.1"


def test_check_is_the_function_whatever_is_imported_first():
    assert course.check is check and callable(course.check)
    code = "import bigbird_mini.course.checking; from bigbird_mini.course import check; check('1.3', ...)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "○ Task 1.3 (the memory of the scores): not attempted yet, 0 of 1 point." in done.stdout
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = course.nothing


def test_right_prints_one_line_and_returns_nothing(sample, capsys):
    assert check(sample, 7) is None
    assert capsys.readouterr().out == "✔ Task 99.1 (a <sample>): right, 3 of 3 points.\n"


def test_wrong_raises_quietly(sample, capsys):
    with pytest.raises(NotPassed) as caught:
        check(sample, lambda: 8)
    assert capsys.readouterr().out.startswith("✘ Task 99.1 (a <sample>): wrong, 0 of 3 points. For nothing: found 8")
    (line,) = caught.value._render_traceback_()
    assert "\n" not in line and "see the message above" in line


def test_in_a_notebook_it_shows_words_colours_of_the_theme_and_a_record(sample, monkeypatch):
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    shell = InteractiveShell.instance()
    try:
        with capture_output() as shown, pytest.raises(NotPassed):
            check(sample, 8)
    finally:
        shell.clear_instance()
    (output,) = shown.outputs
    page = output.data["text/html"]
    assert output.data["text/plain"].startswith("✘ Task 99.1")
    assert 'role="status"' in page and "wrong, 0 of 3 points" in page and "a &lt;sample&gt;" in page
    assert "color: var(--jp-content-font-color1, inherit)" in page and "background: var(--jp-layout-color1" in page
    why = "For nothing: found 8, expected 7."
    row = {"task": "99.1", "title": "a <sample>", "points": 0, "max": 3, "outcome": "wrong", "why": why}
    assert output.data[checking.MIME] == row


@pytest.mark.parametrize("number", ["7.77", "1.1x", "", "head_attention"])
def test_unknown_task(number):
    with pytest.raises(ValueError, match=r"there is no task .*; the tasks are 1\.1, 1\.2, 1\.3"):
        check(number, 1)


def test_number_without_quotes():
    with pytest.raises(ValueError, match="put the task number in quotes"):
        check(1.1, 1)


def test_wrong_count_of_answers():
    with pytest.raises(ValueError, match=r'write check\("1.1", head_attention\): 1 to check, 0 given'):
        check("1.1")


def test_outcomes_of_odd_answers(sample):
    def todo():
        raise NotImplementedError("yet to come")

    def leaving():
        sys.exit(3)

    def from_torch():
        raise_it = [NotImplementedError("Could not run 'aten::conv' with these arguments")]
        raise raise_it[0]

    def deep(n=0):
        return deep(n + 1)

    assert evaluate(sample, todo).outcome == "not attempted"
    assert evaluate(sample, lambda: NotImplemented).outcome == "not attempted"
    assert evaluate(sample, leaving).outcome == "error"
    assert evaluate(sample, from_torch).outcome == "error"
    assert evaluate(sample, lambda: None).why == "Your function returns None: is there a `return` line?"
    assert len(evaluate(sample, deep).why.splitlines()) == 2 + checking.LINES_SHOWN
    fault = evaluate(sample, "break the test")
    assert fault.outcome == "error" and "a fault of the course" in fault.why and "KeyError: 'oops'" in fault.why


def test_only_the_learners_lines_are_shown():
    def nothing():
        raise Wrong("x")

    def learner(numbers):
        return max(numbers)  # fails in C: the line here is the last one

    with pytest.raises(Crashed) as caught:
        call(learner, numbers=[])
    result = checking._crashed(Task("9.9", "t", 1, nothing), caught.value, (learner,))
    assert result.why.splitlines()[0] == "ValueError: max() arg is an empty sequence (called with numbers = [])"
    assert result.why.endswith("return max(numbers)  # fails in C: the line here is the last one")
    assert checking._is_learners("/var/folders/ipykernel_123/456.py", set())
    assert checking._is_learners("C:\\Temp\\ipykernel_123\\456.py", set())
    assert checking._is_learners("<ipython-input-3-abc>", set())
    assert not checking._is_learners(checking.__file__, {checking.__file__})


def test_registry_refuses_mistakes(sample):
    with pytest.raises(ValueError, match=r"task 99\.1 is there twice"):
        task("99.1", "again")(lambda answer: None)
    with pytest.raises(ValueError, match="looks like"):
        task("9", "no dot")
    with pytest.raises(ValueError, match="at least 1 point"):
        task("99.2", "for nothing", points=0)


def test_tasks_are_in_order(monkeypatch):
    monkeypatch.setattr(checking, "_TASKS", {})
    for number in ("10.1", "9.2", "9.10"):
        task(number, "t")(lambda: None)
    assert [n for n in checking.all_tasks() if n[0] != "1" or n == "10.1"] == ["9.2", "9.10", "10.1"]


def test_every_outcome_has_a_mark_of_its_own():
    marks = [look[0] for look in checking.LOOKS.values()]
    assert len(set(marks)) == len(marks)
    one = Task("1.9", "t", 1, print)
    for outcome, (mark, words, _) in checking.LOOKS.items():
        assert Result(one, outcome, "Because.").text().startswith(f"{mark} Task 1.9 (t): {words}, ")
