"""What an encoder costs as the text grows: dense attention, sparse attention, and the textbook's wrong arithmetic.

The arithmetic is bigbird_mini.cost's. A device's gigabyte is 10**9 bytes; numbers are float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from bigbird_mini.cost import attention_flops, break_even, layer_bytes, longest, model_cost
from bigbird_mini.model import BigBirdConfig
from bigbird_mini.pattern import BlockPattern

MODES = {
    "layer": "one layer, forward",
    "inference": "the whole model, forward",
    "training": "the whole model, in training",
}
WAYS = {
    "wrong": "wrong: n² x width",
    "dense": "dense, plain",
    "fused": "dense, fused",
    "sparse": "sparse, plain",
}
_FULL = BlockPattern.full(1)  # dense attention, with blocks as long as the text
_STEADY = 128  # blocks: from here on each further block of a BigBird pattern costs as much as the one before
_VALUES = 2  # scores and weights, both there for a moment
_MOST = 2**30  # tokens


@dataclass(frozen=True)
class Cost:
    """What a config costs on texts of ``tokens`` tokens, and which lengths fit into ``memory`` gigabytes.

    Raises ValueError for settings that make no sense. Of a sparse text the length is rounded up to whole blocks.
    """

    config: BigBirdConfig
    tokens: int = 4096
    memory: float = 11.0
    mode: str = "layer"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f"mode={self.mode!r} is not known; allowed: {', '.join(map(repr, MODES))}")
        if not 1 <= self.tokens <= _MOST:
            raise ValueError(f"tokens={self.tokens} is out of range: allowed are 1 to {_MOST:,}")
        if not 0 < self.memory < 1e6:
            raise ValueError(f"memory={self.memory} GB is out of range: it must be above 0 and below a million")

    def bytes(self, way: str, tokens: int | None = None) -> int:
        """Bytes of one document, in one of WAYS.

        "dense" and "sparse" hold the scores and the weights by the plain formula, "fused" neither. "wrong" is the
        arithmetic of a popular answer: it takes the results of attention for n² x width numbers, where a score is one
        number for each head, query and key: n² x heads.
        """
        n = self.tokens if tokens is None else tokens
        if way == "sparse":
            return self._sparse(n)
        plain = self._held(_FULL, n, fused=way == "fused")
        if way != "wrong":
            return plain
        held = self.config.num_hidden_layers if self.mode == "training" else 1
        return plain - self._scores(n) + held * n * n * self.config.hidden_size * 4

    def longest(self, way: str) -> int:
        """The most tokens that fit into the memory; 0 where none do."""
        step = self.config.block_size if way == "sparse" else 1
        return longest(self.memory * 1e9, lambda n: self.bytes(way, n), step)

    def flops(self, way: str) -> int:
        """Of the scores and the weighted sums of one layer, at these tokens."""
        sizes = self.config.hidden_size // self.config.num_attention_heads, self.config.num_attention_heads
        if way == "sparse":
            b = self.config.block_size
            return _steadily(
                lambda blocks: attention_flops(self._pattern(blocks), b, *sizes), self._blocks(self.tokens)
            )
        return attention_flops(_FULL, self.tokens, *sizes)

    @cached_property
    def break_even(self) -> int:
        """The length from which the sparse pattern reads fewer scores than dense attention; 0 where it never does."""
        try:
            return break_even(self._pattern, self.config.block_size, most=2 * _STEADY)
        except ValueError:
            return 0

    def _blocks(self, tokens: int) -> int:
        return -(-tokens // self.config.block_size)

    def _sparse(self, tokens: int) -> int:
        b = self.config.block_size
        return _steadily(lambda blocks: self._held(self._pattern(blocks), b, fused=False), self._blocks(tokens))

    def _pattern(self, blocks: int) -> BlockPattern:
        c = self.config
        return _bigbird(blocks, c.window_blocks, c.global_blocks, c.num_random_blocks)

    def _held(self, p: BlockPattern, block_size: int, fused: bool) -> int:
        if self.mode == "layer":
            return layer_bytes(self.config, p, block_size, 0 if fused else _VALUES)
        return model_cost(self.config, p, block_size, self.mode == "training", fused=fused).bytes

    def _scores(self, n: int) -> int:
        """What the plain formula holds for n² scores."""
        return self._held(_FULL, n, fused=False) - self._held(_FULL, n, fused=True)


def lengths() -> list[int]:
    """Lengths for a curve: 512 to a million tokens, doubling."""
    return [2**k for k in range(9, 21)]


@lru_cache(maxsize=1024)
def _bigbird(blocks: int, window: int, global_blocks: tuple[int, ...], random: int) -> BlockPattern:
    fitting = [g for g in global_blocks if -blocks <= g < blocks]  # of a text too short for them
    return BlockPattern.bigbird(blocks, window, fitting, random)


def _steadily(of_blocks: Callable[[int], int], blocks: int) -> int:
    """What so many blocks cost, without building patterns of more than _STEADY: from there on it grows evenly."""
    if blocks <= _STEADY:
        return of_blocks(blocks)
    start = of_blocks(_STEADY)
    return start + (blocks - _STEADY) * (of_blocks(_STEADY) - of_blocks(_STEADY - 1))


def describe_cost(config: BigBirdConfig, tokens: int = 4096, memory: float = 11.0, mode: str = "layer") -> str:
    """In words: what each way takes at this length, up to which length it fits, and where sparse starts to win."""
    cost = Cost(config, tokens, memory, mode)
    c = config
    lines = [
        f"{MODES[mode]}; width {c.hidden_size}, {c.num_attention_heads} heads, {c.num_hidden_layers} layers; "
        f"{tokens:,} tokens, {memory:g} GB, float32."
    ]
    for way, name in WAYS.items():
        most = cost.longest(way)
        fits = f"fits up to {most:,} tokens" if most else "does not fit at any length"
        lines.append(f"{name}: {gigabytes(cost.bytes(way))} at {tokens:,} tokens; {fits}.")
    return "\n".join([*lines, describe_win(cost), describe_wrong(cost)])


def describe_win(cost: Cost) -> str:
    """In words: from which length the sparse pattern reads fewer scores, and how many times fewer at this one."""
    if not cost.break_even:
        return "This pattern reads no fewer scores than dense attention."
    times = cost.flops("dense") / cost.flops("sparse")
    here = f"{times:.1f} times fewer" if times > 1 else "no fewer yet"
    return (
        f"Sparse attention reads fewer scores than dense from {cost.break_even:,} tokens on; at {cost.tokens:,} tokens "
        f"{here}. In seconds the two meet later: bigbird_mini.bench measures where."
    )


def describe_wrong(cost: Cost) -> str:
    """In words: what is wrong with the popular answer, with this config's numbers."""
    c = cost.config
    size = c.hidden_size // c.num_attention_heads
    return (
        f"The wrong arithmetic counts n² x {c.num_attention_heads} heads x {size} = n² x {c.hidden_size} numbers: it "
        f"stops at {cost.longest('wrong'):,} tokens. But a score sums over the {size}: there are n² x "
        f"{c.num_attention_heads}, and it is {cost.longest('dense'):,}."
    )


def in_thousands(count: float) -> str:
    """Three digits and a prefix, in powers of ten: "340 M", "9.66 G", "12 T"."""
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= 0.9995 * size:
            return f"{count / size:.3g} {prefix}" if count < 999.5 * size else f"{count / size:,.0f} {prefix}"
    return f"{count:.0f} "


def gigabytes(count: float) -> str:
    """Bytes as a device counts them, in powers of ten: "340 MB", "9.66 GB", "12 TB"."""
    return f"{in_thousands(count)}B"
