"""What turns notebooks into a course: `check` judges an answer, `hint` helps, `predict` keeps a prediction.

All names are loaded at their first use, so that pytest, which imports this package for its plugin, stays quick.
Their modules are called `checking` and `predicting`: a module of the function's own name would replace it here.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checking import check
    from .guesses import forget_predictions, predictions
    from .handover import mine_or_reference
    from .hints import hint
    from .predicting import predict
    from .progressing import progress, review

__all__ = [
    "check",
    "forget_predictions",
    "hint",
    "mine_or_reference",
    "predict",
    "predictions",
    "progress",
    "review",
]

_HOMES = {
    "check": "checking",
    "forget_predictions": "guesses",
    "hint": "hints",
    "mine_or_reference": "handover",
    "predict": "predicting",
    "predictions": "guesses",
    "progress": "progressing",
    "review": "progressing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
