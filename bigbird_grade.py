"""The entry point of the grader for pytest: loaded in every pytest run where bigbird-mini is installed.

It stands beside the package, since importing anything in that loads torch, which takes seconds. Only where notebooks
are tested, or help or one of the grader's options is asked for, does it load bigbird_mini.course.pytest_grade.
"""

from __future__ import annotations

import pytest

_ASKED = ("--nbval", "--score-", "--grade-", "--help", "-h")


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    """args: the words of the command line, after those of the ini file and of PYTEST_ADDOPTS."""
    if any(word.startswith(_ASKED) for word in args):
        from bigbird_mini.course import pytest_grade

        early_config.pluginmanager.register(pytest_grade, "bigbird_mini.course.pytest_grade")
