"""What is looked at in a model's attention: one head, a block pair of it, one query token in there; and its words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bigbird_mini.model import BigBirdModel
from bigbird_mini.pattern import GLOBAL, KIND_NAMES, NONE, RANDOM
from bigbird_mini.viz.attention_maps import Lookup, Maps, encoder_of
from bigbird_mini.viz.attention_text import text_of
from bigbird_mini.viz.words import SMALL

NOTHING, FULL, LOCKED = "nothing", "full attention, same weights", "the locked head"
BESIDE = (NOTHING, FULL, LOCKED)
OUTSIDE = "outside the pattern"
NAMES = (OUTSIDE, *KIND_NAMES[1:])
_QUICK = 2**24  # weights of full attention in a layer that are computed without being asked for
_OUTSIDE_LAST = (*range(1, len(NAMES)), NONE)

Head = tuple[str, int, int]  # model, layer, head


@dataclass(frozen=True)
class View:
    """One head of one layer of a model, with what stands beside it.

    head: (model, layer, head). maps: its layer. full: the same layer with full attention, where that was asked for.
    locked: another head to compare with, and other, the maps of its layer. cell: (query block, key block). spot: (row,
    column) of a token pair in it.
    """

    lookup: Lookup
    head: Head
    maps: Maps
    full: Maps | None = None
    locked: Head | None = None
    other: Maps | None = None
    cell: tuple[int, int] = (0, 0)
    spot: tuple[int, int] = (0, 0)

    # ---------------------------------------------------------------- sizes and names

    @property
    def encoder(self) -> BigBirdModel:
        return self.lookup.models[self.head[0]]

    @property
    def room(self) -> int:
        """Places before the text."""
        return self.encoder.config.extra_blocks * self.maps.block_size

    @property
    def texts(self) -> list[str]:
        """What stands at each place, "" for padding."""
        places = self.maps.n_blocks * self.maps.block_size
        return self.lookup.texts(self.encoder.config.extra_global_tokens, self.room, places)

    def token(self, place: int) -> str:
        """A place in words: "token 130 'def'"."""
        if not self.texts[place]:
            return "padding"
        return self.texts[place] if place < self.room else f"token {place - self.room} '{self.texts[place]}'"

    def block(self, i: int) -> str:
        """A block in words: "block 5 (tokens 80-95)"."""
        b = self.maps.block_size
        first = i * b - self.room
        if first < 0:
            return f"block {i} (extra global tokens)"
        last = min(first + b, len(self.lookup.text)) - 1
        return f"block {i} (tokens {first}-{last})" if last >= first else f"block {i} (padding)"

    def name(self, head: Head | None = None) -> str:
        """A head in words; without the model's name where there is only one."""
        who, layer, number = head or self.head
        return f"{f'{who}, ' if len(self.lookup.models) > 1 else ''}layer {layer}, head {number}"

    # ---------------------------------------------------------------- what is seen

    @property
    def beside(self) -> tuple[Maps, int] | None:
        """The maps and the head of the second picture."""
        if self.full is not None:
            return self.full, self.head[2]
        return (self.other, self.locked[2]) if self.other is not None else None

    @property
    def place(self) -> int:
        """Of the query token that is looked at."""
        return self.cell[0] * self.maps.block_size + self.spot[0]

    def tile(self) -> np.ndarray | None:
        """(b, b) of the block pair, None where the head does not read it."""
        return self.maps.tile(self.head[2], *self.cell)

    def tops(self) -> list[tuple[int, float, int]]:
        """Of the query token: (place, weight, kind) of the keys to which it gives most."""
        kinds, b = self.maps.kinds(self.head[2])[self.cell[0]], self.maps.block_size
        return [(key, weight, int(kinds[key // b])) for key, weight in self.maps.tops(self.head[2], self.place)]

    def agreement(self) -> float | None:
        """Of the two pictures: which part of a query's weight, on average, both give to the same key blocks."""
        if self.beside is None:
            return None
        maps, head = self.beside
        (a, share, _), (b, others, _) = self.maps.masses(self.head[2]), maps.masses(head)
        both, mine, theirs = np.intersect1d(a, b, assume_unique=True, return_indices=True)
        common = np.minimum(share[mine], others[theirs]) @ self.maps.queries[both // self.maps.n_blocks]
        return float(common / self.maps.queries.sum())

    def missed(self) -> float | None:
        """The share of full attention's weight outside the pattern, on average over all queries."""
        return None if self.full is None else float(self.full.shares[self.head[2], NONE])

    def kinds(self) -> list[int]:
        """Those that occur in this layer, what lies outside last."""
        there = self.maps.even.any(0) | (self.maps.shares.any(0))
        return [kind for kind in _OUTSIDE_LAST if there[kind] or (kind == NONE and self.full is not None)]

    def shares(self) -> list[tuple[str, np.ndarray]]:
        """(name, share of each kind): the heads of the layer, a head with equal scores, and full attention."""
        rows = [(f"head {k}", share) for k, share in enumerate(self.maps.shares)]
        rows.append(("evenly", self.maps.even[self.head[2]]))
        return rows if self.full is None else [*rows, ("full attention", self.full.shares[self.head[2]])]


def models_of(model: Any) -> dict[str, BigBirdModel]:
    """The encoders by name. Raises TypeError for what is no model, ValueError for none."""
    models = model if isinstance(model, Mapping) else {"model": model}
    if not models:
        raise ValueError("there is no model to look into")
    return {str(name): encoder_of(one) for name, one in models.items()}


def view_of(
    lookup: Lookup,
    head: tuple[str | None, int, int | None],
    beside: str | None = None,
    locked: Sequence[Any] | None = None,
    cell: Sequence[int] | None = None,
    spot: Sequence[int] | None = None,
) -> View:
    """A view, with a good choice for what is None. Raises ValueError for what is not there.

    head: model, layer and head; a head of None is the one whose weights differ most from an even spread.
    """
    who, layer, number = head
    head, maps = _head(lookup, next(iter(lookup.models)) if who is None else who, layer, number)
    if beside is None:
        quick = 0 < lookup.full_count(*head[:2]) <= _QUICK
        beside = LOCKED if locked else FULL if quick else NOTHING
    if beside not in BESIDE:
        raise ValueError(f"beside={beside!r} is not known; allowed: {', '.join(map(repr, BESIDE))}")
    full = lookup.maps(*head[:2], full=True) if beside == FULL else None
    other = None
    if beside == LOCKED:
        if not locked:
            raise ValueError("no head is locked yet")
        locked, other = _head(lookup, *locked)
        sizes = [
            (m.n_blocks, m.block_size, lookup.models[name].config.extra_blocks)
            for m, (name, *_) in ((maps, head), (other, locked))
        ]
        if sizes[0] != sizes[1]:
            raise ValueError(
                "only models of like blocks stand side by side, not "
                + " and ".join(f"{n} blocks of {b} tokens ({extra} of them extra)" for n, b, extra in sizes)
            )
    cell = _strongest(maps, head[2]) if cell is None else (int(cell[0]), int(cell[1]))
    if not all(0 <= k < maps.n_blocks for k in cell):
        raise ValueError(f"cell={list(cell)} is out of range: blocks go from 0 to {maps.n_blocks - 1}")
    view = View(lookup, head, maps, full, tuple(locked) if other is not None else None, other, cell)
    if spot is None:
        tile = view.tile()
        spot = (0, 0) if tile is None else np.unravel_index(tile.argmax(), tile.shape)
    if not all(0 <= k < maps.block_size for k in spot):
        raise ValueError(f"spot={list(spot)} is out of range: places in a block go from 0 to {maps.block_size - 1}")
    return View(lookup, head, maps, full, view.locked, other, cell, (int(spot[0]), int(spot[1])))


def _head(lookup: Lookup, name: str, layer: int, number: int | None) -> tuple[Head, Maps]:
    """A head that is there, and the maps of its layer."""
    if name not in lookup.models:
        raise ValueError(f"model={name!r} is not there; there are {', '.join(lookup.models)}")
    config = lookup.models[name].config
    for what, k, most in (("layer", layer, config.num_hidden_layers), ("head", number, config.num_attention_heads)):
        if k is not None and not 0 <= k < most:
            raise ValueError(f"{what}={k} is out of range; allowed are 0 to {most - 1}")
    maps = lookup.maps(name, layer)
    if number is None:
        number = int(abs(maps.shares - maps.even).sum(1).argmax())
    return (name, layer, number), maps


def _strongest(maps: Maps, head: int) -> tuple[int, int]:
    """The random block pair with the largest share; where there is none, one off the diagonal that is not global."""
    cells, share, kinds = maps.masses(head)
    if not len(cells):
        return 0, 0
    rows, keys = np.divmod(cells, maps.n_blocks)
    for some in (kinds == RANDOM, (rows != keys) & (kinds != GLOBAL), rows != keys):
        if some.any():
            best = int(np.where(some, share, -1).argmax())
            return int(rows[best]), int(keys[best])
    return int(rows[0]), int(keys[0])


# -------------------------------------------------------------------- words


def describe_attention(model: Any, input_ids: Any = None, **settings: Any) -> str:
    """The attention of one head on a text in words: how much goes to each kind of block, which block pairs and tokens
    get most, and what full attention would put elsewhere.

    Takes what `draw_attention` takes.
    """
    return view_in_words(chosen_view(model, input_ids, **settings))


def chosen_view(
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
) -> View:
    """The view that these arguments name; see `draw_attention`."""
    text = text_of(input_ids, attention_mask, token_type_ids, inputs_embeds, tokens, document)
    lookup = Lookup(models_of(model), text)
    return view_of(lookup, (None, layer, head), beside, first_locked(lookup, layer, head, locked), cell, spot)


def first_locked(lookup: Lookup, layer: int, head: int | None, locked: Sequence[Any] | None) -> list[Any] | None:
    """The head to compare with, as (model, layer, head): of several models the second, where none is named."""
    names = list(lookup.models)
    if locked is None:
        return [names[1], layer, head] if len(names) > 1 else None
    locked = list(locked)
    if len(locked) not in (2, 3):
        raise ValueError(f"locked={locked} must be [layer, head] or [model, layer, head]")
    return locked if len(locked) == 3 else [names[0], *locked]


def view_in_words(view: View) -> str:
    """The words of :func:`describe_attention` for a view that is there already."""
    maps, head = view.maps, view.head[2]
    N, b, config = maps.n_blocks, maps.block_size, view.encoder.config
    read = len(maps.masses(head).cells)
    lines = [
        f"{_capital(view.name())} of a model of {config.num_hidden_layers} layers with {maps.heads} heads each, on "
        f"{len(view.lookup.text):,} tokens in {N} blocks of {b}: {read:,} of {N * N:,} block pairs are read.",
        f"{say_shares(view)}.",
    ]
    lines += [f"{row}: {in_kinds(view, share)}." for row, share in view.shares()[: maps.heads] if maps.heads <= 16]
    lines += [say_missed(view), *_missed_rows(view)] if view.full is not None else []
    if view.other is not None:
        lines.append(
            f"Beside it {view.name(view.locked)}: {view.agreement():.0%} of the weight goes to the same blocks."
        )
    lines.append(f"Most goes, as a share of a query's weight: {'; '.join(_strongest_pairs(view, 5))}.")
    if N <= SMALL:
        lines += [_say_row(view, i) for i in range(N) if maps.queries[i]]
    return "\n".join([*lines, say_pair(view), say_token(view)])


def say_shares(view: View) -> str:
    """Where the weight of this head goes, against a head that spreads it evenly."""
    share, even = view.maps.shares[view.head[2]], view.maps.even[view.head[2]]
    parts = [f"{NAMES[k]} {share[k]:.0%} (evenly {even[k]:.0%})" for k in view.kinds() if k != NONE]
    return f"{_capital(view.name())} gives its weight to: {', '.join(parts)}"


def in_kinds(view: View, share: np.ndarray) -> str:
    """ "window 40%, global 41%, random 19%" """
    return ", ".join(f"{NAMES[k]} {share[k]:.0%}" for k in view.kinds() if k != NONE or share[k] > 0)


def say_missed(view: View) -> str:
    """The missed mass in a sentence."""
    share = f"{view.missed():.0%} of its weight outside this pattern"
    return f"Missed mass: full attention with the same weights puts {share}."


def say_pair(view: View) -> str:
    """The block pair that is looked at, and its largest weight."""
    (i, j), head = view.cell, view.head[2]
    tile = view.tile()
    if tile is None:
        return f"Query {view.block(i)} does not read key {view.block(j)}."
    kind = NAMES[view.maps.kinds(head)[i, j]]
    share = tile.sum() / max(1, view.maps.queries[i])
    r, c = np.unravel_index(tile.argmax(), tile.shape)
    b = view.maps.block_size
    best = f"{view.token(i * b + r)} gives {tile[r, c]:.3g} to {view.token(j * b + c)}"
    return f"Query {view.block(i)} gives {share:.1%} of its weight to key {view.block(j)}: {kind}. Largest: {best}."


def say_token(view: View) -> str:
    """Where the query token that is looked at gives most, and what it misses."""
    tops = [f"{weight:.3g} to {view.token(key)} ({NAMES[kind]})" for key, weight, kind in view.tops()]
    who = _capital(view.token(view.place))
    if not tops:
        return f"{who} reads nothing."
    missed = ""
    if view.full is not None:
        missed = f" With full attention {view.full.missed_by(view.head[2], view.place):.0%} would go elsewhere."
    return f"{who} gives most to: {', '.join(tops)}.{missed}"


def _missed_rows(view: View) -> list[str]:
    """Which query block misses most, and which least."""
    missed, there = view.full.outside(view.head[2]), view.maps.queries > 0
    rows = np.flatnonzero(there)
    most, least = (rows[k(missed[rows])] for k in (np.argmax, np.argmin))
    return [
        f"Query {view.block(most)} misses most ({missed[most]:.0%}), {view.block(least)} least ({missed[least]:.0%})."
    ]


def _strongest_pairs(view: View, most: int) -> list[str]:
    cells, share, kinds = view.maps.masses(view.head[2])
    best = np.argpartition(-share, min(most, len(share)) - 1)[:most] if len(share) else []
    best = sorted(best, key=lambda k: (-share[k], cells[k]))
    pairs = [(*divmod(int(cells[k]), view.maps.n_blocks), share[k], NAMES[kinds[k]]) for k in best]
    return [f"block {i} to block {j} {value:.0%} ({kind})" for i, j, value, kind in pairs]


def _say_row(view: View, i: int) -> str:
    cells, share, kinds = view.maps.masses(view.head[2])
    row = np.flatnonzero(cells // view.maps.n_blocks == i)
    best = row[np.argsort(-share[row], kind="stable")[:3]]
    parts = [f"{cells[k] % view.maps.n_blocks} {share[k]:.0%} ({NAMES[kinds[k]]})" for k in best]
    return (
        f"Query {view.block(i)} gives most to blocks {', '.join(parts)}."
        if parts
        else f"Query {view.block(i)} reads nothing."
    )


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
