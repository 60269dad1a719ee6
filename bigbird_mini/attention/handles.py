"""Whole numbers that stand for patterns: an operator of torch takes numbers and tensors, and no BlockPattern."""

from __future__ import annotations

from weakref import WeakValueDictionary

from ..pattern import BlockPattern

_known: WeakValueDictionary[int, BlockPattern] = WeakValueDictionary()
_compiled: set[BlockPattern] = set()


def handle_of(p: BlockPattern) -> int:
    """The number of a pattern, the same for equal patterns; it is good while somebody holds the pattern."""
    number = hash(p)
    while (first := _known.setdefault(number, p)) != p:  # another pattern with the same hash
        number += 1
    if first is not p:
        vars(p)["_first"] = first  # an equal one had the number before; who holds p holds that one too
    return number


def handle_for_good(p: BlockPattern) -> int:
    """The same for a compiled function, which keeps only the number; torch.compile calls this while it traces."""
    number = handle_of(p)
    _compiled.add(_known[number])
    return number


handle_for_good._dynamo_marked_constant = (
    True  # torch.compiler.assume_constant_result, without the second of its import
)


def pattern_of(handle: int) -> BlockPattern:
    """The pattern of a number: the very one that was first given, so that holding it keeps the number good."""
    return _known[handle]
