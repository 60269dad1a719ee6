"""check("1.1", my_function): test one answer, say what is wrong and where, give the points.

The tests of a task live in `tasks_NN.py`, one module for each exercise. A test is a function that takes the
learner's answer and raises `Wrong` with a sentence; what the learner's own code raises arrives as `Crashed`
(see `compare.call`), so a mistake in an answer and a fault in a test are never mixed up.
"""

import html
import importlib
import importlib.util
import inspect
import pkgutil
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIME = "application/vnd.bigbird.score+json"
PACKAGE = Path(__file__).resolve().parent.parent
LINES_SHOWN = 3

# outcome: (mark, words, JupyterLab's theme colour of the edge). The mark and the words carry it, the colour only helps.
LOOKS = {
    "right": ("✔", "right", "--jp-success-color1"),
    "wrong": ("✘", "wrong", "--jp-error-color1"),
    "not attempted": ("○", "not attempted yet", "--jp-info-color1"),
    "error": ("⚠", "error in your code", "--jp-warn-color1"),
}


class Wrong(Exception):
    """Raised by a task's test: the answer ran, and its result is not right. The message says what, where, found."""


class Crashed(Exception):
    """Raised by `compare.call`: the learner's code raised `error` when called as `how` says."""

    def __init__(self, error: BaseException, how: str = "") -> None:
        super().__init__(how)
        self.error, self.how = error, how


class NotPassed(AssertionError):
    """Ends a check cell whose task is not passed. IPython prints one line for it in place of a traceback."""

    def _render_traceback_(self) -> list[str]:
        return ["Not passed yet: see the message above, change your answer, run both cells again."]


@dataclass(frozen=True)
class Task:
    """One task: its number, its title, the points it gives and the function that tests an answer."""

    number: str
    title: str
    points: int
    test: Callable[..., None]


@dataclass(frozen=True)
class Result:
    """What became of one answer. `outcome` is a key of LOOKS; `why` is empty for a right one."""

    task: Task
    outcome: str
    why: str = ""

    @property
    def points(self) -> int:
        return self.task.points if self.outcome == "right" else 0

    def record(self) -> dict[str, Any]:
        """The score as the grader reads it: task, title, points, max, outcome, why."""
        t = self.task
        return {
            "task": t.number,
            "title": t.title,
            "points": self.points,
            "max": t.points,
            "outcome": self.outcome,
            "why": self.why,
        }

    def text(self) -> str:
        """One line for people; the learner's own lines follow it where their code crashed."""
        mark, words, _ = LOOKS[self.outcome]
        unit = "point" if self.task.points == 1 else "points"
        head = (
            f"{mark} Task {self.task.number} ({self.task.title}): {words}, {self.points} of {self.task.points} {unit}."
        )
        return f"{head} {self.why}".rstrip()

    def html(self) -> str:
        """The same words in the colours of the reader's JupyterLab theme."""
        mark, _, colour = LOOKS[self.outcome]
        words = self.text().removeprefix(mark).strip()
        style = (
            "color: var(--jp-content-font-color1, inherit); background: var(--jp-layout-color1, transparent); "
            f"border: 1px solid var(--jp-border-color2, gray); border-left: 4px solid var({colour}, gray); "
            "padding: 4px 8px; white-space: pre-wrap"
        )
        return f'<div role="status" style="{style}"><b aria-hidden="true">{mark}</b> {html.escape(words)}</div>'


_TASKS: dict[str, Task] = {}


def task(number: str, title: str, points: int = 1) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: the function tests the answers to task `number`. ValueError for a number taken or misshapen."""
    if not re.fullmatch(r"\d+\.\d+", number):
        raise ValueError(f'a task number looks like "3.2", not {number!r}')
    if points < 1:
        raise ValueError(f"task {number} gives at least 1 point, not {points}")

    def keep(test: Callable[..., None]) -> Callable[..., None]:
        old = _TASKS.get(number)
        if old and (old.test.__module__, old.test.__qualname__) != (test.__module__, test.__qualname__):
            raise ValueError(f"task {number} is there twice: {old.test.__qualname__} and {test.__qualname__}")
        _TASKS[number] = Task(number, title, points, test)
        return test

    return keep


def by_number(number: str) -> tuple[int, ...]:
    """Sorting key that puts 10.1 after 9.2."""
    return tuple(int(part) for part in number.split("."))


def all_tasks() -> dict[str, Task]:
    """Every task of the course, in order. Imports all task modules."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if re.fullmatch(r"tasks_\d\d", module.name):
            importlib.import_module(f"{__package__}.{module.name}")
    return {number: _TASKS[number] for number in sorted(_TASKS, key=by_number)}


