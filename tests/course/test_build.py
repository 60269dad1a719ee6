"""The build: what is committed is what it makes, a second build changes nothing, faults are named in a sentence."""

import copy
import difflib
import json
import os
from pathlib import Path

import nbformat
import pytest

from bigbird_mini.course import notebook as files
from bigbird_mini.course.__main__ import main
from bigbird_mini.course.build import MANIFEST, SourceError, chosen, plan, without_answers
from bigbird_mini.course.checking import Task

ROOT = Path(__file__).parents[2]
TASKS = {n: Task(n, f"title {n}", 2, lambda answer: None) for n in ("5.1", "5.2")}


def source(*cells):
    notebook = nbformat.v4.new_notebook()
    for number, text in enumerate(cells):
        cell = nbformat.v4.new_code_cell(text)
        cell.id = f"c{number}"
        notebook.cells.append(cell)
    return notebook


ANSWER = "def f(x):\n    ### BEGIN SOLUTION\n    return secret(x)\n    ### END SOLUTION"
VALUE = "### BEGIN SOLUTION\n### STUB: answer = ...\nanswer = 6 * 7\n### END SOLUTION"
GOOD = (ANSWER, 'check("5.1", f)', VALUE, 'check("5.2", answer)')


def course(root, *cells, name="05_sample"):
    (root / "solutions").mkdir(exist_ok=True)
    (root / "solutions" / f"{name}.ipynb").write_text(nbformat.writes(source(*cells)), "utf-8")
    return root


def snapshot(root):
    return {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in root.rglob("*") if p.is_file()}


# ---------------------------------------------------------------- the committed course


def test_committed_files_are_what_the_build_makes():
    stale = [p.as_posix() for p in plan(ROOT).stale()]
    assert not stale, f"out of date: {stale}: run python -m bigbird_mini.course build"


@pytest.mark.parametrize("path", sorted((ROOT / "solutions").glob("*.ipynb")), ids=lambda p: p.stem)
def test_exercises_hold_no_answers(path):
    solved = files.read(path)
    exercise = (ROOT / "exercises" / path.name).read_text("utf-8")
    cells = files.read(ROOT / "exercises" / path.name).cells
    assert [c.id for c in cells] == [c.id for c in solved.cells]
    assert all(not c.outputs and c.execution_count is None for c in cells if c.cell_type == "code")
    for marker in ("BEGIN SOLUTION", "END SOLUTION", "### STUB"):
        assert marker not in exercise
    for before, after in zip(solved.cells, cells, strict=True):
        inside = False
        for line in before.source.splitlines():
            if line.strip().startswith("### "):
                inside = "BEGIN SOLUTION" in line
            elif inside and line.strip():
                assert line not in after.source.splitlines(), f"{path.name}, cell {before.id}: {line}"
        compile(after.source, after.id, "exec") if after.cell_type == "code" else None


# ---------------------------------------------------------------- what is made


def test_exercise_and_manifest(tmp_path):
    made = plan(course(tmp_path, *GOOD), tasks=TASKS)
    assert [p.as_posix() for p in made.write()] == [
        "solutions/05_sample.ipynb",
        "exercises/05_sample.ipynb",
        "bigbird_mini/course/manifest.json",
        "exercises/TUTOR.md",
    ]
    exercise = files.read(tmp_path / "exercises" / "05_sample.ipynb")
    assert [c.source for c in exercise.cells] == [
        "def f(x):\n    # TODO: your code here\n    raise NotImplementedError",
        'check("5.1", f)',
        "# TODO: your code here\nanswer = ...",
        'check("5.2", answer)',
    ]
    hub = {"cell_type": "code", "schema_version": 3, "task": False}
    answer = hub | {"grade": False, "grade_id": "c0", "locked": False, "solution": True}
    assert exercise.cells[0].metadata == {"nbgrader": answer}
    graded = hub | {"grade": True, "grade_id": "c1", "locked": True, "solution": False, "points": 2}
    locked = {"tags": ["check"], "task": "5.1", "editable": False, "deletable": False}
    assert exercise.cells[1].metadata == locked | {"nbgrader": graded}
    assert exercise.metadata.bigbird_mini == {"generated_from": "solutions/05_sample.ipynb"}
    assert "BEGIN SOLUTION" in (tmp_path / "solutions" / "05_sample.ipynb").read_text("utf-8")
    rows = json.loads((tmp_path / MANIFEST).read_text("utf-8"))["05_sample"]
    text = 'check("5.2", answer)'
    row = {"cell": "c3", "task": "5.2", "source": text, "sha256": files.sha256(text), "title": "title 5.2", "max": 2}
    assert rows[1] == row


