"""draw_tasks and draw_painted: a pattern, what it lets a small encoder know of four tasks, and how trainings went."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bigbird_mini.pattern import BlockPattern
from bigbird_mini.tasks import Task
from bigbird_mini.viz.draw import FAINT, INK_COLOUR, LINE_COLOURS, LINE_MARKERS, PAPER, draw_grid
from bigbird_mini.viz.flow import joined_kinds
from bigbird_mini.viz.paint import last_accuracy, predictions, task_of, tasks_of

if TYPE_CHECKING:
    from bigbird_mini.viz.paint_run import Run


def draw_tasks(p: BlockPattern, block_size: int = 8, runs: Sequence[Run] = ()) -> Figure:
    """The pattern, and beside it how much of each of the four tasks two layers of it can know: by edges alone, by
    paths, and as measured where one of the runs (of `paint_pattern`) trained it. Its words: `describe_tasks`."""
    fig, tasks = _figure(p, 2)
    _draw_shares(tasks[0], p, block_size, runs)
    return fig


def draw_painted(p: BlockPattern, block_size: int, runs: Sequence[Run], task: str) -> Figure:
    """The same with the curves of the trainings on this task, if there are any."""
    mine = [run for run in runs if run.task.name == task and run.points]
    if not mine:
        return draw_tasks(p, block_size, runs)
    fig, (shares, curves) = _figure(p, 3)
    _draw_shares(shares, p, block_size, runs)
    _draw_curves(curves, p, task_of(task, p.n_blocks, block_size), mine)
    return fig


def _figure(p: BlockPattern, panels: int) -> tuple[Figure, list[Axes]]:
    fig = Figure(figsize=(4.2 + 3.9 * (panels - 1), 4.4), layout="constrained", facecolor=PAPER)
    grid, *others = fig.subplots(1, panels)
    draw_grid(grid, joined_kinds(p), points=4.2 * 72 * 0.8 / p.n_blocks)
    return fig, others


def _draw_shares(ax: Axes, p: BlockPattern, block_size: int, runs: Sequence[Run]) -> None:
    """A line for each task, from what edges let it know to what paths do."""
    tasks = tasks_of(p, block_size)
    for row, task in enumerate(tasks):
        edges, paths = predictions(p, task)
        measured = last_accuracy(p, task, runs)
        first = row == 0
        ax.plot([edges, paths], [row, row], color=FAINT, linewidth=4, zorder=1)
        ax.plot(edges, row, "|", color="#0072B2", markersize=16, mew=3, label="edges only" if first else None)
        ax.plot(paths, row, "o", color="#0072B2", markersize=8, label="paths of two" if first else None)
        if measured is not None:
            ax.plot(measured, row, "X", color="#D55E00", markersize=11, label="trained")
    ax.axvline(Task.chance, color=INK_COLOUR, linewidth=1, linestyle=(0, (2, 2)), label="a guess")
    ax.set_yticks(range(len(tasks)), [task.name for task in tasks])
    ax.set(xlim=(-0.03, 1.03), ylim=(len(tasks) - 0.5, -0.5), xlabel="share of answers that are right")
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
    ax.set_title("what two layers can know", fontsize=10)
    ax.spines[["top", "right"]].set_visible(False)
    by_name = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))  # each sign once
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 2}
    ax.legend(by_name.values(), by_name, frameon=False, fontsize=8, **place)


def _draw_curves(ax: Axes, p: BlockPattern, task: Task, runs: Sequence[Run]) -> None:
    last = max(run.points[-1][0] for run in runs)
    for name, share in zip(("edges only", "paths of two"), predictions(p, task), strict=True):
        ax.axhline(share, color="#0072B2", linewidth=1, linestyle="-" if name == "edges only" else "--")
    ax.axhline(task.chance, color=INK_COLOUR, linewidth=1, linestyle=(0, (2, 2)))
    for run in runs:
        steps, shares = zip(*run.points, strict=True)
        colour, marker = (kinds[run.number % len(kinds)] for kinds in (LINE_COLOURS[1:], LINE_MARKERS[1:]))
        ax.plot(steps, shares, marker=marker, markersize=4, linewidth=1.6, color=colour)
        name = ax.annotate(f"{run.number}", (steps[-1], shares[-1]), (7, 0), textcoords="offset points", va="center")
        name.set(color=colour, fontsize=9, fontweight="bold", annotation_clip=False)
    ax.set(xlim=(0, last * 1.02), ylim=(-0.03, 1.03), xlabel="step", title=f"trainings on: {task.name}")
    ax.title.set_fontsize(10)
    ax.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25%", "50%", "75%", "100%"])
    ax.grid(axis="y", color=FAINT, linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
