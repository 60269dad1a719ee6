"""A learner's file: which exercise it is, what cells it has, which of them checks which task.

The grader and `restore` look at files through this module. A file may be damaged, huge, renamed, made by another
program, or nothing of this course at all; all of that ends in a sentence, never in a crash. Saved outputs are not
looked at: nothing that stands in a file is worth a point.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

MANIFEST = Path(__file__).with_name("manifest.json")
GLANCE = 1_000_000  # bytes looked at from each end of a file that is too large to be read
Row = dict[str, Any]  # one check cell in the manifest: cell, task, source, sha256, title, max


class Unreadable(ValueError):
    """A file that is no notebook; the message says why, as the start of a sentence."""


@dataclass
class Cell:
    """One cell of a learner's notebook."""

    kind: str
    id: str
    source: str
    tags: tuple[str, ...] = ()
    task: str = ""  # what the metadata says that it checks

    def calls(self) -> str:
        """The number of the task whose check this cell calls; "" for none."""
        found = re.match(r"\s*check\(\s*[\"']([\d.]+)[\"']", self.source) if self.kind == "code" else None
        return found[1] if found else ""


@cache
def manifest() -> dict[str, list[Row]]:
    """The check cells of each exercise, as the build wrote them; empty where there is no manifest."""
    return json.loads(MANIFEST.read_text("utf-8")) if MANIFEST.exists() else {}


# ---------------------------------------------------------------- which exercise


def exercise_of(path: Path, most_mb: float = 100.0) -> str | None:
    """The exercise (a key of the manifest) that a notebook file is, or is a copy of; None for any other notebook.

    A readable file is known by what stands in it. One that cannot be read is known by its name, or by the notebooks
    beside it.
    """
    if path.parent.name == "lessons":
        return None
    name, readable = _by_itself(path, most_mb)
    if name or readable:
        return name
    beside = {_by_itself(other, most_mb)[0] for other in path.parent.glob("*.ipynb") if other != path}
    return beside.pop() if len(beside) == 1 else None


def _by_itself(path: Path, most_mb: float) -> tuple[str | None, bool]:
    """The exercise that a file is, and whether it can be read as a notebook."""
    text = _text(path, most_mb)
    try:
        load(path, most_mb)
        readable = True
    except Unreadable:
        readable = False
    rows = manifest()
    origin = re.search(r'"generated_from":\s*"solutions/(\w+)\.ipynb"', text)
    if origin and origin[1] in rows:
        return origin[1], readable
    calls = {name: sum(json.dumps(row["source"])[1:-1] in text for row in rows[name]) for name in rows}
    ours = "bigbird_mini" in text or any(calls.values())
    named = [name for name in rows if name in path.stem]
    if named and (ours or not readable):
        return max(named, key=len), readable
    numbers = set(re.findall(r"check\(\s*(?:\\\"|')(\d+\.\d+)", text))
    calls = {name: len(numbers & {row["task"] for row in rows[name]}) for name in rows}
    if ours and any(calls.values()):
        return max(calls, key=calls.__getitem__), readable
    return None, readable


def _text(path: Path, most_mb: float) -> str:
    """The file's text, or both ends of it where it is too large; "" where it cannot be opened."""
    try:
        with path.open("rb") as file:
            if path.stat().st_size <= most_mb * 1e6:
                data = file.read()
            else:
                data = file.read(GLANCE)
                file.seek(-GLANCE, 2) if path.stat().st_size > GLANCE else None
                data += b"\n" + file.read()
    except OSError:
        return ""
    return data.decode("utf-8", "replace")


# ---------------------------------------------------------------- what stands in it


def load(path: Path, most_mb: float = 100.0) -> dict[str, Any]:
    """The notebook in a file, as JSON gives it, with a list of cells. Raises Unreadable."""
    try:
        size = path.stat().st_size / 1e6
        if size > most_mb:
            raise Unreadable(f"The file has {size:.0f} MB: clear its outputs and save it again")
        text = path.read_text("utf-8-sig")
        notebook = json.loads(text)
    except Unreadable:
        raise
    except OSError as error:
        raise Unreadable(f"The file cannot be opened ({type(error).__name__})") from None
    except UnicodeDecodeError:
        raise Unreadable("The file is not text") from None
    except (ValueError, RecursionError) as error:
        raise Unreadable(_why_no_json(text, error)) from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        old = isinstance(notebook, dict) and "worksheets" in notebook
        raise Unreadable(
            "The file is in an old notebook format: open and save it once in JupyterLab"
            if old
            else "The file is no Jupyter notebook"
        )
    return notebook


