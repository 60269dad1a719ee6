"""A training that can be started, paused and stopped: its Trainer runs in a thread, its dials turn between steps."""

from __future__ import annotations

import atexit
import math
import threading
import weakref
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from bigbird_mini.train import Trainer
from bigbird_mini.viz.watch_words import Curve, Mark, curves_of, measured

BUSY = ("running", "pausing", "stopping")
_PLACES = 40  # of a dial
_WAIT = 5.0  # seconds that a closed dashboard, or the end of Python, waits for the step under way
Listener = Callable[[bool, bool], None]
_with_threads: weakref.WeakSet[Run] = weakref.WeakSet()


class Run:
    """A Trainer, the thread that takes its steps, and its dials; several dashboards may share it.

    It is one of the trainer's callbacks, so steps that a cell takes with ``trainer.run()`` are seen too. There is a
    thread only while it trains: a paused training has none.

    Attributes:
        state: "ready", "running", "pausing", "paused", "stopping", "stopped", "failed" or "finished".
        error: what ended it, where it failed. curves: name -> Curve. marks: which dial was turned after which step.
        dials: the mapping that the training reads; turn them with `turn`.
    """

    def __init__(self, trainer: Trainer, dials: MutableMapping[str, float]) -> None:
        self.trainer, self.dials = trainer, dials
        self.error: BaseException | None = None
        self.marks: list[Mark] = []
        self.curves: dict[str, Curve] = curves_of(trainer.history)
        self._known = len(trainer.history)  # records that are in the curves
        self._waiting: dict[str, float] = {}  # turned while a step was under way
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._listeners: list[Listener] = []
        self.state = "finished" if self._all_done() else "paused" if trainer.steps_done else "ready"

    @classmethod
    def of(cls, trainer: Trainer, dials: MutableMapping[str, float] | None = None) -> Run:
        """The run of this trainer, a new one where nobody watches it yet.

        dials: None takes the model's own, ``trainer.model.dials``, where it has some.
        """
        if not isinstance(trainer, Trainer):
            raise TypeError(f"a bigbird_mini.train.Trainer is needed here, not {type(trainer).__name__}")
        dials = getattr(trainer.model, "dials", {}) if dials is None else dials
        if not isinstance(dials, MutableMapping):
            raise TypeError(f"dials must be a dict of numbers that the training reads, not {type(dials).__name__}")
        for name, value in dials.items():
            number(name, value)
        for callback in trainer.callbacks:
            if isinstance(callback, Run):
                callback.dials = dials
                return callback
        run = cls(trainer, dials)
        trainer.callbacks = [*trainer.callbacks, run]
        return run

    # ---------------------------------------------------------------- orders

    def start(self, steps: int | None = None) -> None:
        """Take the steps that are left, or so many of them, in a thread; after a failure, the step that failed again.

        Raises ValueError where nothing is left, or it is under way.
        """
        with self._lock:
            if self.state in BUSY:
                raise ValueError(f"it is {self.state} already; one training goes on at a time")
            if self._all_done():
                raise ValueError(
                    f"all {self.trainer.settings.steps} steps are done; for more, make a Trainer with larger steps="
                )
            self.state, self.error = "running", None
            self._thread = threading.Thread(target=self._work, args=(steps,), name="bigbird_mini training", daemon=True)
            _with_threads.add(self)
            self._thread.start()
        self._tell(loud=True, resting=False)

    def pause(self) -> None:
        """Let the step under way end. Like every end of a run it leaves a checkpoint, where there is a folder."""
        self._end_with("pausing")

    def stop(self) -> None:
        """The same, and say that this is the end; `start` would go on from there all the same."""
        self._end_with("stopping")

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it pauses or ends; False where that takes longer. Ctrl-C pauses it."""
        try:
            if (thread := self._thread) is not None and thread is not threading.current_thread():
                thread.join(seconds)
        except KeyboardInterrupt:
            self.pause()
            raise
        return self.state not in BUSY

    def turn(self, name: str, value: float) -> None:
        """Set a dial: between two steps, where one is under way, so that a step never sees two values of it."""
        with self._lock:
            if self.state in BUSY:
                self._waiting[name] = value
            else:
                self._set(name, value)

    def settings(self) -> dict[str, float]:
        """The dials as they are or will be with the next step."""
        with self._lock:
            return {**self.dials, **self._waiting}

    # ---------------------------------------------------------------- listeners

    def join(self, listener: Listener) -> None:
        """Call `listener(loud, resting)` after every step and when the state has changed, which is loud; in whichever
        thread that happens. resting: no step is under way.
        """
        self._listeners = [*self._listeners, listener]

    def leave(self, listener: Listener | None = None) -> None:
        """No more calls. With nobody left the training pauses, its thread ends, and the trainer forgets this run."""
        self._listeners = [one for one in self._listeners if one != listener]
        if not self._listeners:
            self._end_with("pausing")
            self.wait(_WAIT)
            self.trainer.callbacks = [one for one in self.trainer.callbacks if one is not self]

    def __call__(self, trainer: Trainer, record: dict[str, Any]) -> None:
        """After every step; the trainer calls it."""
        if self._known + 1 != len(trainer.history):  # resumed from a checkpoint: another past
            self.curves = curves_of(trainer.history)
        else:
            for name, value in measured(record).items():
                self.curves.setdefault(name, Curve()).add(record["step"], value)
        self._known = len(trainer.history)
        with self._lock:
            waiting, self._waiting = self._waiting, {}
            for name, value in waiting.items():
                self._set(name, value)
            if self.state in ("pausing", "stopping"):
                trainer.stop()
            elif self.state not in BUSY:  # a cell takes the steps
                self.state, self.error = ("finished" if self._all_done() else "paused"), None
        self._tell(loud=False, resting=True)

    # ---------------------------------------------------------------- inside

    def _work(self, steps: int | None) -> None:
        try:
            self.trainer.run(steps, progress=False)
            error = None
        except (Exception, KeyboardInterrupt) as caught:
            error = caught
        with self._lock:
            for name, value in self._waiting.items():
                self._set(name, value)
            self._waiting, self.error = {}, error
            stopped = "stopped" if self.state == "stopping" else "paused"
            self.state = "failed" if error else "finished" if self._all_done() else stopped
            _with_threads.discard(self)
        self._tell(loud=True, resting=True)

    def _end_with(self, state: str) -> None:
        with self._lock:
            if self.state not in BUSY:
                return
            self.state = state  # seen after the step under way
        self._tell(loud=True, resting=False)

    def _set(self, name: str, value: float) -> None:
        before = self.dials[name]
        self.dials[name] = value
        if before != value:
            self.marks.append((self.trainer.steps_done, f"{name} {before:g} → {value:g}"))

    def _all_done(self) -> bool:
        return self.trainer.steps_done >= self.trainer.settings.steps

    def _tell(self, loud: bool, resting: bool) -> None:
        for listener in self._listeners:
            listener(loud, resting)


def number(name: str, value: Any) -> float:
    """The value of a dial, or one sentence about what is wrong with it."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"dial {name!r} is {value!r}; it must be a finite number")
    return float(value)


