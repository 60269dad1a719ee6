"""explore_pattern without a browser: settings in, bytes, numbers and words out."""

import re

import numpy as np
import pytest

pytest.importorskip("anywidget")
from bigbird_mini import BlockPattern
from bigbird_mini.graph import hops, spectral_gap
from bigbird_mini.viz import describe_pattern, explore_pattern
from bigbird_mini.viz.pattern_widget import PRESETS


def drawn(widget):
    return np.frombuffer(widget.kinds, np.uint8).reshape(widget.n_blocks, widget.n_blocks)


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        ({}, {}),
        ({"window": 7}, {"window": 7}),
        ({"random": 0}, {"random": 0}),
        ({"seed": 11}, {"seed": 11}),
        ({"layer": 3}, {"layer": 3}),
        ({"heads": 4}, {"heads": 4}),
        ({"n_global": 0}, {"global_blocks": ()}),
        ({"n_global": 1}, {"global_blocks": (0,)}),
        ({"n_global": 1, "random": 5, "seed": 2}, {"global_blocks": (0,), "random": 5, "seed": 2}),
        ({"plan": "hf_eval"}, {"plan": "hf_eval", "block_size": 64}),
    ],
)
def test_a_changed_setting_sends_the_kinds_of_the_real_pattern(change, settings):
    widget = explore_pattern(16)
    for name, value in change.items():
        setattr(widget, name, value)
    wanted = BlockPattern.bigbird(16, **settings)
    assert np.array_equal(drawn(widget), wanted.kinds()[0])
    assert widget.pattern == wanted and widget.problem == ""
    assert widget.figures.density == pytest.approx(wanted.density())


def test_arguments_are_settings_too():
    widget = explore_pattern(12, window=5, global_blocks=(3, -2), random=1, seed=4)
    assert widget.pattern == BlockPattern.bigbird(12, 5, global_blocks=(3, -2), random=1, seed=4)
    assert widget.global_blocks == (3, -2) and "global 3 and 10" in widget.words
    widget.n_global = 1
    assert widget.pattern == BlockPattern.bigbird(12, 5, global_blocks=(3,), random=1, seed=4)
    more = explore_pattern(64, heads=3, plan="google", layer=2)
    assert more.pattern == BlockPattern.bigbird(64, heads=3, plan="google", layer=2)


def test_without_a_window_and_by_distance():
    widget = explore_pattern(16, window=0, seed=5)
    base = BlockPattern.global_(16)
    assert widget.pattern == base | BlockPattern.random(16, 3, seed=5, avoid=base)
    assert "window none" in widget.words
    widget.plan = "power_law"
    assert widget.pattern == base | BlockPattern.power_law(16, 3, seed=5, avoid=base)
    widget.random = 0
    assert widget.pattern == base


def test_the_head_that_is_shown():
    widget = explore_pattern(16, heads=3, seed=1)
    widget.head = 2
    assert np.array_equal(drawn(widget), widget.pattern.kinds()[2])
    assert not np.array_equal(drawn(widget), widget.pattern.kinds()[0]) and "head 2 of 3" in widget.words
    widget.heads = 2  # there is no head 2 any more
    assert (widget.head, widget.problem) == (1, "") and np.array_equal(drawn(widget), widget.pattern.kinds()[1])


def test_presets_set_the_sliders_and_sliders_leave_presets():
    widget = explore_pattern(64)
    assert widget.preset == "BigBird" and widget.ask
    for name, (settings, ask) in PRESETS.items():
        widget.preset = name
        assert widget.problem == "" and (widget.preset, widget.ask) == (name, ask)
        assert all(getattr(widget, field) == value for field, value in settings.items())
    assert widget.pattern == BlockPattern.bigbird(64, plan="hf_eval")
    widget.plan = "uniform"
    assert widget.preset == "BigBird"  # by its settings
    widget.random = 4
    assert widget.preset == "your own settings" and widget.ask not in {ask for _, ask in PRESETS.values()}
    widget.preset = "nonsense"
    assert "preset='nonsense' is not known" in widget.problem


def test_a_learner_can_see_where_the_released_code_puts_its_random_blocks():
    widget = explore_pattern(64)
    widget.preset = "released code: google"
    assert np.nonzero((drawn(widget) == 3).any(0))[0].max() <= 15  # only from the first 1,024 tokens
    widget.preset = "released code: hf_eval"
    assert not (drawn(widget) == 3).any()  # none at all
    counts = np.frombuffer(widget.counts, np.uint8).reshape(64, 64)
    assert np.array_equal(counts, widget.pattern.multiplicity()[0]) and counts[5, 0] == 4
    widget.preset = "BigBird"
    assert widget.counts == b""


def test_a_pattern_of_ones_own():
    p = BlockPattern.bigbird(12, heads=2, seed=3, window=5)
    widget = explore_pattern(p, block_size=8)
    assert widget.given and widget.heads == 2 and np.array_equal(drawn(widget), p.kinds()[0])
    widget.head = 1
    assert np.array_equal(drawn(widget), p.kinds()[1])
    widget.layer = 2
    assert widget.pattern == p.for_layers(3)[2]
    assert widget.lengths == []  # it has one length only
    widget.preset = "BigBird"
    assert not widget.given and widget.pattern == BlockPattern.bigbird(12, heads=2, layer=2)
    widget.preset = "the given pattern"
    assert widget.given and widget.pattern == p.for_layers(3)[2]


