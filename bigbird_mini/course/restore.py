"""python -m bigbird_mini.course restore FILE: mend an exercise and keep what its owner wrote.

Check cells that are missing, edited or above their answer are put right, and an empty answer cell comes back where a
task has none at all. Of a damaged file, what can be read is kept and the rest comes from the course. The file as it
was stays beside it as FILE.bak.
"""

from __future__ import annotations

import argparse
import copy
import json
import re
from pathlib import Path
from typing import Any

import nbformat

from . import notebook as files
from .build import CHECKOUT, exercise
from .submission import Row, Unreadable, answers_of, binds, cell_from, exercise_of, in_order, load, manifest, owners

Raw = dict[str, Any]  # a cell as JSON has it
MOST_OUTPUT = 2_000_000  # characters of saved outputs that a cell may keep


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="the notebook to mend")
    parser.add_argument("--as", dest="name", metavar="NAME", help="the exercise that it is, where that cannot be seen")
    parser.add_argument("--root", type=Path, default=CHECKOUT, help="the course's folder (default: this checkout)")


def main(options: argparse.Namespace) -> int:
    """Mend options.file in place and print what was done; 0 also where there was nothing to do."""
    path: Path = options.file
    before = path.read_bytes()
    done, text = restored(path, options.root, options.name)
    if text.encode() == before or not done:
        print(f"Nothing to mend in {path}.")
        return 0
    spare = next(
        p for n in range(1, 10_000) if not (p := path.with_name(f"{path.name}.bak{n if n > 1 else ''}")).exists()
    )
    spare.write_bytes(before)
    files.write_if_changed(path, text)
    print("\n".join([*done, f"The file as it was is kept as {spare.name}."]))
    return 0


def restored(path: Path, root: Path, name: str | None = None) -> tuple[list[str], str]:
    """What has to be done, one sentence each, and the text of the mended file. ValueError for a file not of ours."""
    name = name or exercise_of(path, float("inf"))
    if name not in manifest():
        known = ", ".join(manifest())
        raise ValueError(f"{path} is no exercise of this course, as far as can be seen; say which: --as ({known})")
    rows = manifest()[name]
    fresh = exercise(root, name, rows)
    done: list[str] = []
    damaged = False
    try:
        notebook = load(path, float("inf"))
    except Unreadable as error:
        damaged, cells = True, salvaged(path.read_bytes().decode("utf-8", "replace"))
        done.append(f"{error}. {len(cells)} of its cells could be read; the others come from the course.")
        notebook = {"cells": cells, "metadata": fresh.metadata, "nbformat": 4, "nbformat_minor": 5}
    cells = [_sound(raw) for raw in notebook["cells"] if cell_from(raw)]
    if large := [cell for cell in cells if len(json.dumps(cell.get("outputs", ()))) > MOST_OUTPUT]:
        done.append(f"The outputs of {len(large)} cell(s) were too large and are cleared.")
        for cell in large:
            cell |= {"outputs": [], "execution_count": None}
    mended, said = mend(cells, json.loads(nbformat.writes(fresh))["cells"], rows, everything=damaged)
    metadata = notebook["metadata"] if isinstance(notebook.get("metadata"), dict) else {}
    whole = nbformat.from_dict({"cells": mended, "nbformat": 4, "nbformat_minor": 5})
    whole.metadata = nbformat.from_dict(dict(fresh.metadata) | metadata | {"bigbird_mini": fresh.metadata.bigbird_mini})
    files.fix_ids(whole.cells)
    return done + said, files.text_of(whole)


def salvaged(text: str) -> list[Raw]:
    """The cells that can be read in a file that is no JSON: all of one side of a merge, or those before a cut."""
    conflict = (
        r"^<<<<<<< .*\n(?P<ours>(?:.*\n)*?)(?:^\|{7}.*\n(?:.*\n)*?)?^=======\n(?P<theirs>(?:.*\n)*?)^>>>>>>> .*\n?"
    )
    for side in ("ours", "theirs"):
        try:
            found = json.loads(re.sub(conflict, lambda match, side=side: match[side], text, flags=re.M))
            return [raw for raw in found["cells"] if cell_from(raw)]
        except (ValueError, RecursionError, TypeError, KeyError):
            continue
    start = re.search(r'"cells"\s*:\s*\[\s*', text)
    place, cells = start.end() if start else len(text), []
    while place < len(text):
        try:
            raw, place = json.JSONDecoder().raw_decode(text, place)
        except (ValueError, RecursionError):
            break
        cells.append(raw)
        place = re.compile(r"\s*,?\s*").match(text, place).end()
    return [raw for raw in cells if cell_from(raw)]


