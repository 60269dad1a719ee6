"""The points of a pytest run, gathered task by task, as lines for people, as JSON, and as a table for a class."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

WORDS = {"error": "error in code"}
KEYS = ("notebook", "task", "title", "points", "max", "outcome", "why", "seconds")


class Scores:
    """`tasks`: one row for each graded task; `faults`: the other cells that failed, as (notebook, cell, why)."""

    def __init__(self) -> None:
        self.tasks: dict[str, dict[str, Any]] = {}
        self.faults: list[tuple[str, str, str]] = []
        self.seconds: dict[str, float] = {}

    def add(self, name: str, seconds: float, properties: dict[str, Any]) -> None:
        """Take one report of pytest's; what belongs to no graded notebook is of no account."""
        book = name.partition("::")[0]
        self.seconds[book] = self.seconds.get(book, 0.0) + seconds
        if "outcome" in properties and "task" in properties:
            self.tasks[name] = {key: properties[key] for key in KEYS}
        elif "cell" in properties and "notebook" in properties:
            self.faults.append((properties["notebook"], properties["cell"], properties["why"]))

    def total(self, notebook: str | None = None) -> tuple[int, int]:
        """(points, most), of one notebook or of all."""
        rows = [row for row in self.tasks.values() if notebook in (None, row["notebook"])]
        return sum(row["points"] for row in rows), sum(row["max"] for row in rows)

    def notebooks(self) -> dict[str, list[dict[str, Any]]]:
        """The rows of each notebook, in the order of the tasks."""
        books: dict[str, list[dict[str, Any]]] = {}
        for row in sorted(self.tasks.values(), key=lambda row: (row["notebook"], _number(row["task"]))):
            books.setdefault(row["notebook"], []).append(row)
        return books

    def lines(self) -> Iterator[tuple[str, bool]]:
        """The summary: (line, whether nothing was lost). Of several notebooks, only the tasks that lost points."""
        books = self.notebooks()
        width = max((len(row["title"]) for row in self.tasks.values()), default=0)
        for book, rows in books.items():
            got, most = self.total(book)
            if len(books) > 1:
                yield f"{book}: {got}/{most}", got == most
            for row in rows:
                right = row["outcome"] == "right"
                if right and len(books) > 1:
                    continue
                words = WORDS.get(row["outcome"], row["outcome"])
                points = f"{row['points']}/{row['max']}"
                why = row["why"].partition("\n")[0]
                yield f"{words:<13} {row['task']:>5} {row['title']:<{width}}  {points}  {why}".rstrip(), right
            for _, cell, why in (fault for fault in self.faults if fault[0] == book):
                yield f"{'no points lost':<13} {cell}  {why}", False

    def as_json(self) -> str:
        """{"points", "max", "tasks": [...], "notebooks": [...]}: docs/grading.md has the format."""
        got, most = self.total()
        books = []
        for book in self.notebooks():
            faults = [{"cell": cell, "why": why} for name, cell, why in self.faults if name == book]
            points, of = self.total(book)
            seconds = round(self.seconds.get(book, 0.0), 2)
            books.append({"notebook": book, "points": points, "max": of, "seconds": seconds, "faults": faults})
        tasks = [row for rows in self.notebooks().values() for row in rows]
        content = {"points": got, "max": most, "tasks": tasks, "notebooks": books}
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    def as_csv(self) -> str:
        """A line for each notebook: its points, the points of each task, and the reasons for those lost."""
        books = self.notebooks()
        numbers = sorted({row["task"] for row in self.tasks.values()}, key=_number)
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["notebook", "points", "max", *numbers, "why"])
        for book, rows in books.items():
            points = {row["task"]: row["points"] for row in rows}
            lost = [
                f"{row['task']} {row['outcome']}: {_one_line(row['why'])}" for row in rows if row["points"] < row["max"]
            ]
            line = [book, *self.total(book), *(points.get(number, "") for number in numbers), " | ".join(lost)]
            table.writerow([_harmless(value) for value in line])
        return text.getvalue()


def _number(task: str) -> tuple[int, ...]:
    return tuple(int(part) for part in task.split("."))


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]


def _harmless(value: Any) -> Any:
    """A spreadsheet computes what begins like a formula; learners choose the names of files and of errors."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
