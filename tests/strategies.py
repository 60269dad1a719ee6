"""Random patterns and tensors for the property tests, and what compares two ways of attention."""

from contextlib import nullcontext
from unittest import mock

import numpy as np
import torch
from hypothesis import strategies as st

from bigbird_mini import BlockPattern, attention
from bigbird_mini.attention import gather

KINDS = ["window", "global", "random", "grid", "full", "dilated", "power_law", "released", "counted"]


@st.composite
def patterns(draw, max_blocks=12, heads=None, n_blocks=None):
    """Any union of kinds, over 1 to max_blocks blocks; some rows may read nothing, others everything.

    With "released" or "counted" among them, some blocks may count more than once.
    """
    n = n_blocks or draw(st.integers(1, max_blocks))
    heads = heads or draw(st.integers(1, 3))
    seed = draw(st.integers(0, 2**40))
    kinds = draw(st.sets(st.sampled_from(KINDS), min_size=1, max_size=3))
    p = BlockPattern.global_(n, ())
    if "window" in kinds:
        p = p | BlockPattern.window(n, 2 * draw(st.integers(0, 3)) + 1)
    if "dilated" in kinds:
        p = p | BlockPattern.dilated(n, 2 * draw(st.integers(1, 3)) + 1, draw(st.integers(2, 4)))
    if "global" in kinds:
        p = p | BlockPattern.global_(n, draw(st.lists(st.integers(-n, n - 1), max_size=3)))
    if "random" in kinds:
        p = p | BlockPattern.random(n, draw(st.integers(0, 4)), heads, seed, avoid=p)
    if "power_law" in kinds:
        alpha = draw(st.sampled_from([0.0, 1.0, 2.5]))
        p = p | BlockPattern.power_law(n, draw(st.integers(0, 4)), alpha, seed, heads, avoid=p)
    if "grid" in kinds:
        p = p | BlockPattern.from_grid(np.random.default_rng(seed).random((heads, n, n)) < 0.3)
    if "full" in kinds and draw(st.integers(0, 9)) == 0:
        p = p | BlockPattern.full(n)
    if "released" in kinds and n >= 6:  # with fewer, the released code attends fully
        plan = draw(st.sampled_from(["hf_eval", "hf_train", "google"]))
        random = draw(st.integers(0, (n - 6) // 2))
        size = 128 if n == 8 else 64  # 8 blocks of 128: a length at which draws hit blocks that are read already
        p = p | BlockPattern.bigbird(n, random=random, heads=heads, seed=seed, plan=plan, block_size=size)
    if "counted" in kinds:
        rng = np.random.default_rng(seed)
        keys, counts = rng.integers(0, n, (heads, n, 2)), rng.integers(1, 4, (heads, n, 2))
        nothing = np.zeros((heads, n), np.uint8)
        p = p | BlockPattern(nothing, keys, np.full(keys.shape, 3), counts)
    return p


def tensors(B, H, n, d, seed=0, dtype=torch.float64, requires_grad=False):
    """q, k, v that differ from each other, and a gradient to send back."""
    g = torch.Generator().manual_seed(seed)
    q, k, v, back = (torch.randn(B, H, n, d, dtype=dtype, generator=g) for _ in range(4))
    return *(x.requires_grad_(requires_grad) for x in (q, k, v)), back


ROUTES = ["fused", "plain"]  # the two ways of gather


def by(route):
    """gather with PyTorch's fused CPU kernel, or without."""
    return nullcontext() if route == "fused" else mock.patch.object(gather, "fused_works", lambda: False)


def run(backend, p, sizes, key_mask=None, scale=None, dtype=torch.float64, seed=0):
    """Output and gradients of q, k and v."""
    *given, back = (x.to(dtype) for x in tensors(*sizes, seed=seed))  # drawn in float64, so the same for every type
    q, k, v = (x.requires_grad_() for x in given)
    out = attention(q, k, v, p, key_mask, scale, backend=backend, block_size=sizes[2] // p.n_blocks)
    out.backward(back)
    return [out, *(torch.zeros_like(x) if x.grad is None else x.grad for x in (q, k, v))]


def the_same(want, got, within):
    for name, w, g in zip(("out", "dq", "dk", "dv"), want, got, strict=True):
        assert g.isfinite().all() and g.shape == w.shape
        assert torch.allclose(g.double(), w.double(), rtol=0, atol=within), (name, (g - w).abs().max())
