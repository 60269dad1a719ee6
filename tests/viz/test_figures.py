"""The numbers beside a pattern: right at every length, also where nothing is drawn to count them."""

import pytest

from bigbird_mini import BlockPattern
from bigbird_mini.viz.figures import Settings, bytes_in_words, pairs_at, scaled


@pytest.mark.parametrize("window", [0, 1, 3, 9])
@pytest.mark.parametrize("global_blocks", [(), (0,), (0, -1), (3, -2)])
@pytest.mark.parametrize("plan", ["uniform", "power_law"])
def test_pairs_are_counted_without_drawing(window, global_blocks, plan):
    for random in (0, 3, 20):
        settings = Settings(window, global_blocks, random, seed=7, plan=plan)
        for n_blocks in (5, 16, 33):
            assert pairs_at(settings, n_blocks) == int(settings.pattern(n_blocks).grid().sum())


@pytest.mark.parametrize("plan", ["google", "hf_train", "hf_eval"])
def test_pairs_of_the_released_plans_are_those_of_the_first_head(plan):
    settings = Settings(heads=3, seed=2, plan=plan)
    assert pairs_at(settings, 64) == int(settings.pattern(64).grid()[0].sum())


def test_a_pattern_of_these_settings_is_bigbird():
    settings = Settings(5, (0, -1), 2, heads=3, seed=4, layer=1)
    assert settings.pattern(20) == BlockPattern.bigbird(20, 5, random=2, heads=3, seed=4, layer=1)


def test_three_lengths_in_bytes():
    rows = scaled(Settings(block_size=64))
    assert [row[0] for row in rows] == ["4,096", "16,384", "65,536"]
    for (_, sparse, dense, times), n_blocks in zip(rows, (64, 256, 1024), strict=True):
        pairs = int(BlockPattern.bigbird(n_blocks).grid().sum())
        assert sparse == bytes_in_words(pairs * 64 * 64 * 4) and dense == bytes_in_words(n_blocks**2 * 64 * 64 * 4)
        assert float(times) == pytest.approx(n_blocks**2 / pairs, abs=0.06)
    assert [row[0] for row in scaled(Settings(block_size=48))] == ["4,128", "16,416", "65,568"]  # whole blocks


def test_a_length_at_which_the_released_code_fails_is_said():
    rows = scaled(Settings(random=15, plan="google"))
    assert rows[0][1] == "the code fails here" and rows[0][2] == "64 MiB"


@pytest.mark.parametrize(
    ("count", "words"),
    [(512, "512 B"), (1024, "1 KiB"), (1536, "1.5 KiB"), (64 * 2**20, "64 MiB"), (2**41, "2,048 GiB")],
)
def test_bytes_in_words(count, words):
    assert bytes_in_words(count) == words
