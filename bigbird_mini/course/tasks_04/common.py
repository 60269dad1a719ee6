"""What the tasks of exercise 04 share: places in the lesson, and small patterns to try an answer on."""

import torch
from torch import Tensor

from ..catalogue import Look

LESSON = "04_random_edges"

LOOPS = Look("A lot for each cell, drawn once", "draw-loops", "for j in sorted(free, key=")
TENSORS = Look("A lot for each cell, drawn once", "draw-tensors", "lots.masked_fill(taken,")
LOT = Look("A lot for each cell, drawn once", "lot", "repr(place)")
BY_HAND = Look("How far is it now?", "news-by-hand", "heard = {0}")
HOPS = Look("How far is it now?", "hops-table", "graph.mean_hops(p)")
LAYERS = Look("Read by nobody", "shared-fresh", "random.for_layers(8)")
SHRINKS = Look("Read by nobody", "never-shrinks", "(before <= after)")
MIXING = Look("How fast everything mixes", "mixing", "x = P @ x")
FACTOR = Look("How fast everything mixes", "factor", "later / earlier")


def lots(seed: int, *shape: int) -> Tensor:
    """Numbers from 0 to 1, the same at each call, from a generator of their own."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def band(n: int, width: int) -> Tensor:
    """bool (n, n): a window of that width, clipped at both ends."""
    i = torch.arange(n)
    return (i[:, None] - i).abs() <= width // 2


def with_globals(grid: Tensor, *blocks: int) -> Tensor:
    """The same grid with these blocks global."""
    grid = grid.clone()
    grid[list(blocks)] = True
    grid[:, list(blocks)] = True
    return grid


def drawn(n: int, per_row: int, seed: int) -> Tensor:
    """bool (n, n): each row reads that many other blocks, by lot; never its own."""
    return lots(seed, n, n).fill_diagonal_(2).argsort(-1).argsort(-1) < per_row
