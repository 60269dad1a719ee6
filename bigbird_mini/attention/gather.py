"""Block-sparse attention on any device: gather the key blocks that a row reads, then one small dense attention a row.

Zaheer et al. 2020, appendix D: the compact key tensor of shape (N, K b, d), where K is the number of blocks a row
reads. It is built for a few query blocks at a time, so that memory grows with n and not with n².

Tensors are taken apart with index_select, view and narrow rather than []: so fake CUDA tensors pass through without a
GPU, and a test finds any mix of devices.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from ..pattern import BlockPattern
from .weights import Rows, masked_softmax

# Bytes of keys gathered at a time. On a CPU they should stay in its cache; other devices want larger pieces.
CHUNK_ON_CPU, CHUNK_ELSEWHERE = 12 * 2**20, 256 * 2**20


def gather_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    p: BlockPattern,
    key_mask: torch.Tensor | None,
    scale: float,
    dropout_p: float,
    return_weights: bool = False,
) -> tuple[torch.Tensor, list[Rows]]:
    """Equal to the dense oracle, with n K b score entries in place of n².

    The arguments are those of :func:`bigbird_mini.attention`, already checked.
    """
    B, H, n, d = q.shape
    core = p.unpadded()
    N, b = core.n_blocks, n // p.n_blocks
    if p.n_blocks > N:  # empty blocks at the end: leave them out, and give them zeros
        q, k, v = (x.narrow(2, 0, N * b) for x in (q, k, v))
        key_mask = None if key_mask is None else key_mask.narrow(1, 0, N * b)
        out, weights = gather_attention(q, k, v, core, key_mask, scale, dropout_p, return_weights)
        weights = [w._replace(keys=torch.where(w.keys == N, p.n_blocks, w.keys)) for w in weights]
        return F.pad(out, (0, 0, 0, n - N * b)), weights

    blocks = [x.reshape(B, H * N, b, d) for x in (q, k, v)]  # head after head; copied once where heads are strided
    real = None if key_mask is None else key_mask.view(B, N, b)
    chunk = CHUNK_ON_CPU if q.device.type == "cpu" else CHUNK_ELSEWHERE
    plan = _plan_for(core, H, max(1, chunk // (B * H * b * d * q.element_size())), q)
    parts = []
    if return_weights:
        return _with_weights(*blocks, real, plan, scale, dropout_p)
    if plan.chunks and dropout_p == 0.0:
        parts.append(_SparseRows.apply(*blocks, real, plan, scale))  # (B, H, R, b, d)
    elif plan.chunks:  # what was dropped is remembered by autograd, at the price of its memory
        parts += [_chunk(*blocks, real, chunk, scale, dropout_p) for chunk in plan.chunks]
    if len(plan.full):
        queries = q.reshape(B, H, N, b, d).index_select(2, plan.full).reshape(B, H, 1, -1, d)  # one dense call for all
        mask = None if key_mask is None else key_mask.view(B, 1, 1, n)
        part = _attend(queries, k.unsqueeze(2), v.unsqueeze(2), mask, scale, dropout_p)
        parts.append(part.reshape(B, H, -1, b, d))
    return torch.cat(parts, 2).index_select(2, plan.back).reshape(B, H, n, d), []


def _with_weights(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    real: torch.Tensor | None,
    plan: _Plan,
    scale: float,
    dropout_p: float,
) -> tuple[torch.Tensor, list[Rows]]:
    """The same by the formula, in plain steps that leave the weights behind; q, k, v: (B, H N, b, d)."""
    B, _, b, d = q.shape
    N = len(plan.back)
    H = q.shape[1] // N
    documents = torch.arange(B, device=q.device)
    parts, kept = [], []
    chunks = [*plan.chunks, *([_all_of(plan.full, N, H)] if len(plan.full) else [])]
    for chunk in chunks:
        queries, keys, values = _gathered(q, k, v, chunk)
        mask = _mask(chunk, real, b)
        mask = None if mask is None else mask.unsqueeze(3)  # (1 or B, heads, R, 1, K b)
        weights = masked_softmax((queries * scale) @ keys.transpose(-1, -2), mask)  # (B, H, R, b, K b)
        parts.append(F.dropout(weights, dropout_p) @ values)  # (B, H, R, b, d)
        blocks = chunk.blocks if chunk.listed is None else torch.where(chunk.listed, chunk.blocks, N)
        kept.append(Rows(documents, chunk.rows, blocks, weights.unflatten(-1, (-1, b))))
    out = torch.cat(parts, 2).index_select(2, plan.back).reshape(B, H, N * b, d)
    return out, kept


def _all_of(rows: torch.Tensor, N: int, H: int) -> _Chunk:
    """The full rows as a chunk: they list every block."""
    head = N * torch.arange(H, device=rows.device).view(H, 1)
    every = torch.arange(N, device=rows.device)
    keys = (head + every).unsqueeze(1).expand(H, len(rows), N)
    return _Chunk(rows, (rows + head).flatten(), keys.flatten(), every.expand(1, len(rows), N), None)


class _SparseRows(torch.autograd.Function):
    """The rows that list their neighbours, chunk by chunk; the backward pass gathers again instead of remembering.

    q, k, v: (B, H N, b, d). Returns (B, H, R, b, d), the rows in the order of the plan.
    """

    @staticmethod
    def forward(ctx, q, k, v, real, plan, scale):  # noqa: ANN001, ANN205
        ctx.save_for_backward(q, k, v, real)
        ctx.plan, ctx.scale = plan, scale
        return torch.cat([_chunk(q, k, v, real, chunk, scale, 0.0) for chunk in plan.chunks], 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):  # noqa: ANN001, ANN205
        q, k, v, real = ctx.saved_tensors
        wide = torch.promote_types(q.dtype, torch.float32)  # many small sums meet in one key block
        dq, dk, dv = (torch.zeros(x.shape, dtype=wide, device=x.device) for x in (q, k, v))
        start = 0
        for chunk in ctx.plan.chunks:
            some = grad.narrow(2, start, len(chunk.rows))
            start += len(chunk.rows)
            gathered = [x.detach().requires_grad_() for x in _gathered(q, k, v, chunk)]
            with torch.enable_grad():
                out = _attend(*gathered, _mask(chunk, real, q.shape[2]), ctx.scale, 0.0)
            grads = torch.autograd.grad(out, gathered, some.to(out.dtype), allow_unused=True)
            places = (chunk.places, chunk.keys, chunk.keys)
            for total, one, where in zip((dq, dk, dv), grads, places, strict=True):
                if one is not None:  # a chunk of rows that read nothing
                    total.index_add_(1, where, one.to(wide).reshape(len(q), len(where), *q.shape[2:]))
        return dq.to(q.dtype), dk.to(q.dtype), dv.to(q.dtype), None, None, None


class _Chunk(NamedTuple):
    """A few rows of a pattern, as indices into blocks laid out head after head: block i of head h is h N + i."""

    rows: torch.Tensor  # (R,) which rows
    places: torch.Tensor  # (H R,) their own blocks
    keys: torch.Tensor  # (H R K,) the key blocks they list
    blocks: torch.Tensor  # (heads, R, K) the same within one head, for the masks; heads is 1 or H
    listed: torch.Tensor | None  # (heads, R, K) False where a row lists fewer than K; None where all list K


class _Plan(NamedTuple):
    """The index tensors of a pattern, for one number of heads and on one device."""

    chunks: list[_Chunk]
    full: torch.Tensor  # rows that read every block in every head
    back: torch.Tensor  # (N,) where row i stands in the order: chunks, then full rows


def _plan_for(p: BlockPattern, H: int, blocks_at_a_time: int, q: torch.Tensor) -> _Plan:
    """The remembered plan. One made of fake tensors (shape tests, tracing) must not be remembered for the real ones."""
    real = type(q) in (torch.Tensor, torch.nn.Parameter) and type(torch.empty(0)) is torch.Tensor
    return (_plan if real else _plan.__wrapped__)(p, H, blocks_at_a_time, q.device)


@lru_cache(maxsize=256)
def _plan(p: BlockPattern, H: int, blocks_at_a_time: int, device: torch.device) -> _Plan:
    N = p.n_blocks
    keys, full = p.neighbours()  # (heads, N, K), (heads, N)
    count = np.where(full, N, (keys < N).sum(-1)).max(0)  # (N,)
    everywhere = full.all(0)
    rows = np.argsort(count, kind="stable")  # rows of about the same count share a chunk
    rows = rows[~everywhere[rows]]
    head = N * np.arange(H)[:, None]

    def tensor(x: np.ndarray) -> torch.Tensor:
        return torch.tensor(x, device=device)

    chunks, start = [], 0
    with torch.inference_mode(False):  # remembered tensors must serve training too, whoever asks first
        while start < len(rows):
            end = start + 1
            while end < len(rows) and (end + 1 - start) * count[rows[end]] <= blocks_at_a_time:
                end += 1
            some = rows[start:end]
            lists = keys[:, some, : count[some[-1]]]  # (heads, R, K)
            if full[:, some].any():  # full in some heads only: there the list is everything
                lists = np.pad(lists, ((0, 0), (0, 0), (0, N - lists.shape[-1])), constant_values=N)
                lists = np.where(full[:, some, None], np.arange(N), lists)
            listed, lists = lists < N, np.minimum(lists, N - 1)
            of_heads = np.broadcast_to(lists, (H, *lists.shape[1:])) + head[..., None]
            own = [tensor(x) for x in (some, (some + head).ravel(), of_heads.ravel(), lists)]
            chunks.append(_Chunk(*own, None if listed.all() else tensor(listed)))
            start = end
        whole = everywhere.nonzero()[0]
        return _Plan(chunks, tensor(whole), tensor(np.argsort(np.concatenate([rows, whole]))))


def _gathered(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, chunk: _Chunk) -> list[torch.Tensor]:
    """Queries of a chunk (B, H, R, b, d) and, side by side, the keys and values of each row (B, H, R, K b, d)."""
    B, _, b, d = q.shape
    _, R, K = chunk.blocks.shape
    H = len(chunk.places) // R
    queries = q.index_select(1, chunk.places).view(B, H, R, b, d)
    keys, values = (x.index_select(1, chunk.keys).view(B, H, R, K * b, d) for x in (k, v))
    return [queries, keys, values]


def _chunk(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    real: torch.Tensor | None,
    chunk: _Chunk,
    scale: float,
    dropout_p: float,
) -> torch.Tensor:
    """Attention of one chunk: (B, H, R, b, d)."""
    return _attend(*_gathered(q, k, v, chunk), _mask(chunk, real, q.shape[2]), scale, dropout_p)


def _mask(chunk: _Chunk, real: torch.Tensor | None, b: int) -> torch.Tensor | None:
    """Which gathered keys count: those of listed blocks that are real tokens. (1 or B, heads, R, K b); None: all."""
    if real is None:
        return None if chunk.listed is None else chunk.listed.unsqueeze(0).repeat_interleave(b, -1)
    mask = real.index_select(1, chunk.blocks.flatten()).unflatten(1, chunk.blocks.shape)  # (B, heads, R, K, b)
    return (mask if chunk.listed is None else mask & chunk.listed.unsqueeze(-1)).flatten(3)


def _attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float,
    dropout_p: float,
) -> torch.Tensor:
    """Dense attention in R groups: queries (B, H, R, s, d), their keys and values (B, H, R, t, d), (B, H, R, s, d) out.

    mask: bool (1 or B, 1 or H, R, t), True for the keys that count; a group with none gives zeros.
    """
    B, H, R, s, d = q.shape
    if k.shape[3] == 0:
        return q.masked_fill(torch.ones((), dtype=torch.bool, device=q.device), 0.0)  # zeros that autograd can follow
    if mask is not None:
        mask = mask.expand(B, H, R, -1).reshape(B * H, R, 1, -1)
        nothing = mask.any(-1, keepdim=True).logical_not()
        mask = mask | nothing  # let such a group read anything, so that no kernel divides by zero, and clear it below
    q, k, v = (x.reshape(B * H, R, -1, d) for x in (q, k, v))  # four dimensions, as the fused kernels want
    out = F.scaled_dot_product_attention(q, k, v, mask, dropout_p, scale=scale)  # (B H, R, s, d)
    if mask is not None:
        out = out.masked_fill(nothing, 0.0)
    return out.view(B, H, R, s, d)
