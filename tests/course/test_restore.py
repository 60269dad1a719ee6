"""restore: check cells come back as they were, what a learner wrote stays, a damaged file keeps what can be read."""

import json
import runpy
from pathlib import Path

import nbformat
import pytest

from bigbird_mini.course import restore, submission
from bigbird_mini.course.__main__ import main

hostile = runpy.run_path(str(Path(__file__).with_name("hostile.py")))
NOTEBOOK, ROWS = hostile["small"]()
STUB = "    # TODO: your code here\n    raise NotImplementedError"


@pytest.fixture(autouse=True)
def course(tmp_path, monkeypatch):
    """A course of the small exercise; its folder."""
    monkeypatch.setattr(submission, "manifest", lambda: {"90_small": ROWS})
    monkeypatch.setattr(restore, "manifest", submission.manifest)
    source = nbformat.from_dict(json.loads(json.dumps(NOTEBOOK)))
    source.metadata = {}
    source.cells.insert(0, nbformat.v4.new_markdown_cell("# The small exercise", id="intro"))
    for cell in source.cells:
        if cell.id.startswith("answer"):
            head, _, body = cell.source.rpartition("\n")
            stub = "" if head else "### STUB: seven = ...\n"
            cell.source = "\n".join(filter(None, [head, "    ### BEGIN SOLUTION" if head else "### BEGIN SOLUTION"]))
            cell.source += f"\n{stub}{body}\n" + ("    " if head else "") + "### END SOLUTION"
    (tmp_path / "solutions").mkdir()
    (tmp_path / "solutions" / "90_small.ipynb").write_text(nbformat.writes(source), "utf-8")
    return tmp_path


@pytest.fixture
def path(course):
    """A learner's solved copy of the exercise, as JupyterLab saves it."""
    path = course / "mine.ipynb"
    assert main(["restore", "--root", str(course), "--as", "90_small", str(blank(path))]) == 0
    notebook = json.loads(path.read_text("utf-8"))
    for cell in notebook["cells"]:
        if cell["id"].startswith("answer"):
            cell["source"] = next(c["source"] for c in NOTEBOOK["cells"] if c["id"] == cell["id"])
    save(path, notebook)
    path.with_name("mine.ipynb.bak").unlink()
    return path


def blank(path):
    path.write_text("", "utf-8")
    return path


def save(path, notebook):
    path.write_text(nbformat.writes(nbformat.from_dict(notebook)) + "\n", "utf-8")


def run(path, capsys, *options):
    capsys.readouterr()
    code = main(["restore", str(path), "--root", str(path.parent), *options])
    said = capsys.readouterr()
    return code, said.out.splitlines() if code == 0 else said.err


def sources(path):
    return {c["id"]: "".join(c["source"]) for c in json.loads(path.read_text("utf-8"))["cells"]}


def change(path, spoil):
    book = hostile["Book"](json.loads(path.read_text("utf-8")), ROWS)
    for cell in book.cells:
        cell["source"] = "".join(cell["source"])
    spoil(book)
    save(path, book.notebook)


def test_an_exercise_in_order_is_left_alone(path, capsys):
    before = path.read_bytes()
    assert run(path, capsys) == (0, [f"Nothing to mend in {path}."])
    assert path.read_bytes() == before and not path.with_name("mine.ipynb.bak").exists()


