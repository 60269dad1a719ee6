"""Every backend against the dense oracle, and the oracle against loops."""

import dataclasses
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from bigbird_mini import BlockPattern, attention
from bigbird_mini.attention import BACKENDS, gather
from strategies import patterns, tensors

OTHERS = sorted(set(BACKENDS) - {"dense"})


def loops(q, k, v, p, key_mask, scale):
    """Attention as the paper writes it: one query at a time, only numbers."""
    out = torch.zeros_like(q)
    B, H, n, d = q.shape
    grid, b = p.grid(), n // p.n_blocks
    for x in range(B):
        for h in range(H):
            for i in range(n):
                reads = grid[h if p.heads > 1 else 0, i // b]
                seen = [j for j in range(n) if reads[j // b] and (key_mask is None or key_mask[x, j])]
                scores = [
                    math.exp(scale * sum(q[x, h, i, c].item() * k[x, h, j, c].item() for c in range(d))) for j in seen
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


@pytest.mark.parametrize("backend", OTHERS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_equal_to_the_oracle_with_gradients(backend, data):
    """Random patterns, sizes, heads and ragged masks; whole rows and whole documents may be masked."""
    p = data.draw(patterns(max_blocks=data.draw(st.sampled_from([1, 4, 12, 40]))))
    b, B = data.draw(st.sampled_from([1, 2, 3, 8])), data.draw(st.integers(1, 3))
    H = p.heads if p.heads > 1 else data.draw(st.sampled_from([1, 3]))
    n, d = p.n_blocks * b, data.draw(st.sampled_from([1, 4, 7]))
    key_mask = None
    if data.draw(st.booleans()):
        keep = torch.rand(B, n, generator=torch.Generator().manual_seed(data.draw(st.integers(0, 99))))
        key_mask = keep < data.draw(st.sampled_from([0.0, 0.3, 0.9]))
        key_mask[:, -data.draw(st.integers(1, n)) :] = False
    scale = data.draw(st.sampled_from([None, 0.7]))
    results = []
    for name in ("dense", backend):
        q, k, v, back = tensors(B, H, n, d, requires_grad=True)
        out = attention(q, k, v, p, key_mask, scale, backend=name, block_size=b)
        out.backward(back)
        results.append([out, *(torch.zeros_like(x) if x.grad is None else x.grad for x in (q, k, v))])
    for name, want, got in zip(("out", "dq", "dk", "dv"), *results, strict=True):
        assert got.isfinite().all()
        assert torch.allclose(got, want, rtol=0, atol=1e-10), (name, (got - want).abs().max())


@pytest.mark.parametrize("backend", OTHERS)
@pytest.mark.parametrize("chunk", [1, 3000, 2**30])
def test_chunks_do_not_show(backend, chunk, monkeypatch):
    """One row at a time, a few, all at once; shared and per-head patterns, a row that is full in one head only."""
    monkeypatch.setattr(gather, "CHUNK_ON_CPU", chunk)
    one_full = torch.zeros(3, 9, 9, dtype=torch.bool)
    one_full[1, 4] = True
    for p in (BlockPattern.bigbird(9), BlockPattern.bigbird(9, heads=3) | BlockPattern.from_grid(one_full)):
        q, k, v, _ = tensors(2, 3, 18, 4)
        mask = torch.arange(18) < torch.tensor([[18], [11]])
        want = attention(q, k, v, p, mask, backend="dense")
        assert torch.allclose(attention(q, k, v, p, mask, backend=backend), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", OTHERS)
def test_float32_at_4096_tokens(backend):
    p = BlockPattern.bigbird(64, heads=2)
    q, k, v, back = tensors(1, 2, 4096, 32, dtype=torch.float32, requires_grad=True)
    mask = torch.arange(4096)[None] < 4000
    results = []
    for name in ("dense", backend):
        out = attention(q, k, v, p, mask, backend=name)
        results.append((out, *torch.autograd.grad(out, (q, k, v), back)))
    for want, got in zip(*results, strict=True):
        assert torch.allclose(got, want, rtol=0, atol=2e-5)


def weights_by_hand(q, k, p, key_mask, scale):
    """The matrix of weights, by the formula: (H, n, n) for one document, rows of nothing zero."""
    allowed = p.token_mask(q.shape[1] // p.n_blocks).expand(len(q), -1, -1)
    allowed = allowed if key_mask is None else allowed & key_mask
    e = (scale * q @ k.transpose(-1, -2)).exp() * allowed
    return e / e.sum(-1, keepdim=True).clamp(min=1e-300)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
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


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_a_list_of_patterns_gives_each_document_its_own(backend):
    ps = [BlockPattern.bigbird(4, heads=3, seed=1).padded(6), BlockPattern.window(6), BlockPattern.full(6)]
    ps = [ps[0], ps[1], ps[0], ps[2]]
    q, k, v, back = tensors(4, 3, 12, 5, requires_grad=True)
    mask = torch.arange(12) < torch.tensor([[7], [12], [8], [3]])
    out = attention(q, k, v, ps, mask, backend=backend)
    one_by_one = [attention(q[i : i + 1], k[i : i + 1], v[i : i + 1], ps[i], mask[i : i + 1]) for i in range(4)]
    assert torch.allclose(out, torch.cat(one_by_one), rtol=0, atol=1e-12)
    got = torch.autograd.grad(out, (q, k, v), back)
    want = torch.autograd.grad(torch.cat(one_by_one), (q, k, v), back)
    assert all(torch.allclose(g, w, rtol=0, atol=1e-12) for g, w in zip(got, want, strict=True))


@pytest.mark.parametrize("backend", BACKENDS)
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


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_masked_never_matters(backend):
    p = BlockPattern.bigbird(6, heads=2, seed=1)
    q, k, v, _ = tensors(2, 2, 12, 4)
    mask = torch.arange(12) < torch.tensor([[9], [12]])
    before = attention(q, k, v, p, mask, backend=backend)
    k[0, :, 9:], v[0, :, 9:] = 1e6, -1e6
    assert torch.equal(attention(q, k, v, p, mask, backend=backend), before)


@pytest.mark.parametrize("backend", BACKENDS)
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


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_near_the_oracle_and_keeps_its_type(backend, dtype):
    p = BlockPattern.bigbird(8, heads=2)
    q, k, v, _ = tensors(2, 2, 32, 8)
    mask = torch.arange(32) < torch.tensor([[21], [32]])
    want = attention(q, k, v, p, mask, backend="dense")
    got = attention(q.to(dtype), k.to(dtype), v.to(dtype), p, mask, backend=backend)
    assert got.dtype == dtype and torch.allclose(got.double(), want, atol=0.03)


@pytest.mark.parametrize("backend", BACKENDS)
def test_views_and_strides_do_not_matter(backend):
    p = BlockPattern.bigbird(5, heads=3)
    q, k, v, _ = tensors(2, 10, 3, 4)
    turned = [x.transpose(1, 2) for x in (q, k, v)]
    want = attention(*(x.contiguous() for x in turned), p, backend=backend)
    assert torch.allclose(attention(*turned, p, backend=backend), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_cuda_tensors_meet_no_cpu_tensor(backend):
    """Without a GPU: fake tensors that only have shapes and a device, which mixed devices make fail."""
    with FakeTensorMode(), torch.no_grad():
        q = torch.empty(2, 4, 96, 8, device="cuda")
        mask = torch.empty(2, 96, dtype=torch.bool, device="cuda")
        for p in (BlockPattern.bigbird(12), BlockPattern.bigbird(12, heads=4).padded(16)):
            assert attention(q, q, q, p, mask, backend=backend).device.type == "cuda"
        assert (
            attention(q, q, q, [BlockPattern.window(6), BlockPattern.full(6)], mask, backend=backend).shape == q.shape
        )
    real = torch.ones(1, 4, 96, 8)
    assert attention(real, real, real, BlockPattern.bigbird(12), backend=backend).isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_first_use_without_gradients_does_not_spoil_training(backend):
    p = BlockPattern.bigbird(11, heads=2, seed=77)
    q, k, v, back = tensors(1, 2, 22, 4, requires_grad=True)
    with torch.inference_mode():
        before = attention(q, k, v, p, backend=backend)
    out = attention(q, k, v, p, backend=backend)
    out.backward(back)
    assert torch.equal(out, before) and q.grad.isfinite().all()


@pytest.mark.parametrize("heads", [1, 2])
def test_memory_and_traffic_grow_with_n_and_not_with_its_square(heads, monkeypatch):
    """The largest tensor of forward and backward, and the sum of all, at n, 2n and 4n with chunks of a fixed size."""
    monkeypatch.setattr(gather, "CHUNK_ON_CPU", 2**16)

    class Count(TorchDispatchMode):
        largest = total = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for x in out if isinstance(out, tuple | list) else [out]:
                if isinstance(x, torch.Tensor) and not func.is_view:
                    self.largest = max(self.largest, x.numel())
                    self.total += x.numel() if func.overloadpacket.__name__[-1] != "_" else 0  # in place: nothing new
            return out

    seen = []
    for n in (2048, 4096, 8192):
        q, k, v, back = tensors(1, n, 2, 8, dtype=torch.float32, requires_grad=True)
        q, k, v, back = (x.transpose(1, 2) for x in (q, k, v, back))  # (B, H, n, d), strided as in the model
        with Count() as count:
            attention(q, k, v, BlockPattern.bigbird(n // 16, heads=heads), backend="gather").backward(back)
        seen.append(count)
    for small, large in itertools.pairwise(seen):
        assert large.largest < 2.1 * small.largest and large.total < 2.1 * small.total


@pytest.mark.parametrize("limit", [1, 7, 40, 10**6])
def test_a_chunk_gathers_no_more_blocks_than_it_may(limit):
    p = BlockPattern.bigbird(30, heads=2)
    plan = gather._plan(p, 2, limit, torch.device("cpu"))
    sizes = [chunk.blocks.shape for chunk in plan.chunks]
    assert all(limit >= R * K or R == 1 for _, R, K in sizes) and sum(R for _, R, _ in sizes) == 28
    assert len(sizes) == {1: 28, 7: 28, 40: 6, 10**6: 1}[limit]


def test_auto_takes_dense_only_where_it_is_short_and_full(monkeypatch):
    ran = []
    for name, run in list(BACKENDS.items()):
        monkeypatch.setitem(BACKENDS, name, lambda *a, name=name, run=run: ran.append(name) or run(*a))
    for n, p in ((512, BlockPattern.full(8)), (512, BlockPattern.bigbird(8)), (520, BlockPattern.full(8))):
        q, k, v, _ = tensors(1, 1, n, 2)
        attention(q, k, v, p)
    assert ran == ["dense", "gather", "gather"]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_scale_of_zero_is_a_plain_mean(backend):
    q, k, v, _ = tensors(1, 2, 12, 3)
    out = attention(q, k, v, BlockPattern.window(4, 1), scale=0.0, backend=backend)
    assert torch.allclose(out, v.unflatten(2, (4, 3)).mean(3, keepdim=True).expand(-1, -1, -1, 3, -1).flatten(2, 3))


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
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


@pytest.mark.parametrize("backend", BACKENDS)
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
        ({"q": lambda q: q.long()}, TypeError, "q must be a floating point tensor, not torch.int64"),
        ({"v": lambda q: q.tolist()}, TypeError, "v must be a floating point tensor, not list"),
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
        ({"dropout_p": 1.0}, ValueError, "dropout_p=1.0"),
        ({"backend": "fast"}, ValueError, "backend='fast' is not known; allowed: 'auto', 'dense', 'gather'"),
    ],
)
def test_bad_input_gets_one_sentence(changes, error, says):
    assert ok().shape == (2, 3, 12, 4)
    with pytest.raises(error, match=says):
        ok(**changes)
