"""Block-sparse attention by PyTorch's FlexAttention: a compiled kernel that reads the listed key blocks in place.

On CUDA it runs forward and backward. On a CPU it needs a C++ compiler, and there is no backward pass (PyTorch 2.13).
The lists go into a BlockMask as they are; no n x n table of tokens is made. Uncompiled, FlexAttention ignores the lists
and heeds ``mask_mod`` alone, so that one says the same once more.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F

from ..pattern import BlockPattern
from .gather import gather_attention
from .plan import is_real
from .remember import remembered
from .weights import Rows

LARGEST = 2**26  # entries of the lists over all heads: one row that reads everything makes each list N long
Mod = Callable[..., torch.Tensor]


def flex_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    p: BlockPattern,
    key_mask: torch.Tensor | None,
    scale: float,
    dropout_p: float,
    return_weights: bool = False,
) -> tuple[torch.Tensor, list[Rows]]:
    """Equal to the dense oracle. The arguments are those of :func:`bigbird_mini.attention`, already checked.

    Raises ValueError with dropout, and on a CPU for float64 and where gradients are wanted. The kernel does not give
    its weights away: with return_weights, gather does the work.
    """
    if return_weights:
        return gather_attention(q, k, v, p, key_mask, scale, dropout_p, return_weights)
    if dropout_p:
        raise ValueError(f'backend="flex" cannot drop weights (dropout_p={dropout_p}); use "gather"')
    if q.device.type == "cpu" and q.dtype == torch.float64:
        raise ValueError('backend="flex" has no float64 on a CPU; use "gather", or float32')
    if q.device.type == "cpu" and torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        raise ValueError('backend="flex" has no backward pass on a CPU; use "gather", or call it under torch.no_grad()')
    if p.heads * p.n_blocks**2 > LARGEST:
        raise ValueError(
            f'backend="flex" would need lists of {p.heads} x {p.n_blocks} x {p.n_blocks} blocks; use "gather"'
        )
    real = is_real(q)
    block_mask, score_mod = (_lists if real else _lists.__wrapped__)(
        p, q.shape[2] // p.n_blocks, q.device, key_mask is not None
    )
    if key_mask is not None:
        block_mask = copy.copy(block_mask)
        block_mask.mask_mod = _and_real(block_mask.mask_mod, key_mask)
    q, k, v = (x.contiguous() for x in (q, k, v))
    with torch.autocast(q.device.type, enabled=False):
        if real:
            out = _kernel(q.device.type, block_mask.BLOCK_SIZE[0])(q, k, v, score_mod, block_mask, scale)
        else:
            out = _by_definition(q, k, v, score_mod, block_mask.mask_mod, scale)
    return out, []


def flex_works(q: torch.Tensor, p: BlockPattern, key_mask: torch.Tensor | None) -> bool:
    """Whether "auto" may take it: on CUDA, with sizes that its kernels know, where it compiles and is right."""
    b, d = q.shape[2] // p.n_blocks, q.shape[3]
    if q.device.type != "cuda" or b % 64 or d not in (16, 32, 64, 128, 256) or p.heads * p.n_blocks**2 > LARGEST:
        return False
    if not is_real(q):
        return False
    kind = (b, d, q.dtype, q.device, p.heads > 1, key_mask is not None, p.listed_multiplicity() is not None)
    if kind not in _found:
        try:
            _found[kind] = _tried(*kind)
        except torch.OutOfMemoryError:  # says nothing about the next time
            return False
        except Exception:  # a compiler can fail in many ways, and gather serves as well
            _found[kind] = False
    return _found[kind]


_found: dict[tuple, bool] = {}


def _tried(
    b: int, d: int, dtype: torch.dtype, device: torch.device, per_head: bool, masked: bool, counted: bool
) -> bool:
    """A small problem of this kind, forward and backward, beside the same by gather."""
    heads = 2 if per_head else 1
    p = BlockPattern.bigbird(16, heads=heads, block_size=b, plan="hf_eval" if counted else "uniform")
    g, n = torch.Generator().manual_seed(0), 16 * b
    key_mask = (torch.arange(n) < torch.tensor([[n], [n - b - 5]])).to(device) if masked else None
    found = []
    with torch.inference_mode(False), torch.enable_grad():
        q, k, v, back = (torch.randn(2, 2, n, d, generator=g).to(device, dtype) for _ in range(4))
        for run in (gather_attention, flex_attention):
            leaves = [x.clone().requires_grad_() for x in (q, k, v)]
            out, _ = run(*leaves, p, key_mask, d**-0.5, 0.0)
            found.append([out, *torch.autograd.grad(out, leaves, back)])
    # as shares of the largest number: half precision is off by about 0.01, a wrong block by much more
    return all(bool((x - y).abs().max() < 0.05 * x.abs().max()) for x, y in zip(*found, strict=True))


@lru_cache(maxsize=4)
def _kernel(device_type: str, b: int) -> Callable[..., torch.Tensor]:
    from torch.nn.attention.flex_attention import flex_attention

    # On CUDA the default tiles of the backward pass may be larger than blocks of 64; the search knows some that fit.
    mode = "max-autotune-no-cudagraphs" if device_type == "cuda" and b % 128 else None
    # fullgraph: an error where it would otherwise fall back to the uncompiled n x n, without a word
    run = torch.compile(flex_attention, fullgraph=True, dynamic=False, mode=mode)

    def patiently(*arguments: Any) -> torch.Tensor:
        try:
            with torch._dynamo.config.patch(recompile_limit=256):  # it compiles anew for each length and type
                return run(*arguments)
        except torch._dynamo.exc.TorchDynamoException as error:
            reason = str(error).splitlines()[0]
            raise RuntimeError(f'backend="flex" could not be compiled here ({reason}); use "gather"') from error

    return patiently


@remembered(lambda made: sum(x.nbytes for x in made[0].as_tuple() if isinstance(x, torch.Tensor)), limit=2**30)
def _lists(p: BlockPattern, b: int, device: torch.device, masked: bool) -> tuple[Any, Mod | None]:
    """The BlockMask of a pattern, and what adds log multiplicity to the scores, if anything.

    masked: a key mask will be added. Else all blocks are declared *full*: read without asking mask_mod about each key.
    """
    from torch.nn.attention.flex_attention import BlockMask

    grid = p.grid().to(device)
    with torch.inference_mode(False):  # remembered tensors must serve training too, whoever asks first
        there, back = _listed(grid), _listed(grid.transpose(1, 2))
        # two tensors of zeros, and not one twice: what torch 2.13 makes for a CPU does not compile then
        nowhere, neither = ([torch.zeros_like(x) for x in there] for _ in range(2))
        asked = [*there, *nowhere, *back, *neither] if masked else [*nowhere, *there, *neither, *back]
        n = p.n_blocks * b
        block_mask = BlockMask((n, n), *asked, BLOCK_SIZE=(b, b), mask_mod=_reads(grid, b))
        if p.listed_multiplicity() is None:
            return block_mask, None
        return block_mask, _counts(p.multiplicity().to(device).float().log(), b)


def _listed(grid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How many blocks each row reads, int32 (1, heads, N), and which, these first, (1, heads, N, N)."""
    order = grid.logical_not().byte().argsort(dim=-1, stable=True)
    return grid.sum(-1, dtype=torch.int32).unsqueeze(0), order.int().unsqueeze(0)


