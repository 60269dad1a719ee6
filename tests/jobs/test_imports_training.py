"""The imports job: its models and the voters beside them, a training that is killed and goes on, its table."""

import json
import subprocess
import sys
import time

import pytest
import small_jobs
import torch
from safetensors.torch import load_file

from bigbird_mini import BlockPattern
from bigbird_mini.jobs import cells, imports, imports_table
from bigbird_mini.jobs.__main__ import main as jobs
from bigbird_mini.jobs.imports import PATTERNS, Run

pytest.importorskip("tokenizers", reason="needs the extra lab or hf")
V = small_jobs.VOCABULARY


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def small(monkeypatch, cache):
    monkeypatch.setenv("BIGBIRD_MINI_CACHE", str(cache))
    small_jobs.shrink(monkeypatch.setattr)
    threads, kept = torch.get_num_threads(), imports.files
    yield
    torch.set_num_threads(threads)
    kept.cache_clear()


def model(run, seed=0):
    """No weight at its start, biases and norms included."""
    torch.manual_seed(seed)
    made = imports.fresh_model(run).eval()
    for parameter in made.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return made


def text(n, seed=0):
    """ids and segments, (1, n)."""
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, V + 64, (1, n), generator=g), torch.randint(0, 33, (1, n), generator=g)


# ---------------------------------------------------------------- models


def test_what_the_patterns_are():
    for layer in (0, 1):
        window, header = BlockPattern.window(20, 3), BlockPattern.global_(20, (0, 1))
        both, draw = window | header, {"per_row": 3, "heads": 2, "seed": 7, "layer": layer}
        random = window | BlockPattern.random(20, avoid=window, **draw)
        want = {"W": window, "W+R": random, "W+I": both, "full": BlockPattern.full(20)}
        want["W+I+R"] = both | BlockPattern.random(20, avoid=both, **draw)
        want |= {"W+G": window.with_extra_globals(), "W+G+R": random.with_extra_globals()}
        assert {*want, "pieces"} == set(PATTERNS)
        for name, pattern in want.items():
            got = imports.config(Run(name, seed=7)).pattern(20, layer).grid()
            assert torch.equal(got.expand(2, -1, -1), pattern.grid().expand(2, -1, -1)), (name, layer)


def test_in_short_excerpts_all_patterns_are_the_same():
    ids, segments = text(imports.SHORT)
    one = model(Run("full"))(ids, token_type_ids=segments).logits
    for name in ("W", "W+R", "W+I", "W+I+R"):
        other = model(Run(name))
        assert torch.allclose(other(ids, token_type_ids=segments).logits, one, atol=1e-5)
    for name in ("W+G", "W+G+R"):
        assert imports.config(Run(name)).pattern(2, 0).grid().all()


def test_without_positions_an_answer_does_not_depend_on_where_a_token_stands():
    ids, segments = text(128)
    net = model(Run("full"))
    order = torch.randperm(128, generator=torch.Generator().manual_seed(0))
    turned = net(ids[:, order], token_type_ids=segments[:, order]).logits
    assert torch.allclose(turned, net(ids, token_type_ids=segments).logits[:, order], atol=1e-5)


def test_a_score_is_what_the_own_piece_says_and_the_sum_of_the_votes():
    """Each piece as if it were the whole text of a model with full attention; the last one is shorter."""
    net = model(Run("pieces", piece=128))
    ids, segments = (torch.cat(pair) for pair in zip(text(300), text(300, 1), strict=True))
    labels = torch.full((2, 300), -100)
    labels[0, 5], labels[1, 299] = 31, 4
    out = net(ids, token_type_ids=segments, labels=labels)
    full = model(Run("full"))
    full.load_state_dict(net.own.state_dict())
    for row in range(2):
        ends = ((0, 128), (128, 256), (256, 300))
        outs = [full(ids[row : row + 1, a:b], token_type_ids=segments[row : row + 1, a:b]) for a, b in ends]
        votes = sum(net.vote(part.last_hidden_state[0].mean(0)) for part in outs)
        want = torch.cat([part.logits[0] for part in outs]) + votes
        assert torch.allclose(out.logits[row], want, atol=1e-5) and votes.abs().max() > 0.01
    scores = out.logits.log_softmax(-1)
    assert out.loss.item() == pytest.approx(-(scores[0, 5, 31] + scores[1, 299, 4]).item() / 2, abs=1e-5)
    assert net(ids, token_type_ids=segments).loss is None and out.last_hidden_state.shape == (2, 300, 64)


