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
    from .killing import judge_test
    from .measuring import beside
    from .packing import pack
    from .predicting import predict
    from .progressing import progress, review
    from .recorder import flight
    from .swapping import swap
    from .warming import warm_up

__all__ = [
    "beside",
    "check",
    "flight",
    "forget_predictions",
    "hint",
    "judge_test",
    "mine_or_reference",
    "pack",
    "predict",
    "predictions",
    "progress",
    "review",
    "swap",
    "warm_up",
]

_HOMES = {
    "beside": "measuring",
    "check": "checking",
    "flight": "recorder",
    "forget_predictions": "guesses",
    "hint": "hints",
    "judge_test": "killing",
    "mine_or_reference": "handover",
    "pack": "packing",
    "predict": "predicting",
    "predictions": "guesses",
    "progress": "progressing",
    "review": "progressing",
    "swap": "swapping",
    "warm_up": "warming",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
