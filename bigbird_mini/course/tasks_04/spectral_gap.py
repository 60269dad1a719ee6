"""Task 4.4: the spectral gap of a pattern, by following a difference through many layers."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..catalogue import Case, Mistake, Task, add
from .common import LESSON, MIXING, band, drawn, with_globals

CLOSE = 0.02  # so far from the exact gap a measured one may be


def spectral_gap(grid: Tensor) -> float:
    """1 - the factor by which a layer of means shrinks differences: grid bool (N, N) -> float."""
    weights = grid.double() / grid.sum(-1, keepdim=True)  # (N, N): each row sums to 1
    x = torch.rand(len(grid), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x - x.mean()  # (N,): what all blocks share would never shrink
    logs = []
    for _ in range(600):
        size = x.norm()
        if size < 1e-100:
            return 1.0  # nothing differs any more
        x = weights @ (x / size)
        x = x - x.mean()
        logs.append(x.norm().clamp(min=1e-300).log())
    return 1.0 - float(torch.stack(logs[300:]).mean().exp())  # a geometric mean


def _cases() -> list[Case]:
    sides = torch.arange(10) % 2
    two_camps = sides[:, None] != sides
    two_camps[0, 3] = two_camps[5, 2] = two_camps[8, 1] = False  # not all alike
    eye = torch.eye(14, dtype=torch.bool)
    return [
        Case(words, {"grid": grid})
        for words, grid in [
            ("For 12 blocks, a window of 3 and one global block", with_globals(band(12, 3), 3)),
            ("For 14 blocks, each reading itself and three at random", eye | drawn(14, 3, 1)),
            ("For two camps, each reading blocks of the other only", two_camps),
            ("For a window of 5 over 20 blocks", band(20, 5)),
            ("For 30 blocks, a window of 3 and two at random", band(30, 3) | drawn(30, 2, 5)),
            ("For 6 blocks that read everything", torch.ones(6, 6, dtype=torch.bool)),
            ("For 5 blocks that read only themselves", torch.eye(5, dtype=torch.bool)),
        ]
    ]


def _weights(grid: Tensor, axis: int = -1) -> np.ndarray:
    return (grid.double() / grid.sum(axis, keepdim=True).clamp(min=1)).numpy()


def _eigenvalues(grid: Tensor) -> float:
    sizes = sorted(abs(np.linalg.eigvals(_weights(grid))))
    return float(1 - sizes[-2])


def _spec(grid: Tensor) -> float:
    return min(1.0, max(0.0, _eigenvalues(grid)))


def _torch_eigenvalues(grid: Tensor) -> float:
    values = torch.linalg.eigvals(torch.from_numpy(_weights(grid)))
    return 1 - values.abs().topk(2).values[1].item()


def _powers(grid: Tensor) -> float:
    """The difference between rows after 256 and after 512 layers, by squaring."""
    p = torch.from_numpy(_weights(grid))
    p = p - p.mean(0)  # the same for all rows: what every block has
    log = 0.0
    for _ in range(9):
        size = p.norm()
        if size < 1e-150:
            return 1.0
        log = 2 * (log + math.log(size))
        p = p / size
        p = p @ p
    return 1 - math.exp((log + math.log(max(p.norm(), 1e-300))) / 512)


# ---------------------------------------------------------------- wrong answers

_START = np.random.RandomState(3).rand(64)


def _iterated(
    grid: Tensor, steps: int = 400, weights: np.ndarray | None = None, remove: bool = True, start: Any = None
) -> float:
    """Power iteration, with things left out or done otherwise."""
    p = _weights(grid) if weights is None else weights
    x = _START[: len(grid)] if start is None else start(len(grid))
    x = x - x.mean() if remove else x
    logs = []
    for _ in range(steps):
        with np.errstate(invalid="ignore", divide="ignore"):
            x = p @ (x / np.linalg.norm(x))
            x = x - x.mean() if remove else x
            logs.append(np.log(np.linalg.norm(x)))
    return float(1 - np.exp(np.mean(logs[steps // 2 :])))


def _signed(grid: Tensor) -> float:
    return float(1 - sorted(np.linalg.eigvals(_weights(grid)).real)[-2])


def _symmetric(grid: Tensor) -> float:
    return float(1 - np.linalg.eigvalsh(_weights(grid))[-2])


def _singular(grid: Tensor) -> float:
    return float(1 - np.linalg.svd(_weights(grid), compute_uv=False)[1])


def _columns(grid: Tensor) -> float:
    return _eigenvalues_of(_weights(grid, 0))


def _eigenvalues_of(matrix: np.ndarray) -> float:
    return float(1 - sorted(abs(np.linalg.eigvals(matrix)))[-2])


def _unshared(grid: Tensor) -> float:
    return _eigenvalues_of(grid.double().numpy())


def _off(found: float, grid: Tensor) -> bool:
    return not abs(found - _spec(grid)) <= CLOSE


def _like(*wrong: Callable[[Tensor], float]) -> Callable[..., bool]:
    """Sees a number that is one of these, and is not right."""

    def seen(found: float, grid: Tensor) -> bool:
        return _off(found, grid) and any(abs(found - w(grid)) < CLOSE / 4 for w in wrong)

    return seen


add(
    Task(
        "4.4",
        "the spectral gap",
        2,
        spectral_gap,
        _cases,
        _spec,
        by_rule=True,
        mistakes=(
            Mistake(
                "nothing left to measure",
                "nan came back: somewhere 0 is divided by 0. Numbers that are all alike do not differ, neither at the "
                "start nor in a pattern that mixes at once.",
                (
                    lambda grid: _iterated(grid, start=np.ones),
                    lambda grid: float("nan") if grid.all() else _eigenvalues(grid),
                ),
                seen=lambda found, grid: math.isnan(found),
            ),
            Mistake(
                "what all blocks share not taken away",
                "your factor comes out as 1: the part that is the same in all blocks never shrinks, and soon nothing "
                "else is left of your numbers.",
                (lambda grid: _iterated(grid, remove=False), lambda grid: 0.0),
                seen=lambda found, grid: _off(found, grid) and abs(found) < 1e-3,
            ),
            Mistake(
                "the factor in place of the gap",
                "this is the factor itself. The gap is what is missing from 1: large where differences vanish fast.",
                (lambda grid: 1 - _eigenvalues(grid), lambda grid: 1 - _iterated(grid)),
                seen=lambda found, grid: _off(found, grid) and abs(found - 1 + _spec(grid)) < CLOSE,
            ),
            Mistake(
                "rows that do not sum to 1",
                "each edge counts as 1, so that the numbers grow from layer to layer. Uniform attention takes the mean "
                "of what a block reads.",
                (_unshared, lambda grid: _iterated(grid, weights=grid.double().numpy())),
                seen=lambda found, grid: _off(found, grid) and found < -CLOSE,
            ),
            Mistake(
                "attention shared out along columns",
                "you divide by how often a block is read. Each query, a row, has one unit of attention to give away.",
                (_columns,),
                seen=_like(_columns),
            ),
            Mistake(
                "eigenvalues for a symmetric matrix",
                "`eigvalsh` looks at one triangle of the matrix and takes the other for its mirror image. Who reads "
                "whom is no symmetric affair.",
                (_symmetric,),
                seen=_like(_symmetric),
            ),
            Mistake(
                "singular values",
                "a singular value says how much one layer can do at most, an eigenvalue what each of many layers does.",
                (_singular,),
                seen=_like(_singular),
            ),
            Mistake(
                "an eigenvalue below zero overlooked",
                "a difference that changes its sign in each layer is still there. It is the size of the second "
                "eigenvalue that counts.",
                (_signed,),
                seen=_like(_signed),
            ),
            Mistake(
                "a factor that has not settled",
                "the gap of this pattern is another number, by more than 0.02. Look at the factor of each layer: does "
                "it still change, does it swing to and fro? Take more layers, and the mean of many.",
                (
                    lambda grid: _iterated(grid, steps=1),
                    lambda grid: _iterated(grid, steps=2),
                    lambda grid: _iterated(grid, steps=3),
                ),
                seen=_off,
            ),
        ),
        hints=(
            "Write down uniform attention as a matrix first: row i has the same weight for every block that i reads, "
            "and sums to 1. What happens to a vector of numbers, one for each block, in a layer?",
            "Start with random numbers and take their mean away; multiply by the matrix; take the mean away again. The "
            "length of the vector after a step, divided by that before, is the factor of this layer.",
            "Divide the vector by its length in each step, so that it does not become too small for a number. Go on "
            "for some hundred layers, and take the mean of the logarithms of the later factors. A length of 0 means a "
            "gap of 1.",
        ),
        why="A difference that is fed through one layer after another soon consists of the slowest part alone, and "
        "shrinks by |λ2|, the second largest eigenvalue, in each: this is power iteration. Taking the mean away "
        "removes the largest one, 1, which belongs to what all blocks share. Complex pairs of eigenvalues make the "
        "factor swing, hence the mean. `bigbird_mini.graph.spectral_gap` asks for all eigenvalues at once.",
        also_right=(_eigenvalues, _torch_eigenvalues, _powers),
        look=MIXING,
        lesson=LESSON,
        skill="the spectral gap",
    )
)
