"""mine_or_reference("1.1"): the learner's function where it passes, else the course's own, and it says which.

So one mistake costs one task: a later cell that builds on task 1.1 runs whatever became of task 1.1.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from . import diary
from .catalogue import Task, all_tasks, find_task
from .judging import Misuse, evaluate, has_failed


def mine_or_reference(number: str) -> Any:
    """The answer to a task that stands in the calling notebook (or module) if it passes; else the worked solution.

    It is looked up under the task's own name, such as head_attention, so it may be missing altogether. Prints one line
    that says which of the two it is. Misuse, a ValueError, for an unknown task.
    """
    task = known_task(number)
    mine = passing(task, names_of_caller())
    if mine is not None:
        print(f"Your own {task.asks} is used here: task {task.number} is right.")
        return mine
    print(f"The course's {task.asks} is used here: task {task.number} is not right yet, and need not be for this.")
    return _marked(task) if callable(task.solution) else task.solution


def names_of_caller() -> dict[str, Any]:
    """The global names of the notebook (or module) that called the function that calls this one."""
    frame = inspect.currentframe()
    return frame.f_back.f_back.f_globals if frame and frame.f_back and frame.f_back.f_back else {}


def passing(task: Task, names: dict[str, Any]) -> Any:
    """The learner's answer to a task, found by its name, if it passes; else None."""
    mine = names.get(task.asks, ...)
    if mine is ... or has_failed(task.number, mine) or evaluate(task.number, mine).outcome != "right":
        return None
    return mine


def known_task(number: str, having: str = "") -> Task:
    """The task of that number; Misuse, a sentence, where there is none, or none that has `having`."""
    try:
        task = find_task(number)
    except ValueError as error:
        raise Misuse(str(error)) from None
    if having and not getattr(task, having):
        able = ", ".join(other.number for other in all_tasks().values() if getattr(other, having))
        raise Misuse(f"task {task.number} has no {having} to show; there is one for {able or 'no task'}")
    return task


class Closed:
    """Shown in place of something that is not open: one sentence."""

    def __init__(self, sentence: str) -> None:
        self.sentence = sentence

    def __repr__(self) -> str:
        return self.sentence


def opened(task: Task, names: dict[str, Any]) -> Any:
    """The learner's answer, for what only a right one opens; else Closed, as ever while grading: nobody looks then."""
    if diary.grading():
        return Closed("Not run while notebooks are graded.")
    mine = passing(task, names)
    return Closed(f"This opens when task {task.number} ({task.title}) is right.") if mine is None else mine


def _marked(task: Task) -> Callable[..., Any]:
    """The worked solution, so marked that check does not take it for the learner's."""

    @functools.wraps(task.solution)
    def reference(*inputs: Any, **named: Any) -> Any:
        return task.solution(*inputs, **named)

    reference.is_the_courses_own = True
    return reference