def _why_no_json(text: str, error: Exception) -> str:
    if not text.strip():
        return "The file is empty"
    if re.search(r"^<<<<<<< ", text, re.M):
        return "The file holds unsolved git merge conflicts (lines of <<<<<<<)"
    line = f"its JSON breaks in line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "its JSON is odd"
    return f"The file is damaged or cut off: {line}"


def cells_of(notebook: dict[str, Any]) -> list[Cell]:
    """The cells of a notebook that `load` has read; what is no cell is left out."""
    return [cell for raw in notebook["cells"] if (cell := cell_from(raw))]


def cell_from(raw: Any) -> Cell | None:
    """A cell as JSON has it, made sure of; None where it is none."""
    if not isinstance(raw, dict):
        return None
    source = raw.get("source", "")
    if isinstance(source, list):
        source = "".join(part for part in source if isinstance(part, str))
    if not isinstance(source, str):
        return None
    metadata = raw.get("metadata") if isinstance(raw.get("metadata"), dict) else {}
    tags = metadata.get("tags") if isinstance(metadata.get("tags"), list) else []
    # half a character, which JSON can hold, can neither be sent to a kernel nor written to a file
    source = source.encode("utf-8", "replace").decode("utf-8")
    tags = tuple(tag for tag in tags if isinstance(tag, str))
    return Cell(str(raw.get("cell_type")), str(raw.get("id")), source, tags, str(metadata.get("task") or ""))


# ---------------------------------------------------------------- which cell checks which task


def owners(cells: list[Cell], rows: list[Row]) -> dict[int, Row]:
    """Which cell, by its place in `cells`, checks which task.

    Known by its text, then by its id (the text may have been edited), then by its metadata (copying, Colab and VS Code
    give new ids). Of several copies the last one counts: it stands below all that the learner wrote for the task.
    """
    signs = (
        lambda cell, row: cell.calls() == row["task"],
        lambda cell, row: cell.id == row["cell"],
        lambda cell, row: cell.task == row["task"],
    )
    found: dict[int, Row] = {}
    for sign in signs:
        for row in rows:
            places = [i for i, cell in enumerate(cells) if cell.kind == "code" and i not in found and sign(cell, row)]
            if places and row not in found.values():
                found[places[-1]] = row
    return found


def copies(cells: list[Cell], owned: dict[int, Row]) -> dict[int, Row]:
    """The other cells that call a check which `owned` has already."""
    by_task = {row["task"]: row for row in owned.values()}
    return {i: by_task[cell.calls()] for i, cell in enumerate(cells) if i not in owned and cell.calls() in by_task}


def answers_of(source: str) -> list[str]:
    """The names that a check cell hands over: ["head_attention"] of check("1.1", head_attention)."""
    call = ast.parse(source).body[0].value
    names = [node for argument in call.args for node in ast.walk(argument) if isinstance(node, ast.Name)]
    return [node.id for node in names]


def binds(source: str, name: str) -> bool:
    """Whether a cell's text defines or assigns a name; lines that are not Python are no hindrance."""
    pattern = (
        rf"^(?:(?:async\s+)?def|class)\s+{name}\b|^{name}\s*(?::[^=\n]+)?=(?!=)|^[\w, \t]*\b{name}\b[\w, \t]*=(?!=)"
    )
    return re.search(pattern + rf"|^from .*\bimport\b.*\b{name}\b", source, re.M) is not None


def in_order(cells: list[Cell], owned: dict[int, Row]) -> list[int]:
    """The places of all cells in the order to run them: as they stand, but no check before its answer is there.

    A check that stands above the first cell that makes its answer comes right after the last such cell.
    """
    order, later = [], {}
    for place in range(len(cells)):
        row = owned.get(place)
        makers = _makers(cells, owned, row) if row else []
        if makers and place < makers[0]:
            later.setdefault(makers[-1], []).append(place)
            continue
        order.append(place)
        order += later.pop(place, [])
    return order + [place for places in later.values() for place in places]


def _makers(cells: list[Cell], owned: dict[int, Row], row: Row) -> list[int]:
    names = answers_of(row["source"])
    code = (i for i, cell in enumerate(cells) if cell.kind == "code" and i not in owned)
    return [i for i in code if any(binds(cells[i].source, name) for name in names)]
