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

from ..pattern import BlockPattern

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
) -> torch.Tensor:
    """Equal to the dense oracle, with n K b score entries in place of n².

    The arguments are those of :func:`bigbird_mini.attention`, already checked.
    """
    B, H, n, d = q.shape
    N, b = p.n_blocks, n // p.n_blocks
    k_blocks, v_blocks = k.reshape(B, H, N, b, d), v.reshape(B, H, N, b, d)  # (B, H, N, b, d)
    q_blocks = q.reshape(B, H, N, b, d)
    real = None if key_mask is None else key_mask.view(B, N, b)
    chunk = CHUNK_ON_CPU if q.device.type == "cpu" else CHUNK_ELSEWHERE
    blocks_at_a_time = max(1, chunk // (B * H * b * d * q.element_size()))
    # A plan made of fake tensors (shape tests, tracing) must not be remembered for the real ones.
    plan_of = _plan if type(q) in (torch.Tensor, torch.nn.Parameter) else _plan.__wrapped__
    plan = plan_of(p, blocks_at_a_time, q.device)

    parts = []
    for rows, keys, listed in plan.chunks:
        mask = _mask(listed, keys, real, b)  # (1 or B, 1 or H, R, K b)
        queries = q_blocks.index_select(2, rows)  # (B, H, R, b, d)
        parts.append(_attend(queries, _take(k_blocks, keys), _take(v_blocks, keys), mask, scale, dropout_p))
    if len(plan.full):
        queries = q_blocks.index_select(2, plan.full).reshape(
            B, H, 1, -1, d
        )  # (B, H, 1, rows b, d): one dense call for all
        mask = None if key_mask is None else key_mask.view(B, 1, 1, n)
        part = _attend(queries, k.unsqueeze(2), v.unsqueeze(2), mask, scale, dropout_p)
        parts.append(part.reshape(B, H, -1, b, d))
    return torch.cat(parts, 2).index_select(2, plan.back).reshape(B, H, n, d)


class _Plan(NamedTuple):
    """The index tensors of a pattern, on one device."""

    chunks: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]]  # rows (R,), keys (heads, R, K), which listed
    full: torch.Tensor  # rows that read every block in every head
    back: torch.Tensor  # (N,) where row i stands in the order: chunks, then full rows


@lru_cache(maxsize=64)
def _plan(p: BlockPattern, blocks_at_a_time: int, device: torch.device) -> _Plan:
    N = p.n_blocks
    keys, full = p.neighbours()  # (heads, N, K), (heads, N)
    count = np.where(full, N, (keys < N).sum(-1)).max(0)  # (N,)
    everywhere = full.all(0)
    rows = np.argsort(count, kind="stable")  # rows of about the same count share a chunk
    rows = rows[~everywhere[rows]]
    chunks, start = [], 0
    while start < len(rows):
        end = start + 1
        while end < len(rows) and (end + 1 - start) * count[rows[end]] <= blocks_at_a_time:
            end += 1
        some = rows[start:end]
        lists = keys[:, some, : count[some[-1]]]  # (heads, R, K)
        if full[:, some].any():  # full in some heads only: there the list is everything
            lists = np.pad(lists, ((0, 0), (0, 0), (0, N - lists.shape[-1])), constant_values=N)
            lists = np.where(full[:, some, None], np.arange(N), lists)
        listed = lists < N
        chunks.append((some, np.minimum(lists, N - 1), None if listed.all() else listed))
        start = end
    whole = everywhere.nonzero()[0]
    back = np.argsort(np.concatenate([rows, whole]))

    def tensor(x: np.ndarray | None) -> torch.Tensor | None:
        return None if x is None else torch.tensor(x, device=device)

    with torch.inference_mode(False):  # remembered tensors must serve training too, whoever asks first
        return _Plan([tuple(map(tensor, chunk)) for chunk in chunks], tensor(whole), tensor(back))


def _take(blocks: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """The listed blocks of each row, side by side: (B, H, N, b, d) and (heads, R, K) give (B, H, R, K b, d)."""
    B, H, N, b, d = blocks.shape
    heads, R, K = keys.shape
    if heads == 1:
        taken = blocks.index_select(2, keys.flatten())  # (B, H, R K, b, d)
    else:
        own = keys + N * torch.arange(heads, device=keys.device).view(heads, 1, 1)
        taken = blocks.reshape(B, H * N, b, d).index_select(1, own.flatten())  # (B, H R K, b, d)
    return taken.view(B, H, R, K * b, d)


def _mask(listed: torch.Tensor | None, keys: torch.Tensor, real: torch.Tensor | None, b: int) -> torch.Tensor | None:
    """Which gathered keys count: those of listed blocks that are real tokens. (1 or B, heads, R, K b); None: all."""
    if real is None:
        return None if listed is None else listed.unsqueeze(0).repeat_interleave(b, -1)
    mask = real.index_select(1, keys.flatten()).unflatten(1, keys.shape)  # (B, heads, R, K, b)
    return (mask if listed is None else mask & listed.unsqueeze(-1)).flatten(3)


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
