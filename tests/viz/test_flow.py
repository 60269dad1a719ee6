"""explore_flow, draw_flow and their words against bigbird_mini.graph."""

import re
from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("anywidget")
from bigbird_mini import BlockPattern
from bigbird_mini.graph import hops, light_cone, paths
from bigbird_mini.viz import describe_flow, draw_flow, explore_flow
from bigbird_mini.viz.flow import Flow, joined_kinds, layers_of
from bigbird_mini.viz.show import encode

W = BlockPattern.window(20)
P = W | BlockPattern.random(20, 1, heads=2, seed=3, avoid=W)
SELFLESS = BlockPattern.from_grid(np.eye(6, k=1, dtype=bool) | np.eye(6, k=-2, dtype=bool))  # nobody reads himself


@pytest.mark.parametrize("p", [P, BlockPattern.bigbird(9, seed=1), SELFLESS], ids=["random", "bigbird", "selfless"])
@pytest.mark.parametrize("fresh", [True, False])
def test_a_flow_is_what_the_graph_says(p, fresh):
    for source in (0, p.n_blocks // 2):
        flow = Flow(layers_of(p, 5, fresh), source)
        cone = light_cone(list(flow.stack), source * 4, None, 4).reshape(6, p.n_blocks, 4).any(-1)
        for layer in range(6):
            assert np.array_equal((flow.heard >= 0) & (flow.heard <= layer), cone[layer])
            assert np.array_equal(flow.ways[layer], paths(flow.stack[:layer] or [p], layer)[:, source])
        assert flow.spread() == cone.sum(1).tolist()
        if not fresh:
            near = hops(p)[:, source]
            assert np.array_equal(flow.heard, np.where((near >= 0) & (near <= 5), near, -1))


def test_fresh_layers_differ_and_shared_ones_do_not():
    assert layers_of(P, 3, fresh=False) == (P, P, P)
    assert layers_of(P, 3, fresh=True) == tuple(P.for_layers(3)) and P.for_layers(2)[1] != P
    assert layers_of([P, W, P], 2, fresh=True) == (P, W)


def test_every_path_is_one_that_can_be_walked():
    flow = Flow(layers_of(P, 6, True), 7)
    for target in np.flatnonzero(flow.heard >= 0):
        path = flow.path(target)
        assert path[0] == 7 and path[-1] == target
        for before, after in pairwise(path):
            layer = flow.heard[after]
            assert flow.heard[before] < layer and bool(flow.stack[layer - 1].grid()[:, after, before].any())
    far = Flow((W,) * 3, 0)
    assert far.path(9) == [] and far.path(0) == [0] and far.path(3) == [0, 1, 2, 3]


def test_joined_kinds_takes_the_strongest_of_all_heads():
    p = BlockPattern.window(4, 1) | BlockPattern.global_(4, (0,)) | BlockPattern.random(4, 2, heads=2, seed=1)
    kinds = p.kinds().numpy()
    strongest = {0: 0, 2: 4, 1: 3, 3: 2, 4: 1}  # global, window, random, other
    wanted = np.vectorize(lambda a, b: max(a, b, key=strongest.get))(*kinds)
    assert np.array_equal(joined_kinds(p), wanted)


def test_widget_follows_its_settings():
    widget = explore_flow(P, token=130, layers=4, block_size=16)
    assert widget.problem == "" and widget.source == 8 and widget.drawn
    flow = Flow(tuple(P.for_layers(4)), 8)
    assert widget.heard == flow.heard.tolist() and widget.told_by == flow.told_by.tolist()
    assert np.array_equal(np.frombuffer(widget.kinds, np.uint8).reshape(4, 20, 20), np.stack(flow.kinds))
    assert widget.heard[widget.target] == max(widget.heard)  # a block that hears last
    widget.fresh = False
    flow = Flow((P,) * 4, 8)
    assert widget.heard == flow.heard.tolist() and len(widget.kinds) == 400  # one table for all layers
    widget.token = 3
    assert widget.source == 0 and widget.heard[0] == 0
    widget.target = 1
    assert widget.path_words.startswith("Block 1 hears of block 0 in layer 1")
    fresh, shared = ([int(k) for k in row[1:]] for row in widget.rows)
    assert fresh == Flow(tuple(P.for_layers(4)), 0).spread()[1:] and shared == Flow((P,) * 4, 0).spread()[1:]


def test_several_patterns_to_compare():
    widget = explore_flow({"near": W, "with random": P}, layers=3)
    assert widget.names == ["near", "with random"] and not widget.drawn and widget.words.startswith("near: ")
    before = widget.heard
    widget.chosen = "with random"
    assert widget.drawn and widget.heard != before
    widget.chosen = "nothing"
    assert "chosen='nothing' is no pattern" in widget.problem and widget.flow.n_blocks == 20
    widget.chosen = "near"
    assert widget.problem == "" and widget.heard == before


def test_a_list_of_layers():
    widget = explore_flow([W, P, W], layers=3)
    assert not widget.drawn and widget.flow.stack == (W, P, W)
    assert np.array_equal(np.frombuffer(widget.kinds, np.uint8).reshape(3, 20, 20)[1], joined_kinds(P))


def test_wrong_settings_are_a_sentence_and_the_picture_stays():
    widget = explore_flow(P, 0, layers=2)
    before = widget.heard
    widget.token = 20 * 64
    assert "token=1280 is out of range: allowed are 0 to 1279" in widget.problem and widget.heard == before
    widget.token = 0
    widget.target = 20
    assert "target=20 is out of range" in widget.problem
    widget.target = 3
    assert widget.problem == ""


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((BlockPattern.window(257),), ValueError, "at most 256"),
        (({"a": W, "b": BlockPattern.window(4)},), ValueError, r"patterns of \[4, 20\] blocks"),
        (({},), ValueError, "no pattern"),
        (([W, W],), ValueError, "layers=6 is too large; 'pattern' has patterns for 2 layers"),
        (([],), TypeError, "'pattern' must be a BlockPattern"),
        ((W, 0, 49), ValueError, "at most 48"),
        ((W, 0, 0), ValueError, "layers=0"),
    ],
)
def test_what_cannot_be_shown_is_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        explore_flow(*arguments)


