"""In which pieces block-sparse attention is worked off: a pattern's lists as index tensors, a few groups at a time.

Texts are laid out as blocks, (B H N, b d): document after document, head after head. A *group* is one query block and
the K key blocks it reads, side by side: the compact key tensor of Zaheer et al. 2020, appendix D.

Tensors are taken apart with index_select, view and narrow rather than []: so fake CUDA tensors pass through without a
GPU, and a test finds any mix of devices.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from ..pattern import BlockPattern
from .kernels import wide
from .remember import remembered

# Bytes of keys gathered at a time. A CPU core should find them in its own cache; other devices want larger pieces.
CHUNK_PER_THREAD, CHUNK_ELSEWHERE = 2**19, 64 * 2**20
SCORES = 2**24  # scores of full rows at a time, where the kernel keeps them all
REMEMBERED = 2**29  # bytes of index tensors


class Alike(NamedTuple):
    """Rows of a pattern that read equally many key blocks."""

    rows: torch.Tensor  # (R,)
    keys: torch.Tensor  # (heads, R, K), heads 1 or H; any block where a head reads fewer
    bias: torch.Tensor | None  # (heads, R, K) log multiplicity, -inf where a head reads fewer; None where all is zero


class Plan(NamedTuple):
    """The index tensors of a pattern on one device. Rows that read nothing are in neither part."""

    n_blocks: int
    alike: list[Alike]
    full: torch.Tensor  # (F,) rows that read every block in every head


class Chunk(NamedTuple):
    """G groups, ready for a kernel. Full rows of one head are one group, or a few, with K = N."""

    own: torch.Tensor  # which query blocks, in the order of queries
    read: torch.Tensor | slice  # which key blocks, (G K,)
    queries: torch.Tensor  # (G, 1, s, d)
    keys: torch.Tensor  # (G, 1, K b, d), like values in memory that the next chunk uses again
    values: torch.Tensor
    bias: torch.Tensor | None  # (G, 1, 1, K b) what is added to the scores
    nothing: torch.Tensor | None  # (G, 1, 1, 1) True where every key is hidden

    def add(self, total: torch.Tensor, part: torch.Tensor) -> None:
        """Add what belongs to the keys (G, 1, K b, d) to where they came from, total (B H N, b d)."""
        part = part.to(total.dtype).reshape(-1, total.shape[1])
        if isinstance(self.read, slice):
            total.narrow(0, self.read.start, len(part)).add_(part)
        else:
            total.index_add_(0, self.read, part)


def is_real(q: torch.Tensor) -> bool:
    """Whether this is no fake tensor (shape tests, tracing), from which nothing may be remembered for real ones."""
    return type(q) in (torch.Tensor, torch.nn.Parameter) and type(torch.empty(0)) is torch.Tensor


def plan_for(p: BlockPattern, q: torch.Tensor) -> Plan:
    """The remembered index tensors of a pattern on q's device."""
    return (_plan if is_real(q) else _plan.__wrapped__)(p, q.device)


def _bytes(plan: Plan) -> int:
    tensors = [plan.full, *(x for alike in plan.alike for x in alike if x is not None)]
    return sum(x.nbytes for x in tensors)


@remembered(_bytes, REMEMBERED)
def _plan(p: BlockPattern, device: torch.device) -> Plan:
    N = p.n_blocks
    keys, full = p.neighbours()  # (heads, N, K), (heads, N)
    times = p.listed_multiplicity()  # (heads, N, K), or None
    count = np.where(full, N, (keys < N).sum(-1)).max(0)  # (N,)
    everywhere = full.all(0)
    alike = []
    with torch.inference_mode(False):  # remembered tensors must serve training too, whoever asks first
        for K in np.unique(count[~everywhere & (count > 0)]):
            rows = np.flatnonzero((count == K) & ~everywhere)
            lists = _widened(keys[:, rows], K, N)  # (heads, R, K)
            bias = np.zeros(lists.shape) if times is None else np.log(_widened(times[:, rows], K, 1), dtype=np.float64)
            some = full[:, rows, None]
            if some.any():  # full in some heads only: there the list is everything
                lists, bias = np.where(some, np.arange(K), lists), np.where(some, 0.0, bias)
            bias = np.where(lists < N, bias, -np.inf)
            exact = torch.float32 if device.type == "mps" else torch.float64  # which Apple's GPUs do not have
            own = [torch.tensor(x, device=device) for x in (rows, np.minimum(lists, N - 1))]
            alike.append(Alike(*own, torch.tensor(bias, dtype=exact, device=device) if bias.any() else None))
        return Plan(N, alike, torch.tensor(np.flatnonzero(everywhere), device=device))


def _widened(lists: np.ndarray, K: int, absent: int) -> np.ndarray:
    """K places in each list; what is cut off is absent anyway."""
    more = max(0, K - lists.shape[-1])
    return np.pad(lists, ((0, 0), (0, 0), (0, more)), constant_values=absent)[..., :K]


