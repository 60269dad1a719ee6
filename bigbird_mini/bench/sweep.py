"""The measurements of a table: which cases, in which order, and which of them would take too long."""

from __future__ import annotations

import datetime
import math
import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from .alone import Figure, fresh
from .peers import Case

Result = dict[str, Any]
START_UP = 120  # seconds that a fresh process may take to load and to compile, beside what it measures


@dataclass(frozen=True)
class Settings:
    """What to measure. limit: seconds that one measurement, with its repeats, may take; extras: the length at which
    a ragged batch is measured, None for not at all. The rest as in :class:`Case`."""

    lengths: list[int]
    routes: list[str]
    directions: list[str]
    heads: int = 12
    block: int = 64
    window: int = 3
    random: int = 3
    repeats: int = 3
    rounds: int = 1
    limit: float = 120.0
    extras: int | None = None
    device: str = "cpu"
    dtype: str = "float32"
    layers: int = 0

    def case(self, route: str, n: int, direction: str, batch: int = 1, ragged: bool = False) -> Case:
        shape = (self.heads, batch, ragged, self.block, self.window, self.random)
        return Case(route, n, direction, *shape, self.device, self.dtype, self.layers)

    @property
    def runs(self) -> int:
        """How often a case runs in one measurement: to warm up, to be timed, for its memory."""
        return self.repeats + 2


def sweep(
    settings: Settings,
    say: Callable[[str], object] = lambda line: None,
    save: Callable[[Result], object] = lambda result: None,
    measured: Callable[[Case, int, bool, float], Figure] = fresh,
) -> Result:
    """Measure everything; say gets a line for each figure, save the result so far after each length.

    A machine that others use drifts. So all routes of one length follow each other, ratios are made of figures of one
    round and their median is taken over the rounds, and every second round goes through the routes backwards.
    """
    lengths = sorted(set(settings.lengths))
    result: Result = {
        "machine": machine(settings.device),
        "versions": versions(),
        "settings": asdict(settings) | {"lengths": lengths},
        "density": {str(n): settings.case("auto", n, "forward").pattern().density() for n in lengths},
        "figures": [],
        "extras": [],
    }

    def note(kind: str, turn: int, case: Case) -> Figure:
        # memory does not drift, so one round tells it
        found = measured(case, settings.repeats, turn == 0, settings.limit + START_UP)
        about = {"round": turn, "n": case.n, "direction": case.direction, "route": case.route}
        if kind == "extras":
            about |= {"batch": case.batch, "ragged": case.ragged}
        result[kind].append(about | found)
        told = f"{found['seconds']:.4g} s" if "seconds" in found else found["reason"]
        say(f"round {turn + 1} of {settings.rounds}, {case.n:,} tokens, {case.direction}, {case.route}: {told}")
        return found

    past: dict[tuple[str, str], list[tuple[int, Figure]]] = {}  # of the first round
    for turn in range(settings.rounds):
        for n in lengths:
            for direction in settings.directions:
                for route in settings.routes[:: -1 if turn % 2 else 1]:
                    before = past.setdefault((route, direction), [])
                    if turn > 0:
                        if any("seconds" in seen for m, seen in before if m == n):
                            note("figures", turn, settings.case(route, n, direction))
                        continue
                    reason = too_long(before, n, settings) or too_large(before, n, free_bytes(settings.device))
                    if reason:
                        about = {"round": turn, "n": n, "direction": direction, "route": route}
                        result["figures"].append(about | {"reason": reason})
                    else:
                        before.append((n, note("figures", turn, settings.case(route, n, direction))))
            save(result)
        if settings.extras:
            for direction in settings.directions:
                for ragged in (False, True)[:: -1 if turn % 2 else 1]:
                    note("extras", turn, settings.case("auto", settings.extras, direction, 2, ragged))
            save(result)
    return result


def too_long(before: list[tuple[int, Figure]], n: int, settings: Settings) -> str:
    """Why a route is not measured at n tokens, after what was seen at shorter lengths; empty where it is.

    Time is taken to grow as it last did, from linear to quadratic; as n² after a single length.
    """
    if before and before[-1][1].get("gave_up"):
        return f"it did not finish at {before[-1][0]:,} tokens"
    seen = [(m, figure["seconds"]) for m, figure in before if "seconds" in figure]
    if not seen:
        return ""
    m, seconds = seen[-1]
    power = 2.0
    if len(seen) > 1:
        m0, seconds0 = seen[-2]
        power = min(2.0, max(1.0, math.log(seconds / seconds0) / math.log(m / m0)))
    expected = settings.runs * seconds * (n / m) ** power
    if expected <= settings.limit:
        return ""
    return f"{settings.runs} runs would take about {expected:,.0f} s, more than --limit {settings.limit:g}"


def too_large(before: list[tuple[int, Figure]], n: int, free: float) -> str:
    """Why a route is not measured at n tokens for its memory, which is taken to grow as n²; empty where it is.

    A process that takes more than the machine has may take others down with it.
    """
    seen = [(m, figure["extra_bytes"]) for m, figure in before if figure.get("extra_bytes")]
    if not seen:
        return ""
    m, extra = seen[-1]
    if len(seen) > 1 and extra < 2.5 * seen[-2][1] * (m / seen[-2][0]) / 2:  # it has grown with n
        return ""
    expected = extra * (n / m) ** 2
    return "" if expected < free else f"it would take about {expected / 1e9:.0f} GB, {free / 1e9:.0f} GB may be used"


def free_bytes(device: str) -> float:
    """Memory that a measurement may take: three quarters of what is free; infinite where that is not known."""
    if device == "cuda":  # which refuses by itself, and harms nobody
        return math.inf
    try:
        import psutil
    except ModuleNotFoundError:
        return math.inf
    return 0.75 * psutil.virtual_memory().available


def machine(device: str) -> dict[str, Any]:
    """The machine in a few words: cpu, cores, threads of torch, system; gpu where that is measured."""
    words = {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "date": datetime.date.today().isoformat(),
    }
    return words | ({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {})


def _cpu() -> str:
    try:
        if platform.system() == "Linux":
            lines = Path("/proc/cpuinfo").read_text().splitlines()
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        if platform.system() == "Darwin":
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, StopIteration, subprocess.SubprocessError):
        pass
    return platform.processor() or "unknown"


def versions() -> dict[str, str | None]:
    """python, torch, and the peers' package; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "torch": torch.__version__}
    for name in ("transformers", "bigbird-mini"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
