"""Build the course: normalise the hand-edited notebooks, generate the exercises and the manifest of check cells.

solutions/NN_name.ipynb is the source. In its code cells an answer stands between two comment lines,

    ### BEGIN SOLUTION
    ### STUB: answer = ...          (may be left out inside a function, and may be repeated)
    answer = 42
    ### END SOLUTION

and the exercise has the stub there: the STUB lines, or `raise NotImplementedError`. A check cell is one call,
check("1.1", my_function), and nothing else.
"""

import argparse
import ast
import copy
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import execute, tutor
from . import export as nbgrader
from . import notebook as files
from .checking import Task, all_tasks

BEGIN, END, STUB = "### BEGIN SOLUTION", "### END SOLUTION", "### STUB:"
TODO = "# TODO: your code here"
TUTOR = Path("exercises/TUTOR.md")
MANIFEST = Path("bigbird_mini/course/manifest.json")
CHECKOUT = Path(__file__).resolve().parents[2]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="run only these notebooks, such as 01 or lessons/01")
    parser.add_argument("--no-run", action="store_true", help="run no notebook: keep the outputs that are there")
    parser.add_argument("--measure", action="store_true", help="take new outputs for cells tagged `measured` too")
    parser.add_argument("--check", action="store_true", help="run and write nothing; exit 1 naming files out of date")
    parser.add_argument("--root", type=Path, default=CHECKOUT, help="the course's folder (default: this checkout)")


def main(options: argparse.Namespace) -> int:
    """Build the course under options.root; 0 done, 1 a fault in a source or (with --check) a file out of date."""
    root: Path = options.root.resolve()
    if not (root / "solutions").is_dir():
        print(f"{options.root} has no folder solutions/: name the course's checkout with --root", file=sys.stderr)
        return 1
    try:
        to_run = [] if options.no_run or options.check else chosen(root, options.names)
        wanted = plan(root, to_run, measure=options.measure)
    except SourceError as error:
        print(error, file=sys.stderr)
        return 1
    if options.check:
        stale = wanted.stale()
        for path in stale:
            print(f"out of date: {path.as_posix()}")
        if stale:
            print("Run: python -m bigbird_mini.course build")
        return 1 if stale else 0
    for path in wanted.write():
        print(f"written: {path.as_posix()}")
    return 0


def chosen(root: Path, names: list[str]) -> list[Path]:
    """The notebooks of lessons/ and solutions/ that names such as 01 mean; all where there are none. ValueError."""
    every = _sources(root)
    picked = []
    for name in names:
        found = [p for p in every if p.as_posix().startswith(name) or p.stem.startswith(name)]
        if not found:
            known = ", ".join(p.with_suffix("").as_posix() for p in every)
            raise ValueError(f"there is no notebook {name}; there are {known}")
        picked += found
    return list(dict.fromkeys(picked or every))


