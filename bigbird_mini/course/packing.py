"""pack("my_bigbird"): the functions of yours that passed, as a small Python package with tests, in a folder of its own.

The package needs PyTorch and nothing of this course: what your functions use comes along, and the tests compare with
results that were computed by the course and stored as numbers.
"""

import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import torch

from . import diary
from .catalogue import Task, all_tasks
from .handover import Closed, names_of_caller, passing
from .judging import Misuse

CASES = 8  # of one task, at most
_MARKS = re.compile(r"^\s*(###|# TODO: your code here).*\n", re.M)
_PROJECT = """[build-system]
requires = ["setuptools>=68"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "0.1.0"
description = "Attention, written by hand in the BigBird course"
requires-python = ">=3.11"
dependencies = ["torch>=2.10"]

[tool.setuptools]
packages = ["{name}"]

[tool.pytest.ini_options]
pythonpath = ["."]
"""
_TESTS = '''"""Each function against results that were computed by another one, in loops."""

import json
from pathlib import Path

import pytest
import torch

import {name}

CASES = json.loads(Path(__file__).with_name("cases.json").read_text("utf-8"))


def value(x):
    """A tensor is stored as {{"dtype", "shape", "numbers"}}."""
    if not isinstance(x, dict):
        return x
    return torch.tensor(x["numbers"], dtype=getattr(torch, x["dtype"])).reshape(x["shape"])


@pytest.mark.parametrize("function, case", [(f, case) for f, cases in CASES.items() for case in cases])
def test_result(function, case):
    found = getattr({name}, function)(*map(value, case["inputs"]))
    expected = value(case["expected"])
    if isinstance(expected, torch.Tensor) and expected.is_floating_point():
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    elif isinstance(expected, torch.Tensor):
        assert torch.equal(found, expected)
    else:
        assert found == expected
'''


def pack(folder: str | Path) -> Closed:
    """Write the functions of yours that pass, found by their names, as a package. An existing folder is left alone.

    Returns one sentence about what was written. Misuse, a ValueError, for a folder whose name Python cannot import.
    """
    names, place = names_of_caller(), Path(folder)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", place.name):
        raise Misuse(f"a package has a name of small letters, digits and _, such as my_bigbird, not {place.name!r}")
    if diary.grading():
        return Closed("Nothing is written while notebooks are graded.")
    if place.exists():
        return Closed(f"There is a folder {place.name} already: it stays as it is. Delete it, or choose another name.")
    tasks = [task for task in all_tasks().values() if callable(task.solution)]
    mine = [(task, answer) for task in tasks if (answer := passing(task, names)) is not None]
    texts, left_out = package(place.name, mine)
    if not texts:
        return Closed(" ".join(["No function of yours passes yet, so there is nothing to pack.", *left_out]))
    for path, text in texts.items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_text(text, "utf-8", newline="\n")
    how = f"Try it in a terminal: cd {place.name}, then python -m pytest. pip install . makes it yours everywhere."
    done = ", ".join(json.loads(texts["tests/cases.json"]))
    return Closed(" ".join([f"Written to {place.name}: {done}, with tests.", *left_out, how]))


def package(name: str, mine: list[tuple[Task, Any]]) -> tuple[dict[str, str], list[str]]:
    """(the texts of the package's files by path, a sentence for each function that cannot be written down)."""
    parts: dict[str, str] = {}  # in order; what is used stands before what uses it
    imports: dict[str, str] = {}
    done: list[Task] = []
    left_out = []
    for task, answer in mine:
        more: tuple[dict[str, str], dict[str, str]] = ({}, {})
        try:
            _gather(task.asks, answer, *more, parts)
        except (OSError, TypeError, ValueError) as error:
            left_out.append(f"{task.asks} is left out: {error}.")
            continue
        parts |= more[0]
        imports |= more[1]
        done.append(task)
    if not done:
        return {}, left_out
    head = '"""Attention by hand: what I wrote in the BigBird course."""'
    public = [task.asks for task in done]
    code = "\n\n\n".join(["\n".join([head, "", *sorted(imports.values())]).rstrip(), *parts.values()]) + "\n"
    names = "\n".join(f"from .functions import {asks} as {asks}" for asks in public)
    titles = "\n".join(f"- `{task.asks}`: {task.title}" for task in done)
    texts = {
        "pyproject.toml": _PROJECT.format(name=name),
        "README.md": f"# {name}\n\nWritten by hand in the BigBird course, and tested:\n\n{titles}\n",
        f"{name}/__init__.py": f"{head}\n\n{names}\n",
        f"{name}/functions.py": code,
        "tests/test_functions.py": _TESTS.format(name=name),
        "tests/cases.json": json.dumps({task.asks: _cases(task) for task in done}) + "\n",
    }
    return texts, left_out


def _gather(name: str, thing: Any, parts: dict[str, str], imports: dict[str, str], there: dict[str, str]) -> None:
    """Put the source of a function, and of all that it uses, into parts and imports. ValueError, a clause, if not."""
    if name in parts or name in there:
        return
    if isinstance(thing, ModuleType):
        same = thing.__name__ == name
        imports[name] = f"import {thing.__name__}" + ("" if same else f" as {name}")
    elif isinstance(thing, int | float | str | bool | None):
        parts[name] = f"{name} = {thing!r}"
    elif home := _home(thing):
        if home.startswith("bigbird_mini"):
            raise ValueError(f"it uses {name} of the course itself")
        own = thing.__name__
        imports[name] = f"from {home} import {own}" + ("" if own == name else f" as {name}")
    elif isinstance(thing, FunctionType):
        if thing.__closure__:
            raise ValueError(f"{name} was made inside another function")
        source = _MARKS.sub("", textwrap.dedent(inspect.getsource(thing))).rstrip()
        if not re.match(rf"def {name}\b", source):
            raise ValueError(f"{name} is no plain function of that name (`def {name}(...)`)")
        for used in dict.fromkeys(_names(thing.__code__)):
            if used != name and used in thing.__globals__:
                _gather(used, thing.__globals__[used], parts, imports, there)
        parts[name] = source
    else:
        raise ValueError(f"it uses {name}, a {type(thing).__name__}, which cannot be written down")


def _home(thing: Any) -> str:
    """The module that a function or class can be imported from; "" for one of the notebook's own."""
    own = getattr(thing, "__name__", None)
    for home in (getattr(thing, "__module__", None), "torch", "torch.nn.functional", "math", "numpy"):
        if own and home not in (None, "__main__") and getattr(sys.modules.get(home), own, None) is thing:
            return home
    return ""


def _names(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _cases(task: Task) -> list[dict[str, Any]]:
    """Inputs and right results as JSON has them; of many cases some, the first and the last among them."""
    cases = list(task.cases())
    step = max(1, -(-(len(cases) - 1) // (CASES - 1)))
    chosen = [*cases[:-1:step], cases[-1]] if len(cases) > 1 else cases
    inputs = [[_stored(x) for x in case.inputs.values()] for case in chosen]
    return [{"inputs": x, "expected": _stored(task.expected(c.inputs))} for x, c in zip(inputs, chosen, strict=True)]


def _stored(x: Any) -> Any:
    if not isinstance(x, torch.Tensor):
        return x
    name = str(x.dtype).removeprefix("torch.")
    return {"dtype": name, "shape": list(x.shape), "numbers": x.flatten().tolist()}
