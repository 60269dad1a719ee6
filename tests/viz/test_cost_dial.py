"""explore_cost, draw_cost and their words against bigbird_mini.cost."""

import re
from dataclasses import replace

import pytest

pytest.importorskip("anywidget")
from bigbird_mini import BigBirdConfig, BlockPattern
from bigbird_mini.cost import attention_flops, layer_bytes, longest, model_cost
from bigbird_mini.viz import describe_cost, draw_cost, explore_cost
from bigbird_mini.viz.cost import WAYS, Cost, gigabytes, lengths
from bigbird_mini.viz.show import encode

BASE = BigBirdConfig()
SMALL = replace(BASE, hidden_size=96, num_attention_heads=6, intermediate_size=100, block_size=32, num_hidden_layers=3)
FULL = BlockPattern.full(1)


@pytest.mark.parametrize("mode", ["layer", "inference", "training"])
def test_bytes_are_those_of_the_cost_room(mode):
    for config in (BASE, SMALL):
        cost = Cost(config, mode=mode)
        b = config.block_size

        def held(p, size, fused, config=config):
            if mode == "layer":
                return layer_bytes(config, p, size, 0 if fused else 2)
            return model_cost(config, p, size, mode == "training", fused=fused).bytes

        for blocks in (3, 20, 127, 129, 300):
            n = blocks * b
            assert cost.bytes("dense", n) == held(FULL, n, False) and cost.bytes("fused", n) == held(FULL, n, True)
            assert cost.bytes("sparse", n) == held(BlockPattern.bigbird(blocks), b, False)
            assert cost.bytes("sparse", n - 1) == cost.bytes("sparse", n)  # a whole block


def test_a_whole_model_in_training_holds_the_wrong_count_in_every_layer():
    one, three = (Cost(replace(SMALL, num_hidden_layers=k), mode="training") for k in (1, 3))
    for n in (512, 1024):
        extra = [cost.bytes("wrong", n) - cost.bytes("fused", n) for cost in (one, three)]
        assert extra[1] == 3 * extra[0] == 3 * 4 * n * n * 96 - 0


def test_the_popular_question_and_its_answers():
    cost = Cost(replace(BASE, intermediate_size=2048), memory=11)
    assert abs(cost.longest("wrong") - 1886) <= 1  # the answer given, with 7 vectors for its 6
    right = Cost(BASE, memory=11)
    assert right.longest("dense") == 10_516  # scores and weights
    assert right.longest("dense") == longest(11e9, lambda n: layer_bytes(BASE, FULL, n))
    assert 110_000 < right.longest("sparse") < 120_000
    assert right.bytes("sparse", right.longest("sparse")) <= 11e9 < right.bytes("sparse", right.longest("sparse") + 64)


def test_flops_and_break_even():
    cost = Cost(SMALL, tokens=9600)
    assert cost.flops("dense") == cost.flops("fused") == attention_flops(FULL, 9600, 16, 6)
    assert cost.flops("sparse") == attention_flops(BlockPattern.bigbird(300), 32, 16, 6)
    n = cost.break_even
    assert BlockPattern.bigbird(n // 32).density() < 1 <= BlockPattern.bigbird(n // 32 - 1).density()
    never = Cost(replace(SMALL, global_blocks=(), num_random_blocks=300))
    assert never.break_even == 0 and "reads no fewer" in describe_cost(never.config)


def test_dials_change_config_and_curves():
    widget = explore_cost()
    assert widget.config == BASE and widget.fits["dense"] == 10_516
    widget.width, widget.heads = 1536, 24
    assert widget.config == replace(BASE, hidden_size=1536, num_attention_heads=24, intermediate_size=6144)
    widget.mode, widget.layers, widget.memory, widget.tokens = "training", 3, 24.0, 8192
    cost = Cost(replace(widget.config, num_hidden_layers=3), 8192, 24.0, "training")
    assert widget.cost == cost and widget.problem == ""
    assert widget.fits == {way: cost.longest(way) for way in WAYS}
    assert widget.curves == {way: [cost.bytes(way, n) for n in lengths()] for way in WAYS}
    shown = {name: values for name, *values in widget.rows}
    assert shown["bytes at 8,192 tokens"] == [gigabytes(cost.bytes(way)) for way in WAYS]
    assert shown["fits 24 GB up to"] == [f"{cost.longest(way):,}" for way in WAYS]


def test_wrong_dials_are_a_sentence_and_the_chart_stays():
    widget = explore_cost()
    before = widget.curves
    widget.heads = 7
    assert widget.problem.startswith("hidden_size=768 is not a multiple of num_attention_heads=7")
    assert widget.curves == before and widget.config == BASE
    widget.heads = 12
    assert widget.problem == ""
    for name, value in {"tokens": 0, "memory": 0.0, "mode": "dreaming"}.items():
        good = getattr(widget, name)
        setattr(widget, name, value)
        assert f"{name}={value!r}" in widget.problem
        setattr(widget, name, good)
        assert widget.problem == ""
    with pytest.raises(TypeError, match="a BigBirdConfig is needed here, not dict"):
        explore_cost({})


def test_nothing_fits():
    widget = explore_cost(memory=0.001)
    assert set(widget.fits.values()) == {0} and "nothing" in str(widget.rows)
    assert "does not fit at any length" in widget.description


def test_the_still_picture_has_every_way_and_where_it_stops_fitting():
    ax = draw_cost(BASE).axes[0]
    cost = Cost(BASE)
    named = {line.get_label(): line for line in ax.lines if not line.get_label().startswith("_")}
    assert set(named) == set(WAYS.values())
    for way, name in WAYS.items():
        assert named[name].get_ydata().tolist() == [cost.bytes(way, n) for n in lengths()]
    assert (
        len({line.get_marker() for line in named.values()}) == len({line.get_color() for line in named.values()}) == 4
    )
    rings = {int(line.get_xdata()[0]) for line in ax.lines if line.get_markersize() == 11}
    assert rings == {cost.longest(way) for way in WAYS}
    assert encode(ax.figure)[1].startswith(b"\x89PNG")


def test_bundle_and_repr():
    widget = explore_cost(SMALL, tokens=2048)
    data, _ = widget._repr_mimebundle_()
    assert data["image/png"] in data["text/html"] and "dense, plain" in data["text/html"]
    assert repr(widget) == repr(explore_cost(SMALL, tokens=2048))
    assert repr(widget).startswith("CostExplorer: one layer, forward, width 96, 6 heads, 3 layers, 2,048 tokens")


def test_the_words_alone_answer_questions():
    words = describe_cost(BASE, 8192, 11, "layer")
    cost = Cost(BASE, 8192)
    # Up to which length does dense attention fit?
    assert re.search(r"dense, plain: .* fits up to ([\d,]+)", words)[1] == f"{cost.longest('dense'):,}"
    # How many bytes does the sparse way take?
    assert f"sparse, plain: {gigabytes(cost.bytes('sparse'))} at 8,192 tokens" in words
    # From which length does it read fewer scores, and what is wrong with the textbook's answer?
    assert f"from {cost.break_even:,} tokens on" in words
    assert f"it stops at {cost.longest('wrong'):,} tokens" in words and "n² x 12" in words


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (12, "12 B"),
        (999_499, "999 kB"),
        (999_600, "1 MB"),
        (9.66e9, "9.66 GB"),
        (1.2e16, "12 PB"),
        (1234e15, "1,234 PB"),
    ],
)
def test_gigabytes(count, words):
    assert gigabytes(count) == words
