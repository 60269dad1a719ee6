"""What a learner's notebook may use while it is graded, and pytest's options for it. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Limits:
    """What one notebook may use; each number is positive, `inf` lifts a limit."""

    cell_seconds: float = 30.0
    file_seconds: float = 150.0
    memory_mb: float = 4000.0
    output_mb: float = 10.0
    size_mb: float = 100.0


HELP = {
    "cell_seconds": "seconds that one cell may run",
    "file_seconds": "seconds that all cells of a notebook may run together",
    "memory_mb": "megabytes of memory that a notebook's kernel and its children may hold",
    "output_mb": "megabytes that one cell may print or display",
    "size_mb": "megabytes that a notebook file may have",
}


def positive(text: str) -> float:
    """An option's value. argparse.ArgumentTypeError, a sentence, for anything but a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def add_options(group: Any) -> None:
    """Declare one option for each limit, --grade-cell-seconds and so on, in pytest's option group."""
    for field in fields(Limits):
        name = "--grade-" + field.name.replace("_", "-")
        about = f"{HELP[field.name]} (default: {field.default:g})"
        group.addoption(name, type=positive, default=field.default, metavar="N", help=about)


def from_options(option: Any) -> Limits:
    """The limits that the command line asks for."""
    return Limits(**{field.name: getattr(option, f"grade_{field.name}") for field in fields(Limits)})
