"""Jobs made small: a library of a few files in place of Python's, short stretches, and cells of a table that do little.

Run as a program it is ``python -m bigbird_mini.jobs`` with these sizes; in the tests ``shrink(monkeypatch.setattr)``.
"""

import os
import socket
import sys
import time
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from bigbird_mini.data import Document

VOCABULARY = 400
_WORDS = [
    a + b + c for a in ("ba", "do", "ki") for b in ("ra", "lu", "mes", "to") for c in ("n", "x", "tal", "vo", "pi")
]


@lru_cache
def library(files=24):
    """Programs of some 6,000 letters, each with a few words of its own. Each imports seven names by five statements,
    the last in the middle of the text, and uses them all over."""
    made = []
    for number in range(files):
        rng = np.random.default_rng(number)
        words = rng.choice(_WORDS, 12, replace=False)
        names = [f"Na{number}", "Json", "Left", "Right", "Far", "Dumps", "Late"]
        lines = [
            f"import Na{number}",
            "import q.json as Json",
            "from .a import Left, Right",
            "from b import (",
            "    Far,",
        ]
        lines += ["    Dumps)"]
        for line in range(220):
            if line == 110:
                lines.append("import Late")
            usable = names[: 7 if line > 110 else 6]
            word = rng.choice(usable if rng.random() < 0.2 else words)
            lines.append(f"{rng.choice(words)} = {word}({rng.choice(words)}, {rng.integers(100)})")
        made.append(Document(f"{number:02}.py", "\n".join(lines) + "\n"))
    return tuple(made)


def shrink(put):
    """put: as setattr. A small library and vocabulary, few excerpts; in mlm, stretches of 256 tokens and what goes with
    them."""
    from bigbird_mini.jobs import imports, mlm

    for module in (imports, mlm):
        put(module, "stdlib_text", library)
        put(module, "VOCABULARY", VOCABULARY)
    put(imports, "EXCERPTS", 8)
    for name, value in {"STRETCH": 256, "LENGTHS": (64, 128, 256), "TESTED": 6, "BANDS": (1, 16, 64, 128)}.items():
        put(mlm, name, value)
    imports.files.cache_clear(), mlm.split.cache_clear()


# ---------------------------------------------------------------- cells of a table


@dataclass(frozen=True)
class Cell:
    """name: what happens in it; number: to tell those of one name apart."""

    name: str
    number: int = 0


def execute(cell, folder, resume, progress):
    """What a job would do, by the name of the cell."""
    if cell.name == "fails":
        raise ValueError(f"no way to {cell.number}")
    if cell.name == "dies":
        os._exit(3)
    if cell.name == "is stopped":
        raise KeyboardInterrupt
    if cell.name == "goes on":
        with socket.create_server(("127.0.0.1", 0)) as server:  # open as long as the process lives
            folder.mkdir(parents=True)
            (folder / "port").write_text(f"{server.getsockname()[1]}\n")
            time.sleep(1000)
    about = {"folder": str(folder), "resume": resume, "progress": progress, "process": os.getpid()}
    return asdict(cell) | about | {"threads": torch.get_num_threads()}


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        from bigbird_mini.jobs import cells

        cells.fill(Path(sys.argv[2]), [Cell("goes on")], execute, str)
    else:
        from bigbird_mini.jobs.__main__ import main

        shrink(setattr)
        sys.exit(main())
