"""attention(): one function, several backends, all held to the dense one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch._compile import _disable_dynamo  # torch.compiler.disable, without the second that its import takes

from ..pattern import BlockPattern
from ..plans import whole
from .dense import dense_attention, short_attention, suits_short
from .flex import flex_attention, flex_works
from .gather import gather_attention, gather_by_number
from .weights import BlockWeights, Rows

__all__ = ["BACKENDS", "BlockWeights", "attention"]

BACKENDS: dict[str, Callable[..., tuple[torch.Tensor, list[Rows]]]] = {
    "dense": dense_attention,
    "gather": gather_attention,
    "flex": flex_attention,
}
_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    p: BlockPattern | Sequence[BlockPattern],
    key_mask: torch.Tensor | None = None,
    scale: float | None = None,
    dropout_p: float = 0.0,
    backend: str = "auto",
    return_weights: bool = False,
    block_size: int | None = None,
) -> torch.Tensor | tuple[torch.Tensor, BlockWeights]:
    """Scaled dot-product attention in which each query block reads only the key blocks of its row of the pattern.

    out_i = sum_j softmax_j(scale * q_i . k_j) v_j, over the real tokens j in the blocks that i's block reads
    (Zaheer et al. 2020, section 2, equation AT, without the residual).

    Args:
        q, k, v: (B, H, n, d) floating point; n a multiple of p.n_blocks. The block size is n / p.n_blocks.
        p: one pattern, or a list of B patterns of one size, one for each document. Its heads: 1 or H.
        key_mask: (B, n) bool, True for a real token. A query that reads no real token gives zeros.
        scale: factor on the scores; 1 / sqrt(d) where None.
        dropout_p: share of attention weights dropped, as in torch's scaled_dot_product_attention, from torch's
            random state; not with "flex".
        backend: "dense" (the n x n oracle), "gather" (memory linear in n, any device, trains), "flex" (FlexAttention:
            CUDA, compiled; on a CPU forward only) or "auto": flex on CUDA where it compiles, else gather; for short
            texts that read nearly everything, torch's fused attention with a mask. Inside torch.compile, "auto" is
            gather, as one operator; a list of patterns, return_weights and other backends are left uncompiled.
        return_weights: return (output, weights), the weights in block layout, see BlockWeights.
        block_size: only to have n checked: n must then be p.n_blocks * block_size.

    Returns:
        (B, H, n, d), of q's type and on its device; with return_weights a pair of this and BlockWeights.

    Raises:
        ValueError, TypeError: where shapes, types or settings do not fit, with the values and what is allowed.
    """
    patterns = list(p) if isinstance(p, Sequence) else [p]
    _check(q, k, v, patterns, key_mask, scale, dropout_p, backend, block_size)
    if isinstance(p, Sequence) and len(patterns) != len(q):
        raise ValueError(
            f"{len(patterns)} patterns for a batch of {len(q)}; give one pattern, or one for each document"
        )
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if torch.compiler.is_compiling() and len(patterns) == 1 and backend in ("auto", "gather") and not return_weights:
        core = patterns[0].unpadded()
        real = q.shape[2] // patterns[0].n_blocks * core.n_blocks
        return gather_by_number(q, k, v, core.number, real, key_mask, scale, dropout_p)
    return _grouped(q, k, v, patterns, key_mask, scale, dropout_p, backend, return_weights)


@_disable_dynamo  # torch.compile compiles what lies around it
def _grouped(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    patterns: list[BlockPattern],
    key_mask: torch.Tensor | None,
    scale: float,
    dropout_p: float,
    backend: str,
    return_weights: bool,
) -> torch.Tensor | tuple[torch.Tensor, BlockWeights]:
    """Documents that share a pattern together, each group by the backend that suits it."""
    groups: dict[BlockPattern, list[int]] = {}
    for document, pattern in enumerate(patterns):
        groups.setdefault(pattern.unpadded(), []).append(document)
    outs, order, parts = [], [], []
    for documents in groups.values():
        some, mask = (q, k, v), key_mask
        if len(groups) > 1:
            rows = torch.tensor(documents, device=q.device)
            some = [x.index_select(0, rows) for x in (q, k, v)]
            mask = None if key_mask is None else key_mask.index_select(0, rows)
        p = patterns[documents[0]]
        run = _choice(q, p, mask, dropout_p, return_weights) if backend == "auto" else BACKENDS[backend]
        out, weights = run(*some, p, mask, scale, dropout_p, return_weights)
        if len(groups) > 1:
            weights = [w._replace(documents=rows) for w in weights]
        outs.append(out.to(q.dtype))
        order += documents
        parts += weights
    out = outs[0]
    if len(groups) > 1:
        back = sorted(range(len(order)), key=order.__getitem__)
        out = torch.cat(outs).index_select(0, torch.tensor(back, device=q.device))
    if not return_weights:
        return out
    B, H, n, _ = q.shape
    return out, BlockWeights(
        [w._replace(values=w.values.to(q.dtype)) for w in parts], (B, H, n, n), patterns[0].n_blocks
    )


def _choice(
    q: torch.Tensor, p: BlockPattern, key_mask: torch.Tensor | None, dropout_p: float, return_weights: bool
) -> Callable[..., tuple[torch.Tensor, list[Rows]]]:
    """What "auto" means."""
    if suits_short(q, p, key_mask, dropout_p, return_weights):
        return short_attention
    return BACKENDS["flex" if not (dropout_p or return_weights) and flex_works(q, p, key_mask) else "gather"]


def _check(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    patterns: list[BlockPattern],
    key_mask: torch.Tensor | None,
    scale: float | None,
    dropout_p: float,
    backend: str,
    block_size: int | None,
) -> None:
    for name, x in (("q", q), ("k", k), ("v", v)):
        if not isinstance(x, torch.Tensor) or x.dtype not in _TYPES or x.layout != torch.strided:
            kind = f"{x.layout} of {x.dtype}" if isinstance(x, torch.Tensor) else type(x).__name__
            raise TypeError(f"{name} must be a dense tensor of float16, bfloat16, float32 or float64, not {kind}")
        if x.dim() != 4 or x.numel() == 0:
            raise ValueError(f"{name} has shape {tuple(x.shape)}; it must be (B, H, n, d), none of them zero")
    if not (q.shape == k.shape == v.shape):
        raise ValueError(
            f"q {tuple(q.shape)}, k {tuple(k.shape)} and v {tuple(v.shape)} must have one shape (B, H, n, d)"
        )
    if not (q.dtype == k.dtype == v.dtype and q.device == k.device == v.device):
        kinds = ", ".join(f"{x.dtype} on {x.device}" for x in (q, k, v))
        raise TypeError(f"q, k and v must have one type and one device, not {kinds}")
    B, H, n, _ = q.shape
    if block_size is not None:
        whole(block_size, "block_size", least=1)
    for p in patterns:
        if not isinstance(p, BlockPattern):
            raise TypeError(f"a pattern must be a BlockPattern, not {type(p).__name__}")
        if p.n_blocks != patterns[0].n_blocks:
            raise ValueError(f"patterns of {patterns[0].n_blocks} and {p.n_blocks} blocks; all need the same number")
        if p.heads not in (1, H):
            raise ValueError(f"the pattern has {p.heads} heads, q has {H}; the pattern may have 1 or {H}")
        if block_size is not None and n != p.n_blocks * block_size:
            raise ValueError(
                f"n={n} is not {p.n_blocks} blocks of block_size={block_size}; it must be {p.n_blocks * block_size}"
            )
        if n % p.n_blocks:
            more = -(-n // p.n_blocks) * p.n_blocks
            raise ValueError(
                f"n={n} is not a multiple of the pattern's {p.n_blocks} blocks; pad to {more}, or use another pattern"
            )
    if key_mask is not None:
        if not isinstance(key_mask, torch.Tensor) or key_mask.dtype != torch.bool:
            kind = key_mask.dtype if isinstance(key_mask, torch.Tensor) else type(key_mask).__name__
            raise TypeError(f"key_mask must be a bool tensor, True for a real token, not {kind}")
        if key_mask.shape != (B, n):
            raise ValueError(f"key_mask has shape {tuple(key_mask.shape)}; it must be (B, n) = {(B, n)}")
        if key_mask.device != q.device:
            raise ValueError(f"key_mask is on {key_mask.device}, q on {q.device}; move it there")
    for name, x in (("scale", scale), ("dropout_p", dropout_p)):
        if x is not None and (isinstance(x, bool) or not isinstance(x, int | float)):
            raise TypeError(f"{name} must be a number, not {type(x).__name__}")
    if scale is not None and not -math.inf < scale < math.inf:
        raise ValueError(f"scale={scale} is not finite")
    if not 0.0 <= dropout_p < 1.0:
        raise ValueError(f"dropout_p={dropout_p} is not a share; it must be at least 0 and below 1")
    if backend not in ("auto", *BACKENDS):
        raise ValueError(f"backend={backend!r} is not known; allowed: 'auto', {', '.join(map(repr, BACKENDS))}")
