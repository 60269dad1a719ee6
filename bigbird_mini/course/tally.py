"""Counting what a function does with tensors: matrix products, the largest tensor, memory held at a time.

A Tally sees each operation of PyTorch that runs inside it, whatever it was called by (`@`, einsum, a layer). What runs
in NumPy or on plain Python numbers it cannot see.
"""

import math
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
# the operations that `@`, matmul, einsum, linear and dot come down to: (left, right) among their arguments
PRODUCTS = {aten.mm: (0, 1), aten.bmm: (0, 1), aten.mv: (0, 1), aten.dot: (0, 1), aten.addmm: (1, 2)}
PRODUCTS |= {aten.baddbmm: (1, 2), aten.addmv: (1, 2)}


class Tally(TorchDispatchMode):
    """`with Tally() as tally: ...` counts until the end of the block.

    multiply_adds: those of matrix products. largest: the shape of the largest tensor that was made, and its bytes.
    peak: the most bytes that were held at a time in tensors that were made inside. seen: how many operations ran.
    """

    def __init__(self) -> None:
        super().__init__()
        self.multiply_adds = self.peak = self.seen = 0
        self.largest: tuple[tuple[int, ...], int] = ((), 0)
        self._alive: dict[int, int] = {}  # by address: bytes of what was made inside, 0 for what was there before
        self._held = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        for x in given:
            self._note(x, made=False)
        out = func(*args, **(kwargs or {}))
        self.seen += 1
        if func.overloadpacket in PRODUCTS:
            left, right = (args[k] for k in PRODUCTS[func.overloadpacket])
            self.multiply_adds += math.prod(left.shape) * (right.shape[-1] if right.dim() > 1 else 1)
        self.product(func.overloadpacket, args)
        for x in tree_leaves(out):
            if isinstance(x, Tensor):
                self._note(x, made=True)
        return out

    def product(self, operation: Any, args: Any) -> None:
        """Called with each operation that ran; a subclass may look at it."""

    def _note(self, x: Tensor, made: bool) -> None:
        storage = x.untyped_storage()
        place, size = storage._cdata, storage.nbytes() if made else 0
        if place in self._alive:
            return
        self._alive[place] = size
        self._held += size
        self.peak = max(self.peak, self._held)
        if size > self.largest[1]:
            self.largest = (tuple(x.shape), size)
        weakref.finalize(storage, self._gone, place).atexit = False

    def _gone(self, place: int) -> None:
        self._held -= self._alive.pop(place)


# PyTorch wraps the method so that its compiler leaves it alone; the wrapper imports the compiler, which takes seconds
Tally.__torch_dispatch__ = getattr(Tally.__torch_dispatch__, "__wrapped__", Tally.__torch_dispatch__)


def tallied(function: Callable[..., Any], *inputs: Any) -> Tally:
    """A Tally of one call."""
    with Tally() as tally:
        function(*inputs)
    return tally
