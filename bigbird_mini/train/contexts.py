"""Blocks of code with a promise: draws that follow from a number, a step that is done in whole or not at all, or by one
thread at a time."""

from __future__ import annotations

import functools
import hashlib
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

_Method = TypeVar("_Method", bound=Callable[..., Any])


@contextmanager
def drawn_from(seed: int, number: int, device: torch.device) -> Iterator[None]:
    """Inside, torch draws (dropout, above all) what follows from seed and number; outside, nothing has been drawn.

    So the dropout of micro-batch 17 is the same alone and beside other processes, and after a resume.
    """
    digest = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8).digest()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int.from_bytes(digest, "little"))
        yield


@contextmanager
def or_nothing(model: nn.Module) -> Iterator[None]:
    """If the block fails, or Ctrl-C ends it, gradients go and buffers (the averages of a BatchNorm) are as before."""
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    except BaseException:
        model.zero_grad()
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(before[name])
        raise


@contextmanager
def undivided() -> Iterator[None]:
    """Ctrl-C inside waits for the end of the block. Only the main thread ever hears it, so others need nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[tuple[Any, ...]] = []
    usual = signal.signal(signal.SIGINT, lambda *about: pressed.append(about))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if usual is None else usual)
    if pressed and callable(usual):
        usual(*pressed[0])


def alone(method: _Method) -> _Method:
    """Of the methods marked so, one thread at a time runs one; a second thread gets a sentence instead of a torn step.

    The object keeps the lock, an RLock, as ``_one``.
    """

    @functools.wraps(method)
    def guarded(self: Any, *given: Any, **named: Any) -> Any:
        if not self._one.acquire(blocking=False):
            raise RuntimeError("this Trainer is under way in another thread (a dashboard's, say); pause it there first")
        try:
            return method(self, *given, **named)
        finally:
            self._one.release()

    return guarded
