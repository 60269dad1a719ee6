"""Masked language model on the standard library's text: what does a longer context give, and to which tokens?

The same model reads the same tokens in the same order, cut into pieces of 512, 1,024 or 4,096; it is tested on the same
masked tokens, in each of these contexts. What it gains lies where the evidence does: at tokens that occur once more,
but far away.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from ..data import BPETokenizer, stdlib_text
from ..model import BigBirdConfig, BigBirdForMaskedLM
from ..train import Trainer, TrainSettings
from . import cells

PATTERNS = ("W", "W+R", "W+G", "W+G+R", "full")
LENGTHS = (512, 1024, 4096)
VOCABULARY = 2048
BLOCK = 64  # tokens
STRETCH = 4096  # tokens, of which every context is cut; two make a step
MASKED, HIDDEN, OTHER = 0.15, 0.8, 0.1  # share of tokens asked for; of these read as [MASK], and as some other token
TESTED, OF_A_FILE = 40, 4  # stretches; at most so many of a file, or one long file could be half of them
BANDS = (1, 64, 512, 1024)  # where each begins: tokens to the nearest visible occurrence of the same token
NOWHERE = "none"
SHARES = tuple(i / 20 for i in range(21))  # of the cache in a guess; the one with the lowest validation loss is taken


@dataclass(frozen=True)
class Run:
    """One training: everything that decides its result. length: tokens of a piece, which is all that is read at once.

    pattern: W window of 3 blocks of 64, G first and last block of a piece global, R 3 random blocks a row; "full".

    Raises ValueError for what cannot be run, with what is allowed.
    """

    pattern: str = "W+G+R"
    length: int = 4096
    seed: int = 0
    steps: int = 400

    def __post_init__(self) -> None:
        if self.pattern not in PATTERNS:
            raise ValueError(f"pattern={self.pattern!r} is not known; allowed: {', '.join(PATTERNS)}")
        if not BLOCK <= self.length <= STRETCH or STRETCH % self.length:
            raise ValueError(f"length={self.length} tokens must divide {STRETCH}, and be at least {BLOCK}")
        if self.seed < 0 or self.steps < 1:
            raise ValueError(f"steps={self.steps} must be at least 1, seed={self.seed} at least 0")

    @property
    def name(self) -> str:
        """Of the folder that holds its checkpoints."""
        return f"{self.pattern}-{self.length}-{self.steps}-seed{self.seed}"


def execute(run: Run, folder: Path | None = None, resume: bool = False, progress: bool = True) -> dict[str, Any]:
    """Train and test; a record of settings, bits and seconds, as JSON can hold it."""
    start = time.perf_counter()
    text = split(run.seed)
    trainer = Trainer(fresh_model(run), batches(run), settings(run), folder=folder)
    found: dict[str, Any] = {"seconds": cells.trained(trainer, resume, progress)}
    for name in ("validation", "test"):
        questions = asked(getattr(text, name), run.seed)
        found[name] = {str(length): bits(nats(trainer.model, questions, length), questions, text) for length in LENGTHS}
    found["guesses"] = guesses(text, run.seed)
    found["parameters"] = sum(p.numel() for p in trainer.model.parameters())
    return cells.record(run, start, found)


def config(run: Run) -> BigBirdConfig:
    """The encoder's settings: four pre-norm layers of 128, four heads, rotary positions."""
    return BigBirdConfig(
        vocab_size=VOCABULARY,
        hidden_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=512,
        type_vocab_size=1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=128**-0.5,
        block_size=BLOCK,
        num_random_blocks=3 if "R" in run.pattern else 0,
        global_blocks=(0, -1) if "G" in run.pattern else (),
        attention_type="original_full" if run.pattern == "full" else "block_sparse",
        pattern_seed=run.seed,
        norm="pre",
        positions="rotary",
    )


def fresh_model(run: Run) -> BigBirdForMaskedLM:
    """Untrained; its first weights follow from the seed."""
    torch.manual_seed(run.seed)
    return BigBirdForMaskedLM(config(run))


