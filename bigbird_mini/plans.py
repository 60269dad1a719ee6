"""Which random blocks a row reads: drawn evenly, by distance, or as the released code of BigBird draws them.

Arrays of block numbers and nothing else. Our own draws come from a hash of (seed, layer, head, row, length), so a seed
fixes them for ever; NumPy promises the same of its old RandomState, which the released code uses. Both keep to
themselves: no global random state is read or changed.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Context, Decimal, localcontext
from functools import lru_cache
from typing import Any

import numpy as np

# The lengths in tokens at which the released code draws from the first 1024 tokens, as for the paper.
PAPER_LENGTHS = {
    "google": (1024, 2048, 3072, 4096),
    "hf_train": (1024, 3072, 4096),
    "hf_eval": (1024, 3072, 4096),
}
PLANS = ("uniform", *PAPER_LENGTHS)


def whole(value: Any, name: str, least: int | None = None) -> int:
    """The value as an int, or one sentence about what is wrong with it."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if least is not None and number < least:
        raise ValueError(f"{name}={number} is too small; it must be at least {least}")
    return number


# -------------------------------------------------------------------- our own draws


def uniform(taken: np.ndarray, closed: np.ndarray, per_row: int, seed: int, layer: int) -> np.ndarray:
    """int64 (heads, N, D), N for "none": ``per_row`` different blocks for each row, evenly from those not taken.

    taken: int64 (heads, N, K) the blocks that a row may not draw, N where they are fewer than K. closed: bool (heads,
    N), rows that draw nothing. A row with fewer blocks left than it wants takes them all.
    """
    heads, n, _ = taken.shape
    free = np.where(closed, 0, n - (taken < n).sum(-1))
    head, row = np.arange(heads)[:, None], np.arange(n)
    drawn = np.full((heads, n, min(per_row, int(free.max()))), n, np.int64)
    far = np.int64(4 * n)  # stands for "no block" in `taken`: beyond every index that stepping over can reach
    taken = np.sort(np.where(taken == n, far, taken), -1)
    for draw in range(drawn.shape[-1]):
        pick = _below(_bits(seed, layer, head, row, n, draw), free)
        # The pick-th free block: step over the taken blocks that lie before it.
        before = (taken - np.arange(taken.shape[-1]) <= pick[..., None]).sum(-1)
        drawn[..., draw] = np.where(free > 0, pick + before, n)
        new = np.where(free > 0, pick + before, far)[..., None]
        taken = np.sort(np.concatenate([taken, new], -1), -1)
        free = np.maximum(free - 1, 0)
    return drawn


def power_law(taken: np.ndarray, closed: np.ndarray, per_row: int, alpha: float, seed: int, layer: int) -> np.ndarray:
    """As :func:`uniform`, but one block after another with probability proportional to distance ** -alpha.

    Never the row's own block. The blocks of a row lie end to end on a line, each as long as its weight, and a draw is a
    point of that line, from which the taken blocks have been cut out.
    """
    heads, n, _ = taken.shape
    total = _weights_up_to(n, alpha)  # (N,) of the distances 1 .. d
    head, row = np.arange(heads)[:, None], np.arange(n)
    left, right = total[row], total[n - 1 - row]  # (N,) the two sides of each row
    drawn = np.full((heads, n, min(per_row, n - 1)), n, np.int64)
    for draw in range(drawn.shape[-1]):
        taken = np.sort(taken, -1)
        away = np.where(taken < n, np.abs(taken - row[:, None]), 0)  # (heads, N, K)
        length = total[away] - total[np.maximum(away - 1, 0)]  # 0 for the row's own block and for "no block"
        start = left[:, None] + np.where(taken < row[:, None], -total[away], total[np.maximum(away - 1, 0)])
        free = np.where(closed, 0, left + right - length.sum(-1))
        point = _below(_bits(seed, layer, head, row, n, draw, 1), free, wide=True)
        cut = start - np.cumsum(length, -1) + length  # where the cut-out blocks would be if those before them were gone
        point += (length * (cut <= point[..., None])).sum(-1)
        before = point < left
        distance = np.searchsorted(total, np.where(before, left - 1 - point, point - left), side="right")
        drawn[..., draw] = np.where(free > 0, np.where(before, row - distance, row + distance), n)
        taken = np.concatenate([taken, drawn[..., draw, None]], -1)
    return drawn


