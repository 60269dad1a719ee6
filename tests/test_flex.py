"""FlexAttention against the oracle: here on a CPU, forward; each compiled problem takes some seconds."""

import shutil
from unittest import mock

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from bigbird_mini import BlockPattern, attention
from bigbird_mini.attention import flex
from strategies import tensors

compiles = pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++", "cl"))), reason="FlexAttention needs a C++ compiler on a CPU"
)
ROWS = BlockPattern.from_grid(torch.tensor([[1, 1, 0], [0, 0, 0], [0, 0, 1]]))
COUNTED = BlockPattern.bigbird(16, heads=2, plan="hf_eval", block_size=4)
PER_HEAD = BlockPattern.bigbird(9, heads=3, seed=4)


@compiles
@pytest.mark.parametrize(
    ("p", "B", "H", "b", "d"),
    [(PER_HEAD, 2, 3, 16, 16), (BlockPattern.window(5), 2, 3, 3, 7), (COUNTED, 2, 2, 4, 8), (ROWS, 1, 2, 2, 4)],
    ids=["heads", "shared", "counted", "empty row"],
)
def test_equal_to_the_oracle(p, B, H, b, d):
    """Without a key mask and with a ragged one that hides a whole block and a whole document."""
    n = p.n_blocks * b
    q, k, v, _ = tensors(B, H, n, d)
    mask = torch.arange(n) < torch.tensor([[n - b - 1], [0]][:B])
    for key_mask in (None, mask):
        want = attention(q, k, v, p, key_mask, scale=0.6, backend="dense")
        got = attention(*(x.float() for x in (q, k, v)), p, key_mask, scale=0.6, backend="flex")
        assert got.dtype == torch.float32 and torch.allclose(got.double(), want, rtol=0, atol=2e-5)


@compiles
def test_the_lists_are_read_and_not_only_the_mask(monkeypatch):
    """The kernel is told that everything may be read; then the lists alone decide."""
    p = BlockPattern.window(6)
    monkeypatch.setattr(flex, "_reads", lambda grid, b: lambda document, head, i, j: i >= 0)
    flex._lists.forget()
    q, k, v, _ = tensors(1, 1, 48, 8, dtype=torch.float32)
    got = attention(q, k, v, p, backend="flex")
    flex._lists.forget()
    assert torch.allclose(got, attention(q, k, v, p, backend="dense"), rtol=0, atol=2e-5)


@compiles
def test_half_precision_weights_and_lists_of_patterns():
    p = BlockPattern.bigbird(6, heads=2)
    q, k, v, _ = (x.bfloat16() for x in tensors(2, 2, 24, 8))
    want = attention(q.double(), k.double(), v.double(), [p, p.padded(6)], backend="dense")
    out, weights = attention(q, k, v, [p, p], backend="flex", return_weights=True)
    assert out.dtype == torch.bfloat16 and torch.allclose(out.double(), want, atol=0.05)
    assert torch.allclose(weights.dense().float().sum(-1), torch.ones(2, 2, 24), atol=0.02)
    mixed = attention(q, k, v, [p, BlockPattern.window(6)], backend="flex")
    assert mixed.dtype == torch.bfloat16 and torch.allclose(mixed[:1].double(), want[:1], atol=0.05)


def test_what_it_cannot_do_it_says():
    p = BlockPattern.bigbird(6)
    q, k, v, _ = tensors(1, 2, 12, 4, dtype=torch.float32, requires_grad=True)
    with pytest.raises(ValueError, match='no backward pass on a CPU; use "gather"'):
        attention(q, k, v, p, backend="flex")
    q, k, v = (x.detach() for x in (q, k, v))
    with pytest.raises(ValueError, match=r"cannot drop weights \(dropout_p=0.2\)"):
        attention(q, k, v, p, dropout_p=0.2, backend="flex")
    with pytest.raises(ValueError, match="no float64 on a CPU"):
        attention(q.double(), k.double(), v.double(), p, backend="flex")
    long = BlockPattern.bigbird(16_384)
    x = torch.zeros(1, 1, 16_384, 1)
    with pytest.raises(ValueError, match='lists of 1 x 16384 x 16384 blocks; use "gather"'):
        attention(x, x, x, long, backend="flex")


def test_a_compiler_that_fails_is_told_in_one_sentence(monkeypatch):
    def broken(*arguments):
        raise torch._dynamo.exc.TorchRuntimeError("no compiler\nand much more")

    monkeypatch.setattr(torch, "compile", lambda *a, **k: broken)
    flex._kernel.cache_clear()
    x = torch.zeros(1, 1, 12, 4)
    try:
        with pytest.raises(RuntimeError, match=r'could not be compiled here \(no compiler\); use "gather"'):
            attention(x, x, x, BlockPattern.window(6), backend="flex")
    finally:
        flex._kernel.cache_clear()


