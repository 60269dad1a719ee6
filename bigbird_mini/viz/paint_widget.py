"""paint_pattern: brush a pattern of your own, watch its figures, and train a small encoder with it.

The browser paints (paint.js) and sends the kinds of all cells; Python answers with the pattern, its figures and what it
lets a model know of each task. A training runs in a thread of its own, so that the page goes on answering.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import traitlets

from bigbird_mini.pattern import KIND_NAMES, BlockPattern
from bigbird_mini.plans import whole
from bigbird_mini.tasks import TASKS, Task
from bigbird_mini.viz.flow import joined_kinds
from bigbird_mini.viz.instrument import Instrument, script
from bigbird_mini.viz.paint import (
    COARSEST,
    FINEST,
    LARGEST,
    LAYERS,
    PRESETS,
    SMALLEST,
    ask,
    describe_painted,
    figure_rows,
    painted,
    predictions,
    task_of,
    task_rows,
)
from bigbird_mini.viz.paint_draw import draw_painted
from bigbird_mini.viz.paint_run import Run, train
from bigbird_mini.viz.words import counted

_GIVEN, _OWN = "the given pattern", "your own"
SECONDS = (5, 120)  # least and most
_KEPT = 6  # trainings; the curves of more could not be told apart


class PaintExplorer(Instrument):
    """The widget that `paint_pattern` returns; its settings can be changed from Python too.

    Attributes:
        kinds: uint8 bytes, N * N: the kind of each cell, 0 where it is not read; what one paints is of kind "other".
        preset: a name from `presets`, which paints that; "your own" otherwise.
        task, seconds: what is trained, and for how long at most. training: set it to start, unset it to stop.
        shape, erasing, mirror, hint: the reader's brush, and whether the cells that the task asks for are marked.
        pattern: the painted BlockPattern. runs: the trainings so far, oldest first; the last has `.model`, `.accuracy`.
    """

    _esm = script("paint.js")

    n_blocks = traitlets.Int(16).tag(sync=True)
    block_size = traitlets.Int(8).tag(sync=True)
    kinds = traitlets.Bytes().tag(sync=True, from_json=lambda value, _: bytes(value))
    preset = traitlets.Unicode().tag(sync=True)
    presets = traitlets.List().tag(sync=True)
    shape = traitlets.Unicode("cell").tag(sync=True)
    erasing = traitlets.Bool(False).tag(sync=True)
    mirror = traitlets.Bool(False).tag(sync=True)
    hint = traitlets.Bool(False).tag(sync=True)
    task = traitlets.Unicode("far copy").tag(sync=True)
    tasks = traitlets.List([[name, name] for name in TASKS]).tag(sync=True)
    seconds = traitlets.Int(30).tag(sync=True)
    training = traitlets.Bool(False).tag(sync=True)
    needs = traitlets.List().tag(sync=True)  # for each cell the share of the task's questions
    predicted = traitlets.List().tag(sync=True)  # accuracy by edges, by paths
    chance = traitlets.Float(Task.chance).tag(sync=True)
    curves = traitlets.List().tag(sync=True)  # of this task: number, planned steps, points, whether of this pattern
    progress = traitlets.Unicode().tag(sync=True)
    rows = traitlets.List().tag(sync=True)
    task_rows = traitlets.List().tag(sync=True)
    ask = traitlets.Unicode().tag(sync=True)

    def __init__(self, start: BlockPattern, given: bool, **settings: Any) -> None:
        n = start.n_blocks
        self._named = {_GIVEN: joined_kinds(start)} if given else {}
        self._named |= {name: joined_kinds(make(n)) for name, make in PRESETS.items()}
        self._pattern = painted(joined_kinds(start))
        self._quiet: int | None = None  # the thread that sets what the reader sees without answering to it
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self.runs: list[Run] = []
        super().__init__(title="Paint a pattern", n_blocks=n, kinds=joined_kinds(start).tobytes(), **settings)
        self.presets = [*self._named, _OWN]
        self.observe(self._changed, names=["kinds", "task", "seconds"])
        self.observe(self._on_preset, names=["preset"])
        self.observe(self._on_training, names=["training"])
        self._attempt(self._update)

    @property
    def pattern(self) -> BlockPattern:
        """The pattern in the picture: one head, for every layer."""
        return self._pattern

    def train(self) -> Run:
        """Train it now and wait for the end; the same as `training = True`, which does not wait."""
        self.training = True
        if (thread := self._thread) is not None:
            try:
                thread.join()
            except KeyboardInterrupt:
                self._stop.set()
                raise
        if self.problem:
            raise ValueError(self.problem)
        return self.runs[-1]

    def still(self) -> tuple[Any, str]:
        runs = list(self.runs)
        return (
            draw_painted(self._pattern, self.block_size, runs, self.task),
            describe_painted(self._pattern, self.block_size, runs),
        )

    # ---------------------------------------------------------------- answering a change

    def _changed(self, _change: Any) -> None:
        if self._quiet != threading.get_ident():
            self._attempt(self._update)

    def _on_preset(self, _change: Any) -> None:
        if self._quiet != threading.get_ident():
            self._attempt(self._take_preset)

    def _on_training(self, _change: Any) -> None:
        if self._quiet == threading.get_ident():
            return
        if not self.training:
            self._stop.set()
        elif self._thread is None:
            self._attempt(self._start)

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Set what the reader sees without answering to it; while the other thread waits for the lock."""
        before, self._quiet = self._quiet, threading.get_ident()
        try:
            yield
        finally:
            self._quiet = before

    def _take_preset(self) -> None:
        if self.preset not in self.presets:
            known = ", ".join(map(repr, self.presets))
            raise ValueError(f"preset={self.preset!r} is not known; allowed: {known}")
        if self.preset != _OWN:
            with self._quietly():
                self.kinds = self._named[self.preset].tobytes()
        self._update()

    def _update(self) -> None:
        """Cells and settings -> pattern, figures, predictions and words."""
        task = task_of(self.task, self.n_blocks, self.block_size)
        if not SECONDS[0] <= self.seconds <= SECONDS[1]:
            raise ValueError(f"seconds={self.seconds} is out of range; allowed are {SECONDS[0]} to {SECONDS[1]}")
        kinds = self._checked_kinds()
        p = self._pattern = painted(kinds)
        with self._quietly():
            self.preset = next((name for name, own in self._named.items() if np.array_equal(own, kinds)), _OWN)
        self.predicted = list(predictions(p, task))
        self.needs = task.needs(self.n_blocks).ravel().tolist()
        self.rows = figure_rows(p, self.block_size)
        self.ask = ask(task, self.block_size)
        self._show_runs()
        self.words = self._say()
        self.description = describe_painted(p, self.block_size, self.runs)

    def _checked_kinds(self) -> np.ndarray:
        """uint8 (N, N); what is no grid goes, and the last good one comes back."""
        n, given = self.n_blocks, np.frombuffer(self.kinds, np.uint8)
        if len(given) != n * n or given.max() >= len(KIND_NAMES):
            with self._quietly():
                self.kinds = self._pattern.kinds().numpy().tobytes()
            raise ValueError(f"{len(given)} bytes up to {given.max(initial=0)} are no grid of {n} x {n} kinds, 0 to 4")
        return given.reshape(n, n)

    def _say(self) -> str:
        p = self._pattern
        cells = int(p.grid().sum())
        edges, paths = self.predicted
        mine = [run for run in self.runs if run.task.name == self.task]
        now = f". {mine[-1]}" if mine and mine[-1].accuracy is not None else ""
        return (
            f"{counted(p.n_blocks, 'block')} of {self.block_size} tokens, {self.preset}: {counted(cells, 'cell')} "
            f"painted, density {p.density():.1%}; {self.task}: {edges:.0%} right if edges count, {paths:.0%} if paths "
            f"of {LAYERS} layers do{now}"
        )

    # ---------------------------------------------------------------- training

    def _start(self) -> None:
        try:
            self._update()
        except Exception:
            with self._quietly():
                self.training = False
            raise
        number = self.runs[-1].number + 1 if self.runs else 1
        run = Run(number, task_of(self.task, self.n_blocks, self.block_size), self._pattern, self.seconds)
        self.runs = [*self.runs, run][-_KEPT:]
        self._stop.clear()
        self._show_runs()
        self.words = f"Training {number} has started: {self.task}, at most {self.seconds} seconds"
        self._thread = threading.Thread(target=self._work, args=(run,), daemon=True)
        self._thread.start()

    def _work(self, run: Run) -> None:
        """In the thread."""
        failed = None
        try:
            train(run, self._tell, self._stop)
        except Exception as error:
            failed = error
        self._attempt(lambda: self._finish(run, failed))

    def _finish(self, run: Run, failed: Exception | None) -> None:
        """Show how it ended, and what went wrong."""
        self._thread = None
        if run.accuracy is None:
            self.runs = [other for other in self.runs if other is not run]
        with self._quietly():
            self.training = False
        self._update()
        if failed is not None:
            raise failed

    def _tell(self) -> None:
        with self._lock, self.hold_sync():
            self._show_runs()

    def _show_runs(self) -> None:
        """The curves of this task's trainings, and how they ended."""
        grid = self._pattern.grid()
        mine = [run for run in self.runs if run.task.name == self.task]
        self.curves = [
            {
                "number": run.number,
                "steps": run.steps,
                "points": list(run.points),
                "here": bool((run.pattern.grid() == grid).all()),
                "density": run.pattern.density(),
            }
            for run in mine
        ]
        self.progress = str(self.runs[-1]) if self.runs else ""
        self.task_rows = task_rows(self._pattern, self.block_size, self.runs)


