"""The lists of neighbours in which a BlockPattern is stored: sorted, joined, lengthened, looked at, saved.

Four arrays for a pattern of ``heads`` heads and N blocks, in which a row is a query block:
    every: uint8 (heads, N) the kind with which a row reads all blocks, 0 where it reads only those it lists.
    keys: int32 (heads, N, K) the key blocks a row lists, ascending, N where it lists fewer than K. A row that reads all
        blocks lists those it reads for a stronger reason than ``every``.
    kinds: uint8, their kinds. counts: uint8, how often they count, or None where all count once.
A row in which a block counts more than once lists all that it reads.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from functools import cached_property, partialmethod
from pathlib import Path
from typing import Any, NamedTuple, Self
from weakref import WeakValueDictionary

import numpy as np
import torch

from .plans import whole

NONE, WINDOW, GLOBAL, RANDOM, OTHER = range(5)
KIND_NAMES = ("none", "window", "global", "random", "other")
# Where several mechanisms chose the same block, the smallest rank names it: global, window, random, other.
_RANK = np.array([9, 1, 0, 2, 3], np.int64)
_MARKS = np.array(list("·WGRO"))
_LARGEST_GRID = 2**30  # entries of grid(), one byte each
_FORMAT, _VERSION = "bigbird_mini.BlockPattern", 1


class Lists(NamedTuple):
    every: np.ndarray
    keys: np.ndarray
    kinds: np.ndarray
    counts: np.ndarray | None


def canonical(every: np.ndarray, keys: np.ndarray, kinds: np.ndarray, counts: np.ndarray | None = None) -> Lists:
    """Sorted lists, each block once under its strongest kind, full rows marked; so that equal patterns are equal.

    The arrays may list blocks in any order and repeatedly (the largest count is kept), with N for "none". Read-only.
    """
    n = every.shape[-1]
    every, keys, kinds = every.astype(np.uint8), keys.astype(np.int64), kinds.astype(np.uint8)
    counted = np.zeros(every.shape, bool)  # rows in which a block counts more than once
    if counts is not None:
        counts = np.where(keys < n, counts, 1)
        if counts.size and not 1 <= counts.min() <= counts.max() <= 255:
            raise ValueError(f"a block counts {counts.max()} times in one row; allowed are 1 to 255")
        counted = (counts > 1).any(-1)
        if (counted & (every > 0)).any():
            every, keys, kinds, counts = _spelled_out(counted, every, keys, kinds, counts)
    # a block that its row reads anyway, under a kind at least as strong, need not be listed
    keys = np.where(_RANK[kinds] < _RANK[every][..., None], keys, n)
    keys, kinds, counts = _sorted(keys, kinds, counts, n)
    again = np.zeros(keys.shape, bool)
    again[..., 1:] = keys[..., 1:] == keys[..., :-1]
    keys, kinds, counts = _sorted(np.where(again, n, keys), kinds, counts, n)
    if keys.shape[-1] >= n:  # only then can a row have listed everything
        ranks = np.where(keys < n, _RANK[kinds], -1)
        complete = ((keys < n).sum(-1) == n) & ~counted
        weakest = np.take_along_axis(kinds, ranks.argmax(-1)[..., None], -1)[..., 0]
        every = np.where(complete, weakest, every)
        keys = np.where(_RANK[kinds] < _RANK[every][..., None], keys, n)
        keys, kinds, counts = _sorted(keys, kinds, counts, n)
    most = int((keys < n).sum(-1).max(initial=0))
    lists = Lists(
        every,
        np.ascontiguousarray(keys[..., :most], np.int32),
        np.ascontiguousarray(kinds[..., :most], np.uint8),
        np.ascontiguousarray(counts[..., :most], np.uint8) if counted.any() else None,
    )
    for array in lists:
        if array is not None:
            array.flags.writeable = False
    return lists


def _spelled_out(rows: np.ndarray, every: np.ndarray, *lists: np.ndarray) -> tuple[np.ndarray, ...]:
    """The same, with the given rows listing every block, should they be full."""
    heads, n = every.shape
    if heads * n * n > _LARGEST_GRID:
        raise ValueError(f"lists of {heads} x {n} x {n} blocks take {heads * n * n / 2e8:.1f} GB; use fewer blocks")
    keys = np.where((rows & (every > 0))[..., None], np.arange(n), n)
    more = keys, np.broadcast_to(every[..., None], keys.shape), np.ones_like(keys)
    return np.where(rows, NONE, every), *(np.concatenate(pair, -1) for pair in zip(lists, more, strict=True))


def _sorted(
    keys: np.ndarray, kinds: np.ndarray, counts: np.ndarray | None, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Each row by key block, the strongest kind and the largest count first; places that hold no block go last."""
    order = np.argsort(keys * 16 + _RANK[kinds], -1, kind="stable")
    if counts is not None:
        largest = np.argsort(keys * 256 - counts, -1, kind="stable")
        counts = np.take_along_axis(np.where(keys < n, counts, 1), largest, -1)
    keys, kinds = np.take_along_axis(keys, order, -1), np.take_along_axis(kinds, order, -1)
    return keys, np.where(keys < n, kinds, NONE), counts


