"""The words beside a picture: enough to answer questions about it without seeing it."""

import pytest
import torch

from bigbird_mini import BlockPattern
from bigbird_mini.viz import describe_lines, describe_pattern, describe_row, describe_weights
from bigbird_mini.viz.words import counted, listed


def numbers(text):
    """The block numbers of one kind in a row's words, read back: "4-6 and 9" -> {4, 5, 6, 9}."""
    found = set()
    for item in text.replace(" and ", ", ").split(", "):
        first, _, last = item.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


@pytest.mark.parametrize("row", range(12))
def test_a_row_in_words_is_the_row(row):
    p = BlockPattern.bigbird(12, random=2, seed=3)
    start, _, rest = describe_row(p, row).partition(" reads: ")
    assert start == f"query block {row}"
    said = {}
    for name in ("window", "global", "random"):
        if name in rest:
            part = rest.split(name + " ")[1]
            for other in ("window", "global", "random"):
                part = part.split(f", {other}")[0]
            said[name] = numbers(part)
    kinds = p.kinds()[0, row]
    true = {
        name: {j for j in range(12) if kinds[j] == k} for k, name in enumerate(("window", "global", "random"), start=1)
    }
    assert said == {name: keys for name, keys in true.items() if keys}


def test_summary_says_size_density_and_every_kind():
    p = BlockPattern.bigbird(64, window=5, random=3)
    text = describe_pattern(p)
    count = int(p.grid().sum())
    assert f"{count} of 4,096 block pairs are read ({p.density():.1%})" in text
    assert "keys from 2 blocks before to 2 after" in text
    assert "Key blocks read by every query block: 0 and 63." in text
    assert "3 for each of 62 query blocks" in text
    assert "query block 5 reads" not in text  # 64 rows would be too long


def test_small_patterns_say_every_row_and_heads_differ():
    p = BlockPattern.bigbird(12, random=2, heads=2, seed=1)
    first, second = describe_pattern(p, 0), describe_pattern(p, 1)
    assert first.count("query block ") >= 12 and "head 0 of 2" in first
    assert describe_row(p, 5, 0) != describe_row(p, 5, 1)
    assert describe_row(p, 5, 1) in second


def test_other_kinds_and_empty_rows():
    p = BlockPattern.from_grid([[False, True], [False, False]])
    assert describe_row(p, 0) == "query block 0 reads: other 1"
    assert describe_row(p, 1) == "query block 1 reads nothing"
    assert "other (O): 1 block pair, 1 for each of 1 query block." in describe_pattern(p)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ([], ""),
        ([3], "3"),
        ([0, 11], "0 and 11"),
        ([4, 5, 6], "4-6"),
        ([4, 5], "4 and 5"),
        ([1, 3, 7, 8, 9], "1, 3 and 7-9"),
    ],
)
def test_listed(keys, words):
    assert listed(keys) == words


def test_counted():
    assert [counted(1, "block"), counted(1200, "block")] == ["1 block", "1,200 blocks"]


def test_weights_name_the_strongest_key_and_silent_rows():
    w = torch.tensor([[0.1, 0.9, 0.0], [0.0, 0.0, 0.0], [0.5, 0.2, 0.3]])
    text = describe_weights(w, ["the", "cat", "sat"])
    assert "'the' reads 'cat' most (0.90); it does not read 'sat'." in text
    assert "'cat' reads nothing." in text
    assert "'sat' reads 'the' most (0.50)." in text


def test_weights_that_tie_are_named_together():
    w = torch.tensor([[0.4, 0.4, 0.1, 0.1], [0.3, 0.3, 0.3, 0.1], [0.25] * 4])
    lines = describe_weights(w, ["p", "q", "r"], ["a", "b", "c", "d"]).splitlines()[1:]
    assert lines == [
        "'p' reads 'a' and 'b' most (0.40 each).",
        "'q' reads 'a', 'b' and 'c' most (0.30 each).",
        "'r' reads 'a', 'b', 'c' and 'd' most (0.25 each).",
    ]
    many = describe_weights(torch.full((1, 9), 1 / 9), ["p"], list("abcdefghi"))
    assert "reads 'a', 'b', 'c', 'd', 'e' and 4 more most (0.11 each)." in many


def test_lines_in_words_skip_what_is_missing():
    text = describe_lines([1024, 4096], {"dense": [4, None], "sparse": [2.2, 9.8], "no": [None, None]}, "tokens", "MiB")
    assert "dense: 4 at 1,024." in text
    assert "sparse: 2.2 at 1,024, 9.8 at 4,096." in text
    assert "no: no values." in text


def test_wrong_use_is_a_sentence():
    p = BlockPattern.window(4)
    with pytest.raises(ValueError, match="head 1 is out of range: the pattern has heads 0 to 0"):
        describe_pattern(p, head=1)
    with pytest.raises(ValueError, match="query block 4 is out of range"):
        describe_row(p, 4)
    with pytest.raises(TypeError, match="a BlockPattern is needed here, not Tensor"):
        describe_pattern(p.grid())
    with pytest.raises(ValueError, match="pick one example and one head"):
        describe_weights(torch.zeros(1, 4, 4))
    with pytest.raises(ValueError, match="NaN"):
        describe_weights(torch.full((2, 2), float("nan")))
    with pytest.raises(ValueError, match="3 row labels for 2 rows"):
        describe_weights(torch.zeros(2, 2), ["a", "b", "c"])
