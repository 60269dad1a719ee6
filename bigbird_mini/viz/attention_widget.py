"""explore_attention: the learned weights of any layer and head on the reader's own text, from block pairs to tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import traitlets
from matplotlib import colormaps

from bigbird_mini.model import BigBirdModel
from bigbird_mini.viz.attention_draw import CMAP, colour_of, figure_of
from bigbird_mini.viz.attention_maps import Lookup, Maps
from bigbird_mini.viz.attention_text import text_of
from bigbird_mini.viz.attention_view import (
    FULL,
    LOCKED,
    NAMES,
    NOTHING,
    View,
    first_locked,
    in_kinds,
    models_of,
    say_missed,
    say_pair,
    view_in_words,
    view_of,
)
from bigbird_mini.viz.instrument import Instrument, script

_ASK = {
    FULL: "Left, what this head reads; right, the same weights with full attention. Which query block misses most "
    "because of the pattern, and where would it look? Guess, then read the bars at the right edge.",
    NOTHING: "Every head of this layer was given its pattern; what it does with it, it has learned. Which head departs "
    "most from the row 'evenly'? Guess, then walk through the heads.",
    LOCKED: "Two heads on the same text. Before you look at the tokens: in which block pair do they differ most?",
}
_SHADES = (255 * colormaps[CMAP](np.arange(256))[:, :3]).round().astype(np.uint8).tobytes()
_SETTINGS = ("model", "layer", "head", "beside", "locked", "cell", "spot")


class AttentionExplorer(Instrument):
    """The widget that `explore_attention` returns; its settings can be changed from Python too.

    Attributes:
        model, layer, head: which weights are shown; model by its name. models: the names.
        beside: "nothing", "full attention, same weights" or "the locked head". locked: [model, layer, head], or [].
        cell: [query block, key block] whose tokens are shown; blocks of extra global tokens come first. spot: [row,
            column] of a token pair in it.
        view: what is shown, as numbers, a `View`: `.maps.masses(head)`, `.tile()`, `.tops()`, `.missed()`.
    """

    _esm = script("attention.js")

    models = traitlets.List().tag(sync=True)
    model = traitlets.Unicode().tag(sync=True)
    layer = traitlets.Int(0).tag(sync=True)
    head = traitlets.Int(0).tag(sync=True)
    layers = traitlets.Int(0).tag(sync=True)
    heads = traitlets.Int(0).tag(sync=True)
    beside = traitlets.Unicode(NOTHING).tag(sync=True)
    sides = traitlets.List([NOTHING]).tag(sync=True)
    nothing = traitlets.Unicode(NOTHING).tag(sync=True)
    locked_name = traitlets.Unicode(LOCKED).tag(sync=True)
    locked = traitlets.List().tag(sync=True)
    cell = traitlets.List([0, 0]).tag(sync=True)
    spot = traitlets.List([0, 0]).tag(sync=True)
    blocks = traitlets.Int(0).tag(sync=True)
    block_size = traitlets.Int(1).tag(sync=True)
    room = traitlets.Int(0).tag(sync=True)
    tokens = traitlets.Int(0).tag(sync=True)
    texts = traitlets.List().tag(sync=True)
    left = traitlets.Dict().tag(sync=True)
    right = traitlets.Dict().tag(sync=True)
    tiles = traitlets.List().tag(sync=True)
    kind_names = traitlets.List(list(NAMES)).tag(sync=True)
    used = traitlets.List().tag(sync=True)
    shares = traitlets.List().tag(sync=True)
    comparison = traitlets.Unicode().tag(sync=True)
    token_name = traitlets.Unicode().tag(sync=True)
    tops = traitlets.List().tag(sync=True)
    shades = traitlets.Bytes(_SHADES).tag(sync=True)
    ask = traitlets.Unicode().tag(sync=True)

    def __init__(self, models: Mapping[str, BigBirdModel], given: dict[str, Any], wanted: dict[str, Any]) -> None:
        self._models, self._given = models, given
        self._lookup: Lookup | None = None
        self._view: View | None = None
        self._own_cell = wanted["cell"] is not None  # chosen by the reader, or else anew for each head
        self._quiet = False
        config = next(iter(models.values())).config
        super().__init__(
            title="Attention viewer",
            models=list(models),
            model=next(iter(models)),
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
        )
        self.observe(self._changed, names=_SETTINGS)
        self._attempt(lambda: self._first(**wanted))

    @property
    def view(self) -> View:
        """What is shown, as numbers. Raises ValueError where nothing could ever be shown."""
        if self._view is None:
            raise ValueError(self.problem)
        return self._view

    def read(self, input_ids: Any = None, **given: Any) -> None:
        """Show the same heads on another text; arguments as for `explore_attention`, which keep `tokens` if left out.

        What is wrong with the text is shown inside the widget, which then keeps the text it has.
        """
        given = {"tokens": self._given.get("tokens"), **given, "input_ids": input_ids}
        self._attempt(lambda: self._read(given))

    def still(self) -> tuple[Any, str]:
        return figure_of(self.view), view_in_words(self.view)

    # ---------------------------------------------------------------- answering a change

    def _first(
        self,
        layer: int,
        head: int | None,
        beside: str | None,
        locked: Sequence[Any] | None,
        cell: Sequence[int] | None,
        spot: Sequence[int] | None,
    ) -> None:
        lookup = self._lookup = Lookup(self._models, text_of(**self._given))
        start, second = (self.model, layer, head), first_locked(lookup, layer, head, locked)
        try:
            self._show(view_of(lookup, start, beside, second, cell, spot))
        except Exception:
            if beside is None and second:  # what stands beside it may be at fault: then this one alone, and the reason
                self._show(view_of(lookup, start, NOTHING, None, cell, spot))
            raise

    def _read(self, given: dict[str, Any]) -> None:
        lookup = Lookup(self._models, text_of(**given))
        beside = None if self.beside == FULL else self.beside
        view = view_of(lookup, (self.model, self.layer, self.head), beside, list(self.locked))
        self._lookup, self._given, self._own_cell = lookup, given, False
        self._show(view)

    def _changed(self, change: Any) -> None:
        if not self._quiet:
            self._attempt(lambda: self._update(change.name))

    def _update(self, name: str) -> None:
        if self._lookup is None:
            raise ValueError("there is no text yet: give one that fits with .read(input_ids)")
        self._own_cell |= name in ("cell", "spot")
        if name == "model" and self.model in self._models:
            config = self._models[self.model].config
            with self._quietly():
                self.layer = min(self.layer, config.num_hidden_layers - 1)
                self.head = min(self.head, config.num_attention_heads - 1)
        keep = self._own_cell or name in ("beside", "locked")
        cell = self.cell if keep else None
        spot = self.spot if keep and name != "cell" else None
        beside = NOTHING if self.beside == LOCKED and not self.locked else self.beside
        try:
            view = view_of(self._lookup, (self.model, self.layer, self.head), beside, self.locked, cell, spot)
        except Exception:
            if name in ("beside", "locked") and self._view is not None:  # else it would stand in the way of all else
                with self._quietly():
                    self.beside = _beside(self._view)
                    self.locked = list(self._view.locked or [])
            raise
        self._show(view)

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        """Settings that follow from others are no changes of the reader's."""
        quiet, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = quiet

    def _show(self, view: View) -> None:
        self._view, maps, config = view, view.maps, view.encoder.config
        locked = list(view.locked or self.locked)
        with self._quietly():
            self.model, self.layer, self.head = view.head
            self.beside, self.locked = _beside(view), locked
            self.cell, self.spot = list(view.cell), list(view.spot)
        full = bool(view.lookup.full_count(*view.head[:2]))
        self.sides = [NOTHING, *([FULL] if full else []), *([LOCKED] if locked else [])]
        self.layers, self.heads = config.num_hidden_layers, config.num_attention_heads
        self.blocks, self.block_size, self.room = maps.n_blocks, maps.block_size, view.room
        self.tokens, self.texts = len(view.lookup.text), view.texts
        sides = [(maps, view.head[2]), *([view.beside] if view.beside else [])]
        self.left = _sent(view.name(), *sides[0])
        self.right = (
            {} if len(sides) == 1 else _sent(FULL if view.full else f"locked: {view.name(view.locked)}", *sides[1])
        )
        tiles = [one.tile(head, *view.cell) for one, head in sides]
        self.tiles = [b"" if tile is None else tile.tobytes() for tile in tiles]
        used = view.kinds()
        self.used = [
            {"name": NAMES[k], **dict(zip(("colour", "ink", "letter"), colour_of(k), strict=True))} for k in used
        ]
        self.shares = [[name, [float(share[k]) for k in used]] for name, share in view.shares()]
        self.tops = [
            [view.texts[key], str(key - view.room) if key >= view.room else "", f"{weight:.3g}", NAMES[kind]]
            for key, weight, kind in view.tops()
        ]
        self.token_name = view.token(view.place)
        self.comparison = _compared(view)
        self.ask = _ASK[self.beside]
        self.words = (
            f"{view.name()}: {in_kinds(view, maps.shares[view.head[2]])}. {self.comparison} {say_pair(view)}".replace(
                "  ", " "
            )
        )
        self.description = view_in_words(view)


