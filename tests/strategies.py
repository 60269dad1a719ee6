"""Random patterns and tensors for the property tests."""

import numpy as np
import torch
from hypothesis import strategies as st

from bigbird_mini import BlockPattern


@st.composite
def patterns(draw, max_blocks=12, heads=None, n_blocks=None):
    """Any union of kinds, over 1 to max_blocks blocks; some rows may read nothing, others everything."""
    n = n_blocks or draw(st.integers(1, max_blocks))
    heads = heads or draw(st.integers(1, 3))
    seed = draw(st.integers(0, 2**40))
    kinds = draw(st.sets(st.sampled_from(["window", "global", "random", "grid", "full"]), min_size=1, max_size=3))
    p = BlockPattern.global_(n, ())
    if "window" in kinds:
        p = p | BlockPattern.window(n, 2 * draw(st.integers(0, 3)) + 1)
    if "global" in kinds:
        p = p | BlockPattern.global_(n, draw(st.lists(st.integers(-n, n - 1), max_size=3)))
    if "random" in kinds:
        p = p | BlockPattern.random(n, draw(st.integers(0, 4)), heads, seed, avoid=p)
    if "grid" in kinds:
        p = p | BlockPattern.from_grid(np.random.default_rng(seed).random((heads, n, n)) < 0.3)
    if "full" in kinds and draw(st.integers(0, 9)) == 0:
        p = p | BlockPattern.full(n)
    return p


def tensors(B, H, n, d, seed=0, dtype=torch.float64, requires_grad=False):
    """q, k, v that differ from each other, and a gradient to send back."""
    g = torch.Generator().manual_seed(seed)
    q, k, v, back = (torch.randn(B, H, n, d, dtype=dtype, generator=g) for _ in range(4))
    return *(x.requires_grad_(requires_grad) for x in (q, k, v)), back
