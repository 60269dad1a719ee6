"""Task 4.2: how many layers news needs from each block to each other."""

from collections.abc import Iterator

import torch
from torch import Tensor

from ..catalogue import Case, Mistake, Task, add
from .common import BY_HAND, HOPS, LESSON, band, drawn, with_globals


def hops(grid: Tensor) -> Tensor:
    """Layers until i has heard of j, -1 for never: grid bool (N, N) -> int64 (N, N)."""
    n = len(grid)
    out = torch.full((n, n), -1)
    for source in range(n):
        out[source, source] = layer = 0
        newest = [source]  # who has heard in the last layer
        while newest:
            layer += 1
            readers = grid[:, newest].any(1) & (out[:, source] < 0)  # (N,): they hear it now
            out[readers, source] = layer
            newest = readers.nonzero().flatten().tolist()
    return out


def _cases() -> list[Case]:
    axes = ("query block", "key block")
    one_way = torch.zeros(5, 5, dtype=torch.bool)
    one_way[[0, 1, 2, 3], [1, 2, 3, 4]] = True  # each reads the next one only, and nobody itself
    island = band(7, 3)
    island[3:, :3] = island[:3, 3:] = False
    return [
        Case("For a chain in which block i reads block i + 1 only", {"grid": one_way}, axes),
        Case("For two halves that do not read each other", {"grid": island}, axes),
        Case("For 9 blocks, each reading two drawn at random", {"grid": drawn(9, 2, 4)}, axes),
        Case("For a window of 3 over 13 blocks", {"grid": band(13, 3)}, axes),
        Case("For a window of 3 and one global block", {"grid": with_globals(band(8, 3), 2)}, axes),
        Case(
            "For 20 blocks, a window of 3 and one random block in a row", {"grid": band(20, 3) | drawn(20, 1, 1)}, axes
        ),
        Case("For 4 blocks that read nothing", {"grid": torch.zeros(4, 4, dtype=torch.bool)}, axes),
        Case("For one block", {"grid": torch.ones(1, 1, dtype=torch.bool)}, axes),
    ]


def _spec(grid: Tensor) -> Tensor:
    """Shorter and shorter ways: i to j through k, until nothing changes."""
    n, never = len(grid), 10**6
    far = [[0 if i == j else 1 if grid[i, j] else never for j in range(n)] for i in range(n)]
    for k in range(n):
        for i in range(n):
            for j in range(n):
                far[i][j] = min(far[i][j], far[i][k] + far[k][j])
    return torch.tensor([[x if x < never else -1 for x in row] for row in far])


def _matrix_power(grid: Tensor) -> Tensor:
    n = len(grid)
    step = (grid | torch.eye(n, dtype=torch.bool)).double()
    heard = torch.eye(n).double()
    late = torch.zeros(n, n, dtype=torch.int64)
    for _ in range(n):
        late += heard == 0
        heard = (step @ heard > 0).double()
    return torch.where(heard > 0, late, -1)


def _queue(grid: Tensor) -> Tensor:
    """From each reader down to what it reads."""
    out = torch.full(grid.shape, -1)
    for i in range(len(grid)):
        queue = [(i, 0)]
        for block, far in queue:
            if out[i, block] < 0:
                out[i, block] = far
                queue += [(j, far + 1) for j in grid[block].nonzero().flatten().tolist()]
    return out


def _sets(grid: Tensor) -> Tensor:
    n = len(grid)
    reads = [set(row.nonzero().flatten().tolist()) for row in grid]
    heard, out = [{i} for i in range(n)], torch.full((n, n), -1)
    for layer in range(n):
        for i in range(n):
            for j in heard[i]:
                if out[i, j] < 0:
                    out[i, j] = layer
        heard = [heard[i].union(*(heard[k] for k in reads[i])) for i in range(n)]
    return out


# ---------------------------------------------------------------- wrong answers


def _in_place(grid: Tensor) -> Tensor:
    """News that a block heard in this layer is read in this layer by the blocks after it."""
    n = len(grid)
    heard, out = torch.eye(n, dtype=torch.bool), torch.full((n, n), -1)
    out.fill_diagonal_(0)
    for layer in range(1, n + 1):
        for i in range(n):
            heard[i] |= heard[grid[i]].any(0)
        out[heard & (out < 0)] = layer
    return out


def _first_way(grid: Tensor) -> Tensor:
    """The length of the way found first by going ever deeper."""
    out = torch.full(grid.shape, -1)

    def deeper(source: int, block: int, far: int) -> None:
        out[block, source] = far
        for reader in grid[:, block].nonzero().flatten().tolist():
            if out[reader, source] < 0:
                deeper(source, reader, far + 1)

    for source in range(len(grid)):
        deeper(source, source, 0)
    return out


