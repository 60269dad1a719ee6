"""Judging one answer: run it on its task's cases, and say right, wrong, not attempted or error, and why.

A wrong result that a known mistake gives is called by its name (`misconceptions`). Nothing is shown or kept here.
"""

import numbers
import re
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from bigbird_mini.viz.failure import describe_failure, draw_failure, draw_numbers

from .catalogue import Case, Mistake, Task, find_task
from .compare import Fault, judge, plain
from .effort import fingerprint
from .misconceptions import broken_rule, named, same_outcome, smaller
from .running import Clock, Crashed, OutOfTime, Prints, Wrong, busy, call, describe, said, sheltered

PACKAGE = Path(__file__).resolve().parent.parent
LINES_SHOWN = 3

# outcome: (mark, words, JupyterLab's theme colour of the edge). The mark and the words carry it, the colour only helps.
LOOKS = {
    "right": ("✔", "right", "--jp-success-color1"),
    "wrong": ("✘", "wrong", "--jp-error-color1"),
    "not attempted": ("○", "not attempted yet", "--jp-info-color1"),
    "error": ("⚠", "error in your code", "--jp-warn-color1"),
}


_failed: dict[str, Any] = {}  # by task, the answer judged last, where it did not pass


class Misuse(ValueError):
    """A call of the course's functions that makes no sense. One line in a notebook, in place of a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


@dataclass(frozen=True)
class Result:
    """What became of one answer. `outcome` is a key of LOOKS; `why` is empty for a right one.

    mistake: the known one that was made, if any. printed: what the learner's function printed. small: the case to
    follow by hand, where it shows the mistake. effort: tells this attempt from others (`effort.fingerprint`).
    """

    task: Task
    outcome: str
    why: str = ""
    mistake: Mistake | None = None
    fault: Fault | None = None
    printed: str = ""
    small: str = ""
    effort: str = ""

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

    def picture(self) -> tuple[str, str] | None:
        """The failure as an SVG and in words; None where there is nothing to draw."""
        if self.fault and self.fault.failure:
            return draw_failure(self.fault.failure), describe_failure(self.fault.failure)
        if self.fault and self.fault.numbers:
            expected, found = self.fault.numbers
            return draw_numbers(expected, found), f"Two bars: expected {expected:,.10g}, yours {found:,.10g}."
        return None

    def head(self) -> str:
        """The task, the outcome and the points, in a sentence."""
        task, (_, words, _) = self.task, LOOKS[self.outcome]
        unit = "point" if task.points == 1 else "points"
        return f"Task {task.number} ({task.title}): {words}, {self.points} of {task.points} {unit}."

    def text(self) -> str:
        """One line for people; the learner's own lines follow it where their code crashed."""
        return f"{LOOKS[self.outcome][0]} {self.head()} {self.why}".rstrip()


def evaluate(number: str, *answers: Any) -> Result:
    """Test the answer to a task, showing and keeping nothing. ValueError for an unknown task or a missing answer."""
    try:
        task = find_task(number)
    except ValueError as error:
        raise Misuse(str(error)) from None
    if busy():
        raise Misuse("check() was called inside a function that is being checked: call it in the check cell only")
    if len(answers) != 1:
        raise Misuse(f'write check("{task.number}", {task.asks}): 1 to check, {len(answers)} given')
    (answer,) = answers
    if answer is ... or answer is NotImplemented:
        return Result(task, "not attempted", "Put your answer in place of the dots.")
    if getattr(answer, "is_the_courses_own", False):
        return Result(task, "not attempted", "This is the course's own function: hand over yours.")
    _failed[task.number] = answer  # until it is known to be right; an interrupt leaves it here
    try:
        with sheltered():
            result = _Trial(task, answer).run()
    except Exception as fault:
        why = f"The check could not judge this answer ({_short(fault)}): that is a fault of the course, please report."
        result = Result(task, "error", why)
    if result.outcome == "right":
        _failed.pop(task.number, None)
    return result


def has_failed(number: str, answer: Any) -> bool:
    """Whether this very answer was judged last in this session and was not right, so that it need not run again."""
    return number in _failed and _failed[number] is answer


