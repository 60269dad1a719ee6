"""Grading: whatever a learner's notebook does, each task gets points or a reason, and the rest is still graded.

All the notebooks below are run by one pytest in a process of its own; the tests look at what it left behind.
"""

import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

pytest.importorskip("nbval")
ROOT = Path(__file__).parents[2]
NAME = "01_dense_attention.ipynb"
TIMEOUT = 8
SCALE = "q.shape[-1] ** 0.5"


def solution():
    return json.loads((ROOT / "solutions" / NAME).read_text("utf-8"))


def cell(notebook, name):
    return next(c for c in notebook["cells"] if c["id"] == name)


def function(name, parameters, *lines):
    return "\n    ".join([f"def {name}({parameters}):", *lines])


HEAD = ("head_attention", "q, k, v")
HEADS = ("multi_head", "q, k, v, key_mask")
BYTES = ("score_bytes", "n, heads, bytes_per_number=4")


def mixed():
    """1.1 wrong, and its check cell edited to look fine; 1.2 has lost its check cell; 1.3 right."""
    notebook = solution()
    cell(notebook, "answer-1-1")["source"] = function(*HEAD, "return torch.softmax(q @ k.T, -1) @ v")
    cell(notebook, "check-1-1")["source"] = 'print("all fine")'
    notebook["cells"].remove(cell(notebook, "check-1-2"))
    return notebook


def crashing():
    """1.1 does not even compile, 1.2 crashes in a helper of the learner's, 1.3 right; every cell id is a new one."""
    notebook = solution()
    cell(notebook, "answer-1-1")["source"] = "def head_attention(q, k, v)\n    return v"
    helper = "def scale(x):\n    return x / {}['d']\n\n"
    cell(notebook, "answer-1-2")["source"] = helper + function(*HEADS, "return scale(q)")
    for number, c in enumerate(notebook["cells"]):
        c["id"] = f"new{number}"
    return notebook


def endless():
    """1.1 never ends, 1.2 prints without end, 1.3 right."""
    notebook = solution()
    cell(notebook, "answer-1-1")["source"] = function(*HEAD, "while True:", "    pass")
    cell(notebook, "answer-1-2")["source"] = function(*HEADS, "while True:", "    print('x' * 100)")
    return notebook


def killed():
    """1.1 right, 1.2 ends the kernel."""
    notebook = solution()
    cell(notebook, "answer-1-2")["source"] = function(*HEADS, "import os", "os._exit(1)")
    return notebook


def shadowed():
    """`check` does nothing any more, and a tag excuses every exception."""
    notebook = solution()
    cell(notebook, "imports")["source"] += "\ncheck = lambda *a: None"
    for number in "12345":
        cell(notebook, f"check-1-{number}")["metadata"]["tags"] = ["raises-exception", "nbval-skip"]
    return notebook


def odd():
    """Right answers in a file with a kernel that is not here, outputs of cells never run, and a copied check cell."""
    notebook = solution()
    notebook["metadata"]["kernelspec"] = {"name": "elsewhere", "display_name": "Elsewhere"}
    for c in notebook["cells"]:
        if c["cell_type"] == "code":
            c["execution_count"] = None
    notebook["cells"].append(cell(notebook, "check-1-1") | {"id": "copy"})
    return notebook


