"""Every backend against the dense oracle, and the oracle against loops."""

import dataclasses
import importlib
import math
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from bigbird_mini import BlockPattern, attention
from bigbird_mini.attention import BACKENDS, gather
from strategies import ROUTES, by, patterns, run, tensors, the_same

EXACT = ["dense", "gather"]  # on a CPU and in float64; flex has tests of its own


def loops(q, k, v, p, key_mask, scale):
    """Attention as the paper writes it: one query at a time, only numbers."""
    out = torch.zeros_like(q)
    B, H, n, d = q.shape
    times, b = p.grid() * p.multiplicity(), n // p.n_blocks
    for x in range(B):
        for h in range(H):
            for i in range(n):
                reads = times[h if p.heads > 1 else 0, i // b].tolist()
                seen = [j for j in range(n) if reads[j // b] and (key_mask is None or key_mask[x, j])]
                scores = [
                    reads[j // b] * math.exp(scale * sum(q[x, h, i, c].item() * k[x, h, j, c].item() for c in range(d)))
                    for j in seen
                ]
                for score, j in zip(scores, seen, strict=True):
                    out[x, h, i] += score / sum(scores) * v[x, h, j]
    return out


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_the_oracle_is_the_formula(data):
    p = data.draw(patterns(max_blocks=4))
    b, B, d = data.draw(st.sampled_from([1, 2])), 2, 3
    H = p.heads if p.heads > 1 else 2
    q, k, v, _ = tensors(B, H, p.n_blocks * b, d)
    key_mask = torch.rand(B, p.n_blocks * b, generator=torch.Generator().manual_seed(1)) < 0.7
    for mask, scale in ((None, None), (key_mask, 0.3)):
        want = loops(q, k, v, p, mask, d**-0.5 if scale is None else scale)
        got = attention(q, k, v, p, mask, scale, backend="dense")
        assert torch.allclose(got, want, rtol=0, atol=1e-12)


def test_the_full_pattern_is_torch_s_own_attention():
    q, k, v, _ = tensors(2, 3, 14, 5)
    got = attention(q, k, v, BlockPattern.full(7))
    assert torch.allclose(got, F.scaled_dot_product_attention(q, k, v), rtol=0, atol=1e-12)


@pytest.mark.parametrize("route", ROUTES)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_equal_to_the_oracle_with_gradients(route, data):
    """Random patterns, sizes, heads and ragged masks; whole blocks, rows and documents may be masked."""
    b = data.draw(st.sampled_from([1, 2, 3, 8, 16, 64]))
    heads = data.draw(st.sampled_from([1, 2, 3, 5]))
    p = data.draw(patterns(max_blocks=min(40, 640 // b), heads=heads))
    H, B, d = heads if p.heads > 1 else data.draw(st.sampled_from([1, 4])), data.draw(st.integers(1, 3)), 5
    n = p.n_blocks * b
    key_mask = None
    if data.draw(st.booleans()):
        keep = torch.rand(B, n, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
        key_mask = keep < data.draw(st.sampled_from([0.0, 0.3, 0.9, 1.0]))
        key_mask[:, n - data.draw(st.integers(0, n)) :] = False
    scale = data.draw(st.sampled_from([None, 0.7]))
    with by(route):
        got = run("gather", p, (B, H, n, d), key_mask, scale)
    the_same(run("dense", p, (B, H, n, d), key_mask, scale), got, within=1e-10)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(("N", "b", "H"), [(40, 64, 1), (1, 64, 5), (40, 3, 5), (26, 16, 4)])
def test_equal_to_the_oracle_at_the_ends_of_the_range(route, N, b, H):
    p = BlockPattern.bigbird(N, heads=H, random=2, seed=N)
    key_mask = torch.arange(N * b) < torch.tensor([[N * b], [N * b - b - b // 2]])
    for dtype, within in ((torch.float64, 1e-10), (torch.float32, 2e-5)):
        with by(route):
            got = run("gather", p, (2, H, N * b, 7), key_mask, dtype=dtype)
        the_same(run("dense", p, (2, H, N * b, 7), key_mask, dtype=dtype), got, within)


@pytest.mark.parametrize("backend", EXACT)
def test_a_key_block_that_counts_m_times_has_m_times_the_weight(backend):
    """By hand: the same keys, listed m times over."""
    p = BlockPattern.bigbird(16, heads=2, plan="hf_eval", block_size=2)  # block 0 counts four times
    q, k, v, _ = tensors(2, 2, 32, 3)
    _, weights = attention(q, k, v, p, scale=0.6, backend=backend, return_weights=True)
    times = p.multiplicity().repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert times.max() == 4
    e = (0.6 * q @ k.transpose(-1, -2)).exp() * p.token_mask(2) * times
    want = e / e.sum(-1, keepdim=True)
    assert torch.allclose(weights.dense(), want, rtol=0, atol=1e-12)
    assert torch.allclose(attention(q, k, v, p, scale=0.6, backend=backend), want @ v, rtol=0, atol=1e-12)


@pytest.mark.parametrize("route", ROUTES)
def test_float32_at_4096_tokens(route):
    p = BlockPattern.bigbird(64, heads=2)
    mask = torch.arange(4096)[None] < 4000
    want = run("dense", p, (1, 2, 4096, 32), mask)
    with by(route):
        the_same(want, run("gather", p, (1, 2, 4096, 32), mask, dtype=torch.float32), within=2e-5)


def weights_by_hand(q, k, p, key_mask, scale):
    """The matrix of weights, by the formula: (H, n, n) for one document, rows of nothing zero."""
    b = q.shape[1] // p.n_blocks
    allowed = (p.grid() * p.multiplicity()).repeat_interleave(b, 1).repeat_interleave(b, 2)
    allowed = allowed if key_mask is None else allowed * key_mask
    e = (scale * q @ k.transpose(-1, -2)).exp() * allowed
    return e / e.sum(-1, keepdim=True).clamp(min=1e-300)


@pytest.mark.parametrize("backend", ["auto", *EXACT])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_weights_are_the_formula_s_and_the_output_is_their_mean_of_values(backend, data):
    n_blocks, B, b, H = data.draw(st.integers(1, 10)), 3, data.draw(st.sampled_from([1, 2, 3])), 3
    ps = [data.draw(patterns(heads=data.draw(st.sampled_from([1, 3])), n_blocks=n_blocks)) for _ in range(2)]
    ps = [ps[0], ps[1].padded(n_blocks), ps[0]] if data.draw(st.booleans()) else [ps[0]] * 3
    if n_blocks > 2 and data.draw(st.booleans()):
        ps[1] = BlockPattern.bigbird(n_blocks - 2, heads=3, random=1).padded(n_blocks)
    q, k, v, back = tensors(B, H, n_blocks * b, 4, requires_grad=True)
    mask = torch.rand(B, n_blocks * b, generator=torch.Generator().manual_seed(5)) < 0.8
    mask = mask if data.draw(st.booleans()) else None
    out, weights = attention(q, k, v, ps, mask, scale=0.6, backend=backend, return_weights=True)
    dense = weights.dense()
    assert dense.shape == weights.shape == (B, H, n_blocks * b, n_blocks * b)
    for i, p in enumerate(ps):
        want = weights_by_hand(q[i], k[i], p, None if mask is None else mask[i], 0.6)
        assert torch.allclose(dense[i], want, rtol=0, atol=1e-10)
    plain = attention(q, k, v, ps, mask, scale=0.6, backend=backend)
    assert torch.allclose(out, plain, rtol=0, atol=1e-10) and torch.allclose(dense @ v, plain, rtol=0, atol=1e-10)
    got, want = (torch.autograd.grad(x, (q, k, v), back, allow_unused=True) for x in (out, plain))
    for g, w in zip(got, want, strict=True):
        assert torch.allclose(torch.zeros(()) if g is None else g, torch.zeros(()) if w is None else w, atol=1e-10)


def test_weights_of_a_long_text_need_no_matrix():
    n = 16_384
    q, k, v, _ = tensors(1, 2, n, 4, dtype=torch.float32)
    p = BlockPattern.bigbird(256, heads=2)
    _, weights = attention(q, k, v, p, return_weights=True)
    numbers = sum(part.values.numel() for part in weights.parts)
    assert numbers <= p.density() * 2 * n * n * 1.01
    total = sum(part.values.sum().item() for part in weights.parts)
    assert total == pytest.approx(2 * n, rel=1e-4)
    with pytest.raises(ValueError, match="dense\\(\\) would make 4 x 2 x 16384 x 16384 numbers"):
        dataclasses.replace(weights, shape=(4, 2, n, n)).dense()


@pytest.mark.parametrize("backend", ["auto", *EXACT])
def test_a_list_of_patterns_gives_each_document_its_own(backend):
    ps = [BlockPattern.bigbird(4, heads=3, seed=1).padded(6), BlockPattern.window(6), BlockPattern.full(6)]
    ps = [ps[0], ps[1], ps[2], ps[0], ps[1]]  # an order of groups that is not its own inverse
    q, k, v, back = tensors(5, 3, 12, 5, requires_grad=True)
    mask = torch.arange(12) < torch.tensor([[7], [12], [8], [3], [11]])
    out = attention(q, k, v, ps, mask, backend=backend)
    one_by_one = [attention(q[i : i + 1], k[i : i + 1], v[i : i + 1], ps[i], mask[i : i + 1]) for i in range(5)]
    assert torch.allclose(out, torch.cat(one_by_one), rtol=0, atol=1e-12)
    got = torch.autograd.grad(out, (q, k, v), back)
    want = torch.autograd.grad(torch.cat(one_by_one), (q, k, v), back)
    assert all(torch.allclose(g, w, rtol=0, atol=1e-12) for g, w in zip(got, want, strict=True))


@pytest.mark.parametrize("backend", EXACT)
def test_rows_with_nothing_to_read_give_zeros(backend):
    p = BlockPattern.from_grid(torch.tensor([[1, 1, 0], [0, 0, 0], [0, 0, 1]]))
    q, k, v, back = tensors(2, 2, 6, 3, requires_grad=True)
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[1, 4:] = False
    for key_mask in (None, mask):
        out = attention(q, k, v, p, key_mask, backend=backend)
        assert (out[:, :, 2:4] == 0).all() and (out[0, :, [0, 1, 4, 5]] != 0).all()
        assert ((out[1, :, 4:] == 0).all()) == (key_mask is not None)
        grads = torch.autograd.grad(out, (q, k, v), back)
        assert all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize("backend", EXACT)
def test_what_is_masked_never_matters(backend):
    p = BlockPattern.bigbird(6, heads=2, seed=1)
    q, k, v, _ = tensors(2, 2, 12, 4)
    mask = torch.arange(12) < torch.tensor([[9], [12]])
    before = attention(q, k, v, p, mask, backend=backend)
    k[0, :, 9:], v[0, :, 9:] = 1e6, -1e6
    assert torch.equal(attention(q, k, v, p, mask, backend=backend), before)


@pytest.mark.parametrize("backend", EXACT)
def test_dropout_drops_the_share_it_says_and_keeps_the_mean(backend):
    p = BlockPattern.window(50, 3)
    q = torch.zeros(1, 2, 200, 8, dtype=torch.float64)
    v = torch.ones_like(q)
    torch.manual_seed(0)
    out = attention(q, q, v, p, dropout_p=0.25, backend=backend)  # the sum of kept weights, each 1 / keys / 0.75
    assert abs(out.mean() - 1) < 0.03 and 0.05 < out[..., 0].std() < 0.3
    assert not torch.equal(out, attention(q, q, v, p, dropout_p=0.25, backend=backend))
    assert torch.allclose(attention(q, q, v, p, backend=backend), v)
    out, weights = attention(q, q, v, p, dropout_p=0.25, backend=backend, return_weights=True)
    assert torch.allclose(weights.dense().sum(-1), torch.ones(1, 2, 200, dtype=torch.float64))
    assert abs(out.mean() - 1) < 0.03 and out[..., 0].std() > 0.05


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_near_the_oracle_and_keeps_its_type(backend, dtype):
    p = BlockPattern.bigbird(8, heads=2)
    q, k, v, _ = tensors(2, 2, 32, 8)
    mask = torch.arange(32) < torch.tensor([[21], [32]])
    want = attention(q, k, v, p, mask, backend="dense")
    got = attention(q.to(dtype), k.to(dtype), v.to(dtype), p, mask, backend=backend)
    assert got.dtype == dtype and torch.allclose(got.double(), want, atol=0.03)


@pytest.mark.parametrize("backend", EXACT)
def test_views_and_strides_do_not_matter(backend):
    p = BlockPattern.bigbird(5, heads=3)
    q, k, v, _ = tensors(2, 10, 3, 4)
    turned = [x.transpose(1, 2) for x in (q, k, v)]
    want = attention(*(x.contiguous() for x in turned), p, backend=backend)
    assert torch.allclose(attention(*turned, p, backend=backend), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_cuda_tensors_meet_no_cpu_tensor(backend):
    """Without a GPU: fake tensors that only have shapes and a device, which mixed devices make fail."""
    with FakeTensorMode(), torch.no_grad():
        q = torch.empty(2, 4, 96, 8, device="cuda")
        mask = torch.empty(2, 96, dtype=torch.bool, device="cuda")
        counted = BlockPattern.bigbird(16, heads=4, plan="hf_eval", block_size=6)
        for p in (BlockPattern.bigbird(12), BlockPattern.bigbird(12, heads=4).padded(16), counted):
            for key_mask in (None, mask):
                assert attention(q, q, q, p, key_mask, backend=backend).device.type == "cuda"
                _, weights = attention(q, q, q, p, key_mask, backend=backend, return_weights=True)
                assert {part.values.device.type for part in weights.parts} == {"cuda"}
                if backend == "gather":  # what the operator does within, that it hides from fake tensors
                    k, core = (q, key_mask), p.unpadded()
                    if core is not p:
                        k = (q.narrow(2, 0, 72), None if key_mask is None else key_mask.narrow(1, 0, 72))
                    out, lse = gather.forward(k[0], k[0], k[0], k[1], None, core.number, 0.5, 0.0)
                    grads = gather.backward(out, k[0], k[0], k[0], k[1], None, out, lse, core.number, 0.5, 0.0)
                    assert {x.device.type for x in (out, lse, *grads)} == {"cuda"}
        ps = [BlockPattern.window(6), BlockPattern.full(6)]
        assert attention(q, q, q, ps, mask, backend=backend).shape == q.shape
    real = torch.ones(1, 4, 96, 8)
    assert attention(real, real, real, BlockPattern.bigbird(12), backend=backend).isfinite().all()


@pytest.mark.parametrize("backend", EXACT)
def test_a_first_use_without_gradients_does_not_spoil_training(backend):
    p = BlockPattern.bigbird(11, heads=2, seed=77)
    q, k, v, back = tensors(1, 2, 22, 4, requires_grad=True)
    with torch.inference_mode():
        before = attention(q, k, v, p, backend=backend)
    out = attention(q, k, v, p, backend=backend)
    out.backward(back)
    assert torch.equal(out, before) and q.grad.isfinite().all()


def test_auto_takes_the_n_by_n_only_where_nearly_all_of_it_is_read(monkeypatch):
    room = importlib.import_module("bigbird_mini.attention")  # the function of that name hides it otherwise
    ran = []
    for name, backend in [*BACKENDS.items(), ("short", room.short_attention)]:
        spy = mock.Mock(side_effect=lambda *a, name=name, backend=backend: ran.append(name) or backend(*a))
        monkeypatch.setitem(BACKENDS, name, spy) if name in BACKENDS else monkeypatch.setattr(
            room, name + "_attention", spy
        )
    dense = BlockPattern.bigbird(8)
    empty_row = BlockPattern.from_grid(torch.ones(8, 8).tril(-1).flip(1).bool() | (torch.arange(8) > 0)[:, None])
    assert 0.7 < dense.density() < 1 and empty_row.density() > 0.7
    mask = torch.ones(1, 512, dtype=torch.bool)
    cases = [
        ((512, dense), {}, "short"),
        ((768, BlockPattern.bigbird(12)), {}, "short"),
        ((1024, BlockPattern.bigbird(16)), {}, "gather"),  # it leaves out 0.45
        ((832, BlockPattern.window(13, 21)), {}, "gather"),  # dense, but long
        ((4096, BlockPattern.full(64)), {}, "short"),
        ((512, dense), {"key_mask": mask}, "gather"),
        ((512, dense), {"dropout_p": 0.1}, "gather"),
        ((512, dense), {"return_weights": True}, "gather"),
        ((512, empty_row), {}, "gather"),
        ((528, dense.padded(11)), {}, "gather"),
    ]
    for (n, p), settings_, expected in cases:
        q, k, v, _ = tensors(1, 1, n, 2)
        out = attention(q, k, v, p, **settings_)
        if not settings_:
            assert torch.allclose(out, attention(q, k, v, p, backend="dense"), rtol=0, atol=1e-10)
            ran.pop()
        assert ran == [expected], (n, p, settings_)
        ran.clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_short_texts_of_auto_equal_the_oracle_with_gradients(dtype):
    for p in (BlockPattern.bigbird(8, heads=3, seed=1), BlockPattern.bigbird(8), BlockPattern.full(8)):
        want = run("dense", p, (2, 3, 512, 8))
        the_same(want, run("auto", p, (2, 3, 512, 8)), within=1e-10)
        the_same(want, run("auto", p, (2, 3, 512, 8), dtype=dtype), within=2e-5 if dtype == torch.float32 else 0.1)


@pytest.mark.parametrize("backend", EXACT)
def test_a_scale_of_zero_is_a_plain_mean(backend):
    q, k, v, _ = tensors(1, 2, 12, 3)
    out = attention(q, k, v, BlockPattern.window(4, 1), scale=0.0, backend=backend)
    assert torch.allclose(out, v.unflatten(2, (4, 3)).mean(3, keepdim=True).expand(-1, -1, -1, 3, -1).flatten(2, 3))


@pytest.mark.parametrize("backend", ["auto", *EXACT])
def test_autocast_keeps_the_type_for_one_pattern_and_for_many(backend):
    q, k, v, back = tensors(2, 2, 24, 8, dtype=torch.float32, requires_grad=True)
    for p in (BlockPattern.full(4), BlockPattern.bigbird(8), [BlockPattern.window(6), BlockPattern.full(6)]):
        want = attention(q, k, v, p, backend="dense")
        for dtype in (torch.bfloat16, torch.float16):
            with torch.autocast("cpu", dtype):
                out = attention(q, k, v, p, backend=backend)
            assert out.dtype == torch.float32 and torch.allclose(out, want, atol=0.05)
            grads = torch.autograd.grad(out, (q, k, v), back)
            assert all(g.isfinite().all() and g.dtype == torch.float32 for g in grads)


@pytest.mark.parametrize("backend", EXACT)
def test_large_float16_numbers_do_not_overflow_in_the_scores(backend):
    q, k, v, _ = (30 * x for x in tensors(1, 2, 64, 64))
    out = attention(q.half(), k.half(), v.half(), BlockPattern.full(4), backend=backend)
    assert out.isfinite().all()


def test_a_fake_mode_leaves_nothing_behind():
    q, k, v, _ = tensors(1, 2, 38, 4)
    p = BlockPattern.bigbird(19, heads=2, seed=5)
    with FakeTensorMode(allow_non_fake_inputs=True):
        attention(q, k, v, p, backend="gather")
    assert type(attention(q, k, v, p, backend="gather")) is torch.Tensor


def test_a_padded_pattern_costs_no_lists():
    wide = BlockPattern.bigbird(300, heads=2).padded(4000)
    q, k, v, _ = tensors(2, 2, 4000, 1)
    out = attention(q, k, v, [wide, BlockPattern.window(4000)], backend="gather")
    assert (out[0, :, 300:] == 0).all() and "_lists" not in vars(wide)


def ok(**changes):
    q, k, v, _ = tensors(2, 3, 12, 4)
    given = {"q": q, "k": k, "v": v, "p": BlockPattern.bigbird(6)}
    given.update({name: change(q) if callable(change) else change for name, change in changes.items()})
    return attention(**given)


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"p": BlockPattern.full(5)}, ValueError, "n=12 is not a multiple of the pattern's 5 blocks; pad to 15"),
        ({"block_size": 4}, ValueError, "n=12 is not 6 blocks of block_size=4; it must be 24"),
        ({"k": lambda q: q[:, :, :6]}, ValueError, r"k \(2, 3, 6, 4\).*must have one shape"),
        ({"v": lambda q: q[..., :3]}, ValueError, r"v \(2, 3, 12, 3\)"),
        ({"q": lambda q: q[0]}, ValueError, r"q has shape \(3, 12, 4\); it must be \(B, H, n, d\)"),
        (
            {"q": lambda q: q.long()},
            TypeError,
            "q must be a dense tensor of float16, .* of torch.int64",
        ),
        ({"v": lambda q: q.tolist()}, TypeError, "v must be a dense tensor of .*, not list"),
        ({"k": lambda q: q.float()}, TypeError, "one type and one device, not torch.float64 on cpu, torch.float32"),
        (
            {"key_mask": torch.ones(2, 6, dtype=torch.bool)},
            ValueError,
            r"shape \(2, 6\); it must be \(B, n\) = \(2, 12\)",
        ),
        ({"key_mask": torch.ones(2, 12)}, TypeError, "must be a bool tensor, True for a real token, not torch.float32"),
        ({"key_mask": [True]}, TypeError, "not list"),
        ({"key_mask": torch.ones(2, 12, dtype=torch.bool, device="meta")}, ValueError, "on meta, q on cpu"),
        ({"p": BlockPattern.random(6, heads=2)}, ValueError, "the pattern has 2 heads, q has 3; .* 1 or 3"),
        ({"p": [BlockPattern.full(6)]}, ValueError, "1 patterns for a batch of 2"),
        ({"p": [BlockPattern.full(6), BlockPattern.full(4)]}, ValueError, "patterns of 6 and 4 blocks"),
        ({"p": []}, ValueError, "0 patterns for a batch of 2"),
        ({"p": [torch.ones(6, 6)] * 2}, TypeError, "must be a BlockPattern, not Tensor"),
        ({"p": None}, TypeError, "must be a BlockPattern, not NoneType"),
        ({"q": lambda q: q.to(torch.float8_e4m3fn)}, TypeError, "not torch.strided of torch.float8_e4m3fn"),
        ({"q": lambda q: q.to_sparse()}, TypeError, "not torch.sparse_coo of torch.float64"),
        ({"block_size": 0}, ValueError, "block_size=0 .* at least 1"),
        ({"block_size": "2"}, TypeError, "block_size"),
        ({"dropout_p": 1.0}, ValueError, "dropout_p=1.0"),
        ({"dropout_p": "0.1"}, TypeError, "dropout_p must be a number, not str"),
        ({"scale": torch.tensor(0.5, requires_grad=True)}, TypeError, "scale must be a number, not Tensor"),
        ({"scale": float("nan")}, ValueError, "scale=nan is not finite"),
        ({"backend": "fast"}, ValueError, "backend='fast' is not known; allowed: 'auto', 'dense', 'gather', 'flex'"),
    ],
)
def test_bad_input_gets_one_sentence(changes, error, says):
    assert ok().shape == (2, 3, 12, 4)
    with pytest.raises(error, match=says):
        ok(**changes)