class _Trial:
    """One answer, run on the cases of its task until one of them shows that it is not right."""

    def __init__(self, task: Task, answer: Any) -> None:
        self.task, self.answer, self.clock = task, answer, Clock(task.seconds)
        self.cases = list(task.cases()) or [Case("The answer", {})]
        self.results: list[Any] = []
        self.prints = Prints()

    def give(self, inputs: dict[str, Any]) -> Any:
        """The answer's result on these inputs; a value is its own result."""
        self.prints = Prints()
        if not callable(self.task.solution):
            return self.answer
        return call(self.answer, inputs, self.clock, self.prints)

    def run(self) -> Result:
        first = None
        for case in self.cases:
            expected = self.task.expected(case.inputs)
            try:
                found = self.give(case.inputs)
            except Wrong as wrong:
                return self._result("wrong", str(wrong))
            except Crashed as crash:
                self.results.append(crash)
                return self._crashed(crash)
            self.results.append(found)
            if fault := self._fault(found, expected, case):
                return self._wrong(fault)
            first = first or self.prints.text()
        if callable(self.task.solution) and not self._repeats():
            why = (
                "A second call with the same inputs gives another result: nothing may depend on chance or on the past."
            )
            return self._result("wrong", why)
        return Result(self.task, "right", printed=first or "", effort=fingerprint(self.answer, self.results))

    def _fault(self, found: Any, expected: Any, case: Case) -> Fault | None:
        if not self.task.by_rule:
            return judge(found, expected, case)
        if isinstance(expected, Tensor):
            try:
                plain(found, expected, case)
            except Wrong as wrong:
                return Fault(str(wrong))
        elif not (isinstance(found, type(expected)) or (isinstance(expected, float) and _is_number(found))):
            return Fault(f"{case.words}: {describe(found)} came back, a {type(expected).__name__} should.")
        rule = broken_rule(self.task, found, case)
        return Fault(f"{case.words} it shows.") if rule else None

    def _repeats(self) -> bool:
        try:
            return same_outcome(self.give(self.cases[0].inputs), self.results[0])
        except (Wrong, Crashed):
            return False

    def _result(self, outcome: str, why: str, **more: Any) -> Result:
        effort = fingerprint(self.answer, [*self.results, why])
        return Result(self.task, outcome, why, printed=self.prints.text(), effort=effort, **more)

    def _wrong(self, fault: Fault) -> Result:
        mistake = named(self.task, self.cases, self.results)
        why = f"{titled(mistake)} {fault.why}" if mistake else fault.why
        return self._with_small(self._result("wrong", why, mistake=mistake, fault=fault))

    def _with_small(self, result: Result) -> Result:
        return replace(result, small=smaller(self.task, result.mistake, self.give))

    def _crashed(self, crash: Crashed) -> Result:
        error = crash.error
        frames = traceback.extract_tb(error.__traceback__)
        # torch raises the same class for a missing kernel: the stub is known by its own line, or by saying nothing
        stub = not error.args or (frames and "raise NotImplementedError" in (frames[-1].line or ""))
        if isinstance(error, NotImplementedError) and stub and len(self.results) == 1:
            return Result(self.task, "not attempted", "Put your code in place of `raise NotImplementedError`.")
        how = f" ({crash.how})" if crash.how else ""
        if isinstance(error, OutOfTime):
            seconds = f"{self.clock.seconds:g} s"
            why = f"Stopped after {seconds}: an endless loop, or far too slow{how}."
            return self._result("error", why + _own_lines(frames, self.answer))
        mistake = named(self.task, self.cases, self.results)
        why = (f"{titled(mistake)} " if mistake else "") + _short(error) + how
        result = self._result("error", why + _own_lines(frames, self.answer), mistake=mistake)
        return self._with_small(result) if mistake else result


def _is_number(found: Any) -> bool:
    """Whether it can stand for a float: NumPy's numbers and tensors of one number can."""
    return isinstance(found, numbers.Real) or (isinstance(found, Tensor) and found.numel() == 1 and not found.dim())


def titled(mistake: Mistake) -> str:
    """ "Masked after the softmax: the explanation." """
    return f"{mistake.name[:1].upper()}{mistake.name[1:]}: {mistake.says}"


def _own_lines(frames: list[traceback.FrameSummary], answer: Any) -> str:
    """The last of the learner's own lines among the frames of a traceback, under a heading; or nothing."""
    homes = {code.co_filename for code in [getattr(answer, "__code__", None)] if code}
    lines = [f"  line {f.lineno}: {f.line}".rstrip(": ") for f in frames if _is_learners(f.filename, homes)]
    return "\nYour code:\n" + "\n".join(lines[-LINES_SHOWN:]) if lines else ""


def _is_learners(filename: str, homes: set[str]) -> bool:
    """Whether a frame's code is the learner's: a notebook cell, or the file that their function came from."""
    if re.search(r"[\\/]ipykernel_\d+[\\/]", filename) or filename.startswith("<ipython-input"):
        return True
    return filename in homes and not Path(filename).is_relative_to(PACKAGE)


def _short(error: BaseException) -> str:
    words = said(error)
    return type(error).__name__ + (f": {words}" if words else "")
