"""An exercise notebook as pytest sees it: nbval runs the cells, the check cells become one named test for each task.

What a check cell scored is read from the record that `check` displays, never from text. A task that leaves no record
gets none of its points and a sentence that says why.
"""

import json
import re
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from queue import Empty
from typing import Any

import pytest
from nbval.cover import setup_coverage
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, RunningKernel
from nbval.plugin import IPyNbCell, IPyNbFile, NbCellError

MIME = "application/vnd.bigbird.score+json"
POLL_SECONDS = 0.5
PRINT_LIMIT = 2_000_000  # characters kept of what one cell prints while it runs
FRESH = "Get a fresh copy of the exercise and copy your answers over."
NOT_RUN = "not run"  # the outcome of a task whose check never started; the others are those of checking.LOOKS


class CellFailed(Exception):
    """A cell failed; the message is the whole report that a reader needs."""


class PatientKernel(RunningKernel):
    """nbval waits out the whole timeout for a kernel that is gone, and keeps all that an endless loop prints."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.waiting: deque[dict[str, Any]] = deque()
        super().__init__(*args, **kwargs)

    def await_reply(self, msg_id: str, timeout: float | None = None) -> None:
        end = time.monotonic() + (timeout or float("inf"))
        room = PRINT_LIMIT
        while True:
            try:
                message = self.get_message("shell", timeout=min(POLL_SECONDS, max(0.01, end - time.monotonic())))
            except Empty:
                if not self.is_alive():
                    raise RuntimeError("the kernel died while this cell ran (out of memory, or a crash)") from None
                if time.monotonic() >= end:
                    raise
                room = self._take_outputs(room, min(end, time.monotonic() + POLL_SECONDS))
                continue
            if message["parent_header"].get("msg_id") == msg_id:
                return

    def _take_outputs(self, room: int, until: float) -> int:
        """Fetch what has been shown so far; printed text beyond `room` characters is dropped."""
        while time.monotonic() < until:
            try:
                message = super().get_message("iopub", timeout=0.01)
            except Empty:
                break
            size = len(message["content"].get("text", "")) if message["msg_type"] == "stream" else 0
            if size <= room:
                self.waiting.append(message)
                room -= size
        return room

    def get_message(self, stream: str, timeout: float | None = None) -> dict[str, Any]:
        if stream == "iopub" and self.waiting:
            return self.waiting.popleft()
        return super().get_message(stream, timeout=timeout)


class GradedNotebook(IPyNbFile):
    """One learner's (or the solution's) notebook. `tasks` are its rows of the manifest."""

    tasks: list[dict[str, Any]] = []  # noqa: RUF012  set by the plugin on each object
    no_kernel = ""

    def setup(self) -> None:
        option = self.config.option
        # the notebook's own kernel name is no use: learners' files name environments that are not here
        name = option.nbval_kernel_name or CURRENT_ENV_KERNEL_NAME
        try:
            wait = option.nbval_kernel_startup_timeout
            self.kernel = PatientKernel(name, cwd=str(self.path.parent), startup_timeout=wait)
        except Exception as error:
            self.no_kernel = f"the notebook's kernel did not start ({type(error).__name__}: {error})"
            return
        self.setup_sanitize_files()
        if getattr(option, "cov_source", None):
            setup_coverage(self.config, self.kernel, str(self.path))

    def collect(self) -> Iterator[pytest.Item]:
        self.order: list[GradedCell] = []
        self.broken: list[tuple[str, str]] = []
        fault = _unreadable(self.path)
        try:
            cells = [] if fault else list(super().collect())
        except Exception as error:
            cells, fault = [], f"The file is no valid notebook ({type(error).__name__})"
        owners = _owners([c.cell for c in cells], self.tasks)
        for number, plain in enumerate(cells):
            task = owners.get(number)
            first = next((line.strip() for line in plain.cell.source.splitlines() if line.strip()), "empty")
            name = f"task {task['task']} {task['title']}" if task else f"cell {number + 1} «{first[:40]}»"
            cell = GradedCell.from_parent(
                self, name=name, cell_num=plain.cell_num, cell=plain.cell, options=plain.options
            )
            cell.adopt(task)
            self.order.append(cell)
            yield cell
        found = [row["task"] for row in owners.values()]
        for task in self.tasks:
            if task["task"] not in found:
                lost = LostTask.from_parent(self, name=f"task {task['task']} {task['title']}")
                lost.task = task
                lost.why = f"{fault or 'Its check cell is missing'}. {FRESH}"
                yield lost


def _unreadable(path: Path) -> str:
    """Why a file is no notebook; empty where it is one."""
    try:
        text = path.read_text("utf-8")
        notebook = json.loads(text)
    except UnicodeDecodeError:
        return "The file is not text"
    except json.JSONDecodeError as error:
        if not text.strip():
            return "The file is empty"
        if re.search(r"^<<<<<<< ", text, re.M):
            return "The file holds unsolved git merge conflicts (lines of <<<<<<<)"
        return f"The file is damaged or cut off: its JSON breaks in line {error.lineno}"
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        return "The file is no Jupyter notebook"
    return ""


def _owners(cells: list[Any], tasks: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Which cell checks which task: by its id first; Colab, VS Code and copying give new ids, then by its text."""

    def called(cell: Any) -> str | None:
        found = re.match(r"\s*check\(\s*[\"']([\d.]+)[\"']", cell.source)
        return found[1] if found else cell.metadata.get("task")

    owners: dict[int, dict[str, Any]] = {}
    for same in (lambda cell, task: cell.get("id") == task["cell"], lambda cell, task: called(cell) == task["task"]):
        for task in tasks:
            free = (i for i, cell in enumerate(cells) if i not in owners and same(cell, task))
            if task not in owners.values() and (number := next(free, None)) is not None:
                owners[number] = task
    return owners


