"""What is measured is what happened: the memory and the time of a run whose size is known."""

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
    assert [line.split()[0] for line in lines[2:]] == ["128", "320"]
    with pytest.raises(SystemExit):
        bench.main(["--lengths", "100"])
    assert "length 100 is not a multiple of 64" in capsys.readouterr().err
