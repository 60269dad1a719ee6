"""draw_training: the curves of a training in a still picture, a panel for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from bigbird_mini.train import TrainSettings
from bigbird_mini.viz.draw import FAINT, INK_COLOUR, PAPER
from bigbird_mini.viz.watch_words import Curve, Mark, called, curves_of, panels, planned, short

LINE, MARK = "#0072B2", "#D55E00"


def draw_training(
    history: Sequence[Mapping[str, Any]], settings: TrainSettings | None = None, marks: Sequence[Mark] = ()
) -> Figure:
    """A panel for each number in the records, against the step; a dashed line where something was changed (`marks`).

    settings: with them the axis reaches to the last step, and the plan of the learning rate is drawn. Its words:
    `describe_training` of the same arguments. Raises ValueError where there is neither a record nor settings.
    """
    curves = curves_of(history)
    names = panels(curves)
    if settings:
        names += [name for name in ("learning_rate",) if name not in names]
    if not names:
        raise ValueError("the history is empty: there is nothing to draw before the first step, or give settings")
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    fig = Figure(figsize=(3.1 * columns + 0.6, 2.3 * rows), layout="constrained", facecolor=PAPER)
    for k, ax in enumerate(fig.subplots(rows, columns, squeeze=False).flat):
        if k >= len(names):
            ax.set_axis_off()
            continue
        draw_curve(ax, names[k], curves.get(names[k]), settings)
        for step, words in marks:
            ax.axvline(step, color=MARK, linewidth=1, linestyle="--")
            if k == 0:
                place = {"xytext": (3, -9), "xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
                note = ax.annotate(words, (step, 1), fontsize=7, color=INK_COLOUR, **place)
                note.set_path_effects([withStroke(linewidth=2.5, foreground=PAPER)])
    return fig


def draw_curve(ax: Axes, name: str, curve: Curve | None, settings: TrainSettings | None) -> None:
    """One panel: its line, its last value in the title."""
    if name == "learning_rate" and settings:
        ax.plot(*planned(settings), color="#777777", linewidth=1, linestyle=(0, (4, 3)), label="planned")
        ax.legend(frameon=False, fontsize=7, loc="upper right")
    if curve:
        steps, values = curve.points()
        ax.plot(steps, values, color=LINE, linewidth=1.5, marker="o" if len(steps) < 25 else None, markersize=3)
    now = f": {short(curve.last[1])}" if curve else ""
    ax.set_title(f"{called(name)}{now}", fontsize=9)
    ax.set_xlim(0, settings.steps if settings else None)
    ax.set_xlabel("step", fontsize=8)
    ax.tick_params(labelsize=7, colors=INK_COLOUR)
    ax.grid(True, color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
