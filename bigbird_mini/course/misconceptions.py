"""Which known mistake gives this wrong result? The catalogue of a task is run on the same input and compared."""

import copy
from collections.abc import Sequence
from typing import Any

import torch

from .catalogue import Case, Mistake, Task
from .compare import alike, judge
from .running import Crashed, Wrong, describe, said


def outcome_of(answer: Any, inputs: dict[str, Any]) -> Any:
    """What one of our own functions, right or wrong, gives on these inputs: its result, or Crashed with its error."""
    if not callable(answer):
        return answer
    try:
        return answer(*copy.deepcopy(list(inputs.values())))
    except Exception as error:
        return Crashed(error)


def same_outcome(found: Any, other: Any) -> bool:
    """Whether two outcomes are the same: the same result, or the same error with the same first line."""
    if isinstance(found, Crashed) or isinstance(other, Crashed):
        return isinstance(found, type(other)) and _said(found.error) == _said(other.error)
    try:
        return alike(found, other)
    except (RuntimeError, TypeError, ValueError, NotImplementedError):
        return False  # what came back cannot even be compared


def _said(error: BaseException) -> tuple[str, str]:
    return type(error).__name__, said(error)


def named(task: Task, cases: Sequence[Case], results: Sequence[Any]) -> Mistake | None:
    """The mistake of the catalogue that a wrong answer makes; None where no entry explains it.

    results: what the answer gave on the first cases (or Crashed), all right but the last. Among several mistakes
    that do the same on these, the first of the catalogue is told.
    """
    tried = list(zip(cases, results, strict=False))
    for mistake in task.mistakes:
        if mistake.seen is not None:
            case, found = tried[-1]
            if not isinstance(found, Crashed) and _sees(mistake, found, case):
                return mistake
        elif any(all(same_outcome(f, outcome_of(w, c.inputs)) for c, f in reversed(tried)) for w in mistake.wrong):
            return mistake
    return None


def broken_rule(task: Task, found: Any, case: Case) -> Mistake | None:
    """Of a task with many right answers: the first rule that a result breaks."""
    return next((m for m in task.mistakes if m.seen is not None and _sees(m, found, case)), None)


def _sees(mistake: Mistake, found: Any, case: Case) -> bool:
    try:
        return bool(mistake.seen(found, **case.inputs))
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):
        return False  # a result of another kind; its shape is told first


def smaller(task: Task, mistake: Mistake | None, answer: Any) -> str:
    """A case to follow by hand, with the numbers: what should come, and what comes. Empty where nothing shows there.

    answer: gives the learner's result on inputs; may raise Wrong or Crashed.
    """
    inputs = (mistake.small if mistake else None) or task.small
    if not inputs or task.by_rule:
        return ""
    expected = task.expected(copy.deepcopy(inputs))
    try:
        found = answer(inputs)
    except (Wrong, Crashed) as trouble:
        found = trouble
    if not isinstance(found, Wrong | Crashed) and judge(found, expected, Case("", inputs)) is None:
        return ""
    given = "; ".join(f"{name} = {_written(value)}" for name, value in inputs.items())
    yours = "yours fails" if isinstance(found, Wrong | Crashed) else f"yours gives {_written(found)}"
    return f"A smaller case, to follow with a pencil: with {given}, the right result is {_written(expected)}; {yours}."


def _written(value: Any) -> str:
    """A value as one would write it on paper: numbers with few digits, tensors as nested lists."""
    if isinstance(value, torch.Tensor):
        if value.numel() > 64 or value.is_meta:
            return describe(value)
        if value.dtype == torch.bool and value.dim() == 2 and len(value) > 2:  # a grid, read as a picture
            return "[" + ", ".join("".join(str(int(x)) for x in row) for row in value) + "]"
        if value.dtype == torch.bool and value.dim() == 3:  # a grid for each layer
            return _written(list(value))
        return _written(value.detach().cpu().tolist())
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_written(part) for part in value) + "]"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:.3g}"
    return repr(value)
