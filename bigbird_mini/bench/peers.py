"""The routes of the table: our attention, torch's, and named peers, each fed the same queries, keys and values.

A route gets q, k and v of shape (B, H, n, 64) in the layout that it works on, brought there before the clock starts,
and returns (B, H, n, 64), as a view where its own layout is another. Peers are loaded when their route is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ..attention import BACKENDS, attention
from ..pattern import BlockPattern

HEAD_SIZE = 64
DENSE_UP_TO = 4096  # tokens: the oracle's matrices of 12 heads take 4 GB there
LONGFORMER_WINDOW = 512  # keys a query: as many as 8 blocks of 64
DIRECTIONS = ("forward", "both")


@dataclass(frozen=True)
class Case:
    """One thing to measure. direction: "forward" (nothing kept for a backward pass) or "both" (forward and backward).

    block, window and random describe the BigBird pattern, whose first and last blocks are global; ragged: the second
    half of the batch has fewer real tokens, and a key mask says so. layers: of a whole encoder; 0 is attention alone.
    """

    route: str
    n: int
    direction: str = "forward"
    heads: int = 12
    batch: int = 1
    ragged: bool = False
    block: int = 64
    window: int = 3
    random: int = 3
    device: str = "cpu"
    dtype: str = "float32"
    layers: int = 0

    def pattern(self) -> BlockPattern:
        return BlockPattern.bigbird(self.n // self.block, self.window, (0, -1), self.random, heads=self.heads)


class CannotRun(Exception):
    """A route does not exist here, or not at this length or in this direction; the text is the reason."""


class Call(NamedTuple):
    """forward: attention of q, k, v. layout: from (B, H, n, d) to what forward takes; None where it takes that."""

    forward: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
    layout: Callable[[torch.Tensor], torch.Tensor] | None = None


def prepare(case: Case) -> Callable[[], object]:
    """A function that runs the case once: the output, or the gradients of q, k and v.

    Inputs, and the gradient that arrives from above, are the same random numbers for every route; the first call
    compiles, plans and allocates, so it is not to be timed. CannotRun where the case cannot run.
    """
    if case.layers:
        from . import models

        return models.prepare(case)
    call = ROUTES[case.route](case)
    torch.manual_seed(0)
    shape = (4, case.batch, case.heads, case.n, HEAD_SIZE)
    *inputs, above = torch.randn(shape, device=case.device, dtype=getattr(torch, case.dtype))
    if call.layout:
        inputs = [call.layout(x) for x in inputs]
    both = case.direction == "both"
    q, k, v = (x.clone(memory_format=torch.contiguous_format).requires_grad_(both) for x in inputs)
    arriving = None  # in the layout of the route's output: no copy is charged to it

    def run() -> object:
        nonlocal arriving
        if not both:
            with torch.no_grad():
                return call.forward(q, k, v)
        out = call.forward(q, k, v)
        if arriving is None:
            arriving = torch.empty_like(out).copy_(above)
        return torch.autograd.grad(out, (q, k, v), arriving)

    return run


def sdpa(case: Case) -> Call:
    """torch's scaled_dot_product_attention over everything: the dense reference."""
    return Call(lambda q, k, v: F.scaled_dot_product_attention(q, k, v))


def ours(case: Case, backend: str) -> Call:
    """bigbird_mini.attention with one backend."""
    if backend not in ("auto", *BACKENDS):
        raise CannotRun(f"attention() has no backend {backend!r} here; it has {', '.join(BACKENDS)}")
    if backend == "dense" and case.n > DENSE_UP_TO:
        raise CannotRun(f"keeps the whole matrix, so it is measured up to {DENSE_UP_TO:,} tokens only")
    if backend == "flex":
        _flex_has(case)
    p, mask = case.pattern(), None
    if case.ragged:
        fewer = case.n * 5 // 8 - 7  # ends inside a block
        lengths = torch.tensor([case.n if i < case.batch / 2 else fewer for i in range(case.batch)])
        mask = (torch.arange(case.n) < lengths[:, None]).to(case.device)
    return Call(lambda q, k, v: attention(q, k, v, p, key_mask=mask, backend=backend))


def _flex_has(case: Case) -> None:
    if case.device == "cpu" and case.direction == "both":
        raise CannotRun("FlexAttention has no backward pass on the CPU")


