"""The graph of a pattern against slow definitions, against a running model, and against the measured figures."""

import functools
import itertools
import math
import subprocess
import sys

import networkx as nx
import numpy as np
import pytest
import sympy
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bigbird_mini import BigBirdConfig, BigBirdModel, BlockPattern
from bigbird_mini.graph import (
    clustering,
    coverage,
    diameter,
    hops,
    in_degree,
    light_cone,
    mean_hops,
    paths,
    reach,
    spectral_gap,
)
from strategies import patterns


@st.composite
def with_head(draw, **more):
    """A pattern, one of its heads or None, and the grid (N, N) of lists that is meant."""
    p = draw(patterns(**more))
    head = draw(st.sampled_from([None, *range(p.heads)]))
    grid = p.grid()
    return p, head, (grid.any(0) if head is None else grid[head]).tolist()


@st.composite
def stacks(draw, max_blocks=8, heads=None):
    """One to three patterns of one size, or one pattern and a number of layers; and the list that is meant."""
    n = draw(st.integers(1, max_blocks))
    many = draw(st.integers(1, 3))
    if draw(st.booleans()):
        p = draw(patterns(n_blocks=n, heads=heads))
        return p, many, [p] * many
    listed = [draw(patterns(n_blocks=n, heads=heads)) for _ in range(many)]
    few = draw(st.sampled_from([None, *range(many + 1)]))
    return listed, few, listed[:few]


@functools.cache
def table(p):
    return [[any(p.grid()[:, i, j].tolist()) for j in range(p.n_blocks)] for i in range(p.n_blocks)]


def reads(p, i, j):
    """Does query block i read key block j, in any head?"""
    return table(p)[i][j]


def digraph(grid):
    g = nx.DiGraph()
    g.add_nodes_from(range(len(grid)))
    g.add_edges_from((i, j) for i, row in enumerate(grid) for j, read in enumerate(row) if read)
    return g


