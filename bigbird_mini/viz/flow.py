"""How news from one token spreads through a stack of layers: when each block hears of it, and by which paths.

Heads are taken together, as in bigbird_mini.graph: a block reads another if any head does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np

from bigbird_mini.graph import light_cone
from bigbird_mini.pattern import GLOBAL, KIND_NAMES, NONE, OTHER, RANDOM, WINDOW, BlockPattern
from bigbird_mini.viz.words import counted, listed

LARGEST = 256  # blocks: more do not fit on a ring
DEEPEST = 48  # layers
Stack = BlockPattern | Sequence[BlockPattern]


@dataclass(frozen=True)
class Flow:
    """News of block ``source`` in a stack of layers, one pattern for each, the lowest first."""

    stack: tuple[BlockPattern, ...]
    source: int

    @property
    def layers(self) -> int:
        return len(self.stack)

    @property
    def n_blocks(self) -> int:
        return self.stack[0].n_blocks

    @cached_property
    def kinds(self) -> list[np.ndarray]:
        """For each layer uint8 (N, N): the strongest kind by which any head of row i reads block j."""
        return [joined_kinds(p) for p in self.stack]

    @cached_property
    def heard(self) -> np.ndarray:
        """int64 (N,): after how many layers each block has heard of the source; -1 where never."""
        # the cone of a token is that of its block, with one token to a block
        cone = light_cone(self.stack, self.source, None, 1)  # (layers + 1, N)
        return np.where(cone.any(0), cone.argmax(0), -1)

    @cached_property
    def told_by(self) -> np.ndarray:
        """int64 (N,): the block from which each one hears of the source first, -1 for the source and where never.

        Of several, the one that has known it for longest, then the nearest.
        """
        heard, block = self.heard, np.arange(self.n_blocks)
        by = np.full(self.n_blocks, -1)
        for layer in range(1, self.layers + 1):
            rows = np.flatnonzero(heard == layer)
            could = (self.kinds[layer - 1][rows] != NONE) & (heard >= 0) & (heard < layer)  # (rows, N)
            order = heard * self.n_blocks + abs(rows[:, None] - block)
            by[rows] = np.where(could, order, np.iinfo(np.int64).max).argmin(1)
        return by

    @cached_property
    def ways(self) -> np.ndarray:
        """float64 (layers + 1, N): in how many ways the news is with each block by then, as bigbird_mini.graph.paths
        counts them: a step goes to a block that reads this one, or stays."""
        ways = np.zeros((self.layers + 1, self.n_blocks))
        ways[0, self.source] = 1
        for layer, kinds in enumerate(self.kinds):
            stays = (np.diagonal(kinds) == NONE) * ways[layer]  # the residual connection, where it does not read itself
            ways[layer + 1] = (kinds != NONE) @ ways[layer] + stays
        return ways

    def path(self, target: int) -> list[int]:
        """The blocks on a shortest path from the source to the target, both included; [] where there is none."""
        if self.heard[target] < 0:
            return []
        path = [target]
        while path[-1] != self.source:
            path.append(int(self.told_by[path[-1]]))
        return path[::-1]

    def spread(self) -> list[int]:
        """How many blocks have heard of the source after 0, 1, 2 ... layers."""
        return [int(((self.heard >= 0) & (self.heard <= layer)).sum()) for layer in range(self.layers + 1)]


def layers_of(patterns: Stack, layers: int, fresh: bool) -> tuple[BlockPattern, ...]:
    """One pattern for each layer: of one pattern the same for all, or with random blocks drawn anew for each."""
    if not isinstance(patterns, BlockPattern):
        return tuple(patterns[:layers])
    return tuple(patterns.for_layers(layers)) if fresh else (patterns,) * layers


@lru_cache(maxsize=2 * DEEPEST)
def joined_kinds(p: BlockPattern) -> np.ndarray:
    """uint8 (N, N): the kinds of all heads together; where they differ global, then window, then random."""
    kinds, joined = p.kinds().numpy(), np.zeros((p.n_blocks, p.n_blocks), np.uint8)
    for kind in (OTHER, RANDOM, WINDOW, GLOBAL):  # the strongest last
        joined[(kinds == kind).any(0)] = kind
    joined.flags.writeable = False
    return joined


def describe_flow(patterns: Stack, source: int, layers: int, fresh: bool = True, target: int | None = None) -> str:
    """In words: how many blocks have heard of block `source` after each layer, the path to `target`, and which blocks
    hear late or never."""
    return flow_in_words(Flow(layers_of(patterns, layers, fresh), source), target)


def flow_in_words(flow: Flow, target: int | None) -> str:
    """The words of :func:`describe_flow` for a flow that is there already."""
    source = flow.source
    steps = [f"{heard} after {counted(layer, 'layer')}" for layer, heard in enumerate(flow.spread()) if layer]
    lines = [f"News of block {source} is with 1 of {counted(flow.n_blocks, 'block')} at first, {', '.join(steps)}."]
    lines += [describe_path(flow, target)] if target is not None else []
    for layer in range(1, flow.layers + 1):
        new = np.flatnonzero(flow.heard == layer)
        lines += [f"Layer {layer} tells: {listed(new.tolist())}."] if len(new) else []
    never = np.flatnonzero(flow.heard < 0)
    lines += [f"It has not reached: {listed(never.tolist())}."] if len(never) else []
    return "\n".join(lines)


def describe_path(flow: Flow, target: int) -> str:
    """In words: when the target hears of the source, by which path, and in how many ways."""
    path = flow.path(target)
    if target == flow.source:
        return f"Block {target} is where the news starts."
    if not path:
        return f"Block {target} has not heard of block {flow.source} after {counted(flow.layers, 'layer')}."
    when = int(flow.heard[target])
    steps = [f"{path[0]}"]
    for before, after in pairwise(path):
        kind = flow.kinds[flow.heard[after] - 1][after, before]
        steps.append(f"{after} (layer {flow.heard[after]}, reads {before}: {KIND_NAMES[kind]})")
    shortest, all_ways = flow.ways[when, target], flow.ways[-1, target]
    ways = "in one way only" if shortest == 1 else f"in {in_words(shortest)} ways"
    more = f"; after {flow.layers} layers there are {in_words(all_ways)} ways, waiting included"
    return (
        f"Block {target} hears of block {flow.source} in layer {when}, {ways}: {' → '.join(steps)}"
        f"{more if when < flow.layers else ''}."
    )


def in_words(count: float) -> str:
    """A count of paths: whole up to a million, then "2.1e+09"."""
    return f"{count:,.0f}" if count < 1e6 else f"{count:.2g}"
