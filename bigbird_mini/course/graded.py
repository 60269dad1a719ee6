"""An exercise notebook as pytest sees it: one test for each task, named after it, and one for each other code cell.

What a check scored is read from the record that it displays while it runs here, never from text and never from the
file. The check cells run as the manifest has them, with the course's own `check`. A task that leaves no record gets
none of its points and a sentence that says why; the other tasks are graded all the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import kernel
from .kernel import Kernels, Ran, Session
from .limits import Limits, from_options
from .submission import Cell, Row, Unreadable, cells_of, copies, in_order, load, owners

OUTCOMES = ("right", "wrong", "not attempted", "error")  # those of checking.LOOKS
NOT_RUN = "not run"  # the outcome of a task whose check never started
WHY_CHARACTERS = 2000
TRACE_LINES = 40
SKIP = {"nbval-skip"}
MAY_RAISE = {"raises-exception", "nbval-raises-exception"}


class CellFailed(Exception):
    """A cell failed; the message is the whole report that a reader needs."""


class GradedNotebook(pytest.File):
    """One learner's (or the solution's) notebook. `rows` are its tasks in the manifest."""

    rows: list[Row] = []  # noqa: RUF012  set by the plugin on each object, as is `kernels`
    kernels: Kernels
    session: Session | None = None
    no_kernel = ""

    def setup(self) -> None:
        self.kernels.wanted -= 1
        try:
            self.session = Session(self.path.parent, self.limits, self.kernels)
        except Exception as error:
            self.no_kernel = f"the notebook's kernel did not start ({_first(type(error).__name__, str(error))})"

    def teardown(self) -> None:
        if self.session:
            self.session.close()

    def collect(self) -> Iterator[pytest.Item]:
        self.limits: Limits = from_options(self.config.option)
        self.order: list[GradedCell] = []
        self.broken: list[tuple[str, str]] = []
        fault, cells = "", []
        try:
            cells = cells_of(load(self.path, self.limits.size_mb))
        except Unreadable as error:
            fault = str(error)
        owned = owners(cells, self.rows)
        copied = copies(cells, owned)
        for place in in_order(cells, owned):
            if cells[place].kind != "code":
                continue
            number = sum(cell.kind == "code" for cell in cells[: place + 1])
            item = GradedCell.from_parent(self, name=_name(cells[place], number, owned.get(place)))
            item.adopt(cells[place], owned.get(place), copied.get(place))
            self.order.append(item)
            yield item
        found = [row["task"] for row in owned.values()]
        for row in self.rows:
            if row["task"] not in found:
                lost = LostTask.from_parent(self, name=f"task {row['task']} {row['title']}")
                restore = f"python -m bigbird_mini.course restore {self.path.name}"
                lost.row, lost.why = row, f"{fault or 'Its check cell is missing'}. Mend it with: {restore}"
                yield lost


def _name(cell: Cell, number: int, row: Row | None) -> str:
    if row:
        return f"task {row['task']} {row['title']}"
    first = next((line.strip() for line in cell.source.splitlines() if line.strip()), "empty")
    return f"cell {number} «{plain(first)[:40]}»"


class _Graded(pytest.Item):
    """What a check cell and a missing one share: the properties of a task's report."""

    row: Row | None = None

    def score(self, points: int, outcome: str, why: str, seconds: float = 0.0) -> None:
        """Leave the score in the report; raise CellFailed with the reason unless it is right."""
        row, why = self.row, plain(why)[:WHY_CHARACTERS]
        task = {"notebook": self.parent.nodeid, "task": row["task"], "title": row["title"], "points": points}
        task |= {"max": row["max"], "outcome": outcome, "why": why, "seconds": round(seconds, 2)}
        self.user_properties += task.items()  # single values: JUnit files hold properties as text
        if outcome != "right":
            raise CellFailed(f"Task {row['task']} ({row['title']}): {outcome}, {points}/{row['max']} points\n{why}")

    def reportinfo(self) -> tuple[Path, int, str]:
        # not the bare name: where a test's id ends in this text, pytest shows task 1.1 as 1::1
        return self.path, 0, f"{self.path.name}: {self.name}"

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> Any:
        if isinstance(excinfo.value, CellFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo)


class LostTask(_Graded):
    """A task whose check cell is not there."""

    why = ""

    def runtest(self) -> None:
        self.score(0, NOT_RUN, self.why)


