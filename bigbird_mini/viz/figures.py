"""The numbers beside a pattern: what it reads, how far its news gets, what its scores weigh."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bigbird_mini import graph
from bigbird_mini.pattern import BlockPattern
from bigbird_mini.viz.words import counted

LENGTHS = (4096, 16384, 65536)  # tokens
_FLOAT32 = 4  # bytes


@dataclass(frozen=True)
class Settings:
    """What a BigBird pattern is made of, whatever its length; window 0 is none."""

    window: int = 3
    global_blocks: tuple[int, ...] = (0, -1)
    random: int = 3
    heads: int = 1
    seed: int = 0
    layer: int = 0
    plan: str = "uniform"
    block_size: int = 64

    def fixed(self, n_blocks: int) -> BlockPattern:
        """The window and the global blocks. Raises ValueError for global blocks that the text does not have."""
        base = BlockPattern.global_(n_blocks, self.global_blocks)
        return BlockPattern.window(n_blocks, self.window) | base if self.window else base

    def pattern(self, n_blocks: int) -> BlockPattern:
        """The pattern of so many blocks. Raises ValueError where the settings make none."""
        draw = {"heads": self.heads, "seed": self.seed, "layer": self.layer}
        if self.plan == "power_law":
            base = self.fixed(n_blocks)
            return base | BlockPattern.power_law(n_blocks, self.random, avoid=base, **draw)
        if self.plan == "uniform" and not self.window:
            base = self.fixed(n_blocks)
            return base | BlockPattern.random(n_blocks, self.random, avoid=base, **draw)
        return BlockPattern.bigbird(
            n_blocks, self.window, self.global_blocks, self.random, plan=self.plan, block_size=self.block_size, **draw
        )


@dataclass(frozen=True)
class Figures:
    """Of one head of a pattern. `mean_hops`, `most_hops` and `gap` are None where they were not asked for."""

    tokens: int
    density: float
    keys_least: int  # key tokens that a query reads
    keys_median: int
    keys_most: int
    unread: int  # key blocks that no query block reads
    score_bytes: int
    dense_bytes: int
    mean_hops: float | None = None
    most_hops: float | None = None
    gap: float | None = None

    def rows(self) -> list[list[str]]:
        """[name, value] pairs for a table."""
        times = f"{self.dense_bytes / self.score_bytes:.1f}" if self.score_bytes else "infinitely many"
        hops = "counting ..." if self.mean_hops is None else self._hops()
        gap = "counting ..." if self.gap is None else f"{self.gap:.3f} (1 mixes at once, 0 never)"
        span = f"{self.keys_least:,} to {self.keys_most:,}"
        unread = [["read by nobody", counted(self.unread, "key block")]] if self.unread else []
        return [
            ["density", f"{self.density:.1%} of the block pairs"],
            ["keys per query", f"{self.keys_median:,} of {self.tokens:,} (median; {span})"],
            ["hops between blocks", hops],
            ["spectral gap", gap],
            *unread,
            ["scores", f"{bytes_in_words(self.score_bytes)}; dense {bytes_in_words(self.dense_bytes)}, {times} times"],
        ]

    def short(self) -> str:
        """In one sentence, for a reader who hears it."""
        graph_words = "" if self.gap is None else f", hops {self._hops()}, spectral gap {self.gap:.3f}"
        return (
            f"density {self.density:.1%}, {self.keys_median:,} of {self.tokens:,} keys for the median query"
            f"{graph_words}, scores {bytes_in_words(self.score_bytes)} instead of {bytes_in_words(self.dense_bytes)}"
        )

    def __str__(self) -> str:
        return "\n".join(f"{name}: {value}." for name, value in self.rows())

    def _hops(self) -> str:
        if self.most_hops == math.inf:
            return "some blocks never meet"
        return f"{self.mean_hops:.2f} on average, {self.most_hops:.0f} at most"


def measure(p: BlockPattern, head: int, block_size: int, hops: bool = True) -> Figures:
    """The figures of one head; `hops`: with hops and spectral gap, which take seconds at 1,024 blocks."""
    keys = p.keys_per_query(block_size)[head]
    tokens = p.n_blocks * block_size
    read = _read_by(p, head)
    mean, most, gap = _hops(p, head) if hops else (None, None, None)
    pairs = int(keys.sum()) // block_size
    return Figures(
        tokens=tokens,
        density=pairs / p.n_blocks**2,
        keys_least=int(keys.min()),
        keys_median=int(keys.median()),
        keys_most=int(keys.max()),
        unread=int((read == 0).sum()),
        score_bytes=pairs * block_size**2 * _FLOAT32,
        dense_bytes=tokens**2 * _FLOAT32,
        mean_hops=mean,
        most_hops=most,
        gap=gap,
    )


def _hops(p: BlockPattern, head: int) -> tuple[float, float, float]:
    """Mean and most hops (infinite where some pair never meets), and the spectral gap."""
    table = graph.hops(p, head)
    gap = graph.spectral_gap(p, head)
    if (table < 0).any():
        return math.inf, math.inf, gap
    return float(table.mean()), float(table.max()), gap


def _read_by(p: BlockPattern, head: int) -> np.ndarray:
    """int (N,): how many query blocks read each key block."""
    keys, full = p.neighbours()
    listed = np.bincount(keys[head].ravel(), minlength=p.n_blocks + 1)[: p.n_blocks]
    return listed + int(full[head].sum())


def scaled(settings: Settings) -> list[list[str]]:
    """[tokens, bytes of this pattern, bytes of dense attention, how many times] at 4k, 16k and 64k tokens."""
    rows, block_size = [], settings.block_size
    for length in LENGTHS:
        n_blocks = -(-length // block_size)
        tokens = n_blocks * block_size
        dense = tokens**2 * _FLOAT32
        try:
            sparse = pairs_at(settings, n_blocks) * block_size**2 * _FLOAT32
        except ValueError:
            rows.append([f"{tokens:,}", "the code fails here", bytes_in_words(dense), ""])
            continue
        times = f"{dense / sparse:,.1f}" if sparse else "∞"
        rows.append([f"{tokens:,}", bytes_in_words(sparse), bytes_in_words(dense), times])
    return rows


def pairs_at(settings: Settings, n_blocks: int) -> int:
    """Block pairs that one head reads. Our own draws add as many to a row whatever the seed: no need to draw them."""
    if settings.plan in ("uniform", "power_law"):
        own = settings.plan == "power_law"  # which never draws the row's own block
        return _counted(settings.window, settings.global_blocks, settings.random, own, n_blocks)
    return _drawn(settings, n_blocks)


@lru_cache(maxsize=512)
def _counted(window: int, global_blocks: tuple[int, ...], random: int, without_own: bool, n_blocks: int) -> int:
    base = Settings(window, global_blocks).fixed(n_blocks)
    read = base.keys_per_query(1)[0].numpy()
    most = n_blocks - (without_own and not window)
    return int(np.where(read == n_blocks, n_blocks, np.minimum(read + random, np.maximum(read, most))).sum())


@lru_cache(maxsize=64)
def _drawn(settings: Settings, n_blocks: int) -> int:
    """Of the released plans, whose draws may meet their own window: the first head, counted."""
    one = Settings(**{**vars(settings), "heads": 1})
    return int(one.pattern(n_blocks).keys_per_query(1).sum())


def bytes_in_words(count: int) -> str:
    """A number of bytes with a unit: "512 B", "9.8 MiB", "1,024 GiB"."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:,.0f} {unit}" if value >= 100 or value == int(value) else f"{value:.1f} {unit}"