@lru_cache(maxsize=16)
def _weights_up_to(n: int, alpha: float) -> np.ndarray:
    """int64 (N,): the weights of the distances 1 .. d added up, for d = 0 .. N - 1; at most 2**30 + N.

    A weight is distance ** -alpha in whole units, at least one. Powers of floats differ in their last bits between
    machines, and a draw that falls on the border would differ with them. So the powers are taken in decimals of 28
    digits, which are the same everywhere and far finer than the units; all that follows is whole numbers.
    """
    with localcontext(Context(prec=28)):
        powers = [Decimal(d) ** -Decimal(alpha) for d in range(1, n)]
        unit = sum(powers, Decimal(0)) / 2**30
        weights = [max(1, round(power / unit)) for power in powers]
    total = np.cumsum([0, *weights], dtype=np.int64)
    total.flags.writeable = False
    return total


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


def _below(bits: np.ndarray, bound: np.ndarray, wide: bool = False) -> np.ndarray:
    """Evenly spread integers 0 <= x < bound < 2**32, from the upper half of the bits (uneven by less than bound /
    2**32); ``wide``: from all of them (uneven by less than bound / 2**64)."""
    half, bound = np.uint64(32), bound.astype(np.uint64)
    lower = (bits & np.uint64(2**32 - 1)) * bound >> half if wide else np.uint64(0)
    return ((bits >> half) * bound + lower >> half).astype(np.int64)


# -------------------------------------------------------------------- the released code's draws


def released(
    plan: str, n_blocks: int, random: int, heads: int, seed: int, layer: int, block_size: int, max_length: int
) -> np.ndarray | None:
    """int64 (heads, N, random): the block in each random slot of the released code; None where it attends fully.

    The first and last row, which read everything anyway, hold N ("none"). A slot may hold a block that its row reads
    already, by window, globals or another slot: the released code counts it once more.

    "google": google-research/bigbird; "hf_train", "hf_eval": Hugging Face transformers in training and in evaluation,
    where every slot holds block 0. They seed with the index of the layer; here that is seed + layer (modulo 2**32).
    Raises ValueError for the few shapes at which the released code fails, for want of blocks to draw from.
    """
    n = n_blocks * block_size
    if (n <= 512 or n_blocks <= 3) if plan == "google" else n_blocks <= 5 + 2 * random:
        return None
    drawn = np.full((heads, n_blocks, random), n_blocks, np.int64)
    if plan == "hf_eval":
        drawn[:, 1:-1] = 0
    elif random:
        state = np.random.RandomState((seed + layer) % 2**32)
        if n in PAPER_LENGTHS[plan]:
            _paper_plan(drawn, state, block_size, 4096 if plan == "google" else max_length)
        else:
            _general_plan(drawn, state)
    if (drawn[:, 1:-1] >= n_blocks).any():
        raise ValueError(f"the released code fails here: it draws blocks beyond the {n_blocks} of the text")
    drawn[:, -1] = n_blocks
    return drawn


