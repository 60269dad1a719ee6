"""What the tasks of exercise 04 share: places in the lesson, and small patterns to try an answer on."""

import torch
from torch import Tensor

from ..catalogue import Look

LESSON = "04_random_edges"

TICKET = Look("A ticket for each cell, drawn once", "ticket", "repr(place)")
LOOPS = Look("A ticket for each cell, drawn once", "draw-loops", "for block in sorted(free, key=")
TENSORS = Look("A ticket for each cell, drawn once", "draw-tensors", "tickets.masked_fill(taken,")
BY_HAND = Look("How far is it now?", "news-by-hand", "heard = {0}")
HOPS = Look("How far is it now?", "hops-table", "graph.mean_hops(p)")
LAYERS = Look("Read by nobody", "shared-fresh", "random.for_layers(8)")
SHRINKS = Look("Read by nobody", "shared-fresh", "graph.reach(fresh, layers)")
MIXING = Look("How fast everything mixes", "mixing", "x = P @ x")


def numbers(seed: int, *shape: int) -> Tensor:
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
    """bool (n, n): each row reads that many other blocks, drawn at random; never its own."""
    return numbers(seed, n, n).fill_diagonal_(2).argsort(-1).argsort(-1) < per_row
