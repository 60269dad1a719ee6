"""The score of the prediction cards: how often right, how far off, and whether "90 % sure" is right nine times in ten.

It is one small file, predictions.json, beside the diary's; nothing leaves it, and it can be deleted at any time. Where
the diary keeps nothing (grading, worked solutions, BIGBIRD_MINI_PROGRESS=off), neither does this.
"""

from __future__ import annotations

import contextlib
import html
import json
import math
import os
import statistics
import time
from pathlib import Path
from typing import Any

from . import diary

VERSION = 1
ENOUGH = 4  # predictions with a percentage, before anything is said about them all


class Predictions:
    """What `predictions` shows: a row for each percentage, and what they say together."""

    def __init__(self) -> None:
        self.place = place()
        self.rows, self.notice = _read()

    def words(self) -> str:
        """The score in a sentence or two, "" where nothing is kept."""
        if not self.rows:
            return ""
        right = sum(row["right"] for row in self.rows.values())
        said = [f"{right} of {len(self.rows)} predictions right so far."]
        said += [f"{percent:g} % sure: right {a} of {b}." for percent, a, b in self.calibration()]
        if factors := [row["factor"] for row in self.rows.values() if row["factor"]]:
            said.append(f"Half of your numbers were off by less than a factor of {statistics.median(factors):.2g}.")
        return " ".join([*said, self._judgement()]).strip()

    def calibration(self) -> list[tuple[float, int, int]]:
        """For each percentage that was said: it, how many of these predictions were right, and how many there are."""
        found: dict[float, list[bool]] = {}
        for row in self.rows.values():
            if row["sure"] is not None:
                found.setdefault(row["sure"], []).append(row["right"])
        return [(percent, sum(found[percent]), len(found[percent])) for percent in sorted(found)]

    def _judgement(self) -> str:
        table = self.calibration()
        count = sum(b for _, _, b in table)
        if count < ENOUGH:
            return ""
        said = sum(percent * b for percent, _, b in table) / count
        true = 100 * sum(a for _, a, _ in table) / count
        if abs(said - true) < 10:
            return f"You said {said:.0f} % on average and were right {true:.0f} %: well judged."
        way = "surer than you should be" if said > true else "better than you think"
        return f"You said {said:.0f} % on average and were right {true:.0f} %: you are {way}."

    def _foot(self) -> str:
        if self.place is None:
            return "Predictions are not kept here."
        where = f"Kept in {self.place}; nothing leaves this computer. forget_predictions() deletes the file."
        return f"{self.notice} {where}".strip()

    def __repr__(self) -> str:
        cards = [f"{'✔' if row['right'] else '✘'} {row['key']} ({row['day']})" for row in self.rows.values()]
        return "\n".join([self.words() or "No prediction is kept yet.", *cards, self._foot()])

    def _repr_html_(self) -> str:
        lines = [f"<p>{html.escape(self.words() or 'No prediction is kept yet.')}</p>"]
        if table := self.calibration():
            cells = "".join(f"<tr><td>{p:g} %</td><td>{a} of {b}</td></tr>" for p, a, b in table)
            lines.append(f'<table><tr><th scope="col">said</th><th scope="col">right</th></tr>{cells}</table>')
        return f"<div>{''.join(lines)}<p><small>{html.escape(self._foot())}</small></p></div>"


def predictions() -> Predictions:
    """The score of your predictions, and how well you know what you know."""
    return Predictions()


def forget_predictions() -> str:
    """Delete the file of predictions; says what was deleted."""
    path = place()
    if path is None or not path.exists():
        return "There is no file of predictions."
    path.unlink()
    return f"{path} is deleted."


def keep(key: str, question: str, right: bool, sure: float | None = None, factor: float | None = None) -> str:
    """Keep a prediction; of a card, the first one counts. Returns the score in words, "" where nothing is kept.

    sure: the percentage that the reader gave. factor: by what a number was too large or too small, above 1.
    """
    path = place()
    if path is None:
        return ""
    rows, notice = _read()
    name = f"{key} {question}"
    if name not in rows:
        day = diary.today().isoformat()
        factor = factor if factor is not None and math.isfinite(factor) else None
        rows[name] = {"key": key, "day": day, "right": right, "sure": sure, "factor": factor}
        notice = _write(path, rows) or notice
    score = Predictions()
    score.rows = rows  # also where they could not be written
    return f"{score.words()} {notice}".strip()


def place() -> Path | None:
    """The file, whether it is there or not; None where nothing is kept."""
    beside = diary.place()
    return None if beside is None else beside.with_name("predictions.json")


def _read() -> tuple[dict[str, dict[str, Any]], str]:
    """The rows of the file, and a sentence where it could not be read; a damaged one is put aside."""
    path = place()
    if path is None:
        return {}, ""
    try:
        page = json.loads(path.read_text("utf-8"))
        if page["version"] > VERSION:
            return {}, f"{path} is of a newer version of the course and stays unused."
        return {name: _row(row) for name, row in page["cards"].items()}, ""
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        aside = path.with_name(f"{path.stem}.damaged-{time.strftime('%Y%m%d-%H%M%S')}{path.suffix}")
        try:
            path.replace(aside)
        except OSError:
            return {}, f"{path} cannot be read ({type(error).__name__})."
        return {}, f"{path} could not be read ({type(error).__name__}); it is now {aside.name}, and a new one begun."


def _row(row: dict[str, Any]) -> dict[str, Any]:
    """The row of a card, or some error where it has another form."""
    found = {"key": str(row["key"]), "day": str(row["day"]), "right": row["right"]}
    if not isinstance(row["right"], bool):
        raise ValueError("right is True or False")
    return found | {name: None if row[name] is None else float(row[name]) for name in ("sure", "factor")}


def _write(path: Path, rows: dict[str, dict[str, Any]]) -> str:
    """Put the rows into the file in one step; a sentence where that cannot be, else ""."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    if path.exists() and _newer(path):
        return ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps({"version": VERSION, "cards": rows}, indent=1, ensure_ascii=False) + "\n", "utf-8")
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        return f"The score cannot be kept in {path} ({error.strerror or type(error).__name__})."
    return ""


def _newer(path: Path) -> bool:
    """Whether a newer version of the course wrote the file: then it is left alone."""
    return json.loads(path.read_text("utf-8"))["version"] > VERSION
