"""Task 2.1: a window with gaps as a grid of blocks."""

import torch
from torch import Tensor

from ..catalogue import Case, Mistake, Task, add
from .common import GAPS, LESSON, apart


def dilated_grid(n_blocks: int, width: int, step: int) -> Tensor:
    """Which key blocks each query block reads: bool (n_blocks, n_blocks), a window of width blocks, step apart."""
    i = torch.arange(n_blocks)
    far = (i[:, None] - i).abs()  # (N, N): how far apart two blocks are
    return (far % step == 0) & (far <= width // 2 * step)


def _cases() -> list[Case]:
    sizes = [(13, 3, 2), (13, 5, 3), (8, 3, 1), (12, 7, 2), (9, 5, 4), (5, 1, 3), (4, 9, 2), (6, 3, 8), (1, 3, 2)]
    return [
        Case(
            f"For {n} {'block' if n == 1 else 'blocks'}, width {width}, step {step}",
            {"n_blocks": n, "width": width, "step": step},
            ("query block", "key block"),
        )
        for n, width, step in sizes
    ]


def _spec(n_blocks: int, width: int, step: int) -> Tensor:
    """Each block that is read, one after another."""
    grid = [[False] * n_blocks for _ in range(n_blocks)]
    for i in range(n_blocks):
        for k in range(-(width - 1) // 2, (width - 1) // 2 + 1):
            if 0 <= i + k * step < n_blocks:
                grid[i][i + k * step] = True
    return torch.tensor(grid)


def _loop(n_blocks: int, width: int, step: int) -> Tensor:
    grid = torch.zeros(n_blocks, n_blocks, dtype=torch.bool)
    for i in range(n_blocks):
        for side in range(width // 2 + 1):
            for j in (i - side * step, i + side * step):
                if 0 <= j < n_blocks:
                    grid[i, j] = True
    return grid


def _diagonals(n_blocks: int, width: int, step: int) -> Tensor:
    grid = torch.eye(n_blocks)
    for side in range(step, min(width // 2 * step, n_blocks - 1) + 1, step):
        ones = torch.ones(n_blocks - side)
        grid = grid + torch.diag(ones, side) + torch.diag(ones, -side)
    return grid.bool()


def _scattered(n_blocks: int, width: int, step: int) -> Tensor:
    ends = width // 2 * step
    keys = torch.arange(n_blocks)[:, None] + step * torch.arange(width)  # (N, width), moved right by the ends
    grid = torch.zeros(n_blocks, n_blocks + 2 * ends, dtype=torch.bool).scatter(1, keys, True)
    return grid[:, ends : ends + n_blocks].contiguous()


# ---------------------------------------------------------------- wrong answers


def _half(half: int, n: int, step: int) -> Tensor:
    """Steps as far as half of them to each side."""
    return (apart(n) % step == 0) & (apart(n).abs() <= half * step)


def _one_side(n: int, width: int, step: int, sign: int, half: bool) -> Tensor:
    far = apart(n) * sign
    return (far % step == 0) & (far >= 0) & (far <= (width // 2 if half else width - 1) * step)


def _ring(n: int, width: int, step: int) -> Tensor:
    grid, i = torch.zeros(n, n, dtype=torch.bool), torch.arange(n)
    for k in range(-(width // 2), width // 2 + 1):
        grid[i, (i + k * step) % n] = True
    return grid


def _clamped(n: int, width: int, step: int) -> Tensor:
    grid, i = torch.zeros(n, n, dtype=torch.bool), torch.arange(n)
    for k in range(-(width // 2), width // 2 + 1):
        grid[i, (i + k * step).clamp(0, n - 1)] = True
    return grid


add(
    Task(
        "2.1",
        "a window with gaps",
        2,
        dilated_grid,
        _cases,
        _spec,
        mistakes=(
            Mistake(
                "the step left out",
                "your blocks read their next neighbours, whatever the step is. A step of 2 leaves every second one "
                "out.",
                (lambda n, w, s: apart(n).abs() <= w // 2,),
            ),
            Mistake(
                "the gaps filled in",
                "your window reaches as far as it should, and it reads everything on the way. Which of these blocks "
                "are a whole number of steps away?",
                (lambda n, w, s: apart(n).abs() <= w // 2 * s,),
            ),
            Mistake(
                "every step, as far as the text goes",
                "the gaps are right, and there is no end to them: the width says how many blocks are read.",
                (lambda n, w, s: apart(n) % s == 0,),
            ),
            Mistake(
                "the width taken for the span",
                "you look for steps inside a plain window of this width. The width counts the blocks that are read, "
                "not the stretch that they lie in.",
                (
                    lambda n, w, s: (apart(n) % s == 0) & (apart(n).abs() <= w // 2),
                    lambda n, w, s: (apart(n) % s == 0) & (apart(n).abs() <= w),
                ),
                small={"n_blocks": 7, "width": 3, "step": 4},
            ),
            Mistake(
                "the step taken for the gap",
                "between two blocks that are read you leave out as many as the step says. With step 1 nothing is to "
                "be left out.",
                (lambda n, w, s: _half(w // 2, n, s + 1),),
                small={"n_blocks": 4, "width": 3, "step": 1},
            ),
            Mistake(
                "counted from the start of the text",
                "you keep the blocks whose own number is a multiple of the step, the same ones for everybody. The "
                "steps are counted from the block that reads.",
                (
                    lambda n, w, s: (torch.arange(n) % s == 0) & (apart(n).abs() <= w // 2 * s),
                    lambda n, w, s: (
                        ((torch.arange(n) % s == 0) & (apart(n).abs() <= w // 2 * s)) | torch.eye(n, dtype=torch.bool)
                    ),
                ),
            ),
            Mistake(
                "the width counted for each side",
                "your window reads too many blocks. The width counts all of them, the block itself too; how many are "
                "left for one side?",
                (
                    lambda n, w, s: _half(w, n, s),
                    lambda n, w, s: _half(w - 1, n, s),
                    lambda n, w, s: _half((w + 1) // 2, n, s),
                ),
            ),
            Mistake(
                "a window to one side only",
                "your blocks look back, or ahead, but not both ways. The block itself is the middle of its window.",
                tuple(
                    lambda n, w, s, sign=sign, half=half: _one_side(n, w, s, sign, half)
                    for sign in (1, -1)
                    for half in (True, False)
                ),
            ),
            Mistake(
                "a block that does not read itself",
                "the steps to either side are there, and the diagonal is missing.",
                (lambda n, w, s: _half(w // 2, n, s) & (apart(n) != 0),),
            ),
            Mistake(
                "a window that wraps round the ends",
                "a step over the end of the text comes back at the other end, as if the text were a ring. What lies "
                "outside the text is not read.",
                (_ring,),
            ),
            Mistake(
                "steps that stop at the edge",
                "a step over the end of the text lands on the first or last block. What lies outside the text is not "
                "read; it is not moved to the edge.",
                (_clamped,),
            ),
        ),
        hints=(
            "Draw it for 6 blocks, width 3, step 2. Which cells of row 0, row 2 and row 5 are read?",
            "With `i = torch.arange(n_blocks)`, the grid `(i[:, None] - i).abs()` says how far apart two blocks are. "
            "Two questions decide about a cell: is that a whole number of steps, and is it not too many?",
            "A whole number of steps leaves no remainder (`%`). To each side there are `width // 2` steps, so the last "
            "block that is read is `width // 2 * step` away. Join the two grids with `&`.",
        ),
        why="One distance answers both questions, and it knows no ring: nothing wraps round the ends. With step 1 it "
        "is the plain window. `BlockPattern.dilated(N, width, step)` is the same grid.",
        also_right=(_loop, _diagonals, _scattered),
        small={"n_blocks": 5, "width": 3, "step": 2},
        look=GAPS,
        lesson=LESSON,
        skill="windows and dilation",
    )
)
