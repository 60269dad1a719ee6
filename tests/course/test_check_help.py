"""What helps beyond the outcome: a mistake told further each time, hints by trying, the map, reviews, handover."""

import contextlib
import json
import os
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import pytest
import torch

from bigbird_mini.course import diary, mine_or_reference, progress
from bigbird_mini.course.__main__ import main
from bigbird_mini.course.catalogue import all_tasks
from bigbird_mini.course.checking import NotPassed, check
from bigbird_mini.course.effort import fingerprint
from bigbird_mini.course.hints import hint, worked
from bigbird_mini.course.judging import Misuse, evaluate
from bigbird_mini.course.progressing import Nothing, choices_for, review

HEAD = all_tasks()["1.1"]


def unscaled(q, k, v):
    return torch.softmax(q @ k.T, -1) @ v


def over_queries(q, k, v):
    return torch.softmax(q @ k.T / q.shape[1] ** 0.5, 0) @ v


def wrong_at_random(number):
    return lambda q, k, v: HEAD.solution(q, k, v) + number


def told(answer, capsys, number="1.1"):
    """What is printed when this answer is checked."""
    with contextlib.suppress(NotPassed):
        check(number, answer)
    return capsys.readouterr().out


# ---------------------------------------------------------------- the same mistake again


def test_the_second_time_a_smaller_case_the_third_a_place_in_the_lesson(learner, capsys):
    first, second, third = (told(unscaled, capsys).splitlines() for _ in range(3))
    assert first[0] == second[0] == third[0] and "No 1/√d: " in first[0]
    stuck = 'Stuck? Run hint("1.1").'
    small = "A smaller case, to follow with a pencil: with q = [[1, 0, 1, 0], [2, 2, 0, 2]]; "
    assert first[1:] == [stuck]
    assert second[1].startswith(small) and "the right result is [[0.731, 0.269]," in second[1]
    assert second[1].endswith("yours gives [[0.881, 0.119], [0.5, 0.5]].") and second[2:] == [stuck]
    assert third[1] == second[1] and third[3] == stuck
    assert third[2] == "Look again: lesson 01, «Why divide by √d», the cell with `undivided = raw.softmax(-1)`."


def test_another_mistake_begins_anew_and_success_forgets(learner, capsys):
    told(unscaled, capsys)
    assert "smaller case" not in told(over_queries, capsys)
    assert "smaller case" in told(unscaled, capsys)
    assert told(HEAD.solution, capsys) == "✔ Task 1.1 (one head by hand): right, 2 of 2 points.\n"
    assert "smaller case" not in told(unscaled, capsys)


def test_an_unknown_mistake_is_helped_too(learner, capsys):
    outputs = [told(wrong_at_random(0.5 + k), capsys) for k in range(3)]
    assert ["smaller case" in out for out in outputs] == [False, True, True]
    assert ["Look again: lesson 01, «All queries" in out for out in outputs] == [False, False, True]


def test_the_place_in_the_lesson_is_a_link(learner, capsys):
    from bigbird_mini.course.checking import _help, _html

    for _ in range(3):
        result = evaluate("1.1", unscaled)
        said = _help(result)
    page = _html(result, said)
    assert '<a href="../lessons/01_dense_attention.ipynb#Why-divide-by-√d">Why divide by √d</a>' in page
    assert "<code>undivided = raw.softmax(-1)</code>" in page


def test_not_attempted_is_no_attempt(learner, capsys):
    def stub(q, k, v):
        raise NotImplementedError

    assert told(stub, capsys).count("\n") == 1 and diary.standing("1.1").attempts == 0


def test_while_grading_nothing_is_read_said_or_written(learner, capsys, monkeypatch):
    for _ in range(3):
        told(unscaled, capsys)
    before = learner.read_bytes()
    for name in ("PYTEST_VERSION", "BIGBIRD_GRADING"):
        monkeypatch.setenv(name, "1")
        assert len(told(unscaled, capsys).splitlines()) == 1
        assert diary.place() is None and diary.rows() == {} and diary.due() == []
        assert diary.reviewed("1.1", "no 1/√d", True) is None
        assert hint("1.1").opened == 0 and not hint("1.1").solution
        monkeypatch.delenv(name)
    assert learner.read_bytes() == before and hint("1.1").opened == 1


# ---------------------------------------------------------------- telling attempts apart


