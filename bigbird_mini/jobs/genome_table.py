"""The table of the genome job: every cell in a process of its own, one JSON line each, and the table made of the lines.

It may be stopped at any time, kill -9 included: the same command goes on. Cells with a line are not run again, a
training that was under way goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import fields
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from tqdm import tqdm

from ..data import REPLICHORE_LENGTHS
from .genome import Run, execute
from .genome_model import PATTERNS

RESULTS = "results.jsonl"
SEEDS = (0, 1, 2)
COMPARED = (16384, 4096)  # bases, where patterns differ
PER_BASE = Run(length=16384, steps=75, bases_per_token=1)
Record = dict[str, Any]


def cells(quick: bool = False) -> list[Run]:
    """What the table is made of, the longest first so that no process is left with one at the end.

    quick: one seed, patterns compared at the longest windows only, and no training with one token per base.
    """
    seeds, compared = (SEEDS[:1], COMPARED[:1]) if quick else (SEEDS, COMPARED)
    found = [] if quick else [PER_BASE]
    found += [Run("cost", pattern, bases_per_token=1) for pattern in ("full", "W+G+R")]
    order = sorted(PATTERNS, key=lambda pattern: pattern != "full")
    found += [Run("encoder", pattern, length, seed) for length in compared for pattern in order for seed in seeds]
    alone = [length for length in REPLICHORE_LENGTHS if length not in compared]
    found += [Run("encoder", "W+G+R", length, seed) for length in alone for seed in seeds]
    found += [Run("mean", "", length, seed) for length in compared for seed in seeds]
    found += [Run("logistic", "", length, seed) for length in REPLICHORE_LENGTHS[::-1] for seed in seeds]
    return found


def fill(out: Path, quick: bool = False, processes: int = 2, threads: int = 1) -> None:
    """Run the cells that have no line yet, each in a new process, some at a time.

    Raises RuntimeError at the end where cells failed; the others have their lines by then.
    """
    if processes < 1 or threads < 1:
        raise ValueError(f"processes={processes} and threads={threads} must be at least 1")
    done = {settings_of(record) for record in noted(out)}
    left = [run for run in cells(quick) if run not in done]
    failed = []
    with ThreadPoolExecutor(processes) as pool:
        waiting = {pool.submit(_apart, run, out / run.name, threads): run for run in left}
        try:
            for future in tqdm(as_completed(waiting), "cells", len(waiting)):
                if future.exception() is not None:
                    failed.append(f"{waiting[future].name}: {future.exception()}")
                    continue
                note(out, future.result())
                tqdm.write(sentence(future.result()))
        finally:
            pool.shutdown(cancel_futures=True)
    if failed:
        raise RuntimeError(f"{len(failed)} cells failed; the same command tries them again. {'; '.join(failed[:3])}")


def _apart(run: Run, folder: Path, threads: int) -> Record:
    """The record of a cell from a new process, so that its memory is its own and its end harms nobody."""
    context = multiprocessing.get_context("spawn")
    answer, teller = context.Pipe(duplex=False)
    process = context.Process(target=_cell, args=(teller, run, folder, threads), daemon=True)
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


def _cell(teller: Connection, run: Run, folder: Path, threads: int) -> None:
    parent = multiprocessing.parent_process()

    def follow() -> None:  # end with the process that started this one, or two might train in one folder
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    torch.set_num_threads(threads)
    try:
        teller.send(execute(run, folder, resume=folder.exists(), progress=False))
    except KeyboardInterrupt:
        return  # the process that started this one got Ctrl-C too, and says so
    except Exception as error:  # whatever it is, the other cells go on
        teller.send(f"{type(error).__name__}: {error}")


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


def noted(out: Path) -> list[Record]:
    """The records of the folder, the last one of each cell; lines that a killed run left half written are skipped."""
    path, found = out / RESULTS, {}
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
            found[settings_of(record)] = record
        except (ValueError, KeyError):
            continue
    return list(found.values())


def settings_of(record: Record) -> Run:
    return Run(**{field.name: record[field.name] for field in fields(Run)})


def sentence(record: Record) -> str:
    """One line for people."""
    run = settings_of(record)
    parts = [f"{run.model} {run.pattern or '-'}, {run.length} bases, {run.bases_per_token} a token, seed {run.seed}:"]
    if "test" in record:
        parts.append(f"validation {record['validation']:.3f}, test {record['test']:.3f},")
    memory = record["peak_mb"]
    parts.append(f"{record['seconds']:.1f} s" + (f", {memory:.0f} MB" if memory else ""))
    return " ".join(parts)


# ---------------------------------------------------------------- the table as text

ROWS = {  # what a row says: the records that belong in it
    "**W+G+R**, BigBird": {"model": "encoder", "pattern": "W+G+R", "bases_per_token": 8},
    "W+G": {"model": "encoder", "pattern": "W+G"},
    "W+R": {"model": "encoder", "pattern": "W+R"},
    "W": {"model": "encoder", "pattern": "W"},
    "full": {"model": "encoder", "pattern": "full"},
    "W+G+R, one token per base": {"model": "encoder", "bases_per_token": 1},
    "*3-mers of both strands, logistic regression*": {"model": "logistic"},
    "*the model of 1,024 bases, its pieces vote*": {"votes": True},
    "*no attention, tokens averaged*": {"model": "mean"},
}
TEXT = """\
Test accuracy (mean ± standard deviation over the seeds), then seconds and peak memory of one training (mean; a \
process that has only loaded the program has {bare} MB), {setting}. A token is 8 bases, so the windows have 32 to \
2,048; a test set has {windows} windows in ten blocks of 100,000 bases, and its own standard error, from how much \
those blocks differ, is {errors}. The read-out token belongs to the global block where there is one (G, full); in W \
and W+R to an ordinary block before the first block of the window, and with W two layers then bring it 512 bases. All \
was chosen on validation blocks, on which no seed tests.
"""
COST = """
With one token per base, forward and backward of one window of 16,384 tokens and its other strand takes {sparse:.2f} s \
with W+G+R and {full:.1f} s with full attention, {times:.0f} times as long: a step of training, 4 windows, {step:.0f} s.
"""
MEANING = """
What it shows: a read-out token needs a route to all the evidence; one global block is enough, random blocks alone \
nearly, a window is not. What it does not show: that tokens must look at each other. The evidence adds up, so counting \
3-mers, or a short model that votes, does as well. Where voting cannot work: the import task.
"""


def markdown(records: Iterable[Record]) -> str:
    """The tables of accuracy and of cost, and what they mean, from those records that are cells of the table."""
    known = set(cells())
    records = [record for record in records if settings_of(record) in known]
    rows = {name: _row(records, wanted) for name, wanted in ROWS.items()}
    rows = {name: row for name, row in rows.items() if row}
    if not rows:
        raise ValueError("no results yet; first: python -m bigbird_mini.jobs genome --table")
    lines = _table("test accuracy", rows, _accuracy)
    lines += ["", *_table("one training", {name: row for name, row in rows.items() if "vote" not in name}, _price)]
    return "\n".join([*lines, "", *_words(records, rows)])


def _row(records: list[Record], wanted: dict[str, Any]) -> dict[int, list[Record]]:
    """Records by length of the window."""
    row: dict[int, list[Record]] = {}
    for record in records:
        if "votes" in wanted:
            for length, votes in record.get("votes", {}).items():
                row.setdefault(int(length), []).append(votes)
        elif "test" in record and all(record[name] == value for name, value in wanted.items()):
            row.setdefault(record["length"], []).append(record)
    return row


def _table(title: str, rows: dict[str, dict[int, list[Record]]], cell: Any) -> list[str]:
    lines = ["| " + " | ".join([title, *(f"{length:,} bases" for length in REPLICHORE_LENGTHS)]) + " |"]
    lines.append("| --- |" + " ---: |" * len(REPLICHORE_LENGTHS))
    for name, row in rows.items():
        told = [cell(row[length]) if length in row else "" for length in REPLICHORE_LENGTHS]
        lines.append("| " + " | ".join([name, *told]) + " |")
    return lines


def _accuracy(records: list[Record]) -> str:
    accuracies = [record["test"] for record in records]
    spread = f" ± {stdev(accuracies):.3f}" if len(accuracies) > 1 else " (1 seed)"
    return f"{mean(accuracies):.3f}{spread}"


def _price(records: list[Record]) -> str:
    seconds = f"{mean(record['seconds'] for record in records):.0f} s"
    memory = [record["peak_mb"] for record in records if record["peak_mb"]]
    return f"{seconds}, {mean(memory):.0f} MB" if memory else seconds


def _words(records: list[Record], rows: dict[str, dict[int, list[Record]]]) -> list[str]:
    tested = [record for record in records if "test" in record]
    threads = sorted({record["threads"] for record in tested})
    errors = [
        f"{mean(record['test_error'] for record in row):.3f} at {length:,}"
        for length, row in sorted(next(iter(rows.values())).items())
    ]
    setting = f"with {' or '.join(map(str, threads))} thread{'s' * (threads != [1])} on torch {tested[0]['torch']}"
    bare = f"{mean(record['bare_mb'] or 0 for record in tested):.0f}"
    text = [
        TEXT.format(setting=setting, bare=bare, windows=tested[0]["test_windows"], errors=", ".join(errors)).strip()
    ]
    prices = {record["pattern"]: record["seconds"] for record in records if record["model"] == "cost"}
    if len(prices) == 2:
        sparse, full = prices["W+G+R"], prices["full"]
        text.append(COST.format(sparse=sparse, full=full, times=full / sparse, step=4 * full))
    return [*text, MEANING.strip()]
