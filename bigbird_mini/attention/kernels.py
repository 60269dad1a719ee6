"""Dense attention of a few groups at a time: the small problem that the block-sparse one is cut into.

A group is s queries and the t keys and values they read: q (G, h, s, d), k and v (G, h, t, d). ``bias`` (G, h, s, t) or
what broadcasts to it is added to the scores; it hides a key by a very negative, finite number, so that a group of which
every key is hidden gives finite numbers, which the caller clears.

Two ways. *Fused*: PyTorch's CPU kernel, which also tells the log-sum-exp of each query's scores, so that its backward
partner need not do the softmax again. *Plain*: on any device, scaled_dot_product_attention forward (the formula where
weights are dropped), and the formula's derivative backward.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F

Grads = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def fused_forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor | None, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """(G, h, s, d) and the log-sum-exp of each query's scores (G, h, s); CPU tensors only."""
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        q, k, v, attn_mask=_spread(bias, q, k), scale=scale
    )


def fused_backward(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor | None,
    scale: float,
    out: torch.Tensor,
    lse: torch.Tensor,
) -> Grads:
    """The gradients of q, k and v, from what the forward pass gave."""
    backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
    return backward(grad, q, k, v, out, lse, 0.0, False, attn_mask=_spread(bias, q, k), scale=scale)


@lru_cache(maxsize=1)
def fused_works() -> bool:
    """Whether this PyTorch has the two operators, and they mean what they meant: they are its own affair, not public.

    Tried once, on a problem small enough to go unnoticed, with all that this package asks of them.
    """
    from torch.utils._python_dispatch import _disable_current_modes  # a fake tensor would say nothing

    g, kind = torch.Generator().manual_seed(0), {"dtype": torch.float64, "device": "cpu"}
    with _disable_current_modes():
        q, k, v, grad = (torch.randn(2, 1, s, 4, generator=g, **kind) for s in (3, 5, 5, 3))
        bias = torch.tensor([0.0, 0.7, torch.finfo(q.dtype).min, 0.0, -0.2], **kind).expand(2, 1, 1, 5)
        try:
            out, lse = fused_forward(q, k, v, bias, 0.3)
            grads = fused_backward(grad, q, k, v, bias, 0.3, out, lse)
            scores = 0.3 * q @ k.transpose(-1, -2) + bias
            good = torch.allclose(lse, scores.logsumexp(-1)) and torch.allclose(out, plain_forward(q, k, v, bias, 0.3))
            return good and all(map(torch.allclose, grads, plain_backward(grad, q, k, v, bias, 0.3)))
        except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError):
            return False


def plain_forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor | None,
    scale: float,
    dropout_p: float = 0.0,
    seed: int = 0,
) -> torch.Tensor:
    """(G, h, s, d) on any device; the seed alone fixes what is dropped, and no global random state feels it."""
    if not dropout_p:
        bias = _spread(None if bias is None else bias.to(q.dtype), q, k)
        return F.scaled_dot_product_attention(q, k, v, bias, scale=scale)
    weights = _softmax(q, k, bias, scale)  # (G, h, s, t)
    return ((weights * _kept(weights, dropout_p, seed)) @ v.to(weights.dtype)).to(q.dtype)


def plain_backward(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor | None,
    scale: float,
    dropout_p: float = 0.0,
    seed: int = 0,
) -> Grads:
    """The gradients of q, k and v, by the chain rule through out = (kept * softmax(scale * q k^T + bias)) v."""
    weights = _softmax(q, k, bias, scale)  # (G, h, s, t)
    kept = _kept(weights, dropout_p, seed) if dropout_p else 1.0
    grad, q, k, v = (x.to(weights.dtype) for x in (grad, q, k, v))
    of_weights = (grad @ v.transpose(-1, -2)) * kept
    of_scores = weights * (of_weights - (weights * of_weights).sum(-1, keepdim=True)) * scale  # softmax's own rule
    return of_scores @ k, of_scores.transpose(-1, -2) @ q, (weights * kept).transpose(-1, -2) @ grad


def _softmax(q: torch.Tensor, k: torch.Tensor, bias: torch.Tensor | None, scale: float) -> torch.Tensor:
    """The weights (G, h, s, t), in the wide type."""
    scores = (q.to(wide(q)) * scale) @ k.to(wide(q)).transpose(-1, -2)
    return (scores if bias is None else scores + bias).softmax(-1)


def _kept(weights: torch.Tensor, dropout_p: float, seed: int) -> torch.Tensor:
    """What dropout multiplies the weights with: 0, or what makes up for the zeros."""
    generator = torch.Generator(weights.device).manual_seed(seed)
    drawn = torch.rand(weights.shape, generator=generator, device=weights.device)
    return (drawn >= dropout_p).to(weights.dtype) / (1 - dropout_p)


def _spread(bias: torch.Tensor | None, q: torch.Tensor, k: torch.Tensor) -> torch.Tensor | None:
    """As a view of all scores (G, h, s, t), which the kernels ask for."""
    return None if bias is None else bias.expand(*q.shape[:3], k.shape[2])


def wide(q: torch.Tensor) -> torch.dtype:
    """The type for sums: float32 at least."""
    return torch.promote_types(q.dtype, torch.float32)
