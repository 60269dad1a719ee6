"""What a task is: its cases, its named mistakes, its hints and its worked solution; and the list of all tasks.

The tasks of an exercise stand in one file, `tasks_NN.py`; how to write one is said in `tasks_01.py`.
"""

import difflib
import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Case:
    """One input on which an answer is tried.

    words: the input in words, as they begin a sentence. inputs: by name, handed over by position. axes: what each
    dimension of the result counts, such as ("query", "number"). block: rows and columns of the result that make one
    block of the pattern; (1, 1) where each number stands for itself. tolerance: how far off a number may be, where that
    is more than its own precision demands.
    """

    words: str
    inputs: dict[str, Any]
    axes: tuple[str, ...] = ()
    block: tuple[int, int] = (1, 1)
    tolerance: float = 0.0


class Look(NamedTuple):
    """Where the lesson speaks of something: the heading, the id of the code cell, and a line to know the cell by."""

    section: str
    cell: str
    line: str


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that people really give, by name.

    says: what it does, without the answer. wrong: one or more functions that make it (one mistake may be made in
    several ways). small: inputs to follow by hand on which it shows, look: the place in the lesson; the task's own
    where None. seen: for tasks with many right answers, `seen(result, **inputs)` says whether a result shows it.
    """

    name: str
    says: str
    wrong: tuple[Any, ...]
    small: dict[str, Any] | None = None
    look: Look | None = None
    seen: Callable[..., bool] | None = None


class Par(NamedTuple):
    """What the flight recorder flies a task over: inputs with `q` and `k`, how many tokens make a block, and
    `needed(**inputs)`, bool (queries, keys): the scores that no right answer can do without."""

    inputs: Callable[[], dict[str, Any]]
    needed: Callable[..., Any]
    block: int


class Swap(NamedTuple):
    """How an answer becomes the attention of a model: `adapt(answer)` has the signature of bigbird_mini.attention, and
    `pattern(N)` is the pattern to run it with."""

    adapt: Callable[[Callable[..., Any]], Callable[..., Any]]
    pattern: Callable[[int], Any]


@dataclass(frozen=True)
class Task:
    """One task of an exercise.

    solution: the worked solution, a function, or a value where a value is asked for; also_right: others. spec: what
    gives the expected results, written as plainly as can be (the solution itself where None). by_rule: many results
    are right, and wrong is what one of the mistakes sees. small: inputs to follow by hand. why: what there is to learn
    from the solution. lesson: the file name of its lesson. seconds: how long one check may take.

    For what comes after a task is right: `par`, the flight recorder; `large`, inputs on which time and memory are
    measured; `swap`, into a model. Before it: `distractors`, wrong lines among those of the warm-up.
    """

    number: str
    title: str
    points: int
    solution: Any
    cases: Callable[[], Sequence[Case]] = list
    spec: Callable[..., Any] | None = None
    mistakes: tuple[Mistake, ...] = ()
    hints: tuple[str, ...] = ()
    why: str = ""
    also_right: tuple[Any, ...] = ()
    small: dict[str, Any] | None = None
    look: Look | None = None
    lesson: str = ""
    skill: str = ""
    by_rule: bool = False
    seconds: float = 10.0
    par: Par | None = None
    large: Callable[[], dict[str, Any]] | None = None
    swap: Swap | None = None
    distractors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"\d+\.\d+", self.number):
            raise ValueError(f'a task number looks like "3.2", not {self.number!r}')
        if self.points < 1:
            raise ValueError(f"task {self.number} gives at least 1 point, not {self.points}")

    @property
    def asks(self) -> str:
        """The name of what is handed to check."""
        return self.solution.__name__ if callable(self.solution) else "answer"

    @property
    def home(self) -> str:
        """The module that the task stands in."""
        return getattr(self.solution, "__module__", None) or f"tasks_{by_number(self.number)[0]:02d}"

    def expected(self, inputs: dict[str, Any]) -> Any:
        """The right result on these inputs; where many are right, one of them."""
        right = self.spec or self.solution
        return right(**inputs) if callable(right) else right


_TASKS: dict[str, Task] = {}


def add(task: Task) -> Task:
    """Put a task on the list. ValueError where its number is taken by another."""
    old = _TASKS.get(task.number)
    if old and (old.home, old.asks) != (task.home, task.asks):
        raise ValueError(f"task {task.number} is there twice: {old.asks} and {task.asks}")
    _TASKS[task.number] = task
    return task


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
    """The task of that number. ValueError that offers the nearest ones where there is none."""
    if not isinstance(number, str):
        raise ValueError(
            f'put the task number first and in quotes, as in check("1.1", my_function), not {number!r:.40}'
        )
    number = number.strip()
    if number not in _TASKS and re.fullmatch(r"\d{1,2}\.\d+", number):
        name = f"{__package__}.tasks_{int(number.split('.')[0]):02d}"
        if importlib.util.find_spec(name):
            importlib.import_module(name)
    if number not in _TASKS:
        raise ValueError(f"there is no task {number!r}; {_nearest(number)}")
    return _TASKS[number]


def _nearest(number: str) -> str:
    """The tasks that may have been meant, by number, by title or by the function's name."""
    tasks = all_tasks()
    called = {name.casefold(): task for task in tasks.values() for name in (task.asks, task.title, task.number)}
    near = difflib.get_close_matches(number.casefold(), called, n=5, cutoff=0.5)
    found = list(dict.fromkeys(called[name].number for name in near))[:3]
    if not found:
        found = [n for n in tasks if n.split(".")[0] == number.split(".")[0]] or list(tasks)
    offered = ", ".join(f"{n} ({tasks[n].title})" for n in found[:6])
    return f"did you mean {offered}?" if near else f"there are {offered}"
