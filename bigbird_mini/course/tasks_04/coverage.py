"""Task 4.3: what share of the pairs have met after each layer, where every layer has its own pattern."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..catalogue import Case, Mistake, Task, add
from .common import LAYERS, LESSON, SHRINKS, band, drawn, with_globals


def coverage(grids: Tensor) -> Tensor:
    """Share of pairs that have met after each layer: grids bool (L, N, N) -> float64 (L,)."""
    heard = torch.eye(grids.shape[-1], dtype=torch.float64)  # (N, N): each knows itself
    shares = []
    for grid in grids:  # the lowest layer first
        told = grid.double() @ heard  # (N, N): what those whom i reads have heard
        heard = ((told + heard) > 0).double()  # and i forgets nothing
        shares.append(heard.mean())
    return torch.stack(shares)


def _cases() -> list[Case]:
    fresh = torch.stack([drawn(9, 2, seed) for seed in range(4)])
    wide = torch.stack([band(12, 3), band(12, 1), with_globals(band(12, 1), 4), band(12, 5)])
    one_way = torch.zeros(6, 6, dtype=torch.bool)
    one_way[range(5), range(1, 6)] = True
    dilated = torch.stack([_taps(16, step) for step in (1, 2, 4)])
    cases = [
        ("For 4 layers in which each of 9 blocks reads two others at random", fresh),
        ("For windows of different widths, and one layer with a global block", wide),
        ("For 3 layers in which block i reads block i + 1 only", one_way.expand(3, 6, 6).contiguous()),
        ("For a dilated window, twice as wide in each layer", dilated),
        ("For the same in the opposite order", dilated.flip(0)),
        ("For 3 layers that read nothing", torch.zeros(3, 5, 5, dtype=torch.bool)),
        ("For one layer that reads everything", torch.ones(1, 4, 4, dtype=torch.bool)),
    ]
    return [Case(words, {"grids": grids}, ("layer",), tolerance=1e-6) for words, grids in cases]


def _taps(n: int, step: int) -> Tensor:
    """Each block reads itself and the one `step` before it."""
    i = torch.arange(n)
    return (i[:, None] - i == step) | (i[:, None] == i)


def _spec(grids: Tensor) -> Tensor:
    """With a set for each block."""
    n = grids.shape[-1]
    heard = [{i} for i in range(n)]
    shares = []
    for grid in grids.tolist():
        before = [set(known) for known in heard]
        for i in range(n):
            for j in range(n):
                if grid[i][j]:
                    heard[i] |= before[j]
        shares.append(sum(len(known) for known in heard) / n**2)
    return torch.tensor(shares, dtype=torch.float64)


def _paths(grids: Tensor) -> Tensor:
    """With the number of ways, of which there is one at least."""
    n = grids.shape[-1]
    ways, shares = torch.eye(n).double(), []
    for grid in grids:
        ways = (grid | torch.eye(n, dtype=torch.bool)).double() @ ways
        shares.append((ways > 0).double().mean())
    return torch.stack(shares)


def _einsum(grids: Tensor) -> Tensor:
    heard = torch.eye(grids.shape[-1], dtype=torch.bool)
    out = torch.zeros(len(grids), dtype=torch.float64)
    for layer, grid in enumerate(grids):
        heard = heard | (torch.einsum("ij,jk->ik", grid.float(), heard.float()) > 0.5)
        out[layer] = heard.sum() / heard.numel()
    return out


def _gather(grids: Tensor) -> Tensor:
    heard = torch.eye(grids.shape[-1], dtype=torch.bool)
    shares = []
    for grid in grids:
        heard = torch.stack([known | heard[row].any(0) for known, row in zip(heard, grid, strict=True)])
        shares.append(int(heard.sum()) / heard.numel())
    return torch.tensor(shares, dtype=torch.float64)


# ---------------------------------------------------------------- wrong answers


def _stepping(step: Callable[[Tensor, Tensor], Tensor], share: Callable[[Tensor], Tensor] = lambda h: h.mean()) -> Any:
    """A wrong answer. step: (grid, heard), both float64 (N, N) -> heard after the layer; share: what is kept of it."""

    def wrong(grids: Tensor) -> Tensor:
        heard = torch.eye(grids.shape[-1]).double()
        shares = []
        for grid in grids:
            heard = step(grid.double(), heard)
            shares.append(share(heard))
        return torch.stack(shares)

    return wrong


def _right(grid: Tensor, heard: Tensor) -> Tensor:
    return ((grid @ heard + heard) > 0).double()


def _in_place(grid: Tensor, heard: Tensor) -> Tensor:
    heard = heard.clone()
    for i in range(len(grid)):
        heard[i] = ((grid[i] @ heard + heard[i]) > 0).double()
    return heard


def _all_in_each(grids: Tensor) -> Tensor:
    return coverage(grids.any(0).expand_as(grids))


def _without_itself(heard: Tensor) -> Tensor:
    n = len(heard)
    return (heard.sum() - n) / max(n * (n - 1), 1)


_TWO = torch.tensor([[[0, 1, 0], [0, 0, 1], [0, 0, 0]], [[0, 0, 0], [0, 0, 0], [1, 1, 0]]], dtype=torch.bool)
_ORDER = torch.tensor([[[1, 0, 0], [1, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 1, 0], [0, 1, 1]]], dtype=torch.bool)
_CHAIN = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0]], dtype=torch.bool).expand(2, 3, 3).contiguous()
add(
    Task(
        "4.3",
        "coverage layer by layer",
        2,
        coverage,
        _cases,
        _spec,
        mistakes=(
            Mistake(
                "blocks that forget",
                "a block that does not read itself loses what it knew, and the share can even fall. The residual "
                "connection carries it on into the next layer.",
                (
                    _stepping(lambda grid, heard: (grid @ heard > 0).double()),
                    _stepping(lambda grid, heard: (heard @ grid > 0).double()),
                ),
                look=SHRINKS,
            ),
            Mistake(
                "layers in the wrong order",
                "the last layer reads first. A layer reads what those below it have made, and the first grid of the "
                "list is the lowest.",
                (
                    _stepping(lambda grid, heard: ((heard @ grid + heard) > 0).double()),
                    lambda grids: coverage(grids.flip(0)),
                ),
                small={"grids": _ORDER},
            ),
            Mistake(
                "one layer's pattern for all",
                "you go on with the pattern of one layer. Here every layer has its own.",
                (
                    lambda grids: coverage(grids[:1].expand_as(grids)),
                    lambda grids: coverage(grids[-1:].expand_as(grids)),
                ),
            ),
            Mistake(
                "direct edges only",
                "you count the pairs in which one block reads the other in some layer. News that was handed on by "
                "a third block is missing.",
                (
                    lambda grids: (grids.cumsum(0) + torch.eye(grids.shape[-1]) > 0).double().mean((1, 2)),
                    lambda grids: (grids.cumsum(0) > 0).double().mean((1, 2)),
                    lambda grids: grids.double().mean((1, 2)),
                ),
                small={"grids": _CHAIN},
            ),
            Mistake(
                "every layer with the edges of all",
                "edges of a later layer are used before it is their turn: you join the patterns of all layers to one.",
                (_all_in_each,),
            ),
            Mistake(
                "ways counted, not pairs",
                "a pair that is joined by several ways counts several times, so that the share may pass 1.",
                (
                    _stepping(lambda grid, heard: grid @ heard + heard),
                    _stepping(lambda grid, heard: grid @ heard),
                ),
            ),
            Mistake(
                "several steps in one layer",
                "a block reads what another has heard in this very layer. All blocks read at the same time, and see "
                "what was there before.",
                (_stepping(_in_place),),
                small={"grids": _CHAIN},
            ),
            Mistake(
                "one layer late",
                "your first number is that of no layer at all, in which every block knows itself only.",
                (lambda grids: torch.cat([torch.ones(1).double() / grids.shape[-1], coverage(grids)])[:-1],),
            ),
            Mistake(
                "a block and itself left out",
                "all N² pairs count, those of a block with itself among them.",
                (_stepping(_right, _without_itself),),
            ),
            Mistake(
                "a count, or percent",
                "the numbers grow in the right way, and they are no share: a share of all pairs is 1, not 100, and not "
                "the number of pairs.",
                (
                    _stepping(_right, lambda heard: heard.sum()),
                    _stepping(_right, lambda heard: 100 * heard.mean()),
                    _stepping(_right, lambda heard: heard.sum() / len(heard)),
                ),
            ),
        ),
        hints=(
            "Keep a table `heard` (N, N): True where block i has heard of block j. What does it hold before the first "
            "layer, and what share is that?",
            "In a layer, block i hears all that the blocks it reads have heard. With numbers 0 and 1 that is one "
            "matrix product, the grid times `heard`: is the result above 0?",
            "Add what i has heard before to what it is told, make 0 and 1 of it, take the mean, and go on with the "
            "next grid of the list.",
        ),
        why="A layer adds to what is known and takes nothing away, so the share can never fall, whatever is drawn: no "
        "dead end comes from drawing anew. `bigbird_mini.graph.coverage` takes `p.for_layers(L)`, fresh random blocks "
        "in each layer, or one pattern and the number of layers.",
        also_right=(_paths, _einsum, _gather),
        small={"grids": _TWO},
        look=LAYERS,
        lesson=LESSON,
        skill="coverage after several layers",
    )
)
