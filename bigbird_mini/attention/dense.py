"""Attention with the whole n x n matrix: by its definition (the oracle, introduced in lessons/01), and fused."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..pattern import BlockPattern
from .plan import is_real
from .remember import remembered
from .weights import Rows, masked_softmax


def dense_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    p: BlockPattern,
    key_mask: torch.Tensor | None,
    scale: float,
    dropout_p: float,
    return_weights: bool = False,
) -> tuple[torch.Tensor, list[Rows]]:
    """What every other backend must equal, in values and gradients; time and memory grow with n².

    The arguments are those of :func:`bigbird_mini.attention`, already checked.
    """
    b = q.shape[2] // p.n_blocks
    allowed = p.token_mask(b).to(q.device)  # (1 or H, n, n)
    if key_mask is not None:
        allowed = allowed & key_mask.view(-1, 1, 1, q.shape[2])  # (B, 1 or H, n, n)
    scores = (q * scale) @ k.transpose(-1, -2)  # (B, H, n, n); scaled first, so that float16 does not overflow
    if p.listed_multiplicity() is not None:  # a key that counts m times is a key with log m added to its score
        times = p.multiplicity().to(q.device).repeat_interleave(b, 1).repeat_interleave(b, 2)  # (1 or H, n, n)
        scores = scores + times.to(scores.dtype).log()
    weights = masked_softmax(scores, allowed)  # a row with no key at all: zeros, not the average of everything
    out = F.dropout(weights, dropout_p) @ v  # (B, H, n, d)
    if not return_weights:
        return out, []
    N, (B, H, n, _) = p.n_blocks, q.shape
    every = torch.arange(N, device=q.device)
    values = weights.view(B, H, N, n // N, N, n // N)  # (B, H, N, b, N, b)
    return out, [Rows(torch.arange(B, device=q.device), every, every.expand(1, N, N), values)]


def short_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    p: BlockPattern,
    key_mask: torch.Tensor | None,
    scale: float,
    dropout_p: float,
    return_weights: bool = False,
) -> tuple[torch.Tensor, list[Rows]]:
    """PyTorch's fused attention over everything, with the pattern as a remembered mask: for short texts, where most of
    the n x n is read anyway. See :func:`suits_short` for what it can do."""
    bias = None if p.density() == 1.0 else _bias(p, q.shape[2] // p.n_blocks, q.dtype, q.device)
    return F.scaled_dot_product_attention(q, k, v, bias, scale=scale), []


def suits_short(
    q: torch.Tensor,
    p: BlockPattern,
    key_mask: torch.Tensor | None,
    dropout_p: float,
    return_weights: bool,
) -> bool:
    """Whether short_attention is right here (no key mask, no dropout, no row that reads nothing) and pays.

    It pays where gather has little to leave out. Measured on two CPU cores, 12 heads of 64, blocks of 64, as shares of
    unmasked fused attention, forward / with backward: 512 tokens, density 0.97: masked 1.10 / 1.04, gather 1.24 / 1.15;
    768, 0.71: 1.14 / 1.06 and 1.13 / 1.04; 1,024, 0.56: 1.15 / 1.09 and 0.92 / 0.79.
    """
    if key_mask is not None or dropout_p or return_weights or not is_real(q) or p is not p.unpadded():
        return False
    if p.listed_multiplicity() is not None:
        return False
    density = p.density()
    return density == 1.0 or (q.shape[2] <= 768 and density > 0.7 and bool(p.keys_per_query(1).all()))


@remembered(lambda bias: bias.nbytes, limit=2**28)
def _bias(p: BlockPattern, b: int, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """0 where a key is read, -inf where not: (1, 1 or H, n, n). Of a bool mask the kernel would make this each time."""
    with torch.inference_mode(False):
        mask = p.token_mask(b).to(device).logical_not()
        return torch.zeros(mask.shape, dtype=dtype, device=device).masked_fill(mask, -torch.inf).unsqueeze(0)
