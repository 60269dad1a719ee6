"""Train a small encoder with a pattern of one's own on a task, within so many seconds.

The set-up in which the four tasks tell patterns apart: two pre-norm layers of 64, four heads, the same pattern in both
layers, positions by rotation (with a learned table copying from afar hardly trains), AdamW, 16 texts a step.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from bigbird_mini.model import BigBirdConfig, BigBirdForTokenClassification
from bigbird_mini.pattern import BlockPattern
from bigbird_mini.tasks import Task, accuracy
from bigbird_mini.train import Trainer, TrainSettings
from bigbird_mini.viz.paint import HEAD_SIZE, HEADS, LAYERS

# In so many steps the preset that suits a task learns it, with some to spare. Only a lookup without all its edges goes
# on rising slowly.
STEPS = {"local copy": 150, "broadcast": 200, "far copy": 200, "lookup": 300}
TEXTS, TRIED, TESTED = 16, 64, 256  # in a step; in a look at the accuracy on the way; at the end
LOOKS = 20  # on the way
_PROBE = 5  # steps, to see how long one takes
_SHARE = 0.85  # of the seconds are planned for steps; looks and the unforeseen take the rest
_LEAST = 10  # steps; with fewer there is no curve


@dataclass
class Run:
    """A training: of what, and how far it is. points: [step, accuracy on texts never trained on], the latest last."""

    number: int
    task: Task
    pattern: BlockPattern
    seconds: float  # that it may take
    steps: int = 0  # planned, once the speed is known
    done: int = 0
    took: float = 0.0  # seconds so far
    points: list[list[float]] = field(default_factory=list)
    accuracy: float | None = None  # at the end
    model: BigBirdForTokenClassification | None = field(default=None, repr=False)

    def __str__(self) -> str:
        start = f"Training {self.number}, {self.task.name}, density {self.pattern.density():.1%}"
        if self.accuracy is not None:
            return (
                f"{start}: {self.accuracy:.0%} right after {self.done} steps, {self.took:.0f} seconds{self._short()}."
            )
        if not self.steps:
            return f"{start}: seeing how long a step takes ..."
        so_far = f", {self.points[-1][1]:.0%} right so far" if self.points else ""
        return f"{start}: step {self.done} of {self.steps}, {self.took:.0f} of {self.seconds:g} seconds{so_far}."

    def _short(self) -> str:
        wanted = STEPS[self.task.name]
        return f" (the task wants {wanted}: more seconds may teach it more)" if self.done < wanted else ""


def small_encoder(task: Task, p: BlockPattern, seed: int = 0) -> BigBirdForTokenClassification:
    """The untrained encoder, with this pattern in every layer; its first weights follow from the seed alone."""
    config = BigBirdConfig(
        vocab_size=task.vocab_size,
        type_vocab_size=task.type_vocab_size,
        num_labels=task.num_labels,
        hidden_size=HEADS * HEAD_SIZE,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=2 * HEADS * HEAD_SIZE,
        max_position_embeddings=task.n,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.125,  # much wider than BERT's 0.02, with which so narrow a model hardly starts
        block_size=task.n // p.n_blocks,
        norm="pre",
        positions="rotary",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BigBirdForTokenClassification(config, p)


def train(run: Run, tell: Callable[[], Any], stop: threading.Event, seed: int = 0) -> None:
    """Train for at most ``run.seconds``, writing into the run; ``tell()`` is called whenever there is news.

    How many steps fit is tried first, on a copy, so that the learning rate comes down in time. ``stop`` ends it after
    the step under way. Whatever happens, what was reached is tested, unless no step was made.
    """
    start = time.perf_counter()
    deadline = start + run.seconds

    def batches(number: int) -> dict[str, torch.Tensor]:
        return run.task.batch(number, TEXTS, seed)

    def trainer(steps: int, **more: Any) -> Trainer:
        settings = TrainSettings(
            steps=steps,
            learning_rate=6e-3,
            warmup=0.1,
            betas=(0.9, 0.98),
            device="cpu",
            seed=seed,
            evaluate_every=max(1, steps // LOOKS),
        )
        return Trainer(small_encoder(run.task, run.pattern, seed), batches, settings, **more)

    probe = trainer(_PROBE).run(progress=False)
    each = statistics.median(row["seconds"] for row in probe[1:])  # the first one builds what is kept
    left = deadline - time.perf_counter()
    run.steps = max(_LEAST, min(STEPS[run.task.name], int(_SHARE * left / each)))

    def after(trainer: Trainer, record: dict[str, Any]) -> None:
        run.done, run.took = record["step"], time.perf_counter() - start
        if "accuracy" in record:
            run.points.append([record["step"], record["accuracy"]])
            tell()
        if stop.is_set() or time.perf_counter() > deadline:
            trainer.stop()

    tell()
    tried = run.task.batch(0, TRIED, seed, "test")
    running = trainer(run.steps, evaluate=lambda model: {"accuracy": measured(model, tried)}, callbacks=[after])
    running.run(progress=False)
    run.model = running.model.eval()
    run.accuracy = measured(run.model, run.task.batch(1, TESTED, seed, "test"))
    run.took = time.perf_counter() - start
    if run.points[-1:] != [[run.done, run.accuracy]]:
        run.points = [*(point for point in run.points if point[0] < run.done), [run.done, run.accuracy]]


@torch.no_grad()
def measured(model: BigBirdForTokenClassification, batch: dict[str, torch.Tensor]) -> float:
    """Share of the questions of a batch that the model answers rightly."""
    out = model(batch["input_ids"], token_type_ids=batch["token_type_ids"])
    return accuracy(out.logits, batch["labels"])