def joined(a: Lists, b: Lists) -> Lists:
    """What either reads; one head goes with any number."""
    heads = max(len(a.every), len(b.every))
    a, b = (Lists(*(None if x is None else np.broadcast_to(x, (heads, *x.shape[1:])) for x in one)) for one in (a, b))
    stronger = np.where(_RANK[a.every] <= _RANK[b.every], a.every, b.every)
    counts = None
    if a.counts is not None or b.counts is not None:
        counts = np.concatenate([np.ones_like(x.kinds) if x.counts is None else x.counts for x in (a, b)], -1)
    return canonical(stronger, np.concatenate([a.keys, b.keys], -1), np.concatenate([a.kinds, b.kinds], -1), counts)


def padded(lists: Lists, n_blocks: int) -> Lists:
    """The same with empty blocks behind it; a row that read everything has to list what that was."""
    n = lists.every.shape[-1]
    counts = np.ones_like(lists.kinds) if lists.counts is None else lists.counts
    every, keys, kinds, counts = _spelled_out(lists.every > 0, lists.every, lists.keys, lists.kinds, counts)
    keys = np.where(keys < n, keys, n_blocks)
    rows = (0, 0), (0, n_blocks - n)
    every, keys = np.pad(every, rows), np.pad(keys, (*rows, (0, 0)), constant_values=n_blocks)
    return canonical(every, keys, *(np.pad(x, (*rows, (0, 0))) for x in (kinds, counts)))


def shifted(lists: Lists, by: int) -> Lists:
    """The same with so many blocks before it that read nothing, and are read only by rows that read everything."""
    n = lists.every.shape[-1] + by
    rows = (0, 0), (by, 0)
    counts = None if lists.counts is None else np.pad(lists.counts, (*rows, (0, 0)), constant_values=1)
    keys = np.pad(lists.keys + by, (*rows, (0, 0)), constant_values=n)
    return canonical(np.pad(lists.every, rows), keys, np.pad(lists.kinds, (*rows, (0, 0))), counts)


def checked(n_blocks: int, every: Any, keys: Any, kinds: Any, counts: Any) -> Lists:
    """Lists that come from outside, or a ValueError: these are not what canonical would make."""
    given = Lists(*(None if x is None else np.asarray(x) for x in (every, keys, kinds, counts)))
    ranges = {"every": (0, OTHER), "keys": (0, n_blocks), "kinds": (0, OTHER), "counts": (1, 255)}
    for name, (least, most) in ranges.items():
        x = getattr(given, name)
        if x is not None and x.size and (x.dtype.kind not in "iu" or x.min() < least or x.max() > most):
            raise ValueError(f"{name} must be whole numbers from {least} to {most}")
    shapes = [x.shape for x in given if x is not None]
    if shapes[0] != shapes[1][:2] or shapes[0][1] != n_blocks or len(shapes[1]) != 3 or len(set(shapes[1:])) > 1:
        raise ValueError(f"lists of shapes {shapes} do not fit {n_blocks} blocks")
    lists = canonical(*(None if x is None else x.astype(np.int64) for x in given))
    if not all(map(np.array_equal, lists, given)):
        raise ValueError("the lists are not in order")
    return lists


def digest(lists: Lists) -> int:
    """64 bits of all that is listed: the same in every process, unlike Python's own hash of bytes."""
    found = hashlib.blake2b(digest_size=8)
    for array in lists:
        if array is not None:
            found.update(array.tobytes())
    return int.from_bytes(found.digest(), "little")


_numbers = itertools.count(1)
_living: WeakValueDictionary[int, Any] = WeakValueDictionary()


def numbered(number: int) -> Any:
    """The BlockPattern of this number: an operator of torch takes numbers and tensors, and no pattern.

    Raises RuntimeError where nobody has kept it.
    """
    try:
        return _living[number]
    except KeyError:
        raise RuntimeError(f"pattern number {number} is gone; hold the BlockPattern as long as its number") from None


