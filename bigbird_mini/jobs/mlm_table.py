"""The tables of the masked-language-model job: their cells, and the text made of their records."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from statistics import mean

from .cells import Record, cell_of, row, spread
from .mlm import LENGTHS, NOWHERE, STRETCH, TESTED, VOCABULARY, Run

SEEDS = (0, 1, 2)
QUICK = {"steps": 60}
BANDS = {
    "1": "below 64",
    "64": "64 to 511",
    "512": "512 to 1,023",
    "1024": f"1,024 to {STRETCH - 1:,}",
    NOWHERE: f"not within {STRETCH:,}",
}
TEXT = """\
Bits a byte of the hidden tokens of the test files (mean ± standard deviation over the seeds; lower is better): 15 % \
of {stretches} stretches of {stretch:,} tokens, all read as [MASK]. The stretches are read in pieces of as many \
tokens as each column says; every model saw the same {tokens:.1f} million tokens (vocabulary {vocabulary:,}) with \
{threads} on torch {torch}. Cache: how frequent a token is in training, mixed with how frequent it is among what is \
visible of its piece.

Where the difference sits: the same hidden tokens by the number of tokens to the nearest visible occurrence of the \
same token, on either side; models tested with the pieces they were trained with.
"""


def cells(quick: bool = False) -> list[Run]:
    """What the tables are made of, the longest first. quick: one seed, few steps."""
    more = QUICK if quick else {}
    return [Run(length=n, seed=seed, **more) for n in LENGTHS[::-1] for seed in (SEEDS[:1] if quick else SEEDS)]


def sentence(record: Record) -> str:
    """One line for people."""
    run = cell_of(Run, record)
    tested = ", ".join(f"{found['all'][0]:.3f} in {int(n):,}" for n, found in record["test"].items())
    return f"{run.pattern}, pieces of {run.length}, seed {run.seed}: bits a byte {tested}; {record['seconds']:.0f} s"


def markdown(records: Iterable[Record], quick: bool = False) -> str:
    """The tables and what they mean, from those records that are cells of them."""
    known = set(cells(quick))
    records = [record for record in records if cell_of(Run, record) in known]
    if not records:
        raise ValueError("no results yet; first: python -m bigbird_mini.jobs mlm --table" + " --quick" * quick)
    by_length = {n: [r for r in records if r["length"] == n] for n in LENGTHS}
    seeds = list({record["seed"]: record for record in records}.values())  # guesses are the same for each length
    lines = [row("trained in pieces of", *(f"tested in {n:,}" for n in LENGTHS), "s"), "| --- |" + " ---: |" * 4]
    for n, own in by_length.items():
        if own:
            tested = [spread(r["test"][str(m)]["all"][0] for r in own) for m in LENGTHS]
            lines.append(row(f"{n:,}", *tested, f"{mean(r['seconds'] for r in own):.0f}"))
    lines.append(row("*cache*", *(spread(r["guesses"][str(n)]["all"][0] for r in seeds) for n in LENGTHS), ""))
    lines.append(row("*frequency alone*", *[spread(r["guesses"]["unigram"]["all"][0] for r in seeds)] * 3, ""))
    lines += ["", row("nearest occurrence", *BANDS.values()), "| --- |" + " ---: |" * len(BANDS)]
    for n, own in by_length.items():
        if own:
            lines.append(row(f"{n:,}", *_bands(own, lambda r, n=n: r["test"][str(n)])))
    for n in LENGTHS:
        lines.append(row(f"*cache, {n:,}*", *_bands(seeds, lambda r, n=n: r["guesses"][str(n)])))
    shares = [mean(r["test"]["512"].get(band, [0, 0])[1] / r["test"]["512"]["all"][1] for r in seeds) for band in BANDS]
    lines.append(row("share of the hidden tokens", *(f"{share:.3f}" for share in shares)))
    return "\n".join([*lines, "", _words(records)])


def _bands(records: list[Record], of: Callable[[Record], dict[str, list[float]]]) -> list[str]:
    return [spread(of(record)[band][0] for record in records if band in of(record)) for band in BANDS]


def _words(records: list[Record]) -> str:
    threads = " or ".join(f"{n} thread{'s' * (n != 1)}" for n in sorted({record["threads"] for record in records}))
    tokens = records[0]["steps"] * 2 * STRETCH / 1e6
    about = {"stretches": TESTED, "stretch": STRETCH, "vocabulary": VOCABULARY, "tokens": tokens}
    return TEXT.format(threads=threads, torch=records[0]["torch"], **about).strip()
