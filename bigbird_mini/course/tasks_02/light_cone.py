"""Task 2.3: who can have heard of a block after each layer."""

import torch
from torch import Tensor

from ..catalogue import Case, Mistake, Task, add
from .common import CONE, LESSON, apart, some_grid


def light_cone(grids: Tensor, source: int) -> Tensor:
    """Who can have heard of block source after each layer: grids bool (layers, N, N) -> bool (layers + 1, N)."""
    heard = torch.zeros(len(grids) + 1, grids.shape[1], dtype=torch.bool)  # (layers + 1, N)
    heard[0, source] = True
    for layer, grid in enumerate(grids):
        told = (grid & heard[layer]).any(dim=1)  # (N,): who reads a block that has heard
        heard[layer + 1] = heard[layer] | told  # nobody forgets: the residual connection
    return heard


def _cases() -> list[Case]:
    def case(words: str, grids: list[Tensor], source: int) -> Case:
        return Case(words, {"grids": torch.stack(grids), "source": source}, ("after layer", "block"))

    ahead = (apart(6) == 1) | (apart(6) == 0)
    return [
        case("With 8 blocks, a window of 3 in each of 4 layers, from block 2", [apart(8).abs() <= 1] * 4, 2),
        case(
            "With 9 blocks, steps of 1, 2 and 4, from block 0",
            [(apart(9) % s == 0) & (apart(9).abs() <= s) for s in (1, 2, 4)],
            0,
        ),
        case("With 6 blocks that read themselves and the next one, 3 layers, from block 3", [ahead] * 3, 3),
        case("With 7 blocks, 4 layers drawn by chance, from block 4", [some_grid(s, 7, 0.2) for s in range(4)], 4),
        case("With 9 blocks, 3 layers drawn by chance, from block 1", [some_grid(s, 9, 0.15) for s in range(7, 10)], 1),
        case("With 5 blocks that read nothing, from block 2", [torch.zeros(5, 5, dtype=torch.bool)] * 2, 2),
    ]


def _spec(grids: Tensor, source: int) -> Tensor:
    known = {source}
    rows = [known]
    for grid in grids:
        reads = grid.tolist()
        known = known | {i for i in range(len(reads)) if any(reads[i][j] for j in known)}
        rows.append(known)
    return torch.tensor([[block in row for block in range(grids.shape[1])] for row in rows])


def _matrices(grids: Tensor, source: int) -> Tensor:
    here = torch.eye(grids.shape[1], dtype=torch.float64)
    ways = here[source]
    rows = [ways]
    for grid in grids:
        ways = (grid + here) @ ways
        rows.append(ways)
    return torch.stack(rows) > 0


def _columns(grids: Tensor, source: int) -> Tensor:
    rows = [torch.arange(grids.shape[1]) == source]
    for grid in grids:
        rows.append(rows[-1] | grid[:, rows[-1]].any(dim=1))
    return torch.stack(rows)


def _backwards(grids: Tensor, source: int) -> Tensor:
    """From each reader down: whom can it have heard of?"""
    n = grids.shape[1]
    out = torch.zeros(len(grids) + 1, n, dtype=torch.bool)
    for layers in range(len(grids) + 1):
        for i in range(n):
            sources = {i}
            for grid in grids[:layers].flip(0):
                sources |= {j for reader in sources for j in grid[reader].nonzero().flatten().tolist()}
            out[layers, i] = source in sources
    return out


# ---------------------------------------------------------------- wrong answers


def _spread(grids: Tensor, source: int, told: object, forget: bool = False) -> Tensor:
    """told: (grid, heard so far (N,)) -> who hears in this layer (N,)."""
    rows = [torch.arange(grids.shape[1]) == source]
    for grid in grids:
        new = told(grid, rows[-1])
        rows.append(new if forget else rows[-1] | new)
    return torch.stack(rows)


def _turned(grid: Tensor, heard: Tensor) -> Tensor:
    return (grid & heard[:, None]).any(dim=0)


def _reads(grid: Tensor, heard: Tensor) -> Tensor:
    return (grid & heard).any(dim=1)


def _in_place(grid: Tensor, heard: Tensor) -> Tensor:
    heard = heard.clone()
    for i in range(len(heard)):
        heard[i] |= (grid[i] & heard).any()
    return heard


def _until_done(grid: Tensor, heard: Tensor) -> Tensor:
    for _ in range(len(heard)):
        heard = heard | _reads(grid, heard)
    return heard