def limits_of(dials: Mapping[str, float], given: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """(lowest, highest) for each dial: as given, else from 0 to four times its value (to 1 where it is 0)."""
    unknown = [name for name in given if name not in dials]
    if unknown:
        raise ValueError(f"limits for {unknown[0]!r}, which is no dial; there are {', '.join(dials) or 'none'}")
    found = {}
    for name, value in dials.items():
        low, high = given.get(name, (min(0.0, 4 * value), max(0.0, 4 * value) or 1.0))
        if not low <= value <= high:
            raise ValueError(f"dial {name!r} is {value}, outside its limits {low:g} to {high:g}")
        found[name] = (float(low), float(high))
    return found


def places(value: float, low: float, high: float) -> list[float]:
    """Where a dial can stand: even steps; equal ratios where it goes from above 0 to eight times that or more."""
    ratio = low > 0 and high / low >= 8
    steps = [k / _PLACES for k in range(_PLACES + 1)]
    raw = [low * (high / low) ** k if ratio else low + (high - low) * k for k in steps]
    return sorted({*(float(f"{v:.3g}") for v in raw[1:-1]), low, high, value})


@atexit.register
def _end_all() -> None:
    """Python ends, or a kernel restarts: a thread inside torch would be torn off."""
    for run in list(_with_threads):
        run.pause()
        run.wait(_WAIT)
