"""explore_distillation: missed mass and distance against loops, what is sent, and the words."""

import re
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("anywidget")
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from teaching import distillation
from training import trainer

from bigbird_mini import BlockPattern, attention
from bigbird_mini.viz import describe_distillation, draw_distillation, explore_distillation
from bigbird_mini.viz.distillation import Comparison, cell_words, comparison_of, in_blocks
from bigbird_mini.viz.show import encode
from strategies import patterns

LONG = 60


def found(p, n=None, heads=2, teacher_heads=None, block_size=3, seed=0, tokens=None, layers=1):
    """What compare() returns: random softmaxes, the student's within its pattern; n: tokens, the rest is padding."""
    size = p.n_blocks * block_size
    n = size if n is None else n
    generator = torch.Generator().manual_seed(seed)

    def weights(h, mask):
        scores = torch.randn(h, size, size, generator=generator) * 2
        real = torch.arange(size) < n
        return scores.masked_fill(~(mask & real), -torch.inf).softmax(-1).nan_to_num(0.0)

    everything = torch.ones(1, size, size, dtype=torch.bool)
    t = [weights(teacher_heads or heads, everything) for _ in range(layers)]
    s = [weights(heads, p.token_mask(block_size)) for _ in range(layers)]
    words = [f"w{k}" for k in range(n)] if tokens is None else tokens
    return SimpleNamespace(teacher=t, student=s, patterns=[p] * layers, block_size=block_size, tokens=words)


BB = BlockPattern.bigbird(6, 3, (0,), 1, heads=2, seed=4)


@pytest.mark.parametrize("n", [18, 16])
@pytest.mark.parametrize("p", [BB, BlockPattern.window(6, 1)], ids=["bigbird", "window"])
def test_missed_mass_and_distance_against_a_loop(p, n):
    raw = found(p, n)
    made = comparison_of(raw)
    t, s, mask = raw.teacher[0], raw.student[0], p.token_mask(3)
    for head in (0, 1):
        for i in range(n):
            missed = sum(float(t[head, i, j]) for j in range(n) if not mask[head % p.heads, i, j])
            far = sum(abs(float(t[head, i, j] - s[head, i, j])) for j in range(n)) / 2
            assert made.missed(0, head)[i] == pytest.approx(missed, abs=1e-5)
            assert made.distance(0, head)[i] == pytest.approx(far, abs=1e-5)
    assert made.missed(0) == pytest.approx((made.missed(0, 0) + made.missed(0, 1)) / 2, abs=1e-6)
    (missed,), (far,) = made.means()
    assert (missed, far) == pytest.approx((made.missed(0).mean(), made.distance(0).mean()))


@settings(max_examples=30, deadline=None)
@given(patterns(max_blocks=6), st.integers(0, 99))
def test_no_student_comes_closer_than_its_missed_mass(p, seed):
    if not bool(p.grid().any(-1).all()):
        return  # a query that reads nothing
    made = comparison_of(found(p, heads=p.heads, block_size=2, seed=seed))
    for head in (-1, *range(p.heads)):
        assert (made.distance(0, head) >= made.missed(0, head) - 1e-5).all()
    # and the teacher's own weights, made to sum to 1 on the student's keys, come that close
    read = made.read(0)
    best = made.teacher[0] * read
    best = best / best.sum(-1, keepdim=True)
    near = Comparison(made.teacher, (best,), made.patterns, made.block_size, made.tokens)
    assert near.distance(0) == pytest.approx(made.missed(0), abs=1e-5)


def test_in_blocks_against_a_loop():
    table = np.random.default_rng(0).random((7, 7)).astype(np.float32)
    edges = [(0, 3), (3, 6), (6, 7)]
    for rows_only in (False, True):
        for i, (a, b) in enumerate(edges):
            for j, (c, d) in enumerate(edges):
                part = table[a:b, c:d]
                wanted = part.mean() if rows_only else part.sum(1).mean()
                assert in_blocks(table, 3, rows_only)[i, j] == pytest.approx(wanted, rel=1e-5)
    assert in_blocks(table / table.sum(1, keepdims=True), 3).sum(1) == pytest.approx(1)


def test_unlike_heads_are_compared_by_their_means():
    made = comparison_of(found(BlockPattern.window(6, 3), heads=2, teacher_heads=4))
    assert made.heads == 0
    t, s, _ = made.maps(0)
    assert made.distance(0) == pytest.approx(np.abs(t - s).sum(1) / 2, abs=1e-6)
    with pytest.raises(ValueError, match="head=1 is out of range; allowed is -1"):
        describe_distillation(made, 0, 1)


