"""What the tests of the tasks share: call an answer safely, and say where a result first differs."""

import numbers
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .checking import Crashed, Wrong


def call(function: Callable[..., Any], /, **inputs: Any) -> Any:
    """The learner's function on these inputs, given by position; the names are for messages only.

    Raises Crashed where it raises, Wrong where it is no function, changes an input or returns nothing.
    """
    if not callable(function):
        raise Wrong(f"Hand over the function itself, without calling it: this is {describe(function)}.")
    before = {name: value.clone() for name, value in inputs.items() if isinstance(value, Tensor)}
    try:
        result = function(*inputs.values())
    except (Exception, SystemExit) as error:
        given = ", ".join(f"{name} {_size(value)}" for name, value in inputs.items())
        raise Crashed(error, f"called with {given}") from None
    for name, value in before.items():
        if not torch.equal(value, inputs[name]):
            raise Wrong(f"Your function changes its input `{name}` in place: the caller still needs it as it was.")
    if result is ... or result is NotImplemented:
        raise Crashed(NotImplementedError())
    if result is None:
        raise Wrong("Your function returns None: is there a `return` line?")
    return result


def same_tensor(found: Any, expected: Tensor, axes: Sequence[str], case: str) -> None:
    """Raise Wrong, naming the first place, unless `found` is a tensor equal to `expected` up to rounding.

    axes: what each dimension counts, such as ("query", "number"); case: the input, for the message.
    """
    if not isinstance(found, Tensor):
        hint = " Return the result alone, without the weights." if isinstance(found, tuple) else ""
        raise Wrong(f"{case}: a torch tensor should come back, this is {describe(found)}.{hint}")
    if found.shape != expected.shape:
        raise Wrong(f"{case}: the result has shape {_shape(found)}, it should have {_shape(expected)}.")
    if not found.is_floating_point():
        raise Wrong(f"{case}: the result holds {found.dtype} numbers, they should be floating point.")
    # an answer that works in float32 is not wrong for it
    tolerance = 1e-9 if found.dtype == torch.float64 else 1e-3
    found = found.detach().to(expected)
    differs = ~torch.isclose(found, expected, rtol=tolerance, atol=tolerance)
    if not differs.any():
        return
    place = tuple(differs.nonzero()[0].tolist())
    where = ", ".join(f"{axis} {i}" for axis, i in zip(axes, place, strict=True))
    here, there = found[place].item(), expected[place].item()
    digits = 6 if f"{here:.6g}" != f"{there:.6g}" else 12
    count = int(differs.sum())
    hint = " nan comes from 0 / 0 or inf - inf: a row of -inf through the softmax, say." if here != here else ""
    raise Wrong(
        f"{case}: the first difference is at {where}: found {here:.{digits}g}, expected {there:.{digits}g} "
        f"({count} of {expected.numel()} numbers differ).{hint}"
    )


def same_integer(found: Any, expected: int, case: str) -> None:
    """Raise Wrong unless `found` is that whole number, as an int."""
    if isinstance(found, bool) or not isinstance(found, numbers.Integral):
        raise Wrong(f"{case}: a whole number (int) should come back, this is {describe(found)}.")
    if found != expected:
        raise Wrong(f"{case}: found {int(found)}, expected {expected}.")


def describe(value: Any) -> str:
    """A value in a few words: its kind, and its size or itself where that is short."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {_shape(value)}"
    kind = type(value).__name__
    text = repr(value) if isinstance(value, int | float | str | bool) else ""
    article = "an" if kind[0].lower() in "aeiou" or kind.startswith("nd") else "a"
    return "None" if value is None else f"{article} {kind}" + (f" ({text[:40]})" if text else "")


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


def _size(value: Any) -> str:
    return f"of shape {_shape(value)}" if isinstance(value, Tensor) else f"= {value!r}"
