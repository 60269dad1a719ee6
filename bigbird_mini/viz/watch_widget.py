"""watch: a training as an instrument: live curves, dials for what its loss reads, start, pause, resume, stop.

The steps are taken by a thread (watch_run.py), so that the page and the other cells go on meanwhile. What the browser
gets are the curves, a few hundred means each, at most four times a second.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

import traitlets

from bigbird_mini.train import Trainer
from bigbird_mini.viz.instrument import Instrument, script, sentence
from bigbird_mini.viz.watch_draw import draw_training
from bigbird_mini.viz.watch_run import BUSY, Run, limits_of, number, places
from bigbird_mini.viz.watch_words import Curve, called, describe_training, in_words, panels, planned, short

_PACE = 0.25  # seconds from one picture to the next, at least
_SHARE = 5  # and so many times as long as the last one took, so that looking does not slow the training down
_made: dict[str, tuple[str, list[TrainingDashboard]]] = {}  # cell -> the request that ran it, and its dashboards
_ORDERS = ("start", "one step", "pause", "resume", "stop")
_SAID = {
    "ready": "Ready",
    "running": "Training",
    "pausing": "Pausing after the step under way",
    "stopping": "Stopping after the step under way",
    "paused": "Paused",
    "stopped": "Stopped",
    "failed": "Failed",
    "finished": "Finished",
}


class TrainingDashboard(Instrument):
    """The widget that `watch` returns; `start()`, `pause()`, `resume()`, `stop()` and `wait()` do what its buttons do.

    Attributes:
        trainer: the Trainer that is watched. state: "ready", "running", "pausing", "paused", "stopping", "stopped",
            "failed" or "finished". done, total: steps. error: the exception that ended it, where it failed.
        dials: name -> value; set the whole mapping to turn them from Python. limits: name -> (lowest, highest).
        at: the step whose values are shown, -1 for the last one.
    """

    _esm = script("distillation.js", "watch.js")

    state = traitlets.Unicode().tag(sync=True)
    done = traitlets.Int(0).tag(sync=True)
    total = traitlets.Int(0).tag(sync=True)
    order = traitlets.List().tag(sync=True)
    at = traitlets.Int(-1).tag(sync=True)
    dials = traitlets.Dict().tag(sync=True)
    places = traitlets.Dict().tag(sync=True)
    curves = traitlets.Dict().tag(sync=True)
    panels = traitlets.List().tag(sync=True)
    floors = traitlets.Dict().tag(sync=True)
    plan = traitlets.List().tag(sync=True)
    marks = traitlets.List().tag(sync=True)
    rows = traitlets.List().tag(sync=True)
    ask = traitlets.Unicode().tag(sync=True)

    def __init__(self, run: Run, limits: Mapping[str, tuple[float, float]], **settings: Any) -> None:
        self._run = run
        self._quiet_until, self._quarter, self._following = 0.0, 0, False
        self.limits = dict(limits)
        super().__init__(**{"title": "Training", **settings})
        given = run.trainer.settings
        self.total, self.plan = given.steps, [list(part) for part in planned(given)]
        self.dials = run.settings()
        self.places = {name: places(value, *self.limits[name]) for name, value in self.dials.items()}
        self.observe(self._on_dials, names=["dials"])
        self.observe(self._on_order, names=["order"])
        self._attempt(self._update)
        run.join(self._heard)

    # a thread changes what is shown while the kernel's answers the browser: one after the other
    def set_state(self, sync_data: dict[str, Any]) -> None:
        with self._lock:
            super().set_state(sync_data)

    def notify_change(self, change: Any) -> None:
        with self._lock:
            super().notify_change(change)

    # ---------------------------------------------------------------- for Python

    @property
    def trainer(self) -> Trainer:
        return self._run.trainer

    @property
    def error(self) -> BaseException | None:
        return self._run.error

    def start(self, steps: int | None = None) -> None:
        """Take the steps that are left, or so many of them, in a thread; other cells can run meanwhile.

        What torch draws at random in those cells mixes with the training's draws: pause it where that matters.
        Raises ValueError where all steps are done, or it is under way already.
        """
        self._run.start(steps)

    resume = start

    def pause(self) -> None:
        """Stop after the step under way; `resume` goes on with the same bits as if there had been no break."""
        self._run.pause()

    def stop(self) -> None:
        """The same, for good; a checkpoint is left where the trainer has a folder."""
        self._run.stop()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the training pauses or ends, so long at most; True if it has. For notebooks that run unattended.

        Interrupting the kernel meanwhile pauses the training.
        """
        return self._run.wait(seconds)

    def close(self) -> None:
        """Remove the widget; where no other dashboard watches this trainer, its training pauses and the thread ends."""
        self._run.leave(self._heard)
        self._attempt(self._update)  # what became of it, for those who still hold it
        super().close()

    def still(self) -> tuple[Any, str]:
        arguments = list(self.trainer.history), self.trainer.settings, list(self._run.marks)
        return draw_training(*arguments), describe_training(*arguments)

    # ---------------------------------------------------------------- answering a change

    def _attempt(self, work: Any) -> None:
        """As always, but what ended the training stays to be read until it goes on."""
        with self._lock, self.hold_sync():
            super()._attempt(work)
            self.problem = self.problem or self._reason()

    def _reason(self) -> str:
        error = self._run.error
        return "" if error is None else " ".join([sentence(error), *getattr(error, "__notes__", [])])

    def _on_order(self, _change: Any) -> None:
        self._attempt(self._obey)

    def _obey(self) -> None:
        name = self.order[-1] if self.order else ""
        if name not in _ORDERS:
            raise ValueError(f"order={name!r} is not known; allowed: {', '.join(map(repr, _ORDERS))}")
        if name in ("pause", "stop"):
            getattr(self, name)()
        else:
            self.start(1 if name == "one step" else None)

    def _on_dials(self, _change: Any) -> None:
        if not self._following:
            self._attempt(self._turn)

    def _turn(self) -> None:
        known = self._run.settings()
        if set(self.dials) != set(known):
            raise ValueError(f"the dials are {', '.join(known) or 'none'}, not {', '.join(self.dials) or 'none'}")
        for name, value in self.dials.items():
            low, high = self.limits[name]
            if not low <= number(name, value) <= high:
                raise ValueError(f"dial {name!r} is {value:g}; allowed are {low:g} to {high:g}")
        for name, value in self.dials.items():
            if value != known[name]:
                self._run.turn(name, float(value))
        self._update()

    def _heard(self, loud: bool, resting: bool) -> None:
        """After a step, or when the state has changed. Most steps are passed over; a quarter of all is said aloud."""
        quarter = 4 * self.trainer.steps_done // self.total
        if loud or quarter != self._quarter:
            self._quarter = quarter
            self._attempt(self._update)
        elif time.monotonic() >= self._quiet_until:
            with self._lock, self.hold_sync():
                try:
                    self._update()
                except Exception as error:
                    self.problem = sentence(error)

    def _update(self) -> None:
        start = time.monotonic()
        run, given = self._run, self.trainer.settings
        self.state, self.done = run.state, self.trainer.steps_done
        self._follow()
        self.curves = {name: self._points(curve) for name, curve in self._all_curves().items()}
        names = panels(self.curves)
        self.panels = names + [name for name in ("loss", "learning_rate") if name not in names]
        self.marks = [list(mark) for mark in run.marks]
        self.rows = self._rows()
        loss = run.curves.get("loss")
        now = f", loss {short(loss.last[1])}" if loss else ""
        self.words = f"{_SAID[self.state]}: step {self.done:,} of {given.steps:,}{now}{self._more_words()}"
        self.description = self._long()
        self.ask = self._question()
        self._quiet_until = time.monotonic() + max(_PACE, _SHARE * (time.monotonic() - start))

    def _follow(self) -> None:
        """Show a dial that the training itself has turned (a temperature that falls, say)."""
        settings = self._run.settings()
        if self.dials != settings and self.state in BUSY and all(map(math.isfinite, settings.values())):
            self._following = True
            self.dials = settings
            self._following = False

    def _all_curves(self) -> dict[str, Curve]:
        return {name: curve for name, curve in self._run.curves.items() if name != "seconds"}

    @staticmethod
    def _points(curve: Curve) -> list[Any]:
        """[steps, values, how many values are in a mean], with as many digits as a picture has use for."""
        return [*([float(f"{v:.5g}") for v in part] for part in curve.points()), curve.each]

    def _rows(self) -> list[list[str]]:
        history, given = self.trainer.history, self.trainer.settings
        seconds = [row["seconds"] for row in history[-20:]]
        rows = [["steps", f"{self.done:,} of {given.steps:,}"]]
        if seconds:
            each = statistics.median(seconds)
            rows += [["a step takes", _duration(each)]]
            left = each * (given.steps - self.done)
            rows += [["still to go", f"about {_duration(left)}"]] if left else []
        folder = self.trainer.folder
        if folder is not None and self.done and (path := folder / f"step_{self.done:08d}").exists():
            rows.append(["checkpoint", path.name])
        return rows

    def _more_words(self) -> str:
        return "".join(f"; {called(name)} {value:g}" for name, value in self.dials.items())

    def _long(self) -> str:
        return in_words(self._run.curves, self.done, self.trainer.settings, self._run.marks)

    def _question(self) -> str:
        if self.state == "ready":
            return f"Say it before you start: where will the loss be after {self.total:,} steps? Then press start."
        if self.state == "failed":
            return "Read why it failed. Mend it in a cell, then press resume: the step that failed is tried again."
        if self.dials and self.state != "finished":
            return "Turn a dial while it trains. Which curve bends, and which way? A dashed line marks the step."
        return "Point at a curve. Where did it learn fastest, and where did it learn nothing any more?"


