"""What every instrument is: a widget with words, a still picture in the notebook file, and errors shown inside it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget
import traitlets

from bigbird_mini.pattern import KIND_NAMES
from bigbird_mini.viz.show import picture_bundle
from bigbird_mini.viz.words import COLOURS, INK, LETTERS

_HERE = Path(__file__).parent
LEGEND = [
    {"name": KIND_NAMES[kind], "colour": COLOURS[kind], "ink": INK[kind], "letter": LETTERS[kind]}
    for kind in sorted(COLOURS)
]


def script(*names: str) -> str:
    """The ES module of an instrument, with what all of them share before it: a browser gets one text, no files."""
    return "\n".join((_HERE / part).read_text("utf-8") for part in ("shared.js", *names))


class Instrument(anywidget.AnyWidget):
    """The base of all instruments.

    Attributes:
        words: what is seen now, in a sentence or two; read out by screen readers after a change.
        description: the same at length.
        problem: one sentence about what went wrong, "" where all is well. The last good picture stays.
        answers: how often Python has answered, also with a problem; the browser waits for it to grow.
    """

    _css = _HERE / "shared.css"

    title = traitlets.Unicode().tag(sync=True)
    words = traitlets.Unicode().tag(sync=True)
    description = traitlets.Unicode().tag(sync=True)
    problem = traitlets.Unicode().tag(sync=True)
    answers = traitlets.Int(0).tag(sync=True)
    legend = traitlets.List(LEGEND).tag(sync=True)

    def __init__(self, **values: Any) -> None:
        self._lock = threading.RLock()  # between the kernel's thread and one that works for the instrument
        super().__init__(**values)

    def still(self) -> tuple[Any, str]:
        """The picture of this moment for the notebook file, and its words; every instrument has its own."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self.problem or self.words}"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget, and beside it a still picture with its words, for readers without a running kernel."""
        data, metadata = super()._repr_mimebundle_(**kwargs)
        try:
            data |= picture_bundle(*self.still())
        except Exception as error:  # nothing was ever right: then the widget alone, which says why
            self.problem = self.problem or sentence(error)
        return data | {"text/plain": repr(self)}, metadata

    def _attempt(self, work: Callable[[], None]) -> None:
        """Do what a change asks for; what fails becomes `problem`, and the instrument stays usable.

        Everything goes to the browser in one message, so that it draws once.
        """
        with self._lock, self.hold_sync():
            try:
                work()
                self.problem = ""
            except (Exception, KeyboardInterrupt) as error:
                self.problem = sentence(error)
            self.answers += 1


def sentence(error: BaseException) -> str:
    """An error as a reader can use it: our own say what is allowed, others are named."""
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted. Change a setting to go on."
    text = " ".join(str(error).split()) or "no reason was given"
    text = text if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: {text}"
    first = text.split()[0]  # a name of Python keeps its small letter
    return f"{text[:1].upper() if first.isalpha() else text[:1]}{text[1:]}".rstrip(".") + "."
