"""explore_distillation: the training dashboard, and beside it what teacher and student attend to, layer by layer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import torch
import traitlets
from matplotlib import colormaps
from matplotlib.colors import to_hex

from bigbird_mini.train import Trainer
from bigbird_mini.viz.distillation import Comparison, checked, comparison_of, describe_distillation, in_blocks
from bigbird_mini.viz.distillation_draw import AT_ONCE, draw_distillation
from bigbird_mini.viz.instrument import sentence
from bigbird_mini.viz.watch_run import BUSY, Run
from bigbird_mini.viz.watch_widget import TrainingDashboard, instead_of_the_last, run_and_limits
from bigbird_mini.viz.watch_words import Curve

_PACE, _SHARE = 0.5, 6  # seconds between two comparisons, at least; and so many times as long as the last one took
_MOST_TOKENS = 192  # that are shown as tokens: beyond it a cell is less than a pixel
_APART = "distance to the teacher"
SHADES = [to_hex(colormaps["cividis"](0.12 + 0.88 * k / 31)) for k in range(32)]


class DistillationDashboard(TrainingDashboard):
    """The widget that `explore_distillation` returns: a TrainingDashboard with the attention of teacher and student.

    Attributes:
        layer: the one that is shown. head: -1 for all. unit: "token" or "block", what a cell is.
        cell: [query, key] chosen by click or keyboard, [] before.
        comparison: what is shown, a `Comparison`. compared_at: after which step it was made.
        layer_rows: for each layer [missed mass, distance at the start, distance now].
    """

    layer = traitlets.Int(0).tag(sync=True)
    layers = traitlets.Int(0).tag(sync=True)
    head = traitlets.Int(-1).tag(sync=True)
    heads = traitlets.Int(0).tag(sync=True)
    unit = traitlets.Unicode("token").tag(sync=True)
    units = traitlets.List().tag(sync=True)
    block_size = traitlets.Int(1).tag(sync=True)
    labels = traitlets.List().tag(sync=True)
    size = traitlets.Int(0).tag(sync=True)
    teacher = traitlets.Bytes().tag(sync=True)
    student = traitlets.Bytes().tag(sync=True)
    read = traitlets.Bytes().tag(sync=True)
    shades = traitlets.List(SHADES).tag(sync=True)
    cell = traitlets.List().tag(sync=True)
    layer_rows = traitlets.List().tag(sync=True)
    compared_at = traitlets.Int(-1).tag(sync=True)

    def __init__(self, run: Run, limits: Mapping[str, Any], compare: Callable[[], Any]) -> None:
        self._look = compare
        self._comparison: Comparison | None = None
        self._before: list[float] = []  # distances at the start
        self._apart = Curve()
        self._looks, self._next_look, self._trouble = 0, 0.0, ""
        self._shown: tuple[Any, ...] = ()
        if run.state not in BUSY:
            self._compare(run)
        super().__init__(run, limits, title="Distillation")
        self.observe(self._on_view, names=["layer", "head", "unit"])

    @property
    def comparison(self) -> Comparison:
        """Raises ValueError where there is none yet."""
        if self._comparison is None:
            raise ValueError(self._trouble or "teacher and student are compared after the step under way")
        return self._comparison

    def still(self) -> tuple[Any, str]:
        if self._comparison is None:
            return super().still()
        return draw_distillation(self._comparison, self.layer, self.head, self._before), self._long()

    # ---------------------------------------------------------------- looking at both

    def _heard(self, loud: bool, resting: bool) -> None:
        late = resting and self._comparison_is_old()
        if late and (loud or time.monotonic() >= self._next_look):
            self._compare(self._run)
        super()._heard(loud, resting)

    def _comparison_is_old(self) -> bool:
        return self._apart.last[0] != self.trainer.steps_done or self._comparison is None

    def _compare(self, run: Run) -> None:
        """By whoever takes the steps, between two of them: a step under way changes the weights."""
        start, model = time.monotonic(), run.trainer.model
        training = model.training
        model.eval()
        try:
            with torch.no_grad():
                made = comparison_of(self._look())
        except Exception as error:
            self._trouble = f"Teacher and student could not be compared. {sentence(error)}"
        else:
            self._means, self._comparison, self._trouble = made.means(), made, ""
            self._before, self._looks = self._before or self._means[1], self._looks + 1
            self._apart.add(run.trainer.steps_done, sum(self._means[1]) / made.layers)
        finally:
            model.train(training)
        self._next_look = time.monotonic() + max(_PACE, _SHARE * (time.monotonic() - start))

    # ---------------------------------------------------------------- answering a change

    def _on_view(self, _change: Any) -> None:
        self._attempt(self._update)

    def _reason(self) -> str:
        return super()._reason() or self._trouble

    def _update(self) -> None:
        super()._update()
        if (made := self._comparison) is None:
            return
        missed, far = self._means
        self.layers, self.heads, self.block_size = made.layers, made.heads, made.block_size
        self.units = ["token", "block"] if made.n <= _MOST_TOKENS else ["block"]
        if not self._shown:
            self.unit = "token" if made.n <= AT_ONCE else "block"
        self.layer_rows = [list(row) for row in zip(missed, self._before, far, strict=True)]
        self.floors = {_APART: sum(missed) / made.layers}
        self.compared_at = self._apart.last[0]
        self._show(made)

    def _show(self, made: Comparison) -> None:
        """The maps of this layer and head, a float32 for each cell."""
        wanted = self._looks, self.layer, self.head, self.unit
        if wanted == self._shown:
            return
        if self.unit not in self.units:
            raise ValueError(f"unit={self.unit!r} is not known; allowed: {', '.join(map(repr, self.units))}")
        checked(made, self.layer, self.head)
        t, s, read = made.maps(self.layer, self.head)
        if self.unit == "block":
            t, s = in_blocks(t, made.block_size), in_blocks(s, made.block_size)
            read = in_blocks(read, made.block_size, rows_only=True)
        self.size, self.labels = len(t), list(made.tokens)
        self.teacher, self.student, self.read = (x.astype("<f4").tobytes() for x in (t, s, read))
        self._shown = wanted

    def _all_curves(self) -> dict[str, Curve]:
        curves = super()._all_curves()
        first = {name: curves[name] for name in ("loss",) if name in curves}
        return first | ({_APART: self._apart} if self._comparison else {}) | curves

    def _more_words(self) -> str:
        words = super()._more_words()
        if self._comparison is None:
            return words
        missed, far = ([f"{v:.2f}" for v in values] for values in self._means)
        which = f"layer {self.layer}, {f'head {self.head}' if self.head >= 0 else 'all heads'}, {self.unit}s"
        apart = f"distance to the teacher, by layer: {', '.join(far)}; missed mass: {', '.join(missed)}"
        return f"; {apart}; maps of {which}{words}"

    def _long(self) -> str:
        words = super()._long()
        if self._comparison is None:
            return words
        return f"{describe_distillation(self._comparison, self.layer, self.head, self._before)}\n{words}"

    def _question(self) -> str:
        if self.state == "ready":
            return (
                "A dot marks a key that the student cannot read. Which layer will come closest to its teacher, and how "
                "close at best? Say it, then press start."
            )
        return super()._question()


def explore_distillation(
    trainer: Trainer,
    compare: Callable[[], Any] | None = None,
    dials: MutableMapping[str, float] | None = None,
    limits: Mapping[str, tuple[float, float]] | None = None,
) -> DistillationDashboard:
    """The dashboard of `watch`, and beside it the attention of teacher and student, and what the student must miss.

    compare: a function without arguments that returns anything with the attributes ``teacher`` and ``student`` (for
    each layer of the student the weights of one and the same text, a tensor (H, n, n) or a BlockWeights; the teacher's
    whole softmax), ``patterns`` (the student's BlockPatterns, one for each layer), ``block_size``, and perhaps
    ``tokens`` (n words; what lies behind them is padding). It is called between two steps, in evaluation mode, without
    gradients, every half second at most. None takes ``trainer.model.compare``.
    dials, limits: as in `watch`; for a distillation the temperature and the weights of the terms of its loss.

    Raises TypeError where there is no function to compare with; what it returns wrongly is shown in the dashboard.
    """
    compare = getattr(getattr(trainer, "model", None), "compare", None) if compare is None else compare
    if not callable(compare):
        raise TypeError("compare must be a function that returns what teacher and student attend to; see help")
    run, limits = run_and_limits(trainer, dials, limits)
    return instead_of_the_last(DistillationDashboard(run, limits, compare))
