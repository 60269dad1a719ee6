"""Prices against what torch counts: FLOPs, parameters, and what autograd keeps."""

import dataclasses
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from bigbird_mini import BigBirdConfig, BigBirdForMaskedLM, BigBirdModel, BlockPattern, attention
from bigbird_mini.attention import gather
from bigbird_mini.bench import kept_bytes
from bigbird_mini.cost import (
    attention_bytes,
    attention_flops,
    break_even,
    layer_bytes,
    layer_parameters,
    longest,
    model_cost,
    parameters,
    score_entries,
)
from strategies import patterns

BASE = BigBirdConfig()
SMALL = BigBirdConfig(
    vocab_size=29,
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=40,
    max_position_embeddings=200,
    type_vocab_size=3,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    block_size=4,
)
ONE = BlockPattern.full(1)  # dense, with block_size = n


def change(**fields):
    return dataclasses.replace(SMALL, **fields)


def plain(q, k, v, p=None, key_mask=None, dropout_p=0.0):
    weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
    return (F.dropout(weights, dropout_p) if dropout_p else weights) @ v


def fused(q, k, v, p=None, key_mask=None, dropout_p=0.0):
    return F.scaled_dot_product_attention(q, k, v)


@given(patterns(), st.integers(1, 5), st.integers(1, 4))
def test_entries_are_those_of_the_token_mask(p, b, times):
    entries = p.token_mask(b).sum().item()
    assert score_entries(p, b) == score_entries(p, b, p.heads) == entries
    assert p.heads > 1 or score_entries(p, b, times) == times * entries


def test_entries_of_bigbird_by_hand():
    for N, share in ((16, 0.56), (32, 0.30), (64, 0.152), (128, 0.077)):
        # two global rows of N blocks; 3 window + 2 global + 3 random in a row, one fewer beside a global block
        blocks = 2 * N + 8 * (N - 4) + 7 * 2
        entries = score_entries(BlockPattern.bigbird(N, heads=12), 64)
        assert entries == 12 * 64 * 64 * blocks == score_entries(BlockPattern.bigbird(N), 64, 12)
        assert entries / score_entries(ONE, 64 * N, 12) == pytest.approx(share, abs=0.006)


def counted(run):
    """FLOPs that torch counts going forward, and in all."""
    with FlopCounterMode(display=False) as counter:
        out = run()
        forward = counter.get_total_flops()
        out.sum().backward()
    return forward, counter.get_total_flops()


@pytest.mark.parametrize(("B", "H", "n", "d"), [(1, 1, 5, 7), (3, 2, 33, 8), (2, 4, 64, 16)])
def test_flops_of_dense_attention_are_those_that_torch_counts(B, H, n, d):
    q, k, v = (torch.randn(B, H, n, d, requires_grad=True) for _ in range(3))
    price = [attention_flops(ONE, n, d, H, training, B) for training in (False, True)]
    assert counted(lambda: plain(q, k, v)) == tuple(price)
    assert price[0] == 4 * B * H * n * n * d


@pytest.mark.parametrize("heads", [1, 3])
def test_sparse_attention_computes_just_these_flops(heads, monkeypatch):
    monkeypatch.setattr(gather, "fused_works", lambda: False)  # whose products torch does not count
    p = BlockPattern.bigbird(16, heads=heads, seed=5)
    q, k, v = torch.randn(3, 2, 3, 64, 8)
    math = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with FlopCounterMode(display=False) as counter, math:
        gather.forward(q, k, v, None, None, p.number, 0.5, 0.0)
    assert counter.get_total_flops() == attention_flops(p, 4, 8, 3, batch=2)
    assert counter.get_total_flops() < attention_flops(ONE, 64, 8, 3, batch=2)


