"""Task 2.4: which tiles a matrix unit has to compute for the scores that are wanted."""

from typing import Any

import torch
from torch import Tensor

from ..catalogue import Case, Mistake, Task, add
from .common import LESSON, TILES, apart, some_grid


def wanted_tiles(mask: Tensor, size: int) -> Tensor:
    """Which tiles of size x size scores hold one that is wanted: mask bool (n, n) -> bool (N, N)."""
    n = len(mask)
    tiles = -(-n // size)  # rounded up: the last tiles may be cut short
    whole = torch.zeros(tiles * size, tiles * size, dtype=torch.bool)
    whole[:n, :n] = mask
    return whole.view(tiles, size, tiles, size).any(dim=3).any(dim=1)  # (N, size, N, size) -> (N, N)


def _cases() -> list[Case]:
    def case(words: str, mask: Tensor, size: int) -> Case:
        return Case(words, {"mask": mask, "size": size}, ("query tile", "key tile"))

    dilated = (apart(12) % 3 == 0) & (apart(12).abs() <= 3)
    return [
        case("With 12 tokens, scores wanted here and there, tiles of 3", _mixture(), 3),
        case("With 12 tokens, a window with step 3, tiles of 2", dilated, 2),
        case("With 13 tokens, scores wanted here and there, tiles of 4", some_grid(1, 13, 0.08), 4),
        case("With 7 tokens, the last one alone reads itself, tiles of 3", _corner(7), 3),
        case("With 5 tokens, one tile of 8", some_grid(2, 5, 0.1), 8),
        case("With 6 tokens, nothing wanted, tiles of 2", torch.zeros(6, 6, dtype=torch.bool), 2),
    ]


def _mixture() -> Tensor:
    """12 tokens: tiles of 3 of which all, a row, a single inner score, or nothing is wanted."""
    mask = some_grid(7, 12, 0.1)
    mask[0:3, 6:9] = mask[9, 0:3] = mask[5, 9] = mask[8, 6] = True
    return mask


def _corner(n: int) -> Tensor:
    mask = torch.zeros(n, n, dtype=torch.bool)
    mask[-1, -1] = True
    return mask


def _spec(mask: Tensor, size: int) -> Tensor:
    """Each score that is wanted marks its tile."""
    rows = mask.tolist()
    count = (len(rows) + size - 1) // size
    tiles = [[False] * count for _ in range(count)]
    for i, row in enumerate(rows):
        for j, wanted in enumerate(row):
            if wanted:
                tiles[i // size][j // size] = True
    return torch.tensor(tiles)


def _slices(mask: Tensor, size: int) -> Tensor:
    starts = range(0, len(mask), size)
    return torch.tensor([[bool(mask[i : i + size, j : j + size].any()) for j in starts] for i in starts])


def _pooled(mask: Tensor, size: int) -> Tensor:
    pooled = torch.nn.functional.max_pool2d(mask.double()[None], size, ceil_mode=True, padding=0)
    return pooled[0] > 0


def _places(mask: Tensor, size: int) -> Tensor:
    count = -(-len(mask) // size)
    tiles = torch.zeros(count, count, dtype=torch.bool)
    rows, columns = (mask.nonzero() // size).T
    tiles[rows, columns] = True
    return tiles


# ---------------------------------------------------------------- wrong answers


def _whole(mask: Tensor, size: int, fill: bool = False) -> Tensor:
    n = len(mask)
    tiles = -(-n // size)
    whole = torch.full((tiles * size, tiles * size), fill)
    whole[:n, :n] = mask
    return whole


def _in_tiles(mask: Tensor, size: int, fill: bool = False) -> Tensor:
    """(N, N, size, size)"""
    tiles = -(-len(mask) // size)
    return _whole(mask, size, fill).view(tiles, size, tiles, size).transpose(1, 2)


def _straight(mask: Tensor, size: int) -> Tensor:
    tiles = -(-len(mask) // size)
    return _whole(mask, size).view(tiles, tiles, size, size).flatten(2).any(-1)


def _strided(mask: Tensor, size: int) -> Tensor:
    tiles = -(-len(mask) // size)
    return _whole(mask, size).view(size, tiles, size, tiles).any(dim=2).any(dim=0)


def _cut(mask: Tensor, size: int) -> Tensor:
    tiles = len(mask) // size
    return mask[: tiles * size, : tiles * size].reshape(tiles, size, tiles, size).any(dim=3).any(dim=1)


def _one_side(mask: Tensor, size: int, dim: int) -> Tensor:
    tiles = -(-len(mask) // size)
    whole = _whole(mask, size)
    return whole.unflatten(dim, (tiles, size)).any(dim=dim + 1)


def _small(cells: list[tuple[int, int]], n: int = 4) -> dict[str, Any]:
    mask = torch.zeros(n, n, dtype=torch.bool)
    for i, j in cells:
        mask[i, j] = True
    return {"mask": mask, "size": 2}


add(
    Task(
        "2.4",
        "what the hardware has to compute",
        2,
        wanted_tiles,
        _cases,
        _spec,
        mistakes=(
            Mistake(
                "only tiles that are wanted whole",
                "you keep a tile where all of its scores are wanted. One wanted score is enough: the unit computes "
                "the whole tile for it.",
                (
                    lambda mask, size: _in_tiles(mask, size).flatten(2).all(-1),
                    lambda mask, size: _in_tiles(mask, size, True).flatten(2).all(-1),
                    lambda mask, size: _in_tiles(mask, size).all(3).any(2),
                    lambda mask, size: _in_tiles(mask, size).any(3).all(2),
                ),
            ),
            Mistake(
                "one score for the whole tile",
                "you look at one corner of each tile, and miss what is wanted inside it.",
                (
                    lambda mask, size: mask[::size, ::size].clone(),
                    lambda mask, size: _in_tiles(mask, size)[..., -1, -1].clone(),
                    lambda mask, size: _in_tiles(mask, size).diagonal(dim1=2, dim2=3).any(-1),
                ),
            ),
            Mistake(
                "a reshape that tears tiles apart",
                "you cut the numbers as they lie in memory, row after row; a tile lies in several rows. Its rows and "
                "its columns need a dimension each before you can swap them.",
                (_straight,),
            ),
            Mistake(
                "tiles cut with a stride",
                "your tile 0 holds the tokens 0, N, 2N and so on. A tile is a stretch of neighbours: which of the two "
                "numbers comes first in the shape?",
                (_strided,),
            ),
            Mistake(
                "the rest at the end lost",
                "where the tokens do not fill the last tile, you leave it out. What is wanted there has to be computed "
                "too.",
                (_cut,),
                small=_small([(0, 0), (2, 1), (2, 2)], 3),
            ),
            Mistake(
                "tiles of one axis only",
                "you cut the queries into tiles, or the keys, and leave the other axis as it was.",
                (lambda mask, size: _one_side(mask, size, 0), lambda mask, size: _one_side(mask, size, 1)),
            ),
            Mistake(
                "rows and columns swapped",
                "your grid is turned over: a row of it belongs to keys. A row is a tile of queries.",
                (lambda mask, size: wanted_tiles(mask.T, size),),
            ),
            Mistake(
                "scores counted",
                "you count the wanted scores of each tile, or take their share. Whether there is one is asked.",
                (
                    lambda mask, size: _in_tiles(mask, size).sum((2, 3)),
                    lambda mask, size: _in_tiles(mask, size).float().sum((2, 3)),
                    lambda mask, size: _in_tiles(mask, size).double().mean((2, 3)),
                ),
            ),
        ),
        hints=(
            "Take a mask of 4 by 4 and tiles of 2 on paper. Which scores belong to tile (0, 1), and when does it have "
            "to be computed?",
            "In two loops over the tiles, `mask[i : i + size, j : j + size].any()` is one answer, and a slice that "
            "goes over the end is cut by itself. Without loops, give rows and columns of tiles dimensions of their "
            "own.",
            "Lay the mask into a larger one of False whose sides are multiples of `size`. Then `.view(N, size, N, "
            "size)` has the tiles as dimensions 0 and 2, and `any` goes over the two others.",
        ),
        why="view splits the rows into tile and place, and the columns too; `any` over the places leaves the tiles. "
        "The work that the hardware does is `tiles.sum() * size**2`, however few scores are wanted: that is why "
        "BigBird's pattern is one of blocks.",
        also_right=(_slices, _pooled, _places),
        small=_small([(0, 3), (3, 2)]),
        look=TILES,
        lesson=LESSON,
        skill="a pattern and the hardware",
    )
)