class Listed:
    """What is stored as such lists: how to look at it, and how to keep it in a file. The base of BlockPattern."""

    heads: int
    n_blocks: int
    number: int
    _lists: Lists

    def __new__(cls, *_: Any, **__: Any) -> Self:
        p = super().__new__(cls)
        p.number = next(_numbers)
        _living[p.number] = p
        return p

    @property
    def _every(self) -> np.ndarray:
        return self._lists.every

    @property
    def _keys(self) -> np.ndarray:
        return self._lists.keys

    @property
    def _kinds(self) -> np.ndarray:
        return self._lists.kinds

    def neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        """The lists themselves, as NumPy arrays: (keys, full).

        keys: int64 (heads, N, K), ascending key blocks of each row, N where a row has fewer than K.
        full: bool (heads, N), rows that read every block; these list nothing.
        """
        full = self._every > 0
        keys = np.where(full[..., None], self.n_blocks, self._keys)
        most = int((keys < self.n_blocks).sum(-1).max(initial=0))
        return keys[..., :most].astype(np.int64), full

    def listed_multiplicity(self) -> np.ndarray | None:
        """uint8, of the shape of the keys of :meth:`neighbours`: how often each listed block counts (1 where a row
        lists fewer). None where all count once. A row in which one counts more often is never full: it lists all."""
        counts = self._lists.counts
        return None if counts is None else counts[..., : self.neighbours()[0].shape[-1]].copy()

    def kinds(self) -> torch.Tensor:
        """uint8 (heads, N, N): 0 not read, 1 window, 2 global, 3 random, 4 other; by the strongest where several."""
        return self._table(self._every, self._kinds)

    def grid(self) -> torch.Tensor:
        """bool (heads, N, N), on the CPU: grid()[h, i, j] is True where query block i reads key block j in head h."""
        return self.kinds() != NONE

    def multiplicity(self) -> torch.Tensor:
        """uint8 (heads, N, N): how often key block j counts for query block i in head h; 1 also where it is not read.

        1 everywhere but in the plans of the released code. To count a block m times is to add log m to its scores.
        """
        ones = np.ones_like(self._every)
        return self._table(ones, np.ones_like(self._kinds) if self._lists.counts is None else self._lists.counts)

    def _table(self, rows: np.ndarray, listed: np.ndarray) -> torch.Tensor:
        """(heads, N, N): a value for each row, and others in its listed places."""
        n = self.n_blocks
        if self.heads * n * n > _LARGEST_GRID:
            raise ValueError(
                f"a grid of {self.heads} x {n} x {n} blocks takes {self.heads * n * n / 1e9:.1f} GB; "
                f"use neighbours(), density() or keys_per_query(), or look at fewer blocks"
            )
        out = np.repeat(rows[..., None], n + 1, -1)  # one column more, where the absent neighbours go
        np.put_along_axis(out, self._keys.astype(np.int64), listed, -1)
        return torch.from_numpy(np.ascontiguousarray(out[..., :n]))

    def token_mask(self, block_size: int) -> torch.Tensor:
        """The pattern at the level of tokens: bool (heads, n, n) with n = N * block_size."""
        b = whole(block_size, "block_size", least=1)
        n = self.n_blocks * b
        if self.heads * n * n > _LARGEST_GRID:
            raise ValueError(
                f"a token mask of {self.heads} x {n} x {n} entries takes {self.heads * n * n / 1e9:.1f} GB, which is "
                f"too large; use grid() or neighbours()"
            )
        return self.grid().repeat_interleave(b, 1).repeat_interleave(b, 2)

    def density(self) -> float:
        """Share of all (query block, key block) pairs that are read, over all heads; 1.0 is dense attention."""
        return float(self._count.sum()) / (self.heads * self.n_blocks**2)

    def keys_per_query(self, block_size: int) -> torch.Tensor:
        """int64 (heads, N): how many key tokens each query of a block reads."""
        return torch.from_numpy(self._count * whole(block_size, "block_size", least=1))

    @cached_property
    def _count(self) -> np.ndarray:
        """int64 (heads, N): how many blocks each row reads."""
        return np.where(self._every > 0, self.n_blocks, (self._keys < self.n_blocks).sum(-1))

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

    # ---------------------------------------------------------------- keeping

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Itself, as it cannot change."""
        return self

    __copy__ = partialmethod(__deepcopy__, None)

    def __getstate__(self) -> dict[str, Any]:
        """What another process may know: there, the pattern gets a number of its own."""
        return {name: value for name, value in vars(self).items() if name != "number"}

    def to_json(self) -> str:
        """The pattern as text, with what BlockPattern.for_layers needs; :meth:`from_json` reads it."""
        return json.dumps({"format": _FORMAT, "version": _VERSION, **self._state()}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """The pattern that :meth:`to_json` wrote. Raises ValueError for a damaged text or an unknown version."""
        try:
            state = json.loads(text)
            if state["format"] != _FORMAT:
                raise ValueError(f"its format is {state['format']!r}, not {_FORMAT!r}")
            if state["version"] != _VERSION:
                raise ValueError(f"its version is {state['version']!r}; this library reads version {_VERSION}")
            return cls._of_state(state)
        except KeyError as error:
            raise ValueError(f"no saved pattern, or a damaged one: {error} is missing") from None
        except (ValueError, TypeError, IndexError, AttributeError, RecursionError) as error:
            raise ValueError(f"no saved pattern, or a damaged one: {error}") from None

    def save(self, path: str | Path) -> None:
        """Write :meth:`to_json` to a file; :meth:`load` reads it. 12 heads of 16,384 blocks take about 10 MB."""
        Path(path).write_text(self.to_json(), "utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """The pattern that :meth:`save` wrote. Raises ValueError for a damaged file or an unknown version."""
        try:
            return cls.from_json(Path(path).read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
