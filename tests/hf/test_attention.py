"""The attention layer of Hugging Face's BigBird and ours, with the pattern named after its mode: the same numbers.

Their own queries, keys and values go into `attention`; their output is what it must give (extra `hf`).
"""

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers", reason="needs the extra hf: pip install -e '.[hf]'")

from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention, BigBirdModel  # noqa: E402

from bigbird_mini import BlockPattern, attention  # noqa: E402

HEADS, SIZE, BLOCK = 3, 8, 64


def their_layer(layer, train):
    torch.manual_seed(layer)
    config = transformers.BigBirdConfig(hidden_size=HEADS * SIZE, num_attention_heads=HEADS, block_size=BLOCK)
    theirs = BigBirdBlockSparseAttention(config, seed=layer).train(train)
    for p in theirs.parameters():
        p.data = torch.randn_like(p) * (0.3 if p.dim() > 1 else 0.5)  # weights with a say, biases not zero
    return theirs


def theirs_and_q_k_v(theirs, n):
    """Their output, and what they computed it from, all (B, H, n, d); two documents, one padded inside a block."""
    x = torch.randn(2, n, HEADS * SIZE)
    mask = torch.arange(n) < torch.tensor([[n], [n - BLOCK // 2 - 5]])
    blocked, band, first, last = BigBirdModel.create_masks_for_block_sparse_attn(mask.float(), BLOCK)
    state = np.random.get_state()
    with torch.no_grad():
        out = theirs(x, band, first, last, blocked, blocked)[0]
        q, k, v = (f(x).view(2, n, HEADS, SIZE).transpose(1, 2) for f in (theirs.query, theirs.key, theirs.value))
    np.random.set_state(state)  # they seed NumPy's, for everybody
    return out.view(2, n, HEADS, SIZE).transpose(1, 2), q, k, v, mask


@pytest.mark.parametrize("backend", ["gather", "dense"])
@pytest.mark.parametrize("n", [832, 1024, 3072])
@pytest.mark.parametrize("layer", [0, 7])
@pytest.mark.parametrize("plan", ["hf_train", "hf_eval"])
def test_their_layer_is_our_attention_with_the_pattern_of_its_mode(plan, layer, n, backend):
    want, q, k, v, mask = theirs_and_q_k_v(their_layer(layer, train=plan == "hf_train"), n)
    p = BlockPattern.bigbird(n // BLOCK, heads=HEADS, plan=plan, block_size=BLOCK, layer=layer)
    got = attention(q, k, v, p, mask, backend=backend)
    real = mask[:, None, :, None]
    assert torch.allclose(got * real, want, rtol=0, atol=1e-5)  # they set padded queries to zero
    other = BlockPattern.bigbird(n // BLOCK, heads=HEADS, plan=plan, block_size=BLOCK, layer=layer + 1)
    honest = BlockPattern.bigbird(n // BLOCK, heads=HEADS, layer=layer)
    for wrong in (honest, *([other] if plan == "hf_train" else [p.without_random()])):
        assert not torch.allclose(attention(q, k, v, wrong, mask, backend=backend) * real, want, rtol=0, atol=1e-2)


def test_at_1024_tokens_their_training_mode_counts_some_blocks_twice():
    """So that a set of blocks, without multiplicity, would not give their numbers."""
    want, q, k, v, mask = theirs_and_q_k_v(their_layer(0, train=True), 1024)
    p = BlockPattern.bigbird(16, heads=HEADS, plan="hf_train", block_size=BLOCK)
    assert p.multiplicity().max() == 2
    got = attention(q, k, v, BlockPattern.from_grid(p.grid()), mask)
    assert not torch.allclose(got * mask[:, None, :, None], want, rtol=0, atol=1e-3)
