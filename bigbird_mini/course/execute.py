"""Run a notebook in a fresh kernel, so that the same notebook gives the same file.

Outputs that can never be the same twice, times and memory, are those of cells tagged `measured`: they stay as they
are until the cell itself changes. What they were measured with is kept in the cell as a fingerprint.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path

from . import notebook as files

SECONDS = 600  # for one cell: the slowest machine, busy with other things
MEASURED = "measured"


class RunError(ValueError):
    """Why a notebook did not run to its end: `cell` is the id of the cell where it stopped, "" where none did."""

    def __init__(self, sentence: str, cell: str = "") -> None:
        super().__init__(sentence)
        self.cell = cell


def run(notebook: files.Notebook, folder: Path, measure: bool = False) -> None:
    """Execute all cells in `folder` and put their outputs into the notebook. Raises RunError.

    measure: take new outputs for the measured cells too.
    """
    before = copy.deepcopy(notebook)
    _execute(notebook, folder)
    for old, new in zip(before.cells, notebook.cells, strict=True):
        if not is_measured(new):
            continue
        if old.outputs and not measure and fingerprint(old) in ("", files.sha256(new.source)):
            new.outputs, new.execution_count = old.outputs, old.execution_count
        new.metadata.pop(MEASURED, None)
    stamp(notebook)


def stamp(notebook: files.Notebook) -> None:
    """Give each measured cell that has outputs, and no fingerprint yet, the one of its text."""
    for cell in notebook.cells:
        if is_measured(cell) and cell.outputs and not fingerprint(cell):
            cell.metadata[MEASURED] = files.sha256(cell.source)


def is_measured(cell: files.Notebook) -> bool:
    return cell.cell_type == "code" and MEASURED in cell.metadata.get("tags", ())


def fingerprint(cell: files.Notebook) -> str:
    """That of the text whose outputs a measured cell holds; "" where it is not known."""
    return str(cell.metadata.get(MEASURED, ""))


def _execute(notebook: files.Notebook, folder: Path) -> None:
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    begun = [""]
    place = {"metadata": {"path": str(folder)}}
    client = NotebookClient(notebook, timeout=SECONDS, kernel_name="python3", resources=place, record_timing=False)
    client.on_cell_execute = lambda cell, cell_index: begun.append(cell.id)
    manager = client.create_kernel_manager()
    if manager.has_trait("transport_encryption"):
        manager.transport_encryption = "auto"  # else ipykernel 7.3 and later warn at each start
    try:
        # what passes here is no learner's success
        client.execute(env=os.environ | {"BIGBIRD_MINI_PROGRESS": "off"})
    except CellExecutionError as error:
        # the last one: cells above it may raise on purpose
        broken = [c for c in notebook.cells if any(o.output_type == "error" for o in c.get("outputs", []))][-1]
        raise RunError(f"running it raised {error.ename}: {error.evalue}", broken.id) from None
    except (CellTimeoutError, DeadKernelError) as error:
        late = isinstance(error, CellTimeoutError)
        why = f"it ran for more than {SECONDS} seconds" if late else "the kernel died while running it"
        raise RunError(why, begun[-1]) from None
