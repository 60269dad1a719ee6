"""What the tasks of exercise 02 share: distances, and places in the lesson."""

import torch
from torch import Tensor

from ..catalogue import Look

LESSON = "02_windows"

BAND = Look("A window is a band", "band", "band = (block[:, None] - block).abs() <= 1")
LOOPS = Look("Loops, then blocks", "attention-loops", "keys = slice(max(0, i // b - half) * b")
BLOCKS = Look("Loops, then blocks", "attention-blocks", "weights = scores.masked_fill(~words, -torch.inf)")
CONE = Look("Layer by layer", "cone", "cone = graph.light_cone(p, token=1")
GAPS = Look("A window with gaps", "coverage", "doubled = [BlockPattern.dilated(64, 3, step=2**layer)")
TILES = Look("What the hardware reads", "tiles", "F.max_pool2d(mask, 64)")


def apart(n: int) -> Tensor:
    """(n, n): the number of the key less that of the query."""
    i = torch.arange(n)
    return i - i[:, None]


def some_grid(seed: int, n: int, density: float) -> Tensor:
    """(n, n) bool, no two rows alike in general, nothing symmetric; the same at each call."""
    return torch.rand(n, n, generator=torch.Generator().manual_seed(seed)) < density