class _Graded:
    """What a check cell and a missing one share: the properties of a task's report."""

    task: dict[str, Any] | None

    def score(self, points: int, outcome: str, why: str) -> None:
        """Leave the score in the report; raise CellFailed with the reason unless it is right."""
        task = self.task
        row = {"notebook": self.parent.nodeid, "task": task["task"], "title": task["title"], "points": points}
        # single values: JUnit files hold properties as text
        self.user_properties += (row | {"max": task["max"], "outcome": outcome, "why": why}).items()
        if outcome != "right":
            raise CellFailed(f"Task {task['task']} ({task['title']}): {outcome}, {points}/{task['max']} points\n{why}")

    def setup(self) -> None:
        """nbval expects each cell after a timeout to fail; here they are graded like any other."""

    def reportinfo(self) -> tuple[Path, int, str]:
        # not the bare name: where a test's id ends in this text, pytest shows task 1.1 as 1::1
        return self.path, 0, f"{self.path.name}: {self.name}"

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> Any:
        if isinstance(excinfo.value, CellFailed):
            return str(excinfo.value)
        return pytest.Item.repr_failure(self, excinfo)


class LostTask(_Graded, pytest.Item):
    """A task whose check cell is not there."""

    why = ""

    def runtest(self) -> None:
        self.score(0, NOT_RUN, self.why)


class GradedCell(_Graded, IPyNbCell):
    """A code cell of an exercise: a task's test where it is the task's check cell."""

    task = None
    note = ""
    ran = False

    def adopt(self, task: dict[str, Any] | None) -> None:
        """Make this cell the check cell of `task`, with its original text, or (None) an ordinary cell."""
        self.task = task
        if self.cell.execution_count is None:
            self.cell.outputs = []  # nbval refuses cells that have outputs without having been run
        if task is None:
            return
        if self.cell.source.strip() != task["source"].strip():
            self.cell.source = task["source"]
            self.note = " (This check cell was edited; the original was run.)"
        self.options.clear()  # no tag or comment may skip a check cell or excuse its exception

    def runtest(self) -> None:
        for earlier in self.parent.order[: self.parent.order.index(self)]:
            # those left out by -k, or by naming one test
            if not (earlier.ran or earlier.task or earlier.options["skip"]):
                earlier.run_cell()
        failure = self.run_cell()
        if self.task:
            self._score(failure)
        elif failure:
            text = _plain(getattr(failure, "inner_traceback", None) or "")
            raise CellFailed(f"{self.name}: {self._reason(failure)}\n\n{text}".rstrip())

    def run_cell(self) -> Exception | None:
        """Run the cell; returns what went wrong, and remembers it for the tasks that build on the cell."""
        notebook, self.ran = self.parent, True
        if notebook.no_kernel:
            return RuntimeError(notebook.no_kernel)
        failure = None
        try:
            super().runtest()
        except Exception as error:
            failure = error
            if not self.task:
                notebook.broken.append((self.name, self._reason(error)))
        finally:
            if notebook.timed_out and notebook.kernel.is_alive():
                notebook.timed_out = False  # the interrupt worked
        return failure

    def _reason(self, error: Exception) -> str:
        text = str(error)
        if text.startswith("Timeout"):
            return f"stopped after {self.config.option.nbval_cell_timeout:g} s: an endless loop, or far too slow"
        if text == "Kernel dead on test start":
            return "not run: the kernel died or had to be stopped in an earlier cell"
        trace = _plain(getattr(error, "inner_traceback", None) or "").splitlines()
        return trace[-1].strip() if trace and isinstance(error, NbCellError) else text

    def _score(self, failure: Exception | None) -> None:
        shown = [output.get("data", {}).get(MIME) for output in self.test_outputs or ()]
        record = next((r for r in reversed(shown) if r and r.get("task") == self.task["task"]), None)
        if record and record["outcome"] != "right":
            self.score(0, record["outcome"], record["why"] + self.note)
        elif record and failure is None:
            self.score(self.task["max"], "right", self.note.strip())
        elif failure is None:
            why = "No score came: is `check` still the one from bigbird_mini.course?"
            self.score(0, "wrong", why + self.note)
        else:
            outcome, why = self._without_record(failure)
            self.score(0, outcome, why + self.note)

    def _without_record(self, failure: Exception) -> tuple[str, str]:
        """The outcome and the reason where the check itself did not finish."""
        reason = self._reason(failure)
        undefined = re.fullmatch(r"NameError: name '(\w+)' is not defined.*", reason)
        if undefined and self.parent.broken:
            cell, fault = self.parent.broken[-1]
            outcome = "not attempted" if fault.startswith("NotImplementedError") else "error"
            return outcome, f"There is no `{undefined[1]}`: {cell} failed with {fault}"
        if undefined:
            return "error", f"There is no `{undefined[1]}`: no cell above the check defines it."
        if reason.startswith("not run:") or self.parent.no_kernel:
            return NOT_RUN, reason[:1].upper() + reason[1:] + "."
        return "error", reason[:1].upper() + reason[1:] + "."


def _plain(text: str) -> str:
    """Text without the terminal's colour codes."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text).strip()
