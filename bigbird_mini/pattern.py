"""BlockPattern: which key blocks each query block reads.

The one object of this library. A text of n tokens is cut into N = n / b blocks of b tokens; a pattern says, for each
head and each query block, which key blocks it reads. Inside a block that is read, every query sees every key. BigBird
(Zaheer et al. 2020, section 2 and appendix D) is the union of three such patterns: window, global and random.

A pattern is stored as lists of neighbours, not as an N x N grid, so that long texts cost little: a row lists its key
blocks, and a row that reads everything (a global block) lists nothing and is marked instead.
"""

from __future__ import annotations

import hashlib
import operator
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import numpy as np
import torch

NONE, WINDOW, GLOBAL, RANDOM, OTHER = range(5)
KIND_NAMES = ("none", "window", "global", "random", "other")
# Where several mechanisms chose the same block, the smallest rank names it: global, window, random, other.
_RANK = np.array([9, 1, 0, 2, 3], np.int64)
_MARKS = np.array(list("·WGRO"))
_LARGEST_GRID = 2**30  # entries of grid(), one byte each


class BlockPattern:
    """Which key blocks each query block reads, for every head. Immutable; two patterns are joined with ``|``.

    Build one with :meth:`bigbird`, :meth:`window`, :meth:`global_`, :meth:`random`, :meth:`full` or :meth:`from_grid`.
    A pattern is a set: a key block counts once for a query block, however many mechanisms chose it.

    Attributes:
        n_blocks: N, the number of blocks of the text.
        heads: 1 (the same pattern for every head) or the number of heads.
    """

    def __init__(self, every: np.ndarray, keys: np.ndarray, kinds: np.ndarray) -> None:
        """From neighbour lists, in any order and with repetitions; the named constructors are what you want.

        every: (heads, N) kind with which a row reads all blocks, 0 where it reads only those it lists.
        keys: (heads, N, K) the key blocks a row lists, N where it lists fewer than K. kinds: their kinds, same shape.
        """
        self.heads, self.n_blocks = every.shape
        self._lists = _canonical(every, keys, kinds)
        self._core = self
        for array in self._lists:
            array.flags.writeable = False

    # ---------------------------------------------------------------- building

    @classmethod
    def window(cls, n_blocks: int, width: int = 3) -> BlockPattern:
        """Each block reads itself and (width - 1) / 2 neighbours on each side; clipped at both ends of the text.

        Raises ValueError for a width that is even or below 1.
        """
        return cls.dilated(n_blocks, width, step=1)

    @classmethod
    def dilated(cls, n_blocks: int, width: int = 3, step: int = 2) -> BlockPattern:
        """A window with gaps: each block reads itself and, on each side, (width - 1) / 2 blocks, ``step`` apart.

        Raises ValueError for a width that is even or below 1, and for a step below 1.
        """
        n = _whole(n_blocks, "n_blocks", least=1)
        width, step = _whole(width, "window width", least=1), _whole(step, "step", least=1)
        if width % 2 == 0:
            raise ValueError(
                f"window width={width} is even; it counts the block itself, so use {width - 1} or {width + 1}"
            )
        half = min(width // 2, (n - 1) // step)
        keys = np.arange(n)[:, None] + step * np.arange(-half, half + 1)
        keys = np.where((keys < 0) | (keys >= n), n, keys)[None]
        return cls(np.zeros((1, n), np.uint8), keys, np.full(keys.shape, WINDOW, np.uint8))

    @classmethod
    def global_(cls, n_blocks: int, blocks: Iterable[int] = (0, -1)) -> BlockPattern:
        """Blocks that read everything and are read by everybody (the ITC construction, section 2).

        blocks: block indices, negative ones counted from the end; repeated ones merge. Raises ValueError out of range.
        """
        n = _whole(n_blocks, "n_blocks", least=1)
        chosen = set()
        for block in blocks:
            g = _whole(block, "a global block")
            if not -n <= g < n:
                raise ValueError(f"global block {g} is out of range: with {n} blocks, allowed are {-n} to {n - 1}")
            chosen.add(g % n)
        chosen = sorted(chosen)
        every = np.zeros((1, n), np.uint8)
        every[:, chosen] = GLOBAL
        keys = np.broadcast_to(np.array(chosen, np.int64), (1, n, len(chosen)))
        return cls(every, keys, np.full(keys.shape, GLOBAL, np.uint8))

    @classmethod
    def random(
        cls,
        n_blocks: int,
        per_row: int = 3,
        heads: int = 1,
        seed: int = 0,
        avoid: BlockPattern | None = None,
        layer: int = 0,
    ) -> BlockPattern:
        """Each block reads ``per_row`` distinct blocks drawn evenly from those that ``avoid`` leaves it.

        A row with fewer blocks left takes all of them. The draw depends on (seed, layer, head, row, n_blocks) and on
        what is to be avoided, and on nothing else: it is the same on every machine and version, and no global random
        state is read or changed. Of a seed, the lowest 64 bits count.
        """
        n = _whole(n_blocks, "n_blocks", least=1)
        heads = _whole(heads, "heads", least=1)
        per_row = _whole(per_row, "random blocks per row", least=0)
        avoid = cls.global_(n, ()) if avoid is None else avoid
        if not isinstance(avoid, BlockPattern):
            raise TypeError(f"avoid must be a BlockPattern, not {type(avoid).__name__}")
        if avoid.n_blocks != n:
            raise ValueError(f"avoid has {avoid.n_blocks} blocks, the pattern {n}; both need the same number")
        if avoid.heads not in (1, heads):
            raise ValueError(f"avoid has {avoid.heads} heads; with heads={heads} it may have 1 or {heads}")
        seed, layer = _whole(seed, "seed"), _whole(layer, "layer")
        taken = np.broadcast_to(avoid._keys, (heads, *avoid._keys.shape[1:])).astype(np.int64)
        free = np.where(avoid._every > 0, 0, n - (avoid._keys < n).sum(-1))
        free = np.broadcast_to(free, (heads, n)).copy()
        head, row = np.arange(heads)[:, None], np.arange(n)
        drawn = np.full((heads, n, min(per_row, int(free.max()))), n, np.int64)
        far = np.int64(4 * n)  # stands for "no block" in `taken`: beyond every index that stepping over can reach
        taken[taken == n] = far
        for draw in range(drawn.shape[-1]):
            pick = _below(_bits(seed, layer, head, row, n, draw), free)
            # The pick-th free block: step over the taken blocks that lie before it.
            before = (taken - np.arange(taken.shape[-1]) <= pick[..., None]).sum(-1)
            drawn[..., draw] = np.where(free > 0, pick + before, n)
            new = np.where(free > 0, pick + before, far)[..., None]
            taken = np.sort(np.concatenate([taken, new], -1), -1)
            free = np.maximum(free - 1, 0)
        return cls(np.zeros((heads, n), np.uint8), drawn, np.full(drawn.shape, RANDOM, np.uint8))

    @classmethod
    def bigbird(
        cls,
        n_blocks: int,
        window: int = 3,
        global_blocks: Iterable[int] = (0, -1),
        random: int = 3,
        heads: int = 1,
        seed: int = 0,
        plan: str = "uniform",
        layer: int = 0,
    ) -> BlockPattern:
        """The BigBird pattern: window, global and random blocks together (section 2, figure 1).

        random: blocks per row among those that window and globals leave free, drawn from the whole text (the plan
        "uniform"), for each head and layer anew. The same as
        ``base | BlockPattern.random(n_blocks, random, heads, seed, avoid=base, layer=layer)``.
        """
        if plan != "uniform":
            raise ValueError(f"plan={plan!r} is not known; allowed: 'uniform'")
        base = cls.window(n_blocks, window) | cls.global_(n_blocks, global_blocks)
        return base | cls.random(n_blocks, random, heads, seed, avoid=base, layer=layer)

    @classmethod
    def full(cls, n_blocks: int) -> BlockPattern:
        """Every block reads every block: ordinary dense attention."""
        n = _whole(n_blocks, "n_blocks", least=1)
        none = np.zeros((1, n, 0), np.int64)
        return cls(np.full((1, n), OTHER, np.uint8), none, none.astype(np.uint8))

    @classmethod
    def from_grid(cls, grid: Any) -> BlockPattern:
        """From a square table of True and False (or 1 and 0), (N, N) or (heads, N, N); row = query, column = key."""
        g = np.asarray(grid.detach().cpu() if isinstance(grid, torch.Tensor) else grid)
        if g.ndim not in (2, 3) or g.shape[-1] != g.shape[-2] or 0 in g.shape:
            raise ValueError(f"a grid of shape {g.shape} is not a pattern; it must be (N, N) or (heads, N, N)")
        if g.dtype != bool and not (g.dtype.kind in "iu" and np.isin(g, (0, 1)).all()):
            raise ValueError(f"a grid holds True and False, or whole numbers 1 and 0; this one is {g.dtype}")
        g = g.reshape(-1, *g.shape[-2:]).astype(bool)
        n, most = g.shape[-1], int(g.sum(-1).max())
        keys = np.sort(np.where(g, np.arange(n), n), -1)[..., :most]
        return cls(np.zeros(g.shape[:2], np.uint8), keys, np.full(keys.shape, OTHER, np.uint8))

    def __or__(self, other: BlockPattern) -> BlockPattern:
        """The union: a block is read if either pattern reads it. One head broadcasts against many."""
        if not isinstance(other, BlockPattern):
            return NotImplemented
        if self.n_blocks != other.n_blocks:
            raise ValueError(f"patterns of {self.n_blocks} and {other.n_blocks} blocks cannot be joined")
        if self.heads != other.heads and 1 not in (self.heads, other.heads):
            raise ValueError(
                f"patterns of {self.heads} and {other.heads} heads cannot be joined; one head goes with any"
            )
        heads = max(self.heads, other.heads)
        two = [(p._every, p._keys, p._kinds) for p in (self, other)]
        every, keys, kinds = (
            [np.broadcast_to(a, (heads, *a.shape[1:])) for a in pair] for pair in zip(*two, strict=True)
        )
        stronger = np.where(_RANK[every[0]] <= _RANK[every[1]], every[0], every[1])
        return BlockPattern(stronger, np.concatenate(keys, -1), np.concatenate(kinds, -1))

    def without_random(self) -> BlockPattern:
        """The same pattern less the blocks that only the random draw chose."""
        every, keys, kinds = self._lists
        if ((every > 0) & (kinds == RANDOM).any(-1)).any():  # a full row with random exceptions will no longer be full
            kinds = self.kinds().numpy()
            every, keys = np.zeros_like(every), np.where(kinds > 0, np.arange(self.n_blocks), self.n_blocks)
        return BlockPattern(
            np.where(every == RANDOM, NONE, every), np.where(kinds == RANDOM, self.n_blocks, keys), kinds
        )

    def padded(self, n_blocks: int) -> BlockPattern:
        """The same pattern with empty blocks behind it, which read nothing and are read by nobody.

        So a short text keeps its own pattern, its last real block global, in a batch beside a longer one.
        """
        n_blocks = _whole(n_blocks, "n_blocks", least=self.n_blocks)
        if n_blocks == self.n_blocks:
            return self
        wide = BlockPattern.__new__(BlockPattern)  # its own lists are made when somebody looks at them
        wide.heads, wide.n_blocks, wide._core = self.heads, n_blocks, self._core
        return wide

    def unpadded(self) -> BlockPattern:
        """The pattern that :meth:`padded` was called on; itself where there was no padding."""
        return self._core

    @cached_property
    def _lists(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(every, keys, kinds), as in __init__, of a padded pattern; a row that read all blocks has to list them."""
        core, n = self._core, self.n_blocks
        more = ((0, 0), (0, n - core.n_blocks))
        keys = np.where(core._keys < core.n_blocks, core._keys, n)
        all_keys = np.where(core._every[..., None] > 0, np.arange(core.n_blocks), n)
        all_kinds = np.broadcast_to(core._every[..., None], all_keys.shape)
        keys = np.pad(np.concatenate([keys, all_keys], -1), (*more, (0, 0)), constant_values=n)
        kinds = np.pad(np.concatenate([core._kinds, all_kinds], -1), (*more, (0, 0)))
        return _canonical(np.zeros(keys.shape[:2], np.uint8), keys, kinds)

    @property
    def _every(self) -> np.ndarray:
        return self._lists[0]

    @property
    def _keys(self) -> np.ndarray:
        return self._lists[1]

    @property
    def _kinds(self) -> np.ndarray:
        return self._lists[2]

    # ---------------------------------------------------------------- looking

    def neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        """The lists themselves, as NumPy arrays: (keys, full).

        keys: int64 (heads, N, K), ascending key blocks of each row, N where a row has fewer than K.
        full: bool (heads, N), rows that read every block; these list nothing.
        """
        full = self._every > 0
        keys = np.where(full[..., None], self.n_blocks, self._keys)
        most = int((keys < self.n_blocks).sum(-1).max(initial=0))
        return keys[..., :most].astype(np.int64), full

    def kinds(self) -> torch.Tensor:
        """uint8 (heads, N, N): 0 not read, 1 window, 2 global, 3 random, 4 other; by the strongest where several."""
        n = self.n_blocks
        if self.heads * n * n > _LARGEST_GRID:
            raise ValueError(
                f"a grid of {self.heads} x {n} x {n} blocks takes {self.heads * n * n / 1e9:.1f} GB; "
                f"use neighbours(), density() or keys_per_query(), or look at fewer blocks"
            )
        out = np.repeat(self._every[..., None], n + 1, -1)  # one column more, where the absent neighbours go
        np.put_along_axis(out, self._keys.astype(np.int64), self._kinds, -1)
        return torch.from_numpy(np.ascontiguousarray(out[..., :n]))

    def grid(self) -> torch.Tensor:
        """bool (heads, N, N), on the CPU: grid()[h, i, j] is True where query block i reads key block j in head h."""
        return self.kinds() != NONE

    def token_mask(self, block_size: int) -> torch.Tensor:
        """The pattern at the level of tokens: bool (heads, n, n) with n = N * block_size."""
        b = _whole(block_size, "block_size", least=1)
        if self.heads * (self.n_blocks * b) ** 2 > _LARGEST_GRID:
            raise ValueError(f"a token mask of {self.heads} x {self.n_blocks * b}² entries is too large; use grid()")
        return self.grid().repeat_interleave(b, 1).repeat_interleave(b, 2)

    def density(self) -> float:
        """Share of all (query block, key block) pairs that are read, over all heads; 1.0 is dense attention."""
        return float(self._count().sum()) / (self.heads * self.n_blocks**2)

    def keys_per_query(self, block_size: int) -> torch.Tensor:
        """int64 (heads, N): how many key tokens each query of a block reads."""
        return torch.from_numpy(self._count() * _whole(block_size, "block_size", least=1))

    def _count(self) -> np.ndarray:
        """int64 (heads, N): how many blocks each row reads."""
        return np.where(self._every > 0, self.n_blocks, (self._keys < self.n_blocks).sum(-1))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BlockPattern):
            return NotImplemented
        if self is other or (self.n_blocks == other.n_blocks and self._core is other._core):
            return True
        return all(np.array_equal(a, b) for a, b in zip(self._lists, other._lists, strict=True))

    @cached_property
    def _digest(self) -> int:
        """The same in every process, unlike Python's own hash of bytes."""
        digest = hashlib.blake2b(digest_size=8)
        for array in self._lists:
            digest.update(array.tobytes())
        return int.from_bytes(digest.digest(), "little")

    def __hash__(self) -> int:
        return self._digest

    def __repr__(self) -> str:
        heads = "1 head" if self.heads == 1 else f"{self.heads} heads"
        return f"BlockPattern({self.n_blocks} blocks, {heads}, density {self.density():.3f})"

    def __str__(self) -> str:
        """A drawing, up to 40 blocks and 4 heads: W window, G global, R random, O other, a dot for not read."""
        if self.n_blocks > 40 or self.heads > 4:
            return repr(self)
        lines = [repr(self)]
        for head, kinds in enumerate(self.kinds().numpy()):
            lines += [f"head {head}"] if self.heads > 1 else []
            lines += [" ".join(row) for row in _MARKS[kinds]]
        return "\n".join(lines)


def _canonical(every: np.ndarray, keys: np.ndarray, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorted lists, each block once under its strongest kind, full rows marked; so that equal patterns are equal."""
    n = every.shape[-1]
    every, keys = every.astype(np.uint8), keys.astype(np.int64)
    # a block that its row reads anyway, under a kind at least as strong, need not be listed
    keys = np.where(_RANK[kinds] < _RANK[every][..., None], keys, n)
    keys, kinds = _sorted(keys, kinds, n)
    again = np.zeros(keys.shape, bool)
    again[..., 1:] = keys[..., 1:] == keys[..., :-1]
    keys, kinds = _sorted(np.where(again, n, keys), kinds, n)
    if keys.shape[-1] >= n:  # only then can a row have listed everything
        ranks = np.where(keys < n, _RANK[kinds], -1)
        whole = (keys < n).sum(-1) == n
        weakest = np.take_along_axis(kinds, ranks.argmax(-1)[..., None], -1)[..., 0]
        every = np.where(whole, weakest, every)
        keys = np.where(_RANK[kinds] < _RANK[every][..., None], keys, n)
        keys, kinds = _sorted(keys, kinds, n)
    most = int((keys < n).sum(-1).max(initial=0))
    return every, np.ascontiguousarray(keys[..., :most], np.int32), np.ascontiguousarray(kinds[..., :most], np.uint8)


def _sorted(keys: np.ndarray, kinds: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Each row by key block, the strongest kind first; places that hold no block go last, with kind 0."""
    order = np.argsort(keys * 16 + _RANK[kinds], -1, kind="stable")
    keys, kinds = np.take_along_axis(keys, order, -1), np.take_along_axis(kinds, order, -1)
    return keys, np.where(keys < n, kinds, NONE)


def _bits(*fields: Any) -> np.ndarray:
    """64 well-mixed bits for each combination of integer fields: a chain of splitmix64 steps, one for each field."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is what is meant
        h = np.zeros(1, np.uint64)
        for field in fields:
            field = np.uint64(field & (2**64 - 1)) if isinstance(field, int) else field.astype(np.uint64)
            h = h + field + np.uint64(0x9E3779B97F4A7C15)
            h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            h = h ^ (h >> np.uint64(31))
    return h


def _below(bits: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """Evenly spread integers 0 <= x < bound, from the upper half of the bits (uneven by less than bound / 2**32)."""
    return ((bits >> np.uint64(32)) * bound.astype(np.uint64) >> np.uint64(32)).astype(np.int64)


def _whole(value: Any, name: str, least: int | None = None) -> int:
    """The value as an int, or one sentence about what is wrong with it."""
    try:
        whole = operator.index(value)
    except TypeError:
        whole = None
    if whole is None or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if least is not None and whole < least:
        raise ValueError(f"{name}={whole} is too small; it must be at least {least}")
    return whole
