"""What every instrument does: errors inside itself, a still picture, keys of its own."""

import re

import pytest

pytest.importorskip("anywidget")
import torch
from teaching import distillation
from training import trainer

from bigbird_mini import BigBirdConfig, BigBirdModel, BlockPattern
from bigbird_mini.viz import (
    explore_attention,
    explore_cost,
    explore_distillation,
    explore_flow,
    explore_pattern,
    paint_pattern,
    watch,
)
from bigbird_mini.viz.instrument import sentence

IDS = torch.arange(29)[None] % 9
ALL = {
    "pattern": lambda: explore_pattern(8),
    "flow": lambda: explore_flow(BlockPattern.bigbird(8), layers=2),
    "cost": explore_cost,
    "watch": lambda: watch(trainer(), dials={"weight": 1.0}),
    "distillation": lambda: explore_distillation(distillation()),
    "paint": lambda: paint_pattern(8),
    "attention": lambda: explore_attention(BigBirdModel(BigBirdConfig(9, 8, 2, 2, 16, block_size=4)), IDS),
}
SETTING = {
    "pattern": ("seed", 1),
    "flow": ("token", 70),
    "cost": ("tokens", 8192),
    "watch": ("dials", {"weight": 2.0}),
    "distillation": ("layer", 1),
    "paint": ("task", "lookup"),
    "attention": ("layer", 1),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("tensors on cuda:0 and cpu"), "RuntimeError: tensors on cuda:0 and cpu."),
        (KeyboardInterrupt(), "Interrupted. Change a setting to go on."),
        (ValueError("n=3 is odd.\nUse 4."), "n=3 is odd. Use 4."),
        (MemoryError(), "MemoryError: no reason was given."),
    ],
)
def test_a_failure_is_shown_and_the_next_change_works(name, error, words, monkeypatch):
    widget = ALL[name]()
    setting, value = SETTING[name]
    before = repr(widget)

    def fails():
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(widget, "_update", fails)
        widget._attempt(widget._update)
        assert widget.problem == words and words in repr(widget)
    answers = widget.answers
    setattr(widget, setting, value)
    assert widget.problem == "" and widget.answers == answers + 1 and repr(widget) != before


@pytest.mark.parametrize("name", ALL)
def test_the_still_picture_stands_beside_the_widget(name):
    widget = ALL[name]()
    data, _ = widget._repr_mimebundle_()
    assert set(data) >= {"text/plain", "text/html", "image/png", "application/vnd.jupyter.widget-view+json"}
    words = re.search(r'alt="([^"]+)"', data["text/html"])[1]
    assert len(words) > 100 and data["text/plain"] == repr(widget)


@pytest.mark.parametrize("name", ALL)
def test_one_text_without_imports_or_addresses(name):
    script = str(ALL[name]()._esm)
    assert not re.search(r"^\s*import\b|https?://|@import", script, re.M)
    assert script.count("export default") == 1 and len(script.encode()) < 40_000


@pytest.mark.parametrize("name", ALL)
def test_everything_that_can_be_focused_keeps_its_keys_in_jupyterlab(name):
    script = str(ALL[name]()._esm)
    assert '"data-lm-suppress-shortcuts": "true"' in script
    calls = re.findall(
        r'element\("(?:input|select|button|summary)"[^;]*?\)|element\("canvas", \{ tabindex[^;]*', script
    )
    assert len(calls) >= 5 and all("...OWN_KEYS" in call for call in calls)


def test_sentences():
    assert sentence(ValueError("the width is 3")) == "The width is 3."
    assert sentence(TypeError("p_x is a str.")) == "p_x is a str."
