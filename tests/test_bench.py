"""What is measured is what happened, and the table shows it: figures of known size, real ones, and made-up ones."""

import json
import platform
import re
import shutil
import subprocess
import sys
import time
from functools import partial
from itertools import pairwise

import pytest
import torch

pytest.importorskip("psutil", reason="needs the extra lab")

from bigbird_mini import bench
from bigbird_mini.bench import __main__ as cli
from bigbird_mini.bench import alone, measuring, models, peers, plot, report
from bigbird_mini.bench.peers import Case, prepare
from bigbird_mini.bench.sweep import Settings, free_bytes, sweep, too_large, too_long


def test_memory_and_time_of_a_known_run():
    def run():
        block = torch.ones(50_000_000)  # 200 MB, written
        time.sleep(0.05)
        return block.sum().item()

    seen = bench.measure(run, repeats=2)
    assert seen.result == 50_000_000 and seen.seconds >= 0.05
    assert 150e6 < seen.extra_bytes < 500e6 and seen.peak_bytes > seen.extra_bytes
    assert bench.measure(lambda: None).extra_bytes < 50e6


@pytest.mark.skipif(sys.platform != "linux", reason="what other systems keep of freed memory differs")
def test_memory_that_an_earlier_run_freed_is_seen_again():
    q = torch.randn(1, 4, 1400, 32)

    def run():
        return ((q @ q.transpose(-1, -2)).softmax(-1) @ q).sum().item()  # two matrices of 31 MB

    with torch.inference_mode():
        seen = [bench.measure(run).extra_bytes for _ in range(5)]
    assert min(seen) > 50e6


@pytest.mark.parametrize(("H", "n", "d"), [(3, 50, 7), (2, 33, 20)])
def test_bytes_kept_for_the_backward_pass_are_those_of_the_formula(H, n, d):
    q, k, v = (torch.randn(H, n, d, requires_grad=True) for _ in range(3))
    kept = bench.kept_bytes(lambda: (q @ k.transpose(-1, -2)).softmax(-1) @ v)
    assert kept == 4 * (H * n * n + 3 * H * n * d)  # the weights, and q, k and v
    assert bench.kept_bytes(lambda: q + k) == 0


def test_an_error_of_the_run_comes_through():
    with pytest.raises(ZeroDivisionError):
        bench.measure(lambda: 1 / 0)


def test_the_median_is_a_median(monkeypatch):
    clock = iter([0, 1, 10, 12, 20, 29])
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: next(clock))
    assert bench.measure(lambda: None, repeats=3).seconds == 2  # of 1, 2 and 9
    with pytest.raises(ValueError, match="repeats=0"):
        bench.measure(lambda: None, repeats=0)


# ---------------------------------------------------------------- real runs


def here(case, repeats, memory, seconds):
    """In place of a fresh process, which takes seconds to start."""
    return alone.figure(case, repeats, memory)


