"""A painted pattern: presets to start from, what it lets a small model know of four tasks, and that in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from bigbird_mini.cost import attention_flops, score_entries
from bigbird_mini.graph import clustering, reach
from bigbird_mini.pattern import NONE, BlockPattern
from bigbird_mini.tasks import TASKS, Task
from bigbird_mini.viz.figures import measure
from bigbird_mini.viz.words import counted, describe_pattern

if TYPE_CHECKING:
    from bigbird_mini.viz.paint_run import Run

LAYERS, HEADS, HEAD_SIZE = 2, 4, 16  # of the small encoder that is trained
SMALLEST, LARGEST = 4, 32  # blocks: fewer leave a task no room, of more a cell is no target for a finger
FINEST, COARSEST = 2, 32  # tokens of a block


def _own(n: int) -> BlockPattern:
    return BlockPattern.window(n, 1)


def _random(n: int, base: BlockPattern) -> BlockPattern:
    return base | BlockPattern.random(n, 2, avoid=base)


# Those of the course's table of four tasks: each block reads itself; one global block, the blank one; 2 random ones.
PRESETS: dict[str, Callable[[int], BlockPattern]] = {
    "nothing": lambda n: BlockPattern.global_(n, ()),
    "its own block": _own,
    "window": BlockPattern.window,
    "global": lambda n: _own(n) | BlockPattern.global_(n, (0,)),
    "random": lambda n: _random(n, _own(n)),
    "window + random": lambda n: _random(n, BlockPattern.window(n)),
    "window + global": lambda n: BlockPattern.window(n) | BlockPattern.global_(n, (0,)),
    "window + random + global": lambda n: _random(n, BlockPattern.window(n) | BlockPattern.global_(n, (0,))),
    "full": BlockPattern.full,
}
ASK = {
    "local copy": "Every token wants the value from one block before. Which cells can go, and it is still learnt?",
    "broadcast": "One token is flagged, anywhere, and every token wants its value. How few cells are enough? "
    "Guess, paint them, train.",
    "far copy": "Every token wants the value from {far} before. From a global block, paths of two edges go to "
    "everybody: is a path enough? Guess, then press Train it. Then paint the cells it needs.",
    "lookup": "Tokens of the second half ask for the value of a key that may stand anywhere in the first. Paint until "
    "you think it can be learnt, then train: does a path of two edges help?",
}


def painted(kinds: np.ndarray) -> BlockPattern:
    """The pattern whose kinds are these: uint8 (N, N), one head."""
    n = len(kinds)
    read = kinds != NONE
    order = np.argsort(~read, axis=1, kind="stable")[:, : read.sum(1).max()]  # each row's key blocks first
    keys = np.where(np.take_along_axis(read, order, 1), order, n)
    return BlockPattern(np.zeros((1, n), np.uint8), keys[None], np.take_along_axis(kinds, order, 1)[None])


@lru_cache(maxsize=16)
def task_of(name: str, n_blocks: int, block_size: int) -> Task:
    """The task of this name for texts of so many blocks, the first of them blank."""
    if name not in TASKS:
        raise ValueError(f"task={name!r} is not known; allowed: {', '.join(map(repr, TASKS))}")
    return TASKS[name](n_blocks * block_size, block_size)


def ask(task: Task, block_size: int) -> str:
    """What to try with this task."""
    asking, answering = task.pairs.nonzero()
    far = int(asking[0] - answering[0])
    return ASK[task.name].format(far=counted(far // block_size, "block") if far % block_size == 0 else f"{far} tokens")


def heard(p: BlockPattern, layers: int) -> np.ndarray:
    """bool (N, N): can a token of query block i hear of another token, of key block j, after so many layers?

    As bigbird_mini.graph.reach, but a token does not hear of its neighbours by its residual connection: there must be
    an edge.
    """
    reads = p.grid().numpy().any(0)
    return reads @ reach(p, layers - 1)


def predictions(p: BlockPattern, task: Task) -> tuple[float, float]:
    """Accuracy if only edges count, and if paths through all layers do; elsewhere a guess."""
    return task.predicted(heard(p, 1)), task.predicted(heard(p, LAYERS))


def tasks_of(p: BlockPattern, block_size: int) -> list[Task]:
    return [task_of(name, p.n_blocks, block_size) for name in TASKS]


def figure_rows(p: BlockPattern, block_size: int) -> list[list[str]]:
    """[name, value] pairs: what it reads, how far its news gets, what it costs."""
    sizes = {"block_size": block_size, "heads": HEADS}
    dense = BlockPattern.full(p.n_blocks)
    flops, most = (attention_flops(q, head_size=HEAD_SIZE, **sizes) for q in (p, dense))
    return [
        *measure(p, 0, block_size).rows()[:-1],
        ["clustering", f"{clustering(p):.2f} (1: all neighbours know each other)"],
        ["price of a layer", f"{score_entries(p, **sizes):,} scores, {flops / 1e6:.2f} MFLOP; dense {most / 1e6:.2f}"],
    ]


def task_rows(p: BlockPattern, block_size: int, runs: Iterable[Run] = ()) -> list[list[str]]:
    """For each task its name, the two predictions, and what the last training of this very pattern gave."""
    rows = []
    for task in tasks_of(p, block_size):
        measured = last_accuracy(p, task, runs)
        shown = "-" if measured is None else f"{measured:.0%}"
        rows.append([task.name, *(f"{share:.0%}" for share in predictions(p, task)), shown])
    return rows


def last_accuracy(p: BlockPattern, task: Task, runs: Iterable[Run]) -> float | None:
    """What the last training of this pattern on this task gave; None where there was none."""
    mine = (run for run in runs if run.task.name == task.name and run.accuracy is not None)
    return next((run.accuracy for run in reversed([*mine]) if torch.equal(run.pattern.grid(), p.grid())), None)


def describe_tasks(p: BlockPattern, block_size: int = 8, runs: Sequence[Run] = ()) -> str:
    """In words: what a small encoder with this pattern in both of its layers can know of each of the four tasks, as
    predicted from the pattern alone, and how its trainings ended."""
    lines = [f"What {LAYERS} layers with this pattern can know of each task; a guess is right in {1 / 16:.0%}."]
    for task, (name, edges, paths, measured) in zip(
        tasks_of(p, block_size), task_rows(p, block_size, runs), strict=True
    ):
        after = "" if measured == "-" else f"; trained, it gave {measured}"
        lines.append(f"{name} ({task.question}): {edges} right if only edges count, {paths} if paths do{after}.")
    return "\n".join([*lines, *(f"{run}" for run in runs)])


def describe_painted(p: BlockPattern, block_size: int, runs: Sequence[Run]) -> str:
    """All that is seen: the pattern, its figures, the tasks and the trainings."""
    figures = "\n".join(f"{name}: {value}." for name, value in figure_rows(p, block_size))
    return f"{describe_pattern(p)}\n{figures}\n{describe_tasks(p, block_size, runs)}"
