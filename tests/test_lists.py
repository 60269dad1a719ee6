"""Patterns in files: they come back as they were, and damaged ones are refused in one sentence."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bigbird_mini import BlockPattern
from strategies import patterns


@given(patterns(), st.integers(0, 2))
def test_json_brings_a_pattern_back(p, more):
    for q in (p, p.padded(p.n_blocks + more)):
        again = BlockPattern.from_json(q.to_json())
        assert again == q and hash(again) == hash(q) and again.for_layers(3) == q.for_layers(3)
        assert torch.equal(again.kinds(), q.kinds()) and torch.equal(again.multiplicity(), q.multiplicity())
        assert again.to_json() == q.to_json()


def test_a_file_brings_a_pattern_back(tmp_path):
    p = BlockPattern.bigbird(16, heads=2, plan="hf_train")
    p.save(tmp_path / "p.json")
    again = BlockPattern.load(str(tmp_path / "p.json"))
    assert again == p and again.for_layers(3) == p.for_layers(3)
    (tmp_path / "p.json").write_bytes(b"\xff\x00")
    with pytest.raises(ValueError, match=r"p\.json: no saved pattern, or a damaged one: "):
        BlockPattern.load(tmp_path / "p.json")
    with pytest.raises(FileNotFoundError):
        BlockPattern.load(tmp_path / "q.json")


def edits():
    """Ways to damage a file, and what is said about each."""
    part = ("parts", 0)
    return [
        (("format",), "Sudoku", "its format is 'Sudoku', not"),
        (("version",), 2, "its version is 2; this library reads version 1"),
        (("n_blocks",), 15, r"keys must be whole numbers from 0 to 15"),
        (("n_blocks",), "16", "n_blocks must be a whole number, not '16'"),
        (("keys",), None, "damaged one"),
        (("keys", 0, 1, 0), 17, "keys must be whole numbers from 0 to 16"),
        (("keys", 0, 1, 0), -1, "keys must be whole numbers from 0 to 16"),
        (("keys", 0, 1, 0), 0.5, "keys must be whole numbers from 0 to 16"),
        (("keys", 0, 1, 0), 3, "not in order"),
        (("keys", 0, 1), [1, 2], "damaged one"),
        (("kinds", 0, 1, 0), 5, "kinds must be whole numbers from 0 to 4"),
        (("kinds", 0, 1, 0), 0, "not in order"),
        (("kinds", 0, 1, 0), 4, "not what its parts draw"),
        (("counts", 0, 1, 0), 0, "counts must be whole numbers from 1 to 255"),
        (("counts", 0, 1, 0), 2, "not what its parts draw"),
        (("counts",), [[[1]]], r"lists of shapes .* do not fit 16 blocks"),
        (("every", 0), [0], "damaged one"),
        (("every",), [], "damaged one"),
        (("every",), 7, "damaged one"),
        (("parts",), 7, "damaged one"),
        ((*part, "by"), "pickle", "a part is 'pickle' of 16 blocks"),
        ((*part, "since"), [["save", 1]], r"then \[\('save', 1\)\]"),
        ((*part, "arguments", "n_blocks"), 10**9, "of 1000000000 blocks"),
        ((*part, "arguments", "seed"), 3, "not what its parts draw"),
        ((*part, "arguments", "plan"), "magic", "plan='magic' is not known"),
        ((*part, "arguments", "colour"), 1, "colour"),
        ((*part, "avoid"), [], "damaged one"),
    ]


@pytest.mark.parametrize(("where", "what", "says"), edits())
def test_a_damaged_file_gets_one_sentence(where, what, says):
    state = json.loads(BlockPattern.bigbird(16, random=2, heads=2, plan="hf_train").to_json())
    place = state
    for step in where[:-1]:
        place = place[step]
    place[where[-1]] = what
    with pytest.raises(ValueError, match=says) as caught:
        BlockPattern.from_json(json.dumps(state))
    assert str(caught.value).startswith("no saved pattern, or a damaged one: ") and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "null", "{}", '{"format":"bigbird_mini.BlockPattern"}', "[" * 9999]
)
def test_what_is_no_pattern_at_all_gets_one_sentence(text):
    with pytest.raises(ValueError, match="no saved pattern, or a damaged one: "):
        BlockPattern.from_json(text)
