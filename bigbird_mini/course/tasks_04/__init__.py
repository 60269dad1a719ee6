"""The tasks of exercise 04, random edges: draw them, and measure the graph that they make."""

from . import coverage, hops, random_blocks, spectral_gap  # noqa: F401