class SourceError(ValueError):
    """What is wrong in the sources, one sentence for each fault, with its file and cell."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass
class Plan:
    """Every file that the sources ask for, and what must stand in it."""

    root: Path
    texts: dict[Path, str] = field(default_factory=dict)

    def stale(self) -> list[Path]:
        """The files, relative to the root, that are missing or hold something else."""
        return [p for p, text in self.texts.items() if _bytes(self.root / p) != text.encode()]

    def write(self) -> list[Path]:
        """Write the files that are not yet as they should be; returns them, relative to the root."""
        return [p for p, text in self.texts.items() if files.write_if_changed(self.root / p, text)]


def plan(root: Path, run: Sequence[Path] = (), tasks: dict[str, Task] | None = None, measure: bool = False) -> Plan:
    """Read the sources under `root` and work out every file, writing nothing.

    run: the sources, relative to the root, to execute in fresh kernels first, taking their outputs (with `measure`,
    those of measured cells too). tasks: those of the course, where a test has none of its own. Raises SourceError.
    """
    tasks = all_tasks() if tasks is None else tasks
    faults: list[str] = []
    sources = {path: _read(root, path, faults) for path in _sources(root)}
    exercises, manifest = {}, {}
    for path, source in sources.items():
        if source and path.parent.name == "solutions":
            rows = manifest[path.stem] = _check_cells(path, source, tasks, faults)
            exercises[Path("exercises") / path.name] = _exercise(path, source, rows, faults)
    faults += _task_faults(manifest, tasks) + _orphans(root, exercises)
    if faults:
        raise SourceError(faults)
    result = Plan(root)
    for path, source in sources.items():
        if path in run:
            try:
                execute.run(source, (root / path).parent, measure)
            except execute.RunError as error:
                where = f"{path.as_posix()}, cell {error.cell}" if error.cell else path.as_posix()
                raise SourceError([f"{where}: {error}."]) from None
        execute.stamp(source)
        result.texts[path] = files.text_of(files.normalise(source))
    for path, exercise in exercises.items():
        result.texts[path] = files.text_of(exercise)
    result.texts[MANIFEST] = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    result.texts[TUTOR] = tutor.text(tasks, manifest)
    return result


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def _sources(root: Path) -> list[Path]:
    return [p.relative_to(root) for folder in ("lessons", "solutions") for p in sorted((root / folder).glob("*.ipynb"))]


def _read(root: Path, path: Path, faults: list[str]) -> files.Notebook | None:
    try:
        source = files.normalise(files.read(root / path))
        files.text_of(source)
    except ValueError as error:
        faults.append(f"{path.as_posix()} {error}.")
        return None
    if not re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem) and path.as_posix() not in files.PAGES:
        faults.append(f"{path.as_posix()}: a notebook is called NN_name.ipynb, in small letters, digits and _.")
    return source


def _at(path: Path, cell: files.Notebook) -> str:
    return f"{path.as_posix()}, cell {cell.id}"


# ---------------------------------------------------------------- exercises


def without_answers(source: str) -> str:
    """A code cell as the exercise has it. ValueError in one sentence where its marker lines do not pair."""
    out: list[str] = []
    stub: list[str] = []
    start = None
    for number, line in enumerate(source.splitlines(), 1):
        mark = line.strip()
        indent = line[: len(line) - len(line.lstrip())]
        if not mark.startswith((BEGIN, END, STUB)):
            if start is None:
                out.append(line)
        elif mark.startswith(BEGIN):
            if start is not None:
                raise ValueError(f"line {number} begins a solution inside another one")
            start, stub = (number, indent), []
        elif start is None:
            raise ValueError(f"line {number} says `{mark}` without a `{BEGIN}` above it")
        elif mark.startswith(STUB):
            stub.append(mark.removeprefix(STUB).removeprefix(" "))
        else:
            if not stub and not start[1]:
                raise ValueError(f"the answer from line {start[0]} on is in no function: it needs a `{STUB} ...` line")
            out += [start[1] + text for text in (TODO, *(stub or ["raise NotImplementedError"]))]
            start = None
    if start is not None:
        raise ValueError(f"the solution begun on line {start[0]} has no `{END}`")
    return "\n".join(out)


def exercise(root: Path, name: str, rows: list[dict[str, Any]]) -> files.Notebook:
    """The exercise of that name as nobody has touched it. ValueError where its source is missing or faulty."""
    path, faults = Path("solutions") / f"{name}.ipynb", []
    if not (root / path).exists():
        raise ValueError(f"there is no {path.as_posix()} in {root}: name the course's folder with --root")
    source = _read(root, path, faults)
    made = _exercise(path, source, rows, faults) if source else None
    if faults:
        raise SourceError(faults)
    return made


def sources_with_points(root: Path, tasks: dict[str, Task] | None = None) -> dict[str, files.Notebook]:
    """The solutions by name, without outputs, with nbgrader's metadata for their points. Raises SourceError."""
    made, faults = {}, []
    for path in _sources(root):
        source = _read(root, path, faults) if path.parent.name == "solutions" else None
        if source:
            _mark(source, _check_cells(path, source, all_tasks() if tasks is None else tasks, faults))
            made[path.stem] = source
    if faults:
        raise SourceError(faults)
    return made


