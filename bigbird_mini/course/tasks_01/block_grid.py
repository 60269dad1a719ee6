"""Task 1.4: a window and global blocks as a grid of blocks."""

import torch
from torch import Tensor

from ..catalogue import Case, Mistake, Task, add
from .common import LESSON, PATTERN


def block_grid(n_blocks: int, width: int, global_blocks: list[int]) -> Tensor:
    """Which key blocks each query block reads: bool (n_blocks, n_blocks), a window and global blocks."""
    i = torch.arange(n_blocks)
    grid = (i[:, None] - i[None, :]).abs() <= width // 2  # (N, N): as far as half the width to each side
    for g in global_blocks:  # a negative number counts from the end, as an index does
        grid[g, :] = True  # a global block reads every block
        grid[:, g] = True  # and every block reads it
    return grid


def _cases() -> list[Case]:
    sizes = [
        (7, 5, []),
        (6, 1, []),
        (8, 3, [3]),
        (9, 3, [0, -1]),
        (7, 3, [-2, 1]),
        (6, 7, [0]),
        (4, 9, []),
        (1, 3, [0, -1]),
    ]
    axes = ("query block", "key block")
    return [
        Case(
            f"For {n} blocks, width {width}, global blocks {globals_ or 'none'}",
            {"n_blocks": n, "width": width, "global_blocks": globals_},
            axes,
        )
        for n, width, globals_ in sizes
    ]


def _spec(n_blocks: int, width: int, global_blocks: list[int]) -> Tensor:
    """Each cell by itself."""
    chosen = [g if g >= 0 else n_blocks + g for g in global_blocks]

    def reads(i: int, j: int) -> bool:
        return i in chosen or j in chosen or -(width - 1) / 2 <= j - i <= (width - 1) / 2

    return torch.tensor([[reads(i, j) for j in range(n_blocks)] for i in range(n_blocks)])


def _loop(n_blocks: int, width: int, global_blocks: list[int]) -> Tensor:
    grid = torch.zeros(n_blocks, n_blocks, dtype=torch.bool)
    every = range(n_blocks)
    wide = [every[g] for g in global_blocks]
    for row in every:
        for column in every:
            grid[row, column] = abs(row - column) <= (width - 1) // 2 or row in wide or column in wide
    return grid


def _bands(n_blocks: int, width: int, global_blocks: list[int]) -> Tensor:
    half = width // 2
    band = torch.ones(n_blocks, n_blocks).tril(half).triu(-half)
    row = torch.zeros(n_blocks)
    row[global_blocks] = 1
    return band + row + row[:, None] > 0


