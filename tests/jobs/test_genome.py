"""The genome job: its windows, its tests, its table, and a training that is killed and goes on."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bigbird_mini.data import leads, replichore_split, replichore_windows
from bigbird_mini.jobs import cells, genome, genome_table
from bigbird_mini.jobs.__main__ import main as jobs
from bigbird_mini.jobs.genome import Run

# ---------------------------------------------------------------- training and testing


def test_batches_follow_from_their_number_and_are_balanced():
    run = Run(length=1024, seed=3)
    batch = genome.batches(run)
    first, again, other = batch(4), genome.batches(run)(4), batch(5)
    assert torch.equal(first["bases"], again["bases"]) and not torch.equal(first["bases"], other["bases"])
    assert not torch.equal(first["bases"], genome.batches(Run(length=1024, seed=4))(4)["bases"])
    assert first["bases"].shape == (64, 1024) and 0 < first["labels"].sum() < 64
    wide = Run(bases_per_token=1)
    assert (wide.windows, wide.accumulation) == (4, 2) and genome.batches(wide)(0)["bases"].shape == (2, 16384)
    assert Run().accumulation == Run(length=256).accumulation == 1 and Run(length=256).windows == 256


def test_training_windows_are_of_the_training_blocks_and_half_from_each_half(monkeypatch):
    asked = []
    monkeypatch.setattr(genome, "replichore_split", lambda seed: replichore_split(1))  # so that only the draw differs
    monkeypatch.setattr(genome, "replichore_windows", lambda c, *more: asked.append(c) or replichore_windows(c, *more))
    for seed in (1, 2):
        genome.batches(Run(length=512, seed=seed))(0)
        assert np.isin(asked[-1], replichore_split(1).train).all() and leads(asked[-1]).mean() == 0.5
    assert not np.array_equal(*asked)


def test_the_prediction_of_pieces_is_the_sum_of_theirs():
    net, centres = genome.fresh_model(Run()).eval(), replichore_split(0).test[:5]
    got = genome.predict(net, centres, 1024, 256)
    pieces = replichore_windows(centres, 1024)[0].view(5, 4, 256)
    with torch.no_grad():
        want = torch.stack([net(piece).logits.sum() for piece in pieces])
        assert torch.allclose(got, want, atol=1e-5)
        whole = net(replichore_windows(centres, 1024)[0]).logits
        assert torch.allclose(genome.predict(net, centres, 1024), whole, atol=1e-5)
    assert not torch.allclose(want, whole, atol=0.1)


def test_scores_by_hand():
    centres = np.array([8_192, 20_000, 1_608_192, 1_700_000, 1_700_000])  # leads: 1 1 0 0 0, blocks 0 0 16 17 17
    logits = torch.tensor([2.0, -1.0, -3.0, -0.5, 4.0])
    found = genome.scores("test", logits, centres)
    each = np.array([0.5, 1.0, 0.5])
    losses = [np.log(1 + np.exp(x)) for x in (-2.0, 1.0, -3.0, -0.5, 4.0)]
    assert found["test"] == 0.6 and found["test_windows"] == 5
    assert found["test_error"] == pytest.approx(each.std(ddof=1) / 3**0.5)
    assert found["test_loss"] == pytest.approx(np.mean(losses))


def test_what_is_tested_and_that_only_the_short_encoder_votes(monkeypatch):
    asked, split = [], replichore_split(2)

    def predict(_, centres, *lengths):
        asked.append((len(centres), *lengths))
        assert np.array_equal(centres, split.validation if len(asked) <= len(asked_for) / 2 else split.test)
        return torch.from_numpy(leads(centres) * 2.0 - 1)

    monkeypatch.setattr(genome, "predict", predict)
    asked_for = [(m, *lengths) for m in (246, 410) for lengths in ((1024,), (4096, 1024), (16384, 1024))]
    found = genome.tested(None, Run(length=1024, seed=2))
    assert asked == asked_for and list(found["votes"]) == ["4096", "16384"]
    assert found["test"] == found["votes"]["4096"]["test"] == found["votes"]["16384"]["validation"] == 1.0
    for run in (Run(length=256, seed=2), Run("mean", length=1024, seed=2)):
        asked, asked_for = [], [(246, run.length), (410, run.length)]
        assert genome.tested(None, run)["votes"] == {} and asked == asked_for


def test_peak_memory_sees_a_large_tensor():
    before = genome.peak_megabytes()
    if before is None:
        pytest.skip("this system does not tell")
    torch.ones(int(before * 1e6) // 4 + 25_000_000)
    assert genome.peak_megabytes() > before + 90


def test_cost_is_one_window_forward_and_backward(monkeypatch):
    ticks = iter([0.0, 6.0, 10.0, 14.5])
    monkeypatch.setattr(genome.time, "perf_counter", lambda: next(ticks))
    assert genome.seconds_of_one_window(Run("cost", length=256)) == 4.5


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_killed_and_resumed_it_ends_with_the_same_bits(tmp_path, one_thread, capsys):
    run, whole, halves = Run(length=512, steps=8, seed=5), tmp_path / "whole", tmp_path / "halves"
    words = ["--length", 512, "--steps", 8, "--seed", 5, "--threads", 1, "--out", halves, "--save", halves / "saved"]
    words = ["genome", *map(str, words)]
    process = subprocess.Popen([sys.executable, "-m", "bigbird_mini.jobs", *words], stderr=subprocess.DEVNULL)
    give_up = time.monotonic() + 100
    while not list((halves / run.name).glob("step_*[2-9]")) and process.poll() is None and time.monotonic() < give_up:
        time.sleep(0.005)
    process.kill()  # kill -9, somewhere in the third step or later
    assert process.wait() != 0
    assert sorted(path.name for path in halves.iterdir()) == [run.name]
    assert jobs(words) == 2
    assert "holds this training already; --resume goes on with it" in capsys.readouterr().err
    assert jobs([*words, "--resume"]) == 0 and torch.get_num_threads() == 1
    record = genome.execute(run, whole / run.name, save=whole / "saved", progress=False)
    one, other = (load_file(path / "saved" / "model.safetensors") for path in (whole, halves))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    (line,) = cells.noted(halves, Run)
    assert all(line[name] == record[name] for name in ("test", "validation", "validation_loss", "test_loss"))


# ---------------------------------------------------------------- the table


def record(run, test, **more):
    both = {"validation": 0.9, "test": test, "test_error": 0.02, "test_windows": 410, "votes": {}}
    about = {"seconds": 30.0, "peak_mb": 800.0, "bare_mb": 300.0, "threads": 1, "torch": "2.13.0"}
    fields = {name: getattr(run, name) for name in Run.__dataclass_fields__}
    return fields | about | both | more


def test_the_cells_are_all_there_once():
    full, quick = genome_table.cells(), genome_table.cells(quick=True)
    assert len(set(full)) == len(full) == 1 + 2 + 30 + 6 + 6 + 12 and full[0].bases_per_token == 1
    assert len(set(quick)) == len(quick) == 2 + 4 + 3 + 1 + 4 and {run.seed for run in quick} == {0}
    assert set(quick) < set(full) and len({run.name for run in full}) == len(full)


# what the table of November 2026 was made of
BEFORE = (
    '{"model": "encoder", "pattern": "full", "length": 16384, "seed": 0, "steps": 120, "bases_per_token": 8, '
    '"bare_mb": 234.8, "seconds": 241.4, "parameters": 73536, "votes": {}, "validation": 0.9959, '
    '"validation_error": 0.0041, "validation_loss": 0.013, "validation_windows": 246, "test": 0.961, '
    '"test_error": 0.0209, "test_loss": 0.1607, "test_windows": 410, "peak_mb": 554.9, "wall": 330.7, "threads": 1, '
    '"torch": "2.13.0+cpu", "python": "3.11.7"}\n'
)


def test_a_killed_cell_of_the_table_goes_on_and_its_line_has_the_fields_of_before(tmp_path):
    run = Run(length=512, steps=2, seed=2)
    before = genome.execute(run, tmp_path / run.name, progress=False)
    (tmp_path / "results.jsonl").write_text(BEFORE, "utf-8")
    cells.fill(tmp_path, [Run(pattern="full"), run], genome.execute, genome_table.sentence)
    old, new = cells.noted(tmp_path, Run)
    assert old == json.loads(BEFORE) and list(new) == list(old)
    assert new["threads"] == 1 and 0.4 < new["test"] < 0.8 and new["seconds"] == before["seconds"]


def test_a_line_for_people():
    told = genome_table.sentence(json.loads(BEFORE))
    assert told == "encoder full, 16384 bases, 8 a token, seed 0: validation 0.996, test 0.961, 241.4 s, 555 MB"
    cost = {**record(Run("cost", bases_per_token=1), 0), "peak_mb": None}
    del cost["test"]
    assert genome_table.sentence(cost) == "cost W+G+R, 16384 bases, 1 a token, seed 0: 30.0 s"


def test_the_table_as_text():
    votes = {"16384": {"test": 0.96, "test_error": 0.01, "test_windows": 410}}
    lines = [record(Run(seed=seed), test) for seed, test in enumerate((0.95, 0.96, 0.97))]
    lines += [record(Run(length=1024, seed=seed), 0.7 + seed / 100, votes=votes) for seed in range(3)]
    lines += [record(Run(pattern="W"), 0.65), record(Run("logistic", length=256), 0.6, seconds=2.0, peak_mb=None)]
    lines += [record(Run(bases_per_token=1, steps=75), 0.94, seconds=250.0)]
    lines += [{**record(Run("cost", pattern, bases_per_token=1), 0), "seconds": seconds} for pattern, seconds in
              (("full", 12.5), ("W+G+R", 0.5))]  # fmt: skip
    for line in lines[-2:]:
        del line["test"]
    lines.append(record(Run(steps=30), 0.1))  # of somebody's quick look
    text = genome_table.markdown(lines)
    assert "| **W+G+R**, BigBird |  | 0.710 ± 0.010 |  | 0.960 ± 0.010 |" in text
    assert "| W |  |  |  | 0.650 (1 seed) |" in text and "| W+G |" not in text
    assert "| W+G+R, one token per base |  |  |  | 0.940 (1 seed) |" in text
    assert "| *the model of 1,024 bases, its pieces vote* |  |  |  | 0.960 ± 0.000 |" in text
    assert "| *3-mers of both strands, logistic regression* | 2 s |  |  |  |" in text
    assert "| **W+G+R**, BigBird |  | 30 s, 800 MB |  | 30 s, 800 MB |" in text
    assert "takes 0.50 s with W+G+R and 12.5 s with full attention, 25 times" in text and "4 windows, 50 s" in text
    assert (
        "has 300 MB" in text
        and "0.020 at 1,024, 0.020 at 16,384" in text
        and "410 windows" in text
        and "with 1 thread on torch" in text
    )
    quick = genome_table.markdown([*lines, record(Run(pattern="W", length=4096), 0.6)], quick=True)
    assert "| W |  |  |  | 0.650 (1 seed) |" in quick and "| **W+G+R**, BigBird |  | 0.700 (1 seed) |" in quick
    with pytest.raises(ValueError, match=r"no results yet; first: python -m bigbird_mini\.jobs genome --table$"):
        genome_table.markdown([])


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--length", "20000"], "length=20000 must be an even number of bases, 4 to 16384"),
        (["--length", "100"], "bases_per_token=8 must divide the length of 100 bases"),
        (["--steps", "0"], "steps=0 must be at least 1"),
        (["--steps", "-1"], "steps=-1 must be at least 1, and seed=0 at least 0"),
        (["--seed", "-2"], "seed=-2 at least 0"),
        (["--table", "--processes", "0"], "processes=0 must be at least 1"),
        (["--markdown", "--quick"], "no results yet; first: python -m bigbird_mini.jobs genome --table --quick"),
        (["--table", "--save", "x"], "--save x is for the model of one training; --table makes many"),
    ],
)
def test_bad_input_ends_with_one_sentence(words, says, tmp_path, capsys):
    assert jobs(["genome", *words, "--out", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1 and not list(tmp_path.iterdir())


def test_ctrl_c_leaves_a_checkpoint_and_a_sentence(tmp_path, monkeypatch, capsys):
    run, original = Run(length=512, steps=5), genome.batches

    def batches(run):
        def batch(number):
            if number == 2:
                raise KeyboardInterrupt
            return original(run)(number)

        return batch

    monkeypatch.setattr(genome, "batches", batches)
    words = ["genome", "--length", "512", "--steps", "5", "--out", str(tmp_path)]
    assert jobs(words) == 130
    told = capsys.readouterr().err
    assert "2 of 5 steps are done; checkpoint step_00000002 is in" in told
    assert "The same command goes on, a single training with --resume." in told
    assert (tmp_path / run.name / "step_00000002").is_dir() and not (tmp_path / "results.jsonl").exists()
