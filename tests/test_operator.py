"""What gather is made of: one operator for torch, worked off in chunks, by one of two kernels."""

import gc
import itertools
import random
from unittest import mock

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bigbird_mini import BlockPattern, attention
from bigbird_mini.attention import gather, kernels, plan
from bigbird_mini.attention.remember import remembered
from bigbird_mini.lists import numbered
from strategies import ROUTES, by, run, tensors, the_same


def test_here_the_fused_kernel_works():
    assert kernels.fused_works()


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


@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_a_layer_compiles_once_for_the_patterns_of_all_layers(compiler):
    """Twelve patterns, of which torch.compile sees two: the number of the first, and then any number."""
    torch._dynamo.reset()
    graphs = []

    def watch(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend(compiler)(graph, inputs)

    layer = torch.compile(lambda q, p: attention(q, q, q, p, scale=0.3), fullgraph=True, backend=watch)
    q, _, _, back = tensors(1, 2, 18, 4, requires_grad=True)
    patterns = [BlockPattern.bigbird(9, heads=2, layer=i) for i in range(12)]
    outs = [layer(q, p) for p in patterns]
    for out, p in zip(outs, patterns, strict=True):
        want = attention(q, q, q, p, scale=0.3, backend="gather")
        assert torch.equal(out, want)
        assert torch.equal(*(torch.autograd.grad(x, q, back)[0] for x in (out, want)))
    assert len(graphs) == 2


def test_a_compiled_function_outlives_its_pattern():
    torch._dynamo.reset()
    q, _, _, back = tensors(1, 2, 18, 4, requires_grad=True)
    compiled = torch.compile(lambda q, p: attention(q, q, q, p), backend="aot_eager", fullgraph=True)
    for seed in range(4):
        out = compiled(q, BlockPattern.bigbird(9, seed=seed))
        gc.collect()
        want = attention(q, q, q, BlockPattern.bigbird(9, seed=seed), backend="gather")
        assert torch.equal(*(torch.autograd.grad(x, q, back)[0] for x in (out, want)))


def test_the_operator_keeps_torch_s_rules():
    p = BlockPattern.bigbird(7, heads=2)
    q, k, v, _ = tensors(2, 2, 14, 4, requires_grad=True)
    mask = torch.arange(14) < torch.tensor([[14], [9]])
    for key_mask, seed, dropout_p in ((None, None, 0.0), (mask, torch.tensor(3), 0.3)):
        given = (q, k, v, key_mask, seed, p.number, 0.5, dropout_p)
        torch.library.opcheck(torch.ops.bigbird_mini.gather.default, given)


def test_a_pattern_lives_until_the_backward_pass_and_no_longer():
    q, k, v, back = tensors(1, 2, 22, 4, requires_grad=True)
    p = BlockPattern.bigbird(11, seed=12345)
    number = p.number
    out = attention(q, k, v, p, backend="gather")
    del p
    plan._plan.forget()  # which would keep it alive
    gc.collect()
    out.backward(back, retain_graph=True)
    assert numbered(number) == BlockPattern.bigbird(11, seed=12345)
    plan._plan.forget()
    del out
    gc.collect()
    with pytest.raises(RuntimeError, match=f"pattern number {number} is gone"):
        numbered(number)


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

    def work(*x):
        return attention(*x, p, dropout_p=0.5, backend="gather")

    results = []
    for again in (work, lambda *x: torch.utils.checkpoint.checkpoint(work, *x, use_reentrant=False)):
        torch.manual_seed(3)
        out = again(q, k, v)
        results.append([out, *torch.autograd.grad(out, (q, k, v), back)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    assert not torch.equal(out, work(q, k, v))


def test_no_random_state_is_touched_and_the_answer_is_the_same_twice():
    p = BlockPattern.bigbird(30, heads=2)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first = run("gather", p, (1, 2, 60, 4))
    attention(*tensors(2, 2, 20, 4)[:3], BlockPattern.bigbird(10), backend="gather")  # another length between
    assert all(torch.equal(a, b) for a, b in zip(first, run("gather", p, (1, 2, 60, 4)), strict=True))
    assert torch.equal(states[0], torch.get_rng_state()) and random.getstate() == states[2]
    assert (np.random.get_state()[1] == states[1]).all()


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("dropout_p", [0.0, 0.4])
def test_gradients_are_those_of_finite_differences(route, dropout_p):
    """With dropout too: the operator takes the seed, so that each evaluation drops the same weights."""
    p = BlockPattern.bigbird(5, heads=2, random=1) | BlockPattern.from_grid(np.eye(5, dtype=bool)[::-1])
    q, k, v, _ = tensors(2, 2, 10, 3, requires_grad=True)
    key_mask = torch.arange(10) < torch.tensor([[10], [5]])
    seed = torch.tensor(5) if dropout_p else None
    number = p.number
    with by(route):
        op = torch.ops.bigbird_mini.gather
        assert torch.autograd.gradcheck(lambda *x: op(*x, key_mask, seed, number, 0.6, dropout_p)[0], (q, k, v))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("chunk", [1, 3000, 2**30])
def test_chunks_do_not_show(route, chunk, monkeypatch):
    """One row at a time, a few, all at once; shared and per-head patterns, a row that is full in one head only."""
    monkeypatch.setattr(plan, "CHUNK_PER_THREAD", chunk)
    monkeypatch.setattr(plan, "SCORES", chunk // 8)  # of full rows by the plain kernel: one row, or all
    one_full = torch.zeros(3, 9, 9, dtype=torch.bool)
    one_full[1, 4] = True
    for p in (BlockPattern.bigbird(9), BlockPattern.bigbird(9, heads=3) | BlockPattern.from_grid(one_full)):
        mask = torch.arange(18) < torch.tensor([[18], [11]])
        with by(route):
            got = run("gather", p, (2, 3, 18, 4), mask)
        the_same(run("dense", p, (2, 3, 18, 4), mask), got, within=1e-12)


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
            out, lse = gather.forward(*given, p.number, 0.5, 0.0)
            gather.backward(back, *given, out, lse, p.number, 0.5, 0.0)
        seen.append(count)
        assert count.total > 8 * 3 * out.numel()  # it has seen the gathered keys
    for small, large in itertools.pairwise(seen):
        assert large.largest < 2.1 * small.largest and large.total < 2.1 * small.total


@pytest.mark.parametrize("limit", [1, 7, 40, 10**6])
def test_a_chunk_gathers_no_more_blocks_than_it_may(limit, monkeypatch):
    q = tensors(2, 3, 60, 4)[0]
    monkeypatch.setattr(plan, "CHUNK_PER_THREAD", 2 * 4 * 8)  # one block
    p = BlockPattern.bigbird(30, heads=3)  # rows 1 and -2 read 7 blocks, those between them 8, the two at the ends all
    first, *rest = plan.chunks(p, [q.reshape(2 * 3 * 30, 8)] * 3, q, None, threads=limit, fused=True)
    assert first.queries.shape == (6, 1, 4, 4) and first.keys.shape == (6, 1, 60, 4)
    sizes = [(len(c.queries), c.keys.shape[2] // 2) for c in rest]
    assert all(limit >= G * K or G == 1 for G, K in sizes)
    assert sum(G for G, K in sizes if K == 7) == 12 and sum(G for G, K in sizes if K == 8) == 6 * 26
    assert len(sizes) == {1: 168, 7: 168, 40: 3 + 32, 10**6: 2}[limit]


def test_what_is_dropped_does_not_depend_on_the_threads(monkeypatch):
    """Neither going forward nor, with other threads than before, going back."""
    p = BlockPattern.bigbird(20, heads=2)
    monkeypatch.setattr(plan, "CHUNK_PER_THREAD", 2**11)
    results = []
    for before, after in ((2, 2), (1, 1), (2, 1)):
        q, k, v, back = tensors(1, 2, 40, 4, requires_grad=True)
        torch.manual_seed(0)
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=before: threads)
        out = attention(q, k, v, p, dropout_p=0.5, backend="gather")
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=after: threads)
        results.append([out, *torch.autograd.grad(out, (q, k, v), back)])
    for other in results[1:]:
        the_same(results[0], other, within=1e-12)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("n_blocks", [8, 32])
def test_no_stride_is_misread(route, n_blocks):
    """Every second number, numbers of three tensors interleaved, one number for all, dimensions turned around."""
    p = BlockPattern.bigbird(n_blocks)
    wide = torch.randn(2, 3, 32, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    turned = torch.randn(4, 2, 3, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    together = torch.randn(2, 3, 32, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    one = torch.full((1,), 0.7, dtype=torch.float64).expand(2, 3, 32, 4)
    for given in (
        (wide[..., ::2], wide[..., 1::2], wide[..., ::2]),
        together.unbind(-1),
        (one, wide[..., ::2], one),
        [turned.permute(1, 2, 3, 0)] * 3,
    ):
        found = []
        for backend, way in (("dense", "fused"), ("gather", route)):
            q, k, v = (x.detach().requires_grad_() for x in given)
            with by(way):
                out = attention(q, k, v, p, backend=backend)
                found.append([out, *torch.autograd.grad(out, (q, k, v), wide[..., ::2])])
        the_same(*found, within=1e-12)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_hidden_key_weighs_nothing_however_large(route, dtype):
    p = BlockPattern.bigbird(8)
    q, k, v, _ = tensors(1, 2, 32, 64)
    mask = torch.arange(32)[None] < 30
    q, k = torch.ones_like(q), k.masked_fill(~mask[:, None, :, None], 6e4)
    want = attention(q, k, v, p, mask, backend="dense")
    with by(route):
        got = attention(q.to(dtype), k.to(dtype), v.to(dtype), p, mask, backend="gather")
    assert torch.allclose(got.double(), want, atol=0.05)


def test_a_plain_kernel_meets_full_rows_in_pieces(monkeypatch):
    """No piece holds more scores than it may, or it is one row of one head; together they are all full rows."""
    q, p = tensors(2, 3, 60, 4)[0], BlockPattern.full(30)
    blocks = [q.reshape(2 * 3 * 30, 8)] * 3
    for scores, chunk, pieces in (
        (1, 1, 6 * 30),
        (7 * 2 * 60, 1, 6 * 5),
        (2**20, 30 * 8 * 8 * 2, 3),
        (2**20, 2**20, 1),
    ):
        monkeypatch.setattr(plan, "SCORES", scores)
        monkeypatch.setattr(plan, "CHUNK_PER_THREAD", chunk)
        parts = list(plan.chunks(p, blocks, q, None, threads=1, fused=False))
        assert len(parts) == pieces
        assert torch.cat([c.own for c in parts]).sort()[0].tolist() == list(range(180))
        assert all(c.queries.shape[2] * 60 <= max(scores, 2 * 60) for c in parts)


def test_each_chunk_drops_its_own(monkeypatch):
    """All queries are zero and the values name the keys: so the output shows which keys were kept, row by row."""
    monkeypatch.setattr(plan, "CHUNK_PER_THREAD", 1)
    p, n = BlockPattern.window(16, 5), 64
    q, v = torch.zeros(1, 2, n, n), torch.eye(n).expand(1, 2, n, n)
    torch.manual_seed(1)
    kept = attention(q, q, v, p, dropout_p=0.5, backend="gather") > 0
    windows = [kept[0, h, 4 * i : 4 * i + 4, 4 * (i - 2) : 4 * (i + 3)] for h in range(2) for i in range(2, 14)]
    assert len({window.numpy().tobytes() for window in windows}) == 24  # 80 places each: never twice the same by chance
    assert 0.4 < torch.stack(windows).float().mean() < 0.6


@pytest.mark.parametrize("full_row", [False, True])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_what_comes_in_and_out_and_no_sum_between(route, dtype, autocast, full_row, monkeypatch):
    """Against the oracle in float64 of the same rounded numbers. A thousand rows add to the gradients of block 0, all
    with one sign, and no sum in half precision would get there; all scores are near 50, which changes no weight, but
    of which half precision would leave little to tell them apart."""
    monkeypatch.setattr(plan, "CHUNK_PER_THREAD", 1)
    grid = BlockPattern.window(1024).grid()
    grid[..., 0] = True
    grid[:, 0] = full_row
    p = BlockPattern.from_grid(grid)
    q, k, v, back = (x.to(dtype) for x in tensors(1, 1, 1024, 8))
    back, q[..., 0], k[..., 0] = back.abs(), 12, 12
    found = []
    for wanted, backend, way in ((torch.float64, "dense", "fused"), (dtype, "gather", route)):
        leaves = [x.to(wanted).requires_grad_() for x in (q, k, v)]
        with by(way), torch.autocast("cpu", dtype, enabled=autocast and backend == "gather"):
            out = attention(*leaves, p, backend=backend)
            found.append([out, *torch.autograd.grad(out, leaves, back.to(wanted))])
    eps = torch.finfo(dtype).eps
    for want, got in zip(*found, strict=True):
        assert got.dtype == dtype
        assert (got.double() - want).abs().max() < 3 * eps * want.abs().max()


@pytest.mark.parametrize("route", ROUTES)
def test_autocast_reaches_neither_kernel(route):
    q, k, v, _ = tensors(1, 2, 36, 4, dtype=torch.float32)
    p = BlockPattern.bigbird(12, heads=2)
    results = []
    for enabled in (False, True):
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        with by(route), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = attention(*leaves, p, backend="gather")
            results.append([out, *torch.autograd.grad(out.sum(), leaves)])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_other_kinds_of_derivative_are_refused():
    p, q = BlockPattern.bigbird(8), tensors(1, 2, 16, 4)[0]

    def work(x, backend="gather"):
        return attention(x, x, x, p, backend=backend)

    for derive in (
        lambda: torch.func.jvp(work, (q,), (q,)),
        lambda: torch.func.grad(lambda x: work(x).sum())(q),
        lambda: torch.func.jacfwd(work)(q),
    ):
        with pytest.raises(NotImplementedError, match=r'for torch.func and forward mode use backend="dense"'):
            derive()
    assert torch.func.jvp(lambda x: work(x, "dense"), (q,), (q,))[1].any()


def test_what_is_remembered_is_bounded_by_its_bytes():
    calls = []

    def made(size):
        calls.append(size)
        return bytes(size)

    keep = remembered(len, limit=100)(made)
    for size in (40, 50, 40, 60, 40, 50, 300, 300, 10):  # at 60 the 50 goes, unused the longest
        assert len(keep(size)) == size
        assert keep.bytes == sum(map(len, keep.kept.values())) and (keep.bytes <= 100 or len(keep.kept) == 1)
    assert calls == [40, 50, 60, 50, 300, 10]
    keep.forget()
    assert keep.bytes == 0 and len(keep(10)) == 10 and calls[-2:] == [10, 10]
