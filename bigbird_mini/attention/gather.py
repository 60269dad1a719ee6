"""Block-sparse attention on any device: gather the key blocks that a row reads, then one small dense attention a row.

Memory grows with n and not with n²: the key blocks are gathered for a few rows at a time (plan.py), and again in the
backward pass. To torch.compile all of it is one operator, however long the text.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from ..lists import numbered
from ..pattern import BlockPattern
from .kernels import fused_backward, fused_forward, fused_works, plain_backward, plain_forward, wide
from .plan import Alike, chunks, plan_for
from .weights import Rows, masked_softmax


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
    core, n = p.unpadded(), q.shape[2]
    real = n // p.n_blocks * core.n_blocks
    if not return_weights:
        _first_derivatives_only(q, k, v)
        return gather_by_number(q, k, v, core.number, real, key_mask, scale, dropout_p), []
    q, k, v, key_mask = _narrowed(q, k, v, key_mask, real)
    out, weights = _with_weights(q, k, v, core, key_mask, scale, dropout_p)
    weights = [w._replace(keys=torch.where(w.keys == core.n_blocks, p.n_blocks, w.keys)) for w in weights]
    return F.pad(out, (0, 0, 0, n - real)), weights


def gather_by_number(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    number: int,
    real: int,
    key_mask: torch.Tensor | None,
    scale: float,
    dropout_p: float,
) -> torch.Tensor:
    """The same for a pattern known by its number, which covers the first ``real`` tokens: the rest give zeros."""
    n = q.shape[2]
    q, k, v, key_mask = _narrowed(q, k, v, key_mask, real)
    seed = None  # what is dropped follows from one number of torch's generator, as the seed of all chunks
    if dropout_p:
        seed = torch.randint(2**62, (), dtype=torch.int64)
    out, _ = _gather(q, k, v, key_mask, seed, number, scale, dropout_p)
    return out if real == n else F.pad(out, (0, 0, 0, n - real))


def _first_derivatives_only(*tensors: torch.Tensor) -> None:
    """torch would give zeros for forward-mode derivatives, and for torch.func.grad an error about something else."""
    forward_mode = torch.autograd.forward_ad
    tangents = forward_mode._current_level >= 0 and any(
        forward_mode.unpack_dual(x).tangent is not None for x in tensors
    )
    if tangents or any(torch._C._functorch.is_gradtrackingtensor(x) for x in tensors):
        raise NotImplementedError(
            'backend="gather" has derivatives by backward() and torch.autograd.grad only; for torch.func and forward '
            'mode use backend="dense"'
        )


def _narrowed(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, key_mask: torch.Tensor | None, real: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    if real == q.shape[2]:
        return q, k, v, key_mask
    q, k, v = (x.narrow(2, 0, real) for x in (q, k, v))
    return q, k, v, None if key_mask is None else key_mask.narrow(1, 0, real)


def forward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    key_mask: torch.Tensor | None,
    seed: torch.Tensor | None,
    number: int,
    scale: float,
    dropout_p: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, H, n, d), and the log-sum-exp of each query's scores (B, H, n) where the kernel tells it, else zeros.

    seed: of what dropout drops, else None. number: of the pattern, which has no padding.
    """
    p = numbered(number)
    (B, H, n, _), N = q.shape, p.n_blocks
    blocks = [_blocks(x, N) for x in (q, k, v)]
    out = torch.zeros_like(blocks[0])
    lse = torch.zeros((B * H * N, n // N), dtype=wide(q), device=q.device)
    fused = _fused(q, dropout_p)
    with torch.no_grad(), torch.autocast(q.device.type, enabled=False):
        for turn, chunk in enumerate(chunks(p, blocks, q, key_mask, _threads(dropout_p), fused)):
            given = (chunk.queries, chunk.keys, chunk.values, chunk.bias, scale)
            if fused:
                part, sums = fused_forward(*given)
                lse.index_copy_(0, chunk.own, sums.reshape(len(chunk.own), -1))
            else:
                part = plain_forward(*given, dropout_p, _turn(seed, turn))
            part = part if chunk.nothing is None else part.masked_fill(chunk.nothing, 0.0)
            out.index_copy_(0, chunk.own, part.reshape(len(chunk.own), -1))
    lse = lse.view(B, H, n)
    lse.pattern = p  # the backward pass keeps lse and knows only the number: so the pattern lives as long
    return out.view(q.shape), lse


def backward(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    key_mask: torch.Tensor | None,
    seed: torch.Tensor | None,
    out: torch.Tensor,
    lse: torch.Tensor,
    number: int,
    scale: float,
    dropout_p: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The gradients of q, k and v, from that of the output and what the forward pass gave."""
    p = numbered(number)
    BHN = q.shape[0] * q.shape[1] * p.n_blocks
    *blocks, grad, out, lse = (_blocks(x, p.n_blocks) for x in (q, k, v, grad.to(q.dtype), out, lse))
    dq, dk, dv = torch.zeros_like(blocks[0]), None, None
    fused = _fused(q, dropout_p)
    with torch.no_grad(), torch.autocast(q.device.type, enabled=False):
        for turn, chunk in enumerate(chunks(p, blocks, q, key_mask, _threads(dropout_p), fused)):
            given = (chunk.queries, chunk.keys, chunk.values, chunk.bias, scale)
            back = grad.index_select(0, chunk.own).view(chunk.queries.shape)
            back = back if chunk.nothing is None else back.masked_fill(chunk.nothing, 0.0)
            if fused:
                part = out.index_select(0, chunk.own).view(chunk.queries.shape)
                sums = lse.index_select(0, chunk.own).view(chunk.queries.shape[:3])
                grads = fused_backward(back, *given, part, sums)
            else:
                grads = plain_backward(back, *given, dropout_p, _turn(seed, turn))
            dq.index_copy_(0, chunk.own, grads[0].to(q.dtype).reshape(len(chunk.own), -1))
            everything = isinstance(chunk.read, slice) and chunk.read == slice(0, BHN)
            if dk is None and everything:  # the full rows, first and all at once: add to theirs
                dk, dv = (x.to(wide(q)).reshape(BHN, -1) for x in grads[1:])
                continue
            if dk is None:  # in float32 at least: many small sums meet in one key block
                dk, dv = (torch.zeros_like(dq, dtype=wide(q)) for _ in range(2))
            chunk.add(dk, grads[1])
            chunk.add(dv, grads[2])
    return tuple(torch.zeros_like(q) if x is None else x.to(q.dtype).view(q.shape) for x in (dq, dk, dv))


_gather = torch.library.custom_op("bigbird_mini::gather", forward, mutates_args=())
_gather_backward = torch.library.custom_op("bigbird_mini::gather_backward", backward, mutates_args=())


@_gather.register_fake
def _(q, k, v, key_mask, seed, number, scale, dropout_p):  # noqa: ANN001, ANN202
    return q.new_empty(q.shape), q.new_empty(q.shape[:3], dtype=wide(q))


@_gather_backward.register_fake
def _(grad, q, k, v, *_rest):  # noqa: ANN001, ANN002, ANN202
    return tuple(x.new_empty(x.shape) for x in (q, k, v))


def _remember(ctx: Any, inputs: tuple, output: tuple) -> None:
    q, k, v, key_mask, seed, *ctx.settings = inputs
    ctx.save_for_backward(q, k, v, key_mask, seed, *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, grad: torch.Tensor, _: torch.Tensor) -> tuple:
    grads = _gather_backward(grad, *ctx.saved_tensors, *ctx.settings)
    return *grads, None, None, None, None, None


_gather.register_autograd(_differentiate, setup_context=_remember)


def _blocks(x: torch.Tensor, N: int) -> torch.Tensor:
    """(B, H, n, ...) as (B H N, ...), copied where it does not lie so: the fused kernel looks at no last stride."""
    return x.reshape(x.shape[0] * x.shape[1] * N, -1).contiguous()


def _threads(dropout_p: float) -> int:
    """For how many threads a chunk is made; with dropout always for one, since what is dropped follows the chunks."""
    return 1 if dropout_p else torch.get_num_threads()


def _fused(q: torch.Tensor, dropout_p: float) -> bool:
    return q.device.type == "cpu" and not dropout_p and fused_works()


def _turn(seed: torch.Tensor | None, turn: int) -> int:
    """Another seed for each chunk, the same in the backward pass."""
    return 0 if seed is None else (int(seed) + turn) % 2**62


def _with_weights(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    p: BlockPattern,
    key_mask: torch.Tensor | None,
    scale: float,
    dropout_p: float,
) -> tuple[torch.Tensor, list[Rows]]:
    """The same by the formula, in plain steps that leave the weights behind."""
    (B, H, n, d), N = q.shape, p.n_blocks
    b = n // N
    plan = plan_for(p, q)
    alike, everything = list(plan.alike), torch.arange(N, device=q.device)
    if len(plan.full) or not alike:
        alike.append(Alike(plan.full, everything.expand(1, len(plan.full), N), None))
    documents = torch.arange(B, device=q.device)
    first = N * torch.arange(B * H, device=q.device).view(B, H, 1, 1)
    blocks = [x.reshape(B * H * N, b, d) for x in (q, k, v)]
    out, kept = torch.zeros_like(blocks[0]), []
    for rows, keys, weight in alike:
        R, K = keys.shape[1:]
        own, at = (first.squeeze(-1) + rows).reshape(-1), (first + keys).reshape(-1)  # (B H R,), (B H R K,)
        queries = blocks[0].index_select(0, own).view(B, H, R, b, d)
        read = [x.index_select(0, at).view(B, H, R, K * b, d) for x in blocks[1:]]
        scores, mask = (queries * scale) @ read[0].transpose(-1, -2), None  # (B, H, R, b, K b)
        if key_mask is not None:
            mask = key_mask.view(B, N, b).index_select(1, keys.reshape(-1)).view(B, len(keys), R, 1, K * b)
        if weight is not None:
            listed = weight.isfinite()
            scores = scores + weight.where(listed, 0.0).to(q.dtype).repeat_interleave(b, -1).unsqueeze(2)
            only = listed.repeat_interleave(b, -1).unsqueeze(2)  # (heads, R, 1, K b)
            mask = only if mask is None else mask & only
            keys = torch.where(listed, keys, N)
        weights = masked_softmax(scores, mask)
        part = F.dropout(weights, dropout_p) @ read[1]  # (B, H, R, b, d)
        out = out.index_copy(0, own, part.reshape(-1, b, d).to(out.dtype))
        kept.append(Rows(documents, rows, keys, weights.unflatten(-1, (K, b))))
    return out.view(B, H, n, d), kept
