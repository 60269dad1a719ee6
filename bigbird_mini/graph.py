"""The pattern as a graph: how far apart its blocks are, how fast news spreads, how many ways there are.

Zaheer et al. 2020, section 2, read attention as a directed graph: an edge from query block i to key block j where i
reads j. News flows against the edges, from j to i, one edge in each layer. The paper asks two things of a sparse graph:
short paths between all pairs (hops, spectral_gap), and locality (clustering).

Heads: every function takes all heads together (a block is read if any head reads it), unless ``head`` names one.
A block never forgets: the residual connection carries what it has into the next layer, also where it does not read
itself. Functions that look at an N x N table take up to 1024 blocks; light_cone takes any number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .pattern import BlockPattern
from .plans import whole

LARGEST = 1024  # blocks; work and memory grow at least with the square


def hops(p: BlockPattern, head: int | None = None) -> np.ndarray:
    """int64 (N, N): hops[i, j] is the fewest layers in which news from key block j can reach query block i.

    0 on the diagonal, -1 where it never arrives. Every layer has this same pattern; without the -1,
    ``(hops(p) <= 3).mean()`` is the share of pairs that three layers connect, the same as ``coverage(p, 3)``.
    """
    links = _links(p, head)
    n = len(links)
    np.fill_diagonal(links, True)  # the residual connection
    rows, cols = links.nonzero()
    starts = np.searchsorted(rows, np.arange(n))  # (N,) where each row's links begin; no row is empty
    heard, before = np.eye(n, dtype=bool), None
    packed = np.packbits(heard, axis=1)  # (N, N / 8): 8 blocks in a byte make a long window 10 times faster
    late = np.zeros((n, n), np.int64)  # for how many layers has i not heard of j?
    while not np.array_equal(heard, before):
        before = heard
        late += ~heard
        packed = np.bitwise_or.reduceat(packed[cols], starts, axis=0)  # i hears what those it reads have heard
        heard = np.unpackbits(packed, axis=1, count=n).astype(bool)
    return np.where(heard, late, -1)


def mean_hops(p: BlockPattern, head: int | None = None) -> float:
    """hops averaged over all N² pairs, a block with itself (0) among them; infinite where some pair never meets."""
    h = hops(p, head)
    return math.inf if (h < 0).any() else float(h.mean())


def diameter(p: BlockPattern, head: int | None = None) -> int | float:
    """The most hops between any two blocks, in layers; infinite (math.inf) where some pair never meets."""
    h = hops(p, head)
    return math.inf if (h < 0).any() else int(h.max())


def reach(patterns: BlockPattern | Sequence[BlockPattern], layers: int | None = None) -> np.ndarray:
    """bool (N, N): reach[i, j] is True where query block i can have heard of key block j after so many layers.

    patterns: one for all layers, or a list with one for each, the lowest first. layers: needed for one pattern; of a
    list, how many of its layers to take (all of them if None). The diagonal is True. All heads together.
    """
    n, tables = _tables(patterns, layers)
    heard = np.eye(n, dtype=bool)
    for table in tables:
        heard = table @ heard > 0  # (N, N): i hears what those it reads have heard
    return heard


def coverage(patterns: BlockPattern | Sequence[BlockPattern], layers: int | None = None) -> float:
    """Share of the N² pairs in reach after so many layers, 1 / N to 1.0; patterns and layers as in :func:`reach`.

    One pattern shared by all layers, against fresh random blocks in each:
    ``coverage(BlockPattern.random(N, 3), 5)`` and ``coverage([BlockPattern.random(N, 3, layer=l) for l in range(5)])``.
    """
    return float(reach(patterns, layers).mean())


def paths(patterns: BlockPattern | Sequence[BlockPattern], layers: int | None = None) -> np.ndarray:
    """float64 (N, N): in how many ways news from key block j gets to query block i; patterns as in :func:`reach`.

    In each layer a step goes to a block that reads this one, or stays (once, by reading itself or by the residual
    connection); several heads that read the same block are one way. Exact below 2**53.
    """
    n, tables = _tables(patterns, layers)
    ways = np.eye(n)
    with np.errstate(over="ignore", invalid="ignore"):
        for table in tables:
            ways = table @ ways  # (N, N)
    if not np.isfinite(ways).all():
        raise ValueError(f"{len(tables)} layers have more than 1e308 paths, too many to count; take fewer layers")
    return ways


def spectral_gap(p: BlockPattern, head: int | None = None) -> float:
    """1 - |second largest eigenvalue| of uniform attention: 1.0 mixes in one layer, 0.0 never mixes.

    The (N, N) matrix gives each of the blocks that row i reads the weight 1 / (number of blocks read): the block itself
    only if it is read, without a residual connection; a row that reads nothing keeps what it has. After about
    ln N / -ln(1 - gap) layers all blocks hold nearly the same mix ("rapid mixing", section 2).
    """
    links = _links(p, head)
    links |= np.diag(~links.any(1))
    weights = links / links.sum(1, keepdims=True)  # (N, N), rows sum to 1
    sizes = np.sort(np.abs(np.linalg.eigvals(weights)))  # (N,); the largest is 1
    return 1.0 if len(sizes) == 1 else float(np.clip(1 - sizes[-2], 0.0, 1.0))


def clustering(p: BlockPattern, head: int | None = None) -> float:
    """How often two neighbours of a block are neighbours themselves, 0.0 to 1.0, averaged over blocks.

    Neighbours: either reads the other; a block is not its own. A block with fewer than two neighbours counts 0
    (Watts and Strogatz 1998, which section 2 builds on).
    """
    links = _links(p, head)
    links |= links.T
    np.fill_diagonal(links, False)
    near = links.astype(np.float64)
    k = near.sum(1)  # (N,) neighbours of each block
    linked = ((near @ near) * near).sum(1)  # (N,) ordered pairs of them that are linked
    return float((linked / np.maximum(k * (k - 1), 1)).mean())


def in_degree(p: BlockPattern, head: int | None = None) -> np.ndarray:
    """int64 (N,): how many query blocks read each key block, itself included if it does.

    Every row reads about as many blocks as the next, but with random blocks it is chance who is read: ``.std()`` is the
    spread. What a block knows never leaves it where this is 0, or 1 and the block reads itself.
    """
    return _links(p, head).sum(0)


def light_cone(
    patterns: BlockPattern | Sequence[BlockPattern], token: int, layers: int | None, block_size: int
) -> np.ndarray:
    """bool (layers + 1, n), n = N * block_size: row l marks the tokens that can have heard of ``token`` after l layers.

    Row 0 is the token alone. A block that reads a block reads all its tokens; a token whose block does not read itself
    has only its residual connection. patterns and layers as in :func:`reach`, but for any number of blocks.
    """
    n_blocks, stack = _stack(patterns, layers)
    b = whole(block_size, "block_size", least=1)
    token = whole(token, "token")
    if not 0 <= token < n_blocks * b:
        raise ValueError(
            f"token={token} is out of range: with {n_blocks} blocks of {b} tokens, allowed are 0 to {n_blocks * b - 1}"
        )
    cone = np.zeros((len(stack) + 1, n_blocks, b), bool)
    cone[0, token // b, token % b] = True
    for layer, p in enumerate(stack):
        told = np.append(cone[layer].any(-1), False)  # (N + 1,) blocks with something to tell; the last is "no block"
        keys, full = p.neighbours()  # (heads, N, K) and (heads, N)
        hears = told[keys].any((0, 2)) | full.any(0)  # (N,); there is always something to tell
        cone[layer + 1] = cone[layer] | hears[:, None]
    return cone.reshape(len(stack) + 1, -1)


# -------------------------------------------------------------------- helpers


def _links(p: Any, head: int | None = None) -> np.ndarray:
    """bool (N, N), fresh: query block i reads key block j, in one head or, if None, in any."""
    _check(p)
    if p.n_blocks > LARGEST:
        raise ValueError(f"a graph of {p.n_blocks} blocks is too large; at most {LARGEST} are allowed")
    if head is not None and not 0 <= whole(head, "head") < p.heads:
        raise ValueError(f"head={head} is out of range: allowed are 0 to {p.heads - 1}, or None for all together")
    grid = p.grid().numpy()  # (heads, N, N)
    return grid.any(0) if head is None else grid[head].copy()


def _tables(patterns: Any, layers: int | None) -> tuple[int, list[np.ndarray]]:
    """N, and for each layer a float64 (N, N) of 1 where block i has what block j had: it reads j, or is j."""
    n, stack = _stack(patterns, layers)
    if n > LARGEST:
        raise ValueError(f"a graph of {n} blocks is too large; at most {LARGEST} are allowed")
    once = {id(p): (_links(p) | np.eye(n, dtype=bool)).astype(np.float64) for p in stack}
    return n, [once[id(p)] for p in stack]


def _stack(patterns: Any, layers: int | None) -> tuple[int, list[BlockPattern]]:
    """N, and one pattern for each layer, the lowest first."""
    layers = None if layers is None else whole(layers, "layers", least=0)
    if isinstance(patterns, BlockPattern):
        if layers is None:
            raise ValueError("layers=None goes with a list of patterns; with one pattern, say how many layers it has")
        return patterns.n_blocks, [patterns] * layers
    if not isinstance(patterns, Sequence):
        raise TypeError(f"patterns must be a BlockPattern or a list of them, not {type(patterns).__name__}")
    for p in patterns:
        _check(p)
    sizes = sorted({p.n_blocks for p in patterns})
    if len(sizes) != 1:
        raise ValueError(
            f"the patterns of all layers must have one number of blocks; these {len(patterns)} have {sizes}"
        )
    if layers is not None and layers > len(patterns):
        raise ValueError(f"layers={layers} is too large; the list has patterns for {len(patterns)} layers")
    return sizes[0], list(patterns[:layers])


def _check(p: Any) -> None:
    if not isinstance(p, BlockPattern):
        raise TypeError(f"a pattern must be a BlockPattern, not {type(p).__name__}")
