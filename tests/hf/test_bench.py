"""The peers of Hugging Face in the bench compute what they are said to compute, of the numbers all routes get."""

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("transformers", reason="needs the extra hf: pip install -e '.[hf]'")

from bigbird_mini import BlockPattern
from bigbird_mini.bench import alone, models, peers
from bigbird_mini.bench.peers import Case, prepare


def near(a, b):
    return torch.allclose(a, b, rtol=0, atol=1e-5)


def as_ours(x):
    """(B, n, H d) to (B, H, n, d)."""
    return x.view(*x.shape[:2], -1, 64).transpose(1, 2)


def test_bigbird_is_our_attention_with_the_blocks_that_they_drew(monkeypatch):
    from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention as Theirs

    drawn, draw = [], Theirs._bigbird_block_rand_mask_with_head
    monkeypatch.setattr(
        Theirs,
        "_bigbird_block_rand_mask_with_head",
        lambda self, **settings: drawn.append(draw(self, **settings)) or drawn[-1],
    )
    case = Case("huggingface", 1280, "both", heads=2)
    got = [as_ours(x) for x in prepare(case)()]
    grid = BlockPattern.bigbird(20, random=0, heads=2).grid()
    for head, rows in enumerate(drawn[0]):
        for row, blocks in enumerate(rows, start=1):  # not for the first and last one, which read everything
            assert not grid[head, row, blocks].any()
            grid[head, row, blocks] = True
    monkeypatch.setattr(Case, "pattern", lambda self: BlockPattern.from_grid(grid))
    want = prepare(Case("dense", 1280, "both", heads=2))()
    assert len(drawn) == 1 and all(map(near, got, want))
    assert near(prepare(Case("huggingface", 1280, heads=2))(), prepare(Case("dense", 1280, heads=2))())


def test_bigbird_at_the_length_of_the_paper():
    """There they may draw a block that is read anyway, and count it twice: only rows that read all can be compared."""
    out, want = (prepare(Case(route, 1024, heads=2))() for route in ("huggingface", "sdpa"))
    ends = [*range(64), *range(1024 - 64, 1024)]
    assert out.shape == want.shape and near(out[:, :, ends], want[:, :, ends]) and not near(out, want)


def test_longformer_is_a_window_of_256_tokens_to_each_side():
    call = peers.longformer(Case("longformer", 1024, heads=2))
    q, k, v = torch.randn(3, 1, 2, 1024, 64)
    given = [call.layout(x) for x in (q, k, v)]
    near_by = (torch.arange(1024)[:, None] - torch.arange(1024)).abs() <= 256
    want = F.scaled_dot_product_attention(q, k, v, near_by)
    with torch.no_grad():
        assert near(call.forward(*given), want)
        assert near(call.forward(*given), want)  # they scale queries in place; ours stay as they are
    grads = prepare(Case("longformer", 1024, "both", heads=2))()
    assert [g.shape for g in grads] == [(1024, 1, 128)] * 3 and all(g.std() > 0.01 for g in grads)


@pytest.mark.parametrize("route", ["huggingface", "longformer"])
@pytest.mark.parametrize("direction", ["forward", "both"])
def test_they_can_be_measured(route, direction, monkeypatch):
    monkeypatch.setattr(alone, "AT_LEAST", 0.0)
    monkeypatch.setattr(alone, "TRIES", 1)
    seen = alone.figure(Case(route, 1024, direction, heads=2), 1, True)
    assert seen["seconds"] > 0 and seen["extra_bytes"] > 0


def test_where_bigbird_is_not_sparse_it_is_left_out():
    for case, why in (
        (Case("huggingface", 704), "uses full attention up to 704 tokens"),
        (Case("huggingface", 1024, window=5), "its window is always 3 blocks, not 5"),
        (Case("huggingface", 1024, random=0), "fails without random blocks"),
        (Case("longformer", 768), "needs a multiple of its window of 512 tokens"),
    ):
        assert alone.figure(case, 1, False) == {"reason": why}


@pytest.mark.parametrize("route", ["huggingface-bigbird", "modernbert"])
def test_their_models_are_of_our_size_and_can_be_measured(route, monkeypatch):
    monkeypatch.setattr(alone, "AT_LEAST", 0.0)
    monkeypatch.setattr(alone, "TRIES", 1)
    case = Case(route, 768, heads=2, layers=4)
    assert prepare(case)().shape == (1, 768, 128)
    seen = alone.figure(case, 1, True)
    assert seen["seconds"] > 0 and seen["extra_bytes"] > 0
    model = models.MODELS[route](case)
    assert model.config.num_hidden_layers == 4 and not any(x.p for x in model.modules() if hasattr(x, "inplace"))


def test_their_model_is_sparse_and_draws_random_blocks(monkeypatch):
    from transformers.models.big_bird.modeling_big_bird import BigBirdBlockSparseAttention as Theirs

    drawn, draw = [], Theirs._bigbird_block_rand_mask_with_head
    monkeypatch.setattr(
        Theirs, "_bigbird_block_rand_mask_with_head", lambda self, **x: drawn.append(draw(self, **x)) or drawn[-1]
    )
    prepare(Case("huggingface-bigbird", 1280, heads=2, layers=3))()
    assert len(drawn) == 3
    case = Case("huggingface-bigbird", 704, heads=2, layers=1)
    assert alone.figure(case, 1, False) == {"reason": "uses full attention up to 704 tokens"}