def test_second_build_changes_no_byte(tmp_path):
    course(tmp_path, *GOOD)
    plan(tmp_path, tasks=TASKS).write()
    before = snapshot(tmp_path)
    assert plan(tmp_path, tasks=TASKS).write() == []
    assert snapshot(tmp_path) == before
    raw = (tmp_path / "exercises" / "05_sample.ipynb").read_bytes()
    assert raw.endswith(b"}\n") and b"\r" not in raw and raw.startswith(b'{\n "cells"')


def test_check_writes_nothing_and_names_the_files(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("bigbird_mini.course.build.all_tasks", lambda: TASKS)
    course(tmp_path, *GOOD)
    before = snapshot(tmp_path)
    assert main(["build", "--check", "--root", str(tmp_path)]) == 1
    assert snapshot(tmp_path) == before
    assert "out of date: exercises/05_sample.ipynb" in capsys.readouterr().out
    assert main(["build", "--no-run", "--root", str(tmp_path)]) == 0
    assert main(["build", "--check", "--root", str(tmp_path)]) == 0
    assert main(["build", "--root", str(tmp_path / "nowhere")]) == 1
    assert "has no folder solutions/" in capsys.readouterr().err


def test_run_stores_outputs_in_the_notebooks_folder(tmp_path):
    course(tmp_path, "import os\nprint(os.path.basename(os.getcwd()))\nlambda: 0", *GOOD[2:3])
    plan(tmp_path, [Path("solutions/05_sample.ipynb")], tasks={}).write()
    first, second = files.read(tmp_path / "solutions" / "05_sample.ipynb").cells
    assert [o.get("text") or o.data["text/plain"] for o in first.outputs] == [
        "solutions\n",
        "<function __main__.<lambda>()>",
    ]
    assert (first.execution_count, second.execution_count, first.metadata) == (1, 2, {})
    course(tmp_path, "a = 1\na / 0")
    with pytest.raises(SourceError, match=r"^solutions/05_sample.ipynb, cell c0: running it raised ZeroDivisionError"):
        plan(tmp_path, [Path("solutions/05_sample.ipynb")], tasks={})


# ---------------------------------------------------------------- running, twice

LESSON = (
    ("markdown", "One word here, and others there."),
    ("code", "import matplotlib.pyplot as plt\n_ = plt.plot([1, 3, 2])\nplt.show()"),
    ("code", "object(), print('done')"),
    ("measured", "import time\nprint(time.perf_counter_ns())"),
    ("measured", "print(time.perf_counter_ns(), 'again')"),
)


def lesson(root, *cells):
    notebook = nbformat.v4.new_notebook()
    for number, (kind, text) in enumerate(cells):
        made = nbformat.v4.new_markdown_cell(text) if kind == "markdown" else nbformat.v4.new_code_cell(text)
        made.id = f"c{number}"
        if kind == "measured":
            made.metadata.tags = ["measured"]
        notebook.cells.append(made)
    for folder in ("lessons", "solutions"):
        (root / folder).mkdir(exist_ok=True)
    path = root / "lessons" / "05_sample.ipynb"
    path.write_text(nbformat.writes(notebook), "utf-8")
    return path


def build(root, *options):
    assert main(["build", "--root", str(root), *options]) == 0


@pytest.fixture
def no_tasks(monkeypatch):
    monkeypatch.setattr("bigbird_mini.course.build.all_tasks", dict)


def edit(path, before, after):
    text = path.read_text("utf-8")
    assert text.count(before) == 1
    path.write_text(text.replace(before, after), "utf-8")


def changed_lines(before, after):
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return [line for line in lines if line[0] in "+-" and not line.startswith(("+++", "---"))]


def test_a_second_run_changes_no_byte_and_a_word_two_lines(tmp_path, no_tasks):
    path = lesson(tmp_path, *LESSON)
    build(tmp_path)
    before = snapshot(tmp_path)
    assert "image/png" in path.read_text("utf-8")
    build(tmp_path)
    assert snapshot(tmp_path) == before
    edit(path, "One word here", "A word here")
    build(tmp_path)
    old, new = before[path][0].decode(), path.read_text("utf-8")
    assert changed_lines(old, new) == [
        '-    "One word here, and others there."',
        '+    "A word here, and others there."',
    ]


def measured(path):
    return [c.outputs[0].text for c in files.read(path).cells if "measured" in c.metadata.get("tags", [])]


def test_measured_outputs_stay_until_their_cell_changes(tmp_path, no_tasks):
    path = lesson(tmp_path, *LESSON[2:])
    build(tmp_path)
    first = measured(path)
    edit(path, "'done'", "'over'")
    edit(path, "'again'", "'once more'")
    build(tmp_path, "05")
    second = measured(path)
    assert second[0] == first[0] and second[1] != first[1] and second[1].endswith("once more\n")
    build(tmp_path, "--no-run")
    build(tmp_path)
    assert measured(path) == second
    build(tmp_path, "--measure")
    third = measured(path)
    assert third[0] != second[0] and third[1] != second[1]


def test_what_was_measured_by_hand_is_kept(tmp_path, no_tasks):
    """Outputs that JupyterLab saved in a new cell, before the first build."""
    path = lesson(tmp_path, *LESSON[2:])
    notebook = files.read(path)
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", name="stdout", text="123\n")]
    path.write_text(nbformat.writes(notebook), "utf-8")
    build(tmp_path)
    assert measured(path)[0] == "123\n"


def test_measured_cells_of_a_solution_leave_no_mark_in_its_exercise(tmp_path, no_tasks):
    """So that the build of a source that has just been run, and the next one, make the same exercise."""
    path = course(tmp_path, "print(1)") / "solutions" / "05_sample.ipynb"
    notebook = files.read(path)
    notebook.cells[0].metadata.tags = ["measured"]
    path.write_text(nbformat.writes(notebook), "utf-8")
    build(tmp_path)
    before = snapshot(tmp_path)
    build(tmp_path, "--no-run")
    assert snapshot(tmp_path) == before and "measured" in files.read(path).cells[0].metadata
    exercise = files.read(tmp_path / "exercises" / "05_sample.ipynb").cells[0]
    assert exercise.metadata == {"tags": ["measured"]} and exercise.outputs == []


def test_only_the_notebooks_named_are_run(tmp_path, no_tasks, capsys):
    path = lesson(tmp_path, *LESSON[2:3])
    other = path.with_name("06_other.ipynb")
    other.write_bytes(path.read_bytes())
    course(tmp_path, name="05_sample")
    every = [Path(p) for p in ("lessons/05_sample.ipynb", "lessons/06_other.ipynb", "solutions/05_sample.ipynb")]
    assert chosen(tmp_path, []) == every and chosen(tmp_path, ["05"]) == [every[0], every[2]]
    assert chosen(tmp_path, ["lessons/05", "05"]) == [every[0], every[2]]
    build(tmp_path, "lessons/06")
    ran = {p.stem: any(c.get("outputs") for c in files.read(p).cells) for p in (path, other)}
    assert ran == {"05_sample": False, "06_other": True}
    assert main(["build", "--root", str(tmp_path), "07"]) == 2
    assert "there is no notebook 07; there are lessons/05_sample, lessons/06_other" in capsys.readouterr().err


@pytest.mark.parametrize(
    "source, words",
    [
        ("import os\nos._exit(1)", "cell c1: the kernel died while running it."),
        ("import time\ntime.sleep(60)", "cell c1: it ran for more than 1 seconds."),
        ("1 / 0", "cell c1: running it raised ZeroDivisionError: division by zero."),
    ],
)
def test_a_run_that_fails_names_the_cell_and_writes_nothing(tmp_path, no_tasks, monkeypatch, capfd, source, words):
    monkeypatch.setattr("bigbird_mini.course.execute.SECONDS", 1)
    lesson(tmp_path, ("code", "x = 1"), ("code", source), ("code", "y = 1"))
    before = snapshot(tmp_path)
    assert main(["build", "--root", str(tmp_path)]) == 1
    assert capfd.readouterr().err.splitlines()[-1] == f"lessons/05_sample.ipynb, {words}"
    assert snapshot(tmp_path) == before


def test_runs_of_the_build_are_nobodys_progress(tmp_path, no_tasks):
    path = lesson(tmp_path, ("code", "import os\nprint(os.environ['BIGBIRD_MINI_PROGRESS'])"))
    build(tmp_path)
    assert files.read(path).cells[0].outputs[0].text == "off\n"


def test_export_for_nbgrader(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bigbird_mini.course.build.all_tasks", lambda: TASKS)
    course(tmp_path, *GOOD)
    assert main(["export", str(tmp_path / "hub"), "--root", str(tmp_path)]) == 0
    path = tmp_path / "hub" / "source" / "05_sample" / "05_sample.ipynb"
    assert str(path) in capsys.readouterr().out
    cells = files.read(path).cells
    assert [c.metadata.nbgrader.get("points") for c in cells] == [None, 2, None, 2]
    assert [c.metadata.nbgrader.solution for c in cells] == [True, False, True, False]
    assert all("BEGIN SOLUTION" in c.source for c in cells[::2]), "nbgrader takes the answers out itself"


# ---------------------------------------------------------------- faults

FAULTS = {
    "unknown task": ((*GOOD, 'check("5.9", f)'), "cell c4: there is no task 5.9; the tasks are 5.1, 5.2."),
    "task twice": ((*GOOD, 'check("5.1", f)'), "cell c4: task 5.1 has a check cell already, in solutions/05_sample.ip"),
    "no check cell": (GOOD[:2], "test_build.py: task 5.2 (title 5.2) has no check cell in any notebook of solutions/."),
    "more than a call": ((*GOOD, 'x = 1\ncheck("5.1", f)'), "cell c4: a check cell is one call such as"),
    "no number": ((*GOOD, "check(f)"), "cell c4: a check cell is one call such as"),
    "no end": ((*GOOD, "x\n### BEGIN SOLUTION\ny"), "cell c4: the solution begun on line 2 has no `### END SOLUTION`."),
    "no begin": ((*GOOD, "x\n### END SOLUTION"), "cell c4: line 2 says `### END SOLUTION` without a `### BEGIN SOLU"),
    "stub outside": ((*GOOD, "### STUB: x = ..."), "cell c4: line 1 says `### STUB: x = ...` without a `### BEGIN"),
    "nested": ((*GOOD, "### BEGIN SOLUTION\n### BEGIN SOLUTION"), "cell c4: line 2 begins a solution inside another"),
    "no stub": ((*GOOD, "### BEGIN SOLUTION\nx = 1\n### END SOLUTION"), "it needs a `### STUB: ...` line."),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_one_sentence(tmp_path, fault):
    cells, words = FAULTS[fault]
    course(tmp_path, *cells)
    before = snapshot(tmp_path)
    with pytest.raises(SourceError) as caught:
        plan(tmp_path, tasks=TASKS)
    (sentence,) = caught.value.faults
    assert words in sentence and sentence.endswith(".") and "\n" not in sentence
    assert fault == "no check cell" or sentence.startswith("solutions/05_sample.ipynb, cell c4: ")
    assert snapshot(tmp_path) == before


def test_faults_of_files(tmp_path):
    course(tmp_path, *GOOD)
    course(tmp_path, name="Extra")
    (tmp_path / "lessons").mkdir()
    (tmp_path / "lessons" / "01_cut.ipynb").write_text('{"cells": [', "utf-8")
    (tmp_path / "lessons" / "02_old.ipynb").write_text('{"nbformat": 3, "worksheets": []}', "utf-8")
    gone = source("x = 1")
    gone.metadata.bigbird_mini = {"generated_from": "solutions/04_gone.ipynb"}
    (tmp_path / "exercises").mkdir()
    (tmp_path / "exercises" / "04_gone.ipynb").write_text(nbformat.writes(gone), "utf-8")
    (tmp_path / "exercises" / "04_gone-mine.ipynb").write_text(nbformat.writes(gone), "utf-8")
    with pytest.raises(SourceError) as caught:
        plan(tmp_path, tasks=TASKS)
    cut, old, name, orphan = caught.value.faults
    assert cut.startswith("lessons/01_cut.ipynb cannot be read as a notebook (")
    assert old.startswith("lessons/02_old.ipynb ")
    assert name == "solutions/Extra.ipynb: a notebook is called NN_name.ipynb, in small letters, digits and _."
    assert orphan.startswith("exercises/04_gone.ipynb: its source solutions/04_gone.ipynb is gone")


def test_every_fault_is_told_at_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("bigbird_mini.course.build.all_tasks", lambda: TASKS)
    course(tmp_path, *GOOD, 'check("5.9", f)', "### END SOLUTION")
    assert main(["build", "--root", str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_stub_forms():
    inside = (
        "if True:\n        ### BEGIN SOLUTION\n        ### STUB: for x in y:\n        ### STUB:     ...\n        a\n"
    )
    assert without_answers(inside + "        ### END SOLUTION\nb") == (
        "if True:\n        # TODO: your code here\n        for x in y:\n            ...\nb"
    )
    assert without_answers("a = 1\n\nb = 2") == "a = 1\n\nb = 2"


# ---------------------------------------------------------------- normalising


def run_cell(text, *outputs, count=5, name="ok"):
    cell = nbformat.v4.new_code_cell(text, execution_count=count, outputs=[nbformat.from_dict(o) for o in outputs])
    cell.id = name
    return cell


def test_normalise_takes_out_what_differs_from_run_to_run():
    view = {files.WIDGET_VIEW: {"model_id": "abc"}}
    result = {"output_type": "execute_result", "execution_count": 9, "metadata": dict(view)}
    uuid = "0123456789abcdef0123456789abcdef"
    notebook = source()
    notebook.metadata = nbformat.from_dict({"widgets": {"x": 1}, "language_info": {"name": "python", "version": "3.1"}})
    notebook.cells = [
        run_cell(
            "a",
            {"output_type": "stream", "name": "stdout", "text": "one <f at 0x7f12>\n"},
            {"output_type": "stream", "name": "stdout", "text": "two\n"},
            {"output_type": "stream", "name": "stderr", "text": "three\n"},
            result | {"data": {"text/plain": "<X at 0x7FaB>"} | view},
            {"output_type": "display_data", "metadata": {}, "data": dict(view)},
            {"output_type": "display_data", "metadata": {}, "data": {"text/html": f'<p id="_anim_img{uuid}">{uuid}'}},
            count=12,
        ),
        run_cell("never run", count=None, name="no id!"),
        run_cell("b", name="ok"),
        run_cell("b", name="ok"),
    ]
    notebook.cells[0].metadata = nbformat.from_dict({"execution": {"iopub": 1}, "tags": ["keep"]})
    again = files.normalise(copy.deepcopy(files.normalise(notebook)))
    assert files.text_of(again) == files.text_of(notebook)
    first, never, b, b2 = notebook.cells
    assert first.metadata == {"tags": ["keep"]} and notebook.metadata.keys() == {"kernelspec", "language_info"}
    assert "version" not in notebook.metadata.language_info
    assert [o.text for o in first.outputs[:2]] == ["one <f>\ntwo\n", "three\n"]
    assert first.outputs[2].data == {"text/plain": "<X>"} and first.outputs[2].metadata == {}
    assert len(first.outputs) == 4 and uuid not in first.outputs[3].data["text/html"]
    assert [c.execution_count for c in notebook.cells] == [1, None, 2, 3] and first.outputs[2].execution_count == 1
    ids = [c.id for c in notebook.cells]
    assert ids[0] == "ok" and len(set(ids)) == 4 and ids[2] + "-2" == ids[3]
    assert never.id == files.sha256("code\nnever run")[:8] and b.source == b2.source


def test_reading_makes_no_random_ids(tmp_path):
    raw = json.loads(nbformat.writes(source("x = 1")))
    del raw["cells"][0]["id"]
    (tmp_path / "n.ipynb").write_text(json.dumps(raw), "utf-8")
    texts = {files.text_of(files.normalise(files.read(tmp_path / "n.ipynb"))) for _ in range(2)}
    assert len(texts) == 1


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes")
def test_write_keeps_to_the_usual_mode_and_leaves_no_draft(tmp_path):
    path = tmp_path / "a" / "b.txt"
    assert files.write_if_changed(path, "ü\n") is True
    assert files.write_if_changed(path, "ü\n") is False
    plain = tmp_path / "plain"
    plain.write_text("")
    assert path.read_bytes() == "ü\n".encode() and path.stat().st_mode == plain.stat().st_mode
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]
