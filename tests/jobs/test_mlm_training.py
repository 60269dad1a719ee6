"""The masked-language-model job: its model, a training that is killed and goes on, its table.

Most of it with the small library and the short stretches of small_jobs.py: 256 tokens, contexts of 64, 128 and 256.
"""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import small_jobs
import torch
from safetensors.torch import load_file

from bigbird_mini import BlockPattern
from bigbird_mini.jobs import cells, mlm, mlm_table
from bigbird_mini.jobs.__main__ import main as jobs
from bigbird_mini.jobs.mlm import Questions, Run

pytest.importorskip("tokenizers", reason="needs the extra lab or hf")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def small(monkeypatch, cache):
    monkeypatch.setenv("BIGBIRD_MINI_CACHE", str(cache))
    small_jobs.shrink(monkeypatch.setattr)
    threads, kept = torch.get_num_threads(), mlm.split
    yield
    torch.set_num_threads(threads)
    kept.cache_clear()


def model(run, seed=0):
    """No weight at its start, biases and norms included."""
    torch.manual_seed(seed)
    made = mlm.fresh_model(run).eval()
    for parameter in made.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return made


def questions(rows=2, seed=0, vocabulary=small_jobs.VOCABULARY):
    rng = np.random.default_rng(seed)
    return mlm.asked(torch.from_numpy(rng.integers(4, vocabulary, (rows, 256))), seed)


# ---------------------------------------------------------------- model and training


def test_what_the_patterns_are():
    for layer in (0, 3):
        window, ends = BlockPattern.window(20, 3), BlockPattern.global_(20)
        both, draw = window | ends, {"per_row": 3, "heads": 4, "seed": 7, "layer": layer}
        want = {"W": window, "W+G": both, "full": BlockPattern.full(20)}
        want["W+R"] = window | BlockPattern.random(20, avoid=window, **draw)
        want["W+G+R"] = both | BlockPattern.random(20, avoid=both, **draw)
        assert want.keys() == set(mlm.PATTERNS)
        for name, pattern in want.items():
            got = mlm.config(Run(name, 64, seed=7)).pattern(20, layer).grid()
            assert torch.equal(got.expand(4, -1, -1), pattern.grid().expand(4, -1, -1)), (name, layer)


def test_pieces_do_not_see_each_other(small):
    net, asked = model(Run(length=64)), questions(1)
    other = Questions(asked.ids.clone(), asked.hidden, asked.distances)
    other.ids[0, :64] = other.ids[0, :64].flip(0)
    changed = (mlm.nats(net, asked, 64) != mlm.nats(net, other, 64)).tolist()
    first = int(asked.hidden[0, :64].sum())
    assert all(changed[:first]) and not any(changed[first:])
    assert all((mlm.nats(net, asked, 256) != mlm.nats(net, other, 256)).tolist())


def test_models_follow_from_the_seed_and_the_record_is_all_that_was_found(small, monkeypatch):
    one, again, other = (mlm.fresh_model(Run(length=64, seed=seed)).state_dict() for seed in (4, 4, 5))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["encoder.embeddings.word.weight"], other["encoder.embeddings.word.weight"])
    settings = mlm.settings(Run(length=64, steps=45, seed=4))
    assert (settings.seed, settings.steps, settings.checkpoint_every) == (4, 45, 4)
    run = Run("W", 128, 1, steps=2)
    record = mlm.execute(run, progress=False)
    assert json.loads(json.dumps(record)) == record and cells.cell_of(Run, record) == run
    assert list(record["test"]) == list(record["validation"]) == ["64", "128", "256"]
    assert record["guesses"] == mlm.guesses(mlm.split(1), 1) and record["seconds"] > 0
    text = mlm.split(1)
    hidden = {name: int(mlm.asked(getattr(text, name), 1).hidden.sum()) for name in ("validation", "test")}
    for name, count in hidden.items():
        assert [found["all"][1] for found in record[name].values()] == [count] * 3
        assert len({found["all"][0] for found in record[name].values()}) == 3
    assert record["parameters"] == sum(p.numel() for p in mlm.fresh_model(run).parameters())
    asked = []
    zeros = torch.zeros(2000)
    monkeypatch.setattr(mlm, "nats", lambda net, q, n: asked.append((q, n, net.training)) or zeros[: len(q.distances)])
    mlm.execute(run, progress=False)
    assert [(n, training) for _, n, training in asked] == [(n, False) for n in mlm.LENGTHS] * 2
    assert torch.equal(asked[0][0].ids, text.validation) and torch.equal(asked[-1][0].ids, text.test)


