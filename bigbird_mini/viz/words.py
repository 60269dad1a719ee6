"""Pictures in words: what a drawing shows, for readers who cannot see it, and to check it without looking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from bigbird_mini.pattern import GLOBAL, KIND_NAMES, NONE, OTHER, RANDOM, WINDOW, BlockPattern

# Okabe-Ito: told apart by colour-blind readers too. Each kind also has a letter, so that colour is never alone.
COLOURS = {WINDOW: "#0072B2", GLOBAL: "#E69F00", RANDOM: "#009E73", OTHER: "#CC79A7"}
LETTERS = {WINDOW: "W", GLOBAL: "G", RANDOM: "R", OTHER: "O"}
INK = {WINDOW: "#FFFFFF", GLOBAL: "#000000", RANDOM: "#000000", OTHER: "#000000"}  # a letter's colour on its cell
SMALL = 24  # up to so many blocks a cell has room for its letter, and a description for a line per row


def describe_pattern(p: BlockPattern, head: int = 0) -> str:
    """The pattern of one head in words: size, density, what each kind does; for small patterns every row.

    Raises ValueError for a head that the pattern does not have.
    """
    kinds = head_kinds(p, head)
    n = p.n_blocks
    count = int((kinds != NONE).sum())
    which = f", head {head} of {p.heads}" if p.heads > 1 else ""
    lines = [f"{n} by {n} blocks{which}: {count:,} of {n * n:,} block pairs are read ({count / n / n:.1%})."]
    lines += [_describe_kind(kinds, kind) for kind in (WINDOW, GLOBAL, RANDOM, OTHER) if bool((kinds == kind).any())]
    if n <= SMALL:
        lines += [describe_row(p, row, head) + "." for row in range(n)]
    return "\n".join(lines)


def describe_row(p: BlockPattern, row: int, head: int = 0) -> str:
    """One query block in words: "query block 5 reads: window 4-6, global 0 and 11, random 2 and 9"."""
    kinds = head_kinds(p, head)
    if not 0 <= row < p.n_blocks:
        raise ValueError(f"query block {row} is out of range: the pattern has blocks 0 to {p.n_blocks - 1}")
    parts = []
    for kind in (WINDOW, GLOBAL, RANDOM, OTHER):
        keys = _where(kinds[row] == kind)
        parts += [f"{KIND_NAMES[kind]} {listed(keys)}"] if keys else []
    return f"query block {row} reads: {', '.join(parts)}" if parts else f"query block {row} reads nothing"


def describe_weights(w: Any, row_labels: Sequence[str] | None = None, col_labels: Sequence[str] | None = None) -> str:
    """An attention matrix in words: for every query the keys with the largest weight, how large it is, and which keys
    it does not read at all (those of weight 0), up to six of each by name.

    w: (queries, keys) tensor or array of numbers. col_labels: row_labels where it is left out and fits.
    """
    table = as_matrix(w)
    rows, cols = labels_for(table, row_labels, col_labels)
    lines = [
        f"Attention weights, {len(rows)} queries by {len(cols)} keys, from {table.min():.2f} to {table.max():.2f}."
    ]
    for name, weights in zip(rows, table, strict=True):
        largest = float(weights.max())
        if largest == 0:
            lines.append(f"'{name}' reads nothing.")
            continue
        best = [cols[int(j)] for j in (weights > largest * (1 - 1e-6)).nonzero()]
        unread = [cols[int(j)] for j in (weights == 0).nonzero()]
        each = " each" if len(best) > 1 else ""
        silent = f"; it does not read {_names(unread)}" if unread else ""
        lines.append(f"'{name}' reads {_names(best)} most ({largest:.2f}{each}){silent}.")
    return "\n".join(lines)


def describe_lines(x: Sequence[float], ys: Mapping[str, Sequence[float]], xlabel: str, ylabel: str) -> str:
    """A line chart in words: the points of each line, or its ends where there are over eight. None is no point."""
    lines = [f"{ylabel} against {xlabel}."]
    for name, y in ys.items():
        there = [(a, b) for a, b in zip(x, y, strict=True) if b is not None and b == b]
        if there:
            some = there if len(there) <= 8 else [there[0], there[-1]]
            lines.append(f"{name}: " + ", ".join(f"{b:,.3g} at {a:,.6g}" for a, b in some) + ".")
        else:
            lines.append(f"{name}: no values.")
    return "\n".join(lines)


def listed(numbers: Sequence[int]) -> str:
    """Ascending numbers as a reader would say them: "4-6", "0 and 11", "1, 3 and 7-9"."""
    runs: list[list[int]] = []
    for k in numbers:
        if runs and k == runs[-1][-1] + 1:
            runs[-1].append(k)
        else:
            runs.append([k])
    items = []
    for run in runs:
        items += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else [str(k) for k in run]
    return " and ".join([", ".join(items[:-1]), items[-1]]) if len(items) > 1 else "".join(items)


def _names(words: Sequence[str]) -> str:
    """'a', 'b' and 'c'; a long list ends in "and so many more"."""
    quoted = [f"'{word}'" for word in words]
    if len(quoted) > 6:
        quoted = [*quoted[:5], f"{len(quoted) - 5} more"]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"


def counted(k: int, noun: str) -> str:
    """A number with its noun: "1 block", "1,200 blocks"."""
    return f"{k:,} {noun}" if k == 1 else f"{k:,} {noun}s"


def head_kinds(p: BlockPattern, head: int) -> torch.Tensor:
    """kinds() of one head, uint8 (N, N), or one sentence about the head."""
    if not isinstance(p, BlockPattern):
        raise TypeError(f"a BlockPattern is needed here, not {type(p).__name__}")
    if not 0 <= head < p.heads:
        raise ValueError(f"head {head} is out of range: the pattern has heads 0 to {p.heads - 1}")
    return p.kinds()[head]


def as_matrix(w: Any) -> torch.Tensor:
    """w as a float64 (rows, columns) tensor without NaN, or one sentence about what is wrong with it."""
    table = (w if isinstance(w, torch.Tensor) else torch.as_tensor(w)).detach().cpu().double()
    if table.ndim != 2 or 0 in table.shape:
        raise ValueError(f"weights of shape {tuple(table.shape)} are no matrix; pick one example and one head: (n, n)")
    if not bool(table.isfinite().all()):
        raise ValueError("the weights hold NaN or infinity; look at them before the softmax")
    return table


def labels_for(
    table: torch.Tensor, rows: Sequence[str] | None, cols: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    """Row and column labels: those given, the row labels again for square tables, else 0, 1, 2, ..."""
    if cols is None and rows is not None and table.shape[0] == table.shape[1]:
        cols = rows
    pair = []
    for given, length, side in ((rows, table.shape[0], "row"), (cols, table.shape[1], "column")):
        names = [str(k) for k in range(length)] if given is None else [str(k) for k in given]
        if len(names) != length:
            raise ValueError(f"{len(names)} {side} labels for {length} {side}s")
        pair.append(names)
    return pair[0], pair[1]


def _describe_kind(kinds: torch.Tensor, kind: int) -> str:
    """One line: what this kind does in this pattern."""
    cells = kinds == kind
    start = f"{KIND_NAMES[kind]} ({LETTERS[kind]}): {counted(int(cells.sum()), 'block pair')}"
    rows, cols = torch.nonzero(cells, as_tuple=True)
    if kind == WINDOW:
        before, after = int((rows - cols).max()), int((cols - rows).max())
        return f"{start}, keys from {counted(max(before, 0), 'block')} before to {max(after, 0)} after the query block."
    if kind == GLOBAL:
        read_all, by_all = _where((kinds != NONE).all(1) & cells.any(1)), _where(cells.all(0))
        say = f"{start}."
        say += f" Key blocks read by every query block: {listed(by_all)}." if by_all else ""
        return say + (f" Query blocks that read everything: {listed(read_all)}." if read_all else "")
    per_row = cells.sum(1)
    least, most = int(per_row[per_row > 0].min()), int(per_row.max())
    each = f"{most}" if least == most else f"{least} to {most}"
    return f"{start}, {each} for each of {counted(int((per_row > 0).sum()), 'query block')}."


def _where(flags: torch.Tensor) -> list[int]:
    """The positions where a row of flags is True."""
    return [int(k) for k in torch.nonzero(flags)[:, 0]]