def _sound(raw: Raw) -> Raw:
    """A cell with all parts that the format asks for; saved outputs that are none are dropped."""
    cell = cell_from(raw)
    kind = cell.kind if cell.kind in ("code", "markdown", "raw") else "raw"
    metadata = raw.get("metadata") if isinstance(raw.get("metadata"), dict) else {}
    sound: Raw = {"cell_type": kind, "id": cell.id, "metadata": metadata, "source": cell.source}
    if kind != "code":
        return sound | ({"attachments": raw["attachments"]} if isinstance(raw.get("attachments"), dict) else {})
    count = raw.get("execution_count")
    sound |= {"outputs": raw.get("outputs") or [], "execution_count": count if isinstance(count, int) else None}
    try:
        trial = nbformat.v4.new_notebook(cells=[nbformat.from_dict(sound | {"id": "trial"})])
        nbformat.validate(trial)
    except (nbformat.ValidationError, AttributeError, TypeError):
        sound["outputs"] = []
    return sound


def mend(cells: list[Raw], fresh: list[Raw], rows: list[Row], everything: bool = False) -> tuple[list[Raw], list[str]]:
    """The learner's cells with the course's check cells in their places, and what was done, one sentence each.

    everything: put back also texts that are missing (of a damaged file), not only checks and answers.
    """
    twins = _recognise(cells, fresh, rows)  # place in fresh -> place in cells
    mended: list[Raw] = []
    done: list[str] = []
    for number, cell in enumerate(cells):
        original = next((fresh[place] for place, twin in twins.items() if twin == number), {})
        row = next((row for row in rows if row["cell"] == original.get("id")), None)
        instead, said = _as_it_was(cell, original, row) if row else ([cell], [])
        mended += instead
        done += said
    # in the learner's order; each missing one follows the cell that it follows in the course
    for place, original in enumerate(fresh):
        if place in twins or not (said := _wanted(original, fresh, place, cells, rows, everything)):
            continue
        before = [n for n, cell in enumerate(mended) if place and cell["id"] == fresh[place - 1]["id"]]
        mended.insert(before[-1] + 1 if before else 0 if not place else len(mended), copy.deepcopy(original))
        done.append(said)
    seen = [cell_from(raw) for raw in mended]
    places = in_order(seen, owners(seen, rows))
    if places != list(range(len(mended))):
        done.append("A check that stood above its answer was moved below it.")
    return [mended[place] for place in places], done


def _recognise(cells: list[Raw], fresh: list[Raw], rows: list[Row]) -> dict[int, int]:
    """Which of the learner's cells each cell of the course has become; gives them their ids back."""
    mine = [cell_from(raw) for raw in cells]
    ids = {raw["id"]: place for place, raw in enumerate(fresh)}
    found = {ids[row["cell"]]: place for place, row in owners(mine, rows).items()}
    names = {ids[row["cell"]] - 1: answers_of(row["source"]) for row in rows}

    def alike(place: int, number: int) -> bool:
        cell, original = mine[number], cell_from(fresh[place])
        if cell.kind != original.kind:
            return False
        answers = any(binds(cell.source, name) for name in names.get(place, ()))
        return cell.id == original.id or cell.source.strip() == original.source.strip() or answers

    for place in range(len(fresh)):
        free = [n for n in range(len(cells)) if n not in found.values() and alike(place, n)]
        if place not in found and free:
            found[place] = next((n for n in free if mine[n].id == fresh[place]["id"]), free[-1])
    for place, number in found.items():
        cells[number]["id"] = fresh[place]["id"]
    return found


def _as_it_was(cell: Raw, original: Raw, row: Row) -> tuple[list[Raw], list[str]]:
    """What a check cell becomes: itself with its original text and metadata, below what else was written in it."""
    same = cell["source"].strip() == row["source"].strip()
    if same and all(cell["metadata"].get(key) == value for key, value in original["metadata"].items()):
        return [cell], []
    check = copy.deepcopy(original)
    if same:
        check |= {"outputs": cell["outputs"], "execution_count": cell["execution_count"]}
        return [check], [f"The check of task {row['task']} is locked against changes again."]
    done = [f"The check of task {row['task']} had been edited: it is the original again."]
    rest = "\n".join(line for line in cell["source"].splitlines() if not line.startswith("check(")).strip()
    if not rest:
        return [check], done
    mine = {"cell_type": "code", "id": "", "metadata": {}, "source": rest, "outputs": [], "execution_count": None}
    return [mine, check], [*done, "What else stood in it has a cell of its own above it."]


def _wanted(original: Raw, fresh: list[Raw], place: int, cells: list[Raw], rows: list[Row], everything: bool) -> str:
    """Why a cell that is missing is to be put back, in a sentence; "" where it is not."""
    for row in rows:
        if original["id"] == row["cell"]:
            return f"The check of task {row['task']} is back."
        if place + 1 < len(fresh) and fresh[place + 1]["id"] == row["cell"]:
            names = answers_of(row["source"])
            there = any(raw["cell_type"] == "code" and binds(raw["source"], name) for raw in cells for name in names)
            return "" if there else f"The answer cell of task {row['task']} is back, empty."
    first = next((line.strip("# ") for line in "".join(original["source"]).splitlines() if line.strip()), "")
    return f"Back in its place: «{first[:50]}»." if everything else ""
