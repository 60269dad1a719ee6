"""A learner's diary of their own for each test: pytest is a grader to the course, which then remembers nothing."""

import pytest

from bigbird_mini.course import diary


@pytest.fixture
def learner(tmp_path, monkeypatch):
    """As in a learner's own session: checks are remembered, in a file of this test. Returns its path."""
    for name in ("PYTEST_VERSION", "BIGBIRD_GRADING", "JPY_SESSION_NAME"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "kept" / "progress.json"
    monkeypatch.setenv(diary.VARIABLE, str(path))
    monkeypatch.setattr(diary, "_session", None)
    monkeypatch.setattr(diary, "_notices", [])
    return path
