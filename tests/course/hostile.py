"""What learners' files can do to a grader, one case each, and what has to come of it.

python tests/course/hostile.py            a table: each case alone, with its exit code, seconds and score
python tests/course/hostile.py --class    a folder of a hundred notebooks, ten of them hostile
python tests/course/hostile.py --real     the same cases on exercise 01 in place of a small one made for tests

tests/course/test_grade_hostile.py runs the same cases, all in one folder. A case is a function that changes a solved
notebook; in most of them the second task is hostile, so that a task before and one after it show what was saved.
"""

import argparse
import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SMALL = HERE / "hostile_course"
RIGHT, LOST = ("right",), ("not run",)


class Book:
    """A solved notebook to spoil. `check(1)` and `answer(1)` are the cells of its second task."""

    def __init__(self, notebook, rows):
        self.notebook, self.rows = copy.deepcopy(notebook), rows
        self.cells = self.notebook["cells"]

    def check(self, number):
        return next(c for c in self.cells if c["id"] == self.rows[number]["cell"])

    def answer(self, number):
        return self.cells[self.cells.index(self.check(number)) - 1]

    def name(self, number):
        return self.rows[number]["source"].split(",")[1].strip(" )")

    def write(self, number, *lines):
        """The task's function does this now, whatever it is called with."""
        self.answer(number)["source"] = "\n    ".join([f"def {self.name(number)}(*inputs):", *lines])

    def insert(self, source, above=1, id="extra", **metadata):
        """One more code cell, above the answer of that task."""
        cell = {"cell_type": "code", "id": id, "metadata": metadata, "source": source, "outputs": []}
        self.cells.insert(self.cells.index(self.answer(above)), cell | {"execution_count": None})

    def text(self):
        return json.dumps(self.notebook, indent=1)


def small():
    """The solved notebook of the small exercise and its rows of the manifest."""
    rows = json.loads((SMALL / "manifest.json").read_text("utf-8"))["90_small"]
    answers = ["def double(x):\n    return 2 * x", "def total(numbers):\n    return sum(numbers)", "seven = 7"]
    sources = [("imports", "from small_check import check")]
    for row, answer in zip(rows, answers, strict=True):
        sources += [("answer-" + row["task"].replace(".", "-"), answer), (row["cell"], row["source"])]
    blank = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    cells = [blank | {"id": id, "source": source, "metadata": {}} for id, source in sources]
    origin = {"bigbird_mini": {"generated_from": "solutions/90_small.ipynb"}}
    return {"cells": cells, "metadata": origin, "nbformat": 4, "nbformat_minor": 5}, rows


def real():
    """Exercise 01 as its solution has it, and its rows of the manifest."""
    name = "01_dense_attention"
    notebook = json.loads((ROOT / "solutions" / f"{name}.ipynb").read_text("utf-8"))
    notebook["metadata"]["bigbird_mini"] = {"generated_from": f"solutions/{name}.ipynb"}
    for cell in notebook["cells"]:
        cell["source"] = "".join(cell["source"])
    manifest = json.loads((ROOT / "bigbird_mini" / "course" / "manifest.json").read_text("utf-8"))
    return notebook, manifest[name]


# ---------------------------------------------------------------- the cases


@dataclass(frozen=True)
class Case:
    """`spoil` changes the Book, or returns the text of the file. `first`, `second`, `rest`: allowed outcomes of the
    tasks; `words`: what the reason of the second task says; `exit`: pytest's exit code on this file alone."""

    spoil: Callable
    second: tuple[str, ...]
    words: str = ""
    first: tuple[str, ...] = RIGHT
    rest: tuple[str, ...] = RIGHT
    exit: int = 1


CASES: dict[str, Case] = {}


def case(name, second, words="", **more):
    def keep(spoil):
        CASES[name] = Case(spoil, (second,) if isinstance(second, str) else second, words, **more)
        return spoil

    return keep


def body(name, *lines, words, second="error"):
    """A case in which the second task's function has these lines."""
    case(name, second, words)(lambda book: book.write(1, *lines))


