"""pytest plugin: `pytest --nbval-lax exercises/01_dense_attention.ipynb` gives points, and a reason for each lost one.

Loaded in every pytest run where this package is installed, so it imports nothing heavy and does nothing unless nbval
is installed and asked for. Then it hands the exercises and solutions of this course to `graded.GradedNotebook`;
lessons and all other notebooks stay with nbval. Deleted or unreadable work costs points, never the whole run.
"""

import json
import re
from collections.abc import Generator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

MANIFEST = Path(__file__).with_name("manifest.json")
WORDS = {"error": "error in code"}
KEYS = ("notebook", "task", "title", "points", "max", "outcome", "why")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bigbird", "grading the exercises of the BigBird course (with --nbval-lax)")
    group.addoption("--score-json", metavar="FILE", help="write the points of each task to this file")


def pytest_configure(config: pytest.Config) -> None:
    target = config.getoption("score_json", None)
    if target and not Path(target).resolve().parent.is_dir():
        raise pytest.UsageError(f"--score-json: there is no folder {Path(target).parent}")
    if _active(config):
        config.pluginmanager.register(Scores(config), "bigbird_scores")
    elif target:
        raise pytest.UsageError("--score-json needs nbval and one of its options: pytest --nbval-lax NOTEBOOK")


def _active(config: pytest.Config) -> bool:
    return bool(config.getoption("nbval", False) or config.getoption("nbval_lax", False))


@cache
def manifest() -> dict[str, list[dict[str, Any]]]:
    """The check cells of each exercise, as the build wrote them; empty where there is no manifest."""
    return json.loads(MANIFEST.read_text("utf-8")) if MANIFEST.exists() else {}


def exercise_name(path: Path) -> str | None:
    """The exercise (a key of the manifest) that a notebook file is, or is a copy of; None for any other notebook."""
    if path.parent.name == "lessons":
        return None
    text = path.read_text("utf-8", errors="replace")
    origin = re.search(r'"generated_from":\s*"solutions/(\w+)\.ipynb"', text)
    name = path.stem if path.stem in manifest() else origin and origin[1]
    # inside the file the call is a JSON string: check(\"1.1\"
    has_check = re.search(r"check\(\s*(\\\"|')", text)
    if name in manifest() and (has_check or path.parent.name in ("exercises", "solutions")):
        return name
    return None


class Scores:
    """Takes the notebooks over, gathers one row for each task and shows them at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.rows: dict[str, dict[str, Any]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> Generator[None, list[Any], list[Any]]:
        nodes = yield
        if file_path.suffix != ".ipynb" or not nodes:
            return nodes
        from nbval.plugin import IPyNbFile

        if not any(type(node) is IPyNbFile for node in nodes) or not (name := exercise_name(file_path)):
            return nodes
        from .graded import GradedNotebook

        mine = GradedNotebook.from_parent(parent, path=file_path)
        mine.tasks = manifest()[name]
        return [mine if type(node) is IPyNbFile else node for node in nodes]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # in the main process, under pytest-xdist too: the rows travel as properties of the reports
        row = dict(report.user_properties)
        if "outcome" in row and "task" in row and report.when == "call":
            self.rows[report.nodeid] = {key: row[key] for key in KEYS}

    def _sorted(self) -> list[dict[str, Any]]:
        def place(row: dict[str, Any]) -> tuple[Any, ...]:
            return row["notebook"], *(int(part) for part in row["task"].split("."))

        return sorted(self.rows.values(), key=place)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        rows = self._sorted()
        got, most = _totals(rows)
        if got < most and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        target = self.config.getoption("score_json")
        if target and not hasattr(self.config, "workerinput"):
            text = json.dumps({"points": got, "max": most, "tasks": rows}, indent=1, ensure_ascii=False)
            Path(target).write_text(text + "\n", "utf-8")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        rows, write = self._sorted(), terminalreporter.write_line
        if not rows:
            return
        terminalreporter.section("score")
        width = max(len(row["title"]) for row in rows)
        books = list(dict.fromkeys(row["notebook"] for row in rows))
        for book in books:
            mine = [row for row in rows if row["notebook"] == book]
            if len(books) > 1:
                write("{}: {}/{}".format(book, *_totals(mine)))
            for row in mine:
                right = row["outcome"] == "right"
                words = WORDS.get(row["outcome"], row["outcome"])
                points = f"{row['points']}/{row['max']}"
                why = row["why"].partition("\n")[0]
                line = f"{words:<13} {row['task']:>5} {row['title']:<{width}}  {points}  {why}"
                write(line.rstrip(), green=right, red=not right)
        write("score: {}/{} points".format(*_totals(rows)), bold=True)


def _totals(rows: list[dict[str, Any]]) -> tuple[int, int]:
    return sum(row["points"] for row in rows), sum(row["max"] for row in rows)
