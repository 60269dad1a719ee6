"""Which exercise a file is, which cell checks which task, and in which order they run."""

import copy
import json
import runpy
from pathlib import Path

import pytest

from bigbird_mini.course import submission
from bigbird_mini.course.scores import Scores
from bigbird_mini.course.submission import Cell, binds, copies, exercise_of, in_order, load, owners

hostile = runpy.run_path(str(Path(__file__).with_name("hostile.py")))
_, ROWS = hostile["small"]()
OTHER = [dict(row, task=row["task"].replace("90", "91"), source=row["source"].replace("90", "91")) for row in ROWS]


@pytest.fixture(autouse=True)
def two_exercises(monkeypatch):
    monkeypatch.setattr(submission, "manifest", lambda: {"90_small": ROWS, "91_other": OTHER})


def text(spoil=None):
    book = hostile["Book"](*hostile["small"]())
    if spoil:
        spoil(book)
    return book.text()


def without_metadata(book):
    book.notebook["metadata"] = {}


def checks_alone(book):
    """Nothing is left that names the package."""
    without_metadata(book)
    del book.cells[0]


def test_a_file_is_known_by_what_stands_in_it(tmp_path):
    for name, spoil in (("x", None), ("anna", without_metadata), ("90_small", checks_alone)):
        path = tmp_path / f"{name}.ipynb"
        path.write_text(text(spoil), "utf-8")
        assert exercise_of(path) == "90_small", name
    (tmp_path / "m (2).ipynb").write_text(text().replace("solutions/90_small", "solutions/91_other"), "utf-8")
    assert exercise_of(tmp_path / "m (2).ipynb") == "91_other"


def test_other_notebooks_are_let_alone(tmp_path):
    (tmp_path / "lessons").mkdir()
    (tmp_path / "lessons" / "90_small.ipynb").write_text(text(), "utf-8")
    assert exercise_of(tmp_path / "lessons" / "90_small.ipynb") is None
    foreign = '{"cells": [{"cell_type": "code", "source": "check(\'90.1\', f)"}], "metadata": {}}'
    mine = '{"cells": [{"cell_type": "code", "source": "import bigbird_mini"}], "metadata": {}}'
    for name, content in (("90_small", foreign), ("mine", mine), ("90", foreign)):
        (tmp_path / f"{name}.ipynb").write_text(content, "utf-8")
        assert exercise_of(tmp_path / f"{name}.ipynb") is None, name


def test_a_file_that_cannot_be_read_is_known_by_its_name_or_its_neighbours(tmp_path):
    for name in ("90_small", "bert 90_small (1)"):
        (tmp_path / f"{name}.ipynb").write_text("", "utf-8")
        assert exercise_of(tmp_path / f"{name}.ipynb") == "90_small"
    class_ = tmp_path / "class"
    class_.mkdir()
    (class_ / "empty.ipynb").write_text("", "utf-8")
    assert exercise_of(class_ / "empty.ipynb") is None
    (class_ / "anna.ipynb").write_text(text(), "utf-8")
    assert exercise_of(class_ / "empty.ipynb") == "90_small"
    (class_ / "bert.ipynb").write_text(text().replace("90_small", "91_other"), "utf-8")
    assert exercise_of(class_ / "empty.ipynb") is None, "of two exercises, which?"
    (class_ / "cut.ipynb").write_text(text(without_metadata)[:2000], "utf-8")
    assert exercise_of(class_ / "cut.ipynb") == "90_small"


def test_a_huge_file_is_known_by_its_ends(tmp_path):
    path = tmp_path / "anna.ipynb"
    path.write_text(text(lambda book: book.check(0).update(outputs=["x" * 4_000_000])), "utf-8")
    assert exercise_of(path, 1.0) == "90_small"
    with pytest.raises(submission.Unreadable, match=r"^The file has 4 MB: clear its outputs"):
        load(path, 1.0)


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "The file is empty"),
        (b"{}", "no Jupyter notebook"),
        (b'{"worksheets": []}', "in an old notebook format"),
        (b'{"cells": [\n{"a": 1},', "damaged or cut off: its JSON breaks in line 2"),
        (b"\x80abc", "not text"),
        (b'{"cells": [\n<<<<<<< HEAD\n', "git merge conflicts"),
    ],
)
def test_why_a_file_is_no_notebook(tmp_path, content, words):
    (tmp_path / "a.ipynb").write_bytes(content)
    with pytest.raises(submission.Unreadable, match=words):
        load(tmp_path / "a.ipynb")
    with pytest.raises(submission.Unreadable, match="cannot be opened"):
        load(tmp_path / "b.ipynb")


# ---------------------------------------------------------------- cells


def cells(*sources):
    return [Cell("code", f"c{number}", source) for number, source in enumerate(sources)]


def tasks(found):
    return {place: row["task"] for place, row in found.items()}