@pytest.mark.parametrize(("n", "B"), [(16, 1), (64, 3)])
@pytest.mark.parametrize("kind", [BigBirdModel, BigBirdForMaskedLM])
def test_flops_of_the_model_are_those_that_torch_counts(kind, n, B):
    """Exactly: the counter sees the same matrix products, and neither sees element-wise work."""
    p = BlockPattern.full(n // 4)
    net, lm = kind(SMALL, pattern=p, attention_fn=partial(attention, backend="dense")), kind is BigBirdForMaskedLM
    x = torch.ones(B, n, dtype=torch.long)
    seen = counted(lambda: net(x).logits if lm else net(x).last_hidden_state)
    price = [model_cost(SMALL, p, 4, training, batch=B, masked_lm=lm) for training in (False, True)]
    assert seen == tuple(c.flops for c in price)
    assert [c.attention_flops for c in price] == [3 * attention_flops(p, 4, 6, 4, t, B) for t in (False, True)]


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        change(num_hidden_layers=0, vocab_size=7),
        change(hidden_size=32, num_attention_heads=2, intermediate_size=11, type_vocab_size=1),
        change(max_position_embeddings=17, num_hidden_layers=5, num_attention_heads=1),
        BASE,
    ],
)
def test_parameters_are_those_of_the_real_models(config):
    with torch.device("meta"):
        encoder, lm = BigBirdModel(config), BigBirdForMaskedLM(config)
    assert parameters(config) == sum(x.numel() for x in encoder.parameters())
    assert parameters(config, masked_lm=True) == sum(x.numel() for x in lm.parameters())
    for layer in encoder.layers:
        assert layer_parameters(config) == sum(x.numel() for x in layer.parameters())


@pytest.mark.parametrize(("B", "H", "n", "d"), [(1, 3, 50, 7), (2, 2, 33, 20)])
def test_bytes_for_score_entries_are_those_that_autograd_keeps(B, H, n, d):
    for dtype, size in ((torch.float32, 4), (torch.float64, 8), (torch.bfloat16, 2)):
        q, k, v = (torch.randn(B, H, n, d, dtype=dtype, requires_grad=True) for _ in range(3))
        inputs = 3 * B * H * n * d * size
        # with dropout a CPU keeps the weights, the dropped weights, and a mask of whole numbers
        for kept, values in ((0.0, 1), (0.5, 3)):
            extra = kept_bytes(lambda q=q, k=k, v=v, kept=kept: plain(q, k, v, dropout_p=kept)) - inputs
            assert extra == attention_bytes(ONE, n, H, values, size, B) == B * H * n * n * values * size


@pytest.mark.parametrize(("hidden", "weights"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.1)])
@pytest.mark.parametrize(("route", "B"), [(plain, 1), (plain, 2), (fused, 2)])
@pytest.mark.parametrize("kind", [BigBirdModel, BigBirdForMaskedLM])
def test_bytes_kept_in_training_are_those_of_the_real_model(kind, route, B, hidden, weights):
    """Differences between two lengths, in which the weights cancel."""
    config = change(hidden_dropout_prob=hidden, attention_probs_dropout_prob=weights)
    lm = kind is BigBirdForMaskedLM
    net = kind(config, attention_fn=route).train()

    def kept(n):
        x = torch.ones(B, n, dtype=torch.long)
        autograd = kept_bytes(lambda: net(x, labels=x.clone()).loss if lm else net(x).last_hidden_state)
        ids = 8 * n * (2 * B + 1) + (8 * n * B if lm else 0)  # words, types, positions, labels: not in the price
        returned = 0 if lm else 4 * B * n * config.hidden_size  # held, but not for the backward pass
        return autograd - ids + returned

    def price(n):
        c = model_cost(config, ONE, n, training=True, batch=B, masked_lm=lm, fused=route is fused, mask_bytes=4)
        assert (c.attention_bytes == 0) == (route is fused)
        return c.attention_bytes + c.other_activation_bytes

    assert kept(96) - kept(32) == price(96) - price(32)


@pytest.mark.parametrize("n", [512, 1024, 2048, 4096])
def test_training_bytes_of_bert_are_korthikanti_s(n):
    c = model_cost(BASE, ONE, n, training=True, dtype_bytes=2)
    s, b, h, a, L = n, 1, 768, 12, 12
    assert c.attention_bytes == L * s * b * h * 5 * a * s // h
    assert c.other_activation_bytes == pytest.approx(L * s * b * h * 34, rel=0.02)  # without embeddings and the like
    assert model_cost(BASE, ONE, n, True, dtype_bytes=2, batch=3).attention_bytes == 3 * c.attention_bytes


