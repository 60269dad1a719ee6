"""hint("1.2"): three hints and then the worked solution, opened by trying.

The first opens after the first attempt, each further one after another attempt that differs from all before; the worked
solution after one more, or as soon as the task is passed.
"""

import html
import inspect
import textwrap
from dataclasses import dataclass

from . import diary
from .catalogue import Task, find_task
from .checking import linked
from .judging import Misuse

_GAP = 'style="margin: 6px 0"'


@dataclass(frozen=True)
class Hints:
    """What `hint` shows: the hints that are open, the worked solution where it is, and what opens the next."""

    task: Task
    opened: int
    solution: bool
    following: str
    notices: tuple[str, ...] = ()

    def _parts(self) -> list[tuple[str, str]]:
        """(heading, words); newest first, since that is the one to read."""
        parts = [(f"Hint {k} of {len(self.task.hints)}", self.task.hints[k - 1]) for k in range(self.opened, 0, -1)]
        if self.solution:
            parts.insert(0, ("Why it works", self.task.why))
        return parts

    def __repr__(self) -> str:
        lines = [f"{heading}: {words}" for heading, words in self._parts()]
        if self.solution:
            lines.insert(0, f"The worked solution of task {self.task.number}:\n\n{worked(self.task)}\n")
        return "\n".join([*lines, *([self.following] if self.following else []), *self.notices])

    def _repr_html_(self) -> str:
        page = ""
        if self.solution:
            code = html.escape(worked(self.task))
            page += f"<p {_GAP}><b>The worked solution of task {self.task.number}</b></p><pre {_GAP}>{code}</pre>"
        for place, (heading, words) in enumerate(self._parts()):
            text = linked(words, self.task, None)
            if place == 0 or (self.solution and place == 1 and not self.opened):
                page += f"<p {_GAP}><b>{heading}.</b> {text}</p>"
            else:
                page += f"<details><summary>{heading}</summary>{text}</details>"
        page += "".join(
            f"<p {_GAP}><i>{html.escape(words)}</i></p>" for words in (self.following, *self.notices) if words
        )
        style = (
            "color: var(--jp-content-font-color1, inherit); border: 1px solid var(--jp-border-color2, gray); "
            "border-left: 4px solid var(--jp-info-color1, gray); padding: 4px 8px"
        )
        return f'<div role="note" style="{style}">{page}</div>'


def hint(number: str) -> Hints:
    """The hints of a task that are open to this learner. Misuse, a ValueError, for an unknown task.

    An attempt is a check that ran the answer and did not pass; running the same answer again opens nothing.
    """
    try:
        task = find_task(number)
    except ValueError as error:
        raise Misuse(str(error)) from None
    now = diary.standing(task.number)
    opened = min(now.attempts, len(task.hints))
    solution = bool(now.passed) or now.attempts > len(task.hints)
    return Hints(task, opened, solution, _following(task, now), tuple(diary.take_notices()))


def _following(task: Task, now: diary.Standing) -> str:
    """What opens next, and by what."""
    every = len(task.hints)
    if now.passed or now.attempts > every:
        return ""
    rule = f"{_number(every)} hints and then the worked solution open one by one, each by a try of yours that differs."
    if diary.grading() or now.attempts == 0:
        return f"{rule.capitalize()} So try first: write something, run it, and run the check."
    last = now.attempts == every
    return f"{'The worked solution' if last else 'The next hint'} opens by another try that differs from those before."


def _number(count: int) -> str:
    return {1: "one", 2: "two", 3: "three"}.get(count, str(count))


def worked(task: Task) -> str:
    """The worked solution as text: the source of the function, or the value."""
    if not callable(task.solution):
        return f"{task.asks} = {task.solution!r}"
    return textwrap.dedent(inspect.getsource(task.solution)).rstrip()
