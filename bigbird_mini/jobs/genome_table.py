"""The table of the genome job: its cells, and the text made of their records."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import mean
from typing import Any

from ..data import REPLICHORE_LENGTHS
from .cells import Record, cell_of, row, spread
from .genome import Run
from .genome_model import PATTERNS

SEEDS = (0, 1, 2)
COMPARED = (16384, 4096)  # bases, where patterns differ
PER_BASE = Run(length=16384, steps=75, bases_per_token=1)
ByLength = dict[int, list[Record]]  # by the bases of a window


def cells(quick: bool = False) -> list[Run]:
    """What the table is made of, the longest first so that no process is left with one at the end.

    quick: one seed, patterns compared at the longest windows only, and no training with full attention or with one
    token per base.
    """
    seeds, compared = (SEEDS[:1], COMPARED[:1]) if quick else (SEEDS, COMPARED)
    found = [] if quick else [PER_BASE]
    found += [Run("cost", pattern, bases_per_token=1) for pattern in ("full", "W+G+R")]
    order = [*(() if quick else ("full",)), *(pattern for pattern in PATTERNS if pattern != "full")]
    found += [Run("encoder", pattern, length, seed) for length in compared for pattern in order for seed in seeds]
    alone = [length for length in REPLICHORE_LENGTHS if length not in compared]
    found += [Run("encoder", "W+G+R", length, seed) for length in alone for seed in seeds]
    found += [Run("mean", "", length, seed) for length in compared for seed in seeds]
    found += [Run("logistic", "", length, seed) for length in REPLICHORE_LENGTHS[::-1] for seed in seeds]
    return found


def sentence(record: Record) -> str:
    """One line for people."""
    run = cell_of(Run, record)
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


def markdown(records: Iterable[Record], quick: bool = False) -> str:
    """The tables of accuracy and of cost, and what they mean, from those records that are cells of the table."""
    known = set(cells(quick))
    records = [record for record in records if cell_of(Run, record) in known]
    rows = {name: _by_length(records, wanted) for name, wanted in ROWS.items()}
    rows = {name: own for name, own in rows.items() if own}
    if not rows:
        raise ValueError("no results yet; first: python -m bigbird_mini.jobs genome --table" + " --quick" * quick)
    lines = _table("test accuracy", rows, _accuracy)
    lines += ["", *_table("one training", {name: own for name, own in rows.items() if "vote" not in name}, _price)]
    return "\n".join([*lines, "", *_words(records, rows)])


def _by_length(records: list[Record], wanted: dict[str, Any]) -> ByLength:
    """Those that belong in a row of the table."""
    own: ByLength = {}
    for record in records:
        if "votes" in wanted:
            for length, votes in record.get("votes", {}).items():
                own.setdefault(int(length), []).append(votes)
        elif "test" in record and all(record[name] == value for name, value in wanted.items()):
            own.setdefault(record["length"], []).append(record)
    return own


def _table(title: str, rows: dict[str, ByLength], told: Callable[[list[Record]], str]) -> list[str]:
    lines = [row(title, *(f"{n:,} bases" for n in REPLICHORE_LENGTHS)), "| --- |" + " ---: |" * len(REPLICHORE_LENGTHS)]
    for name, own in rows.items():
        lines.append(row(name, *(told(own[n]) if n in own else "" for n in REPLICHORE_LENGTHS)))
    return lines


def _accuracy(records: list[Record]) -> str:
    return spread(record["test"] for record in records)


def _price(records: list[Record]) -> str:
    seconds = f"{mean(record['seconds'] for record in records):.0f} s"
    memory = [record["peak_mb"] for record in records if record["peak_mb"]]
    return f"{seconds}, {mean(memory):.0f} MB" if memory else seconds


def _words(records: list[Record], rows: dict[str, ByLength]) -> list[str]:
    tested = [record for record in records if "test" in record]
    threads = sorted({record["threads"] for record in tested})
    errors = [
        f"{mean(record['test_error'] for record in own):.3f} at {length:,}"
        for length, own in sorted(next(iter(rows.values())).items())
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
