"""The source code of the Python that runs this: hundreds of real documents, many of them long, on every computer."""

from __future__ import annotations

import sysconfig
import tokenize
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

# Tests repeat themselves, the others are programs beside the library or packages that the reader installed.
_LEFT_OUT = {"test", "tests", "idle_test", "idlelib", "lib2to3", "site-packages", "dist-packages", "__pycache__"}


class Document(NamedTuple):
    """name: the path inside the library, such as 'json/decoder.py'; text: all of it."""

    name: str
    text: str


@lru_cache(maxsize=1)
def stdlib_text() -> tuple[Document, ...]:
    """The modules of Python's standard library as documents, sorted by name; about 600 and 11 million letters.

    The texts differ a little from one Python version to the next. Files that cannot be read are skipped. Raises
    RuntimeError in a Python that keeps no sources.
    """
    return _documents(Path(sysconfig.get_path("stdlib")))


def _documents(root: Path) -> tuple[Document, ...]:
    found = []
    for path in root.rglob("*.py"):
        name = path.relative_to(root)
        if _LEFT_OUT.isdisjoint(name.parts):
            try:
                with tokenize.open(path) as file:  # minds the encoding that a source file declares
                    found.append(Document(name.as_posix(), file.read()))
            except (OSError, SyntaxError, UnicodeDecodeError):
                continue
    if not found:
        raise RuntimeError(
            f"this Python keeps no sources of its standard library in {root}; use one that does, such as python.org's, "
            "conda's, uv's or your system's"
        )
    return tuple(sorted(found))
