"""beside("1.5"): your solution beside the course's, with the time and the memory that each takes here.

Both run in turn on the same inputs, larger than those of the check. Time and memory are this machine's own.
"""

import html
import inspect
import statistics
import textwrap
import time
from dataclasses import dataclass
from typing import Any

from .catalogue import Task
from .handover import Closed, known_task, names_of_caller, opened
from .hints import worked
from .running import Clock, Crashed, OutOfTime, call, said, sheltered
from .tally import Tally, tallied

ROUNDS, SECONDS = 5, 30.0
ROUND_SECONDS = 0.02  # a round repeats a quick function until it has run this long


@dataclass(frozen=True)
class Side:
    """One of the two: whose it is, its source, seconds of one call, and what it did with tensors."""

    whose: str
    source: str
    seconds: float
    tally: Tally


@dataclass(frozen=True)
class Beside:
    """What `beside` shows: two sides, yours first, and the inputs in words."""

    task: Task
    inputs: str
    sides: tuple[Side, Side]

    def _rows(self) -> list[tuple[str, str, str]]:
        """(what, yours, the course's)."""
        rows = [("time of one call", *(_time(side.seconds) for side in self.sides))]
        if all(side.tally.peak for side in self.sides):
            tallies = [side.tally for side in self.sides]
            rows.append(("tensors held at a time, at most", *(_bytes(t.peak) for t in tallies)))
            rows.append(("the largest of them", *(f"{t.largest[0]}, {_bytes(t.largest[1])}" for t in tallies)))
            rows.append(("multiply-adds in matrix products", *(f"{t.multiply_adds:,}" for t in tallies)))
        return rows

    def words(self) -> str:
        """The difference in a sentence."""
        yours, ours = self.sides
        out = f"Yours takes {_ratio(yours.seconds, ours.seconds)} the time of the course's"
        if not ours.tally.peak:
            return out + "."
        if not yours.tally.peak:
            return out + "; its memory is not seen, since it works outside PyTorch."
        return f"{out}, and {_ratio(yours.tally.peak, ours.tally.peak)} its memory."

    def __repr__(self) -> str:
        lines = [f"Task {self.task.number} on {self.inputs}. {self.words()}"]
        lines += [f"  {what:<33} yours {a:<28} the course's {b}" for what, a, b in self._rows()]
        return "\n".join([*lines, *(f"\n{side.whose}:\n{side.source}" for side in self.sides)])

    def _repr_html_(self) -> str:
        cell = 'style="text-align: left; padding: 2px 14px 2px 0; vertical-align: top"'
        head = "".join(f'<th scope="col" {cell}>{html.escape(s.whose)}</th>' for s in self.sides)
        body = "".join(f"<tr>{''.join(f'<td {cell}>{html.escape(x)}</td>' for x in row)}</tr>" for row in self._rows())
        style = 'style="white-space: pre; overflow-x: auto"'
        code = "".join(
            f"<p><b>{html.escape(s.whose)}</b></p><pre {style}>{html.escape(s.source)}</pre>" for s in self.sides
        )
        caption = html.escape(f"Task {self.task.number} on {self.inputs}. {self.words()}")
        table = f'<caption {cell}>{caption}</caption><thead><tr><th scope="col" {cell}></th>{head}</tr></thead>'
        page = f"<table>{table}<tbody>{body}</tbody></table>{code}"
        return f'<div style="color: var(--jp-content-font-color1, inherit)">{page}</div>'


def beside(number: str) -> Beside | Closed:
    """Measure your answer to a task, found by its name, beside the course's; opens when the task is right.

    Misuse, a ValueError, for a task on which there is nothing to measure.
    """
    task = known_task(number, "large")
    mine = opened(task, names_of_caller())
    return mine if isinstance(mine, Closed) else compared(task, mine)


def compared(task: Task, answer: Any) -> Beside | Closed:
    """Both measured in turn, so that what else the machine does meets both."""
    inputs = task.large()
    clock = Clock(SECONDS)
    with sheltered():
        try:
            tallies = [call(tallied, {"function": f, **inputs}, clock) for f in (answer, task.solution)]
            seconds: tuple[list[float], list[float]] = ([], [])
            for _ in range(ROUNDS):
                for f, kept in zip((answer, task.solution), seconds, strict=True):
                    kept.append(call(_once, {"function": f, **inputs}, clock))
        except Crashed as crash:
            why = "it is too slow for them" if isinstance(crash.error, OutOfTime) else said(crash.error)
            return Closed(f"On larger inputs ({_size(inputs)}) this could not be measured: {why}.")
    sources = (_source(answer), worked(task))
    names = ("yours", "the course's")
    sides = [Side(*each) for each in zip(names, sources, map(statistics.median, seconds), tallies, strict=True)]
    return Beside(task, _size(inputs), tuple(sides))


def _once(function: Any, *inputs: Any) -> float:
    """Seconds of one call, the mean of as many as make a round."""
    count, begin = 0, time.perf_counter()
    while (spent := time.perf_counter() - begin) < ROUND_SECONDS or not count:
        function(*inputs)
        count += 1
    return spent / count


def _source(answer: Any) -> str:
    try:
        return textwrap.dedent(inspect.getsource(answer)).rstrip()
    except (OSError, TypeError):
        return "(its source is not at hand)"


def _size(inputs: dict[str, Any]) -> str:
    """The inputs in words: shapes of tensors, short values, lengths of lists."""
    parts = []
    for name, value in inputs.items():
        if hasattr(value, "shape"):
            parts.append(f"{name} {tuple(value.shape)}")
        else:
            parts.append(f"{len(value)} {name}" if isinstance(value, list) and len(value) > 3 else f"{name} = {value}")
    return ", ".join(parts)


def _time(seconds: float) -> str:
    factor, unit = next((pair for pair in ((1, "s"), (1e3, "ms")) if seconds * pair[0] >= 1), (1e6, "µs"))
    return f"{seconds * factor:.3g} {unit}"


def _bytes(count: int) -> str:
    for size, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count} bytes"


def _ratio(yours: float, ours: float) -> str:
    ratio = yours / ours
    return "about" if 0.8 <= ratio <= 1.25 else f"{ratio:.1f} times" if ratio >= 1 else f"{ratio:.2f} of"