def test_it_learns(small):
    """A few steps bring it most of the way down to what a token's frequency tells."""
    run, text = Run(length=64, steps=20), mlm.split(0)
    asked, record = mlm.asked(text.test, 0), mlm.execute(run, progress=False)
    before = mlm.bits(mlm.nats(mlm.fresh_model(run).eval(), asked, 64), asked, text)["all"][0]
    after, frequency = record["test"]["64"]["all"][0], record["guesses"]["unigram"]["all"][0]
    assert after - frequency < 0.3 * (before - frequency)


def test_killed_and_resumed_it_ends_with_the_same_bits(small, tmp_path, capsys):
    run, whole, halves = Run("W+R", 128, 3, steps=12), tmp_path / "whole", tmp_path / "halves"
    words = ["mlm", "--pattern", "W+R", "--length", 128, "--seed", 3, "--steps", 12, "--threads", 1, "--out", halves]
    words = [*map(str, words)]
    process = subprocess.Popen([sys.executable, small_jobs.__file__, *words], stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + 100
    while not list((halves / run.name).glob("step_*[2-9]")) and process.poll() is None and time.monotonic() < give_up:
        time.sleep(0.005)
    process.kill()  # kill -9, somewhere in the third step or later
    assert process.wait() != 0
    assert sorted(path.name for path in halves.iterdir()) == [run.name]
    assert jobs(words) == 2
    assert "holds this training already; --resume goes on with it" in capsys.readouterr().err
    assert jobs([*words, "--resume"]) == 0 and torch.get_num_threads() == 1
    record = mlm.execute(run, whole / run.name, progress=False)
    one, other = (load_file(path / run.name / "step_00000012" / "model.safetensors") for path in (whole, halves))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    (line,) = cells.noted(halves, Run)
    assert all(line[name] == record[name] for name in ("test", "validation", "guesses"))


# ---------------------------------------------------------------- the table


def test_the_cells_are_all_there_once():
    full, quick = mlm_table.cells(), mlm_table.cells(quick=True)
    assert len(set(full)) == len({run.name for run in full}) == len(full) == 9
    assert [run.length for run in full] == [4096] * 3 + [1024] * 3 + [512] * 3 and {run.steps for run in full} == {400}
    assert [(run.length, run.seed, run.steps) for run in quick] == [(4096, 0, 60), (1024, 0, 60), (512, 0, 60)]
    assert {run.pattern for run in full + quick} == {"W+G+R"} and not set(full) & set(quick)


def record(run, base):
    """Bits that say where they are from: base, and a hundredth more for each band."""

    def found(more):
        bands = ("all", "1", "64", "512", "1024", "none") if run.length > 512 else ("all", "1", "64", "512", "none")
        return {band: [base + more + i / 100, 1000 if band == "all" else 200] for i, band in enumerate(bands)}

    tested = {str(n): found(i / 10) for i, n in enumerate((512, 1024, 4096))}
    guesses = {"unigram": found(5 - base)} | {str(n): found(3 - base + i / 10) for i, n in enumerate((512, 1024, 4096))}
    fields = {name: getattr(run, name) for name in Run.__dataclass_fields__}
    more = {"seconds": 99.6, "threads": 1, "torch": "2.13.0"}
    return fields | more | {"test": tested, "validation": tested, "guesses": guesses}


def test_the_table_as_text():
    lines = [record(Run(seed=seed), 2 + seed / 10) for seed in range(3)] + [record(Run(length=512), 2.5)]
    lines += [record(Run(length=1024, steps=60), 0.1), record(Run("W", length=1024), 0.1)]  # of somebody's own
    text = mlm_table.markdown(lines)
    rows = [line for line in text.split("\n") if line.startswith("|")]
    assert rows[:7] == [
        "| trained in pieces of | tested in 512 | tested in 1,024 | tested in 4,096 | s |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| 512 | 2.500 (1 seed) | 2.600 (1 seed) | 2.700 (1 seed) | 100 |",
        "| 4,096 | 2.100 ± 0.100 | 2.200 ± 0.100 | 2.300 ± 0.100 | 100 |",
        "| *cache* | 3.000 ± 0.000 | 3.100 ± 0.000 | 3.200 ± 0.000 |  |",
        "| *frequency alone* | 5.000 ± 0.000 | 5.000 ± 0.000 | 5.000 ± 0.000 |  |",
        "| nearest occurrence | below 64 | 64 to 511 | 512 to 1,023 | 1,024 to 4,095 | not within 4,096 |",
    ]
    assert "| 512 | 2.510 (1 seed) | 2.520 (1 seed) | 2.530 (1 seed) |  | 2.540 (1 seed) |" in rows
    assert "| 4,096 | 2.310 ± 0.100 | 2.320 ± 0.100 | 2.330 ± 0.100 | 2.340 ± 0.100 | 2.350 ± 0.100 |" in rows
    assert "| *cache, 1,024* | 3.110 ± 0.000 |" in text and "| 1,024 |" not in text
    assert rows[-1].startswith("| share of the hidden tokens | 0.200 | 0.200 | 0.200 | 0.1") and len(rows) == 14
    for words in ("40 stretches of 4,096 tokens", "3.3 million tokens (vocabulary 2,048)", "1 thread on torch 2.13"):
        assert words in text
    quick = mlm_table.markdown([record(Run(steps=60), 2.0), *lines], quick=True)
    assert "| 4,096 | 2.000 (1 seed) |" in quick and "0.5 million tokens" in quick and "| 512 |" not in quick


def test_lines_for_people():
    told = mlm_table.sentence(record(Run(seed=1), 2.0))
    assert told == "W+G+R, pieces of 4096, seed 1: bits a byte 2.000 in 512, 2.100 in 1,024, 2.200 in 4,096; 100 s"
    for quick, words in ((False, "--table$"), (True, "--table --quick$")):
        with pytest.raises(ValueError, match=rf"no results yet; first: python -m bigbird_mini\.jobs mlm {words}"):
            mlm_table.markdown([], quick)


# ---------------------------------------------------------------- command line


def test_words_of_the_command_line_make_the_cell(monkeypatch):
    asked = []
    monkeypatch.setattr(mlm.cells, "command", lambda words, cell, *more: asked.append((cell, *more)) or 0)
    for words, run in (
        ([], Run()),
        (["--quick"], Run(steps=60)),
        (["--quick", "--steps", "7", "--length", "1024", "--pattern", "full", "--seed", "4"], Run("full", 1024, 4, 7)),
    ):
        assert jobs(["mlm", *words]) == 0
        assert asked.pop() == (run, mlm.execute, mlm_table)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--length", "100"], "length=100 tokens must divide 4096, and be at least 64"),
        (["--length", "32"], "length=32 tokens must divide 4096, and be at least 64"),
        (["--length", "8192"], "length=8192 tokens must divide 4096"),
        (["--length", "64", "--steps", "0"], "steps=0 must be at least 1, seed=0 at least 0"),
        (["--length", "64", "--seed", "-2"], "seed=-2 at least 0"),
        (["--length", "64", "--table", "--processes", "0"], "processes=0 must be at least 1"),
        (["--length", "64", "--markdown"], "no results yet; first"),
    ],
)
def test_bad_input_ends_with_one_sentence(words, says, tmp_path, capsys):
    assert jobs(["mlm", *words, "--out", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_pattern_that_is_not_known():
    with pytest.raises(ValueError, match=r"pattern='WG' is not known; allowed: W, W\+R, W\+G, W\+G\+R, full"):
        Run("WG", 64)


def test_ctrl_c_leaves_a_checkpoint_and_a_sentence(small, tmp_path, monkeypatch, capsys):
    run, original = Run(length=64, steps=5), mlm.batches

    def batches(run):
        def batch(number):
            if number == 2:
                raise KeyboardInterrupt
            return original(run)(number)

        return batch

    monkeypatch.setattr(mlm, "batches", batches)
    assert jobs(["mlm", "--length", "64", "--steps", "5", "--out", str(tmp_path)]) == 130
    told = capsys.readouterr().err
    assert "2 of 5 steps are done; checkpoint step_00000002 is in" in told
    assert "The same command goes on, a single training with --resume." in told
    assert (tmp_path / run.name / "step_00000002").is_dir() and not (tmp_path / "results.jsonl").exists()