def test_weights_gradients_and_optimiser():
    c = model_cost(BASE, ONE, 64, training=True, dtype_bytes=2)
    assert c.parameters == parameters(BASE) and c.weight_bytes == 2 * c.parameters
    assert c.optimiser_bytes == 3 * c.weight_bytes  # gradient and Adam's two
    assert model_cost(BASE, ONE, 64, training=True, optimiser_values=0).optimiser_bytes == 4 * c.parameters
    assert c.bytes == c.weight_bytes + c.optimiser_bytes + c.attention_bytes + c.other_activation_bytes


def test_inference_holds_one_layer_and_the_logits():
    p = BlockPattern.bigbird(16, heads=12)
    c, lm = model_cost(BASE, p, 64), model_cost(BASE, p, 64, masked_lm=True)
    assert c.bytes - c.weight_bytes == layer_bytes(BASE, p, 64) - 4 * layer_parameters(BASE)
    assert lm.other_activation_bytes - c.other_activation_bytes == 4 * 1024 * BASE.vocab_size
    assert c.attention_bytes == 8 * score_entries(p, 64) and c.optimiser_bytes == 0
    assert model_cost(BASE, p, 64, fused=True).attention_bytes == 0
    assert model_cost(change(num_hidden_layers=0), ONE, 64).attention_bytes == 0
    three = model_cost(BASE, p, 64, batch=3)
    assert three.bytes - three.weight_bytes == 3 * (c.bytes - c.weight_bytes)


