"""Which import does this name come from? A lookup over thousands of tokens, with any pattern, and the controls.

The standard library's own files; every use of an imported name asks for the number of the import statement that binds
it. Names and numbers are drawn afresh for each reading, so the answer stands in one place of the text and the question
in another, and pieces that vote cannot bring them together.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..data import FRESH_NAMES, STATEMENT_NUMBERS, ImportDocument, import_documents, stdlib_text
from ..data.imports import Reading
from ..model import BigBirdConfig, BigBirdForTokenClassification
from ..train import Trainer, TrainSettings
from . import cells
from .imports_votes import Voters

PATTERNS = ("W", "W+R", "W+G", "W+G+R", "W+I", "W+I+R", "full", "pieces")
VOCABULARY = 2048
BLOCK = 64  # tokens
LEAST = 4  # import statements of a document
SHORT, AROUND, EXCERPTS = 128, 9, 64  # tokens of an excerpt, of a piece around a use; excerpts of a step
FAR = 512
BANDS = (0, FAR, 1024, 2048, 4096, 8192)  # distances, in tokens
MOST = 16384


@dataclass(frozen=True)
class Run:
    """One training: everything that decides its result.

    pattern: W window of 3 blocks; R 3 random blocks a row; G one block of 64 learned global tokens, which hold nothing
    of the text; I the first two blocks of the text, where the imports stand, are global; "full"; or "pieces": the text
    in pieces that do not see each other, each read in full, and vote. piece: their tokens, else 0. length: tokens read
    of a file. The first ``short`` steps read excerpts of 128 tokens, in which all patterns are the same.

    Raises ValueError for what cannot be run, with what is allowed.
    """

    pattern: str = "full"
    length: int = 4096
    seed: int = 0
    steps: int = 350
    short: int = 250
    piece: int = 0

    def __post_init__(self) -> None:
        if self.pattern not in PATTERNS:
            raise ValueError(f"pattern={self.pattern!r} is not known; allowed: {', '.join(PATTERNS)}")
        if not SHORT <= self.length <= MOST:
            raise ValueError(f"length={self.length} tokens; allowed are {SHORT} to {MOST}")
        if self.seed < 0 or self.steps < 1 or not 0 <= self.short <= self.steps:
            raise ValueError(
                f"steps={self.steps} must be at least 1, seed={self.seed} and short={self.short} 0 or more"
            )
        pieces = self.pattern == "pieces"
        if pieces != bool(self.piece) or self.piece % BLOCK or self.piece < 0:
            raise ValueError(f"piece={self.piece} must be a multiple of {BLOCK} for 'pieces', and 0 for other patterns")

    @property
    def name(self) -> str:
        """Of the folder that holds its checkpoints."""
        piece = f"-{self.piece}" if self.piece else ""
        return f"{self.pattern}{piece}-{self.length}-{self.short}of{self.steps}-seed{self.seed}"


def execute(run: Run, folder: Path | None = None, resume: bool = False, progress: bool = True) -> dict[str, Any]:
    """Train and test; a record of settings, accuracies and seconds, as JSON can hold it."""
    start = time.perf_counter()
    trainer = Trainer(fresh_model(run), batches(run), settings(run), folder=folder)
    found: dict[str, Any] = {"seconds": cells.trained(trainer, resume, progress)}
    found["long_seconds"] = float(np.median([row["seconds"] for row in trainer.history[run.short :]] or [0.0]))
    groups = dict(zip(("validation", "test"), files(run.seed)[1:], strict=True))
    for name, documents in groups.items():
        found[name] = by_distance(answers(trainer.model, documents, run))
    if run.pattern == "full":
        found["retrieved"] = by_distance(answers_retrieved(trainer.model, groups["test"], run))
    found["guesses"] = guesses(groups["test"], run.length)
    found["parameters"] = sum(p.numel() for p in trainer.model.parameters())
    return cells.record(run, start, found)


def config(run: Run) -> BigBirdConfig:
    """The encoder's settings: two pre-norm layers of 64, two heads, no positions.

    A token's type is the number of the import statement it stands in. Without positions, what is learned in short
    excerpts holds at any distance.
    """
    return BigBirdConfig(
        vocab_size=VOCABULARY + FRESH_NAMES,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=MOST,
        type_vocab_size=1 + STATEMENT_NUMBERS,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=64**-0.5,  # much wider than BERT's 0.02, with which so narrow a model hardly starts
        num_labels=STATEMENT_NUMBERS,
        block_size=BLOCK,
        num_random_blocks=3 if "R" in run.pattern else 0,
        global_blocks=(0, 1) if "I" in run.pattern else (),
        extra_global_tokens=BLOCK if "G" in run.pattern else 0,
        attention_type="original_full" if run.pattern in ("full", "pieces") else "block_sparse",
        pattern_seed=run.seed,
        norm="pre",
        positions="none",
    )


def fresh_model(run: Run) -> nn.Module:
    """Untrained; its first weights follow from the seed."""
    torch.manual_seed(run.seed)
    if run.pattern == "pieces":
        return Voters(config(run), run.piece)
    return BigBirdForTokenClassification(config(run))


def settings(run: Run) -> TrainSettings:
    """The recipe: AdamW, a tenth of the steps to warm up, then down to nothing in a straight line."""
    return TrainSettings(
        steps=run.steps,
        learning_rate=2e-3,
        warmup=0.1,
        weight_decay=0.01,
        betas=(0.9, 0.98),
        accumulation=2,
        seed=run.seed,
        checkpoint_every=max(1, run.steps // 10),
    )


# ---------------------------------------------------------------- data


@lru_cache(maxsize=1)
def files(seed: int) -> tuple[list[ImportDocument], ...]:
    """Training, validation and test: 60, 15 and 25 of a hundred of the standard library's files, drawn by the seed; of
    these, those with at least four import statements. The vocabulary is made of the training files alone."""
    every = stdlib_text()
    order = [every[i] for i in np.random.default_rng(seed).permutation(len(every))]
    ends = [share * len(order) // 100 for share in (0, 60, 75, 100)]
    parts = [order[start:end] for start, end in pairwise(ends)]
    tokenizer = cells.vocabulary(VOCABULARY, parts[0])
    return tuple(import_documents(part, tokenizer, LEAST) for part in parts)


def batches(run: Run) -> Callable[[int], dict[str, torch.Tensor]]:
    """From the number of a micro-batch to 32 excerpts, or later to one file as far as it is read, and the answers."""
    train = [document for document in files(run.seed)[0] if len(document.ids) >= 2 * SHORT]
    asks = [document for document in train if document.uses[0, 0] < run.length]
    long = [document for document in asks if len(document.ids) >= run.length // 2]
    if not long:
        raise ValueError(f"length={run.length}: no training file is half as long")

    def batch(number: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((run.seed, number))
        if number < 2 * run.short:
            chosen = [train[i] for i in rng.integers(0, len(train), EXCERPTS // 2)]
            readings = [one.read(VOCABULARY, rng, one.excerpt(SHORT, AROUND, rng)) for one in chosen]
        else:
            one = long[rng.integers(len(long))]
            readings = [one.read(VOCABULARY, rng, first(one, run.length))]
        ids, segments, labels, _ = (torch.stack(column) for column in zip(*readings, strict=True))
        return {"input_ids": ids, "token_type_ids": segments, "labels": labels}

    return batch


# ---------------------------------------------------------------- testing


Found = list[tuple[int, bool]]  # of every use: tokens since its import, and whether the answer is right


@torch.no_grad()
def answers(model: nn.Module, documents: list[ImportDocument], run: Run) -> Found:
    """Every use in the files, as far as they are read: is the best-scored of the file's statements the right one?"""
    found: Found = []
    for number, document in enumerate(documents):
        reading = document.read(VOCABULARY, np.random.default_rng((run.seed, number)), first(document, run.length))
        if (reading.labels >= 0).any():
            found += _judged(model, reading, reading.labels >= 0)
    return found


