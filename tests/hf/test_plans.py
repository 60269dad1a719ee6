"""The released plans, block for block, against Hugging Face's own functions (extra `hf`)."""

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers", reason="needs the extra hf: pip install -e '.[hf]'")

from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention  # noqa: E402

from bigbird_mini import BlockPattern  # noqa: E402

PAPER = {"hf_train": (1024, 3072, 4096), "google": (1024, 2048, 3072, 4096)}


def their_slots(n, block_size, random, heads, seed, max_length, plan):
    """int (heads, N - 2, random), or None where their functions fail. Google's functions are the same ones."""
    config = transformers.BigBirdConfig(
        hidden_size=4 * heads,
        num_attention_heads=heads,
        block_size=block_size,
        num_random_blocks=random,
        max_position_embeddings=max_length,
    )
    theirs = BigBirdBlockSparseAttention(config, seed=seed).train()
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        if n in PAPER[plan]:
            longest = max_length, max_length, block_size, block_size, random
            rows = n // block_size - 2
            drawn = [theirs._bigbird_block_rand_mask(*longest, last_idx=1024)[:rows] for _ in range(heads)]
        else:
            lengths, slots = theirs._get_rand_attn_plan(n, block_size, random)
            drawn = theirs._bigbird_block_rand_mask_with_head(n, n, block_size, block_size, heads, lengths, slots)
        return np.stack(drawn) if np.max(drawn) < n // block_size else None  # it would gather beyond the end
    except ValueError:
        return None
    finally:
        np.random.set_state(before)


def counts_of(slots):
    """How often each query block reads each key block, by what modeling_big_bird puts side by side: (heads, N, N)."""
    heads, rows, _ = slots.shape
    n = rows + 2
    counts = np.zeros((heads, n, n), int)
    counts[:, [0, -1]] = 1
    for i in range(1, n - 1):
        fixed = [0, 1, 2, n - 1] if i == 1 else [0, n - 3, n - 2, n - 1] if i == n - 2 else [0, i - 1, i, i + 1, n - 1]
        for head in range(heads):
            np.add.at(counts[head, i], [*fixed, *slots[head, i - 1]], 1)
    return counts


GENERAL = [(64, 12, 3), (64, 13, 3), (64, 24, 3), (64, 40, 1), (16, 33, 2), (16, 77, 5), (8, 96, 3), (64, 32, 3)]
PAPERS = [(64, 16, 3), (64, 48, 3), (64, 64, 3), (64, 64, 1), (32, 32, 2), (32, 128, 4), (128, 32, 3), (192, 16, 2)]


@pytest.mark.parametrize(("block_size", "n_blocks", "random"), GENERAL + PAPERS)
@pytest.mark.parametrize("plan", ["hf_train", "google"])
def test_the_same_blocks_as_often(block_size, n_blocks, random, plan):
    for heads, seed in ((12, 0), (1, 11), (3, 2)):
        theirs = their_slots(n_blocks * block_size, block_size, random, heads, seed, 4096, plan)
        p = BlockPattern.bigbird(n_blocks, random=random, heads=heads, plan=plan, block_size=block_size, layer=seed)
        ours = p.grid() * p.multiplicity()
        assert p.heads == heads and np.array_equal(ours.numpy(), counts_of(theirs))


@pytest.mark.parametrize(("n", "max_length"), [(1024, 1024), (1024, 3072), (3072, 3072), (1024, 1500), (2048, 2048)])
def test_the_longest_text_counts(n, max_length):
    theirs = their_slots(n, 64, 3, 2, 4, max_length, "hf_train")
    p = BlockPattern.bigbird(n // 64, heads=2, plan="hf_train", block_size=64, max_length=max_length, layer=4)
    assert np.array_equal((p.grid() * p.multiplicity()).numpy(), counts_of(theirs))


def test_it_fails_where_theirs_does():
    agreed = {True: 0, False: 0}
    for block_size in (64, 128, 192, 256, 512):
        for n in {1024, 3072, 4096} | {block_size * n_blocks for n_blocks in range(4, 17)}:
            if n % block_size or n > 4096 or n <= 512 or n < 4 * block_size:
                continue
            for random in (1, 2, 3, 4):
                theirs = their_slots(n, block_size, random, 2, 1, 4096, "google")
                try:
                    p = BlockPattern.bigbird(
                        n // block_size, random=random, heads=2, plan="google", block_size=block_size, layer=1
                    )
                except ValueError:
                    p = None
                assert (theirs is None) == (p is None), (block_size, n, random)
                agreed[p is None] += 1
                if p is not None:
                    assert np.array_equal((p.grid() * p.multiplicity()).numpy(), counts_of(theirs))
    assert min(agreed.values()) > 20


def test_evaluation_draws_nothing():
    config = transformers.BigBirdConfig(hidden_size=8, num_attention_heads=2, block_size=8)
    theirs = BigBirdBlockSparseAttention(config, seed=3).eval()
    slots = theirs._bigbird_block_rand_mask_with_head(160, 160, 8, 8, 2, *theirs._get_rand_attn_plan(160, 8, 3))
    p = BlockPattern.bigbird(20, heads=2, plan="hf_eval", block_size=8, layer=3)
    assert np.array_equal((p.grid() * p.multiplicity()).numpy(), counts_of(np.stack(slots)))


def test_their_fallback_to_full_attention_is_ours():
    config = transformers.BigBirdConfig(
        vocab_size=70, hidden_size=8, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8, block_size=4
    )
    for n_blocks, full in ((11, True), (12, False)):
        theirs = transformers.BigBirdModel(config).eval()
        with torch.no_grad():
            theirs(torch.ones(1, 4 * n_blocks, dtype=torch.long))
        assert (theirs.attention_type == "original_full") == full
        p = BlockPattern.bigbird(n_blocks, plan="hf_train", block_size=4)
        assert (p.density() == 1) == full
