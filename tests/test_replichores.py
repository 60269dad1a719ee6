"""Labels, windows and groups of the genome task, against slow and plain versions."""

import numpy as np
import pytest
import torch

from bigbird_mini.data import genome, genome_encoder, leads, replichore_split, replichore_windows, reverse_complement
from bigbird_mini.data import replichores as module
from bigbird_mini.data.replichores import BLOCK, LONGEST, ORIGIN, REPLICHORE_LENGTHS, TERMINUS, genome_codes

PARTNER = {"A": "T", "C": "G", "G": "C", "T": "A"}


def letters(row):
    return "".join("ACGT"[code] for code in row.tolist())


def test_the_turning_points_are_those_of_the_skew():
    """A slow loop over all 4.6 million letters."""
    level = high = low = 0
    for place, letter in enumerate(genome()):
        level += (letter == "G") - (letter == "C")
        if level > high:
            high, highest = level, place
        if level < low:
            low, lowest = level, place
    assert (highest, lowest) == (TERMINUS, ORIGIN) and (high, low) == (25_438, -11_641)


def test_where_the_sum_rises_the_written_strand_leads():
    """Label 1 is where the sum of (G minus C) rises: from the lowest point, over the end, to the highest."""
    text = genome()
    rising = [sum((x == "G") - (x == "C") for x in part) for part in (text[:TERMINUS], text[ORIGIN + 1 :])]
    falling = sum((x == "G") - (x == "C") for x in text[TERMINUS + 1 : ORIGIN + 1])
    assert min(rising) > 0 > falling
    places = np.array([0, 1, TERMINUS - 1, TERMINUS, TERMINUS + 1, 2_500_000, ORIGIN, ORIGIN + 1, len(text) - 1])
    assert leads(places).tolist() == [1, 1, 1, 1, 0, 0, 0, 1, 1] and leads(places).dtype == np.int64


def test_a_window_and_its_other_strand_by_hand():
    text = genome()
    bases, labels = replichore_windows([1000, 2_000_001, 2_000_001], 6, np.array([False, False, True]))
    assert bases.shape == (3, 6) and bases.dtype == labels.dtype == torch.int64
    assert letters(bases[0]) == text[997:1003] and letters(bases[1]) == text[1_999_998:2_000_004]
    assert letters(bases[2]) == "".join(PARTNER[letter] for letter in reversed(text[1_999_998:2_000_004]))
    assert labels.tolist() == [1, 0, 1]
    both, turned = replichore_windows([1000, 2_000_001], 300, True)
    assert torch.equal(reverse_complement(both), replichore_windows([1000, 2_000_001], 300)[0])
    assert turned.tolist() == [0, 1]
    assert letters(reverse_complement(torch.tensor([0, 0, 1, 2, 1]))) == "GCGTT"


def test_codes_are_the_letters_and_cannot_be_changed():
    assert letters(genome_codes()[:50]) == genome()[:50] and letters(genome_codes()[-50:]) == genome()[-50:]
    with pytest.raises(ValueError, match="read-only"):
        genome_codes()[0] = 1


@pytest.mark.parametrize("seed", range(7))
def test_no_base_is_in_two_groups(seed):
    split = replichore_split(seed)
    owner = np.full(len(genome_codes()), -1)
    for group, centres in enumerate((split.train, split.validation, split.test)):
        assert (np.diff(centres) > 0).all()
        for centre in centres[:: 16 if group == 0 else 1]:
            mine = owner[centre - LONGEST // 2 : centre + LONGEST // 2]
            assert np.isin(mine, (-1, group)).all()
            mine[:] = group
    turns = np.array([TERMINUS, ORIGIN])
    every = np.concatenate([split.train, split.validation, split.test])
    assert (np.abs(every[:, None] - turns) >= LONGEST // 2).all()
    for group, centres in ((1, split.validation), (2, split.test)):
        assert ((centres - LONGEST // 2) // BLOCK == (centres + LONGEST // 2 - 1) // BLOCK).all()
        assert set(centres // BLOCK) == set(np.flatnonzero(split.groups == group))
    assert set(split.train // BLOCK) <= set(np.flatnonzero(split.groups == 0))


@pytest.mark.parametrize("seed", range(7))
def test_groups_are_balanced_over_the_halves_and_large_enough(seed):
    split = replichore_split(seed)
    for centres, blocks in ((split.validation, 6), (split.test, 10)):
        halves = leads(centres)
        assert halves.mean() == 0.5 and len(set(centres // BLOCK)) == blocks and len(centres) == 41 * blocks
    assert len(split.train) > 170_000 and 0.45 < leads(split.train).mean() < 0.6
    assert (split.train % 16 == 0).all() and (split.test % 2000 == 0).all()


def test_seeds_choose_on_one_group_and_test_on_others():
    splits = [replichore_split(seed) for seed in range(6)]
    assert all(np.array_equal(split.validation, splits[0].validation) for split in splits)
    for three in (splits[:3], splits[3:]):
        assert len(set(np.concatenate([split.test for split in three]).tolist())) == 3 * len(three[0].test)
    assert not np.array_equal(splits[0].test, splits[3].test)
    assert np.flatnonzero(splits[0].groups == 1).tolist() == [4, 10, 17, 26, 29, 45]
    assert np.flatnonzero(splits[0].groups == 2).tolist() == [3, 7, 9, 13, 18, 19, 20, 22, 35, 40]


@pytest.mark.parametrize("length", REPLICHORE_LENGTHS)
def test_every_length_has_the_same_centres(length):
    split = replichore_split(1)
    bases, labels = replichore_windows(split.test, length)
    assert bases.shape == (410, length) and labels.tolist() == leads(split.test).tolist()
    assert letters(bases[7, length // 2 : length // 2 + 9]) == genome()[split.test[7] : split.test[7] + 9]


@pytest.mark.parametrize(
    ("centres", "length", "says"),
    [
        ([9000], 0, "length=0 must be an even number of bases, at least 2"),
        ([9000], 7, "length=7 must be an even"),
        ([9000, 100], 256, "a window of 256 bases around 100 has no label: it leaves the genome"),
        ([4_646_300], 256, "around 4646300 has no label"),
        ([TERMINUS + 1], 4, "around 1554103 has no label: .* or crosses the terminus"),
        ([TERMINUS + 2], 4, "around 1554104 has no label: .* or crosses the terminus"),  # its first base ends the half
        ([ORIGIN], 4, "around 3711079 has no label: .* the origin"),
    ],
)
def test_bad_windows_get_one_sentence(centres, length, says):
    with pytest.raises(ValueError, match=says):
        replichore_windows(centres, length)


def test_windows_may_touch_the_turning_points():
    _, labels = replichore_windows([TERMINUS - 1, TERMINUS + 3, ORIGIN - 1, ORIGIN + 3], 4)
    assert labels.tolist() == [1, 0, 0, 1]
    with pytest.raises(ValueError, match="seed=-1 must be 0 or more"):
        replichore_split(-1)


def test_a_damaged_encoder_is_refused(tmp_path, monkeypatch):
    folder = genome_encoder()
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    weights = bytearray((folder / "model.safetensors").read_bytes())
    assert len(weights) == 298_408
    weights[-1] ^= 1
    monkeypatch.setattr(module, "_ENCODER", tmp_path)
    with pytest.raises(RuntimeError, match="damaged or missing; install bigbird-mini again"):
        genome_encoder()
    (tmp_path / "model.safetensors").write_bytes(weights)
    with pytest.raises(RuntimeError, match="damaged or missing"):
        genome_encoder()
