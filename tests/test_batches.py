"""Batches by length: every document once an epoch, little padding, and nothing but the number decides."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bigbird_mini.data import batches_by_length

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)


def documents(lengths):
    """Each of its own number, counted on, so that every token of every document is another."""
    starts = np.cumsum([1, *lengths])
    return [torch.arange(start, start + n) for start, n in zip(starts, lengths, strict=False)]


@settings(max_examples=60, deadline=None)
@given(LENGTHS, st.integers(60, 200), st.integers(0, 2**70), st.sampled_from([0.0, 0.1, 0.5, 0.9]), st.integers(0, 5))
def test_every_document_once_an_epoch_within_the_limits(lengths, most, seed, max_padding, epoch):
    batches = batches_by_length(documents(lengths), most, seed=seed, pad_id=9999, max_padding=max_padding)
    found, padding, total = [], 0, 0
    for number in range(epoch * batches.per_epoch, (epoch + 1) * batches.per_epoch):
        batch = batches(number)
        ids, mask = batch["input_ids"], batch["attention_mask"]
        assert ids.dtype == torch.int64 and mask.dtype == torch.bool and ids.shape == mask.shape
        assert ids.numel() <= most and mask.any(0).all()  # no column of padding alone
        assert (~mask).float().mean() <= max_padding + 1e-6
        assert (ids[~mask] == 9999).all()
        rows = [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]
        assert rows == [documents(lengths)[place].tolist() for place in batches.documents_of(number)]
        found += rows
        padding, total = padding + int((~mask).sum()), total + mask.numel()
    assert sorted(found) == [d.tolist() for d in documents(lengths)]
    assert batches.padding(epoch) == pytest.approx(padding / total)


@settings(max_examples=20, deadline=None)
@given(LENGTHS, st.integers(0, 99))
def test_a_batch_follows_from_seed_and_number_alone(lengths, number):
    first, again = (batches_by_length(documents(lengths), 100, seed=5) for _ in range(2))
    for other in range(0, number, 7):
        again(other)
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()
    a, b = first(number), again(number)
    assert torch.equal(a["input_ids"], b["input_ids"])
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1:] == (np.random.get_state()[1].tolist(), random.getstate())


def test_seeds_and_epochs_shuffle_anew():
    docs = documents(np.random.default_rng(0).integers(50, 60, 200))
    one, other = (batches_by_length(docs, 300, seed=seed) for seed in (0, 1))
    epochs = [[one.documents_of(e * one.per_epoch + i) for i in range(one.per_epoch)] for e in range(3)]
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert set(map(tuple, epochs[0])) != set(map(tuple, epochs[1]))  # other batches, and not the same in another order
    assert epochs[0] != [other.documents_of(i) for i in range(other.per_epoch)]
    # Long and short batches are mixed: the order does not follow the length.
    batches = batches_by_length(documents(range(1, 300)), 3000)
    lengths = [batches.lengths[batches.documents_of(i)].max() for i in range(batches.per_epoch)]
    assert abs(np.corrcoef(lengths, np.arange(len(lengths)))[0, 1]) < 0.3


def test_the_order_is_this_one_on_every_version():
    batches = batches_by_length(documents([3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]), 12, seed=7, max_padding=0.3)
    found = [batches.documents_of(i) for i in range(batches.per_epoch)]
    assert found == [[6], [2, 0, 9], [8, 4], [5], [1, 3], [7, 10]]


def test_less_padding_costs_more_batches():
    lengths = np.random.default_rng(0).integers(16, 4096, 500)
    docs = documents(lengths)
    tight, loose = (batches_by_length(docs, 16384, max_padding=share) for share in (0.02, 0.4))
    assert tight.padding() < 0.02 < loose.padding() < 0.4 and tight.per_epoch > loose.per_epoch
    mixed = 1 - lengths.sum() / sum(len(c) * c.max() for c in np.split(lengths, range(4, 500, 4)))
    assert batches_by_length(docs, 16384).padding() < 0.06 < 0.3 < mixed  # four documents as they come


def test_more_fields_come_along():
    docs = [
        {
            "input_ids": torch.tensor([5, 6, 7]),
            "labels": torch.tensor([1, -100, 2]),
            "token_type_ids": [0, 1, 1],
            "y": 3,
        },
        {"input_ids": [8, 9], "labels": [4, 5], "token_type_ids": [1, 1], "y": 2.5},
    ]
    batches = batches_by_length(docs, 6, pad_id=1, max_padding=0.5)
    batch = batches(0)
    order = batches.documents_of(0)
    rows = {
        "input_ids": [[5, 6, 7], [8, 9, 1]],
        "labels": [[1, -100, 2], [4, 5, -100]],
        "token_type_ids": [[0, 1, 1], [1, 1, 0]],
        "attention_mask": [[True] * 3, [True, True, False]],
        "y": [3.0, 2.5],
    }
    assert {name: value.tolist() for name, value in batch.items()} == {
        name: [value[place] for place in order] for name, value in rows.items()
    }


def test_documents_are_loaded_when_they_are_needed():
    class Lazy:
        loaded = ()

        def __len__(self):
            return 10

        def __getitem__(self, place):
            self.loaded += (place,)
            return torch.full((place + 1,), place, dtype=torch.uint8)

    lazy = Lazy()
    batches = batches_by_length(lazy, 20, lengths=range(1, 11))
    assert lazy.loaded == () and batches(3)["input_ids"].dtype == torch.int64
    assert sorted(lazy.loaded) == sorted(batches.documents_of(3))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: batches_by_length([], 9), "there are no documents"),
        (lambda: batches_by_length(documents([3, 0, 2]), 9), "document 1 has 0 tokens: at least 1"),
        (lambda: batches_by_length(documents([3, 10]), 9), "document 1 has 10 tokens: tokens_per_batch=9; cut it"),
        (lambda: batches_by_length(documents([3]), 9, max_padding=1.0), "max_padding=1.0 must be at least 0 and below"),
        (lambda: batches_by_length(documents([3]), 9, lengths=[3, 4]), "2 lengths for 1 documents"),
        (lambda: batches_by_length([torch.ones(2, 3)], 9), r"must be \(n,\), not \(2, 3\)"),
        (lambda: batches_by_length(documents([3]), 9)(-1), "batch -1 does not exist"),
        (
            lambda: batches_by_length([{"input_ids": torch.ones(3), "labels": torch.ones(2)}], 9)(0),
            r"labels of a document has shape \(2,\), and its ids \(3,\)",
        ),
        (lambda: batches_by_length(documents([3]), 9, lengths=[4])(0), "document 0 has 3 tokens, and lengths says 4"),
        (
            lambda: batches_by_length([{"input_ids": [3], "y": 1}, {"input_ids": [3]}], 9)(0),
            "has no 'y', which others have",
        ),
    ],
)
def test_bad_input_gets_one_sentence(make, says):
    with pytest.raises(ValueError, match=says):
        make()