def test_a_table_of_fresh_processes(capsys):
    words = ["--lengths", "320", "--heads", "2", "--repeats", "1", "--routes", "sdpa", "gather"]
    assert cli.main(["attention", *words, "--directions", "both"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index("Forward and backward: seconds") + 1
    header = ["tokens", "density", "sdpa", "gather", "density limit", "gather : sdpa"]
    assert re.split("  +", lines[start].strip()) == header
    row = lines[start + 1].split()
    assert row[0] == "320" and len(row) == 6 and all(float(cell.rstrip("~")) > 0 for cell in row)


def test_every_installed_route_really_runs(monkeypatch):
    monkeypatch.setattr(alone, "AT_LEAST", 0.0)
    monkeypatch.setattr(alone, "TRIES", 1)
    routes = [route for route in cli.DEFAULT_ROUTES if "flex" not in route]  # compiled in a test of their own
    result = sweep(Settings([128, 320], routes, ["forward", "both"], heads=2, repeats=1, extras=128), measured=here)
    missing = {(seen["n"], seen["route"]) for seen in result["figures"] if "reason" in seen}
    assert missing == {(n, route) for n in (128, 320) for route in ("huggingface", "longformer")}  # too short for them
    timed = [seen for seen in result["figures"] + result["extras"] if "seconds" in seen]
    assert len(timed) == 4 * (len(routes) - 2) + 4
    assert all(seen["seconds"] > 0 and seen["extra_bytes"] >= 0 and len(seen["times"]) == 1 for seen in timed)
    assert "auto at 128 tokens, two documents" in report.text(result)


def test_all_routes_get_the_same_numbers_and_the_same_gradient_from_above():
    (want, *_), *others = (prepare(Case(route, 320, "both", 2))() for route in ("dense", "gather", "auto"))
    assert all(torch.allclose(got, want, rtol=0, atol=1e-5) for got, *_ in others)
    assert want.std() > 0.01
    out = prepare(Case("gather", 320, "forward", 2))()
    assert out.shape == (1, 2, 320, 64) and not out.requires_grad
    q, k, v = prepare(Case("sdpa", 128, "both", 2, random=0))()  # two blocks: everything is read, so ours is the same
    assert all(map(partial(torch.allclose, rtol=0, atol=1e-5), (q, k, v), prepare(Case("gather", 128, "both", 2))()))


@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64") or not shutil.which("g++"),
    reason="needs g++, on Linux and x86",
)
@pytest.mark.parametrize("route", [route for route in cli.DEFAULT_ROUTES if "flex" in route])
def test_flexattention_computes_our_attention(route):
    got, want = (prepare(Case(one, 256, "forward", 2, random=1))() for one in (route, "dense"))
    assert torch.allclose(got, want, rtol=0, atol=1e-5)


def test_each_route_runs_its_own_attention(monkeypatch):
    ran = []
    monkeypatch.setattr(peers, "BACKENDS", {"dense": None, "gather": None, "flex": None})
    monkeypatch.setattr(peers, "attention", lambda q, k, v, p, key_mask, backend: ran.append(backend) or q)
    monkeypatch.setattr(peers.F, "scaled_dot_product_attention", lambda q, k, v: ran.append("sdpa") or q)
    for route in ("auto", "gather", "flex", "dense", "sdpa"):
        prepare(Case(route, 64, heads=1))()
        assert ran.pop() == route and not ran


def test_a_ragged_batch_has_a_mask_that_ends_inside_a_block(monkeypatch):
    masks = []
    monkeypatch.setattr(peers, "attention", lambda q, k, v, p, key_mask, backend: masks.append(key_mask) or q)
    for ragged in (False, True):
        prepare(Case("auto", 256, heads=1, batch=2, ragged=ragged))()
    assert masks[0] is None and masks[1].sum(1).tolist() == [256, 153]


# ---------------------------------------------------------------- what cannot run is left out, with a reason


def reason(case):
    return alone.figure(case, 1, False)["reason"]


def test_a_peer_that_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    for route in ("huggingface", "longformer"):
        assert reason(Case(route, 1024)) == 'transformers is not installed: pip install "bigbird-mini[hf]"'


def test_what_a_route_cannot_do_is_told(monkeypatch):
    assert reason(Case("dense", 8192)) == "keeps the whole matrix, so it is measured up to 4,096 tokens only"
    assert reason(Case("torch-flex", 128, "both")) == "FlexAttention has no backward pass on the CPU"
    monkeypatch.setattr(peers, "BACKENDS", {"flex": None})
    assert reason(Case("flex", 128, "both")) == "FlexAttention has no backward pass on the CPU"
    monkeypatch.setattr(peers, "BACKENDS", {"dense": None, "gather": None})
    assert reason(Case("flex", 128)) == "attention() has no backend 'flex' here; it has dense, gather"
    monkeypatch.setattr(peers, "attention", lambda *_, **__: 1 / 0)
    assert reason(Case("gather", 128)) == "failed: ZeroDivisionError: division by zero"


def test_flexattention_without_a_compiler_is_left_out(monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("LoweringException: InvalidCxxCompiler: No working C++ compiler found")

    monkeypatch.setattr(peers.torch, "compile", lambda *_, **__: fails)
    assert reason(Case("torch-flex", 128)).startswith("FlexAttention needs a C++ compiler")


def test_a_process_that_dies_or_hangs_is_told(monkeypatch):
    ended = subprocess.CompletedProcess([], -9, "", "")
    monkeypatch.setattr(alone.subprocess, "run", lambda *_, **__: ended)
    died = alone.fresh(Case("dense", 64), 1, True, 5)
    assert died == {"reason": "its process ended with code -9: it said nothing; was memory short?", "gave_up": True}

    def hang(command, timeout, **_):
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(alone.subprocess, "run", hang)
    hung = alone.fresh(Case("dense", 64), 1, True, 5)
    assert hung == {"reason": "stopped after 5 s", "gave_up": True}
    assert too_long([(64, hung)], 128, Settings([], [], [])) == "it did not finish at 64 tokens"


def test_a_figure_beside_another_program_is_taken_again(monkeypatch):
    monkeypatch.setattr(alone.time, "sleep", lambda seconds: None)
    busy = iter([0, 900, 1000, 1000])  # seconds that others had: before and after the first try, and the second
    monkeypatch.setattr(alone, "_cpu_seconds", lambda: next(busy))
    seen = alone.figure(Case("sdpa", 64, heads=1), 1, False)
    assert seen["others"] == 0 and next(busy, None) is None
    monkeypatch.setattr(alone, "_cpu_seconds", lambda: None)  # no psutil: nothing known, nothing repeated
    assert alone.figure(Case("sdpa", 64, heads=1), 1, False)["others"] is None


# ---------------------------------------------------------------- made-up figures


def made_up(seconds, calls=None):
    """Stands in for a measurement: seconds is a function of the case and of how often it was measured before."""
    seen = {}

    def measured(case, repeats, memory, limit):
        if calls is not None:
            calls.append((case.n, case.direction, case.route, memory))
        turn = seen[case] = seen.get(case, -1) + 1
        found = seconds(case, turn)
        if not isinstance(found, float):
            return found
        return {"seconds": found, "times": [found], "others": 0.0} | ({"extra_bytes": 1000 * case.n} if memory else {})

    return measured


def cells(result, title):
    (table,) = (table for table in report.tables(result) if table.title == title)
    return {row[0]: dict(zip(table.header[1:], row[1:], strict=True)) for row in table.rows}


def test_ratios_are_made_within_a_round_and_then_their_median():
    drift = [1.0, 10.0, 3.0]  # the machine of each round
    speed = {"sdpa": [1.0, 1.0, 1.0], "auto": [0.5, 0.4, 0.9], "huggingface": [1.0, 1.2, 1.8]}

    def seconds(case, turn):
        return drift[turn] * speed[case.route][turn] * (case.n / 128) ** (2 if case.route == "sdpa" else 1)

    result = sweep(Settings([128, 256], list(speed), ["forward"], rounds=3), measured=made_up(seconds))
    rows, density = cells(result, "Forward: seconds"), result["density"]
    assert rows["128"] == {
        "density": f"{density['128']:.3f}",
        "sdpa": "3",
        "auto": "2.7",  # of 0.5, 4 and 2.7
        "huggingface": "5.4",
        "density limit": f"{3 * density['128']:.3g}",
        "auto : sdpa": "0.50",  # of 0.5, 0.4 and 0.9
        "huggingface : auto": "2.00",  # of 2, 3 and 2
    }
    growth = cells(result, "Forward: time(2n) / time(n)")["128 to 256"]
    assert growth == {"sdpa": "4.00", "auto": "2.00", "huggingface": "2.00"}
    assert cells(result, "Forward: MB beyond the inputs, at the peak")["256"]["auto"] == "0"
    assert "auto : sdpa of one round strays from the median by at most 80%." in report.text(result)


def test_every_second_round_goes_backwards_and_memory_is_told_once():
    calls, saved = [], []
    settings = Settings([256, 128], ["sdpa", "auto"], ["both"], rounds=2)
    sweep(settings, save=lambda result: saved.append(len(result["figures"])), measured=made_up(lambda *_: 1.0, calls))
    assert calls == [
        *((n, "both", route, True) for n in (128, 256) for route in ("sdpa", "auto")),
        *((n, "both", route, False) for n in (128, 256) for route in ("auto", "sdpa")),
    ]
    assert saved == [2, 4, 6, 8]


def test_noisy_rounds_count_only_where_there_is_no_quiet_one():
    def seconds(case, turn):
        return {
            "seconds": (9.0, 1.0, 8.0)[turn] * (2.0 if case.route == "auto" else 1.0 + turn),
            "others": (0.5, 0.0, 0.5)[turn],
        }

    result = sweep(Settings([128], ["sdpa", "auto"], ["forward"], rounds=3), measured=made_up(seconds))
    row = cells(result, "Forward: seconds")["128"]
    assert (row["auto"], row["sdpa"], row["auto : sdpa"]) == ("2", "2", "1.00")
    assert "4 of 6 times were taken while other programs used more than 10% of the machine" in report.text(result)
    loud = {"round": 0, "n": 128, "direction": "forward", "route": "auto", "seconds": 1.0, "others": 0.3}
    assert cells(result | {"figures": [loud]}, "Forward: seconds")["128"]["auto"] == "1~"


def test_what_would_take_too_long_is_left_out():
    calls = []

    def seconds(case, turn):
        return case.n / 128 if case.route == "auto" else (case.n / 128) ** 2

    settings = Settings([128, 256, 512, 1024], ["sdpa", "auto"], ["forward"], repeats=1, rounds=2, limit=30)
    result = sweep(settings, measured=made_up(seconds, calls))
    assert [n for n, _, route, memory in calls if route == "sdpa" and memory] == [128, 256]
    assert [n for n, _, route, memory in calls if route == "sdpa" and not memory] == [128, 256]
    assert [n for n, _, route, memory in calls if route == "auto" and memory] == [128, 256, 512, 1024]
    assert cells(result, "Forward: seconds")["512"]["sdpa"] == "-"
    assert cells(result, "Forward: seconds")["512"]["auto : sdpa"] == "-"
    assert "No sdpa at 512 forward: 3 runs would take about 48 s, more than --limit 30." in report.text(result)


def test_how_time_is_expected_to_grow():
    settings = Settings([], [], [], repeats=1, limit=30)

    def seen(*pairs):
        return [(n, {"seconds": seconds}) for n, seconds in pairs]

    assert too_long([], 10**6, settings) == ""
    assert too_long(seen((100, 2.4)), 200, settings) == ""  # 3 runs of 4 times 2.4
    assert "about 31 s" in too_long(seen((100, 2.6)), 200, settings)
    assert "about 32 s" in too_long(seen((100, 4.0), (200, 5.4)), 400, settings)  # grew little: taken as linear
    assert "about 60 s" in too_long(seen((100, 1.0), (200, 5.0)), 400, settings)  # grew more than quadratic
    assert too_long([(100, {"reason": "too short"})], 200, settings) == ""


def test_a_stored_result_gives_the_same_report(tmp_path, capsys, monkeypatch):
    file, picture = tmp_path / "r.json", tmp_path / "r.svg"
    fake = made_up(lambda case, turn: {"reason": "no"} if case.route == "dense" else case.n / 1e5)
    monkeypatch.setattr(cli, "sweep", partial(sweep, measured=fake))
    words = ["--lengths", "128", "320", "--routes", "sdpa", "gather", "dense", "--extras", "128", "--rounds", "2"]
    assert cli.main([*words, "--json", str(file), "--plot", str(picture)]) == 0
    told = capsys.readouterr()
    assert "round 2 of 2, 320 tokens, both, gather: 0.0032 s" in told.err
    assert "Forward, sdpa: 0.00128 s at 128 tokens, 0.0032 s at 320 tokens, 2.5 times as long." in told.out
    first = picture.read_bytes()
    monkeypatch.setattr(cli, "sweep", None)
    assert cli.main(["--from", str(file), "--plot", str(picture)]) == 0
    assert capsys.readouterr().out == told.out and picture.read_bytes() == first
    assert cli.main(["--from", str(file), "--markdown"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "| tokens | density | sdpa | gather | dense | density limit | gather : sdpa |" in lines
    assert "- No dense at 128 forward, 128 both, 320 forward, 320 both: no." in lines
    stored = json.loads(file.read_text("utf-8"))
    assert stored["settings"]["rounds"] == 2 and stored["versions"]["torch"] == torch.__version__
    assert stored["machine"]["threads"] == torch.get_num_threads() and stored["machine"]["cpu"]


def test_the_plot_has_a_line_for_each_route(tmp_path):
    routes = list(peers.ROUTES)
    fake = made_up(lambda case, turn: (1 + routes.index(case.route) / 100) * case.n / 1e4)
    result = sweep(Settings([128, 256], routes, ["forward", "both"]), measured=fake)
    plot.draw(result, tmp_path / "p.svg")
    drawn = (tmp_path / "p.svg").read_text("utf-8")
    assert re.findall('<g id="((?:forward|both)-.+?)"', drawn) == [
        f"{d}-{r}" for d in ("forward", "both") for r in routes
    ]
    assert all(drawn.count(f">{route}<") == 2 for route in routes)  # each line is named in each panel
    assert len(report.sentences(result)) == 2 * len(routes)
    plot.draw(result, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG" and (tmp_path / "p.png").stat().st_size > 10_000
    assert set(plot.STYLES) == set(report.WHAT) == {*routes, *models.MODELS}


def test_the_colours_can_be_seen_on_white_and_on_dark():
    def light(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        parts = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    for colour in {style[0] for style in plot.STYLES.values()}:
        assert 1.05 / (light(colour) + 0.05) > 3 and (light(colour) + 0.05) / (light("#0d1117") + 0.05) > 3
    for together in (peers.ROUTES, models.MODELS):
        assert len({plot.STYLES[route][:3] for route in together}) == len(together)


def test_labels_are_moved_apart():
    places = plot.spread([0.1, 0.5, 0.5, 0.5, 0.9], 0.1)
    assert places == sorted(places) and min(b - a for a, b in pairwise(places)) > 0.099
    assert (places[0], places[2], places[4]) == (0.1, pytest.approx(0.5), 0.9)
    assert plot.spread([0.98, 0.99, 1.0], 0.1) == pytest.approx([0.8, 0.9, 1.0], abs=0.01)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lengths", "100"], "length 100 is not a multiple of 64"),
        (["--extras", "100"], "length 100 is not a multiple of 64"),
        (["--heads", "0"], "--heads 0 is too small"),
        (["--limit", "-1"], "--limit -1 is too small"),
        (["--window", "2"], "--window 2 odd"),
        (["--routes", "magic"], "--routes magic is not known; allowed: sdpa, "),
        (["--device", "cuda"], "torch sees no GPU here"),
        (["--plot", "p.pdf"], "the name must end in .svg or .png"),
        (["--json", "nowhere/r.json"], "there is no folder nowhere"),
        (["--from", "nowhere.json"], "--from nowhere.json cannot be read"),
    ],
)
def test_bad_settings_are_told_before_anything_is_measured(words, said, capsys, monkeypatch):
    monkeypatch.setattr(cli, "sweep", None)
    monkeypatch.setattr(cli.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        cli.main(words)
    assert said in capsys.readouterr().err


def test_a_gpu_is_taken_where_there_is_one(monkeypatch):
    monkeypatch.setattr(cli.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(cli.torch.cuda, "get_device_name", lambda: "A Card")
    options = cli._parser().parse_args(["--dtype", "bfloat16"])
    assert (options.device, options.dtype) == ("cuda", "bfloat16")
    cases = []
    fake = made_up(lambda case, turn: cases.append(case) or 0.0015)
    result = sweep(Settings([128], ["auto"], ["both"], device="cuda", dtype="bfloat16"), measured=fake)
    assert (cases[0].device, cases[0].dtype) == ("cuda", "bfloat16")
    assert "A Card" in report.text(result)
    assert cells(result, "Forward and backward: milliseconds")["128"]["auto"] == "1.5"


def test_what_would_not_fit_in_memory_is_not_run():
    square = [(1024, {"extra_bytes": 10**8}), (2048, {"extra_bytes": 4 * 10**8})]
    line = [(1024, {"extra_bytes": 10**8}), (2048, {"extra_bytes": 2 * 10**8})]
    assert too_large(square, 4096, 1.7e9) == "" == too_large(line, 4096, 1e9)
    assert too_large(square, 4096, 1.5e9) == "it would take about 2 GB, 2 GB may be used"
    assert too_large(square[:1], 4096, 1e9) != "" and too_large([], 4096, 0) == ""
    assert 1e6 < free_bytes("cpu") < 1e15


# ---------------------------------------------------------------- whole models


def test_our_model_is_measured_sparse_and_full(monkeypatch):
    monkeypatch.setattr(alone, "AT_LEAST", 0.0)
    monkeypatch.setattr(alone, "TRIES", 1)
    settings = Settings([256, 512], ["bigbird-mini", "bigbird-mini-full"], ["forward"], heads=2, repeats=1, layers=2)
    result = sweep(settings, measured=here)
    assert len(result["figures"]) == 4 and all(seen["seconds"] > 0 for seen in result["figures"])
    told = report.text(result)
    assert "Encoders of 2 layers: one document, 2 heads of 64" in told and "Density limit" not in told
    speed = cells(result, "Forward: tokens a second")["512"]["bigbird-mini"]
    (seconds,) = (x["seconds"] for x in result["figures"] if (x["n"], x["route"]) == (512, "bigbird-mini"))
    assert speed == f"{512 / seconds:,.0f}"
    assert set(cells(result, "Forward: MB beyond weights and inputs, at the peak")) == {"256", "512"}


def test_the_two_kinds_of_our_model_differ_in_attention_alone():
    sparse, full = (models.MODELS[r](Case(r, 640, heads=2, layers=1)) for r in ("bigbird-mini", "bigbird-mini-full"))
    assert sparse.config.attention_type == "block_sparse" and full.config.attention_type == "original_full"
    out = prepare(Case("bigbird-mini", 640, heads=2, layers=1))()
    assert out.shape == (1, 640, 128) and not torch.equal(
        out, prepare(Case("bigbird-mini-full", 640, heads=2, layers=1))()
    )
    assert reason(Case("bigbird-mini", 256, "both", layers=1)) == "models are measured forward only"


def test_the_command_line_of_models(capsys, monkeypatch):
    monkeypatch.setattr(cli, "sweep", partial(sweep, measured=made_up(lambda case, turn: case.n / 1e3)))
    assert cli.main(["model", "--lengths", "512", "--layers", "3"]) == 0
    out = capsys.readouterr().out
    assert all(f"{route}: {what}." in out for route, what in models.WHAT.items())
    assert "huggingface-bigbird : bigbird-mini" in out and "Encoders of 3 layers" in out
    for words, says in (
        (["model", "--routes", "sdpa"], "--routes sdpa is not known; allowed: bigbird-mini, "),
        (["--routes", "modernbert"], "--routes modernbert is not known; allowed: sdpa, "),
        (["model", "--directions", "both"], "bench model measures forward only"),
        (["model", "--layers", "0"], "--layers of at least 1"),
        (["attention", "--layers", "2"], "--layers 2 is for bench model"),
    ):
        with pytest.raises(SystemExit):
            cli.main(words)
        assert says in capsys.readouterr().err
