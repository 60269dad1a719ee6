"""A training in numbers and words: its curves, kept short however long it lasts, and what they say."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bigbird_mini.train import TrainSettings

POINTS = 150  # a curve has at most twice as many
LAST = ("learning_rate", "gradient_norm")  # panels that stand behind what is learned
Mark = tuple[int, str]  # after which step, and what was changed


class Curve:
    """One number, step by step, as at most 300 means of equally many values each.

    Attributes: first, last, least: (step, value), of the values themselves. each: values in one mean.
    """

    def __init__(self) -> None:
        self.each = 1
        self.first = self.last = self.least = (0, math.nan)
        self._sums: list[list[float]] = []  # [steps, values, how many]

    def add(self, step: int, value: float) -> None:
        self.last = (step, value)
        if not self._sums:
            self.first = self.least = self.last
        elif value < self.least[1]:
            self.least = self.last
        if self._sums and self._sums[-1][2] < self.each:
            self._sums[-1] = [a + b for a, b in zip(self._sums[-1], (step, value, 1), strict=True)]
            return
        if len(self._sums) == 2 * POINTS:
            pairs = zip(self._sums[::2], self._sums[1::2], strict=True)
            self._sums = [[a + b for a, b in zip(*pair, strict=True)] for pair in pairs]
            self.each *= 2
        self._sums.append([step, value, 1])

    def points(self) -> tuple[list[float], list[float]]:
        """Steps, and values, each a mean."""
        return [s / k for s, _, k in self._sums], [v / k for _, v, k in self._sums]


def measured(record: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers of a record, without the step."""
    return {
        name: float(value)
        for name, value in record.items()
        if name != "step" and isinstance(value, int | float) and math.isfinite(value)
    }


def curves_of(history: Iterable[Mapping[str, Any]]) -> dict[str, Curve]:
    """name -> Curve, of all that the records measured."""
    found: dict[str, Curve] = {}
    for record in history:
        for name, value in measured(record).items():
            found.setdefault(name, Curve()).add(record["step"], value)
    return found


def panels(names: Iterable[str]) -> list[str]:
    """Which curves are drawn, in order: the loss, what else was recorded, the learning rate, the gradient."""
    return [*(name for name in names if name not in (*LAST, "seconds")), *(name for name in LAST if name in names)]


def planned(settings: TrainSettings) -> tuple[list[int], list[float]]:
    """Steps and learning rates, before any is taken: enough of them to draw the line, its peak among them."""
    stride = max(1, settings.steps // 100)
    steps = sorted({*range(1, settings.steps + 1, stride), settings.peak, settings.steps})
    return steps, [settings.rate(step) for step in steps]


def describe_training(
    history: Sequence[Mapping[str, Any]], settings: TrainSettings | None = None, marks: Sequence[Mark] = ()
) -> str:
    """A training in words: how far it is, and for each curve its first, its last and its lowest value.

    history: a list of records, such as ``trainer.history``. settings: with them, how many steps there are to be and the
    plan of the learning rate. marks: (step, what was changed after it).
    """
    return in_words(curves_of(history), int(history[-1]["step"]) if history else 0, settings, marks)


def in_words(
    curves: Mapping[str, Curve], done: int, settings: TrainSettings | None = None, marks: Sequence[Mark] = ()
) -> str:
    """`describe_training`, of curves that are there already."""
    total = f" of {settings.steps:,}" if settings else ""
    lines = [f"{done:,}{total} steps are done."]
    lines += [_line(name, curves[name]) for name in panels(curves)]
    if settings:
        rate = f"{settings.learning_rate:g}"
        warm = f"rises to {rate} at step {settings.peak:,}" if settings.peak > 1 else f"starts at {rate}"
        end = f"falls to {settings.rate(settings.steps):.2g} at the last step"
        end = "stays there" if settings.decay == "constant" else end
        lines.append(f"The learning rate {warm} and {end} ({settings.decay}).")
    lines += [f"After step {step:,}: {words}." for step, words in marks]
    return "\n".join(lines)


def _line(name: str, curve: Curve) -> str:
    (first, start), (last, now), (at, least) = curve.first, curve.last, curve.least
    words = f"{called(name)}: {short(start)} at step {first:,}"
    if last > first:
        words += f", {short(now)} at step {last:,}, "
        words += "its lowest" if at == last else f"lowest {short(least)} at step {at:,}"
    return f"{words}."


def called(name: str) -> str:
    """The name of a curve, for reading."""
    return name.replace("_", " ")


def short(value: float) -> str:
    """Three or four digits: 2.77, 0.00031, 12,300."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
