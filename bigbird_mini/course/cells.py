"""A prediction that is drawn: a set of cells of a grid, read from what the reader gives, compared, drawn and said."""

from __future__ import annotations

import html
import re
from typing import Any

import numpy as np

from bigbird_mini.pattern import BlockPattern
from bigbird_mini.viz.failure import Failure, describe_failure, draw_failure
from bigbird_mini.viz.words import counted, listed

MOST = 24  # rows and columns: more cannot be drawn by hand
_HOW = "give a grid of True and False, or pairs (row, column) such as '0,1 2,3'"


def grid_shape(cells: Any) -> tuple[int, int]:
    """(rows, columns) from a number or a pair; ValueError where nobody could draw that."""
    pair = (cells, cells) if isinstance(cells, int) else tuple(cells)
    if len(pair) != 2 or not all(isinstance(k, int) and 1 <= k <= MOST for k in pair):
        raise ValueError(f"cells={cells!r} cannot be drawn; give rows and columns, each from 1 to {MOST}")
    return pair


def read_cells(given: Any, shape: tuple[int, int]) -> np.ndarray:
    """bool (rows, columns) from a BlockPattern of one head, a grid, pairs, or text such as "0,1 2,3"."""
    if isinstance(given, BlockPattern):
        if given.heads > 1:
            raise ValueError(f"a pattern of {given.heads} heads is no single grid of cells")
        given = given.grid()[0]
    if isinstance(given, str):
        text = given.strip()
        if not re.fullmatch(r"(\(?\d+\s*,\s*\d+\)?[\s;,]*)*", text):
            raise ValueError(f'"{text}" cannot be read as cells; {_HOW}')
        given = [(int(a), int(b)) for a, b in re.findall(r"(\d+)\s*,\s*(\d+)", text)]
    found = np.asarray(given)
    if found.dtype == bool:
        if found.shape != shape:
            raise ValueError(f"a grid of shape {found.shape}; it must be {shape}")
        return found
    grid = np.zeros(shape, bool)
    if found.size == 0:
        return grid
    if found.ndim != 2 or found.shape[1] != 2 or found.dtype.kind not in "iu":
        raise ValueError(f"cells of shape {found.shape} and type {found.dtype} cannot be read; {_HOW}")
    for i, j in found.tolist():
        if not (0 <= i < shape[0] and 0 <= j < shape[1]):
            raise ValueError(f"cell {i},{j} is outside the grid of {shape[0]} rows and {shape[1]} columns")
        grid[i, j] = True
    return grid


def compared(guess: np.ndarray, answer: np.ndarray) -> str:
    """ "right", or "9 of 12 cells found, 3 missing, 2 too many"."""
    missing, extra = int((answer & ~guess).sum()), int((guess & ~answer).sum())
    if not missing and not extra:
        return "right"
    parts = [f"{int((guess & answer).sum())} of {counted(int(answer.sum()), 'cell')} found"]
    parts += [f"{missing} missing"] if missing else []
    parts += [f"{extra} too many"] if extra else []
    return ", ".join(parts)


def picture(guess: np.ndarray | None, answer: np.ndarray, axes: tuple[str, str]) -> tuple[str, str]:
    """(SVG, words): the answer, or where the guess is another, both and their difference."""
    if guess is not None and (guess != answer).any():
        failure = Failure(answer, guess, guess != answer, axes)
        return draw_failure(failure), describe_failure(failure)
    return _drawn(answer, axes), in_words(answer, axes)


def in_words(grid: np.ndarray, axes: tuple[str, str]) -> str:
    """Row by row: "query block 0: key block 0-5. ..."."""
    rows = [
        f"{axes[0]} {i}: {axes[1]} {listed(np.flatnonzero(row).tolist())}" for i, row in enumerate(grid) if row.any()
    ]
    return f"{counted(int(grid.sum()), 'cell')}. " + (". ".join(rows) + "." if rows else "No row has any.")


def _drawn(grid: np.ndarray, axes: tuple[str, str], cell: int = 24) -> str:
    """The grid as SVG on light paper of its own: a filled cell is blue and carries a cross."""
    (rows, columns), left, top = grid.shape, 46, 44
    out = [f'<text x="{left}" y="16" font-size="12">{html.escape(axes[1])} →</text>']
    turned = f'transform="translate(14 {top + rows * cell / 2:g}) rotate(-90)" text-anchor="middle"'
    out.append(f'<text {turned} font-size="12">← {html.escape(axes[0])}</text>')
    middle = 'font-size="10" text-anchor="middle"'
    out += [f'<text x="{left + (j + 0.5) * cell:g}" y="{top - 6}" {middle}>{j}</text>' for j in range(columns)]
    out += [f'<text x="{left - 10}" y="{top + (i + 0.5) * cell + 4:g}" {middle}>{i}</text>' for i in range(rows)]
    for (i, j), filled in np.ndenumerate(grid):
        place = f'x="{left + j * cell}" y="{top + i * cell}" width="{cell}" height="{cell}"'
        out.append(f'<rect {place} fill="{"#0072B2" if filled else "#FFFFFF"}" stroke="#1A1A1A" stroke-width="0.7"/>')
        if filled:
            x, y = left + (j + 0.5) * cell, top + (i + 0.5) * cell + 4
            out.append(f'<text x="{x:g}" y="{y:g}" {middle} fill="#FFFFFF">×</text>')
    width, height = max(left + columns * cell + 14, 150), top + rows * cell + 14
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif" fill="#1A1A1A"><rect width="{width}" height="{height}" fill="#FFFFFF"/>'
        f"{''.join(out)}</svg>"
    )
