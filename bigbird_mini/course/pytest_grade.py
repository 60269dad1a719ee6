"""pytest plugin: `pytest --nbval-lax exercises/01_dense_attention.ipynb` gives points, and a reason for each lost one.

bigbird_grade.py, beside the package, loads it where nbval or one of its options is asked for. It then hands the
exercises and solutions of this course to `graded.GradedNotebook`; lessons and all other notebooks stay with nbval.
Damaged or hostile work costs points, never the whole run.
docs/grading.md is the manual.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from . import limits
from .scores import Scores
from .submission import exercise_of, manifest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bigbird", "grading the exercises of the BigBird course (with --nbval-lax)")
    group.addoption("--score-json", metavar="FILE", help="write the points of each task to this file")
    group.addoption("--score-csv", metavar="FILE", help="write a table of all notebooks to this file, for a class")
    group.addoption(
        "--grade-as", metavar="NAME", help="take every notebook for this exercise, such as 01_dense_attention"
    )
    limits.add_options(group)


def pytest_configure(config: pytest.Config) -> None:
    asked = {name: config.getoption(name, None) for name in ("score_json", "score_csv", "grade_as")}
    for name in ("score_json", "score_csv"):
        if asked[name] and not Path(asked[name]).resolve().parent.is_dir():
            raise pytest.UsageError(f"{_option(name)}: there is no folder {Path(asked[name]).parent}")
    if asked["grade_as"] and asked["grade_as"] not in manifest():
        known = ", ".join(manifest())
        raise pytest.UsageError(f"--grade-as: there is no exercise {asked['grade_as']}; there are {known}")
    if config.getoption("nbval", False) or config.getoption("nbval_lax", False):
        config.pluginmanager.register(Grader(config), "bigbird_grader")
    elif used := [name for name, value in asked.items() if value]:
        raise pytest.UsageError(f"{_option(used[0])} needs nbval and one of its options: pytest --nbval-lax NOTEBOOK")


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


class Grader:
    """Takes the course's notebooks over from nbval, and gathers what they score."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.scores = Scores()
        self.kernels: Any = None
        self.missing: str | None = None
        self.strange: list[str] = []  # notebooks that are none of this course

    @pytest.hookimpl(wrapper=True)
    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> Generator[None, list[Any], list[Any]]:
        nodes = yield
        if file_path.suffix != ".ipynb" or not nodes:
            return nodes
        from nbval.plugin import IPyNbFile

        if not any(type(node) is IPyNbFile for node in nodes):
            return nodes
        option = self.config.option
        name = option.grade_as or exercise_of(file_path, option.grade_size_mb)
        if not name:
            if file_path.parent.name != "lessons":
                self.strange.append(nodes[0].nodeid)
            return nodes
        try:
            from .graded import GradedNotebook
            from .kernel import Kernels
        except ImportError as error:
            self.missing = error.name
            return []
        self.kernels = self.kernels or Kernels()
        mine = GradedNotebook.from_parent(parent, path=file_path)
        mine.rows, mine.kernels = manifest()[name], self.kernels
        return [mine if type(node) is IPyNbFile else node for node in nodes]

    def pytest_collection_modifyitems(self) -> None:
        if self.missing:  # said here: during the collection it would only be one more failure
            raise pytest.UsageError(f'grading needs {self.missing}: pip install "bigbird-mini[test]"')

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if self.kernels:
            self.kernels.wanted = len({item.parent for item in session.items if hasattr(item.parent, "kernels")})

    def pytest_unconfigure(self) -> None:
        if self.kernels:
            self.kernels.close()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # in the main process, under pytest-xdist too: the rows travel as properties of the reports
        self.scores.add(report.nodeid, report.duration, dict(report.user_properties) if report.when == "call" else {})

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        got, most = self.scores.total()
        # asked for points and found nobody to give them to: that is no success either
        if (got < most or (self._asked() and not most)) and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if hasattr(self.config, "workerinput"):
            return
        option = self.config.option
        if option.score_json:
            Path(option.score_json).write_text(self.scores.as_json(), "utf-8", newline="\n")
        if option.score_csv:
            # with a mark at its start, spreadsheets read a table as UTF-8
            Path(option.score_csv).write_text(self.scores.as_csv(), "utf-8-sig", newline="\n")

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        write = terminalreporter.write_line
        if not self.scores.tasks and not self._asked():
            return
        terminalreporter.section("score")
        for line, right in self.scores.lines():
            write(line, green=right, red=not right)
        for name in self.strange:
            write(f"{'no exercise':<13} {name}  left to nbval; --grade-as NAME grades it", yellow=True)
        if self.scores.tasks:
            write("score: {}/{} points".format(*self.scores.total()), bold=True)
        else:
            write("score: no notebook of this course was found", bold=True)

    def _asked(self) -> bool:
        option = self.config.option
        return bool(option.score_json or option.score_csv or option.grade_as)
