"""Time against length, one line for each route; report.sentences() says the same in words."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .report import NAMES, lines_of, sentences

GREY = "#7a7a7a"
# Every colour keeps a contrast of 3 on white and on a dark page alike, and the colour-blind tell them apart by
# Okabe and Ito's choice of hues, by dash and by marker. Ours are all of one colour, and so are the dense ones.
STYLES: dict[str, tuple[str, str, str, float]] = {  # colour, dash, marker, width
    "auto": ("#d55e00", "-", "o", 2.4),
    "gather": ("#d55e00", "--", "s", 1.5),
    "flex": ("#d55e00", ":", "D", 1.5),
    "sdpa": (GREY, "-", "^", 1.8),
    "dense": (GREY, ":", "v", 1.8),
    "torch-flex": ("#2684c0", "-", "P", 1.5),
    "huggingface": ("#009e73", "-", "X", 1.5),
    "longformer": ("#b5629a", "-", "*", 1.5),
    "bigbird-mini": ("#d55e00", "-", "o", 2.4),
    "bigbird-mini-full": (GREY, "-", "^", 1.8),
    "huggingface-bigbird": ("#009e73", "-", "X", 1.5),
    "modernbert": ("#2684c0", "-", "P", 1.5),
}
APART = 0.055  # least distance of two labels, as a share of the axis' height


def draw(result: dict[str, Any], file: Path) -> None:
    """Write the picture, .svg or .png, on a transparent ground: both axes logarithmic, a panel for each direction."""
    directions = result["settings"]["directions"]
    look = {"svg.fonttype": "none", "svg.hashsalt": "bench", "font.family": "sans-serif", "font.size": 10}
    with matplotlib.rc_context(look):
        figure = Figure(figsize=(5.6 * len(directions), 4.4), layout="constrained")
        panels = figure.subplots(1, len(directions), sharey=True, squeeze=False)[0]
        for axes, direction in zip(panels, directions, strict=True):
            _panel(axes, result, direction)
        for axes, direction in zip(panels, directions, strict=True):  # now that the common height is known
            ends = {route: points[-1] for route, points in lines_of(result, direction).items()}
            for n in {end for end, _ in ends.values()}:
                highest = max(y for points in lines_of(result, direction).values() for x, y in points if x == n)
                _label(axes, {r: end for r, end in ends.items() if end[0] == n}, max(ends.values())[0], highest)
        panels[0].set_ylabel("seconds", color=GREY)
        panels[0].yaxis.set_major_formatter("{x:g}")
        about = {"Title": "Time against length", "Description": " ".join(sentences(result))}
        about |= {"Date": None} if file.suffix == ".svg" else {}  # the same figures, the same file
        figure.savefig(file, transparent=True, dpi=200, metadata=about)


def _panel(axes: Axes, result: dict[str, Any], direction: str) -> None:
    lines = lines_of(result, direction)
    lengths = result["settings"]["lengths"]
    axes.set(xscale="log", yscale="log")
    for route, points in lines.items():
        colour, dash, marker, width = STYLES[route]
        (line,) = axes.plot(*zip(*points, strict=True), dash, color=colour, marker=marker, lw=width, ms=5)
        line.set_gid(f"{direction}-{route}")
    axes.set_xticks(lengths, [f"{n:,}" for n in lengths], rotation=30)
    axes.minorticks_off()
    axes.set_title(NAMES[direction], color=GREY)
    axes.set_xlabel("tokens", color=GREY)
    axes.tick_params(colors=GREY)
    axes.grid(color=GREY, alpha=0.25, lw=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(GREY)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high * (high / low) ** 0.3)  # room for the labels


def _label(axes: Axes, ends: dict[str, tuple[int, float]], last: int, highest: float) -> None:
    """Name the lines that end at one length, at their ends, far enough apart to be read."""
    low, high = axes.get_ylim()
    height = math.log(high / low)
    names = sorted(ends, key=lambda route: ends[route][1])
    places = spread([math.log(ends[route][1] / low) / height for route in names], APART)
    for route, place in zip(names, places, strict=True):
        n, _ = ends[route]
        where = (n, low * math.exp(place * height))
        look = {"color": STYLES[route][0], "va": "center", "annotation_clip": False}
        offset, side = (7, 0), "left"  # beside the end
        if n < last:  # where other lines go on: above the highest of them, below the others
            offset, side = ((-5, 9), "right") if ends[route][1] == highest else ((5, -9), "left")
        axes.annotate(route, where, offset, textcoords="offset points", ha=side, **look).set_in_layout(False)


def spread(places: list[float], apart: float) -> list[float]:
    """Ascending places moved until they are apart, by pushing neighbours from each other, and none above 1."""
    places = list(places)
    for _ in range(100):
        for i in range(len(places) - 1):
            short = apart - (places[i + 1] - places[i])
            if short > 0:
                places[i] -= short / 2
                places[i + 1] += short / 2
    above = max(0.0, places[-1] - 1)
    return [place - above for place in places]
