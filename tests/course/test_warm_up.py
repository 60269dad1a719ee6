"""Before and beside a task: the warm-up card, a test that the learner writes, claims in prose, the tutor's file."""

import builtins
from pathlib import Path

import pytest
import torch

pytest.importorskip("anywidget")
from bigbird_mini.course import claims, tutor
from bigbird_mini.course.catalogue import all_tasks, find_task
from bigbird_mini.course.judging import Misuse
from bigbird_mini.course.killing import judge_test
from bigbird_mini.course.submission import manifest
from bigbird_mini.course.warming import pieces, warm_up

ROOT = Path(__file__).parents[2]
WARM = [number for number, task in all_tasks().items() if task.distractors]


def put_right(card):
    """The card's lines as the worked solution has them, the wrong ones left out."""
    lines = pieces(card.task)[1]
    wrong = [[text, 1, False] for text in card.task.distractors]
    card.lines = [[text, indents, True] for text, indents in lines] + wrong


def test_the_three_longest_functions_of_the_first_exercise_have_one():
    code = {number: len(pieces(task)[1]) for number, task in all_tasks().items() if number.startswith("1.")}
    assert sorted(code, key=code.get)[-3:] == sorted(WARM, key=code.get) and len(WARM) == 3


@pytest.mark.parametrize("number", WARM)
def test_the_lines_make_the_solution(number):
    card = warm_up(number)
    assert card.lines == warm_up(number).lines, "the same card in every session"
    texts = [text for text, _, _ in card.lines]
    solution = [text for text, _ in pieces(card.task)[1]]
    assert texts != solution and sorted(texts) == sorted([*solution, *card.task.distractors])
    assert not any("#" in text or text.startswith('"""') for text in texts)
    assert len(set(texts)) == len(texts) and card.wrong == 2
    put_right(card)
    assert card.run() == "Now write it yourself in the cell below, without looking."
    assert card.outcome == {"verdict": "right", "words": card.run()}


@pytest.mark.parametrize("number", WARM)
def test_each_wrong_line_is_wrong(number):
    """In the place of the line that it is like, it does not pass."""
    for wrong in find_task(number).distractors:
        card = warm_up(number)
        put_right(card)
        like = [line[0] for line in card.lines if line[2] and line[0][:5] == wrong[:5]]
        assert like, f"{wrong} is like no line"
        for text in like:
            put_right(card)
            card.lines = [[wrong if line[0] == text else line[0], *line[1:]] for line in card.lines if line[2]]
            card.run()
            assert card.outcome["verdict"] in ("wrong", "error in your code"), card.source()


def test_what_breaks_is_said():
    card = warm_up("1.4")
    put_right(card)
    card.lines = [[text, 1, used] for text, _, used in card.lines]
    assert (
        card.run()
        == "Python cannot read this, at `grid[g, :] = True`: expected an indented block after 'for' statement."
    )
    put_right(card)
    card.lines = [line for line in card.lines if not line[0].startswith("grid[:, g]")]
    assert card.run().startswith("Global rows without global columns:")
    assert card.outcome["figure"].startswith("data:image/svg") and "First differing block" in card.outcome["alt"]
    card.lines = []
    assert card.run().startswith("Python cannot read this, at `def block_grid(n_blocks, width, global_blocks):`")
    put_right(card)
    card.lines = card.lines[1:]
    assert "`" not in card.run().split("Your code:")[0] and "grid = (i[:, None]" in card.outcome["words"]


def test_the_browser_runs_what_it_shows():
    card, sent = warm_up("1.4"), []
    card.send = sent.append
    put_right(card)
    wanted, card.lines = card.lines, warm_up("1.4").lines
    card._from_browser(card, {"kind": "run", "lines": wanted}, [])
    assert card.outcome["verdict"] == "right" and sent == [{"kind": "ran"}] and card.lines == wanted
    data, _ = card._repr_mimebundle_()
    assert data["text/plain"] == "Warm-up 1.4: run this cell to get the lines.", "no line of a solution in a file"


def test_without_widgets_one_sentence(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **more):
        if name == "warm_card":
            raise ModuleNotFoundError("no", name="anywidget")
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert repr(warm_up("1.5")).startswith("The warm-up is a card that needs anywidget: pip install")
    with pytest.raises(Misuse, match=r"task 1\.3 has no distractors to show; there is one for 1\.2, 1\.4, 1\.5"):
        warm_up("1.3")


# ---------------------------------------------------------------- the learner's own test


def thorough(f):
    for n, width, wide in [(8, 5, []), (6, 1, []), (7, 3, [2]), (7, 3, [-2])]:
        assert torch.equal(f(n, width, wide), find_task("1.4").solution(n, width, wide))


