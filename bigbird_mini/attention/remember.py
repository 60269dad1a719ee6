"""Results that are kept for the next call, up to so many bytes: functools.lru_cache counts results, and one pattern's
tensors may be a thousand times as large as another's."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any


class Remembered:
    """A function of hashable arguments that remembers its results; the longest unused go first."""

    def __init__(self, function: Callable[..., Any], bytes_of: Callable[[Any], int], limit: int) -> None:
        functools.update_wrapper(self, function)
        self.bytes_of, self.limit = bytes_of, limit
        self.kept: OrderedDict[Hashable, Any] = OrderedDict()
        self.bytes, self.lock = 0, Lock()  # a widget may train in a thread of its own

    def __call__(self, *given: Hashable) -> Any:
        with self.lock:
            if given in self.kept:
                self.kept.move_to_end(given)
                return self.kept[given]
        result = self.__wrapped__(*given)
        with self.lock:
            if given not in self.kept:
                self.kept[given] = result
                self.bytes += self.bytes_of(result)
            while self.bytes > self.limit and len(self.kept) > 1:  # the last one stays, however large
                self.bytes -= self.bytes_of(self.kept.popitem(last=False)[1])
        return result

    def forget(self) -> None:
        with self.lock:
            self.kept.clear()
            self.bytes = 0


def remembered(bytes_of: Callable[[Any], int], limit: int) -> Callable[[Callable[..., Any]], Remembered]:
    """Decorator: remember results of up to ``limit`` bytes in all."""
    return lambda function: Remembered(function, bytes_of, limit)
