"""Drawings and widgets over the objects of the library: patterns, attention weights, cost curves.

What needs matplotlib or anywidget is loaded at its first use; the words (``describe_...``) and ``show`` need neither.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# `show` is loaded here, not on demand: a later `import bigbird_mini.viz.show` would put the module in its place.
from bigbird_mini.viz.flow import describe_flow
from bigbird_mini.viz.show import picture_bundle, show
from bigbird_mini.viz.words import COLOURS, describe_lines, describe_pattern, describe_row, describe_weights

if TYPE_CHECKING:
    from bigbird_mini.viz.attention_draw import draw_attention
    from bigbird_mini.viz.attention_view import describe_attention
    from bigbird_mini.viz.attention_widget import AttentionExplorer, explore_attention
    from bigbird_mini.viz.cost import describe_cost
    from bigbird_mini.viz.cost_draw import draw_cost
    from bigbird_mini.viz.cost_widget import CostExplorer, explore_cost
    from bigbird_mini.viz.draw import draw_lines, draw_pattern, draw_weights
    from bigbird_mini.viz.flow_draw import draw_flow
    from bigbird_mini.viz.flow_widget import FlowExplorer, explore_flow
    from bigbird_mini.viz.pattern_widget import PatternExplorer, explore_pattern

__all__ = [
    "COLOURS",
    "AttentionExplorer",
    "CostExplorer",
    "FlowExplorer",
    "PatternExplorer",
    "describe_attention",
    "describe_cost",
    "describe_flow",
    "describe_lines",
    "describe_pattern",
    "describe_row",
    "describe_weights",
    "draw_attention",
    "draw_cost",
    "draw_flow",
    "draw_lines",
    "draw_pattern",
    "draw_weights",
    "explore_attention",
    "explore_cost",
    "explore_flow",
    "explore_pattern",
    "picture_bundle",
    "show",
]

_ON_DEMAND = {
    "describe_attention": "attention_view",
    "draw_attention": "attention_draw",
    "explore_attention": "attention_widget",
    "AttentionExplorer": "attention_widget",
    "describe_cost": "cost",
    "draw_cost": "cost_draw",
    "draw_flow": "flow_draw",
    "draw_lines": "draw",
    "draw_pattern": "draw",
    "draw_weights": "draw",
    "explore_cost": "cost_widget",
    "CostExplorer": "cost_widget",
    "explore_flow": "flow_widget",
    "FlowExplorer": "flow_widget",
    "explore_pattern": "pattern_widget",
    "PatternExplorer": "pattern_widget",
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