def settings(run: Run) -> TrainSettings:
    """The recipe: AdamW, a tenth of the steps to warm up, then down to nothing in a straight line."""
    return TrainSettings(
        steps=run.steps,
        learning_rate=2e-3,
        warmup=0.1,
        weight_decay=0.01,
        betas=(0.9, 0.98),
        seed=run.seed,
        checkpoint_every=max(1, run.steps // 10),
    )


# ---------------------------------------------------------------- data


class Text(NamedTuple):
    """train: the ids of whole files, int64 each. validation, test: (m, STRETCH) ids of other files."""

    tokenizer: BPETokenizer
    train: list[torch.Tensor]
    validation: torch.Tensor
    test: torch.Tensor


@lru_cache(maxsize=1)
def split(seed: int) -> Text:
    """The standard library's long files: 70, 15 and 15 of a hundred, drawn by the seed. The vocabulary is made of the
    training files alone.

    Short ones are left out, and the tables of letters in encodings/: one is much like the next, so those of the test
    would be known from training.
    """
    every = [one for one in stdlib_text() if not one.name.startswith("encodings/") and len(one.text) >= 4 * STRETCH]
    order = [every[i] for i in np.random.default_rng(seed).permutation(len(every))]
    first, second = 70 * len(order) // 100, 85 * len(order) // 100
    tokenizer = cells.vocabulary(VOCABULARY, order[:first])
    ids = [tokenizer.encode(document.text) for document in order]
    train = [one for one in ids[:first] if len(one) >= STRETCH]
    stretches = []
    for files in (ids[first:second], ids[second:]):
        rows = torch.stack([part for one in files for part in one.split(STRETCH)[:OF_A_FILE] if len(part) == STRETCH])
        chosen = np.random.default_rng((seed, 1)).permutation(len(rows))[:TESTED]
        stretches.append(rows[torch.from_numpy(chosen)])
    return Text(tokenizer, train, *stretches)


def masked(ids: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """What is read, and the labels: 15 % of the tokens are asked for, of which 80 % are read as [MASK], 10 % as another
    token and 10 % as what they are (Devlin et al. 2018, section 3.1); -100 where nothing is asked."""
    chosen = torch.from_numpy(rng.random(ids.shape) < MASKED)
    way = torch.from_numpy(rng.random(ids.shape))
    others = torch.from_numpy(rng.integers(4, VOCABULARY, ids.shape))  # 0 to 3 are special
    read = torch.where(chosen & (way < HIDDEN), BPETokenizer.mask_id, ids)
    read = torch.where(chosen & (way >= HIDDEN) & (way < HIDDEN + OTHER), others, read)
    return read, torch.where(chosen, ids, -100)


def batches(run: Run) -> Callable[[int], dict[str, torch.Tensor]]:
    """From the number of a micro-batch to two stretches of training files, masked, cut into pieces of a length.

    Stretches and masks follow from seed and number: runs that differ in length or pattern read the same.
    """
    train = split(run.seed).train
    sizes = np.array([len(ids) for ids in train], np.float64)

    def batch(number: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((run.seed, 2, number))
        rows = []
        for file in rng.choice(len(train), 2, p=sizes / sizes.sum()):
            start = rng.integers(len(train[file]) - STRETCH + 1)
            rows.append(train[file][start : start + STRETCH])
        read, labels = masked(torch.stack(rows), rng)
        return {"input_ids": read.view(-1, run.length), "labels": labels.view(-1, run.length)}

    return batch


# ---------------------------------------------------------------- testing


class Questions(NamedTuple):
    """What is asked of every model of a seed.

    ids: (m, STRETCH). hidden: (m, STRETCH) bool, what is read as [MASK] and asked for. distances: (questions,) tokens
    from each hidden one to the nearest visible occurrence of the same token in its stretch; 0 where there is none.
    """

    ids: torch.Tensor
    hidden: torch.Tensor
    distances: torch.Tensor


def asked(ids: torch.Tensor, seed: int) -> Questions:
    """The same tokens for every model of a seed: 15 %, all read as [MASK]."""
    hidden = torch.from_numpy(np.random.default_rng((seed, 3)).random(ids.shape) < MASKED)
    return Questions(ids, hidden, torch.cat([nearest(row, unseen) for row, unseen in zip(ids, hidden, strict=True)]))


def nearest(ids: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """For each hidden token of one stretch (n,), tokens to the nearest visible one of the same id, on either side."""
    places = torch.arange(len(ids))
    gaps = (places[hidden][:, None] - places[~hidden][None]).abs()  # (hidden, visible)
    gaps = torch.where(ids[hidden][:, None] == ids[~hidden][None], gaps, 2**31)
    best = gaps.amin(1)
    return torch.where(best == 2**31, 0, best)


@torch.no_grad()
def nats(model: BigBirdForMaskedLM, questions: Questions, length: int) -> torch.Tensor:
    """(questions,) the loss of each hidden token, its stretch read in pieces of ``length``."""
    device, found = model.bias.device, []
    for ids, hidden in zip(questions.ids.to(device), questions.hidden.to(device), strict=True):
        out = model(torch.where(hidden, BPETokenizer.mask_id, ids).view(-1, length))
        scores = F.linear(out.ready.flatten(0, 1)[hidden], out.words, out.bias)  # (hidden, vocabulary)
        found.append(F.cross_entropy(scores, ids[hidden], reduction="none"))
    return torch.cat(found).cpu()


def bits(losses: torch.Tensor, questions: Questions, text: Text) -> dict[str, list[float]]:
    """Bits a byte and number of tokens: of 'all' hidden tokens, and by the distance of the nearest visible occurrence
    ('64' begins at 64 tokens, 'none': there is none in the stretch)."""
    sizes = text.tokenizer.byte_lengths[questions.ids[questions.hidden]].double()
    d = questions.distances
    groups = {"all": d >= 0, NOWHERE: d == 0}
    groups |= {str(low): (d >= low) & (d < high) for low, high in zip(BANDS, (*BANDS[1:], STRETCH), strict=True)}
    return {
        name: [float(losses[here].double().sum() / np.log(2) / sizes[here].sum()), int(here.sum())]
        for name, here in groups.items()
        if here.any()
    }


def guesses(text: Text, seed: int) -> dict[str, Any]:
    """Bits of the test's hidden tokens without a model: 'unigram', how frequent each token is in the training files;
    and for each length a mixture of that with how frequent it is among what is visible of the same piece."""
    counts = torch.bincount(torch.cat(text.train), minlength=VOCABULARY).double() + 1
    unigram = counts / counts.sum()
    known = {name: asked(getattr(text, name), seed) for name in ("validation", "test")}
    found: dict[str, Any] = {"unigram": bits(-mixture(known["test"], STRETCH, unigram, 0.0).log(), known["test"], text)}
    for length in LENGTHS:
        losses = [-mixture(known["validation"], length, unigram, share).log().mean().item() for share in SHARES]
        share = SHARES[int(np.argmin(losses))]
        found[str(length)] = bits(-mixture(known["test"], length, unigram, share).log(), known["test"], text)
    return found


def mixture(questions: Questions, length: int, unigram: torch.Tensor, share: float) -> torch.Tensor:
    """(questions,) the probability of each hidden token: ``share`` of it from its piece's visible tokens."""
    found = []
    for ids, hidden in zip(questions.ids.reshape(-1, length), questions.hidden.reshape(-1, length), strict=True):
        seen = torch.bincount(ids[~hidden], minlength=len(unigram)).double()
        mixed = share * seen / seen.sum().clamp(min=1) + (1 - share) * unigram
        found.append(mixed[ids[hidden]])
    return torch.cat(found)


# ---------------------------------------------------------------- command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m bigbird_mini.jobs mlm``."""
    add = parser.add_argument
    add("--length", type=int, default=4096, help="tokens that are read at once; divides 4096 (default)")
    add("--pattern", default="W+G+R", choices=PATTERNS, help="which blocks are read (default: W+G+R)")
    cells.add_arguments(parser, Path("runs/mlm"), "400; with --quick 60")


def main(arguments: argparse.Namespace) -> int:
    """One training, or the whole table, or the table as text."""
    from . import mlm_table as table

    usual = table.QUICK["steps"] if arguments.quick else Run.steps
    steps = usual if arguments.steps is None else arguments.steps
    return cells.command(arguments, Run(arguments.pattern, arguments.length, arguments.seed, steps), execute, table)
