"""BlockPattern against definitions written as loops. Drawing random blocks and saving: test_plans.py, test_lists.py."""

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bigbird_mini import BlockPattern, lists
from bigbird_mini.pattern import GLOBAL, NONE, OTHER, RANDOM, WINDOW
from strategies import patterns

GOLDEN = [[3, 12, 67, 83], [48, 69, 81, 90], [1, 27, 54]]
HASH = 3137624239714542305


def lists_of(n, key):
    """One row of lists with one key block."""
    keys = np.full((1, n, 1), key)
    return np.zeros((1, n), np.uint8), keys, np.ones_like(keys)


def by_hand(n, f):
    return torch.tensor([[f(i, j) for j in range(n)] for i in range(n)], dtype=torch.bool)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 12])
@pytest.mark.parametrize("width", [1, 3, 5, 99])
def test_window_is_the_band(n, width):
    p = BlockPattern.window(n, width)
    assert torch.equal(p.grid()[0], by_hand(n, lambda i, j: abs(i - j) <= (width - 1) // 2))
    assert set(p.kinds().unique().tolist()) <= {NONE, WINDOW}


@pytest.mark.parametrize("n", [1, 2, 5, 12])
@pytest.mark.parametrize(("width", "step"), [(1, 2), (3, 1), (3, 2), (5, 3), (99, 4), (3, 99)])
def test_dilated_is_the_band_with_gaps(n, width, step):
    p = BlockPattern.dilated(n, width, step)
    half = (width - 1) // 2
    assert torch.equal(p.grid()[0], by_hand(n, lambda i, j: (i - j) % step == 0 and abs(i - j) // step <= half))
    assert set(p.kinds().unique().tolist()) <= {NONE, WINDOW}
    assert (step > 1) or p == BlockPattern.window(n, width)


@given(patterns())
def test_without_random_leaves_all_the_other_kinds(p):
    kinds = p.kinds()
    rest = p.without_random()
    assert torch.equal(rest.kinds(), kinds.masked_fill(kinds == RANDOM, NONE))
    assert rest.listed_multiplicity() is None and rest.multiplicity().max() == 1


@pytest.mark.parametrize(("n", "blocks"), [(7, (0, -1)), (7, (2,)), (5, (1, 1, -4)), (1, (0, -1)), (4, ())])
def test_global_blocks_read_everything_and_are_read_by_all(n, blocks):
    p = BlockPattern.global_(n, blocks)
    chosen = {b % n for b in blocks}
    assert torch.equal(p.grid()[0], by_hand(n, lambda i, j: i in chosen or j in chosen))
    assert set(p.kinds().unique().tolist()) <= {NONE, GLOBAL}


@given(patterns())
def test_lists_grid_counts_and_equality_agree(p):
    grid = p.grid()
    keys, full = p.neighbours()
    listed_counts = p.listed_multiplicity()
    counts = p.multiplicity()
    assert counts.dtype == torch.uint8 and counts.shape == grid.shape and (counts[~grid] == 1).all()
    assert (listed_counts is None) == (counts == 1).all()
    assert listed_counts is None or (listed_counts.shape == keys.shape and listed_counts.dtype == np.uint8)
    recounted = torch.ones_like(counts)
    rebuilt = torch.from_numpy(full)[..., None].repeat(1, 1, p.n_blocks)
    for h, i in np.ndindex(p.heads, p.n_blocks):
        listed = [j for j in keys[h, i].tolist() if j < p.n_blocks]
        assert listed == sorted(set(listed))
        assert not (full[h, i] and listed)
        rebuilt[h, i, listed] = True
        if listed_counts is not None:
            recounted[h, i, listed] = torch.from_numpy(listed_counts[h, i, : len(listed)])
            assert (listed_counts[h, i, len(listed) :] == 1).all()
    assert torch.equal(rebuilt, grid) and torch.equal(recounted, counts)
    assert torch.equal(p.keys_per_query(5), grid.sum(-1) * 5)
    assert p.density() == pytest.approx(grid.double().mean().item())
    assert torch.equal(p.token_mask(3), torch.from_numpy(np.kron(grid.numpy(), np.ones((1, 3, 3)))).bool())
    again = BlockPattern.from_grid(grid)
    assert torch.equal(again.grid(), grid)
    assert set(again.kinds().unique().tolist()) <= {NONE, OTHER}
    assert (p | p) == p and hash(p | p) == hash(p)


@given(st.data())
def test_union_reads_what_either_reads_and_names_the_stronger_kind(data):
    heads = data.draw(st.sampled_from([(1, 1), (1, 3), (3, 1), (2, 2)]))
    n = data.draw(st.integers(1, 9))
    a, b = (data.draw(patterns(heads=h, n_blocks=n)) for h in heads)
    strength = {GLOBAL: 0, WINDOW: 1, RANDOM: 2, OTHER: 3, NONE: 4}
    c = data.draw(patterns(heads=1, n_blocks=n))
    both = torch.broadcast_tensors(a.kinds(), b.kinds())
    want = [min(pair, key=strength.get) for pair in zip(*(x.flatten().tolist() for x in both), strict=True)]
    assert (a | b).kinds().flatten().tolist() == want
    assert torch.equal((a | b).multiplicity(), torch.maximum(a.multiplicity(), b.multiplicity()))
    assert (a | b) == (b | a) and hash(a | b) == hash(b | a)
    assert (a | b) | c == a | (b | c)
    same = torch.equal((a | b).kinds(), a.kinds()) and torch.equal((a | b).multiplicity(), a.multiplicity())
    assert ((a | b) == a) == same


@given(patterns(max_blocks=8), st.integers(0, 3))
def test_padded_blocks_read_nothing_and_are_read_by_nobody(p, more):
    n = p.n_blocks
    wide = p.padded(n + more)
    assert torch.equal(wide.kinds()[:, :n, :n], p.kinds())
    assert wide.grid()[:, n:].sum() == 0 and wide.grid()[:, :, n:].sum() == 0
    assert torch.equal(wide.multiplicity()[:, :n, :n], p.multiplicity())
    assert (wide == p) == (more == 0)


@given(patterns(max_blocks=16, heads=1), st.integers(0, 20), st.integers(1, 4), st.integers(-5, 2**70))
def test_random_takes_exactly_so_many_of_the_free_blocks(avoid, per_row, heads, seed):
    p = BlockPattern.random(avoid.n_blocks, per_row, heads, seed, avoid=avoid)
    taken = avoid.grid()[0]
    assert not (p.grid() & taken).any()
    free = avoid.n_blocks - taken.sum(-1)
    assert torch.equal(p.grid().sum(-1), free.clamp(max=per_row).expand(heads, -1))
    assert p == BlockPattern.random(avoid.n_blocks, per_row, heads, seed, avoid=avoid)


@pytest.mark.parametrize("heads", [1, 3])
def test_bigbird_is_the_union_of_the_three(heads):
    base = BlockPattern.window(20, 5) | BlockPattern.global_(20, (0, 3))
    by_hand = base | BlockPattern.random(20, 2, heads, 7, avoid=base, layer=4)
    p = BlockPattern.bigbird(20, window=5, global_blocks=(0, 3), random=2, heads=heads, seed=7, layer=4)
    assert p == by_hand and p.heads == heads
    counts = [(p.kinds() == kind).sum().item() for kind in (WINDOW, GLOBAL, RANDOM)]
    middle = 20 - 2  # rows that are not global
    assert counts[1] == heads * (2 * 20 + 2 * middle) and counts[2] == heads * 2 * middle


def test_a_seed_fixes_the_pattern_for_ever():
    """Golden values: whoever changes the hash changes every saved model."""
    p = BlockPattern.random(100, per_row=4, heads=2, seed=1)
    keys, _ = p.neighbours()
    assert keys[0, 0].tolist() == GOLDEN[0] and keys[1, 99].tolist() == GOLDEN[1]
    q = BlockPattern.bigbird(64, heads=12, seed=2**40 + 3, layer=5)
    assert (q.kinds()[11, 30] == RANDOM).nonzero()[:, 0].tolist() == GOLDEN[2]


def test_seeds_layers_heads_rows_and_lengths_draw_differently():
    draws = [
        tuple(BlockPattern.random(n, 8, 2, seed, layer=layer).neighbours()[0][head, row].tolist())
        for seed in (0, 1, -1)
        for layer in (0, 1)
        for n in (1000, 1001)
        for head in (0, 1)
        for row in (0, 1, 2)
    ]
    assert len(set(draws)) == len(draws)


def test_random_blocks_are_spread_evenly_and_rows_do_not_follow_each_other():
    n, heads, r = 24, 2000, 3
    keys = BlockPattern.random(n, r, heads, seed=3, avoid=BlockPattern.window(n, 1)).neighbours()[0]
    counts = np.array([np.bincount(keys[:, i].ravel(), minlength=n) for i in range(n)])
    expected = heads * r / (n - 1)
    off = ~np.eye(n, dtype=bool)
    chi2 = ((counts[off] - expected) ** 2 / expected).sum()
    freedom = n * (n - 2)
    assert abs(chi2 - freedom) < 6 * np.sqrt(2 * freedom)  # six standard deviations; the seed is fixed
    shift = np.bincount(((keys[:, 1:, :1] - keys[:, :-1, :1]) % n).ravel(), minlength=n) / (heads * (n - 1))
    independent = np.mean([np.bincount((b - a) % n, minlength=n) for a, b in _pairs(keys)], 0) / heads
    assert np.abs(shift - independent).max() < 0.006


def _pairs(keys):
    """The smallest draws of neighbouring rows, one of them taken from another head: independent for certain."""
    return [(keys[:, i, 0], np.roll(keys[:, i + 1, 0], 1)) for i in range(keys.shape[1] - 1)]


def test_no_global_random_state_is_read_or_touched():
    for seed in (1, 2):
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        p = BlockPattern.bigbird(30, heads=2, seed=9)
        assert p == BlockPattern.bigbird(30, heads=2, seed=9)
        assert states == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
        if seed == 1:
            first = p
    assert first == p


def test_a_million_tokens_are_small_and_their_grid_is_refused():
    p = BlockPattern.bigbird(16384, heads=12)
    assert p._keys.nbytes + p._kinds.nbytes + p._every.nbytes < 20e6
    assert p.density() == pytest.approx((2 * 16384 + 2 * 7 + 16380 * 8) / 16384**2)
    for table in (p.grid, p.kinds, p.multiplicity):
        with pytest.raises(ValueError, match=r"12 x 16384 x 16384 blocks takes 3\.2 GB; use neighbours"):
            table()
    with pytest.raises(ValueError, match=r"1 x 65536 x 65536 entries takes 4\.3 GB, which is too large; use grid"):
        BlockPattern.full(64).token_mask(1024)
    with pytest.raises(ValueError, match=r"16384 x 16384 blocks take 16\.1 GB; use fewer blocks"):
        p.padded(16385).neighbours()


def test_the_blocks_of_chosen_tokens_are_global():
    assert BlockPattern.global_tokens(6, (0, 5, 7, -1), block_size=4) == BlockPattern.global_(6, (0, 1, 5))
    assert BlockPattern.global_tokens(6, (), block_size=4) == BlockPattern.global_(6, ())


@given(patterns(max_blocks=8), st.integers(0, 3))
def test_extra_globals_come_first_and_the_rest_stays(p, extra):
    wide = p.with_extra_globals(extra)
    assert wide.n_blocks == p.n_blocks + extra and wide.heads == p.heads
    assert torch.equal(wide.kinds()[:, extra:, extra:], p.kinds())
    assert torch.equal(wide.multiplicity()[:, extra:, extra:], p.multiplicity())
    new = wide.kinds().clone()
    new[:, extra:, extra:] = GLOBAL
    assert (new == GLOBAL).all() and (wide.multiplicity()[:, :extra] == 1).all()


def test_each_block_may_count_more_than_once():
    """By hand: row 0 counts block 1 three times, row 1 reads all and counts block 2 twice, row 2 reads all."""
    every = np.array([[0, OTHER, OTHER]], np.uint8)
    keys = np.array([[[1, 1, 3], [2, 3, 3], [0, 3, 3]]])
    p = BlockPattern(every, keys, np.full(keys.shape, RANDOM), np.array([[[3, 2, 9], [2, 9, 9], [1, 1, 1]]]))
    assert p.multiplicity().tolist() == [[[1, 3, 1], [1, 1, 2], [1, 1, 1]]]
    assert p.kinds().tolist() == [[[0, RANDOM, 0], [OTHER, OTHER, RANDOM], [RANDOM, OTHER, OTHER]]]
    keys, full = p.neighbours()
    assert keys.tolist() == [[[1, 3, 3], [0, 1, 2], [3, 3, 3]]] and full.tolist() == [[False, False, True]]
    assert p.listed_multiplicity().tolist() == [[[3, 1, 1], [1, 1, 2], [1, 1, 1]]]
    once = p.without_random() | p.from_grid(p.grid())
    assert once != p and hash(once) != hash(p) and once | p == p
    assert p.keys_per_query(1).tolist() == [[1, 3, 3]]  # a block read twice is one block


def parts_of_every_kind():
    base = BlockPattern.window(13) | BlockPattern.global_(13)
    random_, power = BlockPattern.random(13, 2, heads=2, avoid=base, layer=4), BlockPattern.power_law(13, layer=7)
    return {
        "bigbird": lambda more: BlockPattern.bigbird(13, heads=3, seed=5, layer=2 + more),
        "by hand": lambda more: base | BlockPattern.random(13, 2, heads=2, avoid=base, layer=4 + more),
        "other way round": lambda more: BlockPattern.random(13, 1, layer=more) | base,
        "power law": lambda more: BlockPattern.power_law(13, 2, 0.5, seed=1, avoid=base, layer=3 + more),
        "around what was drawn": lambda more: BlockPattern.random(
            13, 2, layer=1 + more, avoid=base | BlockPattern.power_law(13, layer=9 + more)
        ),
        "several": lambda more: (
            base
            | BlockPattern.power_law(13, layer=7 + more)
            | BlockPattern.random(13, 2, heads=2, avoid=base, layer=4 + more)
            | BlockPattern.dilated(13)
            | BlockPattern.bigbird(13, random=1, plan="hf_train", layer=more)
        ),
        "padded": lambda more: BlockPattern.bigbird(9, layer=more).padded(11).padded(13),
        "padded, then joined": lambda more: BlockPattern.bigbird(9, layer=more).padded(13) | BlockPattern.window(13),
        "extra globals": lambda more: BlockPattern.bigbird(9, heads=2, layer=more).padded(12).with_extra_globals(1),
        "joined twice": lambda more: (random_.for_layers(more + 1)[-1] | power.for_layers(more + 1)[-1]) | base,
    }


@pytest.mark.parametrize("name", parts_of_every_kind())
def test_every_layer_draws_anew_what_was_drawn(name):
    build = parts_of_every_kind()[name]
    p = build(0)
    stack = p.for_layers(4)
    assert stack == [build(more) for more in range(4)] and stack[0] is p and len(set(stack)) > 1
    assert stack[1].for_layers(3) == stack[1:]
    again = (p | p).for_layers(4)
    assert again == stack
    assert [q.unpadded().n_blocks for q in stack] == [p.unpadded().n_blocks] * 4
    loaded = BlockPattern.from_json(p.to_json())
    assert loaded == p and loaded.for_layers(4) == stack and loaded.unpadded() == p.unpadded()


@given(patterns(), st.integers(0, 3))
def test_what_was_not_drawn_is_the_same_in_every_layer(p, layers):
    fixed = p.without_random()
    assert fixed.for_layers(layers) == [fixed] * layers
    assert BlockPattern.full(5).for_layers(2) == [BlockPattern.full(5)] * 2


def test_the_drawing():
    p = (
        BlockPattern.window(4, 1)
        | BlockPattern.global_(4, (0,))
        | BlockPattern.from_grid(torch.eye(4).roll(1, 1).int())
    )
    assert str(p) == ("BlockPattern(4 blocks, 1 head, density 0.750)\nG G G G\nG W O ·\nG · W O\nG · · W")
    assert repr(p) == str(p).splitlines()[0]
    assert str(BlockPattern.window(2, 1) | BlockPattern.random(2, 0, heads=2)).count("head 1") == 1
    assert "\n" not in str(BlockPattern.window(41))


def test_patterns_cannot_be_changed():
    p = BlockPattern.bigbird(8)
    before = p.grid().clone()
    p.grid().fill_(False), p.kinds().fill_(0)
    p.neighbours()[0].fill(0)
    assert torch.equal(p.grid(), before)
    with pytest.raises(ValueError, match="read-only"):
        p._keys[:] = 0


@pytest.mark.parametrize(
    ("build", "error", "says"),
    [
        (lambda: BlockPattern.window(8, 4), ValueError, "width=4 is even.*use 3 or 5"),
        (lambda: BlockPattern.window(8, 0), ValueError, "width=0 is too small; it must be at least 1"),
        (lambda: BlockPattern.window(8, -3), ValueError, "width=-3 is too small"),
        (lambda: BlockPattern.window(8, 3.0), TypeError, "width must be a whole number, not 3.0"),
        (lambda: BlockPattern.dilated(8, 3, 0), ValueError, "step=0 is too small; it must be at least 1"),
        (lambda: BlockPattern.dilated(8, 2, 3), ValueError, "window width=2 is even"),
        (lambda: BlockPattern.window(0), ValueError, "n_blocks=0 is too small"),
        (lambda: BlockPattern.full(True), TypeError, "n_blocks must be a whole number, not True"),
        (lambda: BlockPattern.global_(8, (8,)), ValueError, "global block 8 is out of range: .* -8 to 7"),
        (lambda: BlockPattern.global_(8, (-9,)), ValueError, "global block -9 is out of range"),
        (lambda: BlockPattern.global_tokens(8, (16,), 2), ValueError, "global token 16 is out of .* 16 .* -16 to 15"),
        (lambda: BlockPattern.global_tokens(8, (-17,), 2), ValueError, "global token -17 is out of range"),
        (lambda: BlockPattern.global_tokens(8, (0.5,), 2), TypeError, "a global token must be a whole number"),
        (lambda: BlockPattern.global_tokens(8, (0,), 0), ValueError, "block_size=0"),
        (lambda: BlockPattern.full(8).with_extra_globals(-1), ValueError, "extra global blocks=-1 is too small"),
        (lambda: BlockPattern.full(8).for_layers(-1), ValueError, "layers=-1 is too small"),
        (lambda: BlockPattern.random(8, -1), ValueError, "random blocks per row=-1 is too small"),
        (lambda: BlockPattern.random(8, 1, heads=0), ValueError, "heads=0 is too small"),
        (lambda: BlockPattern.random(8, 1, seed="x"), TypeError, "seed must be a whole number, not 'x'"),
        (lambda: BlockPattern.random(8, avoid=BlockPattern.full(9)), ValueError, "avoid has 9 blocks, the pattern 8"),
        (
            lambda: BlockPattern.random(8, heads=2, avoid=BlockPattern.random(8, heads=3)),
            ValueError,
            "avoid has 3 heads; with heads=2 it may have 1 or 2",
        ),
        (lambda: BlockPattern.bigbird(8, random=-1), ValueError, "per row=-1"),
        (
            lambda: BlockPattern.bigbird(8, plan="magic"),
            ValueError,
            "plan='magic' is not known; allowed: 'uniform', 'google', 'hf_train', 'hf_eval'",
        ),
        (lambda: BlockPattern.from_grid(torch.ones(2, 3)), ValueError, r"shape \(2, 3\) is not a pattern"),
        (lambda: BlockPattern.from_grid([[0, 2], [1, 0]]), ValueError, "a grid holds True and False"),
        (lambda: BlockPattern.from_grid(torch.ones(2, 2)), ValueError, "this one is float32"),
        (lambda: BlockPattern.from_grid([[0, 1], [1]]), ValueError, "the rows of a grid must be equally long"),
        (lambda: BlockPattern.global_(8, 0), TypeError, r"such as \(0, -1\), not 0"),
        (lambda: BlockPattern(*lists_of(4, -1)), ValueError, "key block -1 is out of range: allowed are 0 to 3, and 4"),
        (lambda: BlockPattern(*lists_of(4, 5)), ValueError, "key block 5 is out of range"),
        (lambda: BlockPattern.full(3) | BlockPattern.full(4), ValueError, "3 and 4 blocks cannot be joined"),
        (
            lambda: BlockPattern.random(3, heads=2) | BlockPattern.random(3, heads=3),
            ValueError,
            "2 and 3 heads cannot be joined",
        ),
        (lambda: BlockPattern.full(3) | torch.ones(3, 3), TypeError, "unsupported operand"),
        (lambda: BlockPattern.full(3).padded(2), ValueError, "n_blocks=2 is too small; it must be at least 3"),
        (lambda: BlockPattern.full(3).token_mask(0), ValueError, "block_size=0"),
        (lambda: BlockPattern.full(3).keys_per_query(-1), ValueError, "block_size=-1"),
    ],
)
def test_bad_input_gets_one_sentence(build, error, says):
    with pytest.raises(error, match=says):
        build()


def test_equal_means_the_same_blocks_for_the_same_reasons():
    diagonal = BlockPattern.window(5, 1)
    assert diagonal != BlockPattern.from_grid(torch.eye(5, dtype=torch.bool)) and diagonal != "diagonal"
    assert diagonal != BlockPattern.window(5, 3) and diagonal != BlockPattern.window(6, 1)
    p = BlockPattern.bigbird(7, heads=2)
    assert p.padded(9) == p.padded(8).padded(9) and p.padded(9).unpadded() is p
    by_hand = BlockPattern.window(2, 1).padded(3)
    assert by_hand == BlockPattern.window(2, 1).padded(3) | BlockPattern.global_(3, ())
    assert hash(by_hand) == hash(by_hand | BlockPattern.global_(3, ()))


def test_a_hash_is_the_same_in_every_process():
    assert hash(BlockPattern.bigbird(9, heads=2)) == HASH


def test_what_is_legal_at_the_edges():
    assert BlockPattern.bigbird(1).grid().all()
    assert BlockPattern.bigbird(2, random=5).density() == 1.0
    assert BlockPattern.bigbird(9, global_blocks=(), random=0) == BlockPattern.window(9)
    assert BlockPattern.bigbird(9, global_blocks=(0, 0, -9), random=0) == BlockPattern.bigbird(9, 3, (0,), 0)
    assert BlockPattern.bigbird(6, random=100).density() == 1.0
    assert BlockPattern.window(np.int64(6), width=np.int32(3)).n_blocks == 6


def test_copies_are_the_pattern_itself_and_pickles_get_a_number_of_their_own():
    for p in (BlockPattern.bigbird(9), BlockPattern.bigbird(9).padded(12)):
        assert copy.copy(p) is p and copy.deepcopy([p])[0] is p
        other = pickle.loads(pickle.dumps(p))
        assert other == p and other.number != p.number and lists.numbered(other.number) is other
        assert other.for_layers(3) == p.for_layers(3)