def test_pieces_do_not_see_each_other_except_through_the_vote():
    net, (ids, segments) = model(Run("pieces", piece=128)), text(300)
    changed, outside = ids.clone(), torch.arange(300) // 128 != 1
    changed[0, 200] = (ids[0, 200] + 1) % V
    one, other = (net(x, token_type_ids=segments).logits[0] for x in (ids, changed))
    difference = one - other
    assert torch.allclose(difference[outside], difference[0].expand(172, -1), atol=1e-6)
    assert difference[0].abs().max() > 1e-4  # the vote of the piece, the same for all the others
    assert not torch.isclose(difference[~outside], difference[0], atol=1e-5).all(-1).any()
    net.vote.weight.data.zero_()
    one, other = (net(x, token_type_ids=segments).logits[0] for x in (ids, changed))
    assert torch.equal(one[outside], other[outside]) and (one[~outside] != other[~outside]).any(-1).all()


def test_models_follow_from_the_seed_and_every_weight_learns():
    for run in (Run("W+G+R", seed=4), Run("pieces", seed=4, piece=64)):
        one, again = (imports.fresh_model(run).state_dict() for _ in range(2))
        other = imports.fresh_model(Run(run.pattern, seed=5, piece=run.piece)).state_dict()
        assert all(torch.equal(one[name], again[name]) for name in one)
        assert any(not torch.equal(one[name], other[name]) for name in one)
        net, (ids, segments) = model(run), text(512)
        net(ids, token_type_ids=segments, labels=ids % 32).loss.backward()
        still = {name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()}
        assert not {name for name in still if not name.endswith("key.bias")}, still  # softmax does not see those
    assert imports.settings(Run(seed=4, steps=45, short=1)).seed == 4


# ---------------------------------------------------------------- training


def test_the_record_is_all_that_was_found(tmp_path, monkeypatch):
    run = Run(length=1024, seed=1, steps=4, short=1)
    record = imports.execute(run, tmp_path / run.name, progress=False)
    assert json.loads(json.dumps(record)) == record and cells.cell_of(Run, record) == run
    _, validation, test = imports.files(1)
    assert record["guesses"] == imports.guesses(test, 1024)
    state = json.loads((tmp_path / run.name / "step_00000004" / "state.json").read_text("utf-8"))
    seconds = [row["seconds"] for row in state["history"]]
    assert record["seconds"] == pytest.approx(sum(seconds)) and record["long_seconds"] == sorted(seconds[1:])[1]
    assert record["parameters"] == sum(p.numel() for p in imports.fresh_model(run).parameters())
    asked = []

    def answers(net, documents, own):
        asked.append((documents, own, net.training))
        return [(600, len(asked) == 1)]

    monkeypatch.setattr(imports, "answers", answers)
    monkeypatch.setattr(imports, "answers_retrieved", answers)
    found = imports.execute(run, progress=False)
    assert asked == [(validation, run, False), (test, run, False), (test, run, False)]
    assert [found[name]["far"] for name in ("validation", "test", "retrieved")] == [[1.0, 1], [0.0, 1], [0.0, 1]]
    other = Run("W", 1024, 1, steps=1, short=1)
    found = imports.execute(other, progress=False)
    assert "retrieved" not in found and found["long_seconds"] == 0.0


def test_a_length_at_which_nothing_is_far_has_a_record_too():
    record = imports.execute(Run("W", 256, steps=1, short=1), progress=False)
    assert record["guesses"] == {} and list(record["test"]) == ["0"]
    assert "test nan of 0 far uses" in imports_table.sentence(record)


def test_it_learns():
    """Not yet the look-up, which takes hundreds of steps, but something about excerpts that it has not seen."""
    run = Run("W", 256, steps=30, short=30)
    net = imports.fresh_model(run)
    new = imports.batches(Run("W", 256, steps=99, short=99))(150)
    before = net(**new).loss.item()
    cells.trained(imports.Trainer(net, imports.batches(run), imports.settings(run)), False, False)
    assert net(**new).loss.item() < before - 0.5


