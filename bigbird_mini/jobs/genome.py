"""Genome: which strand leads, from a window of 256 to 16,384 bases, with any pattern, and the controls beside it.

What it shows: a read-out token needs a route to all the evidence. With a window alone it sees what lies beside it; one
global block, or random blocks over two layers, let it see everything, at a fraction of the cost of full attention.
What it does not show: that tokens must look at each other over a distance. The evidence adds up, so a short model that
votes does as well as a long one. Where voting cannot work: the job ``imports``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ..data import REPLICHORE_LENGTHS, leads, replichore_split, replichore_windows
from ..data.replichores import BLOCK
from ..train import Trainer, TrainSettings
from . import cells
from .genome_controls import logistic_regression, mean_pooling
from .genome_model import PATTERNS, StrandModel, strand_config

MODELS = ("encoder", "mean", "logistic", "cost")
BASES = 65_536  # of one step, each on both strands: 4 windows of 16,384, or 256 of 256
VOTER = 1024  # the length whose model also votes over longer windows


@dataclass(frozen=True)
class Run:
    """One training, or one control: everything that decides its result.

    model: "encoder"; "mean" (no attention, tokens averaged); "logistic" (3-mers, logistic regression); "cost" (only the
    time of forward and backward of one window is measured). What does not matter to a model is set to "" or 0.

    Raises ValueError for what cannot be run, with what is allowed.
    """

    model: str = "encoder"
    pattern: str = "W+G+R"
    length: int = 16384  # bases
    seed: int = 0
    steps: int = 120
    bases_per_token: int = 8

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"model={self.model!r} is not known; allowed: {', '.join(MODELS)}")
        unused = {"mean": {"pattern": ""}, "logistic": {"pattern": "", "steps": 0, "bases_per_token": 0}}
        for name, value in (unused | {"cost": {"steps": 0}}).get(self.model, {}).items():
            object.__setattr__(self, name, value)
        if self.pattern:
            strand_config(self.pattern)
        if not 4 <= self.length <= REPLICHORE_LENGTHS[-1] or self.length % 2:
            raise ValueError(f"length={self.length} must be an even number of bases, 4 to {REPLICHORE_LENGTHS[-1]}")
        if self.model != "logistic" and (self.bases_per_token < 1 or self.length % self.bases_per_token):
            raise ValueError(f"bases_per_token={self.bases_per_token} must divide the length of {self.length} bases")
        if self.seed < 0 or (self.steps < 1 and self.model in ("encoder", "mean")):
            raise ValueError(f"steps={self.steps} must be at least 1, and seed={self.seed} at least 0")

    @property
    def name(self) -> str:
        """Of the folder that holds its checkpoints."""
        pattern = f"-{self.pattern}" if self.pattern else ""
        return f"{self.model}{pattern}-{self.length}-{self.bases_per_token}-{self.steps}-seed{self.seed}"

    @property
    def windows(self) -> int:
        """Of one step: half from each half of the genome."""
        return max(2, BASES // self.length // 2 * 2)

    @property
    def accumulation(self) -> int:
        """Micro-batches of one step, so that one has no more than 65,536 tokens where a step has many."""
        tokens = 2 * self.windows * self.length // self.bases_per_token
        return max(1, min(self.windows // 2, tokens // 65_536))


def execute(
    run: Run, folder: Path | None = None, resume: bool = False, progress: bool = True, save: Path | None = None
) -> dict[str, Any]:
    """Train and test; a record of settings, accuracies, seconds and memory, as JSON can hold it.

    folder: for the checkpoints of the training. resume: go on from the last of them. save: for the trained model.
    """
    start = time.perf_counter()
    found: dict[str, Any] = {"bare_mb": peak_megabytes()}
    if run.model == "logistic":
        split = replichore_split(run.seed)
        logits, found["penalty"] = logistic_regression(split, run.length, run.seed)
        for name, centres in (("validation", split.validation), ("test", split.test)):
            found |= scores(name, logits[name], centres)
        found["seconds"] = time.perf_counter() - start
    elif run.model == "cost":
        found["seconds"] = seconds_of_one_window(run)
    else:
        model = fresh_model(run)
        trainer = Trainer(model, batches(run), settings(run), folder=folder)
        found["seconds"] = cells.trained(trainer, resume, progress)
        found |= {"parameters": sum(p.numel() for p in model.parameters()), **tested(model, run)}
        if save is not None:
            model.save(save, about={**asdict(run), "validation": found["validation"], "torch": torch.__version__})
    return cells.record(run, start, found | {"peak_mb": peak_megabytes()})


def fresh_model(run: Run) -> StrandModel:
    """Untrained; its first weights follow from the seed."""
    torch.manual_seed(run.seed)
    if run.model == "mean":
        return mean_pooling(run.bases_per_token)
    return StrandModel(strand_config(run.pattern), bases_per_token=run.bases_per_token)


def settings(run: Run) -> TrainSettings:
    """The recipe: AdamW, a tenth of the steps to warm up, then down to nothing in a straight line."""
    return TrainSettings(
        steps=run.steps,
        learning_rate=2e-3,
        warmup=0.1,
        weight_decay=0.01,
        betas=(0.9, 0.98),
        clip=1.0,
        decay="linear",
        seed=run.seed,
        accumulation=run.accumulation,
        checkpoint_every=max(1, run.steps // 6),
    )


def batches(run: Run) -> Callable[[int], dict[str, torch.Tensor]]:
    """From the number of a micro-batch to windows, half of them from each half of the genome, and their labels."""
    train = replichore_split(run.seed).train
    halves = [train[leads(train) == label] for label in (0, 1)]
    each = run.windows // 2 // run.accumulation

    def batch(number: int) -> dict[str, torch.Tensor]:
        rng = np.random.default_rng((run.seed, number))
        centres = np.concatenate([rng.choice(half, each) for half in halves])
        flipped = rng.integers(0, 2, len(centres)).astype(bool)
        bases, labels = replichore_windows(centres, run.length, flipped)
        return {"bases": bases, "labels": labels}

    return batch


# ---------------------------------------------------------------- testing


def tested(model: StrandModel, run: Run) -> dict[str, Any]:
    """Accuracy and loss on validation and test windows; of the short model also as a voter over longer windows."""
    split = replichore_split(run.seed)
    found: dict[str, Any] = {"votes": {}}
    for name, centres in (("validation", split.validation), ("test", split.test)):
        logits = predict(model, centres, run.length)
        found |= scores(name, logits, centres)
        for length in REPLICHORE_LENGTHS:
            if run.length == VOTER < length and run.model == "encoder":
                votes = scores(name, predict(model, centres, length, run.length), centres)
                found["votes"].setdefault(str(length), {}).update(votes)
    return found


@torch.no_grad()
def predict(model: StrandModel, centres: np.ndarray, length: int, chunk: int | None = None) -> torch.Tensor:
    """The logits (m,) of windows; with ``chunk``, the sum of those of the pieces of this length that they are cut into.

    Every other window is read from the other strand, and its logit's sign turned back.
    """
    few = max(1, BASES // length)
    device, found = model.weight.device, []
    for i in range(0, len(centres), few):
        flipped = np.arange(i, min(i + few, len(centres))) % 2 == 1
        bases, _ = replichore_windows(centres[i : i + few], length, flipped)
        pieces = bases.reshape(-1, chunk or length).to(device)
        logits = model(pieces).logits.view(len(bases), -1).sum(1).cpu()
        found.append(torch.where(torch.from_numpy(flipped), -logits, logits))
    return torch.cat(found)


def scores(name: str, logits: torch.Tensor, centres: np.ndarray) -> dict[str, Any]:
    """Accuracy, loss in nats, and the standard error of the accuracy from how much blocks of the genome differ."""
    truth = torch.from_numpy(leads(centres))
    right = ((logits > 0) == (truth > 0)).double().numpy()
    blocks = centres // BLOCK
    each = np.array([right[blocks == block].mean() for block in np.unique(blocks)])
    return {
        name: float(right.mean()),
        f"{name}_error": float(each.std(ddof=1) / len(each) ** 0.5),
        f"{name}_loss": F.binary_cross_entropy_with_logits(logits.double(), truth.double()).item(),
        f"{name}_windows": len(centres),
    }


# ---------------------------------------------------------------- cost


def seconds_of_one_window(run: Run) -> float:
    """Forward and backward of one window, both strands: the quickest of the repeats that fit into ten seconds."""
    model = fresh_model(run)
    bases, labels = replichore_windows(replichore_split(run.seed).train[:1], run.length)
    times: list[float] = []
    while sum(times) < 10.0:
        start = time.perf_counter()
        model(bases, labels).loss.backward()
        times.append(time.perf_counter() - start)
    return min(times)


def peak_megabytes() -> float | None:
    """The most memory that this process ever had, in 10^6 bytes; None on a system that does not tell (Windows)."""
    status = Path("/proc/self/status")
    if status.exists():  # not getrusage: on Linux that knows the peak of whoever started this process, too
        line = next(line for line in status.read_text("utf-8").splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ModuleNotFoundError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS counts bytes


# ---------------------------------------------------------------- command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m bigbird_mini.jobs genome``."""
    add = parser.add_argument
    add("--length", type=int, default=16384, help="bases of a window, up to 16384 (default)")
    add("--pattern", default="W+G+R", choices=PATTERNS, help="which blocks are read (default: W+G+R)")
    add("--model", default="encoder", choices=MODELS, help="encoder, or a control: mean, logistic, cost")
    add("--bases-per-token", type=int, default=8, help="bases of a token (default: 8)")
    add("--save", type=Path, metavar="FOLDER", help="write the trained model there")
    cells.add_arguments(parser, Path("runs/genome"), "120; with --quick 30")


def main(arguments: argparse.Namespace) -> int:
    """One training, or the whole table, or the table as text."""
    from . import genome_table as table

    if arguments.save is not None and arguments.table:
        raise ValueError(f"--save {arguments.save} is for the model of one training; --table makes many")
    steps = (30 if arguments.quick else 120) if arguments.steps is None else arguments.steps
    run = Run(arguments.model, arguments.pattern, arguments.length, arguments.seed, steps, arguments.bases_per_token)
    return cells.command(arguments, run, partial(execute, save=arguments.save), table)
