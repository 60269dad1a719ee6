"""warm_up("1.5"): the lines of a function, shuffled among some wrong ones, to be put in order before writing it.

The lines are those of the worked solution, so the card is a warm-up and gives no points. It runs what was built.
"""

from __future__ import annotations

import ast
import random
from typing import Any

from .catalogue import Task
from .handover import Closed, known_task
from .hints import worked


def warm_up(number: str) -> Any:
    """The warm-up of a task, a WarmUp card. Misuse, a ValueError, for a task that has none."""
    task = known_task(number, "distractors")
    try:
        from .warm_card import STEP, WarmUp
    except ModuleNotFoundError as error:  # where notebooks are only graded
        return Closed(f'The warm-up is a card that needs {error.name}: pip install "bigbird-mini[lab]"')
    head, lines = pieces(task, len(STEP))
    texts = [text for text, _ in lines] + list(task.distractors)
    random.Random(task.number).shuffle(texts)
    return WarmUp(
        task,
        number=task.number,
        head=head,
        wrong=len(task.distractors),
        lines=[[text, 1, True] for text in texts],
    )


def pieces(task: Task, step: int = 4) -> tuple[str, list[tuple[str, int]]]:
    """(the line `def ...:`, the other lines of the worked solution with their indents), without comments."""
    function = ast.parse(worked(task)).body[0]
    function.body = function.body[1:] if ast.get_docstring(function) else function.body
    plain = [a.arg for a in function.args.args]
    own = _without_comments(worked(task)).splitlines()
    first = function.body[0].lineno - 1
    lines = [(line.strip(), (len(line) - len(line.lstrip())) // step) for line in own[first:] if line.strip()]
    return f"def {task.asks}({', '.join(plain)}):", lines


def _without_comments(source: str) -> str:
    """The source with its comments taken away, line for line. The solutions have no # inside a string."""
    return "\n".join(line.partition("  #")[0].rstrip() for line in source.splitlines())
