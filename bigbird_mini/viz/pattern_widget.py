"""explore_pattern: a block pattern with a slider for everything it is made of, and what follows from it beside it.

Python computes the pattern and the numbers, the browser draws them (pattern.js); what the browser gets are the kinds of
one head and layer, a byte for each block pair.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import traitlets

from bigbird_mini.pattern import BlockPattern
from bigbird_mini.viz.draw import draw_pattern
from bigbird_mini.viz.figures import Figures, Settings, measure, scaled
from bigbird_mini.viz.instrument import Instrument, script
from bigbird_mini.viz.words import describe_pattern, head_kinds, listed

LARGEST = 1024  # blocks
_AT_ONCE = 128  # blocks: up to so many, hops and the spectral gap come with the picture, beyond it after it
_PAUSE = 0.2  # seconds after a change before they are counted: a reader who drags a slider wants none of them
_GIVEN, _OWN = "the given pattern", "your own settings"
_ASK = "Press play. Could you draw the next row before it appears?"
_FIELDS = ("window", "n_global", "random", "seed", "heads", "plan", "layer")

# name -> settings, and what to try there. n_global: 2 stands for all that the call named.
PRESETS: dict[str, tuple[dict[str, Any], str]] = {
    "BigBird": (
        {"window": 3, "n_global": 2, "random": 3, "plan": "uniform"},
        "Which of the three can you take away without more than two hops between any two blocks?",
    ),
    "window": (
        {"window": 3, "n_global": 0, "random": 0, "plan": "uniform"},
        "How many layers until the last block has heard of the first? Widen the window: how does it fall?",
    ),
    "global": (
        {"window": 0, "n_global": 2, "random": 0, "plan": "uniform"},
        "Two hops at most, and yet most blocks do not even read themselves: what could such a layer not do?",
    ),
    "random": (
        {"window": 0, "n_global": 0, "random": 3, "plan": "uniform"},
        "Draw with other seeds. Which block does nobody read? Look down the columns.",
    ),
    "window + random": (
        {"window": 3, "n_global": 0, "random": 3, "plan": "uniform"},
        "Take the random blocks away one by one: what happens to the hops, and to the spectral gap?",
    ),
    "near ones more often": (
        {"window": 3, "n_global": 0, "random": 3, "plan": "power_law"},
        "The random blocks stay near, as short wires would. Compare hops and gap with even draws.",
    ),
    "released code: google": (
        {"window": 3, "n_global": 2, "random": 3, "plan": "google"},
        "Where do the random blocks go? Look at the right half, then change the layer and the head.",
    ),
    "released code: hf_train": (
        {"window": 3, "n_global": 2, "random": 3, "plan": "hf_train"},
        "Hugging Face's model while it trains: from which part of the text are the random blocks drawn?",
    ),
    "released code: hf_eval": (
        {"window": 3, "n_global": 2, "random": 3, "plan": "hf_eval"},
        "Hugging Face's model in use: find the random blocks. Point at column 0; which block counts more than once?",
    ),
}
PLANS = [
    ["uniform", "drawn evenly from the whole text"],
    ["power_law", "near ones more often (1 / distance)"],
    ["google", "as Google's released code"],
    ["hf_train", "as Hugging Face in training"],
    ["hf_eval", "as Hugging Face in evaluation"],
]


class PatternExplorer(Instrument):
    """The widget that `explore_pattern` returns; its settings can be changed from Python too.

    Attributes:
        window, n_global, random, seed, heads, plan, layer: what the pattern is made of; n_global counts how many of
            `global_blocks` are used, window 0 is none.
        preset: a name from `presets`, which sets those; "your own settings" after they were changed.
        head: the one that is shown. step: how far the row-by-row drawing is, -1 for the whole picture.
        cell: [query block, key block] chosen by click or keyboard, [] before.
        n_blocks, block_size: fixed; tokens = n_blocks * block_size.
        pattern: the BlockPattern of the present settings; of the last good ones where the present ones are wrong.
        figures: density, hops, spectral gap ... of the head that is shown, a `Figures`.
    """

    _esm = script("pattern.js")

    n_blocks = traitlets.Int(64).tag(sync=True)
    block_size = traitlets.Int(64).tag(sync=True)
    window = traitlets.Int(3).tag(sync=True)
    n_global = traitlets.Int(2).tag(sync=True)
    random = traitlets.Int(3).tag(sync=True)
    seed = traitlets.Int(0).tag(sync=True)
    heads = traitlets.Int(1).tag(sync=True)
    head = traitlets.Int(0).tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    plan = traitlets.Unicode("uniform").tag(sync=True)
    preset = traitlets.Unicode(_OWN).tag(sync=True)
    presets = traitlets.List().tag(sync=True)
    plans = traitlets.List(PLANS).tag(sync=True)
    given = traitlets.Bool(False).tag(sync=True)
    global_names = traitlets.List().tag(sync=True)
    step = traitlets.Int(-1).tag(sync=True)
    cell = traitlets.List().tag(sync=True)
    kinds = traitlets.Bytes().tag(sync=True)
    counts = traitlets.Bytes().tag(sync=True)
    ask = traitlets.Unicode().tag(sync=True)
    rows = traitlets.List().tag(sync=True)
    lengths = traitlets.List().tag(sync=True)
    lengths_title = traitlets.Unicode("bytes of the scores of one head, float32").tag(sync=True)

    def __init__(self, order: tuple[int, ...] = (0, -1), given: BlockPattern | None = None, **settings: Any) -> None:
        self._order, self._source = order, given
        self._pattern: BlockPattern | None = None
        self._figures: Figures | None = None
        self._quiet = False
        self._wanted: tuple[BlockPattern, int] | None = None  # to be measured
        self._measuring: threading.Thread | None = None
        super().__init__(title="Block pattern", **settings)
        self.presets = [*([_GIVEN] if given else []), *PRESETS, _OWN]
        self.global_names = [self._global_name(k) for k in range(len(order) + 1)]
        self.preset = _GIVEN if given else self._preset_name()
        self.observe(self._on_setting, names=[*_FIELDS, "head"])
        self.observe(self._on_preset, names=["preset"])
        self._attempt(self._update)

    @property
    def global_blocks(self) -> tuple[int, ...]:
        """The global blocks of the present setting."""
        return self._order[: self.n_global]

    @property
    def pattern(self) -> BlockPattern:
        """The BlockPattern in the picture, all heads. Raises ValueError if the settings were never right."""
        if self._pattern is None:
            raise ValueError(self.problem)
        return self._pattern

    @property
    def figures(self) -> Figures:
        """The numbers beside the picture; waits for those that come after it."""
        if (thread := self._measuring) is not None:
            thread.join()
        if self._figures is None:
            raise ValueError(self.problem)
        return self._figures

    def still(self) -> tuple[Any, str]:
        return draw_pattern(self.pattern, self.head), f"{describe_pattern(self.pattern, self.head)}\n{self.figures}"

    # ---------------------------------------------------------------- answering a change

    def _on_setting(self, change: Any) -> None:
        if self._quiet:
            return
        self._attempt(self._update)
        if not self.given and change.name in ("window", "n_global", "random", "plan"):
            with self._quietly():
                self.preset = self._preset_name()
            self.ask = self._ask()

    def _on_preset(self, _change: Any) -> None:
        if not self._quiet and self.preset != _OWN:
            self._attempt(self._take_preset)

    def _take_preset(self) -> None:
        if self.preset not in self.presets:
            raise ValueError(f"preset={self.preset!r} is not known; allowed: {', '.join(map(repr, self.presets))}")
        with self._quietly():
            for name, value in PRESETS.get(self.preset, ({}, ""))[0].items():
                setattr(self, name, min(value, len(self._order)) if name == "n_global" else value)
        self._update()

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Set what the reader sees without answering to it."""
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    def _update(self) -> None:
        """Settings -> pattern, bytes, numbers and words."""
        settings = None if self._source is not None and self.preset == _GIVEN else self._settings()
        p = settings.pattern(self.n_blocks) if settings else self._source.for_layers(self._layer() + 1)[-1]
        with self._quietly():
            self.heads, self.head = p.heads, min(self.head, p.heads - 1)
        self._pattern, self.given = p, settings is None
        self.kinds = head_kinds(p, self.head).numpy().tobytes()
        self.counts = b"" if p.listed_multiplicity() is None else p.multiplicity()[self.head].numpy().tobytes()
        self.ask = self._ask()
        self.lengths = scaled(settings) if settings else []
        self._tell(p, measure(p, self.head, self.block_size, hops=self.n_blocks <= _AT_ONCE))
        if self.n_blocks > _AT_ONCE:
            self._wanted = p, self.head
            if self._measuring is None:
                self._measuring = threading.Thread(target=self._measure_later, daemon=True)
                self._measuring.start()

    def _measure_later(self) -> None:
        """Hops and spectral gap of a large pattern take longer than a reader waits for a picture: the newest wins."""
        while True:
            time.sleep(_PAUSE)
            with self._lock:
                wanted, self._wanted = self._wanted, None
            figures = measure(*wanted, self.block_size)
            with self._lock:
                if self._wanted is None:  # else the reader has moved on
                    self._tell(wanted[0], figures)
                    self._measuring = None
                    return

    def _tell(self, p: BlockPattern, figures: Figures) -> None:
        self._figures = figures
        self.rows = figures.rows()
        self.words = f"{self._say()}: {figures.short()}"
        if figures.gap is not None:  # of a large pattern, the long description comes with the late figures
            self.description = f"{describe_pattern(p, self.head)}\n{figures}"

    # ---------------------------------------------------------------- settings

    def _preset_name(self) -> str:
        """The preset of the present settings."""
        for name, (settings, _) in PRESETS.items():
            wanted = settings | {"n_global": min(settings["n_global"], len(self._order))}
            if all(getattr(self, field) == value for field, value in wanted.items()):
                return name
        return _OWN

    def _ask(self) -> str:
        return PRESETS[self.preset][1] if self.preset in PRESETS else _ASK

    def _layer(self) -> int:
        if self.layer < 0:
            raise ValueError(f"layer={self.layer} is out of range; the first layer is 0")
        return self.layer

    def _settings(self) -> Settings:
        if not 0 <= self.n_global <= len(self._order):
            raise ValueError(f"n_global={self.n_global} is out of range; allowed are 0 to {len(self._order)}")
        return Settings(
            self.window,
            self.global_blocks,
            self.random,
            self.heads,
            self.seed,
            self._layer(),
            self.plan,
            self.block_size,
        )

    def _say(self) -> str:
        start = f"{self.n_blocks} blocks of {self.block_size} tokens" if self.n_blocks > 1 else "1 block"
        which = f", head {self.head} of {self.heads}" if self.heads > 1 else ""
        which += f", layer {self.layer}" if self.layer else ""
        if self.given:
            return f"{start}; the given pattern{which}"
        drawn = "" if self.plan == "uniform" else f" ({dict(map(tuple, PLANS))[self.plan]})"
        return (
            f"{start}; window {self.window or 'none'}, global {self.global_names[self.n_global]}, "
            f"random {self.random}{drawn}, seed {self.seed}{which}"
        )

    def _global_name(self, k: int) -> str:
        """The first k global blocks in words."""
        if k == 0:
            return "none"
        if self._order == (0, -1):
            return ("", "first", "first and last")[k]
        return listed(sorted(block % self.n_blocks for block in self._order[:k]))


