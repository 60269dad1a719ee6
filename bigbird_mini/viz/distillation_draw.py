"""draw_distillation: teacher, student, their difference, and what each layer misses, in a still picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from bigbird_mini.viz.distillation import Comparison, checked, in_blocks
from bigbird_mini.viz.draw import FAINT, INK_COLOUR, PAPER

LESS, MORE = "#0072B2", "#D55E00"  # the student gives less, or more, than its teacher
AT_ONCE = 64  # tokens: a longer text is shown in blocks


def draw_distillation(comparison: Any, layer: int = 0, head: int = -1, before: Sequence[float] | None = None) -> Figure:
    """The attention of one layer: teacher, student, difference; beside it missed mass and distance of every layer.

    A dot marks a key that the student does not read. Up to 64 tokens a cell is a token, above that a block.
    comparison: as compare() returns it (see explore_distillation). head: -1 for all. before: distances at the start.
    Its words: `describe_distillation` of the same arguments.
    """
    made = checked(comparison, layer, head)
    t, s, read = made.maps(layer, head)
    unit, labels = "token", made.tokens
    if made.n > AT_ONCE:
        t, s = (in_blocks(x, made.block_size) for x in (t, s))
        read, unit, labels = in_blocks(read, made.block_size, rows_only=True), "block", None
    fig = Figure(figsize=(12.4, 3.6), layout="constrained", facecolor=PAPER)
    maps = fig.subplots(1, 4, width_ratios=[1, 1, 1, 1.05])
    top = max(float(t.max()), float(s.max()), 1e-12)
    for ax, table, title in zip(maps, (t, s), ("teacher", "student"), strict=False):
        ax.set_facecolor(PAPER)
        shown = np.ma.masked_where((read == 0) & (table == 0), table)
        image = ax.imshow(shown, cmap="cividis", vmin=0, vmax=top, interpolation="nearest")
        _frame(ax, title, unit, labels)
    fig.colorbar(image, ax=list(maps[:2]), shrink=0.7, label="weight")
    far = max(float(np.abs(s - t).max()), 1e-12)
    signed = LinearSegmentedColormap.from_list("less and more", [LESS, PAPER, MORE])
    image = maps[2].imshow(s - t, cmap=signed, vmin=-far, vmax=far, interpolation="nearest")
    _frame(maps[2], "student - teacher", unit, labels)
    fig.colorbar(image, ax=maps[2], shrink=0.7)
    i, j = np.nonzero(read == 0)
    for ax in (maps[0], maps[2]):
        ax.plot(j, i, ".", color="#808080", markersize=min(4.0, 60 / len(t)), markeredgewidth=0)
    _draw_layers(maps[3], made, layer, before)
    return fig


def _frame(ax: Axes, title: str, unit: str, labels: Sequence[str] | None) -> None:
    ax.set_title(title, fontsize=10)
    ax.set_xlabel(f"key {unit}", fontsize=8)
    ax.set_ylabel(f"query {unit}", fontsize=8)
    ax.tick_params(length=0, labelsize=7, colors=INK_COLOUR)
    if labels and len(labels) <= 24:
        ax.set_xticks(range(len(labels)), labels, rotation=90)
        ax.set_yticks(range(len(labels)), labels)


def _draw_layers(ax: Axes, made: Comparison, layer: int, before: Sequence[float] | None) -> None:
    """A bar for what each layer misses, a dot for its distance now, a ring for that at the start."""
    missed, far = made.means()
    rows = range(made.layers)
    ax.barh(rows, missed, color=FAINT, edgecolor=INK_COLOUR, hatch="///", height=0.6, label="missed mass")
    ax.plot(far, rows, "o", color=LESS, label="distance")
    if before:
        ax.plot(before, rows, "o", markerfacecolor="none", markeredgecolor=INK_COLOUR, label="at the start")
    ax.set_yticks(rows, [f"layer {k}" + (" (shown)" if k == layer else "") for k in rows])
    ax.set_xlim(0, 1)
    ax.set_ylim(made.layers - 0.4, -0.6)
    ax.tick_params(length=0, labelsize=7, colors=INK_COLOUR)
    ax.legend(frameon=False, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    ax.set_title("missed, and how far apart", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
