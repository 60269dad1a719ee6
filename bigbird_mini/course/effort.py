"""Telling one attempt from another: by what the code does, not by comments, layout or the names of variables."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from types import CodeType
from typing import Any

import torch

from .running import Crashed, said


def fingerprint(answer: Any, results: Iterable[Any]) -> str:
    """A short text that is the same for the same attempt: from the function's code and from what it gave."""
    parts = [*_code_parts(answer), *(_summary(result) for result in results)]
    return hashlib.sha256("\n".join(parts).encode("utf-8", "replace")).hexdigest()[:16]


def _code_parts(answer: Any) -> Iterator[str]:
    code = getattr(answer, "__code__", None)
    if isinstance(code, CodeType):
        yield from _of_code(code, getattr(answer, "__doc__", None))
        yield _steady(getattr(answer, "__defaults__", None))


def _of_code(code: CodeType, doc: str | None) -> Iterator[str]:
    # neither line numbers nor local names are in these
    yield f"{code.co_code.hex()} {code.co_names}"
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _of_code(constant, None)
        elif constant != doc:
            yield _steady(constant)


def _summary(result: Any) -> str:
    if isinstance(result, Crashed):
        return f"{type(result.error).__name__} {said(result.error)}"
    if isinstance(result, torch.Tensor):
        try:
            x = result.detach().abs().double() if result.is_complex() else result.detach().double()
            return f"{tuple(x.shape)} {float(x.nansum()):.6g} {float((x * x).nansum()):.6g}"
        except (RuntimeError, NotImplementedError):
            return f"{tuple(result.shape)}"  # on a device that holds no numbers
    return _steady(result)


def _steady(value: Any) -> str:
    """repr, cut short and without the addresses of objects, which change from run to run."""
    try:
        return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value)[:500])
    except Exception:
        return type(value).__name__  # an object that cannot even be shown
