"""Running a learner's function: whatever it does, there is a result, or one sentence about what it did.

It may raise, never end, print without end, change its inputs or the global random state; none of this reaches the
check or the cells after it. What runs inside one call into compiled code cannot be stopped from here; the grader, which
owns the process, can.
"""

import contextlib
import copy
import ctypes
import inspect
import io
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

LINES_KEPT = 20  # of what one call prints
LINE_LENGTH = 200
_PAUSE = 0.1  # seconds between two attempts to stop code that goes on


class Wrong(Exception):
    """The answer ran, and its result is not right. The message says what, where, found."""


class Crashed(Exception):
    """The learner's code raised `error` when called as `how` says."""

    def __init__(self, error: BaseException, how: str = "") -> None:
        super().__init__(how)
        self.error, self.how = error, how


class OutOfTime(BaseException):
    """Thrown into the learner's code when its time is up."""


class Prints(io.TextIOBase):
    """Keeps the first lines of what is printed and counts the others."""

    def __init__(self) -> None:
        self._kept: list[str] = []
        self._lines, self._room = 0, LINES_KEPT * LINE_LENGTH

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for part in str(text).splitlines(keepends=True):
            if self._lines < LINES_KEPT and self._room > 0:
                self._kept.append(part[: self._room])
                self._room -= len(part)
            self._lines += part.endswith("\n")
        return len(text)

    def text(self) -> str:
        """What is kept, and how many lines are not."""
        kept = "".join(self._kept).rstrip("\n")
        if self._lines > LINES_KEPT:
            return f"{kept}\n... and {self._lines - LINES_KEPT:,} more lines"
        return kept if self._room > 0 else f"{kept} ..."


class Clock:
    """So many seconds of running time in all; what takes longer is stopped by an exception thrown into it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = self.left = seconds

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """function(*arguments). Raises OutOfTime where the time is up."""
        watch, start = _Watch(max(self.left, 0.01)), time.monotonic()
        try:
            try:
                watch.start()
                result = function(*arguments)
            finally:
                watch.stop()
        except (OutOfTime, KeyboardInterrupt) as error:
            watch.stop()
            if not watch.fired:  # the reader's own stop button
                raise
            while isinstance(error.__context__, OutOfTime | KeyboardInterrupt):
                error = error.__context__  # the first of those that were thrown: it knows where
            raise OutOfTime().with_traceback(error.__traceback__) from None
        finally:
            self.left -= time.monotonic() - start
        if watch.fired:  # it swallowed the exception and returned all the same
            raise OutOfTime
        return result


class _Watch(threading.Thread):
    """Throws OutOfTime into the thread that made it, again and again from `seconds` on, until stopped."""

    def __init__(self, seconds: float) -> None:
        super().__init__(daemon=True)
        self.wait, self.target = seconds, threading.get_ident()
        self.fired, self.signalled = False, False
        self.over, self.lock = threading.Event(), threading.Lock()

    def run(self) -> None:
        pause, rounds = self.wait, 0
        while not self.over.wait(pause):
            with self.lock:
                if self.over.is_set():
                    return
                self.fired = True
                _throw(self.target, OutOfTime)
                if rounds >= 2:
                    self.signalled |= _wake(self.target)
            pause, rounds = _PAUSE, rounds + 1

    def stop(self) -> None:
        """Nothing is thrown after this returns."""
        with self.lock:
            self.over.set()
            if self.fired:
                _throw(self.target, None)
        if self.signalled:
            with contextlib.suppress(KeyboardInterrupt):
                time.sleep(0.01)  # a signal on its way arrives here


def _throw(thread: int, kind: type[BaseException] | None) -> None:
    """Raise an exception in another thread at its next line, or (None) take back one that has not arrived."""
    value = None if kind is None else ctypes.py_object(kind)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), value)


def _wake(thread: int) -> bool:
    """End a sleep or another wait of the main thread, as Ctrl+C does. Says whether it could."""
    if thread != threading.main_thread().ident or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return False
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(thread, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)  # on Windows this wakes the main thread from any thread
    return True


_running = threading.local()


def busy() -> bool:
    """Whether an answer is being run in this thread."""
    return getattr(_running, "depth", 0) > 0


@contextlib.contextmanager
def sheltered() -> Iterator[None]:
    """Inside: fixed seeds. Afterwards: random states, default dtype, gradients and recursion limit as before."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    dtype, gradients, limit = torch.get_default_dtype(), torch.is_grad_enabled(), sys.getrecursionlimit()
    _running.depth = getattr(_running, "depth", 0) + 1
    try:
        random.seed(0)
        np.random.seed(0)
        torch.default_generator.manual_seed(0)
        yield
    finally:
        _running.depth -= 1
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)
        sys.setrecursionlimit(limit)


