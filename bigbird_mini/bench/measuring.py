"""measure() and kept_bytes(): what a function takes in time and memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

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
