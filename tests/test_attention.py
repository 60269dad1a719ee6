"""Every backend against the dense oracle, and the oracle against loops."""

import dataclasses
import gc
import importlib
import itertools
import math
import random
from contextlib import nullcontext
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from bigbird_mini import BlockPattern, attention
from bigbird_mini.attention import BACKENDS, gather, handles, kernels, plan
from strategies import patterns, tensors

EXACT = ["dense", "gather"]  # on a CPU and in float64; flex has tests of its own
ROUTES = ["fused", "plain"]  # the two ways of gather


def by(route):
    """gather with PyTorch's fused CPU kernel, or without."""
    return nullcontext() if route == "fused" else mock.patch.object(gather, "fused_works", lambda: False)


def test_here_the_fused_kernel_works():
    assert kernels.fused_works()


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


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("dropout_p", [0.0, 0.4])
def test_gradients_are_those_of_finite_differences(route, dropout_p):
    """With dropout too: the operator takes the seed, so that each evaluation drops the same weights."""
    p = BlockPattern.bigbird(5, heads=2, random=1) | BlockPattern.from_grid(np.eye(5, dtype=bool)[::-1])
    q, k, v, _ = tensors(2, 2, 10, 3, requires_grad=True)
    key_mask = torch.arange(10) < torch.tensor([[10], [5]])
    seed = torch.tensor(5) if dropout_p else None
    number = handles.handle_of(p)
    with by(route):
        op = torch.ops.bigbird_mini.gather
        assert torch.autograd.gradcheck(lambda *x: op(*x, key_mask, seed, number, 0.6, dropout_p)[0], (q, k, v))


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
@pytest.mark.parametrize("chunk", [1, 3000, 2**30])
def test_chunks_do_not_show(route, chunk, monkeypatch):
    """One row at a time, a few, all at once; shared and per-head patterns, a row that is full in one head only."""
    monkeypatch.setattr(plan, "CHUNK_PER_THREAD", chunk)
    one_full = torch.zeros(3, 9, 9, dtype=torch.bool)
    one_full[1, 4] = True
    for p in (BlockPattern.bigbird(9), BlockPattern.bigbird(9, heads=3) | BlockPattern.from_grid(one_full)):
        mask = torch.arange(18) < torch.tensor([[18], [11]])
        with by(route):
            got = run("gather", p, (2, 3, 18, 4), mask)
        the_same(run("dense", p, (2, 3, 18, 4), mask), got, within=1e-12)


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
    ps = [ps[0], ps[1], ps[0], ps[2]]
    q, k, v, back = tensors(4, 3, 12, 5, requires_grad=True)
    mask = torch.arange(12) < torch.tensor([[7], [12], [8], [3]])
    out = attention(q, k, v, ps, mask, backend=backend)
    one_by_one = [attention(q[i : i + 1], k[i : i + 1], v[i : i + 1], ps[i], mask[i : i + 1]) for i in range(4)]
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
                    out, lse = gather.forward(k[0], k[0], k[0], k[1], None, core, 0.5, 0.0)
                    grads = gather.backward(out, k[0], k[0], k[0], k[1], None, out, lse, core, 0.5, 0.0)
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


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("heads", [1, 2])
def test_memory_and_traffic_grow_with_n_and_not_with_its_square(heads, route, monkeypatch):
    """The largest tensor of forward and backward, and the sum of all, at n, 2n and 4n with chunks of a fixed size.

    What the operator is made of is called by itself: torch shows an observer the operator as a whole.
    """
    monkeypatch.setattr(plan, "CHUNK_PER_THREAD", 2**16)

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
        x = tensors(1, n, 2, 8, dtype=torch.float32)
        *given, back = (y.transpose(1, 2) for y in x)  # (B, H, n, d), strided as in the model
        given += [torch.arange(n)[None] < n - 5, None]
        p = BlockPattern.bigbird(n // 16, heads=heads)
        with Count() as count, by(route):
            out, lse = gather.forward(*given, p, 0.5, 0.0)
            gather.backward(back, *given, out, lse, p, 0.5, 0.0)
        seen.append(count)
        assert count.total > 8 * 3 * out.numel()  # it has seen the gathered keys
    for small, large in itertools.pairwise(seen):
        assert large.largest < 2.1 * small.largest and large.total < 2.1 * small.total


@pytest.mark.parametrize("limit", [1, 7, 40, 10**6])
def test_a_chunk_gathers_no_more_blocks_than_it_may(limit, monkeypatch):
    q = tensors(2, 3, 60, 4)[0]
    monkeypatch.setattr(plan, "CHUNK_PER_THREAD", 2 * 4 * 8)  # one block
    monkeypatch.setattr(torch, "get_num_threads", lambda: limit)
    p = BlockPattern.bigbird(30, heads=3)  # rows 1 and -2 read 7 blocks, those between them 8, the two at the ends all
    first, *rest = plan.chunks(p, [q.reshape(2 * 3 * 30, 8)] * 3, q, None)
    assert first.queries.shape == (6, 1, 4, 4) and first.keys.shape == (6, 1, 60, 4)
    sizes = [(len(c.queries), c.keys.shape[2] // 2) for c in rest]
    assert all(limit >= G * K or G == 1 for G, K in sizes)
    assert sum(G for G, K in sizes if K == 7) == 12 and sum(G for G, K in sizes if K == 8) == 6 * 26
    assert len(sizes) == {1: 168, 7: 168, 40: 3 + 32, 10**6: 2}[limit]


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
        ({"backend": "fast"}, ValueError, "backend='fast' is not known; allowed: 'auto', 'dense', 'gather', 'flex'"),
    ],
)
def test_bad_input_gets_one_sentence(changes, error, says):
    assert ok().shape == (2, 3, 12, 4)
    with pytest.raises(error, match=says):
        ok(**changes)


# ---------------------------------------------------------------- the operator


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_torch_compile_sees_one_node(compiler):
    """Forward and backward, padded and not, a second pattern, a second length, with dropout; no break in the graph."""
    torch._dynamo.reset()
    graphs = []

    def watch(graph, inputs):
        graphs.append([node for node in graph.graph.nodes if "bigbird_mini" in str(node.target)])
        return torch._dynamo.lookup_backend(compiler)(graph, inputs)

    def work(q, k, p, mask):
        return attention(q * 2, k, k, p, mask) + 1

    compiled = torch.compile(work, fullgraph=True, backend=watch)
    long = BlockPattern.bigbird(20, heads=2, seed=3)
    for p in (BlockPattern.bigbird(20, heads=2), long, BlockPattern.bigbird(12).padded(24)):
        q, k, _, back = tensors(2, 2, p.n_blocks * 3, 4, requires_grad=True)
        mask = torch.arange(p.n_blocks * 3) < torch.tensor([[60], [31]])
        want, got = work(q, k, p, mask), compiled(q, k, p, mask)
        assert torch.equal(got, want)
        for g, w in zip(*(torch.autograd.grad(x, (q, k), back) for x in (got, want)), strict=True):
            assert torch.equal(g, w)
    assert [len(nodes) for nodes in graphs] == [1, 1, 1]
    dropped = torch.compile(lambda q, p: attention(q, q, q, p, dropout_p=0.5), fullgraph=True, backend=watch)
    assert not torch.equal(dropped(q, p), attention(q, q, q, p))


def test_a_compiled_function_outlives_its_pattern():
    torch._dynamo.reset()
    compiled = {}
    for seed in (1, 2):
        p = BlockPattern.bigbird(9, seed=seed)
        compiled[seed] = torch.compile(lambda q, p=p: attention(q, q, q, p, backend="gather"), backend="eager")
        q = tensors(1, 2, 18, 4)[0]
        compiled[seed](q)
        del p
    for seed, function in compiled.items():
        assert torch.equal(function(q), attention(q, q, q, BlockPattern.bigbird(9, seed=seed), backend="gather"))


def test_the_operator_keeps_torch_s_rules():
    p = BlockPattern.bigbird(7, heads=2)
    q, k, v, _ = tensors(2, 2, 14, 4, requires_grad=True)
    mask = torch.arange(14) < torch.tensor([[14], [9]])
    for key_mask, seed, dropout_p in ((None, None, 0.0), (mask, torch.tensor(3), 0.3)):
        given = (q, k, v, key_mask, seed, handles.handle_of(p), 0.5, dropout_p)
        torch.library.opcheck(torch.ops.bigbird_mini.gather.default, given)


def test_a_handle_lives_until_the_backward_pass_and_no_longer():
    q, k, v, back = tensors(1, 2, 22, 4, requires_grad=True)
    number = hash(BlockPattern.bigbird(11, seed=12345))
    out = attention(q, k, v, BlockPattern.bigbird(11, seed=12345), backend="gather")
    plan._plan.cache_clear()  # which would keep it alive
    out.backward(back, retain_graph=True)
    assert number in handles._known
    plan._plan.cache_clear()
    del out
    gc.collect()
    assert number not in handles._known


def test_patterns_with_one_hash_have_their_own_handles(monkeypatch):
    one, two = BlockPattern.bigbird(9, seed=1), BlockPattern.bigbird(9, seed=2)
    monkeypatch.setattr(BlockPattern, "__hash__", lambda self: 77)
    numbers = [handles.handle_of(p) for p in (one, two, BlockPattern.bigbird(9, seed=1))]
    assert numbers == [77, 78, 77] and handles.pattern_of(78) is two


@pytest.mark.parametrize("broken", [AttributeError("gone"), "other numbers", "other gradients"])
def test_where_the_fused_kernel_has_changed_the_plain_one_serves(broken, monkeypatch):
    forward, backward = kernels.fused_forward, kernels.fused_backward
    if broken == "other numbers":
        monkeypatch.setattr(kernels, "fused_forward", lambda *x: (forward(*x)[0] * 1.01, forward(*x)[1]))
    elif broken == "other gradients":
        monkeypatch.setattr(kernels, "fused_backward", lambda *x: [y * 1.01 for y in backward(*x)])
    else:
        monkeypatch.setattr(kernels, "fused_forward", mock.Mock(side_effect=broken))
    monkeypatch.setattr(gather, "fused_forward", mock.Mock(side_effect=AssertionError("not to be used")))
    kernels.fused_works.cache_clear()
    try:
        assert not kernels.fused_works()
        p = BlockPattern.bigbird(9)
        the_same(run("dense", p, (1, 2, 18, 4)), run("gather", p, (1, 2, 18, 4)), within=1e-12)
    finally:
        kernels.fused_works.cache_clear()


def test_dropout_follows_torch_s_seed_and_checkpointing_drops_the_same_again():
    p = BlockPattern.bigbird(9, heads=2)
    q, k, v, back = tensors(1, 2, 18, 4, requires_grad=True)

    def run(*x):
        return attention(*x, p, dropout_p=0.5, backend="gather")

    results = []
    for again in (run, lambda *x: torch.utils.checkpoint.checkpoint(run, *x, use_reentrant=False)):
        torch.manual_seed(3)
        out = again(q, k, v)
        results.append([out, *torch.autograd.grad(out, (q, k, v), back)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert not torch.equal(out, run(q, k, v))


def test_no_random_state_is_touched_and_the_answer_is_the_same_twice():
    p = BlockPattern.bigbird(30, heads=2)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first = run("gather", p, (1, 2, 60, 4))
    attention(*tensors(2, 2, 20, 4)[:3], BlockPattern.bigbird(10), backend="gather")  # another length between
    assert all(torch.equal(a, b) for a, b in zip(first, run("gather", p, (1, 2, 60, 4)), strict=True))
    assert torch.equal(states[0], torch.get_rng_state()) and random.getstate() == states[2]
    assert (np.random.get_state()[1] == states[1]).all()
