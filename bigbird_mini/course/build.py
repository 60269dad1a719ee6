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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import notebook as files
from .checking import Task, all_tasks

BEGIN, END, STUB = "### BEGIN SOLUTION", "### END SOLUTION", "### STUB:"
TODO = "# TODO: your code here"
MANIFEST = Path("bigbird_mini/course/manifest.json")
RUN_TIMEOUT = 120
CHECKOUT = Path(__file__).resolve().parents[2]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--run", action="store_true", help="run lessons and solutions first and store their outputs")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 naming the files out of date")
    parser.add_argument("--root", type=Path, default=CHECKOUT, help="the course's folder (default: this checkout)")


def main(options: argparse.Namespace) -> int:
    """Build the course under options.root; 0 done, 1 a fault in a source or (with --check) a file out of date."""
    root: Path = options.root.resolve()
    if not (root / "solutions").is_dir():
        print(f"{options.root} has no folder solutions/: name the course's checkout with --root", file=sys.stderr)
        return 1
    try:
        wanted = plan(root, run=options.run)
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


def plan(root: Path, run: bool = False, tasks: dict[str, Task] | None = None) -> Plan:
    """Read the sources under `root` and work out every file, writing nothing.

    run: execute lessons and solutions in fresh kernels first and take their outputs. tasks: those of the course,
    where a test has none of its own. Raises SourceError.
    """
    tasks = all_tasks() if tasks is None else tasks
    faults: list[str] = []
    sources = {path: _read(root, path, faults) for path in _sources(root)}
    exercises, manifest = {}, {}
    for path, source in sources.items():
        if source and path.parent.name == "solutions":
            exercises[Path("exercises") / path.name] = _exercise(path, source, faults)
            manifest[path.stem] = _check_cells(path, source, tasks, faults)
    faults += _task_faults(manifest, tasks) + _orphans(root, exercises)
    if faults:
        raise SourceError(faults)
    result = Plan(root)
    for path, source in sources.items():
        if run:
            _run(root, path, source)
        result.texts[path] = files.text_of(files.normalise(source))
    for path, exercise in exercises.items():
        result.texts[path] = files.text_of(exercise)
    result.texts[MANIFEST] = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
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
    if not re.fullmatch(r"\d\d_[a-z0-9_]+", path.stem):
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


def exercise(root: Path, name: str) -> files.Notebook:
    """The exercise of that name as nobody has touched it. ValueError where its source is missing or faulty."""
    path, faults = Path("solutions") / f"{name}.ipynb", []
    if not (root / path).exists():
        raise ValueError(f"there is no {path.as_posix()} in {root}: name the course's folder with --root")
    source = _read(root, path, faults)
    made = _exercise(path, source, faults) if source else None
    if faults:
        raise SourceError(faults)
    return made


def _exercise(path: Path, source: files.Notebook, faults: list[str]) -> files.Notebook:
    exercise = copy.deepcopy(source)
    exercise.metadata["bigbird_mini"] = {"generated_from": path.as_posix()}
    for cell in exercise.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs, cell.execution_count = [], None
        try:
            cell.source = without_answers(cell.source)
        except ValueError as error:
            faults.append(f"{_at(path, cell)}: {error}.")
        number = task_called(cell.source)
        if number:
            tags = dict.fromkeys([*cell.metadata.get("tags", []), "check"])
            cell.metadata.update(tags=list(tags), task=number, editable=False, deletable=False)
    return exercise


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
            home = missing.test.__module__.rpartition(".")[2]
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


# ---------------------------------------------------------------- running


def _run(root: Path, path: Path, source: files.Notebook) -> None:
    """Execute a notebook in a fresh kernel, in its own folder; the outputs land in `source`. Raises SourceError."""
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    place = {"metadata": {"path": str((root / path).parent)}}
    client = NotebookClient(source, timeout=RUN_TIMEOUT, kernel_name="python3", resources=place, record_timing=False)
    manager = client.create_kernel_manager()
    if manager.has_trait("transport_encryption"):
        manager.transport_encryption = "auto"  # else ipykernel 7.3 and later warn at each start
    try:
        client.execute()
    except CellExecutionError as error:
        # the last one: cells above it may raise on purpose
        broken = [c for c in source.cells if any(o.output_type == "error" for o in c.get("outputs", []))][-1]
        raise SourceError([f"{_at(path, broken)}: running it raised {error.ename}: {error.evalue}."]) from None
    except CellTimeoutError:
        raise SourceError([f"{path.as_posix()}: a cell ran for more than {RUN_TIMEOUT} seconds."]) from None
    except DeadKernelError:
        raise SourceError([f"{path.as_posix()}: the kernel died while running it."]) from None