def _paper_plan(drawn: np.ndarray, state: np.random.RandomState, block_size: int, max_length: int) -> None:
    """Head after head, all rows of the longest text, from the first 1024 tokens less the window of the row."""
    heads, n_blocks, random = drawn.shape
    longest = max_length // block_size
    if n_blocks > longest:
        raise ValueError(f"{n_blocks} blocks of {block_size} tokens are more than max_length={max_length} tokens")
    last = min(1024 // block_size - 1 if 2 * block_size < 1024 else longest, longest - 2)
    for head in range(heads):
        for row in range(1, longest - 1):
            blocks = np.arange(1, last + 1)
            if row < longest - 3 or row <= 2:  # in the last two rows the released code forgets the window
                blocks = blocks[abs(blocks - row) > 1]
            picked = _first(state.permutation(blocks), random, row)
            if row < n_blocks - 1:
                drawn[head, row] = picked


def _general_plan(drawn: np.ndarray, state: np.random.RandomState) -> None:
    """Row after row, all heads, from the first blocks only, whose last one is never drawn, as if the text ended there.

    The slots of a row are shared between two zones of the text. From 6 + 2 random blocks on, the first zone, of
    5 + 2 random blocks, has them all.
    """
    heads, n_blocks, random = drawn.shape
    if n_blocks > 5 + 2 * random:
        end, few = 5 + 2 * random, random
    elif n_blocks > 5 + random:
        end, few = 5 + random, random // 2
    else:
        end, few = n_blocks, random
    zones = (np.arange(end), slice(0, few)), (np.arange(end, n_blocks), slice(few, random))
    for rows in (range(1, end), range(end, n_blocks)):
        for blocks, slots in zones:
            for row in rows if slots.start < slots.stop else ():
                stop = blocks[-1] + 1
                barred = {row - 1, row, row + 1, 0, stop - 1}
                barred |= {stop - 2} if row == 1 else {1} if row == stop - 2 else set()
                for head in range(heads):
                    shuffled = [block for block in state.permutation(blocks).tolist() if block not in barred]
                    drawn[head, row, slots] = _first(shuffled, slots.stop - slots.start, row)


def _first(blocks: Sequence[int] | np.ndarray, many: int, row: int) -> Sequence[int] | np.ndarray:
    """So many of them; where there is but one it fills all slots, as NumPy does when the released code stores it."""
    if len(blocks) < many and len(blocks) != 1:
        raise ValueError(
            f"the released code fails here: row {row} has {len(blocks)} blocks to draw {many} random ones from; "
            f"use more or smaller blocks, or fewer random ones"
        )
    return blocks[:many]


# -------------------------------------------------------------------- drawing once more


@dataclass(frozen=True, eq=False)
class Drawn:
    """What drew a part of a pattern, and what was done to the part since: so that every layer can have its own.

    make: a constructor of patterns with an argument ``layer``. avoid: the pattern that it was told to avoid, if any.
    since: methods of patterns and their argument, such as ("padded", 12).
    """

    make: Callable[..., Any]
    arguments: dict[str, Any]
    avoid: Any = None
    since: tuple[tuple[str, int], ...] = ()

    def again(self, layers: int) -> Any:
        """The part as drawn so many layers on."""
        arguments = self.arguments | {"layer": self.arguments["layer"] + layers}
        if self.avoid is not None:
            arguments["avoid"] = self.avoid._later(layers)
        p = self.make(**arguments)
        for name, value in self.since:
            p = getattr(p, name)(value)
        return p

    def then(self, name: str, value: int) -> Drawn:
        """The same part after one more method."""
        return replace(self, since=(*self.since, (name, value)))

    def state(self) -> dict[str, Any]:
        """For a JSON file."""
        avoid = self.avoid if self.avoid is None else self.avoid._state()
        return {"by": self.make.__name__, "arguments": self.arguments, "avoid": avoid, "since": self.since}

    @classmethod
    def of_state(cls, state: dict[str, Any], makes: Iterable[Callable[..., Any]], avoid: Any, most: int) -> Drawn:
        """The part that :meth:`state` wrote; its constructor must be one of ``makes``, its blocks at most ``most``."""
        known = {make.__name__: make for make in makes}
        arguments, since = dict(state["arguments"]), tuple((name, value) for name, value in state["since"])
        by, done = state["by"], {name for name, _ in since} - {"padded", "with_extra_globals"}
        if by not in known or done or arguments["n_blocks"] > most:
            raise ValueError(f"a part is {by!r} of {arguments['n_blocks']} blocks, then {[*since]}")
        return cls(known[by], arguments, avoid, since)