def ring(n, width):
    """The window of science.md 1.1, which closes into a ring; BlockPattern.window is clipped at both ends."""
    away = np.abs(np.arange(n)[:, None] - np.arange(n))
    return BlockPattern.from_grid(np.minimum(away, n - away) <= width // 2)


def taps(n, half, step):
    """A dilated window: every step-th block, ``half`` of them on each side."""
    away = np.abs(np.arange(n)[:, None] - np.arange(n))
    return BlockPattern.from_grid((away % step == 0) & (away <= half * step))


# ------------------------------------------------------------ against definitions


@given(with_head())
def test_hops_are_shortest_paths_of_the_reading_graph(case):
    p, head, grid = case
    n = p.n_blocks
    far = dict(nx.all_pairs_shortest_path_length(digraph(grid)))  # from a reader along what is read
    got = hops(p, head)
    assert got.tolist() == [[far[i].get(j, -1) for j in range(n)] for i in range(n)]
    if (got < 0).any():
        assert mean_hops(p, head) == diameter(p, head) == math.inf
    else:
        assert diameter(p, head) == nx.diameter(digraph(grid))
        assert mean_hops(p, head) == pytest.approx(sum(sum(row.values()) for row in far.values()) / n**2)


@given(stacks())
def test_reach_is_what_every_block_has_heard(case):
    given_patterns, layers, stack = case
    n = given_patterns[0].n_blocks if isinstance(given_patterns, list) else given_patterns.n_blocks
    heard = [{i} for i in range(n)]
    for p in stack:
        heard = [heard[i].union(*(heard[j] for j in range(n) if reads(p, i, j))) for i in range(n)]
    got = reach(given_patterns, layers)
    assert got.dtype == bool and [set(np.flatnonzero(row)) for row in got] == heard
    assert coverage(given_patterns, layers) == pytest.approx(sum(map(len, heard)) / n**2)


@given(with_head(max_blocks=10), st.integers(0, 10))
def test_hops_and_reach_agree(case, layers):
    p, _, _ = case
    h = hops(p)
    assert np.array_equal((h >= 0) & (h <= layers), reach(p, layers))


@given(stacks(max_blocks=5))
def test_paths_are_counted_one_by_one(case):
    given_patterns, layers, stack = case
    got = paths(given_patterns, layers)
    n = len(got)
    for i, j in np.ndindex(n, n):
        count = 0
        for between in itertools.product(range(n), repeat=max(len(stack) - 1, 0)):
            way = [j, *between, i]  # where the news is before each layer, and after the last
            steps = zip(stack, way, way[1:], strict=False)
            count += all(a == b or reads(p, b, a) for p, a, b in steps) and (len(stack) > 0 or i == j)
        assert got[i, j] == count
    assert np.array_equal(got > 0, reach(given_patterns, layers))


@settings(max_examples=40, deadline=None)
@given(with_head(max_blocks=5))
def test_spectral_gap_from_the_exact_characteristic_polynomial(case):
    p, head, grid = case
    rows = [row if any(row) else [i == j for j in range(len(grid))] for i, row in enumerate(grid)]
    exact = sympy.Matrix([[sympy.Rational(int(x), sum(row)) for x in row] for row in rows])
    x = sympy.Symbol("x")
    sizes = []
    for factor, times in sympy.factor_list(exact.charpoly(x).as_expr(), x)[1]:  # each root once in each factor
        sizes += [float(abs(root)) for root in sympy.Poly(factor, x).nroots(n=30)] * times
    want = 1 - sorted([0.0, *sizes])[-2]  # a single block has nobody to mix with
    # a root that occurs k times is known to about (machine epsilon) ** (1 / k)
    got = spectral_gap(p, head)
    assert got == pytest.approx(want, abs=1e-3) and 0 <= got <= 1


@pytest.mark.parametrize(("n", "width"), [(7, 3), (20, 5), (128, 7)])
def test_spectral_gap_of_a_ring_has_a_formula(n, width):
    k = np.arange(1, n)
    second = np.abs(np.sin(np.pi * width * k / n) / (width * np.sin(np.pi * k / n))).max()
    assert spectral_gap(ring(n, width)) == pytest.approx(1 - second, abs=1e-9)


def test_spectral_gap_at_the_ends():
    assert spectral_gap(BlockPattern.full(9)) == pytest.approx(1.0)
    assert spectral_gap(BlockPattern.full(1)) == 1.0
    assert spectral_gap(BlockPattern.window(9, 1)) == 0.0
    assert spectral_gap(BlockPattern.global_(9, ())) == 0.0  # nobody reads anything, everybody keeps what they have
    swap = BlockPattern.from_grid([[0, 1], [1, 0]])  # -1 is an eigenvalue: the two blocks swap for ever
    assert spectral_gap(swap) == pytest.approx(0.0)
    assert spectral_gap(swap | BlockPattern.window(2, 1)) == pytest.approx(1.0)


@given(with_head())
def test_clustering_is_that_of_networkx_and_in_degree_a_count(case):
    p, head, grid = case
    n = p.n_blocks
    undirected = nx.Graph(digraph(grid).to_undirected())
    undirected.remove_edges_from([(i, i) for i in range(n)])
    assert clustering(p, head) == pytest.approx(nx.average_clustering(undirected))
    degree = in_degree(p, head)
    assert degree.tolist() == [sum(grid[i][j] for i in range(n)) for j in range(n)]


@given(stacks(), st.integers(1, 3), st.data())
def test_light_cone_token_by_token(case, b, data):
    given_patterns, layers, stack = case
    n = len(reach(given_patterns, layers)) * b
    token = data.draw(st.integers(0, n - 1))
    rows = [{token}]
    for p in stack:
        told = rows[-1]
        rows.append(told | {t for t in range(n) if any(reads(p, t // b, s // b) for s in told)})
    got = light_cone(given_patterns, token, layers, block_size=b)
    assert got.shape == (len(stack) + 1, n) and [set(np.flatnonzero(row)) for row in got] == rows


def test_what_was_looked_at_stays_as_it_was():
    p = BlockPattern.bigbird(9, heads=2)
    before = p.grid()
    for look in (hops, clustering, spectral_gap, in_degree):
        look(p), look(p, 1)
    assert torch.equal(p.grid(), before)


# ------------------------------------------------------------ against a running model


@settings(max_examples=60, deadline=None)
@given(stacks(max_blocks=6, heads=2), st.integers(1, 3), st.data())
def test_a_changed_token_changes_exactly_what_can_hear_of_it(case, b, data):
    _, _, stack = case
    assume(stack)
    n = stack[0].n_blocks * b
    token = data.draw(st.integers(0, n - 1))
    torch.manual_seed(0)
    config = BigBirdConfig(20, 16, len(stack), 2, 16, max_position_embeddings=n, block_size=b, initializer_range=0.3)
    net = BigBirdModel(config, pattern=stack).double().eval()
    ids = torch.arange(n) % 17 + 1
    other = ids.clone()
    other[token] = 19
    with torch.no_grad():
        a, z = (net(x[None]).last_hidden_state[0] for x in (ids, other))  # (n, 16)
    changed = ((a - z).abs().amax(-1) > 1e-11).numpy()  # (n,)
    assert np.array_equal(changed, light_cone(stack, token, None, b)[-1])
    assert np.array_equal(changed.reshape(-1, b).any(-1), reach(stack)[:, token // b])


# ------------------------------------------------------------ measured figures (science.md)


def test_hops_of_section_1_3():
    """64 blocks; the mean counts a block with itself."""
    window, globals_ = BlockPattern.window(64), BlockPattern.global_(64)
    assert mean_hops(window) == pytest.approx(21.3, abs=0.05) and diameter(window) == 63
    assert mean_hops(window) == pytest.approx((64**2 - 1) / (3 * 64))
    assert mean_hops(window | globals_) == pytest.approx(1.88, abs=0.005) and diameter(window | globals_) == 2
    both = [window | BlockPattern.random(64, 3, seed=seed, avoid=window) for seed in range(10)]
    assert np.mean([mean_hops(p) for p in both]) == pytest.approx(2.65, abs=0.02)
    assert {diameter(p) for p in both} == {5}


def test_hops_of_the_released_plan_of_section_1_3():
    """4096 tokens: random blocks from the first 1024 tokens alone hardly shorten the way."""
    released = BlockPattern.bigbird(64, heads=12, plan="google")
    drawn = BlockPattern.from_grid(released.kinds() == 3)  # none of them hits a block that is read already
    both = BlockPattern.window(64) | drawn
    assert mean_hops(both, 0) == pytest.approx(12.55, abs=0.005) and diameter(both, 0) == 51
    assert mean_hops(both) == pytest.approx(12.03, abs=0.005) and diameter(both) == 50  # all heads together
    assert {diameter(both, head) for head in range(12)} == {50, 51, 52}
    assert mean_hops(released, 0) == pytest.approx(1.83, abs=0.005) and diameter(released, 0) == 2
    assert (in_degree(drawn) > 0).nonzero()[0].tolist() == list(range(1, 16))


R6, R2, GLOBALS = (lambda n: BlockPattern.random(n, 6)), (lambda n: BlockPattern.random(n, 2)), (0, 1)
MIXTURES = {
    "W7": lambda n: ring(n, 7),
    "R6 + self": lambda n: R6(n) | BlockPattern.window(n, 1),
    "W5 + R2": lambda n: ring(n, 5) | R2(n),
    "W7 + G2": lambda n: ring(n, 7) | BlockPattern.global_(n, GLOBALS),
    "W5 + R2 + G2": lambda n: ring(n, 5) | R2(n) | BlockPattern.global_(n, GLOBALS),
}


@pytest.mark.parametrize(
    ("name", "second", "tolerance", "layers", "clusters"),
    [
        ("W7", (0.9952, 0.9988, 0.9997), 6e-5, 20710, 0.600),
        ("R6 + self", (0.46, 0.48, 0.52), 0.04, 9, 0.021),
        ("W5 + R2", (0.74, 0.75, 0.76), 0.03, 23, 0.129),
        ("W7 + G2", (0.774, 0.777, 0.778), 6e-4, 25, 0.784),
        ("W5 + R2 + G2", (0.58, 0.59, 0.59), 0.025, 12, None),
    ],
)
def test_spectra_and_clustering_of_section_1_1(name, second, tolerance, layers, clusters):
    """n = 128, 256, 512 blocks; the windows are rings, the globals the first two blocks, the random blocks seed 0's."""
    for n, value in zip((128, 256, 512), second, strict=True):
        gap = spectral_gap(MIXTURES[name](n))
        assert 1 - gap == pytest.approx(value, abs=tolerance)
    assert math.log(512) / -math.log(1 - gap) == pytest.approx(layers, rel=0.03)
    if clusters:
        assert clustering(MIXTURES[name](512)) == pytest.approx(clusters, abs=0.002 if "R" in name else 6e-4)


def test_coverage_with_shared_and_with_fresh_blocks_of_question_8c():
    n, shared = 512, BlockPattern.random(512, 3)
    fresh = [BlockPattern.random(n, 3, layer=layer) for layer in range(8)]
    same = [coverage(shared, layers) for layers in range(1, 9)]
    new = [coverage(fresh, layers) for layers in range(1, 9)]
    assert same == pytest.approx([0.008, 0.025, 0.075, 0.205, 0.463, 0.751, 0.894, 0.936], abs=0.035)
    assert new == pytest.approx([0.008, 0.031, 0.117, 0.377, 0.797, 0.982, 0.999, 1.000], abs=0.01)
    window = BlockPattern.window(n, 7)
    alone = [coverage(window, layers) for layers in range(1, 9)]
    assert alone == pytest.approx([0.014, 0.025, 0.037, 0.048, 0.060, 0.071, 0.082, 0.093], abs=6e-4)
    starred = window | BlockPattern.global_(n, (0, 1))
    assert coverage(starred, 1) == pytest.approx(0.021, abs=6e-4) and coverage(starred, 2) == 1.0
    assert coverage(window | shared, 4) == pytest.approx(0.983, abs=0.003)
    assert coverage([window | p for p in fresh], 4) == pytest.approx(0.994, abs=0.003)
    assert coverage(window | shared, 5) == 1.0
    mute = np.mean([(in_degree(BlockPattern.random(n, 3, seed=seed)) == 0).mean() for seed in range(20)])
    assert mute == pytest.approx(math.exp(-3), abs=0.006)  # nobody reads them, so a shared pattern never covers all


def test_dilated_windows_of_question_21():
    n = 512
    doubling = [taps(n, 1, 2**layer) for layer in range(9)]
    assert coverage(doubling, 8) < 1.0 == coverage(doubling)
    sevenfold = [taps(n, 3, 7**layer) for layer in range(4)]
    random = [BlockPattern.window(n, 7) | BlockPattern.random(n, 3, layer=layer) for layer in range(4)]
    assert coverage(sevenfold) == pytest.approx(0.873, abs=6e-4)
    assert np.median(paths(sevenfold)) == 1 and np.median(paths(random)) == 12
    draw = np.random.default_rng(0)

    def thinned(stack):  # one edge in ten is lost
        return [BlockPattern.from_grid(p.grid()[0].numpy() & (draw.random((n, n)) > 0.1)) for p in stack]

    # the 0.655 of science.md is one draw; draws lie at 0.642 +- 0.006
    assert np.mean([coverage(thinned(sevenfold)) for _ in range(5)]) == pytest.approx(0.655, abs=0.02)
    assert coverage(thinned(random)) == pytest.approx(0.976, abs=0.01)


# ------------------------------------------------------------ sizes, errors, imports


def test_large_patterns():
    h = hops(BlockPattern.window(1024))
    assert h.max() == 1023 and h[1000, 3] == 997
    million = light_cone(BlockPattern.bigbird(16384, heads=2), 70 * 64 + 5, 2, block_size=64)  # no N x N table
    assert million.shape == (3, 2**20) and million.sum(1).tolist()[::2] == [1, 2**20]


WIDE, TWO = BlockPattern.window(1025), BlockPattern.random(4, heads=2)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        *((lambda f=f: f(WIDE), ValueError, "1025 blocks is too large; at most 1024") for f in (hops, clustering)),
        *((lambda f=f: f(WIDE), ValueError, "1025 blocks is too large") for f in (mean_hops, spectral_gap, in_degree)),
        *((lambda f=f: f(WIDE, 0), ValueError, "1025 blocks is too large") for f in (reach, coverage, paths)),
        (lambda: hops(TWO.grid()), TypeError, "must be a BlockPattern, not Tensor"),
        (lambda: hops(TWO, 2), ValueError, "head=2 is out of range: allowed are 0 to 1, or None"),
        (lambda: clustering(TWO, -1), ValueError, "head=-1 is out of range"),
        (lambda: in_degree(TWO, 0.0), TypeError, "head must be a whole number, not 0.0"),
        (lambda: reach(TWO), ValueError, "layers=None goes with a list"),
        (lambda: reach(TWO, -1), ValueError, "layers=-1 is too small"),
        (lambda: reach([TWO], 2), ValueError, "layers=2 is too large; the list has patterns for 1 layers"),
        (lambda: reach([TWO, BlockPattern.full(3)]), ValueError, r"these 2 have \[3, 4\]"),
        (lambda: reach([]), ValueError, r"these 0 have \[\]"),
        (lambda: coverage([TWO, 7]), TypeError, "not int"),
        (lambda: paths(7, 2), TypeError, "a BlockPattern or a list of them, not int"),
        (lambda: paths(BlockPattern.full(10), 310), ValueError, "310 layers have more than 1e308 paths"),
        (lambda: light_cone(TWO, 8, 1, 2), ValueError, "token=8 is out of range: with 4 blocks of 2 .* 0 to 7"),
        (lambda: light_cone(TWO, -1, 1, 2), ValueError, "token=-1 is out of range"),
        (lambda: light_cone(TWO, 0, 1, 0), ValueError, "block_size=0 is too small"),
        (lambda: light_cone(TWO, 1.5, 1, 2), TypeError, "token must be a whole number, not 1.5"),
    ],
)
def test_bad_input_gets_one_sentence(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_graph_is_loaded_when_asked_for_and_needs_numpy_alone():
    code = (
        "import sys, torch; before = set(sys.modules); import bigbird_mini; print('bigbird_mini.graph' in sys.modules);"
        "from bigbird_mini import BlockPattern as B, graph as g; p = B.bigbird(9);"
        "g.spectral_gap(p), g.clustering(p), g.mean_hops(p), g.paths(p, 2), g.light_cone(p, 0, 2, 4);"
        "print({'networkx', 'scipy'} & (set(sys.modules) - before))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "set()"]
