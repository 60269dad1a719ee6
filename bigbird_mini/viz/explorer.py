"""explore_pattern: the BigBird pattern with sliders for everything it is made of.

Python computes the pattern and the numbers, the browser draws them (explorer.js); what the browser gets are the kinds
of one head, a byte for each block pair.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from bigbird_mini.pattern import KIND_NAMES, BlockPattern
from bigbird_mini.viz.draw import draw_pattern
from bigbird_mini.viz.show import picture_bundle
from bigbird_mini.viz.words import COLOURS, INK, LETTERS, counted, describe_pattern, listed

LARGEST = 256  # blocks: beyond that a cell is under two pixels and a slider step takes too long
_FLOAT32 = 4  # bytes
_SETTINGS = ("window", "n_global", "random", "seed")


class PatternExplorer(anywidget.AnyWidget):
    """The widget that `explore_pattern` returns; its settings can be changed from Python too.

    Attributes:
        window, n_global, random, seed: the sliders; n_global counts how many of `global_blocks` are used.
        n_blocks, block_size: fixed; tokens = n_blocks * block_size.
        pattern: the BlockPattern of the present settings; of the last good ones where the present ones are wrong.
        problem: one sentence about wrong settings, "" where they are right.
        words: what the picture shows, without the rows.
    """

    _esm = Path(__file__).parent / "explorer.js"
    _css = Path(__file__).parent / "explorer.css"

    n_blocks = traitlets.Int(64).tag(sync=True)
    block_size = traitlets.Int(64).tag(sync=True)
    window = traitlets.Int(3).tag(sync=True)
    n_global = traitlets.Int(2).tag(sync=True)
    random = traitlets.Int(3).tag(sync=True)
    seed = traitlets.Int(0).tag(sync=True)
    kinds = traitlets.Bytes().tag(sync=True)
    facts = traitlets.Dict().tag(sync=True)
    words = traitlets.Unicode().tag(sync=True)
    problem = traitlets.Unicode().tag(sync=True)
    legend = traitlets.List().tag(sync=True)
    global_names = traitlets.List().tag(sync=True)

    def __init__(self, order: tuple[int, ...] = (0, -1), **settings: Any) -> None:
        self._order = order
        self._pattern: BlockPattern | None = None
        super().__init__(**settings)
        self.legend = [
            {"name": KIND_NAMES[kind], "colour": COLOURS[kind], "ink": INK[kind], "letter": LETTERS[kind]}
            for kind in sorted(COLOURS)
        ]
        self.global_names = [self._global_name(k) for k in range(len(order) + 1)]
        self.observe(self._update, names=list(_SETTINGS))
        self._update()

    @property
    def global_blocks(self) -> tuple[int, ...]:
        """The global blocks of the present setting."""
        return self._order[: self.n_global]

    @property
    def pattern(self) -> BlockPattern:
        """The BlockPattern in the picture. Raises ValueError if the settings were never right."""
        if self._pattern is None:
            raise ValueError(self.problem)
        return self._pattern

    def __repr__(self) -> str:
        return f"PatternExplorer: {self.problem or self.words}"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget, and beside it a still picture with its words, for readers without a running kernel."""
        data, metadata = super()._repr_mimebundle_(**kwargs)
        if self._pattern is not None:
            data |= picture_bundle(draw_pattern(self._pattern), describe_pattern(self._pattern))
        return data | {"text/plain": repr(self)}, metadata

    def _update(self, _change: Any = None) -> None:
        """Settings -> pattern, bytes, numbers and words; wrong settings keep the picture and set `problem`."""
        try:
            if not 0 <= self.n_global <= len(self._order):
                raise ValueError(f"n_global={self.n_global} is out of range; allowed are 0 to {len(self._order)}")
            pattern = BlockPattern.bigbird(
                self.n_blocks, self.window, global_blocks=self.global_blocks, random=self.random, seed=self.seed
            )
        except (ValueError, TypeError) as error:
            self.problem = f"These settings make no pattern: {error}."
            return
        with self.hold_sync():  # one message, so that the browser draws once
            self._pattern = pattern
            self.problem = ""
            self.facts = self._measure(pattern)
            self.words = self._say()
            self.kinds = pattern.kinds()[0].numpy().tobytes()

    def _measure(self, p: BlockPattern) -> dict[str, Any]:
        """The numbers beside the picture, as the browser shows them."""
        keys = p.keys_per_query(self.block_size)[0]
        tokens = p.n_blocks * self.block_size
        sparse = int(keys.sum()) * self.block_size * _FLOAT32
        dense = tokens**2 * _FLOAT32
        return {
            "tokens": tokens,
            "density": p.density(),
            "keys_least": int(keys.min()),
            "keys_median": int(keys.median()),
            "keys_most": int(keys.max()),
            "score_bytes": sparse,
            "dense_bytes": dense,
            "rows": [
                ["density", f"{p.density():.1%} of the block pairs"],
                ["keys per query", f"{int(keys.median()):,} of {tokens:,} (median; {_span(keys)})"],
                ["scores, sparse", f"{bytes_in_words(sparse)} (one head, float32)"],
                ["scores, dense", f"{bytes_in_words(dense)}: {dense / sparse:.1f} times as much"],
            ],
        }

    def _say(self) -> str:
        f = self.facts
        return (
            f"{counted(self.n_blocks, 'block')} of {counted(self.block_size, 'token')}; window {self.window}, "
            f"global {self.global_names[self.n_global]}, random {self.random}, seed {self.seed}: "
            f"density {f['density']:.1%}, {f['keys_median']:,} of {f['tokens']:,} keys for the median query, "
            f"scores {bytes_in_words(f['score_bytes'])} instead of {bytes_in_words(f['dense_bytes'])}"
        )

    def _global_name(self, k: int) -> str:
        """The first k global blocks in words."""
        if k == 0:
            return "none"
        if self._order == (0, -1):
            return ("", "first", "first and last")[k]
        return listed(sorted(block % self.n_blocks for block in self._order[:k]))


def explore_pattern(
    n_blocks: int = 64,
    window: int = 3,
    global_blocks: Iterable[int] = (0, -1),
    random: int = 3,
    seed: int = 0,
    block_size: int = 64,
) -> PatternExplorer:
    """A BigBird pattern with sliders for window, global blocks, random blocks and seed; live numbers beside it.

    Hover over a cell, or move over the cells with the arrow keys, to read what it is. `.pattern` of the result is the
    BlockPattern in the picture. Wrong window, random or global settings are shown as a sentence inside the widget.
    Raises ValueError for n_blocks outside 1 to 256 or a block_size below 1.
    """
    if not 1 <= n_blocks <= LARGEST:
        raise ValueError(f"n_blocks={n_blocks} is out of range: the explorer draws 1 to {LARGEST} blocks")
    if block_size < 1:
        raise ValueError(f"block_size={block_size} is too small; it must be at least 1")
    chosen = tuple(dict.fromkeys(global_blocks))
    order = (0, -1) if chosen in ((), (0,), (0, -1)) else chosen
    return PatternExplorer(
        order,
        n_blocks=n_blocks,
        block_size=block_size,
        window=window,
        n_global=len(chosen),
        random=random,
        seed=seed,
    )


def bytes_in_words(count: int) -> str:
    """A number of bytes with a unit: "512 B", "9.8 MiB", "1,024 GiB"."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:,.0f} {unit}" if value >= 100 or value == int(value) else f"{value:.1f} {unit}"


def _span(keys: Any) -> str:
    return f"{int(keys.min()):,} to {int(keys.max()):,}"