def paint_pattern(
    pattern: int | BlockPattern = 16, block_size: int = 8, task: str = "far copy", seconds: int = 30
) -> PaintExplorer:
    """A grid to paint a pattern on, with live figures, and a small encoder to train with it.

    pattern: how many blocks (4 to 32), or a BlockPattern to start from, its heads taken together. task: "local copy",
    "broadcast", "far copy" or "lookup", see bigbird_mini.tasks. seconds: 5 to 120 that a training may take.
    Beside the grid stands what two layers of this pattern can know of each task, by edges and by paths; *Train it*
    tells whether that comes true. `.pattern` of the result is the painted BlockPattern, `.runs` are the trainings.
    Raises ValueError for sizes outside these and an unknown task; later settings show a sentence inside the widget.
    """
    given = isinstance(pattern, BlockPattern)
    n = pattern.n_blocks if given else whole(pattern, "n_blocks")
    for name, value, least, most in (
        ("n_blocks", n, SMALLEST, LARGEST),
        ("block_size", whole(block_size, "block_size"), FINEST, COARSEST),
        ("seconds", whole(seconds, "seconds"), *SECONDS),
    ):
        if not least <= value <= most:
            raise ValueError(f"{name}={value} is out of range; allowed are {least} to {most}")
    task_of(task, n, block_size)
    start = pattern if given else PRESETS["global"](n)
    return PaintExplorer(start, given, block_size=block_size, task=task, seconds=seconds)