def chunks(
    p: BlockPattern,
    blocks: list[torch.Tensor],
    q: torch.Tensor,
    key_mask: torch.Tensor | None,
    threads: int,
    fused: bool,
) -> Iterator[Chunk]:
    """The rows of a pattern for all documents and heads, a few at a time; those that read nothing are left out.

    blocks: q, k and v as (B H N, b d). q: (B, H, n, d), for its shape, type and device. key_mask: bool (B, n) or None.
    threads: of a CPU, between which a chunk will be shared. fused: for a kernel that never holds all scores of a chunk.
    """
    plan = plan_for(p, q)
    size = CHUNK_PER_THREAD * threads if q.device.type == "cpu" else CHUNK_ELSEWHERE
    size //= blocks[0].shape[1] * q.element_size()  # key blocks at a time
    hidden = _hidden(key_mask, q, p.n_blocks)
    if len(plan.full):
        yield from _full_rows(plan, blocks, q, hidden, None if fused else size)
    for alike in plan.alike:
        yield from _alike_rows(plan, alike, blocks, q, hidden, size)


def _full_rows(
    plan: Plan, blocks: list[torch.Tensor], q: torch.Tensor, hidden: torch.Tensor | None, size: int | None
) -> Iterator[Chunk]:
    """Rows that read everything: nothing to gather. ``size`` key blocks at a time, in rows of a bounded number of
    scores; or, if None, all heads and rows at once, for a kernel that goes through the keys in pieces of its own."""
    (B, H, n, d), N, F = q.shape, plan.n_blocks, len(plan.full)
    heads = B * H if size is None else max(1, size // N)
    rows = F if size is None else max(1, SCORES // (n // N * n))
    for start, first in itertools.product(range(0, B * H, heads), range(0, F, rows)):
        G = min(heads, B * H - start)
        some = plan.full.narrow(0, first, min(rows, F - first))
        own = (_heads(q, N).narrow(0, start, G) + some).reshape(-1)
        queries = blocks[0].index_select(0, own).view(G, 1, -1, d)
        keys, values = (x.narrow(0, start * N, G * N).view(G, 1, n, d) for x in blocks[1:])
        bias = None if hidden is None else hidden.narrow(0, start * N, G * N).view(G, 1, 1, n)
        yield Chunk(own, slice(start * N, (start + G) * N), queries, keys, values, bias, _nothing(bias, q))


def _alike_rows(
    plan: Plan, alike: Alike, blocks: list[torch.Tensor], q: torch.Tensor, hidden: torch.Tensor | None, size: int
) -> Iterator[Chunk]:
    """Rows that read K blocks each: their key blocks are gathered, about ``size`` of them at a time."""
    (B, H, n, d), N = q.shape, plan.n_blocks
    b, (_, R, K) = n // N, alike.keys.shape
    own = (_heads(q, N) + alike.rows).reshape(-1)  # (B H R,)
    read = (_heads(q, N).view(B, H, 1, 1) + alike.keys).reshape(-1)  # (B H R K,)
    weights = alike.bias
    if weights is not None:
        weights = weights.to(wide(q)).clamp(min=_never(q)).expand(B, H, R, K).reshape(-1, K, 1)
    most = min(len(own), max(1, size // K))
    shelves = [x.new_empty(most * K, b * d) for x in blocks[1:]]  # fresh memory for each chunk would cost as much again
    for start in range(0, len(own), most):
        G, bias = min(most, len(own) - start), None
        mine, theirs = own.narrow(0, start, G), read.narrow(0, start * K, G * K)
        if hidden is not None:
            bias = hidden.index_select(0, theirs).view(G, K, b)
        if weights is not None:
            more = weights.narrow(0, start, G).expand(G, K, b)
            bias = more if bias is None else (bias + more).clamp(min=_never(q))
        bias = None if bias is None else bias.reshape(G, 1, 1, K * b)
        queries = blocks[0].index_select(0, mine).view(G, 1, b, d)
        keys, values = (
            torch.index_select(x, 0, theirs, out=shelf.narrow(0, 0, G * K)).view(G, 1, K * b, d)
            for x, shelf in zip(blocks[1:], shelves, strict=True)
        )
        yield Chunk(mine, theirs, queries, keys, values, bias, _nothing(bias, q))


def _heads(q: torch.Tensor, N: int) -> torch.Tensor:
    """Where the blocks of each document's head begin, (B H, 1)."""
    return (N * torch.arange(q.shape[0] * q.shape[1], device=q.device)).view(-1, 1)


def _hidden(key_mask: torch.Tensor | None, q: torch.Tensor, N: int) -> torch.Tensor | None:
    """What the mask adds to the scores of each key of each head, (B H N, b); None where it hides nothing."""
    if key_mask is None or (q.device.type == "cpu" and bool(key_mask.all())):  # elsewhere, looking would mean waiting
        return None
    B, H, n, _ = q.shape
    bias = torch.zeros((B, n), dtype=wide(q), device=q.device).masked_fill(key_mask.logical_not(), _never(q))
    return bias.view(B, 1, n).expand(B, H, n).reshape(B * H * N, -1)


def _nothing(bias: torch.Tensor | None, q: torch.Tensor) -> torch.Tensor | None:
    return None if bias is None else bias.amax(-1, keepdim=True) < _never(q) / 2


def _never(q: torch.Tensor) -> float:
    """A score so low that its key weighs nothing, and yet finite, also with another score added to it."""
    return torch.finfo(wide(q)).min / 2