@torch.no_grad()
def answers_retrieved(model: nn.Module, documents: list[ImportDocument], run: Run) -> Found:
    """The far uses, each read alone with what a search for its name would bring: the file's first 512 tokens, where the
    imports stand, and the 64 tokens that end with the use."""
    found: Found = []
    for number, document in enumerate(documents):
        rng = np.random.default_rng((run.seed, number))
        for place, name in document.uses.tolist():
            if place < run.length and place - int(document.bindings[name, 0]) >= FAR:
                here = first(document, place + 1) & ~first(document, place + 1 - BLOCK)
                reading = document.read(VOCABULARY, rng, here | first(document, FAR))
                if reading.labels[-1] >= 0:  # else its import stands elsewhere
                    found += _judged(model, reading, torch.arange(len(reading.ids)) == len(reading.ids) - 1)
    return found


def _judged(model: nn.Module, reading: Reading, asked: torch.Tensor) -> Found:
    device = next(model.parameters()).device
    ids, segments = reading.ids[None].to(device), reading.segments[None].to(device)
    logits = model(ids, token_type_ids=segments).logits[0].cpu()[asked]  # (uses, numbers)
    missing = torch.ones(STATEMENT_NUMBERS, dtype=torch.bool)
    missing[reading.segments[reading.segments > 0] - 1] = False
    right = logits.masked_fill(missing, -torch.inf).argmax(-1) == reading.labels[asked]
    return list(zip(reading.distances[asked].tolist(), right.tolist(), strict=True))