def test_block_weights_are_taken_too():
    q, k, v = torch.randn(3, 1, 2, 18, 4).unbind()
    _, s = attention(q, k, v, BB, return_weights=True)
    _, t = attention(q, k, v, BlockPattern.full(6), return_weights=True)
    made = comparison_of(SimpleNamespace(teacher=[t], student=[s], patterns=BB, block_size=3))
    assert torch.equal(made.student[0], s.dense()[0]) and made.tokens[17] == "17"


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"teacher": []}, ValueError, "0 layers of the teacher, 1 of the student and 1 patterns"),
        ({"student": [torch.ones(2, 18, 17)]}, ValueError, r"shape \(2, 18, 17\); one text is compared"),
        ({"student": [np.ones((2, 18, 18))]}, TypeError, "not ndarray"),
        ({"teacher": [torch.full((2, 18, 18), 0.02)]}, ValueError, r"query 0 sum to 0\.36, not to 1"),
        ({"teacher": [torch.full((2, 18, 18), torch.nan)]}, ValueError, "query 0 sum to nan"),
        ({"student": [torch.full((2, 18, 18), torch.inf)]}, ValueError, "weights that are no numbers"),
        ({"student": [torch.full((2, 18, 18), 1 / 18)]}, ValueError, "weight to keys outside its pattern"),
        ({"patterns": BlockPattern.window(5)}, ValueError, "5 blocks of block_size=3 are fewer than 18 tokens"),
        ({"patterns": BlockPattern.bigbird(6, heads=3)}, ValueError, "the pattern has 3 heads, the teacher 2"),
        ({"block_size": 0}, ValueError, "block_size=0"),
        ({"tokens": ["a"] * 19}, ValueError, r"shape \(2, 18, 18\), the text 19 tokens"),
        ({"tokens": ["a"] * 1025}, ValueError, "at most 1024"),
    ],
)
def test_what_cannot_be_compared_is_a_sentence(changed, error, words):
    raw = found(BB)
    for name, value in changed.items():
        setattr(raw, name, value)
    with pytest.raises(error, match=words):
        comparison_of(raw)


def test_something_else_has_no_teacher():
    with pytest.raises(TypeError, match="a dict, has no 'teacher'"):
        comparison_of({})
    with pytest.raises(TypeError, match="compare must be a function"):
        explore_distillation(trainer())


# ---------------------------------------------------------------- the dashboard


def floats(data, n):
    return np.frombuffer(data, "<f4").reshape(n, n)


def test_the_first_picture_is_there_before_the_training():
    widget = explore_distillation(distillation())
    made = widget.comparison
    assert widget.state == "ready" and widget.compared_at == 0 and (widget.layers, widget.heads) == (2, 2)
    for trait, table in zip(("teacher", "student", "read"), made.maps(0), strict=True):
        assert np.array_equal(floats(getattr(widget, trait), 32), table)
    missed, far = made.means()
    assert widget.layer_rows == [list(row) for row in zip(missed, far, far, strict=True)]
    assert min(missed) > 0.1 and all(d > m for m, d in zip(missed, far, strict=True))
    assert "dot marks a key that the student cannot read" in widget.ask
    assert set(widget.dials) == {"temperature", "logits", "attention", "hidden"}
    assert widget.limits["temperature"] == (0.5, 8.0)


def test_layer_head_and_unit():
    widget = explore_distillation(distillation())
    made = widget.comparison
    widget.layer, widget.head = 1, 0
    assert np.array_equal(floats(widget.student, 32), made.student[1][0])
    widget.unit = "block"
    assert widget.size == 8 and floats(widget.teacher, 8) == pytest.approx(in_blocks(made.teacher[1][0].numpy(), 4))
    assert np.array_equal(floats(widget.read, 8), made.patterns[1].grid()[0].float())
    before = widget.student
    for name, value in {"layer": 2, "head": 2, "unit": "word"}.items():
        good = getattr(widget, name)
        setattr(widget, name, value)
        assert f"{name}={value!r}" in widget.problem and widget.student == before
        setattr(widget, name, good)
        assert widget.problem == ""


def test_long_texts_are_shown_in_blocks():
    p = BlockPattern.window(50, 3)
    widget = explore_distillation(trainer(), lambda: found(p, block_size=4, n=198))
    assert widget.unit == "block" and widget.units == ["block"] and widget.size == 50


def test_training_brings_the_student_closer_and_the_maps_follow():
    widget = explore_distillation(distillation(30))
    start = [row[1] for row in widget.layer_rows]
    widget.start()
    assert widget.wait(LONG) and widget.state == "finished" and widget.problem == ""
    assert widget.compared_at == 30 and [row[1] for row in widget.layer_rows] == start
    assert all(m < now < before for m, before, now in widget.layer_rows)
    assert np.array_equal(floats(widget.student, 32), widget.comparison.maps(0)[1])
    assert widget.panels[:2] == ["loss", "distance to the teacher"]
    apart = widget.curves["distance to the teacher"]
    assert apart[0][0] == 0 and apart[0][-1] == 30
    assert apart[1][-1] == pytest.approx(np.mean([row[2] for row in widget.layer_rows]), rel=1e-3)
    assert widget.floors["distance to the teacher"] == pytest.approx(np.mean([row[0] for row in widget.layer_rows]))
    assert "logits term" in widget.panels and widget.trainer.model.training