def test_the_lists_say_which_blocks_read_and_are_read():
    p = BlockPattern.bigbird(7, heads=2, random=1)
    grid = p.grid()
    asked, score = flex._lists.__wrapped__(p, 16, torch.device("cpu"), masked=True)
    trusted, _ = flex._lists.__wrapped__(p, 16, torch.device("cpu"), masked=False)
    assert score is None and not asked.full_kv_num_blocks.any() and not asked.full_q_num_blocks.any()
    assert not trusted.kv_num_blocks.any() and not trusted.q_num_blocks.any()
    read = (
        (asked.kv_num_blocks, asked.kv_indices, grid),
        (asked.q_num_blocks, asked.q_indices, grid.mT),
        (trusted.full_kv_num_blocks, trusted.full_kv_indices, grid),
        (trusted.full_q_num_blocks, trusted.full_q_indices, grid.mT),
    )
    for count, which, table in read:
        for head in range(2):
            for row in range(7):
                listed = which[0, head, row, : count[0, head, row]].tolist()
                assert listed == table[head, row].nonzero().flatten().tolist()


def test_on_a_gpu_lists_and_mask_are_there():
    p = BlockPattern.bigbird(7, heads=2, random=1)
    with FakeTensorMode(), torch.no_grad():
        nothing = torch.arange(3, device="cuda:0")
        for masked in (False, True):
            lists, _ = flex._lists.__wrapped__(p, 16, torch.device("cuda:0"), masked)
            tensors_ = (lists.kv_indices, lists.full_kv_indices, lists.mask_mod(*[nothing] * 4))
            assert {x.device.type for x in tensors_} == {"cuda"}


def test_auto_takes_it_on_a_gpu_where_it_has_been_tried(monkeypatch):
    tried = []
    monkeypatch.setattr(flex, "_found", {})
    monkeypatch.setattr(flex, "_tried", lambda *a: tried.append(a) or True)
    monkeypatch.setattr(flex, "is_real", lambda q: True)

    def q(n, d, device="cuda"):
        return mock.Mock(shape=(1, 2, n, d), device=torch.device(device), dtype=torch.bfloat16)

    p, kind = BlockPattern.bigbird(32), (64, 64, torch.bfloat16, torch.device("cuda"))
    for _ in range(2):
        assert flex.flex_works(q(2048, 64), p, None) and tried == [(*kind, False, False, False)]
    assert not flex.flex_works(q(2048, 64, "cpu"), p, None)
    assert not flex.flex_works(q(2048, 80), p, None)  # a head size its kernels do not know
    assert not flex.flex_works(q(512, 64), p, None)  # blocks of 16
    assert not flex.flex_works(q(64 * 16_384, 64), BlockPattern.bigbird(16_384), None)  # lists too long
    assert len(tried) == 1
    counted = BlockPattern.bigbird(32, heads=2, plan="hf_eval", block_size=64)
    assert flex.flex_works(q(2048, 64), counted, "a mask") and tried[1:] == [(*kind, True, True, True)]
    for error, runs in ((torch.OutOfMemoryError("full"), 2), (RuntimeError("no Triton"), 1)):  # only the first passes
        flex._found.clear()
        failing = mock.Mock(side_effect=error)
        monkeypatch.setattr(flex, "_tried", failing)
        assert not flex.flex_works(q(2048, 64), p, None) and not flex.flex_works(q(2048, 64), p, None)
        assert failing.call_count == runs


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("counted", [False, True])
def test_the_trial_finds_wrong_numbers(per_head, masked, counted, monkeypatch):
    """On a CPU, with gather standing in for the kernel."""
    kind = (4, 8, torch.float32, torch.device("cpu"), per_head, masked, counted)
    seen = []

    def kernel(q, k, v, p, key_mask, *rest):
        seen.append((p.heads == 2, key_mask is not None, p.listed_multiplicity() is not None))
        return flex.gather_attention(q, k, v, p, key_mask, *rest)

    monkeypatch.setattr(flex, "flex_attention", kernel)
    assert flex._tried(*kind) and seen == [kind[4:]]
    less = BlockPattern.bigbird(16, random=0)
    monkeypatch.setattr(flex, "flex_attention", lambda q, k, v, p, *rest: flex.gather_attention(q, k, v, less, *rest))
    assert not flex._tried(*kind)
