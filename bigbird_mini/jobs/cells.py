"""Tables of many trainings: every cell in a process of its own, one JSON line each.

A table may be stopped at any time, kill -9 included: the same command goes on. Cells with a line are not run again, a
training that was under way goes on from its last checkpoint.

A cell is a frozen dataclass with a ``name``, the name of its folder; it is run by a function of a module as
``execute(cell, folder, resume, progress) -> record``, a dict that JSON can hold and that has the cell's fields.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, fields
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import mean, stdev
from types import ModuleType
from typing import Any

import torch
from tqdm import tqdm

from ..data import bpe_tokenizer
from ..train import Trainer

RESULTS = "results.jsonl"
Record = dict[str, Any]
Execute = Callable[[Any, Path, bool, bool], Record]


def fill(
    out: Path,
    cells: Iterable[Any],
    execute: Execute,
    tell: Callable[[Record], str],
    processes: int = 2,
    threads: int = 1,
) -> None:
    """Run the cells that have no line in the folder yet, each in a new process, some at a time.

    tell: from a record to a line for people. threads: of each process. Raises RuntimeError at the end where cells
    failed; the others have their lines by then.
    """
    if processes < 1:
        raise ValueError(f"processes={processes} must be at least 1")
    cells = list(cells)
    done = {cell_of(type(cells[0]), line) for line in noted(out, type(cells[0]))}
    left = [cell for cell in cells if cell not in done]
    failed = []
    with ThreadPoolExecutor(processes) as pool:
        waiting = {pool.submit(_apart, execute, cell, out / cell.name, threads): cell for cell in left}
        try:
            for future in tqdm(as_completed(waiting), "cells", len(waiting)):
                if future.exception() is not None:
                    failed.append(f"{waiting[future].name}: {future.exception()}")
                    continue
                note(out, future.result())
                tqdm.write(tell(future.result()))
        finally:
            pool.shutdown(cancel_futures=True)
    if failed:
        raise RuntimeError(f"{len(failed)} cells failed; the same command tries them again. {'; '.join(failed[:3])}")


def _apart(execute: Execute, cell: Any, folder: Path, threads: int) -> Record:
    """The record of a cell from a new process, so that its memory is its own and its end harms nobody."""
    context = multiprocessing.get_context("spawn")
    answer, teller = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(teller, execute, cell, folder, threads), daemon=True)
    process.start()
    teller.close()  # so that the end of the process is the end of the pipe
    try:
        told = answer.recv()
    except EOFError:
        told = None
    process.join()
    if isinstance(told, dict):
        return told
    raise RuntimeError(told or f"its process ended with code {process.exitcode} (killed for want of memory?)")


def _run(teller: Connection, execute: Execute, cell: Any, folder: Path, threads: int) -> None:
    parent = multiprocessing.parent_process()

    def follow() -> None:  # end with the process that started this one, or two might train in one folder
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        teller.send(execute(cell, folder, folder.exists(), False))
    except KeyboardInterrupt:
        return  # the process that started this one got Ctrl-C too, and says so
    except Exception as error:  # whatever it is, the other cells go on
        teller.send(f"{type(error).__name__}: {error}")


# ---------------------------------------------------------------- command line


def add_arguments(parser: argparse.ArgumentParser, out: Path, steps: str) -> None:
    """The options that jobs share."""
    add = parser.add_argument
    add("--seed", type=int, default=0, help="of weights, random blocks, and what is trained and tested on (default: 0)")
    add("--steps", type=int, help=f"steps of training (default: {steps})")
    add("--threads", type=int, help="of one training (default: torch's own choice; in the table 1)")
    add("--out", type=Path, default=out, metavar="FOLDER", help=f"results and checkpoints ({out.as_posix()})")
    add("--resume", action="store_true", help="go on from the last checkpoint of this training")
    add("--table", action="store_true", help="everything, three seeds; what the folder has already is not run again")
    add("--processes", type=int, default=2, help="trainings of the table at a time (default: 2)")
    add("--quick", action="store_true", help="a look: a smaller table, with one seed; one short training")
    add("--markdown", action="store_true", help="print the table from the results in the folder; run nothing")


def command(arguments: argparse.Namespace, cell: Any, execute: Execute, table: ModuleType) -> int:
    """One training, or the whole table, or the table as text.

    table: a module with ``cells(quick)``, ``sentence(record)`` and ``markdown(records, quick)``.
    """
    out, threads = arguments.out, arguments.threads
    if threads is not None and threads < 1:
        raise ValueError(f"threads={threads} must be at least 1")
    if arguments.table and not arguments.markdown:
        fill(out, table.cells(arguments.quick), execute, table.sentence, arguments.processes, threads or 1)
    if arguments.table or arguments.markdown:
        print(table.markdown(noted(out, type(cell)), arguments.quick))
        return 0
    if threads is not None:
        torch.set_num_threads(threads)
    found = execute(cell, out / cell.name, arguments.resume, True)
    note(out, found)
    print(table.sentence(found))
    return 0


# ---------------------------------------------------------------- one cell


def trained(trainer: Trainer, resume: bool, progress: bool) -> float:
    """Take all steps, from the start or from the last checkpoint; the seconds that they took, over all sittings.

    Raises ValueError where the folder holds the training already and ``resume`` is not wanted.
    """
    if trainer.folder is not None:
        trainer.folder.parent.mkdir(parents=True, exist_ok=True)
    if resume:
        trainer.resume()
    try:
        history = trainer.run(progress=progress)
    except FileExistsError as error:
        raise ValueError(
            f"{trainer.folder} holds this training already; --resume goes on with it, or give another --out"
        ) from error
    trainer.model.eval()
    return sum(row["seconds"] for row in history)


def record(cell: Any, start: float, found: Record) -> Record:
    """What a cell is and what was found, with the machine's part in it; start: of ``time.perf_counter``."""
    about = {"threads": torch.get_num_threads(), "torch": torch.__version__, "python": platform.python_version()}
    return {**asdict(cell), **found, "wall": time.perf_counter() - start, **about}


def vocabulary(size: int, documents: Iterable[Any]) -> Any:
    """``bpe_tokenizer``; without the package ``tokenizers``, ValueError with its sentence, for the command line."""
    try:
        return bpe_tokenizer(size, documents)
    except ImportError as error:
        raise ValueError(str(error)) from error


# ---------------------------------------------------------------- lines


def note(out: Path, record: Record) -> None:
    """Append a line to the results of the folder. What a killed run left half written stays a line of its own."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / RESULTS
    torn = path.exists() and not path.read_bytes().endswith(b"\n")
    with path.open("a", encoding="utf-8", newline="\n") as file:
        file.write("\n" * torn + json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())


def noted(out: Path, kind: type) -> list[Record]:
    """The records of the folder, the last one of each cell; lines that a killed run left half written are skipped."""
    path, found = out / RESULTS, {}
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
            found[cell_of(kind, record)] = record
        except (ValueError, KeyError, TypeError):
            continue
    return list(found.values())


def cell_of(kind: type, record: Record) -> Any:
    """The cell whose record this is."""
    return kind(**{field.name: record[field.name] for field in fields(kind)})


# ---------------------------------------------------------------- text


def row(*cells: object) -> str:
    """A line of a Markdown table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def spread(values: Iterable[float], digits: int = 3) -> str:
    """Mean and standard deviation over the seeds, as text; nothing where there are none."""
    values = list(values)
    if not values:
        return ""
    more = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else " (1 seed)"
    return f"{mean(values):.{digits}f}{more}"
