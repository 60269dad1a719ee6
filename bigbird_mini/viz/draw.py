"""Figures of patterns, attention weights and cost curves. No pyplot: nothing global, nothing to close.

Each figure has its words in `bigbird_mini.viz.words`; show both: ``show(draw_pattern(p), describe_pattern(p))``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from bigbird_mini.pattern import GLOBAL, KIND_NAMES, RANDOM, BlockPattern
from bigbird_mini.viz.words import COLOURS, INK, LETTERS, SMALL, as_matrix, head_kinds, labels_for

PAPER, FAINT, INK_COLOUR = "#FFFFFF", "#D8D8D8", "#222222"
LINE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#000000", "#E69F00")
LINE_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_MARKED = 96  # with more blocks a cell is too small for any mark


def draw_pattern(
    p: BlockPattern | Sequence[BlockPattern],
    head: int = 0,
    titles: Sequence[str] | None = None,
    size: float = 4.2,
) -> Figure:
    """Which key block each query block reads, coloured by kind; several patterns side by side.

    Up to 24 blocks each cell carries the letter of its kind, above that global cells carry a stroke and random ones
    a dot, so that the kinds differ without colour. size: inches of one square. Raises ValueError where the number of
    titles differs from the number of patterns, or the head is out of range.
    """
    patterns = [p] if isinstance(p, BlockPattern) else list(p)
    if not patterns:
        raise ValueError("there is no pattern to draw")
    if titles is not None and len(titles) != len(patterns):
        raise ValueError(f"{len(titles)} titles for {len(patterns)} patterns")
    grids = [head_kinds(one, head if one.heads > 1 else 0).numpy() for one in patterns]
    fig = Figure(figsize=(size * len(grids), size + 0.5), layout="constrained", facecolor=PAPER)
    axes = fig.subplots(1, len(grids), squeeze=False)[0]
    for k, (ax, grid) in enumerate(zip(axes, grids, strict=True)):
        draw_grid(ax, grid, points=size * 72 * 0.82 / len(grid))
        ax.set_title(titles[k] if titles else "", fontsize=11)
    used = [kind for kind in COLOURS if any((grid == kind).any() for grid in grids)]
    swatches = [_swatch(kind, max(map(len, grids))) for kind in used]
    swatches += [Patch(facecolor=PAPER, edgecolor="#999999", label="not read")]
    fig.legend(handles=swatches, loc="outside lower center", ncols=len(swatches), frameon=False, fontsize=9)
    return fig


def draw_weights(
    w: Any,
    row_labels: Sequence[str] | None = None,
    col_labels: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """Heat map of an attention matrix, (queries, keys), with token labels; numbers in the cells of small ones.

    A weight of exactly 0 is a key that is not read: its cell is white.

    col_labels: row_labels where it is left out and the matrix is square. Raises ValueError for NaN or a wrong shape.
    """
    table = as_matrix(w)
    rows, cols = labels_for(table, row_labels, col_labels)
    values = table.numpy()
    side = min(max(0.42 * max(values.shape), 2.6), 8.0)
    fig = Figure(figsize=(side * min(1.0, len(cols) / len(rows)) + 2.0, side + 0.8), layout="constrained")
    ax = fig.subplots()
    top = max(float(values.max()), 1e-12)
    unread = np.ma.masked_equal(values, 0.0)
    ax.set_facecolor(PAPER)
    image = ax.imshow(unread, cmap="cividis", vmin=min(0.0, float(values.min())), vmax=top, interpolation="nearest")
    label = "attention weight (white: not read)" if unread.mask.any() else "attention weight"
    fig.colorbar(image, ax=ax, shrink=0.8).set_label(label, color=INK_COLOUR)
    if max(values.shape) <= 48:
        ax.set_xticks(range(len(cols)), cols, rotation=90 if max(map(len, cols)) > 2 else 0, fontsize=9)
        ax.set_yticks(range(len(rows)), rows, fontsize=9)
    if max(values.shape) <= 12:
        for (i, j), v in np.ndenumerate(values):
            ink = "white" if v < top / 2 else "black"
            number = "" if v == 0 else f"{v:.2f}".removeprefix("0")
            ax.text(j, i, number, ha="center", va="center", fontsize=8, color=ink)
    ax.set(xlabel="key", ylabel="query", title=title)
    return fig


def draw_lines(
    x: Sequence[float],
    ys: Mapping[str, Sequence[float | None]],
    xlabel: str,
    ylabel: str,
    log: bool = True,
    title: str = "",
) -> Figure:
    """Line chart: one colour, one marker shape and one label at its end for every line.

    ys: name -> values, as many as x; None or NaN leaves a gap. log: both axes logarithmic.
    Raises ValueError where a line has another length than x, or a log axis would need a value that is not above 0.
    """
    x_values = np.asarray(x, float)
    lines = {name: np.asarray([np.nan if v is None else v for v in y], float) for name, y in ys.items()}
    if not lines:
        raise ValueError("there is no line to draw")
    for name, y in lines.items():
        if len(y) != len(x_values):
            raise ValueError(f"line {name!r} has {len(y)} values, x has {len(x_values)}")
        if log and ((y <= 0).any() or (x_values <= 0).any()):
            raise ValueError(f"line {name!r}: a logarithmic axis needs values above 0; use log=False")
    fig = Figure(figsize=(6.4, 4.0), layout="constrained", facecolor=PAPER)
    ax = fig.subplots()
    for k, (name, y) in enumerate(lines.items()):
        colour, marker = LINE_COLOURS[k % len(LINE_COLOURS)], LINE_MARKERS[k % len(LINE_MARKERS)]
        dash = "-" if k < len(LINE_COLOURS) else "--"
        ax.plot(x_values, y, color=colour, marker=marker, linestyle=dash, linewidth=1.8, markersize=6, label=name)
    if log:
        ax.set_xscale("log", base=2 if _powers_of_two(x_values) else 10)
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    if len(x_values) <= 12:
        ax.set_xticks(x_values, [f"{v:,.6g}" for v in x_values], rotation=30 if len(x_values) > 6 else 0)
        ax.xaxis.minorticks_off()
    ax.grid(True, color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    _label_ends(ax, x_values, lines)
    return fig


def draw_grid(ax: Axes, grid: np.ndarray, points: float) -> None:
    """One pattern: colours, faint lines between the cells, and a mark for each kind. points: side of a cell."""
    n = len(grid)
    colours = ListedColormap([PAPER, *(COLOURS[kind] for kind in sorted(COLOURS))])
    ax.imshow(grid, cmap=colours, vmin=0, vmax=len(COLOURS), interpolation="nearest")
    if n <= _MARKED:
        edges = np.arange(n + 1) - 0.5
        ax.hlines(edges, -0.5, n - 0.5, color=FAINT, linewidth=0.4)
        ax.vlines(edges, -0.5, n - 0.5, color=FAINT, linewidth=0.4)
    if n <= SMALL:
        for (i, j), kind in np.ndenumerate(grid):
            if kind:
                size = min(10.0, points * 0.62)
                ax.text(j, i, LETTERS[kind], ha="center", va="center", fontsize=size, color=INK[kind])
    elif n <= _MARKED:
        i, j = np.nonzero(grid == GLOBAL)
        strokes = np.stack([np.stack([j - 0.3, i + 0.3], 1), np.stack([j + 0.3, i - 0.3], 1)], 1)
        ax.add_collection(LineCollection(list(strokes), colors=INK[GLOBAL], linewidths=0.5))
        i, j = np.nonzero(grid == RANDOM)
        ax.plot(j, i, linestyle="none", marker="o", color=INK[RANDOM], markersize=points * 0.28, markeredgewidth=0)
    else:  # the frame would hide the first and last row
        ax.spines[:].set_visible(False)
    step = 1 if n <= 16 else 2 if n <= 32 else max(4, n // 8)
    ticks = range(0, n, step)
    ax.set_xticks(ticks)
    ax.set_yticks(ticks)
    ax.tick_params(length=0, labelsize=8, colors=INK_COLOUR)
    ax.set(xlabel="key block", ylabel="query block")
    ax.set_xlim(-0.5, n - 0.5)
    ax.set_ylim(n - 0.5, -0.5)


def _swatch(kind: int, n: int) -> Patch:
    """Legend entry for patterns of n blocks: the colour, and in words the mark that stands in the cells."""
    mark = f"{LETTERS[kind]} " if n <= SMALL else ""
    sign = {GLOBAL: " (stroke)", RANDOM: " (dot)"}.get(kind, "") if SMALL < n <= _MARKED else ""
    return Patch(facecolor=COLOURS[kind], label=f"{mark}{KIND_NAMES[kind]}{sign}")


def _label_ends(ax: Axes, x: np.ndarray, lines: Mapping[str, np.ndarray]) -> None:
    """Write each line's name at its last value, moved apart where two would overlap."""
    ends = []
    for name, y in lines.items():
        there = np.nonzero(~np.isnan(y))[0]
        if len(there):
            ends.append((name, x[there[-1]], y[there[-1]]))
    height = ax.figure.get_figheight() * 72 * 0.75
    to_axes = ax.transData + ax.transAxes.inverted()
    ends.sort(key=lambda end: end[2])
    lowest = -1.0
    for name, x_end, y_end in ends:
        wanted = to_axes.transform((x_end, y_end))[1]
        placed = max(wanted, lowest + 13 / height)
        lowest = placed
        colour = next(line.get_color() for line in ax.get_lines() if line.get_label() == name)
        text = ax.annotate(name, (x_end, y_end), (9, (placed - wanted) * height), textcoords="offset points")
        text.set(color=colour, va="center", fontsize=10, fontweight="bold", annotation_clip=False)
        text.set_path_effects([withStroke(linewidth=2.5, foreground=PAPER)])


def _powers_of_two(x: np.ndarray) -> bool:
    """Whether all values are powers of two (lengths mostly are), for the ticks of a logarithmic axis."""
    return bool(np.all(np.log2(x) == np.round(np.log2(x))))
