"""explore_flow: pick a token and watch, layer by layer, which blocks can have heard of it, and by which path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import traitlets
from matplotlib.colors import to_hex

from bigbird_mini.pattern import BlockPattern
from bigbird_mini.plans import whole
from bigbird_mini.viz.flow import DEEPEST, LARGEST, Flow, Stack, describe_flow, describe_path, flow_in_words, layers_of
from bigbird_mini.viz.flow_draw import draw_flow, ink_on, shades
from bigbird_mini.viz.instrument import Instrument, script
from bigbird_mini.viz.words import counted

_ASK = {
    "drawn": "Same random blocks in every layer, or fresh ones? Guess which spreads faster, then use the switch.",
    "fixed": "Which block hears last? Let the news start elsewhere: does it always take as long?",
    "many": "Guess before you look: with which of these patterns does the news reach everybody first?",
}


class FlowExplorer(Instrument):
    """The widget that `explore_flow` returns; its settings can be changed from Python too.

    Attributes:
        token: where the news starts. target: the block whose path is shown, -1 for none.
        layer: up to which layer the picture goes. fresh: random blocks drawn anew for each layer.
        chosen: which of the given patterns, by name.
        flow: what is shown, as numbers: when each block heard (`heard`), from whom (`told_by`), paths (`ways`).
    """

    _esm = script("flow.js")

    n_blocks = traitlets.Int().tag(sync=True)
    block_size = traitlets.Int().tag(sync=True)
    layers = traitlets.Int().tag(sync=True)
    names = traitlets.List().tag(sync=True)
    chosen = traitlets.Unicode().tag(sync=True)
    drawn = traitlets.Bool().tag(sync=True)
    fresh = traitlets.Bool(True).tag(sync=True)
    token = traitlets.Int(0).tag(sync=True)
    source = traitlets.Int(0).tag(sync=True)
    target = traitlets.Int(-1).tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    kinds = traitlets.Bytes().tag(sync=True)
    heard = traitlets.List().tag(sync=True)
    told_by = traitlets.List().tag(sync=True)
    shades = traitlets.List().tag(sync=True)
    inks = traitlets.List().tag(sync=True)
    rows = traitlets.List().tag(sync=True)
    path_words = traitlets.Unicode().tag(sync=True)
    ask = traitlets.Unicode().tag(sync=True)

    def __init__(self, patterns: Mapping[str, Stack], **settings: Any) -> None:
        self._patterns = dict(patterns)
        self._stacks: dict[str, dict[bool, tuple[BlockPattern, ...]]] = {}
        self._flow: Flow | None = None
        self._of: tuple[Any, ...] = ()
        super().__init__(title="Information flow", names=list(patterns), chosen=next(iter(patterns)), **settings)
        self.shades, self.inks = [to_hex(c) for c in shades(self.layers)], [ink_on(c) for c in shades(self.layers)]
        self.observe(self._changed, names=["token", "fresh", "chosen", "target"])
        self._attempt(self._update)

    @property
    def flow(self) -> Flow:
        """The flow in the picture. Raises ValueError if the settings were never right."""
        if self._flow is None:
            raise ValueError(self.problem)
        return self._flow

    def still(self) -> tuple[Any, str]:
        arguments = self._patterns[self.chosen], self.flow.source, self.layers, self.fresh, self._target()
        return draw_flow(*arguments), describe_flow(*arguments)

    def _target(self) -> int | None:
        return self.target if self.target >= 0 else None

    def _changed(self, _change: Any) -> None:
        self._attempt(self._update)

    def _update(self) -> None:
        tokens = self.n_blocks * self.block_size
        if not 0 <= self.token < tokens:
            raise ValueError(f"token={self.token} is out of range: allowed are 0 to {tokens - 1}")
        if not -1 <= self.target < self.n_blocks:
            raise ValueError(f"target={self.target} is out of range: allowed are blocks 0 to {self.n_blocks - 1}")
        if self.chosen not in self._patterns:
            raise ValueError(f"chosen={self.chosen!r} is no pattern; there are {', '.join(self._patterns)}")
        source = self.token // self.block_size
        if self._of != (self.chosen, self.fresh, source):
            self._start(source)
        self.path_words = "" if self.target < 0 else describe_path(self.flow, self.target)
        self.words = self._say()
        self.description = flow_in_words(self.flow, self._target())

    def _start(self, source: int) -> None:
        """News from another block, or through another pattern."""
        patterns = self._patterns[self.chosen]
        if self.chosen not in self._stacks:
            self._stacks[self.chosen] = {fresh: layers_of(patterns, self.layers, fresh) for fresh in (True, False)}
        flows = {fresh: Flow(stack, source) for fresh, stack in self._stacks[self.chosen].items()}
        flow = self._flow = flows[self.fresh]
        self._of = self.chosen, self.fresh, source
        same = all(p is flow.stack[0] for p in flow.stack)
        one = isinstance(patterns, BlockPattern)
        self.drawn = one and any(p is not flows[True].stack[0] for p in flows[True].stack)
        self.source = source
        self.heard, self.told_by = flow.heard.tolist(), flow.told_by.tolist()
        self.kinds = np.stack(flow.kinds[:1] if same else flow.kinds).tobytes()
        spreads = {"fresh random blocks": True, "the same ones": False} if self.drawn else {"this pattern": self.fresh}
        self.rows = [[name, *map(str, flows[fresh].spread()[1:])] for name, fresh in spreads.items()]
        self.ask = _ASK["many" if len(self.names) > 1 else "drawn" if self.drawn else "fixed"]
        if self.target < 0:
            self.target = _last(flow)
        if not self.layer:  # the first picture: the layer in which the last block hears
            self.layer = max(1, int(flow.heard.max()))

    def _say(self) -> str:
        flow, name = self.flow, f"{self.chosen}: " if len(self.names) > 1 else ""
        ways = "" if not self.drawn else ", fresh random blocks in every layer" if self.fresh else ", the same layers"
        spread = ", ".join(map(str, flow.spread()[1:]))
        start = (
            f"{name}{counted(self.n_blocks, 'block')}{ways}; news of token {self.token} (block {flow.source}) is with"
        )
        return f"{start} {spread} blocks after 1 to {self.layers} layers. {self.path_words}".rstrip()


def explore_flow(
    pattern: Stack | Mapping[str, Stack],
    token: int | None = None,
    layers: int = 6,
    block_size: int = 64,
    fresh: bool = True,
    target: int | None = None,
) -> FlowExplorer:
    """Pick a token and watch which blocks can have heard of it after each layer, as a ring, a matrix and a light cone.

    pattern: a BlockPattern for all layers (its random blocks drawn anew for each, or not: `fresh`), a list with one for
    each layer, or several of these by name, to compare. token: where the news starts; None takes the middle of the
    text. target: the block whose path is shown; None takes one that hears last. Raises ValueError for more than 256
    blocks, more than 48 layers, or patterns of different sizes.
    """
    patterns = pattern if isinstance(pattern, Mapping) else {"pattern": pattern}
    layers, block_size = whole(layers, "layers", least=1), whole(block_size, "block_size", least=1)
    if not patterns:
        raise ValueError("there is no pattern to explore")
    if layers > DEEPEST:
        raise ValueError(f"layers={layers} is too large; at most {DEEPEST} are shown")
    sizes = set()
    for name, one in patterns.items():
        stack = [one] if isinstance(one, BlockPattern) else list(one)
        if not stack or not all(isinstance(p, BlockPattern) for p in stack):
            raise TypeError(f"{name!r} must be a BlockPattern or a list of them, one for each layer")
        if not isinstance(one, BlockPattern) and len(stack) < layers:
            raise ValueError(f"layers={layers} is too large; {name!r} has patterns for {counted(len(stack), 'layer')}")
        sizes |= {p.n_blocks for p in stack}
    if len(sizes) > 1:
        raise ValueError(f"patterns of {sorted(sizes)} blocks cannot be compared; all need the same number")
    n_blocks = sizes.pop()
    if n_blocks > LARGEST:
        raise ValueError(f"a pattern of {n_blocks} blocks does not fit on a ring; at most {LARGEST} are shown")
    return FlowExplorer(
        patterns,
        n_blocks=n_blocks,
        block_size=block_size,
        layers=layers,
        token=n_blocks * block_size // 2 if token is None else token,
        fresh=fresh,
        target=-1 if target is None else target,
    )


def _last(flow: Flow) -> int:
    """A block that hears last: the one furthest from the source; the source itself where nobody hears."""
    heard = flow.heard
    late = np.flatnonzero(heard == heard.max())
    return int(max(late, key=lambda i: abs(i - flow.source)))
