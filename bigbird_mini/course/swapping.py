"""swap("1.5"): your attention inside a model that works, beside the course's own.

The model is a small encoder trained here, in a few seconds, on a task that only attention can do: the first token of a
text names a class, and every token is asked for it.
"""

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from bigbird_mini.model import BigBirdConfig, BigBirdForTokenClassification

from .catalogue import Task
from .handover import Closed, known_task, names_of_caller, opened
from .running import Clock, Crashed, Prints, call, said, sheltered

CLASSES, BLOCKS, BLOCK, TEXTS = 4, 6, 2, 64  # as in the lessons: 12 tokens in 6 blocks
STEPS, RATE = 80, 6e-3
SECONDS = 30.0


def texts(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """(ids, classes), both (count, n): the first id is the class, the others are any words."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(CLASSES + 1, 20, (count, BLOCKS * BLOCK), generator=generator)
    first = torch.randint(CLASSES, (count, 1), generator=generator)
    ids[:, :1] = first + 1  # 0 is padding
    return ids, first.expand_as(ids)


@cache
def trained(number: str) -> BigBirdForTokenClassification:
    """The encoder with the pattern of that task, trained with the library's attention."""
    pattern = known_task(number, "swap").swap.pattern(BLOCKS)
    config = BigBirdConfig(
        vocab_size=20,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=BLOCKS * BLOCK,
        block_size=BLOCK,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        num_labels=CLASSES,
    )
    with sheltered():
        model = BigBirdForTokenClassification(config, pattern)
        optimizer = torch.optim.Adam(model.parameters(), RATE)
        for step in range(STEPS):
            ids, classes = texts(TEXTS, step)
            loss = nn.functional.cross_entropy(model(ids).logits.flatten(0, 1), classes.flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


@dataclass(frozen=True)
class Swapped:
    """What `swap` shows. model: the encoder with your attention in every layer; right and before: shares of tokens
    that it classifies rightly, with yours and with the course's; apart: how far their scores are apart at most."""

    task: Task
    model: nn.Module = field(repr=False)
    right: float
    before: float
    apart: float

    def __repr__(self) -> str:
        layers = len(self.model.encoder.layers)
        heads = self.model.config.num_attention_heads
        same = "the same scores" if self.apart < 1e-4 else f"scores up to {self.apart:.2g} apart"
        return (
            f"Your {self.task.asks} now does the attention in {layers} layers of {heads} heads of a trained encoder. "
            f"Every token is asked for the class that the first one names: {self.right:.1%} right with yours, "
            f"{self.before:.1%} with the course's attention, {same}."
        )


def swap(number: str) -> Swapped | Closed:
    """Put your answer to a task, found by its name, into the encoder; opens when the task is right.

    `swap(...).model` is the encoder. Misuse, a ValueError, for a task that is no attention.
    """
    task = known_task(number, "swap")
    mine = opened(task, names_of_caller())
    return mine if isinstance(mine, Closed) else swapped(task, mine)


def swapped(task: Task, answer: Any) -> Swapped | Closed:
    """The encoder of the task with this answer in it, and what it comes to on texts that it has not seen."""
    theirs = trained(task.number)
    pattern = task.swap.pattern(BLOCKS)
    mine = BigBirdForTokenClassification(theirs.config, pattern, task.swap.adapt(answer)).eval()
    mine.load_state_dict(theirs.state_dict())
    ids, classes = texts(TEXTS, STEPS)
    with sheltered(), torch.no_grad():
        before = theirs(ids).logits  # (texts, n, classes)
        try:
            found = call(lambda given: mine(given).logits, {"ids": ids}, Clock(SECONDS), Prints())
        except Crashed as crash:
            return Closed(f"In a model of float32 numbers your {task.asks} fails: {said(crash.error)}")
    right = [float((x.argmax(-1) == classes).float().mean()) for x in (found, before)]
    return Swapped(task, mine, *right, float((found - before).abs().max()))