def test_looking_on_does_not_change_the_training():
    alone, watched = distillation(6), distillation(6)
    alone.run(progress=False)
    widget = explore_distillation(watched)
    widget._next_look = 0.0
    for _ in range(6):
        widget.start(1)
        assert widget.wait(LONG)
    assert alone.history.column("loss") == watched.history.column("loss")
    for name, tensor in alone.model.state_dict().items():
        assert torch.equal(tensor, watched.model.state_dict()[name]), name


def test_a_comparison_that_fails_does_not_end_the_training():
    given = distillation(4)
    widget = explore_distillation(given)
    given.model.patterns = [BlockPattern.window(8, 1)] * 2
    widget.start(2)
    assert widget.wait(LONG) and (widget.state, widget.done) == ("paused", 2)
    assert widget.problem.startswith("Teacher and student could not be compared. Layer 0: the student gives")
    assert widget.compared_at == 0
    given.model.patterns = [given.model.student.config.pattern(8, layer) for layer in range(2)]
    widget.start()
    assert widget.wait(LONG) and widget.problem == "" and widget.compared_at == 4


def test_a_comparison_that_never_worked_leaves_the_curves():
    widget = explore_distillation(trainer(), lambda: 1 / 0)
    assert "ZeroDivisionError" in widget.problem and widget.size == 0
    with pytest.raises(ValueError, match="ZeroDivisionError"):
        _ = widget.comparison
    data, _ = widget._repr_mimebundle_()
    assert "0 of 10 steps are done" in data["text/html"]
    widget.start()
    assert widget.wait(LONG) and widget.state == "finished" and len(widget.curves["loss"][0]) == 10


# ---------------------------------------------------------------- words and pictures


def test_the_still_picture_shows_maps_and_layers():
    raw = found(BB, layers=2)
    fig = draw_distillation(raw, layer=1, head=0, before=[0.9, 0.8])
    made = comparison_of(raw)
    t, s, read = made.maps(1, 0)
    teacher, student, apart, layers = [ax for ax in fig.axes if ax.get_label() != "<colorbar>"]
    assert np.array_equal(np.ma.getdata(teacher.images[0].get_array()), t)
    hidden = np.ma.getmaskarray(student.images[0].get_array())
    assert np.array_equal(hidden, (read == 0) & (s == 0)) and hidden.any()
    assert np.array_equal(apart.images[0].get_array(), s - t)
    assert {tuple(p) for p in teacher.lines[0].get_xydata().astype(int)} == {(j, i) for i, j in np.argwhere(read == 0)}
    missed, far = made.means()
    assert [bar.get_width() for bar in layers.patches] == pytest.approx(missed)
    assert layers.lines[0].get_xdata() == pytest.approx(far) and list(layers.lines[1].get_xdata()) == [0.9, 0.8]
    assert encode(fig)[1].startswith(b"\x89PNG")
    large = draw_distillation(found(BlockPattern.window(23, 3)))
    assert large.axes[0].images[0].get_array().shape == (23, 23)  # 69 tokens: in blocks


def test_bundle_and_repr():
    widget = explore_distillation(distillation())
    data, _ = widget._repr_mimebundle_()
    assert data["image/png"] in data["text/html"] and "missed mass" in data["text/html"]
    assert repr(widget).startswith("DistillationDashboard: Ready: step 0 of 40; distance to the teacher, by layer: 0.")
    assert repr(widget) == repr(explore_distillation(distillation()))


def test_the_words_alone_answer_questions():
    raw = found(BB, layers=2)
    made = comparison_of(raw)
    words = describe_distillation(raw, 1, 0)
    missed, far = made.means()
    # What does each layer miss, and how far is it from its teacher?
    rows = re.findall(r"Layer (\d): missed mass (\S+), distance (\S+)\.", words)
    assert [(int(k), float(m), float(d)) for k, m, d in rows] == [
        (k, pytest.approx(missed[k], abs=5e-4), pytest.approx(far[k], abs=5e-4)) for k in (0, 1)
    ]
    # Which query misses most?
    query = int(made.missed(1, 0).argmax())
    assert f"the query that misses most is 'w{query}' ({query}), with {made.missed(1, 0)[query]:.3f}" in words
    # Where is the student's weight too small, and can it read that key?
    t, s, read = made.maps(1, 0)
    i, j = np.unravel_index((s - t).argmin(), t.shape)
    line = re.search(r"falls short most in (.*)\.", words)[1]
    assert line == cell_words(made, t, s, read, int(i), int(j)) and (("does not read" in line) == (read[i, j] == 0))
