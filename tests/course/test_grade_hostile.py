"""Whatever a learner's file does, each task gets points or a reason, and the rest is graded. The cases: hostile.py.

All files are graded by one pytest in a process of its own; the tests look at what it left behind.
"""

import csv
import json
import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

pytest.importorskip("nbval")
hostile = runpy.run_path(str(Path(__file__).with_name("hostile.py")))
CASES, LIMITS = hostile["CASES"], {"cell_seconds": 3, "memory_mb": 700, "size_mb": 2}


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ein Kurs, 2 #é")
    for name in CASES:
        (folder / name).mkdir()
        (folder / name / "90_small.ipynb").write_bytes(hostile["spoiled"](name, hostile["small"]()))
    # a module of that name beside the notebook must not take the place of the course's
    (folder / "a fake check" / "small_check.py").write_text("def check(*all):\n    print('right')\n", "utf-8")
    files = ["--score-json=score.json", "--score-csv=score.csv", "--junitxml=junit.xml"]
    code, said, _ = hostile["grade"](folder, *files, "-v", timeout=900, **LIMITS)
    score = json.loads((folder / "score.json").read_text("utf-8"))
    rows = {name: [] for name in CASES}
    for row in score["tasks"]:
        rows[row["notebook"].split("/")[0]].append(row)
    return {"code": code, "said": said, "score": score, "rows": rows, "folder": folder}


@pytest.mark.parametrize("name", CASES)
def test_each_is_graded_as_documented(graded, name):
    assert hostile["faults"](name, graded["rows"][name]) == []


@pytest.mark.parametrize("name", CASES)
def test_what_is_lost_or_hostile_fails(graded, name):
    """pytest's exit code on one file is 1 where one of its tests fails, 0 where none does."""
    cases = list(ElementTree.parse(graded["folder"] / "junit.xml").iter("testcase"))
    mine = [
        c for c in cases if c.get("classname").startswith(f"{name}.90_small") or f"{name}/90_small" in c.get("name")
    ]
    assert mine, "nbval ran what the grader did not"
    failed = any(c.find("failure") is not None or c.find("error") is not None for c in mine)
    assert failed == bool(CASES[name].exit and name != "another course")


def test_the_whole_run_ends_as_documented(graded):
    assert graded["code"] == 1
    score = graded["score"]
    assert len(score["notebooks"]) == len(CASES) - 1, "all but the one of another course"
    assert score["points"] == sum(book["points"] for book in score["notebooks"])
    assert score["max"] == 5 * (len(CASES) - 1)
    assert f"score: {score['points']}/{score['max']} points" in graded["said"]
    assert "another course/90_small.ipynb  left to nbval" in graded["said"]


def test_reasons_are_harmless(graded):
    for rows in graded["rows"].values():
        for row in rows:
            assert len(row["why"]) <= 2000
            assert all(c.isprintable() or c in "\n\t" for c in row["why"])
            assert row["outcome"] == "right" or len(row["why"]) > 10
    assert len(graded["said"]) < 200_000 and "\x1b[2J" not in graded["said"]
    # nothing of pytest or of the grader in the reports: no traceback but the learner's own
    assert "site-packages/_pytest" not in graded["said"] and "INTERNALERROR" not in graded["said"]


def test_a_limit_stops_a_cell_and_not_its_notebook(graded):
    row = graded["rows"]["endless loop"][1]
    assert row["why"] == "Stopped after 3 s: an endless loop, or far too slow."
    assert graded["rows"]["out of memory"][1]["why"] == "Stopped: it took more than 700 MB of memory."
    faults = {book["notebook"].split("/")[0]: book["faults"] for book in graded["score"]["notebooks"]}
    assert faults["right"] == []
    assert [fault["why"].split(":")[0] for fault in faults["loop in a cell of its own"]] == ["stopped after 3 s"]
    assert faults["exit() in a cell of its own"][0]["why"].startswith("exit() would end the notebook here")
    assert faults["input() in a cell of its own"][0]["why"].startswith("input() waits for somebody")


def test_the_table_for_a_class(graded):
    with (graded["folder"] / "score.csv").open(encoding="utf-8-sig", newline="") as file:
        head, *lines = csv.reader(file)
    assert head == ["notebook", "points", "max", "90.1", "90.2", "90.3", "why"]
    by_name = {line[0].split("/")[0]: line for line in lines}
    assert by_name["right"][1:] == ["5", "5", "2", "2", "1", ""]
    assert by_name["check cell deleted"][1:6] == ["3", "5", "2", "0", "1"]
    assert by_name["check cell deleted"][6].startswith("90.2 not run: Its check cell is missing. Mend it with:")
    assert by_name["empty file"][6].count(" | ") == 2
    assert all(len(line) == 7 and "\n" not in line[6] for line in lines)
