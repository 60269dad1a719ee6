"""The tasks of exercise 02, windows; how a task is written is said in `tasks_01`."""

from . import dilated_grid, layers_needed, light_cone, tiles, window_attention  # noqa: F401
