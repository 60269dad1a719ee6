"""The table of the imports job: its cells, and the text made of their records."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import mean

from .cells import Record, cell_of, row, spread
from .imports import Run

SEEDS = (0, 1, 2)
PIECES = (2048, 512)  # tokens
QUICK = {"steps": 240, "short": 180}
ROWS = {
    "full": "full",
    "W+I+R": "W+I+R: the imports' blocks are global, others random",
    "W+I": "W+I: the imports' blocks are global",
    "W+G+R": "W+G+R: 64 learned global tokens, random blocks",
    "W+G": "W+G: 64 learned global tokens",
    "W+R": "W+R",
    "W": "W",
}
BANDS = {
    "far": "512 or more",
    "0": "below 512",
    "512": "512 to 1,023",
    "1024": "1,024 to 2,047",
    "2048": "2,048 to 4,095",
}
TEXT = """\
Test accuracy (mean ± standard deviation over the seeds) by the number of tokens between a name's use and its import, \
then seconds of one training and of one of its steps on whole files (two of {length:,} tokens) with {threads} on torch \
{torch}. Far uses to answer, on average over the seeds: {uses:.0f}, in files that no training has seen. W: a window of \
3 blocks of 64 tokens; R: 3 random blocks a row; I: the first two blocks of the file, where the imports stand, read \
everything and are read by everything; G: so do 64 learned tokens before the file, which hold nothing of it.

Without looking the name up one is right about far uses in {chance:.3f} of the cases (any statement of the file), \
{names:.3f} (the statement that binds most names), {first:.3f} (the first one), {last:.3f} (the last one); knowing the \
answers, but only as one answer a file, in {used:.3f}.
"""
RETRIEVED = """
The model with full attention, given for each far use only the first 512 tokens of the file and the 64 that end with \
the use, is right in {retrieved}: where the question can be taken to the evidence, a search does what a long context \
does.
"""


def cells(quick: bool = False) -> list[Run]:
    """What the table is made of, the longest first. quick: one seed, fewer steps, and no row twice."""
    order = [p for p in sorted(ROWS, key=lambda p: p != "full") if not (quick and p in ("W+I+R", "W+G+R"))]
    more = QUICK if quick else {}
    found = [Run(pattern, seed=seed, **more) for pattern in order for seed in (SEEDS[:1] if quick else SEEDS)]
    sizes = PIECES[:0] if quick else PIECES
    return found + [Run("pieces", seed=seed, piece=size) for size in sizes for seed in SEEDS]


def sentence(record: Record) -> str:
    """One line for people."""
    run = cell_of(Run, record)
    piece = f" of {run.piece}" if run.piece else ""
    told = [f"{run.pattern}{piece}, {run.length} tokens, seed {run.seed}:"]
    for name in ("validation", "test"):
        accuracy, uses = record[name].get("far", (float("nan"), 0))
        told.append(f"{name} {accuracy:.3f} of {uses} far uses,")
    return " ".join([*told, f"{record['seconds']:.0f} s"])


def markdown(records: Iterable[Record], quick: bool = False) -> str:
    """The table and what it means, from those records that are cells of it."""
    known = set(cells(quick))
    records = [record for record in records if cell_of(Run, record) in known]
    if not records:
        raise ValueError("no results yet; first: python -m bigbird_mini.jobs imports --table" + " --quick" * quick)
    names = ROWS | {f"pieces {size}": f"*full, in pieces of {size:,} that vote*" for size in PIECES}
    lines = [row("tokens since the import", *BANDS.values(), "s", "s a long step"), "| --- |" + " ---: |" * 7]
    for key, name in names.items():
        own = [r for r in records if f"{r['pattern']} {r['piece'] or ''}".strip() == key]
        if own:
            accuracies = [spread(r["test"][band][0] for r in own if band in r["test"]) for band in BANDS]
            times = [f"{mean(r[kind] for r in own):.{d}f}" for kind, d in (("seconds", 0), ("long_seconds", 2))]
            lines.append(row(name, *accuracies, *times))
    return "\n".join([*lines, "", *_words(records)])


def _words(records: list[Record]) -> list[str]:
    seeds = {record["seed"]: record for record in records}.values()  # guesses are the same for each pattern
    guesses = {name: mean(record["guesses"][name] for record in seeds) for name in records[0]["guesses"]}
    threads = " or ".join(f"{n} thread{'s' * (n != 1)}" for n in sorted({record["threads"] for record in records}))
    about = {"length": records[0]["length"], "threads": threads, "torch": records[0]["torch"]}
    text = [TEXT.format(uses=mean(record["test"]["far"][1] for record in seeds), **about, **guesses).strip()]
    retrieved = [record["retrieved"]["far"][0] for record in records if "retrieved" in record]
    if retrieved:
        text.append(RETRIEVED.format(retrieved=spread(retrieved)).rstrip())
    return text
