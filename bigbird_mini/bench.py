"""Time and memory, measured side by side: `python -m bigbird_mini.bench` prints sparse beside dense attention.

Figures belong to one run on one machine; compare columns, not numbers from different days.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from .attention import attention
from .pattern import BlockPattern

GB = 1e9


@dataclass(frozen=True)
class Measured:
    """seconds: median of the repeats. extra_bytes: most memory taken beyond what was in use before; peak_bytes: most
    memory of the whole process meanwhile. result: what the last run returned."""

    seconds: float
    extra_bytes: int
    peak_bytes: int
    result: Any

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s, {self.extra_bytes / GB:.2f} GB extra, {self.peak_bytes / GB:.2f} GB in all"


def measure(run: Callable[[], Any], repeats: int = 1) -> Measured:
    """Run a function and watch its time and the memory of this process, on the CPU.

    Memory is read every two milliseconds from the operating system, so a shorter peak may be missed. Needs psutil
    (extra `lab`): ImportError otherwise.
    """
    try:
        import psutil
    except ModuleNotFoundError:
        raise ImportError('measure() needs psutil: pip install "bigbird-mini[lab]"') from None
    memory = psutil.Process().memory_info
    before = peak = memory().rss
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, memory().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    times = []
    try:
        for _ in range(repeats):
            start = time.perf_counter()
            result = run()
            times.append(time.perf_counter() - start)
            peak = max(peak, memory().rss)
    finally:
        done.set()
        watcher.join()
    return Measured(statistics.median(times), peak - before, peak, result)


def kept_bytes(run: Callable[[], Any]) -> int:
    """Bytes of all tensors that autograd keeps for the backward pass of what the function computes, each once."""
    kept = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = run()  # held on to, so that no storage is freed and used again while we count
    del result
    return sum(kept.values())


def main(arguments: list[str] | None = None) -> int:
    """The command line: a table of dense and sparse attention, forward and backward, over lengths."""
    parser = argparse.ArgumentParser("bigbird_mini.bench", description="Sparse beside dense attention on this machine.")
    parser.add_argument("what", nargs="?", default="attention", choices=["attention"])
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048, 4096], metavar="N")
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.heads} heads of 64, blocks of 64")
    print(f"{'tokens':>7} {'density':>8} {'dense s':>8} {'sparse s':>9} {'ratio':>6} {'dense GB':>9} {'sparse GB':>10}")
    for n in options.lengths:
        if n < 64 or n % 64:
            parser.error(f"length {n} is not a multiple of 64")
        p = BlockPattern.bigbird(n // 64, heads=options.heads)
        q, k, v = (torch.randn(1, options.heads, n, 64, requires_grad=True) for _ in range(3))

        def train(backend: str, q: torch.Tensor = q, k: torch.Tensor = k, v: torch.Tensor = v, p: Any = p) -> None:
            attention(q, k, v, p, backend=backend).sum().backward()

        sparse, dense = (measure(lambda name=name: train(name), options.repeats) for name in ("gather", "dense"))
        print(
            f"{n:7} {p.density():8.3f} {dense.seconds:8.2f} {sparse.seconds:9.2f} "
            f"{sparse.seconds / dense.seconds:6.2f} {dense.extra_bytes / GB:9.2f} {sparse.extra_bytes / GB:10.2f}"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
