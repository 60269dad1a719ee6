"""Drawings and widgets over the objects of the library: patterns, attention weights, cost curves.

What needs matplotlib or anywidget is loaded at its first use; the words (``describe_...``) and ``show`` need neither.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# `show` is loaded here, not on demand: a later `import bigbird_mini.viz.show` would put the module in its place.
from bigbird_mini.viz.show import picture_bundle, show
from bigbird_mini.viz.words import COLOURS, describe_lines, describe_pattern, describe_row, describe_weights

if TYPE_CHECKING:
    from bigbird_mini.viz.draw import draw_lines, draw_pattern, draw_weights
    from bigbird_mini.viz.explorer import PatternExplorer, explore_pattern

__all__ = [
    "COLOURS",
    "PatternExplorer",
    "describe_lines",
    "describe_pattern",
    "describe_row",
    "describe_weights",
    "draw_lines",
    "draw_pattern",
    "draw_weights",
    "explore_pattern",
    "picture_bundle",
    "show",
]

_ON_DEMAND = {
    "draw_lines": "draw",
    "draw_pattern": "draw",
    "draw_weights": "draw",
    "explore_pattern": "explorer",
    "PatternExplorer": "explorer",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_DEMAND:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_ON_DEMAND[name]}"), name)
    except ModuleNotFoundError as error:
        raise ImportError(
            f'{name} needs {error.name}, which is not installed: pip install "bigbird-mini[lab]"'
        ) from error


def __dir__() -> list[str]:
    return sorted(__all__)
