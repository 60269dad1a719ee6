"""BlockPattern: which key blocks each query block reads.

The one object of this library. A text of n tokens is cut into N = n / b blocks of b tokens; a pattern says, for each
head and each query block, which key blocks it reads. Inside a block that is read, every query sees every key. BigBird
(Zaheer et al. 2020, section 2 and appendix D) is the union of three such patterns: window, global and random.

A pattern is stored as lists of neighbours, not as an N x N grid, so that long texts cost little: a row lists its key
blocks, and a row that reads everything (a global block) lists nothing and is marked instead. bigbird_mini/lists.py
keeps these lists and looks at them (grid, kinds, density ...), bigbird_mini/plans.py draws the random blocks.
"""

from __future__ import annotations

import functools
import math
import operator
import sys
from collections.abc import Callable, Iterable
from functools import cached_property
from numbers import Real
from typing import Any

import numpy as np
import torch

from . import lists, plans
from .lists import GLOBAL, KIND_NAMES, NONE, OTHER, RANDOM, WINDOW  # noqa: F401
from .plans import Drawn, whole


class BlockPattern(lists.Listed):
    """Which key blocks each query block reads, for every head. Immutable; two patterns are joined with ``|``.

    Build one with :meth:`bigbird`, :meth:`window`, :meth:`dilated`, :meth:`global_`, :meth:`global_tokens`,
    :meth:`random`, :meth:`power_law`, :meth:`full` or :meth:`from_grid`. A pattern is a set: a key block counts once
    for a query block, however many mechanisms chose it; only in the plans of the released code may it count more often
    (:meth:`multiplicity`).

    Attributes:
        n_blocks: N, the number of blocks of the text.
        heads: 1 (the same pattern for every head) or the number of heads.
        number: of this object, in this process: lists.numbered finds the pattern by it while somebody holds it.
    """

    _core: BlockPattern | None = None  # of a padded pattern, what it was before

    def __init__(
        self, every: np.ndarray, keys: np.ndarray, kinds: np.ndarray, counts: np.ndarray | None = None
    ) -> None:
        """From neighbour lists, in any order and with repetitions; the named constructors are what you want.

        every: (heads, N) kind with which a row reads all blocks, 0 where it reads only those it lists.
        keys: (heads, N, K) the key blocks a row lists, N where it lists fewer than K. kinds: their kinds, same shape.
        counts: how often each of them counts, 1 to 255, same shape; None where all count once.
        Raises ValueError for a key block that is none of 0 to N.
        """
        n = every.shape[-1]
        if keys.size and not 0 <= keys.min() <= keys.max() <= n:
            wrong = keys.min() if keys.min() < 0 else keys.max()
            raise ValueError(f"key block {wrong} is out of range: allowed are 0 to {n - 1}, and {n} for none")
        self.heads, self.n_blocks = every.shape
        self._lists = lists.canonical(every, keys, kinds, counts)
        self._parts: tuple[BlockPattern | Drawn, ...] = ()  # their union; none where nothing was drawn

    @classmethod
    def _from(cls, own: lists.Lists, parts: tuple[BlockPattern | Drawn, ...] = ()) -> BlockPattern:
        p = cls.__new__(cls)
        p.heads, p.n_blocks = own.every.shape
        p._lists, p._parts = own, parts
        return p

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
        n = whole(n_blocks, "n_blocks", least=1)
        width, step = whole(width, "window width", least=1), whole(step, "step", least=1)
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
        n = whole(n_blocks, "n_blocks", least=1)
        if not isinstance(blocks, Iterable):
            raise TypeError(f"global blocks must be a collection of block numbers, such as (0, -1), not {blocks!r}")
        chosen = set()
        for block in blocks:
            g = whole(block, "a global block")
            if not -n <= g < n:
                raise ValueError(f"global block {g} is out of range: with {n} blocks, allowed are {-n} to {n - 1}")
            chosen.add(g % n)
        chosen = sorted(chosen)
        every = np.zeros((1, n), np.uint8)
        every[:, chosen] = GLOBAL
        keys = np.broadcast_to(np.array(chosen, np.int64), (1, n, len(chosen)))
        return cls(every, keys, np.full(keys.shape, GLOBAL, np.uint8))

    @classmethod
    def global_tokens(cls, n_blocks: int, tokens: Iterable[int], block_size: int) -> BlockPattern:
        """:meth:`global_` with the blocks that hold these tokens; negative positions are counted from the end.

        Raises ValueError for a position outside the n_blocks * block_size tokens.
        """
        b = whole(block_size, "block_size", least=1)
        n = whole(n_blocks, "n_blocks", least=1) * b
        positions = [whole(token, "a global token") for token in tokens]
        for token in positions:
            if not -n <= token < n:
                raise ValueError(f"global token {token} is out of range: with {n} tokens, allowed are {-n} to {n - 1}")
        return cls.global_(n_blocks, [token % n // b for token in positions])

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
        return cls._drawn(cls.random, plans.uniform, n_blocks, per_row, seed, heads, layer, avoid)

    @classmethod
    def power_law(
        cls,
        n_blocks: int,
        per_row: int = 3,
        alpha: float = 1.0,
        seed: int = 0,
        heads: int = 1,
        layer: int = 0,
        avoid: BlockPattern | None = None,
    ) -> BlockPattern:
        """Each block reads ``per_row`` distinct others, near ones more often: drawn one after another, each with a
        probability proportional to distance ** -alpha among the blocks that are left.

        alpha=0 draws evenly. The other arguments, and what is promised about the draw, as in :meth:`random`.
        """
        if not isinstance(alpha, Real) or not 0 <= alpha < math.inf:
            raise ValueError(f"alpha={alpha!r} is no power; it must be a number, at least 0")
        own = cls.power_law, plans.power_law
        return cls._drawn(*own, n_blocks, per_row, seed, heads, layer, avoid, alpha=float(alpha))

    @classmethod
    def _drawn(
        cls,
        make: Callable[..., BlockPattern],
        plan: Callable[..., np.ndarray],
        n_blocks: int,
        per_row: int,
        seed: int,
        heads: int,
        layer: int,
        avoid: BlockPattern | None,
        **more: float,
    ) -> BlockPattern:
        n = whole(n_blocks, "n_blocks", least=1)
        heads = whole(heads, "heads", least=1)
        per_row = whole(per_row, "random blocks per row", least=0)
        taken = cls.global_(n, ()) if avoid is None else avoid
        if not isinstance(taken, BlockPattern):
            raise TypeError(f"avoid must be a BlockPattern, not {type(avoid).__name__}")
        if taken.n_blocks != n:
            raise ValueError(f"avoid has {taken.n_blocks} blocks, the pattern {n}; both need the same number")
        if taken.heads not in (1, heads):
            raise ValueError(f"avoid has {taken.heads} heads; with heads={heads} it may have 1 or {heads}")
        draw = {"seed": whole(seed, "seed"), "layer": whole(layer, "layer"), **more}
        keys = np.broadcast_to(taken._keys, (heads, *taken._keys.shape[1:])).astype(np.int64)
        full = np.broadcast_to(taken._every > 0, (heads, n))
        keys = plan(keys, full, per_row, **draw)
        own = lists.canonical(np.zeros((heads, n), np.uint8), keys, np.full(keys.shape, RANDOM, np.uint8))
        return cls._from(own, (Drawn(make, {"n_blocks": n, "per_row": per_row, "heads": heads, **draw}, avoid),))

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
        block_size: int | None = None,
        max_length: int | None = None,
        layer: int = 0,
    ) -> BlockPattern:
        """The BigBird pattern: window, global and random blocks together (section 2, figure 1).

        random: blocks per row among those that window and globals leave free, drawn from the whole text (the plan
        "uniform"), for each head and layer anew. The same as
        ``base | BlockPattern.random(n_blocks, random, heads, seed, avoid=base, layer=layer)``.

        plan: or the blocks that the released code reads, bit for bit: "google" (google-research/bigbird), "hf_train"
        and "hf_eval" (Hugging Face transformers). They depend on the length in tokens: block_size and, for "hf_train",
        max_length are needed (64 and 4096 if None). The window must be 3 and the globals the first and last block. A
        block that two of a row's mechanisms chose counts twice, see :meth:`multiplicity`. Where the released code
        attends fully (short texts) the pattern is full; where it fails, a ValueError says so.
        """
        if plan not in plans.PLANS:
            raise ValueError(f"plan={plan!r} is not known; allowed: {', '.join(map(repr, plans.PLANS))}")
        globals_ = [whole(g, "a global block") for g in global_blocks]
        base = cls.window(n_blocks, window) | cls.global_(n_blocks, globals_)
        n, heads = base.n_blocks, whole(heads, "heads", least=1)
        random = whole(random, "random blocks per row", least=0)
        sizes = {
            "block_size": whole(64 if block_size is None else block_size, "block_size", least=1),
            "max_length": whole(4096 if max_length is None else max_length, "max_length", least=1),
        }
        draw = {"random": random, "heads": heads, "seed": whole(seed, "seed"), "layer": whole(layer, "layer")}
        if plan == "uniform":
            p = base | cls.random(n, random, heads, seed, avoid=base, layer=layer)
        elif window != 3 or {g % n for g in globals_} != {0, n - 1}:
            raise ValueError(
                f"plan={plan!r} has window=3 and global_blocks=(0, -1), not window={window} and {tuple(globals_)}"
            )
        else:
            slots = plans.released(plan, n, **draw, **sizes)
            p = cls.full(n) | cls.random(n, 0, heads) if slots is None else base._counting(slots)
        fixed = {"n_blocks": n, "window": int(window), "global_blocks": globals_, "plan": plan}
        return cls._from(p._lists, (Drawn(cls.bigbird, fixed | draw | sizes),))

    def _counting(self, slots: np.ndarray) -> BlockPattern:
        """The union with the blocks in the slots (heads, N, r), each counted as often as it occurs in its row."""
        here = (self._keys[:, :, None] == slots[..., None]).any(-1) | (self._every > 0)[..., None]
        counts = (slots[..., None] == slots[:, :, None]).sum(-1) + here  # (heads, N, r)
        nothing = np.zeros(slots.shape[:2], np.uint8)
        return self | BlockPattern(nothing, slots, np.full(slots.shape, RANDOM, np.uint8), counts)

    @classmethod
    def full(cls, n_blocks: int) -> BlockPattern:
        """Every block reads every block: ordinary dense attention."""
        every = np.full((1, whole(n_blocks, "n_blocks", least=1)), OTHER, np.uint8)
        none = every[..., None][..., :0]
        return cls(every, none, none)

    @classmethod
    def from_grid(cls, grid: Any) -> BlockPattern:
        """From a square table of True and False (or 1 and 0), (N, N) or (heads, N, N); row = query, column = key."""
        try:
            g = np.asarray(grid.detach().cpu() if isinstance(grid, torch.Tensor) else grid)
        except ValueError:
            raise ValueError("the rows of a grid must be equally long") from None
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
        parts = ()
        if self._parts or other._parts:
            first = self._parts or (self,)
            parts = *first, *(part for part in other._parts or (other,) if not any(part is one for one in first))
        return self._from(lists.joined(self._lists, other._lists), parts)

    def without_random(self) -> BlockPattern:
        """The same pattern less the blocks that only the random draw chose; the others count once."""
        every, keys, kinds, _ = self._lists
        if ((every > 0) & (kinds == RANDOM).any(-1)).any():  # a full row with random exceptions will no longer be full
            kinds = self.kinds().numpy()
            every, keys = np.zeros_like(every), np.where(kinds > 0, np.arange(self.n_blocks), self.n_blocks)
        return BlockPattern(
            np.where(every == RANDOM, NONE, every), np.where(kinds == RANDOM, self.n_blocks, keys), kinds
        )

    def with_extra_globals(self, blocks: int = 1) -> BlockPattern:
        """A pattern of N + blocks blocks: new ones before the text, which read everything and are read by everybody,
        and the others as they were (the ETC construction, section 2). A full row reads the new ones too and is full.
        """
        g = whole(blocks, "extra global blocks", least=0)
        wide = self._from(lists.shifted(self._lists, g)) | BlockPattern.global_(self.n_blocks + g, range(g))
        return self._from(wide._lists, self._parts_after("with_extra_globals", g))

    def for_layers(self, layers: int) -> list[BlockPattern]:
        """One pattern for each layer: the fixed part is the same, what was drawn is drawn anew, as if with ``layer``
        so many higher. The first is this pattern; with nothing drawn all are."""
        return [self._later(layer) for layer in range(whole(layers, "layers", least=0))]

    def _later(self, layers: int) -> BlockPattern:
        if not layers or not self._parts:
            return self
        if self._core is not None:
            return self._core._later(layers).padded(self.n_blocks)
        return self._union(layers)

    def _union(self, layers: int) -> BlockPattern:
        """Of the parts, drawn so many layers on."""
        made = (part.again(layers) if isinstance(part, Drawn) else part for part in self._parts)
        return functools.reduce(operator.or_, made)

    def _parts_after(self, name: str, value: int) -> tuple[BlockPattern | Drawn, ...]:
        """Each part after the method of this name."""
        return tuple(
            part.then(name, value) if isinstance(part, Drawn) else getattr(part, name)(value) for part in self._parts
        )

    def padded(self, n_blocks: int) -> BlockPattern:
        """The same pattern with empty blocks behind it, which read nothing and are read by nobody.

        So a short text keeps its own pattern, its last real block global, in a batch beside a longer one.
        """
        n_blocks = whole(n_blocks, "n_blocks", least=self.n_blocks)
        if n_blocks == self.n_blocks:
            return self
        wide = BlockPattern.__new__(BlockPattern)  # its own lists are made when somebody looks at them
        wide.heads, wide.n_blocks, wide._core = self.heads, n_blocks, self.unpadded()
        wide._parts = wide._core._parts_after("padded", n_blocks)
        return wide

    def unpadded(self) -> BlockPattern:
        """The pattern that :meth:`padded` was called on; itself where there was no padding."""
        return self if self._core is None else self._core

    @cached_property
    def _lists(self) -> lists.Lists:
        """Of a padded pattern; the others have theirs from the start."""
        return lists.padded(self._core._lists, self.n_blocks)

    # ---------------------------------------------------------------- comparing and keeping

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BlockPattern):
            return NotImplemented
        if self is other or (self.n_blocks == other.n_blocks and self.unpadded() is other.unpadded()):
            return True
        return all(np.array_equal(a, b) for a, b in zip(self._lists, other._lists, strict=True))

    @cached_property
    def _digest(self) -> int:
        return lists.digest(self._lists)

    def __hash__(self) -> int:
        return self._digest

    def _state(self) -> dict[str, Any]:
        if self._core is not None:
            return {"padded": self.n_blocks, "pattern": self._core._state()}
        state = {name: None if x is None else x.tolist() for name, x in self._lists._asdict().items()}
        parts = [part.state() if isinstance(part, Drawn) else part._state() for part in self._parts]
        return {"n_blocks": self.n_blocks, **state, "parts": parts}

    @classmethod
    def _of_state(cls, state: dict[str, Any], most: int = sys.maxsize) -> BlockPattern | Drawn:
        if "padded" in state:
            return cls._of_state(state["pattern"]).padded(state["padded"])
        if "by" in state:  # a drawn part, of a pattern of ``most`` blocks
            avoid = None if state["avoid"] is None else cls._of_state(state["avoid"])
            return Drawn.of_state(state, (cls.random, cls.power_law, cls.bigbird), avoid, most)
        n = whole(state["n_blocks"], "n_blocks", least=1)
        own = lists.checked(n, *(state[name] for name in lists.Lists._fields))
        p = cls._from(own, tuple(cls._of_state(part, n) for part in state["parts"]))
        if p._parts and p._union(0) != p:
            raise ValueError("the lists are not what its parts draw")
        return p
