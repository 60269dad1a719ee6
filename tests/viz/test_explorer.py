"""explore_pattern without a browser: settings in, bytes and words out."""

import re

import numpy as np
import pytest

pytest.importorskip("anywidget")
from bigbird_mini import BlockPattern
from bigbird_mini.viz import describe_pattern, explore_pattern
from bigbird_mini.viz.explorer import bytes_in_words


def drawn(widget):
    return np.frombuffer(widget.kinds, np.uint8).reshape(widget.n_blocks, widget.n_blocks)


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        ({}, {}),
        ({"window": 7}, {"window": 7}),
        ({"random": 0}, {"random": 0}),
        ({"seed": 11}, {"seed": 11}),
        ({"n_global": 0}, {"global_blocks": ()}),
        ({"n_global": 1}, {"global_blocks": (0,)}),
        ({"n_global": 1, "random": 5, "seed": 2}, {"global_blocks": (0,), "random": 5, "seed": 2}),
    ],
)
def test_a_changed_setting_sends_the_kinds_of_the_real_pattern(change, settings):
    widget = explore_pattern(16)
    for name, value in change.items():
        setattr(widget, name, value)
    wanted = BlockPattern.bigbird(16, **settings)
    assert np.array_equal(drawn(widget), wanted.kinds()[0])
    assert widget.pattern == wanted and widget.problem == ""
    assert widget.facts["density"] == wanted.density()


def test_arguments_are_settings_too():
    widget = explore_pattern(12, window=5, global_blocks=(3, -2), random=1, seed=4)
    assert widget.pattern == BlockPattern.bigbird(12, 5, global_blocks=(3, -2), random=1, seed=4)
    assert widget.global_blocks == (3, -2) and "global 3 and 10" in widget.words
    widget.n_global = 1
    assert widget.pattern == BlockPattern.bigbird(12, 5, global_blocks=(3,), random=1, seed=4)


def test_numbers_beside_the_picture():
    widget = explore_pattern(16, block_size=32)
    p = widget.pattern
    n = 16 * 32
    assert widget.facts["score_bytes"] == int(p.token_mask(32).sum()) * 4
    assert widget.facts["dense_bytes"] == n * n * 4
    keys = p.keys_per_query(32)[0]
    assert (widget.facts["keys_least"], widget.facts["keys_most"]) == (int(keys.min()), n)
    assert f"density {p.density():.1%}" in widget.words


def test_wrong_settings_are_a_sentence_and_the_picture_stays():
    widget = explore_pattern(16)
    before = widget.kinds
    widget.window = 4
    assert "window width=4 is even" in widget.problem and widget.problem.endswith(".")
    assert widget.kinds == before and widget.pattern == BlockPattern.bigbird(16)
    widget.window = 5
    assert widget.problem == "" and widget.pattern == BlockPattern.bigbird(16, 5)
    widget.n_global = 3
    assert "n_global=3 is out of range; allowed are 0 to 2" in widget.problem


def test_wrong_from_the_start_is_still_usable():
    widget = explore_pattern(16, window=4)
    assert "even" in widget.problem and widget.kinds == b""
    with pytest.raises(ValueError, match="even"):
        _ = widget.pattern
    data, _ = widget._repr_mimebundle_()
    assert "even" in data["text/plain"] and "image/png" not in data
    widget.window = 3
    assert widget.pattern == BlockPattern.bigbird(16)


@pytest.mark.parametrize("wrong", [{"n_blocks": 0}, {"n_blocks": 257}, {"block_size": 0}])
def test_sizes_that_cannot_be_drawn_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        explore_pattern(**wrong)


def test_bundle_has_the_widget_and_a_still_picture_with_words():
    widget = explore_pattern(12)
    widget.window = 5
    data, _ = widget._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == widget.model_id
    assert data["image/png"] in data["text/html"]
    assert f'alt="{describe_pattern(widget.pattern)}"' in data["text/html"]
    assert data["text/plain"] == repr(widget)


def test_repr_is_stable_and_in_words():
    one, two = explore_pattern(12), explore_pattern(12)
    assert repr(one) == repr(two) and one.model_id != two.model_id
    assert re.search("12 blocks of 64 tokens; window 3, global first and last, random 3, seed 0: density", repr(one))


def test_every_focused_element_keeps_its_keys_in_jupyterlab():
    script = str(explore_pattern(4)._esm)
    for call in ('element("canvas"', 'element("input"'):
        assert all("...OWN_KEYS" in line for line in script.splitlines() if call in line)
    assert '"data-lm-suppress-shortcuts": "true"' in script


@pytest.mark.parametrize(
    ("count", "words"),
    [(512, "512 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (64 * 2**20, "64 MiB"), (2**41, "2,048 GiB")],
)
def test_bytes_in_words(count, words):
    assert bytes_in_words(count) == words
