"""The generated tasks: each text against the rule in plain loops, and what is predicted from a pattern by hand."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from bigbird_mini import BlockPattern
from bigbird_mini.graph import reach
from bigbird_mini.tasks import ASKED, TASKS, VALUES, accuracy, broadcast, far_copy, local_copy, lookup, majority

SMALL = {  # of sizes that no two quantities share
    "local copy": lambda: local_copy(24, 3, 2),
    "far copy": lambda: far_copy(24, 3, 13),
    "broadcast": lambda: broadcast(24, 3),
    "lookup": lambda: lookup(24, 3, items=7, questions=4, keys=9),
}


def texts_of(task, number=5, texts=40, **more):
    """(input ids, token types, labels) of one text after the other, as lists."""
    batch = task.batch(number, texts, **more)
    assert set(batch) == {"input_ids", "token_type_ids", "labels"}
    for x in batch.values():
        assert x.shape == (texts, task.n) and x.dtype == torch.int64
    return zip(*(batch[name].tolist() for name in ("input_ids", "token_type_ids", "labels")), strict=True)


# -------------------------------------------------------------------- each text by its rule


@pytest.mark.parametrize(("task", "distance"), [(SMALL["local copy"](), 2), (SMALL["far copy"](), 13)])
def test_copy_asks_for_the_value_so_many_tokens_before(task, distance):
    for values, keys, labels in texts_of(task):
        assert values[:3] == [0, 0, 0] and all(1 <= v <= 16 for v in values[3:]) and set(keys) == {0}
        assert labels == [values[i - distance] - 1 if i >= 3 + distance else -100 for i in range(24)]


def test_broadcast_asks_everybody_for_the_flagged_value():
    places = set()
    for values, keys, labels in texts_of(SMALL["broadcast"]()):
        (flagged,) = (i for i, key in enumerate(keys) if key)
        assert values[:3] == [0, 0, 0] and all(1 <= v <= 16 for v in values[3:]) and keys[flagged] == 1
        assert labels == [-100] * 3 + [values[flagged] - 1] * 21
        places.add(flagged)
    assert min(places) == 3 and max(places) == 23 and len(places) > 12


def test_lookup_asks_for_the_value_that_stands_with_the_key():
    item_places, question_places = set(), set()
    for values, keys, labels in texts_of(SMALL["lookup"]()):
        items = {keys[i]: values[i] for i in range(12) if keys[i]}
        asked = {i: keys[i] for i in range(12, 24) if keys[i]}
        assert len(items) == 7 and sum(map(bool, keys[:12])) == 7 and set(items) <= set(range(1, 10))
        assert all(1 <= v <= 16 for v in items.values())
        assert len(asked) == len(set(asked.values())) == 4 and set(asked.values()) <= set(items)
        assert all(values[i] == (ASKED if i in asked else 0) for i in range(12, 24)) and not any(values[:3])
        assert labels == [items[asked[i]] - 1 if i in asked else -100 for i in range(24)]
        item_places |= {i for i in range(12) if keys[i]}
        question_places |= set(asked)
    assert item_places == set(range(3, 12)) and question_places == set(range(12, 24))


def test_the_sizes_of_the_fact_base():
    """science.md 5: 128 tokens, 8 of them blank, copies over 8 and 48, 32 items and 16 questions among 64 keys."""
    for name, distance in (("local copy", 8), ("far copy", 48)):
        for values, _, labels in texts_of(TASKS[name](), texts=3):
            assert labels[: 8 + distance] == [-100] * (8 + distance) and len(labels) == 128
            assert [label + 1 for label in labels[8 + distance :]] == values[8 : 128 - distance]
    found = set()
    for _, keys, labels in texts_of(TASKS["lookup"](), texts=60):
        assert sum(map(bool, keys[:64])) == 32 and sum(label >= 0 for label in labels) == 16
        found |= set(keys)
    assert found == set(range(65))
    assert [task().name for task in TASKS.values()] == list(TASKS)


# -------------------------------------------------------------------- seeds


@pytest.mark.parametrize("name", SMALL)
def test_a_batch_follows_from_its_number_seed_and_part(name):
    task = SMALL[name]()

    def drawn(**more):
        return torch.stack(list(task.batch(**{"number": 3, "texts": 4, **more}).values()))

    first = drawn()
    assert torch.equal(first, drawn()) and torch.equal(first, torch.stack(list(SMALL[name]().batch(3, 4).values())))
    for other in ({"number": 4}, {"seed": 1}, {"part": "test"}):
        assert not torch.equal(first, drawn(**other))


def test_no_global_random_state_is_read_or_changed():
    def states():
        return random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    first = TASKS["lookup"]().batch(0)["labels"]
    assert states() == before
    random.seed(7)
    np.random.seed(7)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        assert torch.equal(first, TASKS["lookup"]().batch(0)["labels"])


def test_another_process_draws_the_same():
    code = "from bigbird_mini.tasks import TASKS; print([int(t().batch(2)['labels'].sum()) for t in TASKS.values()])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == str([int(t().batch(2)["labels"].sum()) for t in TASKS.values()])


# -------------------------------------------------------------------- baselines


@pytest.mark.parametrize("name", TASKS)
def test_values_are_even_so_that_the_majority_is_a_guess(name):
    labels = TASKS[name]().batch(0, 3000)["labels"]
    counts = labels[labels >= 0].bincount(minlength=VALUES) / (labels >= 0).sum()
    assert TASKS[name]().chance == 1 / 16 and majority(labels) == pytest.approx(float(counts.max()))
    # in the broadcast all labels of a text are one: 3000 draws, of which each value has 1/16 and a spread of .0044
    assert (counts - 1 / 16).abs().max() < 4 * 0.0044


def test_majority_and_accuracy_by_hand():
    labels = torch.tensor([[2, -100, 2, 0], [1, 2, -100, -100]])
    assert majority(labels) == 3 / 5
    logits = torch.zeros(2, 4, 3)
    for place, answer in (((0, 0), 2), ((0, 1), 2), ((0, 2), 1), ((0, 3), 0), ((1, 0), 1), ((1, 1), 2)):
        logits[place][answer] = 1.0
    assert accuracy(logits, labels) == 4 / 5  # the one of (0, 2) is wrong; (0, 1) is not asked
    with pytest.raises(ValueError, match="no question is asked"):
        majority(torch.full((2, 3), -100))


# -------------------------------------------------------------------- what a pattern allows


def test_needs_by_hand():
    # 24 tokens, 3 blank, 3 blocks of 8: questions at 16 .. 23, all in the last block, answered 13 before: 3 .. 10
    assert far_copy(24, 3, 13).needs(3).tolist() == [[0, 0, 0], [0, 0, 0], [5 / 8, 3 / 8, 0]]
    assert local_copy(24, 3, 2).needs(3) == pytest.approx(np.array([[3, 0, 0], [2, 6, 0], [0, 2, 6]]) / 19)
    parts = np.array([5, 8, 8]) / 21
    assert broadcast(24, 3).needs(3) == pytest.approx(np.outer(parts, parts))
    half = lookup(24, 3, items=7, questions=4, keys=9).needs(3)
    assert half == pytest.approx(np.outer([0, 4 / 12, 8 / 12], [5 / 9, 4 / 9, 0]))


@pytest.mark.parametrize("name", SMALL)
def test_needs_are_the_questions_that_are_really_asked(name):
    task, N = SMALL[name](), 4
    assert task.needs(N).sum() == pytest.approx(1)
    *_, sources = task._draw(np.random.default_rng(0), 4000)
    asked = sources >= 0
    rows, cols = np.broadcast_to(np.arange(24) // 6, sources.shape)[asked], sources[asked] // 6
    counted = np.zeros((N, N))
    np.add.at(counted, (rows, cols), 1 / asked.sum())
    assert np.abs(counted - task.needs(N)).max() < 0.01


def test_predicted_by_hand_and_as_in_the_fact_base():
    task = TASKS["far copy"]()
    assert task.predicted(np.ones((16, 16))) == 1.0 and task.predicted(np.eye(16)) == 1 / 16
    alone = broadcast(24, 3).predicted(np.zeros((3, 3)))  # the flagged token itself, one of 21, knows its value
    assert alone == pytest.approx(1 / 21 + 20 / 21 / 16)
    parts = np.array([5, 8, 8])
    near = (parts[1] ** 2 + parts[0] + parts[2]) / 21**2  # all of block 1, elsewhere each token its own
    assert broadcast(24, 3).predicted(np.diag([0, 1, 0])) == pytest.approx(near + (1 - near) / 16)
    only = np.zeros((16, 16), bool)
    only[10, 4] = True  # one of the 9 pairs of blocks between which a far copy goes
    assert task.predicted(only) == pytest.approx(1 / 9 + 8 / 9 / 16)
    window, star = BlockPattern.window(16), BlockPattern.window(16, 1) | BlockPattern.global_(16, (0,))
    direct = window.grid()[0]
    assert TASKS["local copy"]().predicted(direct) == 1.0
    # science.md 5: broadcast by a window in two layers .350, by a global block 1.0; far copy: a path of two for .06
    assert TASKS["broadcast"]().predicted(reach(window, 2)) == pytest.approx(0.350, abs=5e-4)
    assert TASKS["broadcast"]().predicted(reach(star, 2)) == task.predicted(reach(star, 2)) == 1.0
    assert task.predicted(reach(window, 2)) == task.predicted(star.grid()[0]) == 1 / 16
    # lookup: a direct edge of the window .079
    assert TASKS["lookup"]().predicted(direct) == pytest.approx(0.079, abs=5e-4)


# -------------------------------------------------------------------- what cannot be


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: local_copy(24, 3, 21), "distance=21 is too far; with n=24 and blank=3 it is at most 20"),
        (lambda: local_copy(24, 3, 0), "distance=0 is too small"),
        (lambda: broadcast(24, 7), "blank=7 is too large; with n=24 tokens it is at most 6"),
        (lambda: broadcast(7), "n=7 is too small"),
        (lambda: lookup(24, 3, items=10), "items=10 is too large; with n=24 and blank=3 it is at most 9"),
        (lambda: lookup(24, 3, items=4, questions=5), "questions=5 is too large"),
        (lambda: lookup(24, 3, keys=65), "keys=65 is too large"),
        (lambda: lookup(24, 3, items=5, keys=4), "items=5 is too large"),
        (lambda: broadcast().batch(-1), "number=-1 is too small"),
        (lambda: broadcast().batch(0, part="dev"), "part='dev' is not known; allowed: 'train', 'test'"),
        (lambda: broadcast().needs(3), "128 tokens do not make 3 blocks"),
        (lambda: broadcast().predicted(np.ones((2, 4))), r"connected has shape \(2, 4\)"),
    ],
)
def test_what_cannot_be_is_a_sentence(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_the_largest_sizes_that_are_allowed_work():
    assert (local_copy(24, 3, 20).batch(0, 2)["labels"] >= 0).sum() == 2
    task = lookup(24, 3, items=9, questions=9)
    assert (task.batch(0, 5)["labels"] >= 0).sum(1).tolist() == [9] * 5