def _walks(grid: Tensor) -> Iterator[Tensor]:
    """Where a walk of exactly 1, 2, 3 ... steps leads."""
    walk = step = grid.double()
    for _ in range(len(grid)):
        yield walk > 0
        walk = (walk @ step > 0).double()


def _as_walks(grid: Tensor) -> Tensor:
    """The shortest walk with at least one step: a block that reads itself is 1 away from itself."""
    out = torch.full(grid.shape, -1)
    for length, there in enumerate(_walks(grid), 1):
        out[there & (out < 0)] = length
    return out


_RING = torch.tensor([[0, 1, 0], [0, 0, 1], [0, 0, 0]], dtype=torch.bool)
_SHORT = torch.tensor([[0, 1, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]], dtype=torch.bool)
_LONG = band(12, 3)
add(
    Task(
        "4.2",
        "hops",
        2,
        hops,
        _cases,
        _spec,
        mistakes=(
            Mistake(
                "news that goes the wrong way",
                "your table is turned: rows and columns have changed places. `grid[i, j]` says that i reads j, so news "
                "goes from j to i; and the row of the result is the block that hears.",
                (lambda grid: hops(grid).T, lambda grid: hops(grid.T)),
            ),
            Mistake(
                "edges used both ways",
                "news also goes from a reader to what it reads. Whoever is read learns nothing by it.",
                (lambda grid: hops(grid | grid.T),),
            ),
            Mistake(
                "a block that must first hear of itself",
                "the diagonal is not 0. What a block knows at the start it knows after no layer at all, whether it "
                "reads itself or not.",
                (
                    _as_walks,
                    lambda grid: hops(grid) + torch.eye(len(grid), dtype=torch.int64),
                    lambda grid: hops(grid) - torch.eye(len(grid), dtype=torch.int64),
                ),
            ),
            Mistake(
                "blocks counted, not steps",
                "every number is one too large: a way over three blocks has two steps.",
                (lambda grid: hops(grid) + (hops(grid) >= 0),),
            ),
            Mistake(
                "one step too few",
                "blocks that are read directly are one layer away, and you have 0 for them.",
                (lambda grid: hops(grid) - (hops(grid) > 0).long(),),
            ),
            Mistake(
                "news that never comes, given a number",
                "where no way leads, another number than the one asked for stands in the table.",
                tuple(
                    lambda grid, number=number: hops(grid).masked_fill(hops(grid) < 0, number(len(grid)))
                    for number in (lambda n: 0, lambda n: n, lambda n: n + 1, lambda n: 10**9, lambda n: 2**63 - 1)
                ),
            ),
            Mistake(
                "several steps in one layer",
                "news that a block hears in this layer is passed on in the same layer by the blocks after it. All "
                "blocks read at the same time: they see what the others had before.",
                (_in_place,),
                small={"grid": _RING.T.contiguous()},
            ),
            Mistake(
                "the first way, not the shortest",
                "some numbers are too large: you go as deep as possible before you look to the side. Which order finds "
                "all blocks of one distance before the first of the next?",
                (_first_way,),
                small={"grid": _SHORT.T.contiguous()},
                look=BY_HAND,
            ),
            Mistake(
                "stopped too early",
                "far blocks are missing: in some patterns news needs as many layers as there are blocks, less one.",
                tuple(
                    lambda grid, most=most: hops(grid).masked_fill(hops(grid) > most(len(grid)), -1)
                    for most in (
                        lambda n: 1,
                        lambda n: 2,
                        lambda n: 3,
                        lambda n: 10,
                        lambda n: n.bit_length(),
                        lambda n: n - 2,
                    )
                ),
                small={"grid": _LONG},
            ),
        ),
        hints=(
            "Follow one block's news: who has heard after no layer, after one, after two? The lesson does it with a "
            "set. Then do it for every block.",
            "News of `source` goes to the blocks i with `grid[i, source]`: a column of the grid, not a row. Keep a "
            "list of those who heard in the last layer; their readers are next.",
            "Fill the table with -1 at first and write 0 on the diagonal. In layer l, write l for the blocks that read "
            "one of the newest and still have -1; stop when there are none.",
        ),
        why="Whoever hears in a layer is written down once, in the layer in which it first hears, so no number is too "
        "large; and a block looks only at what was known before the layer. This is a breadth-first search. "
        "`bigbird_mini.graph.hops` does it for all blocks at once, with a bit for each pair.",
        also_right=(_matrix_power, _queue, _sets),
        small={"grid": _RING},
        look=HOPS,
        lesson=LESSON,
        skill="hops in the graph of a pattern",
    )
)