def _exercise(path: Path, source: files.Notebook, rows: list[dict[str, Any]], faults: list[str]) -> files.Notebook:
    exercise = copy.deepcopy(source)
    exercise.metadata["bigbird_mini"] = {"generated_from": path.as_posix()}
    _mark(exercise, rows)
    for cell in exercise.cells:
        if cell.cell_type == "code":
            try:
                cell.source = without_answers(cell.source)
            except ValueError as error:
                faults.append(f"{_at(path, cell)}: {error}.")
    return exercise


def _mark(notebook: files.Notebook, rows: list[dict[str, Any]]) -> None:
    """Take the outputs away, lock the check cells, and say what is graded, in nbgrader's words too."""
    by_cell = {row["cell"]: row for row in rows}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs, cell.execution_count = [], None
        cell.metadata.pop(execute.MEASURED, None)  # nothing is measured in it yet
        row = by_cell.get(cell.id)
        if row:
            tags = dict.fromkeys([*cell.metadata.get("tags", []), "check"])
            cell.metadata.update(tags=list(tags), task=row["task"], editable=False, deletable=False)
        if row or BEGIN in cell.source:
            cell.metadata["nbgrader"] = nbgrader.metadata(cell.id, row["max"] if row else None)


# ---------------------------------------------------------------- check cells


def task_called(source: str) -> str | None:
    """The number of the task that a cell of the form check("1.1", ...) checks; None for any other cell."""
    found = re.match(r"\s*check\(\s*[\"']([^\"']*)[\"']", source)
    return found and found[1]


def _check_cells(path: Path, source: files.Notebook, tasks: dict[str, Task], faults: list[str]) -> list[dict[str, Any]]:
    rows = []
    for cell in source.cells:
        if cell.cell_type != "code" or not re.search(r"^\s*check\(", cell.source, re.M):
            continue
        number = task_called(cell.source)
        if number is None or not _is_one_call(cell.source):
            faults.append(f'{_at(path, cell)}: a check cell is one call such as check("1.1", answer), nothing else.')
        elif number not in tasks:
            faults.append(f"{_at(path, cell)}: there is no task {number}; the tasks are {', '.join(tasks)}.")
        else:
            found, text = tasks[number], cell.source
            row = {"cell": cell.id, "task": number, "source": text, "sha256": files.sha256(text)}
            rows.append(row | {"title": found.title, "max": found.points})
    return rows


def _is_one_call(source: str) -> bool:
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return False
    return len(body) == 1 and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Call)


def _task_faults(manifest: dict[str, list[dict[str, Any]]], tasks: dict[str, Task]) -> list[str]:
    """Tasks that are checked twice, and tasks that no notebook checks."""
    faults, homes = [], {}
    for stem, rows in manifest.items():
        for row in rows:
            place = f"solutions/{stem}.ipynb, cell {row['cell']}"
            if row["task"] in homes:
                faults.append(f"{place}: task {row['task']} has a check cell already, in {homes[row['task']]}.")
            homes.setdefault(row["task"], place)
    for number, missing in tasks.items():
        if number not in homes:
            home = missing.home.rpartition(".")[2]
            faults.append(
                f"{home}.py: task {number} ({missing.title}) has no check cell in any notebook of solutions/."
            )
    return faults


def _orphans(root: Path, exercises: dict[Path, Any]) -> list[str]:
    """Generated exercises whose source is gone. A learner's own copies beside them are left alone."""
    faults = []
    for path in sorted((root / "exercises").glob("*.ipynb")):
        home = Path("exercises") / path.name
        try:
            origin = files.read(path).metadata.get("bigbird_mini", {}).get("generated_from")
        except ValueError:
            continue
        if home not in exercises and origin == f"solutions/{path.name}":
            faults.append(f"{home.as_posix()}: its source {origin} is gone; delete it, or bring the source back.")
    return faults