class GradedCell(_Graded):
    """A code cell of an exercise: a task's test where it is the task's check cell."""

    ran: Ran | None = None
    note = ""

    def adopt(self, cell: Cell, row: Row | None, copied: Row | None) -> None:
        """Make this item that cell: the check cell of `row`, or a copy of another check cell, or an ordinary one."""
        self.cell, self.row, self.copied = cell, row, copied
        if row and cell.source.strip() != row["source"].strip():
            self.note = " (This check cell was edited; the original was run.)"

    @property
    def skipped(self) -> bool:
        # no tag may skip a check cell
        return not self.row and bool(self.copied or SKIP & set(self.cell.tags))

    def runtest(self) -> None:
        if self.copied:
            pytest.skip(f"a copy of the check of task {self.copied['task']}: only the last one counts")
        if self.skipped:
            pytest.skip("its tags say so")
        for earlier in self.parent.order[: self.parent.order.index(self)]:
            # those left out by -k, or by naming one test
            if not (earlier.ran or earlier.row or earlier.skipped):
                earlier.run_cell()
        ran = self.run_cell()
        if self.row:
            self._score(ran)
        elif fault := self._fault(ran):
            self.user_properties += {"notebook": self.parent.nodeid, "cell": self.name, "why": fault}.items()
            trace = [plain(line) for block in ran.traceback for line in block.splitlines()]
            raise CellFailed("\n".join([f"{self.name}: {fault}", "", *trace[-TRACE_LINES:]]).rstrip())

    def run_cell(self) -> Ran:
        """Run the cell; remembers what went wrong for the tasks that build on it."""
        book = self.parent
        if book.no_kernel:
            self.ran = Ran(fault=book.no_kernel)
        elif self.row:
            ask = f"check is {kernel.GENUINE}"
            if book.session.run("", ask).value == "False":
                self.note += " (This notebook has a `check` of its own; the course's was run.)"
            self.ran = book.session.run(kernel.GENUINE + self.row["source"].strip().removeprefix("check"))
        else:
            self.ran = book.session.run(self.cell.source)
            if fault := self._fault(self.ran):
                book.broken.append((self.name, fault))
        return self.ran

    def _fault(self, ran: Ran) -> str:
        """What went wrong in the cell, in a few words; "" where nothing did."""
        limits = self.parent.limits
        if ran.fault:
            return {
                "time": f"stopped after {min(limits.cell_seconds, ran.seconds):.3g} s: "
                "an endless loop, or far too slow",
                "file time": f"not run: earlier cells used up the {limits.file_seconds:g} s of this file",
                "memory": f"stopped: it took more than {limits.memory_mb:g} MB of memory",
                "output": f"stopped: it printed more than {limits.output_mb:g} MB",
                "died": "the kernel died while this cell ran (a crash, or out of memory)",
            }.get(ran.fault, ran.fault)
        if ran.ename == "StdinNotImplementedError":
            return "input() waits for somebody to type, and nobody is there"
        if ran.ename and not (MAY_RAISE & set(self.cell.tags) and not self.row):
            return _first(ran.ename, ran.evalue)
        return "exit() would end the notebook here; it was passed over" if ran.wants_exit else ""

    def _score(self, ran: Ran) -> None:
        """The points of this task, from what its check displayed just now."""
        record = next((r for r in reversed(ran.records) if r.get("task") == self.row["task"]), {})
        outcome, why = record.get("outcome"), str(record.get("why", ""))
        if ran.fault or outcome not in OUTCOMES:
            outcome, why = self._without_record(ran)
        elif outcome == "right" and ran.ename:
            outcome, why = "error", f"The check did not end well: {_first(ran.ename, ran.evalue)}."
        points = self.row["max"] if outcome == "right" else 0
        self.score(points, outcome, (why + self.note).strip(), ran.seconds)

    def _without_record(self, ran: Ran) -> tuple[str, str]:
        """The outcome and the reason where the check itself did not finish."""
        reason = self._fault(ran) or "no score came from the check: was the course's package changed by this notebook?"
        undefined = re.fullmatch(r"NameError: name '(\w+)' is not defined.*", reason)
        if undefined and self.parent.broken:
            cell, fault = self.parent.broken[-1]
            outcome = "not attempted" if fault.startswith("NotImplementedError") else "error"
            return outcome, f"There is no `{undefined[1]}`: {cell} failed with {fault}"
        if undefined:
            return "error", f"There is no `{undefined[1]}`: no cell above the check defines it."
        sentence = reason[:1].upper() + reason[1:] + "."
        return NOT_RUN if ran.fault == "file time" or self.parent.no_kernel else "error", sentence


def _first(name: str, message: str) -> str:
    line = next((line.strip() for line in message.splitlines() if line.strip()), "")
    return f"{name}: {line}"[:WHY_CHARACTERS] if line else name


def plain(text: str) -> str:
    """Text for a terminal or a file: without colour codes and other invisible characters."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return "".join(c for c in text if c.isprintable() or c in "\n\t")