def _beside(view: View) -> str:
    return FULL if view.full is not None else LOCKED if view.other is not None else NOTHING


def _compared(view: View) -> str:
    """What the two pictures have to do with each other."""
    if view.full is not None:
        return say_missed(view)
    return "" if view.other is None else f"Both give {view.agreement():.0%} of their weight to the same blocks."


def _sent(title: str, maps: Maps, head: int) -> dict[str, Any]:
    """A map as the browser gets it: lists of what is read."""
    cells, share, kinds = maps.masses(head)
    missed = maps.outside(head).astype(np.float32)
    return {
        "title": title,
        "cells": cells.tobytes(),
        "share": share.tobytes(),
        "kinds": kinds.tobytes(),
        "missed": missed.tobytes() if missed.any() else b"",
    }


def explore_attention(
    model: Any,
    input_ids: Any = None,
    attention_mask: Any = None,
    token_type_ids: Any = None,
    inputs_embeds: Any = None,
    *,
    tokens: Any = None,
    layer: int = 0,
    head: int | None = None,
    beside: str | None = None,
    locked: Sequence[Any] | None = None,
    cell: Sequence[int] | None = None,
    spot: Sequence[int] | None = None,
    document: int = 0,
) -> AttentionExplorer:
    """Look into a model: how each head spreads its weight over block pairs, and over the tokens of any of them.

    Arguments as for `draw_attention`: a model or several by name, its input, and `tokens` to read. Walk through layers
    and heads, lock one to compare others with it, put full attention with the same weights beside it to see what the
    pattern misses (where that is affordable: 2**26 weights in a layer). Weights stay in block layout: 16,384 tokens
    never make a table of 16,384 x 16,384.
    An input that does not fit, a model on two devices and the like are shown as a sentence inside the widget; `.read`
    gives it another text. Raises TypeError for what is no model, ValueError for none.
    """
    given = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "token_type_ids": token_type_ids,
        "inputs_embeds": inputs_embeds,
        "tokens": tokens,
        "document": document,
    }
    wanted = {"layer": layer, "head": head, "beside": beside, "locked": locked, "cell": cell, "spot": spot}
    return AttentionExplorer(models_of(model), given, wanted)