def test_numbers_beside_the_picture():
    widget = explore_pattern(16, block_size=32, heads=2)
    widget.head = 1
    p, f = widget.pattern, widget.figures
    n = 16 * 32
    assert f.score_bytes == int(p.token_mask(32)[1].sum()) * 4 and f.dense_bytes == n * n * 4
    keys = p.keys_per_query(32)[1]
    assert (f.keys_least, f.keys_median, f.keys_most) == (int(keys.min()), int(keys.median()), n)
    assert f.mean_hops == hops(p, 1).mean() and f.most_hops == hops(p, 1).max()
    assert f.gap == spectral_gap(p, 1) and f.unread == 0
    shown = dict(widget.rows)
    assert shown["hops between blocks"] == f"{f.mean_hops:.2f} on average, {f.most_hops:.0f} at most"
    assert shown["spectral gap"].startswith(f"{f.gap:.3f}")


def test_blocks_that_never_meet_and_blocks_that_nobody_reads():
    widget = explore_pattern(6, window=1, global_blocks=(), random=0)
    assert dict(widget.rows)["hops between blocks"] == "some blocks never meet"
    widget = explore_pattern(BlockPattern.from_grid([[1, 0, 0], [1, 1, 0], [1, 0, 0]]))
    assert dict(widget.rows)["read by nobody"] == "1 key block"


def test_wrong_settings_are_a_sentence_and_the_picture_stays():
    widget = explore_pattern(16)
    before, answers = widget.kinds, widget.answers
    widget.window = 4
    assert "indow width=4 is even" in widget.problem and widget.problem.endswith(".")
    assert widget.kinds == before and widget.pattern == BlockPattern.bigbird(16)
    assert widget.answers == answers + 1  # the browser knows that Python has answered
    widget.window = 5
    assert widget.problem == "" and widget.pattern == BlockPattern.bigbird(16, 5)
    widget.n_global = 3
    assert "n_global=3 is out of range; allowed are 0 to 2" in widget.problem
    widget.n_global = 2
    widget.layer = -1
    assert "layer=-1 is out of range" in widget.problem
    widget.layer = 0
    widget.plan = "google"
    assert "has window=3" in widget.problem
    widget.window = 3
    assert widget.problem == ""


def test_wrong_from_the_start_is_still_usable():
    widget = explore_pattern(16, window=4)
    assert "even" in widget.problem and widget.kinds == b""
    for name in ("pattern", "figures"):
        with pytest.raises(ValueError, match="even"):
            getattr(widget, name)
    data, _ = widget._repr_mimebundle_()
    assert "even" in data["text/plain"] and "image/png" not in data
    widget.window = 3
    assert widget.pattern == BlockPattern.bigbird(16)


@pytest.mark.parametrize("wrong", [{"n_blocks": 0}, {"n_blocks": 1025}, {"block_size": 0}])
def test_sizes_that_cannot_be_drawn_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        explore_pattern(**wrong)


def test_the_numbers_of_a_large_pattern_come_after_its_picture():
    widget = explore_pattern(192)
    assert dict(widget.rows)["spectral gap"] == "counting ..." and np.array_equal(
        drawn(widget), widget.pattern.kinds()[0]
    )
    widget.window = 5
    widget.window = 7  # only the newest is counted
    figures = widget.figures
    p = BlockPattern.bigbird(192, 7)
    assert widget.pattern == p and figures.gap == spectral_gap(p) and figures.mean_hops == hops(p).mean()
    assert dict(widget.rows)["spectral gap"].startswith(f"{figures.gap:.3f}") and f"{figures.gap:.3f}" in widget.words


def test_bundle_has_the_widget_and_a_still_picture_with_words():
    widget = explore_pattern(12)
    widget.window = 5
    data, _ = widget._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == widget.model_id
    assert data["image/png"] in data["text/html"]
    assert f'alt="{describe_pattern(widget.pattern)}' in data["text/html"]
    assert data["text/plain"] == repr(widget)


def test_repr_is_stable_and_in_words():
    one, two = explore_pattern(12), explore_pattern(12)
    assert repr(one) == repr(two) and one.model_id != two.model_id
    assert re.search("12 blocks of 64 tokens; window 3, global first and last, random 3, seed 0: density", repr(one))


def test_the_words_alone_answer_questions():
    widget = explore_pattern(12, random=2, seed=3, block_size=16)
    words, p = widget.description, widget.pattern
    # Which key blocks does query block 5 read at random?
    said = re.search(r"query block 5 reads: .*random ([\d and]+)", words)[1]
    assert {int(k) for k in re.findall(r"\d+", said)} == set(np.nonzero(p.kinds()[0, 5] == 3)[:, 0].tolist())
    # How many hops are there at most between two blocks?
    assert int(re.search(r"(\d+) at most", words)[1]) == hops(p).max()
    # What part of all block pairs is read?
    assert re.search(r"density: ([\d.]+%)", words)[1] == f"{p.density():.1%}"