def _reads(grid: torch.Tensor, b: int) -> Mod:
    """mask_mod of a pattern: grid (heads, N, N)."""

    def reads(document: torch.Tensor, head: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        return _at(grid, head if len(grid) > 1 else head * 0, i // b, j // b)

    return reads


def _and_real(reads: Mod, key_mask: torch.Tensor) -> Mod:
    """mask_mod of a pattern and of key_mask (B, n)."""

    def both(document: torch.Tensor, head: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        return reads(document, head, i, j) & _at(key_mask, document, j)

    return both


def _counts(log_times: torch.Tensor, b: int) -> Mod:
    """score_mod of multiplicities: log_times (heads, N, N)."""

    def counts(
        score: torch.Tensor, document: torch.Tensor, head: torch.Tensor, i: torch.Tensor, j: torch.Tensor
    ) -> torch.Tensor:
        return score + _at(log_times, head if len(log_times) > 1 else head * 0, i // b, j // b)

    return counts


def _at(table: torch.Tensor, *where: torch.Tensor) -> torch.Tensor:
    """table[where], in the one form that also takes fake CUDA tensors without a GPU."""
    return torch.ops.aten.index.Tensor(table, list(where))


def _by_definition(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, score_mod: Mod | None, mask_mod: Mod, scale: float
) -> torch.Tensor:
    """What the kernel computes, as a formula; for tensors that have only a shape, where n x n costs nothing."""
    B, H, n, _ = q.shape
    of = [torch.arange(size, device=q.device) for size in (B, H, n, n)]
    of = [x.view([-1 if i == axis else 1 for i in range(4)]) for axis, x in enumerate(of)]
    scores = (q * scale) @ k.transpose(-1, -2)
    scores = scores if score_mod is None else score_mod(scores, *of)
    return F.softmax(scores.masked_fill(mask_mod(*of).logical_not(), -torch.inf), -1).to(v.dtype) @ v
