"""Is a result right, and where is it not? And is it the very result of a wrong answer that is known?"""

import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bigbird_mini.viz.failure import Failure, first_difference

from .catalogue import Case
from .running import Wrong, describe

# relative and absolute; a number that went through float32 on its way is not wrong for it
_TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3}


@dataclass(frozen=True)
class Fault:
    """Why a result is not right: a sentence, and what can be drawn of it (a table, or two numbers)."""

    why: str
    failure: Failure | None = None
    numbers: tuple[float, float] | None = None


def judge(found: Any, expected: Any, case: Case) -> Fault | None:
    """None for a right result; else where it differs from the expected one first, in words and as a table."""
    try:
        if isinstance(expected, Tensor):
            return _judge_tensor(found, expected, case)
        if isinstance(expected, numbers.Integral) and not isinstance(expected, bool):
            return _judge_integer(found, int(expected), case)
    except Wrong as wrong:
        return Fault(str(wrong))
    if type(found) is type(expected) and found == expected:
        return None
    return Fault(f"{case.words}: {describe(found)} came back, {describe(expected)} should.")


def alike(found: Any, other: Any) -> bool:
    """Whether two results are the same up to rounding: tensors, numbers, or tuples and lists of these."""
    if isinstance(found, tuple | list):
        pairs = zip(found, other, strict=True) if type(other) is type(found) and len(other) == len(found) else None
        return pairs is not None and all(alike(a, b) for a, b in pairs)
    if not isinstance(found, Tensor):
        kinds = (type(other), numbers.Number) if isinstance(other, numbers.Number) else type(other)
        return isinstance(found, kinds) and bool(found == other)
    if not isinstance(other, Tensor) or found.shape != other.shape:
        return False
    tolerance = _tolerance(found)
    found, other = _dense(found), _dense(other)
    if not found.is_floating_point() or not other.is_floating_point():
        same_kind = found.dtype == other.dtype or (_whole(found) and _whole(other))
        return same_kind and bool(torch.equal(found.to(other.dtype), other))
    return not _differs(found.double(), other.double(), tolerance).any()


def _dense(tensor: Tensor) -> Tensor:
    """Without gradient, on the CPU, of the usual layout."""
    plain = tensor.detach()
    return (plain if plain.layout == torch.strided else plain.to_dense()).to("cpu")


def _whole(tensor: Tensor) -> bool:
    """Whether it holds whole numbers, of whatever size."""
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def _tolerance(found: Tensor) -> float:
    return _TOLERANCES.get(found.dtype, 1e-3)


def _differs(found: Tensor, expected: Tensor, tolerance: float) -> Tensor:
    return ~torch.isclose(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


def _judge_tensor(found: Any, expected: Tensor, case: Case) -> Fault | None:
    tensor = plain(found, expected, case)
    if not expected.is_floating_point():
        differs = tensor != expected
    else:
        tolerance = max(_tolerance(found), case.tolerance)
        tensor = tensor.to(expected)
        differs = _differs(tensor, expected, tolerance)
    if not differs.any():
        return None
    failure = _table(tensor, expected, differs, case)
    if failure is None:
        return Fault(f"{case.words}: found {tensor.item():.6g}, expected {expected.item():.6g}.")
    hint = ""
    if tensor.is_floating_point() and tensor.isnan().any():
        hint = " nan comes from 0 / 0 or inf - inf: a row of -inf through the softmax, say."
    return Fault(f"{case.words}: {_small_first(first_difference(failure))}{hint}", failure)


def plain(found: Any, expected: Tensor, case: Case) -> Tensor:
    """A dense CPU tensor of the right shape and kind; Wrong with a sentence where it is none."""
    if not isinstance(found, Tensor):
        raise Wrong(f"{case.words}: a torch tensor should come back, this is {describe(found)}.{_advice(found)}")
    if found.shape != expected.shape:
        axes = f" ({', '.join(case.axes)})" if case.axes else ""
        raise Wrong(
            f"{case.words}: the result has shape {_shape(found)}, it should have {_shape(expected)}{axes}. "
            f"{_about_shapes(found, expected)}".rstrip()
        )
    if expected.dtype == torch.bool:
        wanted, fits = "True and False (torch.bool)", found.dtype == torch.bool
    elif not expected.is_floating_point():
        wanted, fits = "whole numbers (torch.int64)", _whole(found)
    else:
        wanted = "floating point"
        fits = found.dtype in _TOLERANCES
        if found.is_floating_point():
            wanted = "the inputs' own precision, float64 (float32 will do)"
    if not fits:
        raise Wrong(f"{case.words}: the result holds {found.dtype} numbers, they should be {wanted}.")
    try:
        return _dense(found)
    except (RuntimeError, NotImplementedError):
        raise Wrong(
            f"{case.words}: the result is on the device {found.device}, and holds no numbers to read."
        ) from None


def _advice(found: Any) -> str:
    if isinstance(found, tuple):
        return " Return the result alone, without the weights."
    if isinstance(found, np.ndarray):
        return " torch.from_numpy(...) makes a tensor of it."
    if isinstance(found, list):
        return " torch.stack(...) makes one of a list of rows, torch.tensor(...) one of a list of numbers."
    return ""


def _about_shapes(found: Tensor, expected: Tensor) -> str:
    """What often lies behind a wrong shape."""
    if found.dim() != expected.dim():
        return f"It has {_count(found.dim())} in place of {_count(expected.dim())}."
    if sorted(found.shape) == sorted(expected.shape):
        return "Two dimensions are swapped."
    wrong = [k for k in range(found.dim()) if found.shape[k] != expected.shape[k]]
    return f"Dimension {wrong[0]} is the first that differs."


def _count(dimensions: int) -> str:
    return f"{dimensions} dimension" if dimensions == 1 else f"{dimensions} dimensions"


def _table(found: Tensor, expected: Tensor, differs: Tensor, case: Case) -> Failure | None:
    """The first matrix of the results that differs; None for single numbers."""
    if expected.dim() == 0:
        return None
    axes: Sequence[str] = case.axes or tuple(f"dimension {k}" for k in range(expected.dim()))
    if expected.dim() == 1:
        found, expected, differs = found[None], expected[None], differs[None]
        axes = ("row", *axes)
    place = differs.nonzero()[0].tolist()[:-2]
    words = ", ".join(f"{axis} {k}" for axis, k in zip(axes, place, strict=False))
    tables = [x[tuple(place)].numpy() for x in (expected, found, differs)]
    return Failure(*tables, axes=(axes[-2], axes[-1]), block=case.block, place=words)


def _judge_integer(found: Any, expected: int, case: Case) -> Fault | None:
    if isinstance(found, bool) or not isinstance(found, numbers.Integral):
        raise Wrong(f"{case.words}: a whole number (int) should come back, this is {describe(found)}.")
    if found == expected:
        return None
    why = f"{case.words}: found {int(found)}, expected {expected}{_ratio(int(found), expected)}."
    return Fault(why, numbers=(float(expected), float(found)))


def _ratio(found: int, expected: int) -> str:
    """How many times too large or too small, where that is a whole number."""
    if found * expected <= 0:
        return ""
    if found % expected == 0:
        return f", {found // expected:,} times too large"
    return f", {expected // found:,} times too small" if expected % found == 0 else ""


def _small_first(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
