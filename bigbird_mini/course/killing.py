"""judge_test("1.4", my_test): how good is a test that you write? It is tried on right and on wrong implementations.

A test is a function that takes an implementation and fails (an assert, or any other error) where it is wrong. It should
let every right one pass, and kill every planted mistake.
"""

from dataclasses import dataclass
from typing import Any

from bigbird_mini.viz.words import counted

from .catalogue import Task
from .handover import known_task
from .judging import Misuse
from .running import Clock, Crashed, OutOfTime, Wrong, call, said, sheltered

SECONDS = 20.0


@dataclass(frozen=True)
class Verdict:
    """What `judge_test` shows. killed, survived: the planted mistakes by name; a mistake that is made in several ways
    is killed where each of them is. alarm: what the test says against a right implementation, or "".
    """

    task: Task
    killed: tuple[str, ...] = ()
    survived: tuple[str, ...] = ()
    alarm: str = ""

    @property
    def score(self) -> float:
        """The share of the mistakes that are killed; 0 where a right implementation is refused."""
        of = len(self.killed) + len(self.survived)
        return 0.0 if self.alarm else len(self.killed) / of

    def __repr__(self) -> str:
        if self.alarm:
            return self.alarm
        of = len(self.killed) + len(self.survived)
        out = f"Your test lets every right {self.task.asks} pass and kills {len(self.killed)} of {of} planted mistakes"
        if not self.survived:
            return f"{out}: all of them."
        return f"{out}. These survive: {'; '.join(self.survived)}."


def judge_test(number: str, test: Any) -> Verdict:
    """Try your test of a task's function. Misuse, a ValueError, for a task without planted implementations."""
    task = known_task(number)
    if not callable(task.solution) or task.by_rule:
        raise Misuse(f"task {task.number} has no implementations to try a test on")
    clock = Clock(SECONDS)
    with sheltered():
        for right in (task.solution, *task.also_right):
            if words := _fails(test, right, clock):
                if words == _UNWRITTEN:
                    return Verdict(task, alarm="Not attempted yet: put your test in place of the stub.")
                return Verdict(task, alarm=f"Your test refuses a right {task.asks}: {words}.")
        killed, survived = [], []
        for mistake in task.mistakes:
            ways = [bool(_fails(test, wrong, clock)) for wrong in mistake.wrong]
            some = f" ({counted(ways.count(False), 'way')} of {len(ways)})" if len(ways) > 1 else ""
            killed += [mistake.name] * all(ways)
            survived += [mistake.name + some] * (not all(ways))
    return Verdict(task, tuple(killed), tuple(survived))


_UNWRITTEN = "NotImplementedError"


def _fails(test: Any, implementation: Any, clock: Clock) -> str:
    """What the test says against an implementation, in a few words; "" where it lets it pass."""
    try:
        call(test, {"implementation": implementation}, clock)
    except Wrong as wrong:
        # a test returns None, and call asks for a result
        return "" if "returns None" in str(wrong) else str(wrong).rstrip(".")
    except Crashed as crash:
        if isinstance(crash.error, OutOfTime):
            return f"it takes more than {SECONDS:g} seconds in all"
        words = said(crash.error)
        return f"{type(crash.error).__name__}{': ' + words if words else ''}"
    return ""