def test_share_of_attention_and_the_bound_on_the_speed_up():
    """science.md, Q8a: 24 d² + 4 n d a token and layer; level at n = 6 d. The bounds there leave out global rows."""
    for n, share, bound in (
        (512, 0.10, 1.0),
        (2048, 0.31, 1.3),
        (4096, 0.47, 1.7),
        (4608, 0.5, 1.8),
        (16384, 0.78, 4.0),
    ):
        dense, sparse = model_cost(BASE, ONE, n), model_cost(BASE, BlockPattern.bigbird(n // 64), 64)
        assert dense.attention_flops / dense.flops == pytest.approx(share, abs=0.005)
        assert dense.flops / sparse.flops == pytest.approx(bound, abs=0.05)
        assert dense.other_flops == sparse.other_flops == 12 * n * 24 * 768**2


ASKED = SimpleNamespace(hidden_size=768, num_attention_heads=12, intermediate_size=2048)  # as the question has it


@pytest.mark.parametrize(
    ("config", "settings", "most"),
    [
        (ASKED, {"values": 64, "vectors": 6}, 1886),  # 768 n² + 6656 n
        (BASE, {"values": 64}, 1884),
        (BASE, {"values": 1}, 14_770),
        (BASE, {"values": 2}, 10_516),
        (BASE, {"values": 3}, 8_612),
    ],
)
def test_the_11_gb_question(config, settings, most):
    """science.md, Q15-17: one dense layer, going forward, 4 bytes a number."""
    assert longest(11e9, lambda n: layer_bytes(config, ONE, n, **settings)) == most


def test_the_11_gb_question_without_n_squared():
    assert longest(11e9, lambda n: layer_bytes(BASE, ONE, n, values=0)) == pytest.approx(324_000, rel=0.005)
    n = longest(11e9, lambda n: layer_bytes(BASE, BlockPattern.bigbird(n // 64), 64), step=64)
    assert n % 64 == 0 and n == pytest.approx(115_000, rel=0.005)


@given(st.integers(1, 9), st.integers(1, 50), st.integers(1, 3000), st.integers(1, 7))
def test_longest_is_the_largest_that_fits(square, linear, budget, step):
    def price(n):
        return square * n * n + linear * n

    n = longest(budget, price, step)
    assert n % step == 0 and price(n) <= budget < price(n + step)


def test_longest_takes_what_fits_exactly():
    assert longest(49, lambda n: n * n) == 7 and longest(64, lambda n: n * n) == 8
    assert longest(2**22, lambda n: n) == 2**22 and longest(3, lambda n: 4 * n) == 0


def test_break_even_is_where_the_counts_cross():
    assert break_even() == 512  # with 7 blocks every row reads everything
    assert BlockPattern.bigbird(7).density() == 1 > BlockPattern.bigbird(8).density()
    # 2 (10 N - 18) < N² from 19 blocks on; at 18 the two are equal
    assert 2 * score_entries(BlockPattern.bigbird(18), 1) == 18**2
    assert break_even(times=2) == 19 * 64
    assert break_even(lambda N: BlockPattern.window(N, 5), block_size=16) == 16 * 4
    assert break_even(BlockPattern.window, times=0.1, most=9) == 64
    assert break_even(lambda N: BlockPattern.window(N, 99 if N == 20 else 3)) == 64 * 21


def test_in_words():
    said = str(model_cost(BASE, BlockPattern.full(64), 64))
    assert said == (
        "inference, 1 x 4,096 tokens\n127 M parameters\n1.31 TFLOP, 47% of them for score entries\n"
        "2.26 GB: 508 MB weights, 1.61 GB score entries, 138 MB other activations"
    )
    assert "\n1 M parameters" in str(dataclasses.replace(model_cost(SMALL, ONE, 4), parameters=999_600))
    trained = str(model_cost(SMALL, BlockPattern.window(5), 4, training=True, batch=2, fused=True))
    assert "training, 2 x 20 tokens" in trained and "gradients and optimiser" in trained
    assert "B score entries" not in trained
    assert "0 FLOP, 0%" in str(model_cost(change(num_hidden_layers=0), ONE, 4))


P = BlockPattern.window(4) | BlockPattern.random(4, 1, heads=2)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: score_entries(64, 64), TypeError, "a BlockPattern, not int"),
        (lambda: score_entries(ONE, 0), ValueError, "block_size=0"),
        (lambda: score_entries(P, 4, 3), ValueError, "the pattern has 2 heads, the model 3"),
        (lambda: score_entries(ONE, 4, 0), ValueError, "heads=0"),
        (lambda: attention_flops(ONE, 4, 0), ValueError, "head_size=0"),
        (lambda: attention_flops(ONE, 4, 4, batch=0), ValueError, "batch=0"),
        (lambda: attention_bytes(ONE, 4, values=-1), ValueError, "values=-1"),
        (lambda: attention_bytes(ONE, 4, dtype_bytes=0.5), TypeError, "dtype_bytes must be a whole number"),
        (lambda: layer_bytes(SMALL, ONE, 4, vectors=-1), ValueError, "vectors=-1"),
        (lambda: model_cost(SMALL, P, 4), ValueError, "the pattern has 2 heads, the model 4"),
        (lambda: model_cost(SMALL, ONE, 4, training=True, fused=True, dtype_bytes=0), ValueError, "dtype_bytes=0"),
        (lambda: model_cost(SMALL, ONE, 4, training=True, mask_bytes=-1), ValueError, "mask_bytes=-1"),
        (lambda: model_cost(SMALL, ONE, 4, training=True, optimiser_values=-1), ValueError, "optimiser_values=-1"),
        (lambda: layer_bytes(SimpleNamespace(hidden_size=4), ONE, 4), AttributeError, "num_attention_heads"),
        (lambda: parameters(SimpleNamespace(hidden_size=0, vocab_size=3)), ValueError, "hidden_size=0"),
        (
            lambda: model_cost(SimpleNamespace(**{**dataclasses.asdict(SMALL), "num_attention_heads": 5}), ONE, 4),
            ValueError,
            "hidden_size=24 is not a multiple of num_attention_heads=5",
        ),
        (lambda: longest(0, lambda n: n), ValueError, "budget_bytes=0"),
        (lambda: longest(float("nan"), lambda n: n), ValueError, "budget_bytes=nan"),
        (lambda: longest(float("inf"), lambda n: n), ValueError, "budget_bytes=inf"),
        (lambda: longest("11 GB", lambda n: n), ValueError, "budget_bytes='11 GB'"),
        (lambda: longest(9, lambda n: n, step=0), ValueError, "step=0"),
        (lambda: longest(9, lambda n: 5), ValueError, "must grow with n"),
        (lambda: break_even(BlockPattern.full), ValueError, "with 256 blocks"),
        (lambda: break_even(times=0), ValueError, "times=0"),
        (lambda: break_even(most=0), ValueError, "most=0"),
        (lambda: break_even(block_size=0), ValueError, "block_size=0"),
    ],
)
def test_bad_input_gets_one_sentence(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_numbers_too_large_for_64_bits_stay_exact():
    assert score_entries(ONE, 2**33, 3) == 3 * 2**66
