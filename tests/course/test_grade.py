"""Grading from the command line: what is printed and written, exit codes, options."""

import argparse
import json
import re
import runpy
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

pytest.importorskip("nbval")
from bigbird_mini.course import pytest_grade
from bigbird_mini.course.limits import HELP, Limits, from_options, positive
from bigbird_mini.course.submission import manifest

ROOT = Path(__file__).parents[2]
hostile = runpy.run_path(str(Path(__file__).with_name("hostile.py")))


def write(path, case="right"):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(hostile["spoiled"](case, hostile["small"]()))


def grade(folder, *arguments, **more):
    return hostile["grade"](folder, *arguments, **more)[:2]


def test_the_exercises_as_they_are_get_no_points(tmp_path):
    """Nobody has attempted anything, and each task says so."""
    paths = sorted((ROOT / "exercises").glob("*.ipynb"))
    for path in paths:
        if path.stem in manifest():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    code, said = grade(tmp_path, "--score-json=score.json", small=False)
    score = json.loads((tmp_path / "score.json").read_text("utf-8"))
    assert code == 1, said
    assert score["points"] == 0 and score["max"] == sum(row["max"] for rows in manifest().values() for row in rows)
    assert {task["outcome"] for task in score["tasks"]} == {"not attempted"}, said
    assert all(not book["faults"] for book in score["notebooks"])


def test_with_the_courses_own_checks(tmp_path):
    """The cases that do not depend on what the checks say, on exercise 01."""
    names = ("right", "kills the kernel", "a fake check", "check cells reordered", "new cell ids")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "01_dense_attention.ipynb").write_bytes(hostile["spoiled"](name, hostile["real"]()))
    code, said = grade(tmp_path, "--score-json=score.json", small=False)
    rows = json.loads((tmp_path / "score.json").read_text("utf-8"))["tasks"]
    assert code == 1
    for name in names:
        mine = [row for row in rows if row["notebook"].startswith(f"{name}/")]
        assert len(mine) == len(manifest()["01_dense_attention"])
        assert hostile["faults"](name, mine) == [], said