def test_the_still_picture_shows_ring_matrix_and_cone():
    fig = draw_flow(P, 7, 4, target=15)
    ring, matrix, cone = (ax for sub in fig.subfigs for ax in sub.axes if ax.get_label() != "<colorbar>")
    flow = Flow(tuple(P.for_layers(4)), 7)
    numbers = [int(t.get_text()) for t in ring.texts][: 2 * 20]
    assert len(numbers) == 40 - (flow.heard < 0).sum()
    assert np.array_equal(matrix.images[0].get_array(), flow.kinds[-1])
    seen = ~np.ma.getmaskarray(cone.images[0].get_array())
    assert seen.sum(1).tolist() == flow.spread()
    assert cone.lines[0].get_xdata().tolist() == flow.path(15)
    assert encode(fig)[1].startswith(b"\x89PNG")


def test_bundle_and_repr():
    widget = explore_flow(P, 0, layers=3)
    data, _ = widget._repr_mimebundle_()
    assert data["image/png"] in data["text/html"] and "News of block 0" in data["text/html"]
    assert repr(widget) == repr(explore_flow(P, 0, layers=3)) and repr(widget).startswith("FlowExplorer: 20 blocks")


def test_the_words_alone_answer_questions():
    words = describe_flow(P, 7, 4, fresh=True, target=15)
    flow = Flow(tuple(P.for_layers(4)), 7)
    # How many blocks know after two layers?
    assert int(re.search(r"(\d+) after 2 layers", words)[1]) == flow.spread()[2]
    # In which layer does block 12 hear of it?
    layer = next(line for line in words.splitlines() if line.startswith("Layer") and 12 in numbers(line.split(":")[1]))
    assert int(layer.split()[1]) == flow.heard[12]
    # By which blocks does it come to block 15, and in how many ways?
    line = next(line for line in words.splitlines() if line.startswith("Block 15"))
    steps = re.findall(r"(?:: |→ )(\d+)", line)
    assert [int(k) for k in steps] == flow.path(15)
    ways = flow.ways[flow.heard[15], 15]
    assert ("one way only" in line) if ways == 1 else (f"in {ways:,.0f} ways" in line)
    assert "It has not reached" in describe_flow(W, 0, 2) and "has not heard" in describe_flow(W, 0, 2, target=9)


def numbers(text):
    """The numbers of a list in words: "4-6 and 9" -> {4, 5, 6, 9}."""
    found = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", text):
        found |= set(range(int(first), int(last or first) + 1))
    return found
