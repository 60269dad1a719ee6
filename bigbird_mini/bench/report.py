"""What was measured, in words and tables: everything here is made from the result alone, fresh or stored."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from . import models
from .alone import QUIET
from .peers import LONGFORMER_WINDOW, OURS

NAMES = {"forward": "Forward", "both": "Forward and backward"}
WHAT = {
    "sdpa": "torch's scaled_dot_product_attention over everything, the dense reference",
    "gather": "ours",
    "auto": "ours, the backend it chooses by itself",
    "flex": "ours, through FlexAttention",
    "torch-flex": "torch's compiled FlexAttention, from the lists of the same pattern",
    "huggingface": "BigBird attention of transformers, in training mode, without its projections",
    "longformer": f"Longformer attention of transformers, window {LONGFORMER_WINDOW}, no globals, without projections",
    "dense": "ours, the oracle with its whole matrix",
}
WHAT |= models.WHAT
MB = 1e6
FULL, RAGGED = "no mask", "ragged"  # the extra measurements, as routes
Place = tuple[int, str | None]  # length and route


class Table(NamedTuple):
    title: str
    header: list[str]
    rows: list[list[str]]


class Figures:
    """The figures of a result, by direction, length and route; medians over the rounds, the quiet ones if there are."""

    def __init__(self, result: dict[str, Any]) -> None:
        self.settings = result["settings"]
        # a GPU's times are short
        self.unit, self._scale = ("ms", 1e3) if self.settings["device"] == "cuda" else ("s", 1.0)
        self.density = {int(n): share for n, share in result["density"].items()}
        self._seconds: dict[tuple[str, int, str], dict[int, float]] = {}
        self._loud: set[tuple[str, int, str, int]] = set()
        self._bytes: dict[tuple[str, int, str], int] = {}
        for seen in [*result["figures"], *result["extras"]]:
            route = seen["route"] if "batch" not in seen else RAGGED if seen["ragged"] else FULL
            key = (seen["direction"], seen["n"], route)
            if "seconds" in seen:
                self._seconds.setdefault(key, {})[seen["round"]] = seen["seconds"]
                if is_loud(seen):
                    self._loud.add((*key, seen["round"]))
            if seen.get("extra_bytes") is not None:
                self._bytes[key] = seen["extra_bytes"]

    @property
    def ours(self) -> str | None:
        """The route that stands for ours in the ratios."""
        measured = {route for _, _, route in self._seconds}
        return next((route for route in OURS if route in measured), None)

    def seconds(self, direction: str, n: int, route: str | None) -> float | None:
        rounds = self._seconds.get((direction, n, route or ""), {})
        quiet = [seconds for turn, seconds in rounds.items() if (direction, n, route, turn) not in self._loud]
        return _median(quiet or rounds.values())

    def ratios(self, direction: str, one: Place, other: Place) -> list[float]:
        """Time at one place by that at the other, in each round that has both, the quiet rounds if any."""
        a, b = (self._seconds.get((direction, n, route or ""), {}) for n, route in (one, other))
        both = sorted(a.keys() & b.keys())
        quiet = [t for t in both if not {(direction, *one, t), (direction, *other, t)} & self._loud]
        return [a[turn] / b[turn] for turn in quiet or both]

    def ratio(self, direction: str, one: Place, other: Place) -> float | None:
        return _median(self.ratios(direction, one, other))

    def time(self, seconds: float | None) -> str:
        """Three digits, in self.unit."""
        if seconds is None:
            return "-"
        number = seconds * self._scale
        return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"

    def cell(self, direction: str, n: int, route: str) -> str:
        """The time of one place, marked ~ where there was no quiet round."""
        rounds = self._seconds.get((direction, n, route), {})
        loud = bool(rounds) and all((direction, n, route, turn) in self._loud for turn in rounds)
        return self.time(self.seconds(direction, n, route)) + "~" * loud

    def extra_bytes(self, direction: str, n: int, route: str) -> int | None:
        return self._bytes.get((direction, n, route))


def is_loud(seen: dict[str, Any]) -> bool:
    """Whether other programs took too much of the machine for the figure to be trusted."""
    return (seen.get("others") or 0.0) > QUIET


def _median(numbers: Iterable[float]) -> float | None:
    numbers = list(numbers)
    return statistics.median(numbers) if numbers else None


def tables(result: dict[str, Any]) -> list[Table]:
    """For each direction: times and their ratios, memory, growth; and the ragged batch where it was measured."""
    seen, settings = Figures(result), result["settings"]
    lengths, made = settings["lengths"], []
    unit = {"s": "seconds", "ms": "milliseconds"}[seen.unit]
    held = "weights and inputs" if settings.get("layers") else "the inputs"
    doubled = [n for n in lengths if 2 * n in lengths]
    for direction in settings["directions"]:
        for title, columns, rows in (
            (unit, _times(seen, direction), lengths),
            ("tokens a second", _speeds(seen, direction), lengths if settings.get("layers") else []),
            (f"MB beyond {held}, at the peak", _memory(seen, direction), lengths),
            ("time(2n) / time(n)", _growth(seen, direction), doubled),
        ):
            cells = [[cell(n) for cell in columns.values()] for n in rows]
            made += [Table(f"{NAMES[direction]}: {title}", list(columns), cells)] if rows else []
    if result["extras"]:
        n = settings["extras"]
        title = f"auto at {n:,} tokens, two documents, one 5/8 as long and a key mask, against full ones: {unit}"
        rows = [
            [
                NAMES[direction].lower(),
                *(seen.cell(direction, n, route) for route in (FULL, RAGGED)),
                _ratio(seen.ratio(direction, (n, RAGGED), (n, FULL))),
            ]
            for direction in settings["directions"]
        ]
        made.append(Table(title, ["direction", FULL, RAGGED, f"{RAGGED} : {FULL}"], rows))
    return made


Columns = dict[str, Callable[[int], str]]  # header, and the cell for a length


def _times(seen: Figures, direction: str) -> Columns:
    routes, ours = seen.settings["routes"], seen.ours

    def limit(n: int) -> str:
        dense = seen.seconds(direction, n, "sdpa")
        return seen.time(None if dense is None else dense * seen.density[n])

    columns: Columns = {"tokens": lambda n: f"{n:,}", "density": lambda n: f"{seen.density[n]:.3f}"}
    for route in routes:
        columns[route] = lambda n, route=route: seen.cell(direction, n, route)
    if "sdpa" in routes:
        columns["density limit"] = limit
    if "sdpa" in routes and ours:
        columns[f"{ours} : sdpa"] = lambda n: _ratio(seen.ratio(direction, (n, ours), (n, "sdpa")))
    for peer in (route for route in routes if route.startswith("huggingface") and ours):
        columns[f"{peer} : {ours}"] = lambda n, peer=peer: _ratio(seen.ratio(direction, (n, peer), (n, ours)))
    return columns


def _speeds(seen: Figures, direction: str) -> Columns:
    columns: Columns = {"tokens": lambda n: f"{n:,}"}
    for route in seen.settings["routes"]:
        columns[route] = lambda n, route=route: _per_second(n, seen.seconds(direction, n, route))
    return columns


def _memory(seen: Figures, direction: str) -> Columns:
    columns: Columns = {"tokens": lambda n: f"{n:,}"}
    for route in seen.settings["routes"]:
        columns[route] = lambda n, route=route: _mega(seen.extra_bytes(direction, n, route))
    return columns


def _growth(seen: Figures, direction: str) -> Columns:
    columns: Columns = {"tokens": lambda n: f"{n:,} to {2 * n:,}"}
    for route in seen.settings["routes"]:
        columns[route] = lambda n, route=route: _ratio(seen.ratio(direction, (2 * n, route), (n, route)))
    return columns


def text(result: dict[str, Any], markdown: bool = False) -> str:
    """The whole report: machine, tables, and why a figure is missing."""
    lines = [*about(result), ""]
    for table in tables(result):
        lines += [f"**{table.title}**" if markdown else table.title, *([""] if markdown else [])]
        lines += [*(_markdown(table) if markdown else _plain(table)), ""]
    closing = [*notes(result), *_spread(result)]
    lines += [f"- {line}" for line in closing] if markdown else closing
    return "\n".join(lines).strip() + "\n"


def about(result: dict[str, Any]) -> list[str]:
    """Machine, versions and settings, in three lines."""
    m, v, s = result["machine"], result["versions"], result["settings"]
    peers = f"transformers {v['transformers']}" if v["transformers"] else "no transformers"
    place = m.get("gpu") or f"{m['cpu']}, {m['threads']} threads of torch, {m['cores']} cores"
    what = f"Encoders of {s['layers']} layers" if s.get("layers") else "Attention alone"
    closing = " Density limit: sdpa's time x density." if "sdpa" in s["routes"] else ""
    rounds = f", {s['rounds']} rounds" if s["rounds"] > 1 else ""
    return [
        f"{place}, {m['system']}, {m['date']}; Python {v['python']}, torch {v['torch']}, {peers}.",
        f"{what}: one document, {s['heads']} heads of 64, {s['dtype']}, blocks of {s['block']}, window "
        f"{s['window']}, first and last block global, {s['random']} random.",
        f"Medians of {s['repeats']} runs or more{rounds}, a fresh process for each figure.{closing}",
    ]


def notes(result: dict[str, Any]) -> list[str]:
    """What each route is, and one line for each reason that a figure is missing (shown as -)."""
    lines = [f"{route}: {WHAT[route]}." for route in result["settings"]["routes"]]
    missing: dict[tuple[str, str], list[str]] = {}
    for seen in [*result["figures"], *result["extras"]]:
        if "reason" in seen:
            place = f"{seen['n']:,} {seen['direction']}" + (" ragged" if seen.get("ragged") else "")
            places = missing.setdefault((seen["route"], seen["reason"]), [])
            places += [place] if place not in places else []
    lines += [f"No {route} at {', '.join(places)}: {reason}." for (route, reason), places in missing.items()]
    timed = [seen for seen in [*result["figures"], *result["extras"]] if "seconds" in seen]
    loud = [seen["others"] for seen in timed if is_loud(seen)]
    if loud:
        lines.append(
            f"{len(loud)} of {len(timed)} times were taken while other programs used more than {100 * QUIET:.0f}% of "
            f"the machine, at most {100 * max(loud):.0f}%. Where there are no others (~), measure again in quiet."
        )
    told = [seen["extra_bytes"] for seen in result["figures"] if "extra_bytes" in seen]
    if told and all(n_bytes is None for n_bytes in told):
        lines.append('No memory: psutil is not installed: pip install "bigbird-mini[lab]".')
    return lines


def _spread(result: dict[str, Any]) -> list[str]:
    """How far the ratio of ours to the dense reference strays from its median, where there are rounds to tell."""
    seen, settings = Figures(result), result["settings"]
    strays = []
    for direction in settings["directions"]:
        for n in settings["lengths"]:
            each = seen.ratios(direction, (n, seen.ours), (n, "sdpa"))
            if len(each) > 1:
                middle = statistics.median(each)
                strays.append(max(abs(ratio / middle - 1) for ratio in each))
    if not strays:
        return []
    return [f"{seen.ours} : sdpa of one round strays from the median by at most {100 * max(strays):.0f}%."]


def sentences(result: dict[str, Any]) -> list[str]:
    """The plot in words: one sentence for each of its lines."""
    seen, settings = Figures(result), result["settings"]
    said = []
    for direction in settings["directions"]:
        for route, line in lines_of(result, direction).items():
            ends = [f"{seen.time(seconds)} {seen.unit} at {n:,} tokens" for n, seconds in (line[0], line[-1])]
            sentence = f"{NAMES[direction]}, {route}: {ends[0]}"
            if len(line) > 1:
                grown = seen.ratio(direction, (line[-1][0], route), (line[0][0], route))
                sentence += f", {ends[1]}" + (f", {grown:.3g} times as long" if grown else "")
            said.append(sentence + ".")
    return said


def lines_of(result: dict[str, Any], direction: str) -> dict[str, list[tuple[int, float]]]:
    """For each route that was measured: (n, seconds), ascending."""
    seen, settings = Figures(result), result["settings"]
    lines = {}
    for route in settings["routes"]:
        points = [(n, seen.seconds(direction, n, route)) for n in settings["lengths"]]
        points = [(n, seconds) for n, seconds in points if seconds is not None]
        if points:
            lines[route] = points
    return lines


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"


def _per_second(n: int, seconds: float | None) -> str:
    return "-" if seconds is None else f"{n / seconds:,.0f}"


def _mega(n_bytes: int | None) -> str:
    return "-" if n_bytes is None else f"{n_bytes / MB:,.0f}"


def _plain(table: Table) -> list[str]:
    widths = [max(map(len, column)) for column in zip(table.header, *table.rows, strict=True)]
    return [
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in (table.header, *table.rows)
    ]


def _markdown(table: Table) -> list[str]:
    rule = ["---:"] * len(table.header)
    return ["| " + " | ".join(row) + " |" for row in (table.header, rule, *table.rows)]
