"""What is measured is what happened: the memory and the time of a run whose size is known."""

import json
import sys
import time

import pytest
import torch

pytest.importorskip("psutil", reason="needs the extra lab")

from bigbird_mini import bench


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


def test_the_table(capsys):
    assert bench.main(["attention", "--lengths", "128", "320", "--heads", "2", "--repeats", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines[4:]]
    assert [row[0] for row in rows] == ["128", "320"] and all(len(row) == 9 for row in rows)


def test_each_route_of_the_table_runs_its_own_attention(capsys, monkeypatch):
    ran = []
    monkeypatch.setattr(bench, "attention", lambda q, k, v, p, backend: ran.append(backend) or q)
    for route in ("gather", "dense", "fused"):
        assert bench.main(["--alone", route, "--lengths", "64", "--heads", "1", "--repeats", "2"]) == 0
        assert set(json.loads(capsys.readouterr().out)) == {"seconds", "extra_bytes", "peak_bytes"}
    assert ran == ["gather"] * 2 + ["dense"] * 2


def test_the_median_is_a_median_and_bad_settings_are_told(monkeypatch, capsys):
    clock = iter([0, 1, 10, 12, 20, 29])
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(clock))
    assert bench.measure(lambda: None, repeats=3).seconds == 2  # of 1, 2 and 9
    with pytest.raises(ValueError, match="repeats=0"):
        bench.measure(lambda: None, repeats=0)
    with pytest.raises(SystemExit):
        bench.main(["--lengths", "100"])
    assert "length 100 is not a multiple of 64" in capsys.readouterr().err