def test_a_thorough_test_kills_every_mistake():
    verdict = judge_test("1.4", thorough)
    assert verdict.survived == () and len(verdict.killed) == len(find_task("1.4").mistakes) and verdict.score == 1
    assert repr(verdict) == "Your test lets every right block_grid pass and kills 9 of 9 planted mistakes: all of them."


def test_what_a_narrow_window_does_not_show():
    """With both ends global and a window of 3, a window that wraps round is the same grid."""

    def narrow(f):
        assert torch.equal(f(9, 3, [0, -1]), find_task("1.4").solution(9, 3, [0, -1]))

    verdict = judge_test("1.4", narrow)
    assert "a window that wraps round the ends (2 ways of 2)" in verdict.survived
    assert "a window off by one" in verdict.killed and 0 < verdict.score < 1
    assert "These survive: a window that wraps round" in repr(verdict)


def test_a_mistake_is_killed_when_each_of_its_ways_is():
    def only_size(f):
        assert f(6, 1, []).sum() == 6

    survived = judge_test("1.4", only_size).survived
    assert any(name.startswith("a window off by one (") for name in survived)


def test_tests_that_are_none():
    def refuses(f):
        assert f(2, 1, []).sum() == 3, "three cells"

    def stub(f):
        raise NotImplementedError

    verdict = judge_test("1.4", refuses)
    assert verdict.score == 0 and repr(verdict) == "Your test refuses a right block_grid: AssertionError: three cells."
    assert repr(judge_test("1.4", stub)) == "Not attempted yet: put your test in place of the stub."
    assert judge_test("1.4", lambda f: None).score == 0 and judge_test("1.4", lambda f: None).killed == ()
    assert "Hand over the function itself" in repr(judge_test("1.4", 3))
    assert "your function takes ()" in repr(judge_test("1.4", lambda: None))


def test_a_test_without_end(monkeypatch):
    from bigbird_mini.course import killing

    monkeypatch.setattr(killing, "SECONDS", 0.3)

    def endless(f):
        while True:
            pass

    assert "it takes more than 0.3 seconds in all" in repr(judge_test("1.4", endless))


# ---------------------------------------------------------------- claims in prose


@pytest.mark.parametrize(
    "prose",
    [
        "It takes 805 million<!--= 12 * 4096**2 * 4 / 1e6 --> bytes.",
        "**15.2 %**<!--= 100 * BlockPattern.bigbird(64).density() --> of all",
        "about 6.6×<!--= 64 / 9.7 --> and 4,096<!-- a remark --> and \u22123<!--= -3.2 -->",
        "4,096<!--= 2**12 --> tokens, 64.00<!--= math.sqrt(4096) -->",
    ],
)
def test_claims_that_hold(prose):
    assert list(claims.wrong_claims(prose)) == []


@pytest.mark.parametrize(
    "prose, words",
    [
        ("It takes 806 million<!--= 12 * 4096**2 * 4 / 1e6 -->", "806 is stated, and 12 * 4096**2 * 4 / 1e6 is 805.31"),
        ("15.3 %<!--= 100 * BlockPattern.bigbird(64).density() -->", "15.3 is stated, and 100 *"),
        ("many<!--= 3 -->", "no number stands right before the claim '3'"),
        ("3 of many tokens<!--= 3 -->", "no number stands right before"),
        ("3<!--= 1 / 0 -->", "cannot be computed (ZeroDivisionError"),
        ("3<!--= x = 3 -->", "cannot be computed (SyntaxError"),
        ("3<!--= 3 -->, 4<!--= 5 -->", "4 is stated, and 5 is 5.00"),
    ],
)
def test_claims_that_do_not(prose, words):
    (sentence,) = claims.wrong_claims(prose)
    assert words in sentence


# ---------------------------------------------------------------- the tutor's file


def test_the_tutors_file_has_hints_and_mistakes_and_no_solution():
    text = (ROOT / "exercises" / "TUTOR.md").read_text("utf-8")
    assert text == tutor.text(all_tasks(), manifest())
    tasks = [find_task(row["task"]) for rows in manifest().values() for row in rows]
    for task in tasks:
        assert all(hint in text for hint in task.hints)
        assert all(f"- **{mistake.name}**: {mistake.says}" in text for mistake in task.mistakes)
    for hint in (hint for task in tasks for hint in task.hints):  # the later ones may hold a line, of another task too
        text = text.replace(hint, "")
    for task in tasks:
        assert not any(line in text for line, _ in pieces(task)[1] if len(line) >= 20), task.number