def cell(name, source):
    """A case with a cell of this text above the second task, which is solved: no points lost, but exit code 1."""
    case(name, "right")(lambda book: book.insert(source))


def whole(name, words, text, **more):
    """A case in which the file is none: all tasks are lost."""
    case(name, "not run", words, first=LOST, rest=LOST, **more)(text)


case("right", "right", exit=0)(lambda book: None)
body("endless loop", "while True:", "    pass", words="an endless loop, or far too slow")
body("endless print", "while True:", "    print('x' * 1000)", words="Stopped")
body("sleeps", "import time", "time.sleep(1000)", words="an endless loop, or far too slow")
body("kills the kernel", "import os", "os._exit(1)", words="The kernel died while this cell ran")
body("segfault", "import ctypes", "ctypes.string_at(0)", words="The kernel died while this cell ran")
body("exit()", "exit()", words="", second=("wrong", "error"))
body("sys.exit()", "import sys", "sys.exit(0)", words="SystemExit")
body("input()", "return input()", words="", second="error")
body("out of memory", "kept = []", "while True:", "    kept.append(b'x' * 300_000_000)", words="MB of memory")
body("a process that stays", "import subprocess, sys", "sleep = 'import time; time.sleep(1000)'",
     "subprocess.run([sys.executable, '-c', sleep])", words="an endless loop, or far too slow")  # fmt: skip
body("deaf to interrupts", "import signal", "signal.signal(signal.SIGINT, signal.SIG_IGN)", "while True:", "    pass",
     words="an endless loop, or far too slow")  # fmt: skip
body("an error of 20 MB", "raise ValueError('y' * 20_000_000)", words="yyyy")
body("terminal codes in an error", "raise ValueError('\\x1b[2J\\x1b]0;title\\x07 gone')", words="gone")

cell("loop in a cell of its own", "while True:\n    pass")
cell("dead kernel in a cell of its own", "import os\nos._exit(1)")
cell("exit() in a cell of its own", "exit()")
cell("sys.exit() in a cell of its own", "import sys\nsys.exit()")
cell("input() in a cell of its own", "name = input('your name? ')")
cell("an experiment that fails", "1 / 0")


@case("thousands of warnings", "right", exit=0)
def warnings(book):
    book.insert(
        "import sys, warnings\nfor i in range(5000):\n    warnings.warn(f'warning {i}')\nprint('x', file=sys.stderr)"
    )


@case("not attempted", "not attempted", "raise NotImplementedError")
def stub(book):
    book.write(1, "# TODO: your code here", "raise NotImplementedError")


@case("wrong, run and saved as right", "wrong")
def saved(book):
    row = book.rows[1]
    book.write(1, "return 'wrong'")
    record = {"task": row["task"], "title": row["title"], "points": row["max"], "max": row["max"], "outcome": "right"}
    data = {"application/vnd.bigbird.score+json": record | {"why": ""}, "text/plain": "right, 2 of 2 points"}
    book.check(1)["outputs"] = [{"output_type": "display_data", "metadata": {}, "data": data}]
    book.check(1)["execution_count"] = 9


@case("a cell with a syntax error", "error", "SyntaxError")
def syntax(book):
    book.answer(1)["source"] = "def broken(\n    return"


@case("check cell edited", "wrong", "edited; the original was run")
def edited(book):
    book.write(1, "return 'wrong'")
    book.check(1)["source"] = "print('all fine')"


@case("check cell deleted", "not run", "check cell is missing")
def deleted(book):
    book.cells.remove(book.check(1))


@case("check cell made text", "not run", "check cell is missing")
def markdown(book):
    book.check(1)["cell_type"] = "markdown"


@case("check cell duplicated", "right", exit=0)
def duplicated(book):
    first = book.cells.index(book.answer(1))
    book.cells.insert(first, copy.deepcopy(book.check(1)))
    book.cells.append(copy.deepcopy(book.check(0)) | {"id": "copy"})