def _gather(n_blocks: int, width: int, global_blocks: list[int]) -> Tensor:
    grid = torch.zeros(n_blocks, n_blocks + width, dtype=torch.bool)
    keys = torch.arange(n_blocks)[:, None] + torch.arange(width)  # a window each, moved right by half of it
    grid.scatter_(1, keys, True)
    grid = grid[:, width // 2 : width // 2 + n_blocks].clone()
    grid[global_blocks] = True
    grid[:, global_blocks] = True
    return grid


def _window(n: int, width: int) -> Tensor:
    return _distance(n).abs() <= width // 2


def _distance(n: int) -> Tensor:
    """(n, n): the number of the key block less that of the query block."""
    i = torch.arange(n)
    return i[None, :] - i[:, None]


def _with_globals(grid: Tensor, rows: list[int], columns: list[int]) -> Tensor:
    grid = grid.clone()
    grid[rows] = True
    grid[:, columns] = True
    return grid


def _both_global(n_blocks: int, width: int, global_blocks: list[int]) -> Tensor:
    chosen = torch.zeros(n_blocks, dtype=torch.bool)
    chosen[global_blocks] = True
    return _window(n_blocks, width) | (chosen[:, None] & chosen)


_GLOBAL = {"n_blocks": 5, "width": 1, "global_blocks": [1, -1]}
add(
    Task(
        "1.4",
        "a window and global blocks",
        2,
        block_grid,
        _cases,
        _spec,
        mistakes=(
            Mistake(
                "a window that wraps round the ends",
                "the first block reads the last one, as if the text were a ring. A text has two ends, and a window "
                "that reaches over an end is simply cut there.",
                (
                    lambda n, w, g: _with_globals((_distance(n) + w // 2) % n < w, g, g),
                    lambda n, w, g: _with_globals((_distance(n) % n <= w // 2) | (-_distance(n) % n <= w // 2), g, g),
                ),
            ),
            Mistake(
                "a window off by one",
                "the window is too wide or too narrow. The width counts the block itself; how many are then left for "
                "each side?",
                tuple(
                    lambda n, w, g, half=half: _with_globals(_distance(n).abs() <= half(w), g, g)
                    for half in (lambda w: w, lambda w: w - 1, lambda w: w // 2 + 1, lambda w: w // 2 - 1)
                ),
            ),
            Mistake(
                "a window to one side only",
                "your blocks look back, or ahead, but not both ways. The block itself is the middle of its window.",
                (
                    lambda n, w, g: _with_globals((_distance(n) <= 0) & (_distance(n) >= -(w // 2)), g, g),
                    lambda n, w, g: _with_globals((_distance(n) >= 0) & (_distance(n) <= w // 2), g, g),
                    lambda n, w, g: _with_globals((_distance(n) <= 0) & (_distance(n) > -w), g, g),
                    lambda n, w, g: _with_globals((_distance(n) >= 0) & (_distance(n) < w), g, g),
                ),
            ),
            Mistake(
                "a block that does not read itself",
                "the neighbours are there, and the diagonal is missing.",
                (lambda n, w, g: _with_globals(_window(n, w) & (_distance(n) != 0), g, g),),
            ),
            Mistake(
                "global rows without global columns",
                "your global blocks read everything, and not everybody reads them. Which of the two makes a message "
                "from one end of the text reach the other in two steps? Both are needed.",
                (lambda n, w, g: _with_globals(_window(n, w), g, []),),
                small=_GLOBAL,
            ),
            Mistake(
                "global columns without global rows",
                "everybody reads your global blocks, and they themselves read only their window.",
                (lambda n, w, g: _with_globals(_window(n, w), [], g),),
                small=_GLOBAL,
            ),
            Mistake(
                "the first blocks in place of those named",
                "you make as many blocks global as there are in the list, counted from the start. The list says which "
                "ones.",
                (lambda n, w, g: _with_globals(_window(n, w), list(range(len(g)))[:n], list(range(len(g)))[:n]),),
                small=_GLOBAL,
            ),
            Mistake(
                "negative numbers lost",
                "the blocks that are counted from the end are not there. What does an index of -1 mean in Python?",
                (lambda n, w, g: _with_globals(_window(n, w), [x for x in g if x >= 0], [x for x in g if x >= 0]),),
                small=_GLOBAL,
            ),
            Mistake(
                "globals that read each other only",
                "a cell is set where row and column are both global. One of them is enough.",
                (_both_global,),
                small=_GLOBAL,
            ),
        ),
        hints=(
            "Begin with the window alone, and draw it for 6 blocks and width 3: which cells of row 0, row 1 and row 5?",
            "With `i = torch.arange(n_blocks)`, the grid `i[:, None] - i[None, :]` says how far apart two blocks are, "
            "and a comparison makes a bool grid of it.",
            "For each global block set one whole row and one whole column; an index of -1 is the last of them already.",
        ),
        why="A distance and a comparison make the window, and nothing wraps, because distances do not. A global block "
        "is a row and a column: it reads everything and is read by all. `BlockPattern.window(N, width) | "
        "BlockPattern.global_(N, blocks)` is the same grid.",
        also_right=(_loop, _bands, _gather),
        small={"n_blocks": 4, "width": 3, "global_blocks": []},
        look=PATTERN,
        lesson=LESSON,
        skill="a pattern as a grid of blocks",
        large=lambda: {"n_blocks": 128, "width": 5, "global_blocks": [0, -1]},
        distractors=("grid = (i[:, None] - i[None, :]).abs() <= width", "grid[g, g] = True"),
    )
)
