"""What turns notebooks into a course: `check` judges an answer, `predict` keeps a prediction.

Both names are loaded at their first use, so that pytest, which imports this package for its plugin, stays quick.
Their modules are called `checking` and `predicting`: a module of the function's own name would replace it here.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checking import check
    from .predicting import predict

__all__ = ["check", "predict"]

_HOMES = {"check": "checking", "predict": "predicting"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value
