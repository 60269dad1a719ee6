"""python -m bigbird_mini.course export FOLDER: the exercises as nbgrader, on a JupyterHub, wants them.

nbgrader knows by a cell's metadata what is graded, and for how many points. The exercises carry that metadata too;
what is exported is the version with the answers in it, from which nbgrader makes a release of its own.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from . import notebook as files

SCHEMA = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="the nbgrader course; files go to FOLDER/source/NAME/NAME.ipynb")
    parser.add_argument("--root", type=Path, help="the course's folder (default: this checkout)")


def main(options: argparse.Namespace) -> int:
    """Write one assignment for each exercise and name the files."""
    from .build import CHECKOUT, sources_with_points

    for name, notebook in sources_with_points(options.root or CHECKOUT).items():
        path = options.folder / "source" / name / f"{name}.ipynb"
        files.write_if_changed(path, files.text_of(notebook))
        print(f"written: {path}")
    print('In nbgrader_config.py say c.ClearSolutions.code_stub = {"python": "raise NotImplementedError"}')
    return 0


def metadata(cell_id: str, points: int | None) -> dict[str, Any]:
    """nbgrader's metadata for a check cell that gives `points`, or (None) for a cell with an answer."""
    graded = points is not None
    common = {"cell_type": "code", "grade": graded, "grade_id": cell_id, "locked": graded, "schema_version": SCHEMA}
    return common | {"solution": not graded, "task": False} | ({"points": points} if graded else {})