def torch_flex(case: Case) -> Call:
    """torch's FlexAttention, compiled, from the pattern's lists of blocks. On a CPU it needs a C++ compiler."""
    _flex_has(case)
    from torch.nn.attention.flex_attention import BlockMask, flex_attention

    b, grid = case.block, case.pattern().grid().to(case.device)  # (H, N, N)
    count = grid.sum(-1, dtype=torch.int32)[None]
    lists = grid.to(torch.int8).argsort(dim=-1, descending=True, stable=True).to(torch.int32)[None]
    # No block is read in part. The lists are given twice as two tensors: code made for the CPU fails for one and the
    # same. The mask_mod is for whoever runs this uncompiled, where torch looks at nothing else.
    mask = BlockMask.from_kv_blocks(
        torch.zeros_like(count),
        lists.clone(),
        count,
        lists,
        BLOCK_SIZE=b,
        mask_mod=lambda _, head, query, key: grid[head, query // b, key // b],
    )
    # On a GPU the default tiles may be larger than the blocks, which is an error there; the search finds some that fit.
    mode = "default" if case.device == "cpu" else "max-autotune-no-cudagraphs"
    compiled = torch.compile(flex_attention, dynamic=False, mode=mode)
    return Call(lambda q, k, v: compiled(q, k, v, block_mask=mask))


class _Given(torch.nn.Module):
    """Stands in the place of a peer's projection, and hands out what it was given."""

    given: torch.Tensor

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.given


def huggingface(case: Case) -> Call:
    """Hugging Face's BigBird attention, in training mode: in evaluation it has no random blocks.

    Its projections are replaced by what they would give, so that attention alone is measured.
    """
    need_transformers()
    from transformers import BigBirdConfig
    from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention, BigBirdModel

    if case.window != 3:
        raise CannotRun(f"its window is always 3 blocks, not {case.window}")
    if case.random == 0:
        raise CannotRun("fails without random blocks")
    least = (5 + 2 * case.random) * case.block
    if case.n <= least:
        raise CannotRun(f"uses full attention up to {least:,} tokens")
    B, H, n = case.batch, case.heads, case.n
    config = BigBirdConfig(
        hidden_size=H * HEAD_SIZE,
        num_attention_heads=H,
        block_size=case.block,
        num_random_blocks=case.random,
        max_position_embeddings=max(4096, n),
    )
    layer = BigBirdBlockSparseAttention(config, seed=0).train()
    layer.query, layer.key, layer.value = _Given(), _Given(), _Given()
    ones = torch.ones(B, n, device=case.device, dtype=getattr(torch, case.dtype))
    blocked, band, one_side, other_side = BigBirdModel.create_masks_for_block_sparse_attn(ones, case.block)
    masks = {"band_mask": band, "from_mask": one_side, "to_mask": other_side}
    masks |= {"from_blocked_mask": blocked, "to_blocked_mask": blocked}

    def forward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        layer.query.given, layer.key.given, layer.value.given = q, k, v
        return layer(q, **masks)[0].view(B, n, H, HEAD_SIZE).transpose(1, 2)

    return Call(forward, lambda x: x.transpose(1, 2).reshape(B, n, H * HEAD_SIZE))


def longformer(case: Case) -> Call:
    """Hugging Face's Longformer attention: a window of 512 keys a query, and no global tokens (the kindest setting).

    Its projections are replaced by what they would give, so that attention alone is measured.
    """
    need_transformers()
    from transformers import LongformerConfig
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

    if case.n % LONGFORMER_WINDOW:
        raise CannotRun(f"needs a multiple of its window of {LONGFORMER_WINDOW} tokens")
    B, H, n = case.batch, case.heads, case.n
    config = LongformerConfig(
        hidden_size=H * HEAD_SIZE,
        num_attention_heads=H,
        attention_window=[LONGFORMER_WINDOW],
        attention_probs_dropout_prob=0.0,
    )
    layer = LongformerSelfAttention(config, 0).train()
    layer.query, layer.key, layer.value = _Given(), _Given(), _Given()
    zeros = torch.zeros(B, n, device=case.device, dtype=getattr(torch, case.dtype))
    none = torch.zeros(B, n, device=case.device, dtype=torch.bool)

    def forward(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        layer.query.given, layer.key.given, layer.value.given = q.clone(), k, v  # it scales the queries in place
        out = layer(q.transpose(0, 1), zeros, none, none, False)[0]  # (B, n, H d)
        return out.view(B, n, H, HEAD_SIZE).transpose(1, 2)

    return Call(forward, lambda x: x.permute(2, 0, 1, 3).reshape(n, B, H * HEAD_SIZE))


def need_transformers() -> None:
    """CannotRun where transformers is not installed."""
    try:
        import transformers  # noqa: F401
    except ImportError:
        raise CannotRun('transformers is not installed: pip install "bigbird-mini[hf]"') from None


# In the order of a round: the reference first, ours next to it, then the peers.
ROUTES: dict[str, Callable[[Case], Call]] = {
    "sdpa": sdpa,
    "gather": partial(ours, backend="gather"),
    "auto": partial(ours, backend="auto"),
    "flex": partial(ours, backend="flex"),
    "torch-flex": torch_flex,
    "huggingface": huggingface,
    "longformer": longformer,
    "dense": partial(ours, backend="dense"),
}
OURS = ("auto", "gather", "flex", "bigbird-mini")  # the first that was measured stands for ours in the ratios