@case("check cells reordered", "right", exit=0)
def reordered(book):
    checks = [book.check(number) for number in range(len(book.rows))]
    for check in checks:
        book.cells.remove(check)
        book.cells.insert(1, check)


@case("check cells to be skipped", "wrong")
def tagged(book):
    book.write(1, "return 'wrong'")
    book.check(1)["metadata"]["tags"] = ["nbval-skip", "raises-exception"]
    book.check(1)["source"] = "# NBVAL_SKIP\n" + book.check(1)["source"]


@case("a fake check", "wrong", "the course's was run")
def fake(book):
    book.write(1, "return 'wrong'")
    book.insert("def check(*all):\n    print('right')")


@case("a fake check that shows a score", "wrong", "the course's was run")
def forged(book):
    book.write(1, "return 'wrong'")
    row = book.rows[1]
    record = {"task": row["task"], "points": row["max"], "max": row["max"], "outcome": "right", "why": ""}
    show = f"display({{'application/vnd.bigbird.score+json': {record!r}}}, raw=True)"
    book.insert(f"def check(*all):\n    {show}")
    book.answer(1)["source"] += f"\n{show}"


@case("no import of check", "right", exit=0)
def unimported(book):
    imports = next(c for c in book.cells if "import check" in c["source"])
    imports["source"] = "\n".join(line for line in imports["source"].splitlines() if "import check" not in line)


@case("new cell ids", "right", exit=0)
def renamed(book):
    for number, cell in enumerate(book.cells):
        cell["id"] = f"new{number}"


@case("no cell ids, another kernel", "right", exit=0)
def kernel(book):
    for cell in book.cells:
        del cell["id"]
    book.notebook["nbformat_minor"] = 2
    book.notebook["metadata"]["kernelspec"] = {"name": "elsewhere", "display_name": "R", "language": "R"}


@case("cells that are none", "right", exit=0)
def odd(book):
    book.cells[1:1] = [None, 7, {"cell_type": "code"}, {"cell_type": "code", "source": 5}, {"source": ["\ud800"]}]
    book.cells[1:1] = [{"cell_type": "code", "metadata": [], "source": ["# half \ud800 a character"]}]