def watch(
    trainer: Trainer,
    dials: MutableMapping[str, float] | None = None,
    limits: Mapping[str, tuple[float, float]] | None = None,
) -> TrainingDashboard:
    """A dashboard for a Trainer: its curves while it trains, start, pause, resume and stop, and dials for its loss.

    The steps are taken in a thread: the page answers and other cells run meanwhile. Steps taken in a cell
    (``trainer.run()``) are drawn too. Every finite number of a record is a curve, so a callback that adds to the record
    adds a curve: ``callbacks=[lambda trainer, record: record.update(terms)]``.

    dials: a dict of named numbers that the training's own code reads in every step, such as a temperature or the weight
    of a term of the loss; the dashboard writes the new number into it between two steps. None takes
    ``trainer.model.dials``, where the model has that. Dials are not in checkpoints: who resumes sets them.
    limits: (lowest, highest) for each dial; None takes ``trainer.model.dial_limits``, else 0 to four times the value.

    Run a cell again and the dashboard it made before closes; a closed dashboard pauses its training. What ends a
    training is shown in the dashboard. Raises TypeError or ValueError for what is no Trainer, and for dials that are no
    numbers or outside their limits.
    """
    return instead_of_the_last(TrainingDashboard(*run_and_limits(trainer, dials, limits)))


def run_and_limits(
    trainer: Trainer, dials: MutableMapping[str, float] | None, limits: Mapping[str, tuple[float, float]] | None
) -> tuple[Run, Mapping[str, tuple[float, float]]]:
    """What a dashboard is made of, from the arguments of `watch`."""
    run = Run.of(trainer, dials)
    if limits is None:
        limits = getattr(trainer.model, "dial_limits", {}) if dials is None else {}
    try:
        return run, limits_of(run.settings(), limits)
    except ValueError:
        run.leave()
        raise


def instead_of_the_last(dashboard: TrainingDashboard) -> TrainingDashboard:
    """Close what the same cell of the notebook made when it ran before: nobody sees it any more, and it may train."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    request = shell.get_parent() if hasattr(shell, "get_parent") else {}
    cell, run = request.get("metadata", {}).get("cellId"), request.get("header", {}).get("msg_id")
    if cell:
        before, made = _made.get(cell, (run, []))
        if before != run:
            for old in made:
                old.close()
            made = []
        _made[cell] = (run, [*made, dashboard])
    return dashboard


def _duration(seconds: float) -> str:
    """ "12 ms", "3.4 s", "5 min"."""
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:,.0f} min"
