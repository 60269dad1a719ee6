"""Task 3.1: the blocks of chosen tokens made global."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bigbird_mini.pattern import BlockPattern

from ..catalogue import Case, Mistake, Task, add
from .common import HALVES, LESSON, TOKENS


def with_global_tokens(grid: Tensor, tokens: list[int], block_size: int) -> Tensor:
    """The grid (N, N), and besides it the blocks of these tokens global: a new bool tensor (N, N)."""
    n_blocks = len(grid)
    grid = grid.clone()  # the caller still needs the old one
    for token in tokens:
        block = token % (n_blocks * block_size) // block_size  # -1 is the last token of the text
        grid[block, :] = True  # the block reads everything
        grid[:, block] = True  # and everything reads the block
    return grid


def _window(n_blocks: int, width: int) -> Tensor:
    """(N, N) bool; width 0 is no window."""
    i = torch.arange(n_blocks)
    return (i[:, None] - i).abs() < (width + 1) / 2 if width else torch.zeros(n_blocks, n_blocks, dtype=torch.bool)


def _cases() -> list[Case]:
    sizes = [(9, 2, 3, [5, -3]), (7, 3, 1, [-1, 4]), (6, 4, 0, [9, 11, -6]), (5, 1, 3, [1, -2]), (4, 3, 3, [])]
    return [
        Case(
            f"For {n} blocks of {b}, {f'a window of {width}' if width else 'an empty grid'}, tokens {tokens or 'none'}",
            {"grid": _window(n, width), "tokens": tokens, "block_size": b},
            ("query block", "key block"),
        )
        for n, b, width, tokens in sizes
    ]


def _spec(grid: Tensor, tokens: list[int], block_size: int) -> Tensor:
    """Each cell by itself, from the tokens of its two blocks."""
    n = len(grid) * block_size
    asked = [list(range(n))[token] for token in tokens]

    def holds(block: int) -> bool:
        return any(block * block_size <= token < (block + 1) * block_size for token in asked)

    rows = range(len(grid))
    return torch.tensor([[bool(grid[i, j]) or holds(i) or holds(j) for j in rows] for i in rows])


def _from_library(grid: Tensor, tokens: list[int], block_size: int) -> Tensor:
    return grid | BlockPattern.global_tokens(len(grid), tokens, block_size).grid()[0]


def _from_tokens(grid: Tensor, tokens: list[int], block_size: int) -> Tensor:
    asked = torch.zeros(len(grid) * block_size, dtype=torch.bool)
    asked[tokens] = True
    chosen = asked.view(-1, block_size).any(1)
    return grid | chosen[:, None] | chosen[None, :]


def _matmul(grid: Tensor, tokens: list[int], block_size: int) -> Tensor:
    every = range(len(grid) * block_size)
    chosen = torch.tensor([float(any(every[t] // block_size == i for t in tokens)) for i in range(len(grid))])
    ones = torch.ones(len(grid))
    return (grid.float() + torch.outer(chosen, ones) + torch.outer(ones, chosen)) > 0.5


# ---------------------------------------------------------------- wrong answers


def _blocks(block: Callable[[int, int, int], int], rows: bool = True, columns: bool = True) -> Callable[..., Tensor]:
    """Wrong answers that take another block for a token: block(token, block_size, n_blocks)."""

    def wrong(grid: Tensor, tokens: list[int], block_size: int) -> Tensor:
        grid = grid.clone()
        for token in tokens:
            g = block(token, block_size, len(grid))
            if rows:
                grid[g, :] = True
            if columns:
                grid[:, g] = True
        return grid

    return wrong


def _right(token: int, b: int, n: int) -> int:
    return token % (n * b) // b


def _both(grid: Tensor, tokens: list[int], block_size: int) -> Tensor:
    chosen = torch.zeros(len(grid), dtype=torch.bool)
    chosen[[_right(token, block_size, len(grid)) for token in tokens]] = True
    return grid | (chosen[:, None] & chosen)


add(
    Task(
        "3.1",
        "chosen tokens made global",
        1,
        with_global_tokens,
        _cases,
        _spec,
        mistakes=(
            Mistake(
                "token numbers used as block numbers",
                "you make block 5 global where token 5 was asked for. In which block does that token stand?",
                (_blocks(lambda t, b, n: t), _blocks(lambda t, b, n: t % n)),
            ),
            Mistake(
                "rows without columns",
                "your global blocks read everything, and nobody reads them: a reader who tells nobody.",
                (_blocks(_right, columns=False),),
                look=HALVES,
            ),
            Mistake(
                "columns without rows",
                "everybody reads your global blocks, and they read no more than before: a notice board on which "
                "nobody writes.",
                (_blocks(_right, rows=False),),
                look=HALVES,
            ),
            Mistake(
                "globals that read each other only",
                "a cell is set where row and column are both global. One of them is enough.",
                (_both,),
                look=HALVES,
            ),
            Mistake(
                "negative positions cut towards zero",
                "token -1 is the last one, and half of -1 is no block: int() cuts -0.5 to 0 and -1.5 to -1. Of a "
                "negative number, what is the position from the start?",
                (
                    _blocks(lambda t, b, n: int(t / b)),
                    _blocks(lambda t, b, n: math.trunc(t / b)),
                    _blocks(lambda t, b, n: -(-t // b) if t < 0 else t // b),
                ),
            ),
            Mistake(
                "negative positions lost",
                "the tokens that are counted from the end are not there. What does an index of -1 mean in Python?",
                (
                    lambda grid, tokens, b: with_global_tokens(grid, [t for t in tokens if t >= 0], b),
                    _blocks(lambda t, b, n: abs(t) // b),
                ),
            ),
            Mistake(
                "blocks and tokens mixed in counting from the end",
                "to a negative token you add the number of blocks. A token is counted from the end of how many tokens?",
                (_blocks(lambda t, b, n: (t % n) // b if t < 0 else t // b),),
            ),
            Mistake(
                "the place inside the block",
                "% gives where in its block a token stands. Which operator says how many whole blocks lie before it?",
                (_blocks(lambda t, b, n: t % b),),
            ),
            Mistake(
                "rounded up",
                "you take the next block where the division leaves a rest. A token stands in the block that begins "
                "before it, or with it.",
                (_blocks(lambda t, b, n: min(-(-(t % (n * b)) // b), n - 1)),),
            ),
            Mistake(
                "the old grid lost",
                "the globals are right, and what the grid held before is gone: they are to come besides it.",
                (lambda grid, tokens, b: with_global_tokens(torch.zeros_like(grid), tokens, b),),
            ),
        ),
        hints=(
            "Take one token, such as 5 with blocks of two. Write down which tokens each block holds: in which block is "
            "it, and by which operator do you get there?",
            "Integer division, `//`, says how many whole blocks lie before a position. A negative position counts from "
            "the end: add the number of tokens first, or use `%` with it.",
            "Make a copy with `grid.clone()`, and for each token set one whole row and one whole column of it, as in "
            "task 1.4.",
        ),
        why="A pattern knows only blocks, so a token that is made global takes its whole block along. That is what "
        "`BlockPattern.global_tokens` does, and why the released code's global is no single [CLS] but a block of 64.",
        also_right=(_from_library, _from_tokens, _matmul),
        small={"grid": torch.eye(4, dtype=torch.bool), "tokens": [3, -3], "block_size": 2},
        look=TOKENS,
        lesson=LESSON,
        skill="global blocks from tokens",
    )
)
