"""The figures: the right cells, marks beside colours, labels where they should be."""

import numpy as np
import pytest
import torch

pytest.importorskip("matplotlib")
from matplotlib.colors import to_hex

from bigbird_mini import BlockPattern
from bigbird_mini.viz import COLOURS, draw_lines, draw_pattern, draw_weights
from bigbird_mini.viz.show import encode


def letters(ax):
    return {(round(t.get_position()[1]), round(t.get_position()[0])): t.get_text() for t in ax.texts}


def test_every_cell_has_its_colour_and_its_letter():
    p = BlockPattern.bigbird(12, random=2) | BlockPattern.from_grid(torch.eye(12, dtype=torch.bool).flip(0))
    kinds = p.kinds()[0].numpy()
    ax = draw_pattern(p).axes[0]
    picture = ax.images[0]
    colours = picture.to_rgba(picture.get_array())
    for i, j in np.ndindex(12, 12):
        wanted = COLOURS[kinds[i, j]].lower() if kinds[i, j] else "#ffffff"
        assert to_hex(colours[i, j]) == wanted
    assert letters(ax) == {(i, j): " WGRO"[kinds[i, j]] for i, j in np.ndindex(12, 12) if kinds[i, j]}
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("key block", "query block")


def test_large_patterns_mark_random_with_dots_and_global_with_strokes():
    p = BlockPattern.bigbird(64)
    kinds = p.kinds()[0].numpy()
    fig = draw_pattern(p)
    ax = fig.axes[0]
    assert not ax.texts
    x, y = ax.lines[0].get_data()
    assert set(zip(y, x, strict=True)) == set(zip(*np.nonzero(kinds == 3), strict=True))
    assert len(ax.collections[-1].get_segments()) == (kinds == 2).sum()
    assert [t.get_text() for t in fig.legends[0].get_texts()] == [
        "window",
        "global (stroke)",
        "random (dot)",
        "not read",
    ]


def test_several_side_by_side_with_titles():
    fig = draw_pattern([BlockPattern.window(6), BlockPattern.global_(6)], titles=["window", "global"])
    assert [ax.get_title() for ax in fig.axes] == ["window", "global"]
    assert set(letters(fig.axes[0]).values()) == {"W"} and set(letters(fig.axes[1]).values()) == {"G"}
    assert encode(fig)[1].startswith(b"\x89PNG")  # it really renders


def test_the_head_that_was_asked_for():
    p = BlockPattern.random(8, per_row=2, heads=2, seed=1)
    drawn = [draw_pattern(p, head=h).axes[0].images[0].get_array() for h in (0, 1)]
    assert all(np.array_equal(drawn[h], p.kinds()[h]) for h in (0, 1)) and not np.array_equal(*drawn)


def test_wrong_use_is_a_sentence():
    p = BlockPattern.window(4)
    with pytest.raises(ValueError, match="head 2 is out of range"):
        draw_pattern(BlockPattern.random(4, heads=2), head=2)
    with pytest.raises(ValueError, match="1 titles for 2 patterns"):
        draw_pattern([p, p], titles=["one"])
    with pytest.raises(ValueError, match="no pattern"):
        draw_pattern([])
    with pytest.raises(ValueError, match="logarithmic axis needs values above 0"):
        draw_lines([1, 2], {"a": [0, 1]}, "x", "y")
    with pytest.raises(ValueError, match="'a' has 1 values, x has 2"):
        draw_lines([1, 2], {"a": [1]}, "x", "y")
    with pytest.raises(ValueError, match="no line"):
        draw_lines([1, 2], {}, "x", "y")
    with pytest.raises(ValueError, match="no matrix"):
        draw_weights(torch.zeros(3))


def test_weights_have_token_labels_and_numbers_but_none_where_nothing_is_read():
    w = torch.tensor([[0.25, 0.75], [0.0, 1.0]])
    ax = draw_weights(w, ["the", "cat"], title="head 0").axes[0]
    assert (
        [t.get_text() for t in ax.get_xticklabels()] == ["the", "cat"] == [t.get_text() for t in ax.get_yticklabels()]
    )
    assert letters(ax) == {(0, 0): ".25", (0, 1): ".75", (1, 0): "", (1, 1): "1.00"}
    assert ax.get_title() == "head 0"


def test_lines_differ_in_colour_and_shape_and_carry_their_names():
    fig = draw_lines([1, 2, 4], {"a": [1, 2, 3], "b": [1, 4, None], "c": [1, 2, 3.01]}, "n", "cost")
    ax = fig.axes[0]
    assert len({line.get_color() for line in ax.lines}) == len({line.get_marker() for line in ax.lines}) == 3
    assert {t.get_text(): tuple(t.xy) for t in ax.texts} == {"a": (4, 3), "b": (2, 4), "c": (4, 3.01)}
    assert {t.get_text(): t.get_color() for t in ax.texts} == {line.get_label(): line.get_color() for line in ax.lines}
    assert (ax.get_xscale(), ax.get_yscale()) == ("log", "log")
    encode(fig)
    boxes = {t.get_text(): t.get_window_extent() for t in ax.texts}
    assert not boxes["a"].overlaps(boxes["c"])  # their ends nearly coincide


def test_linear_axes_take_zero():
    ax = draw_lines([0, 1], {"a": [0, 1]}, "n", "hops", log=False).axes[0]
    assert (ax.get_xscale(), ax.get_yscale()) == ("linear", "linear")


def test_no_pyplot_figure_stays_open():
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    draw_pattern(BlockPattern.window(4))
    draw_weights(torch.eye(2))
    assert plt.get_fignums() == before