def test_missing_and_edited_checks_come_back(path, capsys):
    whole = sources(path)

    def spoil(book):
        book.check(0)["source"] = "print('all fine')"
        book.check(2)["metadata"] = {}
        book.check(2)["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "seen"}]
        book.cells.remove(book.check(1))
        book.insert("my_own = 1", above=0)

    change(path, spoil)
    before = path.read_bytes()
    code, said = run(path, capsys)
    assert code == 0 and said == [
        "The check of task 90.1 had been edited: it is the original again.",
        "What else stood in it has a cell of its own above it.",
        "The check of task 90.3 is locked against changes again.",
        "The check of task 90.2 is back.",
        "The file as it was is kept as mine.ipynb.bak.",
    ]
    assert path.with_name("mine.ipynb.bak").read_bytes() == before
    now = sources(path)
    assert "my_own = 1" in now.values() and "print('all fine')" in now.values()
    assert [id for id in now if id in whole] == list(whole)
    assert {id: now[id] for id in whole} == whole
    cells = {c["id"]: c for c in json.loads(path.read_text("utf-8"))["cells"]}
    assert cells["check-90-3"]["outputs"] and cells["check-90-3"]["metadata"]["deletable"] is False
    assert run(path, capsys)[1] == [f"Nothing to mend in {path}."]


def test_a_second_spare_copy_does_not_replace_the_first(path, capsys):
    for number in range(2):
        change(path, lambda book: book.cells.remove(book.check(1)))
        said = run(path, capsys)[1]
        assert said[-1] == f"The file as it was is kept as mine.ipynb.bak{'2' if number else ''}."


def test_an_answer_that_is_gone_comes_back_empty(path, capsys):
    change(path, lambda book: book.cells.remove(book.answer(1)))
    assert run(path, capsys)[1][0] == "The answer cell of task 90.2 is back, empty."
    now = list(sources(path).items())
    assert now[[id for id, _ in now].index("check-90-2") - 1] == ("answer-90-2", f"def total(numbers):\n{STUB}")


def test_an_answer_elsewhere_is_not_doubled(path, capsys):
    def spoil(book):
        book.cells.insert(1, book.answer(1))
        book.cells.remove(book.answer(1)) if book.cells.count(book.cells[1]) > 1 else None
        book.cells[1]["id"] = "moved"

    change(path, spoil)
    run(path, capsys)
    assert sum("def total" in source for source in sources(path).values()) == 1


def test_checks_above_their_answers_go_below(path, capsys):
    change(path, hostile["CASES"]["check cells reordered"].spoil)
    assert run(path, capsys)[1][0] == "A check that stood above its answer was moved below it."
    assert [id for id in sources(path) if id[0] in "ac"] == [
        f"{kind}-90-{number}" for number in (1, 2, 3) for kind in ("answer", "check")
    ]


def test_new_ids_are_the_old_ones_again(path, capsys):
    whole = sources(path)
    change(path, hostile["CASES"]["new cell ids"].spoil)
    assert run(path, capsys)[1] == [f"Nothing to mend in {path}."], "it is graded as it is"
    change(path, lambda book: book.cells.pop(3))
    run(path, capsys)
    assert sources(path) == whole


@pytest.mark.parametrize("name", ["cut off", "merge markers", "empty file", "not text", "JSON of something else"])
def test_of_a_damaged_file_what_can_be_read_is_kept(path, capsys, name):
    whole = sources(path)
    damaged = hostile["CASES"][name].spoil(hostile["Book"](json.loads(path.read_text("utf-8")), ROWS))
    path.write_bytes(damaged if isinstance(damaged, bytes) else damaged.encode())
    code, said = run(path, capsys, "--as", "90_small")
    assert code == 0 and "of its cells could be read; the others come from the course." in said[0]
    now = sources(path)
    assert list(now) == list(whole)
    kept = [id for id in whole if id.startswith("answer") and now[id] == whole[id]]
    some, most = {"cut off": (1, 2), "merge markers": (3, 3)}.get(name, (0, 0))
    assert some <= len(kept) <= most and kept == ["answer-90-1", "answer-90-2", "answer-90-3"][: len(kept)]
    nbformat.validate(nbformat.read(path, 4))


def test_of_a_merge_one_side_is_taken(path, capsys):
    text = path.read_text("utf-8")
    line = '    "    return 2 * x"\n'
    assert line in text
    path.write_text(text.replace(line, f'<<<<<<< mine\n{line}||||||| base\n    "b"\n=======\n    "a"\n>>>>>>> other\n'))
    assert run(path, capsys)[0] == 0
    assert sources(path)["answer-90-1"] == "def double(x):\n    return 2 * x"


def test_large_outputs_are_cleared_and_broken_ones_dropped(path, capsys):
    def spoil(book):
        book.answer(0)["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x" * 3_000_000}]

    change(path, spoil)
    notebook = json.loads(path.read_text("utf-8"))
    notebook["cells"][3]["outputs"] = [{"what": "is this"}]
    del notebook["cells"][4]["outputs"], notebook["cells"][4]["execution_count"]
    path.write_text(json.dumps(notebook), "utf-8")
    assert run(path, capsys)[1][0] == "The outputs of 1 cell(s) were too large and are cleared."
    assert path.stat().st_size < 10_000
    nbformat.validate(nbformat.read(path, 4))


def test_what_cannot_be_mended_is_said_in_a_sentence(path, capsys, course):
    other = course / "other.ipynb"
    other.write_text('{"cells": [], "metadata": {}}', "utf-8")
    code, said = run(other, capsys)
    assert code == 2 and f"{other} is no exercise of this course" in said and "--as (90_small)" in said
    code, said = run(course / "nowhere.ipynb", capsys)
    assert code == 2 and "nowhere.ipynb" in said
    (course / "solutions" / "90_small.ipynb").unlink()
    code, said = run(path, capsys)
    assert code == 2 and "there is no solutions/90_small.ipynb in" in said and "--root" in said
