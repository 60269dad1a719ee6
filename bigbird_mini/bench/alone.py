"""One case in a process of its own: what an earlier run freed, compiled or remembered cannot help or hinder it."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

from .measuring import measure
from .peers import CannotRun, Case, prepare

Figure = dict[str, Any]
AT_LEAST = 0.3  # seconds: shorter runs are repeated until then, or one hiccup of the machine would decide
AT_MOST = 100  # repeats
# A program beside ours stalls every step that is split between threads, so that it can slow one route ten times and
# another hardly: figures that were taken beside it say little. Share of all cores that others may take; tries to find
# a quiet moment, for measurements of up to so many seconds.
QUIET, TRIES, SHORT = 0.1, 4, 10.0


def fresh(case: Case, repeats: int, memory: bool, seconds: float) -> Figure:
    """:func:`figure` in a fresh process, which is stopped after so many seconds."""
    order = json.dumps({"case": asdict(case), "repeats": repeats, "memory": memory})
    command = [sys.executable, "-m", "bigbird_mini.bench", "--alone", order]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"reason": f"stopped after {seconds:.0f} s", "gave_up": True}
    if ran.returncode:
        last = (ran.stderr.strip().splitlines() or ["it said nothing; was memory short?"])[-1]
        return {"reason": f"its process ended with code {ran.returncode}: {last}", "gave_up": True}
    return json.loads(ran.stdout.splitlines()[-1])  # what a peer may have printed comes before


def figure(case: Case, repeats: int, memory: bool) -> Figure:
    """Measure a case here and now, after one run that does not count.

    seconds: the median of at least so many repeats; times: all of them; first_seconds: the run before, with what it
    compiled and planned; others: share of all cores that other programs took meanwhile (not told for a GPU). With
    memory, extra_bytes: the most memory beyond the inputs in one run more. Both None without psutil. Or a reason,
    where the case cannot run or fails.
    """
    wait = torch.cuda.synchronize if case.device == "cuda" else lambda: None

    def timed(run: Callable[[], object]) -> float:
        wait()
        start = time.perf_counter()
        out = run()  # held until the clock has stopped: giving memory back is not attention's time
        wait()
        seconds = time.perf_counter() - start
        del out
        return seconds

    def repeated() -> Figure:
        before, start = _cpu_seconds() if case.device == "cpu" else None, time.perf_counter()
        times: list[float] = []
        while len(times) < repeats or (sum(times) < AT_LEAST and len(times) < AT_MOST):
            times.append(timed(run))
        all_cores = (time.perf_counter() - start) * (os.cpu_count() or 1)
        others = None if before is None else max(0.0, (_cpu_seconds() - before) / all_cores)
        return {"seconds": statistics.median(times), "times": times, "others": others}

    try:
        run = prepare(case)
        first = timed(run)
        tries = [repeated()]
        while (tries[-1]["others"] or 0) > QUIET and len(tries) < TRIES and sum(tries[-1]["times"]) < SHORT:
            time.sleep(1)
            tries.append(repeated())
        seen = min(tries, key=lambda one: one["others"] or 0) | {"first_seconds": first}
        if memory:
            seen["extra_bytes"] = _extra_on_gpu(run) if case.device == "cuda" else _extra(run)
    except CannotRun as e:
        return {"reason": str(e)}
    except Exception as e:  # a peer may fail in any way; the table goes on without it
        if "InvalidCxxCompiler" in str(e):
            return {"reason": "FlexAttention needs a C++ compiler on the CPU (g++, clang++, or one named in CXX)"}
        return {"reason": f"failed: {type(e).__name__}: {' '.join(str(e).split())[:200]}"}
    return seen


def _cpu_seconds() -> float | None:
    """Time that the cores have spent on other programs than this one, since some moment; None without psutil."""
    try:
        import psutil
    except ModuleNotFoundError:
        return None
    spent = psutil.cpu_times()
    return sum(spent) - spent.idle - getattr(spent, "iowait", 0.0) - getattr(spent, "guest", 0.0) - time.process_time()


def _extra(run: Callable[[], object]) -> int | None:
    try:
        return measure(run).extra_bytes
    except ImportError:
        return None


def _extra_on_gpu(run: Callable[[], object]) -> int:
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before