def find_task(number: str) -> Task:
    """The task of that number. ValueError listing the known ones where there is none."""
    if not isinstance(number, str):
        raise ValueError('put the task number in quotes, as in check("1.1", my_function)')
    if number not in _TASKS and re.fullmatch(r"\d{1,2}\.\d+", number):
        name = f"{__package__}.tasks_{int(number.split('.')[0]):02d}"
        if importlib.util.find_spec(name):
            importlib.import_module(name)
    if number not in _TASKS:
        raise ValueError(f"there is no task {number!r}; the tasks are {', '.join(all_tasks())}")
    return _TASKS[number]


def evaluate(number: str, *answers: Any) -> Result:
    """Test the answers to a task, showing nothing. ValueError for an unknown task or a wrong count of answers."""
    found = find_task(number)
    wanted = list(inspect.signature(found.test).parameters)
    if len(answers) != len(wanted):
        raise ValueError(f'write check("{number}", {", ".join(wanted)}): {len(wanted)} to check, {len(answers)} given')
    if any(answer is ... or answer is NotImplemented for answer in answers):
        return Result(found, "not attempted", "Put your answer in place of the dots.")
    try:
        found.test(*answers)
    except Wrong as wrong:
        return Result(found, "wrong", str(wrong))
    except Crashed as crash:
        return _crashed(found, crash, answers)
    except Exception as fault:
        why = (
            f"The check could not judge this answer ({_short(fault)}): that is a fault of the course, please report it."
        )
        return Result(found, "error", why)
    return Result(found, "right")


def check(number: str, *answers: Any) -> None:
    """Test the answers to a task and show the result in one line.

    Raises NotPassed where the task is not passed, so that the notebook fails wherever it is run.
    """
    result = evaluate(number, *answers)
    _show(result)
    if result.outcome != "right":
        raise NotPassed(result.text())


def _crashed(found: Task, crash: Crashed, answers: tuple[Any, ...]) -> Result:
    frames = traceback.extract_tb(crash.error.__traceback__)
    # torch raises the same class for a missing kernel: the stub is known by its own line, or by saying nothing
    stub = not crash.error.args or (frames and "raise NotImplementedError" in (frames[-1].line or ""))
    if isinstance(crash.error, NotImplementedError) and stub:
        return Result(found, "not attempted", "Put your code in place of `raise NotImplementedError`.")
    homes = {code.co_filename for answer in answers if (code := getattr(answer, "__code__", None))}
    lines = [f"  line {f.lineno}: {f.line}".rstrip(": ") for f in frames if _is_learners(f.filename, homes)]
    why = _short(crash.error) + (f" ({crash.how})" if crash.how else "")
    if lines:
        why += "\nYour code:\n" + "\n".join(lines[-LINES_SHOWN:])
    return Result(found, "error", why)


def _is_learners(filename: str, homes: set[str]) -> bool:
    """Whether a frame's code is the learner's: a notebook cell, or the file that their function came from."""
    if re.search(r"[\\/]ipykernel_\d+[\\/]", filename) or filename.startswith("<ipython-input"):
        return True
    return filename in homes and not Path(filename).is_relative_to(PACKAGE)


def _short(error: BaseException) -> str:
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return type(error).__name__ + (f": {first}" if first else "")


def _show(result: Result) -> None:
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        get_ipython = None
    if get_ipython is None or get_ipython() is None:
        print(result.text())
        return
    display({"text/plain": result.text(), "text/html": result.html(), MIME: result.record()}, raw=True)
