"""Time and memory, measured side by side: `python -m bigbird_mini.bench` prints sparse beside dense attention.

Figures belong to one run on one machine; compare columns, not numbers from different days.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

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
    if repeats < 1:
        raise ValueError(f"repeats={repeats} is too small; it must be at least 1")
    memory = psutil.Process().memory_info
    _give_back()
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


def _give_back() -> None:
    """Hand freed memory back to the operating system, or the next run would use it again and seem to need none.

    glibc keeps freed blocks below 32 MB, and macOS some; Windows gives them back by itself.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # another C library: figures may come out too small
        if sys.platform == "linux":
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        elif sys.platform == "darwin":
            ctypes.CDLL("libSystem.dylib").malloc_zone_pressure_relief(None, ctypes.c_size_t(0))


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


def _train(route: str, n: int, heads: int) -> Callable[[], None]:
    """One forward and backward pass of attention alone, by one of the routes of the table."""
    q, k, v = (torch.randn(1, heads, n, 64, requires_grad=True) for _ in range(3))
    p = BlockPattern.bigbird(n // 64, heads=heads)

    def run() -> None:
        if route == "fused":
            F.scaled_dot_product_attention(q, k, v).sum().backward()
        else:
            attention(q, k, v, p, backend=route).sum().backward()

    return run


def _alone(route: str, n: int, heads: int, repeats: int) -> Measured:
    """Measure in a fresh process: what an earlier run freed would otherwise be used again, and go unseen."""
    command = [sys.executable, "-m", "bigbird_mini.bench", "--alone", route, "--lengths", str(n)]
    command += ["--heads", str(heads), "--repeats", str(repeats)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return Measured(**json.loads(said), result=None)


def main(arguments: list[str] | None = None) -> int:
    """The command line: sparse attention beside torch's fused dense attention and the dense oracle, over lengths."""
    parser = argparse.ArgumentParser("bigbird_mini.bench", description="Sparse beside dense attention on this machine.")
    parser.add_argument("what", nargs="?", default="attention", choices=["attention"])
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048, 4096], metavar="N")
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--alone", choices=["gather", "fused", "dense"], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for n in options.lengths:
        if n < 64 or n % 64:
            parser.error(f"length {n} is not a multiple of 64")
    if options.alone:
        run = _train(options.alone, options.lengths[0], options.heads)
        seen = measure(run, options.repeats)
        print(json.dumps({"seconds": seen.seconds, "extra_bytes": seen.extra_bytes, "peak_bytes": seen.peak_bytes}))
        return 0
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.heads} heads of 64, blocks of 64;")
    print("forward and backward; dense is the oracle with its matrix, fused is torch's scaled_dot_product_attention")
    print(f"{'':>7} {'':>8} {'seconds':^26} {'sparse':>8} {'GB beyond the inputs':^26}")
    print(
        f"{'tokens':>7} {'density':>8}"
        + f"{'dense':>9}{'fused':>9}{'sparse':>9} {': fused':>8}"
        + "    dense    fused   sparse"
    )
    for n in options.lengths:
        density = BlockPattern.bigbird(n // 64, heads=options.heads).density()
        dense, fused, sparse = (
            _alone(route, n, options.heads, options.repeats) for route in ("dense", "fused", "gather")
        )
        times = "".join(f"{m.seconds:9.2f}" for m in (dense, fused, sparse))
        memory = "".join(f"{m.extra_bytes / GB:9.2f}" for m in (dense, fused, sparse))
        print(f"{n:7} {density:8.3f}{times} {sparse.seconds / fused.seconds:8.2f}{memory}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