@case("large outputs", "right", exit=0)
def large(book):
    book.answer(0)["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "x" * 1_500_000}]


whole("cut off", "damaged or cut off", lambda book: book.text()[: len(book.text()) // 2])
whole("merge markers", "git merge conflicts", lambda book: book.text().replace(' "cells"', '<<<<<<< HEAD\n "cells"', 1))
whole("empty file", "The file is empty", lambda book: "")
whole("not text", "The file is not text", lambda book: b"\x80\x81\xff\x00bigbird_mini")
whole("JSON of something else", "no Jupyter notebook", lambda book: '["bigbird_mini"]')
whole("too deep", "damaged or cut off", lambda book: "[" * 200_000)
whole("huge file", "clear its outputs", lambda book: book.text() + " " * 3_000_000)


# alone: points were asked for, and there is nobody to give them to
@case("another course", "absent", first=("absent",), rest=("absent",))
def foreign(book):
    cells = [{"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": None}]
    cells[0]["source"] = "def check(*all):\n    pass\ncheck('1.1', 3)"
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


# ---------------------------------------------------------------- grading them


def spoiled(name, base):
    """The bytes of the case's file."""
    book = Book(*base)
    text = CASES[name].spoil(book)
    text = text if isinstance(text, str | bytes) else book.text()
    return text.encode() if isinstance(text, str) else text


def grade(folder, *arguments, small=True, timeout=600, **limits):
    """Run pytest on what stands in `folder`; returns (exit code, what it printed, seconds)."""
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "-p", "no:cacheprovider"]
    command += ["-p", "small_course"] * small + list(arguments)
    command += [f"--grade-{name.replace('_', '-')}={value}" for name, value in limits.items()]
    paths = [str(SMALL)] * small + [str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUTF8": "1"}
    began = time.monotonic()
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, encoding="utf-8", timeout=timeout)
    return done.returncode, done.stdout + done.stderr, time.monotonic() - began


def faults(name, rows):
    """What is not as documented in the rows of one case; `rows` are its tasks in the score file."""
    wanted = CASES[name]
    places = [wanted.first, wanted.second, *[wanted.rest] * (len(rows) - 2)]
    if not rows:
        return [] if wanted.second == ("absent",) else ["no rows"]
    found = [
        f"{r['task']} is {r['outcome']}: {r['why']}" for r, p in zip(rows, places, strict=True) if r["outcome"] not in p
    ]
    found += [f"{r['task']} has {r['points']}" for r in rows if r["points"] != r["max"] * (r["outcome"] == "right")]
    return found + [f"not said: {wanted.words}"] * (wanted.words not in rows[1]["why"])


def table(base, stem, small, limits):
    """Grade each case alone and print a line for it; returns how many are not as documented."""
    print(f"{'case':<34} exit  seconds  score  as documented")
    bad = 0
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / f"{stem}.ipynb").write_bytes(spoiled(name, base))
            code, _, seconds = grade(folder, "--score-json=score.json", small=small, **limits)
            score = json.loads((Path(folder) / "score.json").read_text("utf-8"))
        wrong = faults(name, score["tasks"])
        wrong += [f"exit code {code}, not {CASES[name].exit}"] * (code != CASES[name].exit)
        points = f"{score['points']}/{score['max']}"
        print(f"{name:<34} {code:>4}  {seconds:>7.1f}  {points:>5}  {'; '.join(wrong) or 'yes'}", flush=True)
        bad += bool(wrong)
    return bad


TEN = ("endless loop", "endless print", "kills the kernel", "segfault", "out of memory", "deaf to interrupts",
       "a fake check", "check cell deleted", "cut off", "empty file")  # fmt: skip


def hundred(base, stem, small, limits):
    """Grade a folder of a hundred learners, ten of them hostile; returns how many are not as documented."""
    with tempfile.TemporaryDirectory(prefix="a class ") as folder:
        names = {}
        for number in range(100):
            name = TEN[number // 10] if number % 10 == 7 else "right"
            place = Path(folder) / f"learner {number:02}"
            place.mkdir()
            (place / f"{stem}.ipynb").write_bytes(spoiled(name, base))
            names[f"learner {number:02}/{stem}.ipynb"] = name
        files = ("--score-json=score.json", "--score-csv=score.csv")
        code, said, seconds = grade(folder, "-q", "--tb=no", *files, small=small, timeout=7200, **limits)
        score = json.loads((Path(folder) / "score.json").read_text("utf-8"))
        lines = (Path(folder) / "score.csv").read_text("utf-8-sig").splitlines()
    print(said[said.index("= score =") - 30 :])
    bad = len(score["notebooks"]) != 100 or len(lines) != 101 or code != 1
    for book in score["notebooks"]:
        wrong = faults(names[book["notebook"]], [r for r in score["tasks"] if r["notebook"] == book["notebook"]])
        bad += bool(wrong)
        if names[book["notebook"]] != "right" or wrong:
            told = f"{book['points']}/{book['max']}  {book['seconds']:5.1f} s  {'; '.join(wrong) or 'as documented'}"
            print(f"{book['notebook']:<45} {names[book['notebook']]:<22} {told}")
    print(f"100 notebooks in {seconds:.0f} s, exit code {code}, {score['points']}/{score['max']} points")
    return int(bad)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--class", action="store_true", dest="hundred", help="a folder of a hundred")
    parser.add_argument("--real", action="store_true", help="on exercise 01")
    parser.add_argument("--cell-seconds", type=float, default=3, help="limit for one cell (default: 3)")
    options = parser.parse_args()
    base, stem = (real(), "01_dense_attention") if options.real else (small(), "90_small")
    limits = {"cell_seconds": options.cell_seconds, "memory_mb": 700, "size_mb": 2}
    show = hundred if options.hundred else table
    return min(1, show(base, stem, not options.real, limits))


if __name__ == "__main__":
    sys.exit(main())