def test_a_kernel_that_does_not_start_costs_the_points_and_says_so(tmp_path, monkeypatch):
    write(tmp_path / "90_small.ipynb")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "no_kernel.py").write_text(
        "from bigbird_mini.course import kernel\n"
        "def ready(self, folder):\n    raise RuntimeError('no room')\n"
        "kernel.Kernel.ready = ready\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "elsewhere"))
    code, said = grade(tmp_path, "-p", "no_kernel", "--score-json=score.json")
    score = json.loads((tmp_path / "score.json").read_text("utf-8"))
    assert (code, score["points"], score["max"]) == (1, 0, 5), said
    assert {task["outcome"] for task in score["tasks"]} == {"not run"}
    assert score["tasks"][0]["why"] == "The notebook's kernel did not start (RuntimeError: no room)."


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """One notebook with its second task not attempted."""
    folder = tmp_path_factory.mktemp("one")
    write(folder / "anna 90_small.ipynb", "not attempted")
    code, said = grade(folder, "--junitxml=junit.xml", "--score-json=score.json", "-v")
    return {"folder": folder, "code": code, "said": said}


def test_what_is_printed(one):
    said = one["said"]
    assert one["code"] == 1
    assert "anna 90_small.ipynb::task 90.1 twice PASSED" in said
    assert "Task 90.2 (the sum): not attempted, 0/2 points\nPut your code in place of" in said
    table = said[said.index("= score =") :]
    assert re.search(r"^right +90\.1 twice +2/2$", table, re.M)
    assert re.search(r"^not attempted +90\.2 the sum +0/2 +Put your code in place", table, re.M)
    assert re.search(r"^score: 3/5 points$", table, re.M)
    assert "\x1b" not in said and "Traceback" not in said


def test_junit_properties_are_scalars(one):
    tree = ElementTree.parse(one["folder"] / "junit.xml")
    cases = [{p.get("name"): p.get("value") for p in c.iter("property")} for c in tree.iter("testcase")]
    found = [(c["task"], c["points"], c["max"], c["outcome"]) for c in cases if "task" in c]
    assert found == [("90.1", "2", "2", "right"), ("90.2", "0", "2", "not attempted"), ("90.3", "1", "1", "right")]
    (failure,) = tree.iter("failure")
    assert failure.text.startswith("Task 90.2 (the sum): not attempted, 0/2 points\nPut your code in place of")


def test_the_score_file(one):
    score = json.loads((one["folder"] / "score.json").read_text("utf-8"))
    assert score.keys() == {"points", "max", "tasks", "notebooks"} and (score["points"], score["max"]) == (3, 5)
    task = score["tasks"][1]
    assert {key: task[key] for key in ("task", "points", "max", "outcome")} == {
        "task": "90.2", "points": 0, "max": 2, "outcome": "not attempted"
    }  # fmt: skip
    assert task["why"].startswith("Put your code in place") and task["notebook"] == "anna 90_small.ipynb"
    (book,) = score["notebooks"]
    assert book["faults"] == [] and book["seconds"] >= sum(task["seconds"] for task in score["tasks"])


def test_one_task_alone_runs_what_it_builds_on(one):
    """Full points of what was chosen exit with 0."""
    code, said = grade(one["folder"], "-k", "90.3")
    assert code == 0, said
    assert "score: 1/1 points" in said


def test_a_file_of_any_name_is_graded_as_told(tmp_path):
    write(tmp_path / "class" / "anna.ipynb", "empty file")
    write(tmp_path / "class" / "bert.ipynb", "another course")
    code, said = grade(tmp_path, "class", "--grade-as=90_small", "--score-csv=points.csv")
    assert code == 1
    rows = (tmp_path / "points.csv").read_text("utf-8-sig").splitlines()
    assert [row.split(",")[:6] for row in rows[1:]] == [
        ["class/anna.ipynb", "0", "5", "0", "0", "0"],
        ["class/bert.ipynb", "0", "5", "0", "0", "0"],
    ], said
    code, said = grade(tmp_path, "class", "--grade-as=nothing")
    assert code == 4 and "--grade-as: there is no exercise nothing; there are 90_small" in said


def test_points_for_nobody_are_no_success(tmp_path):
    write(tmp_path / "bert.ipynb", "another course")
    assert grade(tmp_path)[0] == 0, "nobody asked for points"
    code, said = grade(tmp_path, "--score-json=score.json")
    assert code == 1 and "score: no notebook of this course was found" in said
    assert re.search(r"^no exercise +bert\.ipynb +left to nbval; --grade-as NAME grades it$", said, re.M)
    assert json.loads((tmp_path / "score.json").read_text("utf-8"))["max"] == 0


def test_without_psutil_one_sentence(tmp_path, monkeypatch):
    (tmp_path / "01_dense_attention.ipynb").write_bytes(hostile["spoiled"]("right", hostile["real"]()))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "psutil.py").write_text("raise ModuleNotFoundError('no', name='psutil')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "elsewhere"))
    code, said = grade(tmp_path, small=False)
    assert code == 4 and 'grading needs psutil: pip install "bigbird-mini[test]"' in said


def test_bad_options_are_refused(tmp_path, monkeypatch):
    code, said = grade(tmp_path, "--grade-cell-seconds=0")
    assert code == 4 and "'0' is not a number above 0" in said
    monkeypatch.chdir(tmp_path)
    for name, words in [("score_json", "--score-json: there is no folder no"), ("score_csv", "--score-csv: there is")]:
        given = argparse.Namespace(getoption=lambda asked, _, name=name: "no/where" if asked == name else None)
        with pytest.raises(pytest.UsageError, match=words):
            pytest_grade.pytest_configure(given)


def test_what_a_container_runs_takes_no_settings_from_the_class(tmp_path):
    """The options that docs/grading.md gives: no conftest.py and no pytest.ini of a learner's."""
    write(tmp_path / "class" / "anna.ipynb")
    (tmp_path / "class" / "conftest.py").write_text("raise SystemExit('a conftest ran')")
    (tmp_path / "class" / "pytest.ini").write_text("[pytest]\naddopts = -p evil\n")
    text = (ROOT / "docs" / "grading.md").read_text("utf-8")
    given = json.loads(re.search(r"^ENTRYPOINT (.*)$", text, re.M)[1])
    assert given[1:4] == ["-m", "pytest", "--nbval-lax"] and "/class" in given
    options = [word.replace("/class", str(tmp_path / "class")).replace("/out", str(tmp_path)) for word in given[4:]]
    if sys.platform == "win32":
        options[options.index("/dev/null")] = "nul"
    code, said = grade(tmp_path, *options)
    assert code == 0 and "score: 5/5 points" in said, said
    assert json.loads((tmp_path / "points.json").read_text("utf-8"))["points"] == 5


def test_limits_come_from_the_command_line():
    given = {f"grade_{name}": float(number) for number, name in enumerate(HELP, 1)}
    assert from_options(argparse.Namespace(**given)) == Limits(1.0, 2.0, 3.0, 4.0, 5.0)
    assert (positive("2.5"), positive("inf")) == (2.5, float("inf"))
    assert (Limits().cell_seconds, Limits().file_seconds) == (30, 150)
    for text in ("-1", "nan", "x"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"'{text}' is not a number above 0"):
            positive(text)


def test_plugin_is_idle_without_nbval(tmp_path):
    (tmp_path / "test_x.py").write_text("import sys\ndef test(): assert 'torch' not in sys.modules")
    base = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    idle = subprocess.run([*base, "-p", "no:nbval"], cwd=tmp_path, capture_output=True, text=True)
    assert idle.returncode == 0 and "score" not in idle.stdout, idle.stdout + idle.stderr
    told = subprocess.run([*base, "--score-json=x.json"], cwd=tmp_path, capture_output=True, text=True)
    assert told.returncode == 4 and "--score-json needs nbval" in told.stderr


def test_plugin_import_is_light():
    code = (
        "import sys, bigbird_mini.course.pytest_grade; "
        "heavy = {'matplotlib', 'ipywidgets', 'nbformat', 'nbval.kernel', 'psutil', 'bigbird_mini.course.checking'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
