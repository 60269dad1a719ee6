"""The tasks of exercise 04: what their rules see and do not see, and what they accept besides the expected result."""

import random

import numpy as np
import pytest
import torch

from bigbird_mini import BlockPattern, graph
from bigbird_mini.course.catalogue import all_tasks
from bigbird_mini.course.judging import evaluate
from bigbird_mini.course.running import drew_globally, sheltered
from bigbird_mini.course.tasks_04.coverage import coverage
from bigbird_mini.course.tasks_04.hops import hops
from bigbird_mini.course.tasks_04.random_blocks import _at_once, _numpy, random_blocks
from bigbird_mini.course.tasks_04.spectral_gap import CLOSE, _cases, _spec, spectral_gap


def test_points():
    assert sum(t.points for t in all_tasks().values() if t.lesson == "04_random_edges") == 9


@pytest.mark.parametrize("draw", [random_blocks, _at_once, _numpy])
@pytest.mark.parametrize("offset", range(1, 6))
def test_no_rule_sees_a_mistake_in_an_even_draw(draw, offset):
    answer = lambda taken, per_row, seeds: draw(taken, per_row, [7919 * seed + offset for seed in seeds])  # noqa: E731
    assert evaluate("4.1", answer).text() == evaluate("4.1", random_blocks).text()


@pytest.mark.parametrize(
    ("what", "touched"),
    [
        (lambda: torch.randperm(5, generator=torch.Generator().manual_seed(3)), False),
        (lambda: np.random.default_rng(3).random(), False),
        (lambda: random.Random(3).random(), False),
        (lambda: torch.randperm(5), True),
        (lambda: torch.manual_seed(3), True),
        (lambda: np.random.rand(), True),
        (lambda: np.random.seed(3), True),
        (lambda: random.random(), True),
        (lambda: random.seed(3), True),
    ],
)
def test_the_global_random_states_are_watched(what, touched):
    with sheltered():
        assert not drew_globally()
        what()
        assert drew_globally() is touched


def test_a_touched_state_is_told_even_where_the_draw_is_right():
    def answer(taken, per_row, seeds):
        torch.rand(1)
        return random_blocks(taken, per_row, seeds)

    assert evaluate("4.1", answer).mistake.name == "the global random state touched"


def test_the_kind_of_a_result_is_judged_before_the_rules():
    why = evaluate("4.1", lambda *given: random_blocks(*given).float()).why
    assert "torch.float32 numbers, they should be True and False" in why
    assert "has shape (3, 16)" in evaluate("4.1", lambda *given: random_blocks(*given).any(-1)).why


def test_whole_numbers_of_any_size_and_no_others():
    assert evaluate("4.2", lambda grid: hops(grid).to(torch.int16)).outcome == "right"
    for kind in (torch.float64, torch.bool):
        assert (
            "they should be whole numbers (torch.int64)" in evaluate("4.2", lambda grid, k=kind: hops(grid).to(k)).why
        )
    result = evaluate("4.2", lambda grid: hops(grid).masked_fill(hops(grid) == 3, 9).to(torch.int32))
    assert "expected 3, yours 9" in result.why and result.picture() and not result.mistake
    turned = evaluate("4.2", lambda grid: hops(grid).T.to(torch.int32))
    assert turned.mistake.name == "news that goes the wrong way"


def test_hops_are_those_of_the_library():
    for seed in range(4):
        p = BlockPattern.random(17, 1, seed=seed) | BlockPattern.window(17, 1)
        assert torch.equal(hops(p.grid()[0]), torch.from_numpy(graph.hops(p)))


def test_coverage_is_that_of_the_library():
    layers = BlockPattern.random(19, 2, seed=5).for_layers(5)
    shares = coverage(torch.cat([p.grid() for p in layers]))
    assert shares.tolist() == pytest.approx([graph.coverage(layers, k) for k in range(1, 6)])
    assert shares[-1] < 1


def test_a_share_that_went_through_float32_is_right():
    def answer(grids):
        return torch.tensor([x.float().item() for x in coverage(grids)], dtype=torch.float64)

    assert not torch.equal(answer(torch.ones(1, 3, 3).tril() > 0), coverage(torch.ones(1, 3, 3).tril() > 0))
    assert evaluate("4.3", answer).outcome == "right"
    assert evaluate("4.3", lambda grids: coverage(grids) + 1e-5).outcome == "wrong"


def test_the_gap_is_close_to_the_exact_one():
    for case in _cases():
        assert abs(spectral_gap(**case.inputs) - _spec(**case.inputs)) < CLOSE / 2, case.words
        assert _spec(**case.inputs) == pytest.approx(graph.spectral_gap(BlockPattern.from_grid(case.inputs["grid"])))


@pytest.mark.parametrize("kind", [np.float32, np.float64, torch.tensor])
def test_a_number_is_a_number(kind):
    assert evaluate("4.4", lambda grid: kind(_spec(grid))).outcome == "right"
    assert evaluate("4.4", lambda grid: kind(_spec(grid) + 0.05)).mistake.name == "a factor that has not settled"


def test_what_is_no_number_is_named():
    assert "a tensor of shape (1,) came back, a float should" in evaluate("4.4", lambda grid: torch.ones(1)).why
    assert "a str ('0.3') came back, a float should" in evaluate("4.4", lambda grid: "0.3").why
