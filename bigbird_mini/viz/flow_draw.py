"""draw_flow: the news of one block in a still picture: a ring, the matrix of a layer, and the light cone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, PathPatch
from matplotlib.path import Path

from bigbird_mini.pattern import KIND_NAMES
from bigbird_mini.viz.draw import INK_COLOUR, PAPER, draw_grid
from bigbird_mini.viz.flow import Flow, Stack, layers_of
from bigbird_mini.viz.words import COLOURS

_DASHES = {1: "-", 2: "--", 3: ":", 4: "-."}


def draw_flow(patterns: Stack, source: int, layers: int, fresh: bool = True, target: int | None = None) -> Figure:
    """Who can have heard of block `source` after each of the layers; the path to `target` stands out.

    Left the blocks on a ring, each with the layer in which it first heard, and the edge by which it did; right the
    matrix of the last of these layers; below the light cone, a row for each layer. Its words: `describe_flow` of the
    same arguments.
    """
    flow = Flow(layers_of(patterns, layers, fresh), source)
    fig = Figure(figsize=(9.2, 5.6 + 0.14 * layers), layout="constrained", facecolor=PAPER)
    top, below = fig.subfigures(2, 1, height_ratios=[4.4, 1.2 + 0.14 * layers])
    ring, matrix = top.subplots(1, 2)
    path = [] if target is None else flow.path(target)
    colours = ListedColormap(shades(layers))
    _draw_ring(ring, flow, path, colours)
    kinds = flow.kinds[-1]
    draw_grid(matrix, kinds, points=270 / len(kinds))
    matrix.set_title(f"who reads whom in layer {layers}", fontsize=10)
    cone = below.subplots()
    _draw_cone(cone, flow, path, colours)
    norm = BoundaryNorm(np.arange(layers + 2) - 0.5, layers + 1)
    bar = below.colorbar(ScalarMappable(norm, colours), ax=cone, ticks=range(0, layers + 1, max(1, layers // 6)))
    bar.set_label("first heard\nin layer", fontsize=8)
    return fig


def shades(layers: int) -> list[tuple[float, ...]]:
    """The colours of the layers 0 .. layers: viridis, the source darkest."""
    return [colormaps["viridis"](layer / layers) for layer in range(layers + 1)]


def ink_on(colour: Sequence[float]) -> str:
    """Black or white, whichever reads on this colour."""
    return "#000000" if np.dot(colour[:3], (0.299, 0.587, 0.114)) > 0.45 else "#FFFFFF"


def _draw_ring(ax: Axes, flow: Flow, path: list[int], colours: ListedColormap) -> None:
    n = flow.n_blocks
    turn = 2 * np.pi * np.arange(n) / n
    spots = np.stack([np.sin(turn), np.cos(turn)], 1)  # (N, 2): block 0 at the top, then clockwise
    size = min(0.12, 2.5 / n)
    used = set()
    for i in np.flatnonzero(flow.heard > 0):
        j = flow.told_by[i]
        kind = int(flow.kinds[flow.heard[i] - 1][i, j])
        used.add(kind)
        on_path = i in path
        line = Path([spots[j], 0.45 * (spots[i] + spots[j]) / 2, spots[i]], [Path.MOVETO, Path.CURVE3, Path.CURVE3])
        style = {"facecolor": "none", "linestyle": _DASHES[kind]}
        if on_path:
            ax.add_patch(PathPatch(line, facecolor="none", edgecolor=INK_COLOUR, linewidth=5))
            ax.add_patch(PathPatch(line, facecolor="none", edgecolor=PAPER, linewidth=3.4))
        ax.add_patch(PathPatch(line, edgecolor=COLOURS[kind], linewidth=2.6 if on_path else 1.0, **style))
    for i, (x, y) in enumerate(spots):
        known = flow.heard[i] >= 0
        face = colours(int(flow.heard[i])) if known else PAPER
        edge = 2.4 if i == flow.source else 0.7
        ax.add_patch(Circle((x, y), size, facecolor=face, edgecolor=INK_COLOUR, linewidth=edge, zorder=3))
        if n <= 32 and known:
            ax.text(x, y, str(flow.heard[i]), ha="center", va="center", fontsize=7, color=ink_on(face), zorder=4)
        if i % -(-n // 32) == 0:
            far = 1 + size + 0.09
            ax.text(far * x, far * y, str(i), ha="center", va="center", fontsize=7, color=INK_COLOUR)
    ax.set(xlim=(-1.3, 1.3), ylim=(-1.3, 1.3), aspect="equal")
    ax.set_axis_off()
    ax.set_title("by whom each block first heard, and in which layer", fontsize=10)
    lines = [Line2D([], [], color=COLOURS[k], linestyle=_DASHES[k], label=KIND_NAMES[k]) for k in sorted(used)]
    if lines:
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.02), "ncols": len(lines)}
        ax.legend(handles=lines, frameon=False, fontsize=8, handlelength=3.2, **place)


def _draw_cone(ax: Axes, flow: Flow, path: list[int], colours: ListedColormap) -> None:
    layers, n = flow.layers, flow.n_blocks
    when = np.where(flow.heard < 0, layers + 1, flow.heard)
    shown = np.ma.masked_array(np.tile(when, (layers + 1, 1)), when[None] > np.arange(layers + 1)[:, None])
    ax.imshow(shown, cmap=colours, vmin=-0.5, vmax=layers + 0.5, aspect="auto", interpolation="nearest")
    if path:
        ax.plot(path, [flow.heard[i] for i in path], color="white", linewidth=4)
        ax.plot(path, [flow.heard[i] for i in path], color="black", linewidth=1.6, marker="o", markersize=4)
    ax.set_yticks(range(0, layers + 1, max(1, layers // 6)))
    ax.set_xticks(range(0, n, max(1, n // 16)))
    ax.tick_params(length=0, labelsize=8, colors=INK_COLOUR)
    ax.set(xlabel="block", ylabel="after layer")
