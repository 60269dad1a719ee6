"""The oracle: attention by its definition, with the whole n x n matrix of scores. Introduced in lessons/01."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..pattern import BlockPattern
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
    allowed = p.token_mask(q.shape[2] // p.n_blocks).to(q.device)  # (1 or H, n, n)
    if key_mask is not None:
        allowed = allowed & key_mask.view(-1, 1, 1, q.shape[2])  # (B, 1 or H, n, n)
    scores = (q * scale) @ k.transpose(-1, -2)  # (B, H, n, n); scaled first, so that float16 does not overflow
    weights = masked_softmax(scores, allowed)  # a row with no key at all: zeros, not the average of everything
    out = F.dropout(weights, dropout_p) @ v  # (B, H, n, d)
    if not return_weights:
        return out, []
    N, (B, H, n, _) = p.n_blocks, q.shape
    every = torch.arange(N, device=q.device)
    values = weights.view(B, H, N, n // N, N, n // N)  # (B, H, N, b, N, b)
    return out, [Rows(torch.arange(B, device=q.device), every, every.expand(1, N, N), values)]