DOUBLE, TOTAL, SEVEN = (row["source"] for row in ROWS)


def test_a_check_is_known_by_text_then_id_then_metadata():
    mine = cells(TOTAL, "x = 1", "print('fine')", "print('too')")
    mine[0].id = "check-90-1"  # another task's id
    mine[2].id = "check-90-1"
    mine[3].task = "90.3"
    assert tasks(owners(mine, ROWS)) == {0: "90.2", 2: "90.1", 3: "90.3"}
    mine[2].kind = "markdown"
    assert tasks(owners(mine, ROWS)) == {0: "90.2", 3: "90.3"}


def test_of_copies_the_last_counts():
    mine = cells(DOUBLE, "x = 1", "check( '90.1' , other)", DOUBLE)
    mine[0].id = "check-90-1"
    owned = owners(mine, ROWS)
    assert tasks(owned) == {3: "90.1"}
    assert tasks(copies(mine, owned)) == {0: "90.1", 2: "90.1"}


def test_a_cell_copied_from_a_check_keeps_its_own_text():
    mine = cells(DOUBLE, "x = experiment()")
    mine[1].task = "90.1"
    assert tasks(owners(mine, ROWS)) == {0: "90.1"}


def test_no_check_runs_before_its_answer():
    def order(*sources):
        mine = cells(*sources)
        return in_order(mine, owners(mine, ROWS))

    assert order("def double(x):\n    return x", DOUBLE, "seven = 7", SEVEN) == [0, 1, 2, 3]
    assert order(SEVEN, DOUBLE, "def double(x): pass", "seven: int = 7", "x = 1") == [2, 1, 3, 0, 4]
    assert order(DOUBLE, "def double(x): pass", "x = 1", "double = f", "y = 2") == [1, 2, 3, 0, 4], "after the last"
    assert order("def double(x): pass", DOUBLE, "double = None") == [0, 1, 2], "it stands where it can run"
    assert order(DOUBLE, "x = 1") == [0, 1], "nobody makes the answer"


@pytest.mark.parametrize(
    "source, yes",
    [
        ("def double(x):", True),
        ("async def double(x):", True),
        ("%%time\ndouble = 3", True),
        ("a, double = 1, 2", True),
        ("double: int = 3", True),
        ("from mine import other, double", True),
        ("double(3)", False),
        ("double == 3", False),
        ("x = double", False),
        ("def doubles(x):", False),
        ("# double = 3", False),
    ],
)
def test_binds(source, yes):
    assert binds(source, "double") is yes


# ---------------------------------------------------------------- the score


def row(notebook, task, points, most, outcome="right", why=""):
    keys = {"notebook": notebook, "task": task, "title": f"title {task}", "points": points, "max": most}
    return keys | {"outcome": outcome, "why": why, "seconds": 0.1}


def some_scores():
    scores = Scores()
    scores.add("b.ipynb::10.1", 1.0, row("b.ipynb", "10.1", 0, 2, "wrong", "first line\nsecond line"))
    scores.add("b.ipynb::9.2", 0.5, row("b.ipynb", "9.2", 1, 1))
    scores.add("=a.ipynb::9.2", 0.5, row("=a.ipynb", "9.2", 1, 1))
    scores.add("b.ipynb::cell 3", 0.25, {"notebook": "b.ipynb", "cell": "cell 3", "why": "ZeroDivisionError"})
    scores.add("test_x.py::test", 1.0, {})
    return scores


def test_lines_of_several_notebooks():
    assert list(some_scores().lines()) == [
        ("=a.ipynb: 1/1", True),
        ("b.ipynb: 1/3", False),
        ("wrong          10.1 title 10.1  0/2  first line", False),
        ("no points lost cell 3  ZeroDivisionError", False),
    ]


def test_score_json():
    score = json.loads(some_scores().as_json())
    assert (score["points"], score["max"]) == (2, 4)
    assert [task["task"] for task in score["tasks"]] == ["9.2", "9.2", "10.1"], "10.1 comes after 9.2"
    assert score["tasks"][2] == row("b.ipynb", "10.1", 0, 2, "wrong", "first line\nsecond line")
    faults = [{"cell": "cell 3", "why": "ZeroDivisionError"}]
    assert score["notebooks"][1] == {
        "notebook": "b.ipynb", "points": 1, "max": 3, "seconds": 1.75, "faults": faults
    }  # fmt: skip


def test_score_csv_is_no_formula():
    assert some_scores().as_csv().splitlines() == [
        "notebook,points,max,9.2,10.1,why",
        "'=a.ipynb,1,1,1,,",
        "b.ipynb,1,3,1,0,10.1 wrong: first line second line",
    ]


def test_the_book_is_a_copy():
    """The cases of hostile.py do not spoil each other's notebook."""
    base = hostile["small"]()
    before = copy.deepcopy(base)
    for name in hostile["CASES"]:
        hostile["spoiled"](name, base)
    assert base == before