def first(document: ImportDocument, length: int) -> torch.Tensor:
    """(n,) bool: the first tokens of a file."""
    return torch.arange(len(document.ids)) < length


def by_distance(found: Found) -> dict[str, list[float]]:
    """Accuracy and number of uses, in each band of distances ('512' begins at 512 tokens), and of all 'far' ones."""
    bands = {str(low): (low, high) for low, high in zip(BANDS, (*BANDS[1:], 2**62), strict=True)}
    bands["far"] = (FAR, 2**62)
    of = {name: [right for d, right in found if low <= d < high] for name, (low, high) in bands.items()}
    return {name: [float(np.mean(right)), len(right)] for name, right in of.items() if right}


def guesses(documents: list[ImportDocument], length: int) -> dict[str, float]:
    """What can be reached on far uses without looking the name up; nothing where there are none.

    chance: any statement of the file; first, last: always that one; names: the one that binds most names; used: the one
    that the file's far uses name most often, which only the answers tell.
    """
    found: dict[str, list[float]] = {}
    for one in documents:
        here = (one.uses[:, 0] < length) & (one.uses[:, 0] - one.bindings[one.uses[:, 1], 0] >= FAR)
        true = one.bindings[one.uses[here, 1], 1]
        statements = int(one.bindings[:, 1].max()) + 1
        binds = torch.bincount(one.bindings[:, 1], minlength=statements)
        shares = torch.bincount(true, minlength=statements).double() / max(1, len(true))
        ways = {"chance": 1 / statements, "first": shares[0], "last": shares[-1], "used": shares.max()}
        ways["names"] = shares[binds.argmax()]
        for name, share in ways.items():
            found.setdefault(name, []).append(float(share) * len(true))
        found.setdefault("uses", []).append(len(true))
    total = sum(found.pop("uses"))
    return {name: sum(right) / total for name, right in found.items() if total}


# ---------------------------------------------------------------- command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m bigbird_mini.jobs imports``."""
    add = parser.add_argument
    add("--length", type=int, default=4096, help="tokens read of a file (default: 4096)")
    add("--pattern", default="full", choices=PATTERNS, help="which blocks are read (default: full)")
    add("--piece", type=int, default=0, help="tokens of a piece, with the pattern 'pieces'")
    add("--short", type=int, help="so many of the steps read short excerpts (default: 5 of 7, with --quick 3 of 4)")
    cells.add_arguments(parser, Path("runs/imports"), "350; with --quick 240")


def main(arguments: argparse.Namespace) -> int:
    """One training, or the whole table, or the table as text."""
    from . import imports_table as table

    usual = table.QUICK if arguments.quick else {"steps": Run.steps, "short": Run.short}
    steps = usual["steps"] if arguments.steps is None else arguments.steps
    short = steps * usual["short"] // usual["steps"] if arguments.short is None else arguments.short
    run = Run(arguments.pattern, arguments.length, arguments.seed, steps, short, arguments.piece)
    return cells.command(arguments, run, execute, table)