def test_an_attempt_is_what_the_code_does():
    def one(q, k, v):
        """Words."""
        scores = q @ k.T  # a comment
        return torch.softmax(scores, -1) @ v

    def renamed(q, k, v):
        """Other words."""

        products = q @ k.T
        return torch.softmax(products, -1) @ v

    def other(q, k, v):
        """Words."""
        scores = torch.matmul(q, k.T)
        return torch.softmax(scores, -1) @ v

    prints = [evaluate("1.1", answer).effort for answer in (one, one, renamed, other, over_queries)]
    assert prints[0] == prints[1] == prints[2] and len(set(prints)) == 3
    assert evaluate("1.1", lambda q, k, v: 1 / 0).effort == evaluate("1.1", lambda q, k, v: 1 / 0).effort != ""
    # what differs only outside the function shows in what it gives
    assert evaluate("1.1", wrong_at_random(1)).effort != evaluate("1.1", wrong_at_random(2)).effort
    assert fingerprint(3, [object()]) == fingerprint(3, [object()])


# ---------------------------------------------------------------- hints


def test_hints_open_by_trying(learner, capsys):
    assert hint("1.1").opened == 0
    assert repr(hint("1.1")).startswith("Three hints and then the worked solution open one by one, each by a try")
    for _ in range(3):
        told(unscaled, capsys)  # the same attempt again
    for attempt in range(1, 4):
        shown = hint("1.1")
        assert (shown.opened, shown.solution) == (attempt, False)
        assert repr(shown).splitlines()[:-1] == [f"Hint {k} of 3: {HEAD.hints[k - 1]}" for k in range(attempt, 0, -1)]
        assert ("The worked solution opens" if attempt == 3 else "The next hint opens") in shown.following
        assert HEAD.why not in repr(shown)
        assert ("<details>" in shown._repr_html_()) == (attempt > 1)
        told(wrong_at_random(attempt), capsys)
    shown = hint("1.1")
    assert shown.solution and shown.following == ""
    assert repr(shown).startswith("The worked solution of task 1.1:\n\ndef head_attention(q: Tensor")
    assert HEAD.why in repr(shown) and HEAD.hints[2] in repr(shown)
    assert ">def head_attention(q: Tensor, k: Tensor, v: Tensor) -&gt; Tensor:" in shown._repr_html_()


def test_success_opens_the_solution_at_once(learner, capsys):
    told(HEAD.solution, capsys)
    shown = hint("1.1")
    assert (shown.opened, shown.solution, shown.following) == (0, True, "")
    assert HEAD.why in repr(shown) and HEAD.hints[0] not in repr(shown)
    assert hint("1.2").opened == 0 and not hint("1.2").solution


def test_a_crash_is_an_attempt(learner, capsys):
    told(lambda q, k, v: 1 / 0, capsys)
    assert hint("1.1").opened == 1


def test_hints_of_no_task(learner):
    with pytest.raises(Misuse, match="did you mean 1"):
        hint("1.9")


def test_hint_cells_run_while_grading():
    assert "So try first" in repr(hint("1.3")) and "worked solution of task" not in repr(hint("1.3"))


def test_solution_that_is_a_value():
    from dataclasses import replace

    assert worked(replace(HEAD, solution=22)) == "answer = 22"


# ---------------------------------------------------------------- the file


def test_what_is_kept(learner, capsys, monkeypatch):
    monkeypatch.setattr(diary, "today", lambda: date(2026, 11, 24))
    told(unscaled, capsys)
    told(HEAD.solution, capsys)
    page = json.loads(learner.read_text("utf-8"))
    row = page["tasks"]["1.1"]
    assert (len(row["attempts"]), row["passed"], row["told"], row["outcome"]) == (1, "2026-11-24", {}, "right")
    assert page["reviews"] == {"1.1 no 1/√d": {"step": 0, "due": "2026-11-25"}}
    assert "softmax" not in learner.read_text("utf-8"), "no code is kept"
    assert [p.name for p in learner.parent.iterdir()] == ["progress.json"], "no draft is left"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"version": 1}',
        '{"version": "x", "tasks": {}, "reviews": {}}',
        '{"version": 1, "tasks": {"1.1": {}}, "reviews": {}}',
        '{"version": 1, "tasks": {"1.1": {"attempts": [], "passed": "", "told": {"a": "b"}, "outcome": ""}},'
        ' "reviews": {}}',
        '{"version": 1, "tasks": {}, "reviews": {"1.1 x": {"step": 9, "due": "2026-01-01"}}}',
        '{"version": 1, "tasks": {}, "reviews": {"1.1 x": {"step": 0, "due": "soon"}}}',
        b"\xff\xfe\x00",
    ],
)
def test_a_damaged_file_is_put_aside_with_a_sentence(learner, capsys, text):
    learner.parent.mkdir()
    learner.write_bytes(text if isinstance(text, bytes) else text.encode())
    before = learner.read_bytes()
    said = told(unscaled, capsys)
    assert f"Your progress file {learner} could not be read (" in said and "and a new one begun." in said
    (aside,) = learner.parent.glob("progress.damaged-*.json")
    assert aside.read_bytes() == before and aside.name in said
    assert diary.standing("1.1").attempts == 1 and "could not be read" not in told(unscaled, capsys)


