"""The card of `warm_up`: lines that a learner orders, indents or leaves out, and a button that runs them."""

from __future__ import annotations

import linecache
import math
import re
from pathlib import Path
from typing import Any

import anywidget
import torch
import traitlets

from bigbird_mini.viz.show import data_url

from .catalogue import Task
from .judging import LOOKS, evaluate

STEP = "    "
_FILE = "<warm-up>"
_WELL_DONE = "Now write it yourself in the cell below, without looking."


class WarmUp(anywidget.AnyWidget):
    """The card that `warm_up` returns.

    Attributes:
        head: the line `def ...:` that stands above all others.
        lines: all lines in their order on the card, [text, indents, whether it is used] each.
        outcome: what came of the last run: verdict, words, figure, alt; {} before.
    """

    _esm = Path(__file__).parent / "warm_up.js"
    _css = Path(__file__).parent / "predict.css"

    number = traitlets.Unicode().tag(sync=True)
    head = traitlets.Unicode().tag(sync=True)
    wrong = traitlets.Int().tag(sync=True)
    lines = traitlets.List().tag(sync=True)
    outcome = traitlets.Dict().tag(sync=True)

    def __init__(self, task: Task, **shown: Any) -> None:
        self.task = task
        super().__init__(**shown)
        self.on_msg(self._from_browser)

    def source(self) -> str:
        """The function that the lines make."""
        used = [STEP * indents + text for text, indents, is_used in self.lines if is_used]
        return "\n".join([self.head, *used]) + "\n"

    def run(self) -> str:
        """Run what was built through the task's check, as the Run button does; returns the verdict in words."""
        source = self.source()
        names: dict[str, Any] = {"math": math, "torch": torch}
        linecache.cache[_FILE] = (len(source), None, source.splitlines(keepends=True), _FILE)  # for error messages
        try:
            exec(compile(source, _FILE, "exec"), names)
        except SyntaxError as error:
            self.outcome = {"verdict": "error in your code", "words": self._syntax(error)}
            return self.outcome["words"]
        result = evaluate(self.task.number, names[self.task.asks])
        figure = result.picture() if result.outcome != "right" else None
        words = _WELL_DONE if result.outcome == "right" else result.why
        self.outcome = {"verdict": LOOKS[result.outcome][1], "words": words}
        if figure:
            self.outcome = self.outcome | {"figure": data_url(figure[0]), "alt": figure[1]}
        return words

    def _syntax(self, error: SyntaxError) -> str:
        lines = self.source().splitlines()
        line = lines[min(error.lineno or 1, len(lines)) - 1].strip()
        words = re.sub(r" on line \d+$", "", error.msg)  # the card's lines bear no numbers
        return f"Python cannot read this, at `{line}`: {words}."

    def _from_browser(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        if content.get("kind") == "run":
            self.lines = content.get("lines", self.lines)
            self.run()
            self.send({"kind": "ran"})  # also where the outcome is the same as before

    def __repr__(self) -> str:
        listed = "\n".join(f"  {text}" for text, _, _ in self.lines)
        return f"Warm-up {self.number}: put in order and indent, {self.wrong} lines are wrong.\n{self.head}\n{listed}"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        return data | {"text/plain": f"Warm-up {self.number}: run this cell to get the lines."}, metadata
