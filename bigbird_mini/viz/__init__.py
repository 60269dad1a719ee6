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
    from bigbird_mini.viz.distillation import describe_distillation
    from bigbird_mini.viz.distillation_draw import draw_distillation
    from bigbird_mini.viz.distillation_widget import DistillationDashboard, explore_distillation
    from bigbird_mini.viz.draw import draw_lines, draw_pattern, draw_weights
    from bigbird_mini.viz.flow_draw import draw_flow
    from bigbird_mini.viz.flow_widget import FlowExplorer, explore_flow
    from bigbird_mini.viz.paint import describe_tasks
    from bigbird_mini.viz.paint_draw import draw_tasks
    from bigbird_mini.viz.paint_widget import PaintExplorer, paint_pattern
    from bigbird_mini.viz.pattern_widget import PatternExplorer, explore_pattern
    from bigbird_mini.viz.watch_draw import draw_training
    from bigbird_mini.viz.watch_widget import TrainingDashboard, watch
    from bigbird_mini.viz.watch_words import describe_training

__all__ = [
    "COLOURS",
    "AttentionExplorer",
    "CostExplorer",
    "DistillationDashboard",
    "FlowExplorer",
    "PaintExplorer",
    "PatternExplorer",
    "TrainingDashboard",
    "describe_attention",
    "describe_cost",
    "describe_distillation",
    "describe_flow",
    "describe_lines",
    "describe_pattern",
    "describe_row",
    "describe_tasks",
    "describe_training",
    "describe_weights",
    "draw_attention",
    "draw_cost",
    "draw_distillation",
    "draw_flow",
    "draw_lines",
    "draw_pattern",
    "draw_tasks",
    "draw_training",
    "draw_weights",
    "explore_attention",
    "explore_cost",
    "explore_distillation",
    "explore_flow",
    "explore_pattern",
    "paint_pattern",
    "picture_bundle",
    "show",
    "watch",
]

_ON_DEMAND = {
    "describe_attention": "attention_view",
    "draw_attention": "attention_draw",
    "explore_attention": "attention_widget",
    "AttentionExplorer": "attention_widget",
    "describe_cost": "cost",
    "describe_distillation": "distillation",
    "describe_training": "watch_words",
    "draw_cost": "cost_draw",
    "draw_distillation": "distillation_draw",
    "draw_flow": "flow_draw",
    "draw_lines": "draw",
    "draw_pattern": "draw",
    "draw_training": "watch_draw",
    "draw_weights": "draw",
    "explore_cost": "cost_widget",
    "CostExplorer": "cost_widget",
    "explore_flow": "flow_widget",
    "FlowExplorer": "flow_widget",
    "describe_tasks": "paint",
    "draw_tasks": "paint_draw",
    "paint_pattern": "paint_widget",
    "PaintExplorer": "paint_widget",
    "explore_pattern": "pattern_widget",
    "PatternExplorer": "pattern_widget",
    "explore_distillation": "distillation_widget",
    "DistillationDashboard": "distillation_widget",
    "watch": "watch_widget",
    "TrainingDashboard": "watch_widget",
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