def drew_globally() -> bool:
    """Inside `sheltered`: whether one of the global random states has been set or read since."""
    fresh = np.random.RandomState(0).get_state()
    mine = np.random.get_state()
    return (
        random.getstate() != random.Random(0).getstate()
        or not all(np.array_equal(a, b) for a, b in zip(mine, fresh, strict=True))
        or not torch.equal(torch.get_rng_state(), torch.Generator().manual_seed(0).get_state())
    )


def call(function: Callable[..., Any], inputs: dict[str, Any], clock: Clock, prints: Prints | None = None) -> Any:
    """The learner's function on a copy of these inputs, given by position; the names are for messages only.

    Raises Crashed where it raises, Wrong where it is no function, changes an input or returns nothing.
    """
    if isinstance(function, type):
        raise Wrong(f"Hand over a function: `{function.__name__}` is a class.")
    if not callable(function):
        raise Wrong(f"Hand over the function itself, without calling it: this is {describe(function)}.")
    given = {name: copy.deepcopy(value) for name, value in inputs.items()}
    _fits(function, inputs)
    prints = prints or Prints()
    try:
        with contextlib.redirect_stdout(prints), contextlib.redirect_stderr(prints):
            result = clock.run(function, *given.values())
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise Crashed(error, f"called with {_listed(inputs)}") from None
    for name, value in inputs.items():
        if not _unchanged(value, given[name]):
            raise Wrong(f"Your function changes its input `{name}` in place: the caller still needs it as it was.")
    if result is ... or result is NotImplemented:
        raise Crashed(NotImplementedError())
    if result is None:
        raise Wrong("Your function returns None: is there a `return` line?")
    if inspect.isgenerator(result):
        raise Wrong("Your function is a generator: it says `yield` where `return` is wanted.")
    if inspect.iscoroutine(result):
        result.close()
        raise Wrong("Your function is a coroutine: take the `async` before its `def` away.")
    return result


def _fits(function: Callable[..., Any], inputs: dict[str, Any]) -> None:
    """Crashed with a sentence where the function takes other parameters than it will be given."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # some built-in functions tell nobody
    try:
        signature.bind(*inputs.values())
    except TypeError:
        wanted = ", ".join(inputs)
        raise Crashed(TypeError(f"your function takes {signature}, and it is called with ({wanted})")) from None


def _unchanged(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor):
        return isinstance(after, Tensor) and torch.equal(before, after)
    if isinstance(before, list | tuple):
        return len(before) == len(after) and all(map(_unchanged, before, after))
    return bool(before == after)


def _listed(inputs: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_size(value)}" for name, value in inputs.items()) or "nothing"


def said(error: BaseException) -> str:
    """The first line of what an exception says; "" for one that cannot even say what it is."""
    try:
        return next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    except Exception:
        return ""


def describe(value: Any) -> str:
    """A value in a few words: its kind, and its size or itself where that is short."""
    if value is None:
        return "None"
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    kind = type(value).__name__
    article = "an" if kind[0].lower() in "aeiou" or kind.startswith("nd") else "a"
    if isinstance(value, np.ndarray):
        return f"a NumPy array of shape {value.shape}"
    text = repr(value) if isinstance(value, int | float | str | bool) else ""
    return f"{article} {kind}" + (f" ({text[:40]})" if text else "")


def _size(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"of shape {tuple(value.shape)}"
    text = repr(value)
    return f"= {text}" if len(text) <= 60 else f"= {text[:57]}..."
