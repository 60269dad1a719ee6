"""What a learner did: attempts, passes, mistakes and when to look at them again. One small file; nothing leaves it.

The file is progress.json in the user's own data folder; BIGBIRD_MINI_PROGRESS names another file, or says "off": then
only this session remembers. While notebooks are graded nothing is read, kept or written. Of an attempt, a fingerprint
is kept and no code.
"""

import contextlib
import json
import os
import sys
import time
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

VARIABLE = "BIGBIRD_MINI_PROGRESS"
VERSION = 1
STEPS = (1, 3, 7, 21)  # days until a mistake is asked about again; longer after each right answer
MOST = 200  # attempts kept for one task

_session: dict[str, Any] | None = None  # what is remembered where there is no file to write to
_notices: list[str] = []  # sentences for the reader about the file itself


@dataclass(frozen=True)
class Standing:
    """Where a learner stands with a task. told: how often the mistake just made was told, this time included."""

    attempts: int = 0
    passed: str = ""
    told: int = 0


def grading() -> bool:
    """Whether a grader (or pytest) runs this process: then no learner sits before it."""
    return "PYTEST_VERSION" in os.environ or "BIGBIRD_GRADING" in os.environ


def place() -> Path | None:
    """The file, whether it is there or not; None where nothing is to be written."""
    chosen = os.environ.get(VARIABLE, "").strip()
    if grading() or chosen.casefold() == "off" or _is_worked_solution():
        return None
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "bigbird_mini" / "progress.json"


def _is_worked_solution() -> bool:
    """Whether the notebook that runs is one of solutions/: what passes there is nobody's success."""
    return Path(os.environ.get("JPY_SESSION_NAME", "")).parent.name == "solutions"


def today() -> date:
    return date.today()


def take_notices() -> list[str]:
    """The sentences that have gathered about the file, each once."""
    taken = list(dict.fromkeys(_notices))
    _notices.clear()
    return taken


# ---------------------------------------------------------------- what is kept


def note(number: str, outcome: str, mistake: str, effort: str) -> Standing:
    """Keep one check of a task; returns where the learner now stands. mistake: its name, "" where none is known."""
    if grading():
        return Standing(told=1)
    page = _read()
    row = page["tasks"].setdefault(number, {"attempts": [], "passed": "", "told": {}, "outcome": ""})
    if outcome == "not attempted":
        row["outcome"] = row["outcome"] or outcome
        _write(page)
        return _standing(row)
    row["outcome"] = outcome
    told = 0
    if outcome == "right":
        row["passed"] = row["passed"] or today().isoformat()
        row["told"] = {}
    else:
        if effort not in row["attempts"]:
            row["attempts"] = [*row["attempts"], effort][-MOST:]
        told = row["told"][mistake] = row["told"].get(mistake, 0) + 1
        if mistake:
            due = (today() + timedelta(days=STEPS[0])).isoformat()
            page["reviews"][_key(number, mistake)] = {"step": 0, "due": due}
    _write(page)
    return _standing(row, told)


def standing(number: str) -> Standing:
    """Where the learner stands with a task."""
    return Standing() if grading() else _standing(_read()["tasks"].get(number, {}))


def rows() -> dict[str, dict[str, Any]]:
    """By task: outcome of the last check, attempts (fingerprints of those not passed), passed (a date or "")."""
    return {} if grading() else _read()["tasks"]


def due() -> list[tuple[str, str, date]]:
    """(task, mistake, day) for all that is to be looked at again, the earliest first, those to come included."""
    reviews = {} if grading() else _read()["reviews"]
    listed = [(*key.split(" ", 1), date.fromisoformat(row["due"])) for key, row in reviews.items()]
    return sorted(listed, key=lambda row: (row[2], row[0]))


def reviewed(number: str, mistake: str, right: bool) -> date | None:
    """Keep the answer to a review: it comes back later after a right one, tomorrow after a wrong one.

    Returns the day, None where it does not come back.
    """
    if grading():
        return None
    page = _read()
    row = page["reviews"].get(_key(number, mistake), {"step": 0})
    step = row["step"] + 1 if right else 0
    if step >= len(STEPS):
        page["reviews"].pop(_key(number, mistake), None)
        again = None
    else:
        again = today() + timedelta(days=STEPS[step])
        page["reviews"][_key(number, mistake)] = {"step": step, "due": again.isoformat()}
    _write(page)
    return again


def _standing(row: dict[str, Any], told: int = 0) -> Standing:
    return Standing(len(row.get("attempts", ())), row.get("passed", ""), told)


def _key(number: str, mistake: str) -> str:
    return f"{number} {mistake}"


# ---------------------------------------------------------------- the file


def _empty() -> dict[str, Any]:
    return {"version": VERSION, "tasks": {}, "reviews": {}}


def _read() -> dict[str, Any]:
    global _session
    path = place()
    if path is None or _session is not None:
        _session = _session or _empty()
        return _session
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return _empty()
    except (OSError, UnicodeDecodeError) as error:
        return _put_aside(path, error)
    try:
        page = json.loads(text)
        _validate(page)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return _put_aside(path, error)
    if page["version"] > VERSION:
        _session = _empty()
        _notices.append(f"Your progress file {path} is of a newer version of the course: it stays as it is, unused.")
        return _session
    return page


def _validate(page: Any) -> None:
    """Raise some error unless the page has the form that `_empty` and `note` give it."""
    if int(page["version"]) > VERSION:
        return
    for row in page["tasks"].values():
        ok = isinstance(row["attempts"], list) and isinstance(row["told"], dict)
        ok = ok and isinstance(row["passed"], str) and isinstance(row["outcome"], str)
        if not ok or not all(isinstance(count, int) for count in row["told"].values()):
            raise ValueError("a task's row has another form")
    for key, row in page["reviews"].items():
        number, mistake = key.split(" ", 1)
        if not number or not mistake or not 0 <= row["step"] < len(STEPS):
            raise ValueError("a review has another form")
        date.fromisoformat(row["due"])


def _put_aside(path: Path, error: Exception) -> dict[str, Any]:
    """Keep a damaged file under another name, tell the reader, and begin a new one."""
    aside = path.with_name(f"{path.stem}.damaged-{time.strftime('%Y%m%d-%H%M%S')}{path.suffix}")
    try:
        path.replace(aside)
        said = f"was put aside as {aside.name}, and a new one begun"
    except OSError:
        global _session
        _session = _empty()
        said = "was left where it is; only this session remembers now"
    _notices.append(f"Your progress file {path} could not be read ({type(error).__name__}): it {said}.")
    return _session or _empty()


def _write(page: dict[str, Any]) -> None:
    """Put the page into its file in one step; where that cannot be, remember it in this session and say so."""
    global _session
    path = place()
    if path is None or _session is not None:
        _session = page
        return
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(page, indent=1, ensure_ascii=False) + "\n", "utf-8")
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        _session = page
        why = error.strerror or type(error).__name__
        _notices.append(f"Your progress cannot be kept in {path} ({why}): only this session remembers it.")
