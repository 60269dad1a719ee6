"""The records of a training, as a list and as curves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Record = dict[str, Any]
_ON_REQUEST = ("step", "seconds", "gradient_norm")


class History(list[Record]):
    """A dict for each step, oldest first: step, loss, learning_rate, gradient_norm, seconds, and what was evaluated."""

    def column(self, name: str) -> tuple[list[int], list[float]]:
        """The steps that have this value, and the values."""
        rows = [row for row in self if name in row]
        return [row["step"] for row in rows], [row[name] for row in rows]

    def plot(self, *names: str) -> Figure:
        """A matplotlib Figure with a panel for each name; without names: the loss, the rate, and what was evaluated.

        Raises ValueError for a name that no step has, and before the first step.
        """
        from matplotlib.figure import Figure

        if not self:
            raise ValueError("the history is empty: there is nothing to plot before the first step")
        known = list(dict.fromkeys(name for row in self for name in row))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise ValueError(f"no step has {unknown[0]!r}; there are {', '.join(known)}")
        shown = names or tuple(name for name in known if name not in _ON_REQUEST)
        figure = Figure(figsize=(4.2 * len(shown), 3.2), layout="constrained", facecolor="white")
        for axes, name in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            steps, values = self.column(name)
            axes.plot(steps, values, "o-" if len(values) < 20 else "-", markersize=3, color="#0072B2")
            axes.set(title=name.replace("_", " "), xlabel="step")
            axes.grid(alpha=0.3)
        return figure