def test_killed_and_resumed_it_ends_with_the_same_bits(tmp_path, capsys):
    run, whole, halves = Run("W+I+R", 512, 3, 12, 4), tmp_path / "whole", tmp_path / "halves"
    words = ["imports", "--pattern", "W+I+R", "--length", 512, "--seed", 3, "--steps", 12, "--short", 4]
    words = [*map(str, words), "--threads", "1", "--out", str(halves)]
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
    record = imports.execute(run, whole / run.name, progress=False)
    one, other = (load_file(path / run.name / "step_00000012" / "model.safetensors") for path in (whole, halves))
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    (line,) = cells.noted(halves, Run)
    assert all(line[name] == record[name] for name in ("test", "validation", "guesses"))


# ---------------------------------------------------------------- the table


def test_the_cells_are_all_there_once():
    full, quick = imports_table.cells(), imports_table.cells(quick=True)
    assert len(set(full)) == len({run.name for run in full}) == len(full) == 27
    assert [run.pattern for run in full[:3]] == ["full"] * 3  # the longest first
    assert {(run.pattern, run.piece) for run in full[-6:]} == {("pieces", 2048), ("pieces", 512)}
    assert {(run.length, run.steps, run.short) for run in full} == {(4096, 350, 250)}
    assert [run.pattern for run in quick] == ["full", "W+I", "W+G", "W+R", "W"] and not set(full) & set(quick)
    assert {(run.seed, run.length, run.steps, run.short) for run in quick} == {(0, 4096, 240, 180)}


def record(run, far):
    tested = {"far": [far, 900], "0": [far + 0.001, 1000], "512": [far + 0.002, 500], "2048": [far + 0.003, 90]}
    guesses = {"chance": 0.125, "first": 0.15, "last": 0.1, "names": 0.25, "used": 0.5}
    fields = {name: getattr(run, name) for name in Run.__dataclass_fields__}
    more = {"seconds": 99.6, "long_seconds": 0.5, "threads": 1, "torch": "2.13.0"}
    found = fields | more | {"test": tested, "validation": {"far": [0.7, 300]}, "guesses": guesses}
    return found | ({"retrieved": {"far": [far - 0.01, 800]}} if run.pattern == "full" else {})


def test_the_table_as_text():
    lines = [record(Run(seed=seed), 0.9 + seed / 100) for seed in range(3)]
    lines += [record(Run("W+G"), 0.4), record(Run("pieces", piece=512), 0.3), record(Run("pieces", piece=2048), 0.35)]
    lines += [record(Run("W", steps=450), 0.1), record(Run("pieces", piece=1024), 0.1)]  # of somebody's own
    told = imports_table.markdown(lines)
    assert told.split("\n")[:6] == [
        "| tokens since the import | 512 or more | below 512 | 512 to 1,023 | 1,024 to 2,047 | 2,048 to 4,095 | s "
        "| s a long step |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| full | 0.910 ± 0.010 | 0.911 ± 0.010 | 0.912 ± 0.010 |  | 0.913 ± 0.010 | 100 | 0.50 |",
        "| W+G: 64 learned global tokens | 0.400 (1 seed) | 0.401 (1 seed) | 0.402 (1 seed) |  "
        "| 0.403 (1 seed) | 100 | 0.50 |",
        "| *full, in pieces of 2,048 that vote* | 0.350 (1 seed) | 0.351 (1 seed) | 0.352 (1 seed) |  | 0.353 (1 seed) "
        "| 100 | 0.50 |",
        "| *full, in pieces of 512 that vote* | 0.300 (1 seed) | 0.301 (1 seed) | 0.302 (1 seed) |  | 0.303 (1 seed) "
        "| 100 | 0.50 |",
    ]
    for words in (
        "two of 4,096 tokens) with 1 thread on torch 2.13.0",
        "average over the seeds: 900, in files",
        "0.125 of the cases (any statement of the file), 0.250 (the statement that binds most names), 0.150 (the first",
        "0.100 (the last one)",
        "as one answer a file, in 0.500.",
        "is right in 0.900 ± 0.010: where",
    ):
        assert words in told
    assert "given for each far use only" in told and "given for each" not in imports_table.markdown(lines[3:4])
    quick = imports_table.markdown([record(Run(steps=240, short=180), 0.8), *lines], quick=True)
    assert "| full | 0.800 (1 seed) |" in quick and "W+G" not in quick.split("\n\n")[0]