def explore_pattern(
    n_blocks: int | BlockPattern = 64,
    window: int = 3,
    global_blocks: Iterable[int] = (0, -1),
    random: int = 3,
    seed: int = 0,
    block_size: int = 64,
    heads: int = 1,
    plan: str = "uniform",
    layer: int = 0,
) -> PatternExplorer:
    """A pattern with sliders for window, global blocks, random blocks, seed, heads and layer; live numbers beside it.

    n_blocks: how many blocks, for a BigBird pattern of these settings; or a BlockPattern of your own, to look at its
    heads and layers (the settings then wait until another preset is chosen). plan: as in BlockPattern.bigbird, and
    "power_law". window: 0 for none.
    Hover over a cell, or move over the cells with the arrow keys, to read what it is; zoom from blocks to tokens; play
    how one draws it by hand, row by row. `.pattern` of the result is the BlockPattern in the picture.
    Wrong settings are shown as a sentence inside the widget. Raises ValueError for more than 1024 blocks, fewer than
    1, or a block_size below 1.
    """
    given = n_blocks if isinstance(n_blocks, BlockPattern) else None
    blocks = given.n_blocks if given is not None else n_blocks
    if not 1 <= blocks <= LARGEST:
        raise ValueError(f"n_blocks={blocks} is out of range: the explorer draws 1 to {LARGEST} blocks")
    if block_size < 1:
        raise ValueError(f"block_size={block_size} is too small; it must be at least 1")
    chosen = tuple(dict.fromkeys(global_blocks))
    order = (0, -1) if chosen in ((), (0,), (0, -1)) else chosen
    return PatternExplorer(
        order,
        given,
        n_blocks=blocks,
        block_size=block_size,
        window=window,
        n_global=len(chosen),
        random=random,
        seed=seed,
        heads=given.heads if given is not None else heads,
        plan=plan,
        layer=layer,
    )
