"""explore_cost: dials for length, layers, width, heads and memory; where dense stops fitting, where sparse wins."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import traitlets

from bigbird_mini.model import BigBirdConfig
from bigbird_mini.viz.cost import (
    MODES,
    WAYS,
    Cost,
    describe_cost,
    describe_win,
    describe_wrong,
    gigabytes,
    in_thousands,
    lengths,
)
from bigbird_mini.viz.cost_draw import STYLES, draw_cost
from bigbird_mini.viz.instrument import Instrument, script


class CostExplorer(Instrument):
    """The widget that `explore_cost` returns; its settings can be changed from Python too.

    Attributes:
        tokens, layers, width, heads, memory (GB), mode ("layer", "inference", "training"): the dials.
        config: the BigBirdConfig of the present dials. cost: what it costs, a `Cost`.
        fits: way -> the most tokens that fit, 0 where none do.
    """

    _esm = script("cost.js")

    tokens = traitlets.Int(4096).tag(sync=True)
    layers = traitlets.Int(12).tag(sync=True)
    width = traitlets.Int(768).tag(sync=True)
    heads = traitlets.Int(12).tag(sync=True)
    memory = traitlets.Float(11.0).tag(sync=True)
    mode = traitlets.Unicode("layer").tag(sync=True)
    modes = traitlets.List([[mode, words] for mode, words in MODES.items()]).tag(sync=True)
    lengths = traitlets.List(lengths()).tag(sync=True)
    ways = traitlets.List().tag(sync=True)
    curves = traitlets.Dict().tag(sync=True)
    fits = traitlets.Dict().tag(sync=True)
    rows = traitlets.List().tag(sync=True)
    win = traitlets.Unicode().tag(sync=True)
    wrong = traitlets.Unicode().tag(sync=True)
    ask = traitlets.Unicode().tag(sync=True)

    def __init__(self, config: BigBirdConfig, **settings: Any) -> None:
        self._first = config
        self._cost: Cost | None = None
        super().__init__(title="Cost dial", **settings)
        marks = {way: dict(zip(("colour", "marker", "dash"), style, strict=True)) for way, style in STYLES.items()}
        self.ways = [[way, name, marks[way]] for way, name in WAYS.items()]
        self.ask = (
            "With fused kernels dense attention fits as well: what, then, does sparse attention still save? "
            "Turn the length up and read the last row."
        )
        self.observe(self._changed, names=["tokens", "layers", "width", "heads", "memory", "mode"])
        self._attempt(self._update)

    @property
    def cost(self) -> Cost:
        """Of the present dials; of the last good ones where the present ones are wrong."""
        if self._cost is None:
            raise ValueError(self.problem)
        return self._cost

    @property
    def config(self) -> BigBirdConfig:
        return self.cost.config

    def still(self) -> tuple[Any, str]:
        arguments = self.config, self.cost.tokens, self.cost.memory, self.cost.mode
        return draw_cost(*arguments), describe_cost(*arguments)

    def _changed(self, _change: Any) -> None:
        self._attempt(self._update)

    def _update(self) -> None:
        ratio = self._first.intermediate_size / self._first.hidden_size
        config = replace(
            self._first,
            num_hidden_layers=self.layers,
            hidden_size=self.width,
            num_attention_heads=self.heads,
            intermediate_size=round(self.width * ratio),
        )
        cost = Cost(config, self.tokens, self.memory, self.mode)
        fits = {way: cost.longest(way) for way in WAYS}
        self.curves = {way: [cost.bytes(way, n) for n in lengths()] for way in WAYS}
        self._cost, self.fits = cost, fits
        flops = {way: in_thousands(cost.flops(way)) for way in ("dense", "fused", "sparse")}
        self.rows = [
            [f"bytes at {self.tokens:,} tokens", *(gigabytes(cost.bytes(way)) for way in WAYS)],
            [f"fits {self.memory:g} GB up to", *(f"{most:,}" if most else "nothing" for most in fits.values())],
            ["FLOPs of the scores, a layer", *(flops.get(way, "-") for way in WAYS)],
        ]
        self.win, self.wrong = describe_win(cost), describe_wrong(cost)
        self.description = describe_cost(config, self.tokens, self.memory, self.mode)
        here = ", ".join(f"{name} {gigabytes(cost.bytes(way))}" for way, name in WAYS.items())
        most = ", ".join(f"{name} {fits[way]:,}" for way, name in WAYS.items())
        self.words = (
            f"{MODES[self.mode]}, width {self.width}, {self.heads} heads, {self.layers} layers, "
            f"{self.tokens:,} tokens: {here}. {self.memory:g} GB hold, in tokens: {most}"
        )


def explore_cost(
    config: BigBirdConfig | None = None, tokens: int = 4096, memory: float = 11.0, mode: str = "layer"
) -> CostExplorer:
    """Dials for length, layers, width, heads and device memory: bytes of dense and sparse attention, and what fits.

    config: the encoder to start from (the base model of the paper if None); its pattern, its feed-forward ratio and its
    tables stay. memory: gigabytes of the device, of 10**9 bytes. mode: "layer", one layer going forward, as the popular
    question has it; "inference" or "training", the whole model. Wrong dials are shown as a sentence inside the widget.
    """
    config = BigBirdConfig() if config is None else config
    if not isinstance(config, BigBirdConfig):
        raise TypeError(f"a BigBirdConfig is needed here, not {type(config).__name__}")
    return CostExplorer(
        config,
        tokens=tokens,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        heads=config.num_attention_heads,
        memory=float(memory),
        mode=mode,
    )