def test_a_newer_file_is_left_alone(learner, capsys):
    learner.parent.mkdir()
    learner.write_text('{"version": 2, "what": "is this"}', "utf-8")
    said = [told(unscaled, capsys) for _ in range(2)]
    assert "is of a newer version of the course" in said[0] and "newer version" not in said[1]
    assert "smaller case" in said[1], "this session remembers"
    assert learner.read_text("utf-8") == '{"version": 2, "what": "is this"}'


def test_a_place_that_cannot_be_written(tmp_path, learner, capsys, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(diary.VARIABLE, str(tmp_path / "file" / "progress.json"))
    said = [told(unscaled, capsys) for _ in range(2)]
    assert "only this session remembers" in said[0]
    assert "only this session" not in said[1] and "smaller case" in said[1]


def test_two_sessions_write_one_file(learner):
    """Each reads before it writes: neither loses what the other kept."""
    code = "from bigbird_mini.course import diary; import sys; diary.note(sys.argv[1], 'wrong', 'm', 'x')"
    clean = {k: v for k, v in os.environ.items() if k not in ("PYTEST_VERSION", "BIGBIRD_GRADING")}
    diary.note("1.1", "right", "", "a")
    subprocess.run([sys.executable, "-c", code, "1.2"], check=True, env=clean)
    diary.note("1.3", "right", "", "b")
    assert set(diary.rows()) == {"1.1", "1.2", "1.3"}


def test_where_it_is_kept(monkeypatch, learner, tmp_path):
    assert diary.place() == learner
    monkeypatch.setenv(diary.VARIABLE, "OFF")
    assert diary.place() is None
    monkeypatch.delenv(diary.VARIABLE)
    for platform, name, folder in [("linux", "XDG_DATA_HOME", "x"), ("win32", "LOCALAPPDATA", "y")]:
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setenv(name, str(tmp_path / folder))
        assert diary.place() == tmp_path / folder / "bigbird_mini" / "progress.json"
        monkeypatch.delenv(name)
        monkeypatch.setattr(Path, "home", lambda: tmp_path)
        assert tmp_path in diary.place().parents
    monkeypatch.setattr(sys, "platform", "darwin")
    assert diary.place() == tmp_path / "Library" / "Application Support" / "bigbird_mini" / "progress.json"
    monkeypatch.setenv("JPY_SESSION_NAME", "/somewhere/solutions/01_dense_attention.ipynb")
    assert diary.place() is None, "running the worked solution is no success of the learner's"


def test_off_remembers_in_the_session_only(learner, capsys, monkeypatch):
    monkeypatch.setenv(diary.VARIABLE, "off")
    assert "smaller case" not in told(unscaled, capsys) and "smaller case" in told(unscaled, capsys)
    assert not learner.parent.exists() and "Not kept in any file." in repr(progress())


# ---------------------------------------------------------------- the map and the reviews


def test_the_map(learner, capsys, monkeypatch):
    monkeypatch.setattr(diary, "today", lambda: date(2026, 11, 24))
    told(unscaled, capsys)
    told(HEAD.solution, capsys)
    told(lambda n, heads, size=4: n, capsys, "1.3")
    lines = repr(progress()).splitlines()
    assert lines[0] == "Lesson 01 dense attention: 1 of 5 tasks, 2 of 10 points"
    assert " ".join(lines[1].split()) == "✔ 1.1 one head by hand attention of one head passed 2026-11-24, 1 other try"
    assert "○ 1.2 " in lines[2] and lines[2].endswith("not attempted yet")
    assert "✘ 1.3 " in lines[3] and lines[3].endswith("wrong, 1 try")
    assert lines[-2:] == ["  2026-11-25: task 1.1, no 1/√d", f"Kept in {learner}; nothing leaves this computer."]
    page = progress()._repr_html_()
    assert '<th scope="col"' in page and "<caption" in page and "passed 2026-11-24" in page
    assert main(["progress"]) == 0 and capsys.readouterr().out.splitlines() == lines


def test_a_mistake_comes_back_after_longer_and_longer(learner, capsys, monkeypatch):
    day = date(2026, 11, 24)
    monkeypatch.setattr(diary, "today", lambda: day)
    told(unscaled, capsys)
    for step, wait in enumerate(diary.STEPS):
        assert diary.due() == [("1.1", "no 1/√d", day + timedelta(days=wait))]
        day += timedelta(days=wait)
        again = diary.reviewed("1.1", "no 1/√d", right=True)
        assert (again is None) == (step == len(diary.STEPS) - 1)
    assert diary.due() == []
    told(unscaled, capsys)
    diary.reviewed("1.1", "no 1/√d", right=True)
    assert diary.reviewed("1.1", "no 1/√d", right=False) == day + timedelta(days=1)


def test_a_review_asks_which_mistake_it_was(learner, capsys, monkeypatch):
    pytest.importorskip("anywidget")
    assert repr(review()).startswith("There is nothing to look at again: a mistake")
    told(unscaled, capsys)
    nothing = review()
    assert isinstance(nothing, Nothing) and (diary.today() + timedelta(days=1)).isoformat() in repr(nothing)
    tomorrow = diary.today() + timedelta(days=1)
    monkeypatch.setattr(diary, "today", lambda: tomorrow)
    card = review()
    assert "First differing place: query 0, key 0" in capsys.readouterr().out
    assert "no 1/√d" in card.choices and len(card.choices) == 4 and "no 1/√d" not in card.question
    assert "right" in card.commit("no 1/√d")
    assert diary.due() == [("1.1", "no 1/√d", tomorrow + timedelta(days=3))]


def test_a_wrong_answer_to_a_review_brings_it_back_tomorrow(learner, capsys, monkeypatch):
    pytest.importorskip("anywidget")
    told(lambda q, k, v: torch.softmax(q @ k / 2, -1) @ v, capsys)
    due = diary.today() + timedelta(days=30)
    monkeypatch.setattr(diary, "today", lambda: due)
    card = review()
    assert "RuntimeError: mat1 and mat2" in card.question and "keys not turned" not in card.question.casefold()
    card.commit(next(choice for choice in card.choices if choice != "keys not turned"))
    assert diary.due() == [("1.1", "keys not turned", due + timedelta(days=1))]


def test_choices_hold_the_right_one_and_are_always_the_same():
    for task in all_tasks().values():
        for mistake in task.mistakes:
            names = choices_for(task, mistake)
            assert mistake.name in names and len(set(names)) == 4 and names == choices_for(task, mistake)


# ---------------------------------------------------------------- one mistake, one red task


def in_notebook(code, **more):
    """Run code as a notebook's cells share one namespace; returns that."""
    names = {"mine_or_reference": mine_or_reference, **more}
    exec(compile(code, "cell", "exec"), names)
    return names


RIGHT = "def score_bytes(n, heads, size=4): return n * n * heads * size\n"


def test_later_cells_use_what_passes(capsys):
    names = in_notebook(RIGHT + "f = mine_or_reference('1.3')")
    assert names["f"] is names["score_bytes"]
    assert capsys.readouterr().out == "Your own score_bytes is used here: task 1.3 is right.\n"


@pytest.mark.parametrize("code", ["", "score_bytes = ...\n", RIGHT.replace("n * n", "n"), "score_bytes = 1 / 2\n"])
def test_later_cells_use_the_courses_own_where_it_does_not(code, capsys):
    names = in_notebook(code + "f = mine_or_reference('1.3')")
    assert names["f"](3, 2, bytes_per_number=1) == 18
    assert "The course's score_bytes is used here: task 1.3 is not right yet" in capsys.readouterr().out


def test_what_failed_is_not_run_again(capsys, monkeypatch):
    """An endless loop would cost its time at every later cell."""
    calls = []
    code = "def score_bytes(n, heads, size=4):\n    calls.append(n)\n    return n\n"
    names = in_notebook(code, calls=calls)
    assert evaluate("1.3", names["score_bytes"]).outcome == "wrong"
    before = len(calls)
    exec("f = mine_or_reference('1.3')", names)
    assert len(calls) == before and names["f"](1, 1) == 4
    exec(code + "f = mine_or_reference('1.3')", names)
    assert len(calls) > before, "a function written anew is judged anew"


def test_what_was_interrupted_is_not_run_again(capsys, monkeypatch):
    calls = []

    def score_bytes(n, heads, size=4):
        calls.append(n)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate("1.3", score_bytes)
    in_notebook("f = mine_or_reference('1.3')", score_bytes=score_bytes)
    assert len(calls) == 1


def test_the_courses_own_is_no_answer(capsys):
    result = evaluate("1.3", in_notebook("f = mine_or_reference('1.3')")["f"])
    assert result.outcome == "not attempted" and "the course's own function" in result.why
    with pytest.raises(Misuse, match="did you mean"):
        mine_or_reference("1.33")