def _numbers(grids: Tensor, source: int, stay: bool) -> Tensor:
    here = torch.eye(grids.shape[1])
    ways = here[source]
    rows = [ways]
    for grid in grids:
        ways = (grid.float() + stay * here) @ ways
        rows.append(ways)
    return torch.stack(rows)


def _chain() -> dict[str, object]:
    """Layer 1: block 1 reads block 0; layer 2: block 2 reads block 1."""
    grids = torch.zeros(2, 3, 3, dtype=torch.bool)
    grids[0, 1, 0] = grids[1, 2, 1] = True
    return {"grids": grids, "source": 0}


add(
    Task(
        "2.3",
        "the light cone",
        2,
        light_cone,
        _cases,
        _spec,
        mistakes=(
            Mistake(
                "the grid read the wrong way round",
                "in your cone news goes from a block to those that it reads. It is the reader who hears.",
                (lambda grids, source: _spread(grids, source, _turned),),
            ),
            Mistake(
                "blocks that forget",
                "a block that does not read itself loses what it knew. What it has is added to what it reads, in every "
                "layer.",
                (lambda grids, source: _spread(grids, source, _reads, forget=True),),
            ),
            Mistake(
                "only those who read the source itself",
                "you look for the readers of the source in each layer. From the second layer on, its readers have the "
                "news too, and can be read in their turn.",
                (lambda grids, source: _spread(grids, source, lambda grid, heard: grid[:, source]),),
            ),
            Mistake(
                "several steps in one layer",
                "in one of your layers news goes on and on: a block hears from one that has only just heard. In a "
                "layer all blocks read at once what was there before it.",
                (
                    lambda grids, source: _spread(grids, source, _in_place),
                    lambda grids, source: _spread(grids, source, _until_done),
                ),
                small={"grids": apart(4)[None].abs() <= 1, "source": 0},
            ),
            Mistake(
                "the layers in the wrong order",
                "the first grid is that of the lowest layer, which reads first.",
                (lambda grids, source: _spread(grids.flip(0), source, _reads),),
            ),
            Mistake(
                "one grid for all layers",
                "you use one and the same grid in every layer. Each layer has its own.",
                (
                    lambda grids, source: _spread(grids[:1].expand_as(grids), source, _reads),
                    lambda grids, source: _spread(grids[-1:].expand_as(grids), source, _reads),
                ),
            ),
            Mistake(
                "one tensor for all rows",
                "all your rows are the same: one tensor, changed in place from layer to layer, stands there again and "
                "again. Each row needs one of its own.",
                (
                    lambda grids, source: light_cone(grids, source)[-1:].repeat(len(grids) + 1, 1),
                    lambda grids, source: _spread(grids, source, _in_place)[-1:].repeat(len(grids) + 1, 1),
                ),
            ),
            Mistake(
                "no row for the start",
                "the first row belongs to the time before any layer: the source alone knows of itself.",
                (lambda grids, source: light_cone(grids, source)[1:],),
            ),
            Mistake(
                "the last row alone",
                "you give what is known at the end. A row is asked for after each layer, and one before the first.",
                (
                    lambda grids, source: light_cone(grids, source)[-1],
                    lambda grids, source: light_cone(grids, source)[-1:],
                ),
            ),
            Mistake(
                "numbers in place of True and False",
                "you count in how many ways the news arrives. Asked is whether it can arrive at all.",
                (
                    lambda grids, source: _numbers(grids, source, True),
                    lambda grids, source: _numbers(grids, source, False),
                    lambda grids, source: light_cone(grids, source).long(),
                ),
            ),
        ),
        hints=(
            "Take it row by row: row 0 is the source alone. Given the row of one layer, which blocks are new in the "
            "next one?",
            "`grid[i, j]` is True where block i reads block j. So block i hears something new where its row of the "
            "grid and the row of those who have heard share a True.",
            "`(grid & heard[layer]).any(dim=1)` says who is told in this layer: `heard[layer]` is laid over each row "
            "of the grid. Join that with those who knew already, with `|`.",
        ),
        why="News goes against the edges, from the block that is read to its reader, one edge in a layer, and the "
        "residual connection keeps what a block has. `graph.light_cone` does this for tokens, and the last cells "
        "of this exercise hold it against gradients.",
        also_right=(_matrices, _columns, _backwards),
        small=_chain(),
        look=CONE,
        lesson=LESSON,
        skill="reach over layers",
    )
)
