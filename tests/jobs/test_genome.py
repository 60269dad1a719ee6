"""The genome job: its encoder, its controls, its table, and a training that is killed and goes on."""

import json
import re
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bigbird_mini import BigBirdModel, BlockPattern
from bigbird_mini.data import genome_encoder, leads, replichore_split, replichore_windows, reverse_complement
from bigbird_mini.jobs import genome, genome_table
from bigbird_mini.jobs import genome_controls as controls
from bigbird_mini.jobs.__main__ import main as jobs
from bigbird_mini.jobs.genome import Run
from bigbird_mini.jobs.genome_model import PATTERNS, StrandModel, strand_config, trimers

TINY = {"length": 512, "steps": 2}  # a second or two


def model(pattern="W+G+R", seed=0, **more):
    """No weight at its start, biases and norms included."""
    torch.manual_seed(seed)
    made = StrandModel(strand_config(pattern), **more).eval()
    for parameter in made.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return made


def bases(B, n, seed=0):
    return torch.randint(0, 4, (B, n), generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- the encoder


@pytest.mark.parametrize("each", [1, 2, 8])
def test_a_token_is_the_mean_of_the_three_mers_that_start_in_it(each):
    net, x = model(bases_per_token=each), bases(2, 24)
    table = net.encoder.embeddings.word.weight
    for b in range(2):
        for t in range(24 // each):
            starts = [i for i in range(t * each, (t + 1) * each) if i + 3 <= 24]
            vectors = [table[int("".join(str(c) for c in x[b, i : i + 3].tolist()), 4)] for i in starts]
            want = sum(vectors) / len(vectors) * each**0.5 if vectors else torch.zeros(64)
            assert torch.allclose(net.tokens(x)[b, t], want, atol=1e-6)
    assert trimers(torch.tensor([0, 0, 0, 3, 3, 3])).tolist() == [0, 3, 15, 63]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("length", [256, 3072])
def test_the_other_strand_has_minus_the_logit(pattern, length):
    net, x = model(pattern), bases(3, length)
    logits = net(x).logits
    assert logits.shape == (3,) and logits.abs().max() > 0.01
    assert torch.allclose(net(reverse_complement(x)).logits, -logits, rtol=0, atol=2e-6)


def test_the_logit_is_what_the_formula_says():
    net, x = model(seed=1), bases(2, 512)
    difference = net.features(x) - net.features(reverse_complement(x))
    normed = difference / (difference.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    out = net(x, torch.tensor([1, 0]))
    assert torch.allclose(out.logits, (normed * net.weight).sum(-1), atol=1e-5)
    wrong = torch.stack((-out.logits[0], out.logits[1]))
    assert torch.allclose(out.loss, (1 + wrong.exp()).log().mean(), atol=1e-6)


@pytest.mark.parametrize(
    ("pattern", "mean", "reached"),
    [("W", False, 512), ("W+G", False, 4096), ("W+G+R", False, 4096), ("full", False, 4096), ("W", True, 4096)],
)
def test_how_far_the_read_out_token_sees(pattern, mean, reached):
    """Two layers of a window bring the block before the window two blocks: 64 tokens, 512 bases (and a 3-mer's end)."""
    net = model(pattern, mean=mean)
    x = net.tokens(bases(1, 4096)).detach().requires_grad_()
    net.tokens = lambda _: x
    net.features(None).square().sum().backward()
    seen = x.grad[0].abs().sum(-1).nonzero().flatten()
    assert len(seen) == seen[-1] + 1 == reached // 8


def test_what_the_patterns_are():
    """With a G, a block of extra globals before the window; else the pattern of the window and the block before it."""
    window = BlockPattern.window(20, 3)
    for layer in (0, 1):
        drawn = {"heads": 2, "layer": layer, "avoid": window}
        random = window | BlockPattern.random(20, 3, **drawn)
        want = {"W": window, "W+R": random, "W+G": window.with_extra_globals(), "W+G+R": random.with_extra_globals()}
        want["full"] = BlockPattern.full(21)
        for name, pattern in want.items():
            got = strand_config(name).pattern(20, layer).grid()
            assert torch.equal(got.expand(2, -1, -1), pattern.grid().expand(2, -1, -1)), (name, layer)


def test_random_blocks_reach_further_than_the_window():
    net = model("W+R")
    x = net.tokens(bases(1, 16384)).detach().requires_grad_()
    net.tokens = lambda _: x
    net.features(None).square().sum().backward()
    seen = (x.grad[0].abs().sum(-1) > 0).view(64, 32)
    assert (seen.any(1) == seen.all(1)).all() and 8 < seen.any(1).sum() < 64


def test_without_attention_a_token_knows_itself_alone():
    assert not controls.no_attention(*torch.ones(3, 1, 2, 4, 5), None, key_mask=None).any()
    net = controls.mean_pooling(8).eval()
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    x = bases(1, 2048)
    halves = net.features(x[:, :1024]) + net.features(x[:, 1024:])
    assert torch.allclose(net.features(x), halves / 2, atol=0.02)  # two 3-mers lie over the cut
    assert not torch.allclose(model("W", mean=True).features(x), halves / 2, atol=0.02)


def test_every_weight_learns():
    for pattern in ("W", "W+G+R"):
        net = model(pattern)
        net(bases(4, 512), torch.tensor([0, 1, 0, 1])).loss.backward()
        still = {name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()}
        assert still <= {"encoder.final_norm.bias"}  # the same in both strands: it cancels, up to rounding


def test_saved_and_loaded_it_says_the_same(tmp_path):
    for pattern in ("W+R", "W+G+R", "full"):
        net, x = model(pattern, bases_per_token=4, mean=pattern == "W+R"), bases(2, 1024)
        net.save(tmp_path / pattern, {"seed": 7})
        again = StrandModel.load(tmp_path / pattern)
        assert torch.equal(again(x).logits, net(x).logits) and not again.training
        about = json.loads((tmp_path / pattern / "config.json").read_text("utf-8"))["strand"]
        assert about == {"bases_per_token": 4, "mean": pattern == "W+R", "seed": 7}
    net.save_pretrained(tmp_path / "full")
    config = json.loads((tmp_path / "full" / "config.json").read_text("utf-8"))
    del config["strand"]
    (tmp_path / "full" / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(ValueError, match=r"holds no model of the genome job: its config\.json has no 'strand'"):
        StrandModel.load(tmp_path / "full")


def test_the_encoder_of_the_package_does_what_it_says():
    """On a few of the validation windows, as their labels say; loaded as an encoder alone, the same vectors."""
    folder = genome_encoder()
    net, about = StrandModel.load(folder), json.loads((folder / "config.json").read_text("utf-8"))["strand"]
    assert net.config == strand_config("W+G+R") and not net.training
    assert (about["length"], about["pattern"], about["seed"], about["validation"]) == (16384, "W+G+R", 0, 1.0)
    centres = replichore_split(0).validation[::25]
    assert genome.scores("validation", genome.predict(net, centres, 16384), centres)["validation"] == 1.0
    x = bases(1, 4096)
    alone = BigBirdModel.from_pretrained(folder)(inputs_embeds=net.tokens(x)).global_hidden_state[:, 0]
    assert torch.equal(alone, net.features(x))


# ---------------------------------------------------------------- the controls


def test_three_mers_are_counted_on_both_strands():
    letters, partner = "ACGT", {"A": "T", "C": "G", "G": "C", "T": "A"}
    words = [a + b + c for a in letters for b in letters for c in letters]
    turned = {word: "".join(partner[letter] for letter in reversed(word)) for word in words}
    assert [words[i] for i in controls.partners()] == [turned[word] for word in words]
    x = bases(3, 50)
    got = controls.strand_frequencies(x)
    for row, found in zip(x.tolist(), got.tolist(), strict=True):
        text = "".join(letters[code] for code in row)
        here = [text[i : i + 3] for i in range(48)]
        want = [(here.count(word) - here.count(turned[word])) / 48 for word in words]
        assert found == pytest.approx(want)
    assert torch.allclose(controls.strand_frequencies(reverse_complement(x)), -got)


def test_the_gradient_of_logistic_regression_is_the_closed_form():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 5, dtype=torch.float64, generator=g)
    y = (torch.rand(40, generator=g) < 0.4).double()
    weights = torch.randn(5, dtype=torch.float64, generator=g).requires_grad_()
    controls.logistic_loss(weights, x, y, 0.3).backward()
    closed = x.T @ ((x @ weights).sigmoid() - y) / 40 + 2 * 0.3 * weights
    assert torch.allclose(weights.grad, closed.detach(), atol=1e-12)
    found = controls.fit_logistic(x, y, 0.01)
    flat = x.T @ ((x @ found).sigmoid() - y) / 40 + 2 * 0.01 * found
    assert flat.abs().max() < 1e-6


def test_logistic_regression_chooses_by_validation_and_knows_no_test(monkeypatch):
    monkeypatch.setattr(controls, "LOGISTIC_WINDOWS", 600)
    split = replichore_split(2)
    logits, penalty = controls.logistic_regression(split, 2048, 2)
    assert logits["validation"].shape == (246,) and logits["test"].shape == (410,)
    truth = torch.from_numpy(leads(split.validation)).double()
    losses = {}
    for only in controls.PENALTIES:
        monkeypatch.setattr(controls, "PENALTIES", (only,))
        own = controls.logistic_regression(split, 2048, 2)[0]["validation"]
        losses[only] = torch.nn.functional.binary_cross_entropy_with_logits(own, truth).item()
    assert len(set(losses.values())) > 1 and penalty == min(losses, key=losses.get)
    assert genome.scores("validation", logits["validation"], split.validation)["validation"] > 0.7


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
    net, centres = model(), replichore_split(0).test[:5]
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


def job(*words, **more):
    return [sys.executable, "-m", "bigbird_mini.jobs", "genome", *map(str, words)]


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
    (line,) = genome_table.noted(halves)
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
    assert len(set(quick)) == len(quick) == 2 + 5 + 3 + 1 + 4 and {run.seed for run in quick} == {0}
    assert set(quick) < set(full) and len({run.name for run in full}) == len(full)


def test_lines_survive_a_kill(tmp_path):
    genome_table.note(tmp_path, record(Run(seed=0), 0.9))
    with (tmp_path / "results.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"model": "enco')
    genome_table.note(tmp_path, record(Run(seed=1), 0.8))
    genome_table.note(tmp_path, record(Run(seed=0), 0.7))
    assert [line["test"] for line in genome_table.noted(tmp_path)] == [0.7, 0.8]
    assert genome_table.noted(tmp_path / "nothing") == []


def test_the_table_runs_what_is_missing_each_in_its_own_process(tmp_path, monkeypatch):
    """One cell has its line already, one cannot work, one was killed before its line was written: it goes on."""
    done, bad = Run(seed=0, **TINY), Run(seed=1, **TINY)
    good = Run(seed=2, **TINY)
    monkeypatch.setattr(genome_table, "cells", lambda quick: [done, bad, good])
    genome_table.note(tmp_path, record(done, 0.5))
    tmp_path.joinpath(bad.name).write_text("a file where a folder must be")
    before = genome.execute(good, tmp_path / good.name, progress=False)
    with pytest.raises(RuntimeError, match=f"^1 cells .* tries them again. {re.escape(bad.name)}: .*Error"):
        genome_table.fill(tmp_path, processes=2)
    lines = genome_table.noted(tmp_path)
    assert [genome_table.settings_of(line) for line in lines] == [done, good] and lines[0]["test"] == 0.5
    assert lines[1]["threads"] == 1 and 0.4 < lines[1]["test"] < 0.8 and lines[1]["seconds"] == before["seconds"]
    asked = []
    monkeypatch.setattr(genome_table, "_apart", lambda run, *_: asked.append(run) or record(run, 0.4))
    genome_table.fill(tmp_path)
    assert asked == [bad] and genome_table.noted(tmp_path)[-1]["test"] == 0.4


def test_a_cell_whose_process_dies_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr(genome_table, "_cell", print)  # ends without a word
    with pytest.raises(RuntimeError, match=r"its process ended with code 0 \(killed for want of memory\?\)"):
        genome_table._apart(Run("logistic", length=256), tmp_path, 1)


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
    with pytest.raises(ValueError, match=r"no results yet; first: python -m bigbird_mini\.jobs genome --table"):
        genome_table.markdown([])


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--length", "20000"], "length=20000 must be an even number of bases, 4 to 16384"),
        (["--length", "100"], "bases_per_token=8 must divide the length of 100 bases"),
        (["--steps", "-1"], "steps=-1 must be at least 1, and seed=0 at least 0"),
        (["--seed", "-2"], "seed=-2 at least 0"),
        (["--table", "--processes", "0"], "processes=0 and threads=1 must be at least 1"),
        (["--markdown"], "no results yet; first"),
    ],
)
def test_bad_input_ends_with_one_sentence(words, says, tmp_path, capsys):
    assert jobs(["genome", *words, "--out", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "NAME"),
        (["cooking"], "invalid choice: 'cooking' .*genome"),
        (["genome", "--pattern", "W+X"], r"invalid choice: 'W\+X'"),
    ],
)
def test_words_that_are_not_known_get_the_known_ones(words, says, capsys):
    with pytest.raises(SystemExit) as stopped:
        jobs(words)
    assert stopped.value.code == 2
    assert re.search(says, capsys.readouterr().err)


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


def test_settings_that_cannot_be():
    with pytest.raises(ValueError, match=r"pattern='WG' is not known; allowed: W, W\+R, W\+G, W\+G\+R, full"):
        strand_config("WG")
    with pytest.raises(ValueError, match="model='forest' is not known; allowed: encoder, mean, logistic, cost"):
        Run("forest")
    with pytest.raises(ValueError, match=r"a window of 20 bases cannot be cut .* bases_per_token=8"):
        model()(bases(1, 20))