def test_lines_for_people():
    told = imports_table.sentence(record(Run("pieces", seed=2, piece=512), 0.25))
    assert told.startswith(
        "pieces of 512, 4096 tokens, seed 2: validation 0.700 of 300 far uses, test 0.250 of 900 far"
    )
    assert told.endswith(" uses, 100 s")
    assert imports_table.sentence(record(Run("W"), 0.5)).startswith("W, 4096 tokens, seed 0: validation 0.700")
    for quick, words in ((False, "--table$"), (True, "--table --quick$")):
        with pytest.raises(ValueError, match=rf"no results yet; first: python -m bigbird_mini\.jobs imports {words}"):
            imports_table.markdown([], quick)


# ---------------------------------------------------------------- command line


def test_words_of_the_command_line_make_the_cell(monkeypatch):
    asked = []
    monkeypatch.setattr(imports.cells, "command", lambda words, cell, *more: asked.append((cell, *more)) or 0)
    for words, run in (
        ([], Run()),
        (["--quick"], Run(steps=240, short=180)),
        (["--quick", "--steps", "9"], Run(steps=9, short=6)),
        (["--steps", "70", "--pattern", "W", "--length", "1024", "--seed", "3"], Run("W", 1024, 3, 70, 50)),
        (["--steps", "9", "--short", "0", "--pattern", "pieces", "--piece", "192"], Run("pieces", 4096, 0, 9, 0, 192)),
    ):
        assert jobs(["imports", *words]) == 0
        assert asked.pop() == (run, imports.execute, imports_table)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--length", "127"], "length=127 tokens; allowed are 128 to 16384"),
        (["--length", "16385"], "length=16385 tokens; allowed are 128 to 16384"),
        (["--length", "16384"], "length=16384: no training file is half as long"),
        (["--steps", "0"], "steps=0 must be at least 1, seed=0 and short=0 0 or more"),
        (["--short", "-1"], "short=-1"),
        (["--steps", "5", "--short", "6"], "steps=5 must be at least 1, seed=0 and short=6"),
        (["--seed", "-2"], "seed=-2"),
        (["--pattern", "pieces"], "piece=0 must be a multiple of 64 for 'pieces', and 0 for other patterns"),
        (["--pattern", "pieces", "--piece", "100"], "piece=100 must be a multiple of 64"),
        (["--pattern", "pieces", "--piece", "-64"], "piece=-64 must be a multiple of 64"),
        (["--piece", "64"], "piece=64 must be a multiple of 64 for 'pieces', and 0 for other patterns"),
        (["--table", "--processes", "0"], "processes=0 must be at least 1"),
        (["--markdown"], "no results yet; first"),
    ],
)
def test_bad_input_ends_with_one_sentence(words, says, tmp_path, capsys):
    assert jobs(["imports", *words, "--out", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1 and not list(tmp_path.iterdir())


def test_a_pattern_that_is_not_known():
    with pytest.raises(ValueError, match=r"pattern='W\+X' is not known; allowed: W, W\+R, .*, full, pieces"):
        Run("W+X")


def test_ctrl_c_leaves_a_checkpoint_and_a_sentence(tmp_path, monkeypatch, capsys):
    run, original = Run("W", 256, steps=5, short=2), imports.batches

    def batches(run):
        def batch(number):
            if number == 5:  # the second of the third step
                raise KeyboardInterrupt
            return original(run)(number)

        return batch

    monkeypatch.setattr(imports, "batches", batches)
    words = ["--pattern", "W", "--length", "256", "--steps", "5", "--short", "2", "--out", str(tmp_path)]
    assert jobs(["imports", *words]) == 130
    told = capsys.readouterr().err
    assert "2 of 5 steps are done; checkpoint step_00000002 is in" in told
    assert "The same command goes on, a single training with --resume." in told
    assert (tmp_path / run.name / "step_00000002").is_dir() and not (tmp_path / "results.jsonl").exists()