def write_cases(folder):
    cases = {"mixed": mixed, "crashing": crashing, "endless": endless, "killed": killed, "shadowed": shadowed}
    for name, make in (cases | {"odd": odd}).items():
        (folder / name).mkdir()
        (folder / name / NAME).write_text(json.dumps(make()), "utf-8")
    (folder / "exercises").mkdir()
    untouched = (ROOT / "exercises" / NAME).read_text("utf-8")
    (folder / "exercises" / "01_dense_attention-Copy1.ipynb").write_text(untouched, "utf-8")
    text = json.dumps(solution(), indent=1)
    for name, content in {
        "cut": text[: len(text) // 2],
        "merge": text.replace(' "cells"', '<<<<<<< HEAD\n "cells"', 1),
        "list": "[]",
    }.items():
        (folder / name / "solutions").mkdir(parents=True)
        (folder / name / "solutions" / NAME).write_text(content, "utf-8")
    (folder / "lessons").mkdir()
    lesson = solution() | {"cells": [cell(solution(), "intro"), {"cell_type": "code", "id": "sum", "metadata": {}}]}
    lesson["cells"][1] |= {"source": "1 + 1", "outputs": [], "execution_count": None}
    (folder / "lessons" / NAME).write_text(json.dumps(lesson), "utf-8")


def run_pytest(folder, *arguments):
    options = ["--nbval-lax", f"--nbval-cell-timeout={TIMEOUT}", "-p", "no:cacheprovider", "-v"]
    command = [sys.executable, "-m", "pytest", *options, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grade")
    write_cases(folder)
    done = run_pytest(folder, "--score-json=score.json", "--junitxml=junit.xml")
    rows = json.loads((folder / "score.json").read_text("utf-8"))
    by_case = {}
    for row in rows["tasks"]:
        by_case.setdefault(row["notebook"].split("/")[0], {})[row["task"]] = row
    return {"run": done, "score": rows, "cases": by_case, "folder": folder}


LAST = {"1.4": ("right", 2), "1.5": ("right", 3)}


def outcomes(rows):
    return {number: (row["outcome"], row["points"]) for number, row in rows.items()}


def test_points_add_up(graded):
    assert graded["run"].returncode == 1, graded["run"].stdout
    assert graded["score"]["max"] == 10 * 10
    assert graded["score"]["points"] == sum(row["points"] for row in graded["score"]["tasks"])
    for row in graded["score"]["tasks"]:
        assert row["points"] == (row["max"] if row["outcome"] == "right" else 0)
        assert row["outcome"] == "right" or len(row["why"]) > 20


def test_untouched_copy_of_an_exercise(graded):
    rows = graded["cases"]["exercises"]
    assert set(outcomes(rows).values()) == {("not attempted", 0)} and len(rows) == 5


def test_wrong_edited_and_missing(graded):
    rows = graded["cases"]["mixed"]
    assert outcomes(rows) == {"1.1": ("wrong", 0), "1.2": ("not run", 0), "1.3": ("right", 1)} | LAST
    assert "No 1/√d: " in rows["1.1"]["why"]
    assert "edited; the original was run" in rows["1.1"]["why"]
    assert "check cell is missing. Get a fresh copy of the exercise" in rows["1.2"]["why"]


def test_crashes_show_the_learners_lines_only(graded):
    rows = graded["cases"]["crashing"]
    assert outcomes(rows) == {"1.1": ("error", 0), "1.2": ("error", 0), "1.3": ("right", 1)} | LAST
    assert rows["1.1"]["why"].startswith("There is no `head_attention`: cell 2 «def head_attention(q, k, v)» failed")
    assert "SyntaxError" in rows["1.1"]["why"]
    first, *lines = rows["1.2"]["why"].splitlines()
    assert first.startswith("KeyError: 'd' (called with q of shape (2, 3, 5, 5)")
    assert lines == ["Your code:", "  line 5: return scale(q)", "  line 2: return x / {}['d']"]


def test_endless_loops_stop_and_the_rest_is_graded(graded):
    rows = graded["cases"]["endless"]
    assert outcomes(rows) == {"1.1": ("error", 0), "1.2": ("error", 0), "1.3": ("right", 1)} | LAST
    for number in ("1.1", "1.2"):
        assert rows[number]["why"] == f"Stopped after {TIMEOUT} s: an endless loop, or far too slow."


def test_killed_kernel(graded):
    rows = graded["cases"]["killed"]
    assert outcomes(rows) == {"1.1": ("right", 2), "1.2": ("error", 0), "1.3": ("not run", 0)} | dict.fromkeys(
        LAST, ("not run", 0)
    )
    assert rows["1.2"]["why"].startswith("The kernel died while this cell ran")
    assert "in an earlier cell" in rows["1.3"]["why"]


def test_replaced_check(graded):
    for row in graded["cases"]["shadowed"].values():
        assert row["why"] == "No score came: is `check` still the one from bigbird_mini.course?"


def test_odd_files_get_their_points(graded):
    assert [row["points"] for row in graded["cases"]["odd"].values()] == [2, 2, 1, 2, 3]


@pytest.mark.parametrize(
    "case, words", [("cut", "damaged or cut off"), ("merge", "git merge conflicts"), ("list", "no Jupyter notebook")]
)
def test_unreadable_files_cost_their_points_only(graded, case, words):
    rows = graded["cases"][case]
    assert outcomes(rows) == dict.fromkeys(("1.1", "1.2", "1.3", "1.4", "1.5"), ("not run", 0))
    assert all(words in row["why"] and "fresh copy" in row["why"] for row in rows.values())


def test_lessons_stay_with_nbval(graded):
    assert "lessons" not in graded["cases"]
    assert re.search(r"^lessons/01_dense_attention.*Cell 0 PASSED", graded["run"].stdout, re.M)


def test_what_is_printed(graded):
    out = graded["run"].stdout
    assert "\x1b" not in out and "Traceback" not in out and "restore" not in out
    assert "killed/01_dense_attention.ipynb::task 1.1 one head by hand PASSED" in out
    table = out[out.index("= score =") :]
    assert "killed/01_dense_attention.ipynb: 2/10" in table
    assert re.search(r"^right +1\.1 one head by hand +2/2$", table, re.M)
    assert re.search(r"^error in code +1\.2 many heads, real tokens only +0/2 +The kernel died", table, re.M)
    assert f"score: {graded['score']['points']}/100 points" in table


def test_junit_properties_are_scalars(graded):
    tree = ElementTree.parse(graded["folder"] / "junit.xml")
    cases = [{p.get("name"): p.get("value") for p in c.iter("property")} for c in tree.iter("testcase")]
    found = [c for c in cases if c.get("notebook", "").startswith("killed/")]
    assert [(c["task"], c["points"], c["max"], c["outcome"]) for c in found] == [
        ("1.1", "2", "2", "right"),
        ("1.2", "0", "2", "error"),
        ("1.3", "0", "1", "not run"),
        ("1.4", "0", "2", "not run"),
        ("1.5", "0", "3", "not run"),
    ]


def test_one_task_alone_and_full_points(graded):
    """Choosing one task still runs the cells that it builds on; full points exit with 0."""
    notebook = f"odd/{NAME}"
    done = run_pytest(graded["folder"], notebook, "-k", "1.2 and many", "--score-json=one.json")
    assert done.returncode == 0, done.stdout
    assert "score: 2/2 points" in done.stdout


def test_plugin_is_idle_without_nbval(tmp_path):
    (tmp_path / "test_x.py").write_text("def test(): pass")
    base = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    idle = subprocess.run([*base, "-p", "no:nbval"], cwd=tmp_path, capture_output=True, text=True)
    assert idle.returncode == 0 and "score" not in idle.stdout, idle.stdout + idle.stderr
    told = subprocess.run([*base, "--score-json=x.json"], cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 4 and "--score-json needs nbval" in told.stderr


def test_plugin_import_is_light():
    code = (
        "import sys, bigbird_mini.course.pytest_grade; "
        "heavy = {'matplotlib', 'ipywidgets', 'nbformat', 'bigbird_mini.course.tasks_01', "
        "'bigbird_mini.course.checking'}; print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
