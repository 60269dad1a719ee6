"""predict: commit to a number, a choice or a drawing first, then see the answer, how far off it was, and why.

A card never waits: "Run all" and a run without a browser go on, and `card.commit("1e6")` does what the button does.
A saved notebook shows the question with the answer folded away, so that readers on GitHub can predict too.
"""

from __future__ import annotations

import html
import inspect
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bigbird_mini.viz.show import data_url, encode, img_tag
from bigbird_mini.viz.words import counted

from . import cells as drawing
from . import guesses

try:
    import anywidget
    import traitlets
except ModuleNotFoundError as error:
    raise ImportError(f'predict needs {error.name}, which is not installed: pip install "bigbird-mini[lab]"') from error

_NUMBER = re.compile(r"([+-]?)(\d{1,3}(?:[ ,_]\d{3})+(?:\.\d+)?|\d+\.?\d*|\.\d+)(?:[eE]([+-]?\d+))?(?![\d,_])")
_POWER = re.compile(r"(\d+)\s*(?:\^|\*\*)\s*(\d+)")
_SCALES = {"k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
_SCALE_WORDS = {"thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12, "bn": 1e9}
_BYTES = {"b": 1.0, "byte": 1.0, "bytes": 1.0} | {f"{name}b": size for name, size in _SCALES.items()}
_HOW = "write it like 4096, 1e6, 1,000,000, 4k or 2.5 million"

SURE = (50, 70, 90, 99)  # percentages that a reader can choose among
_AXES = ("query block", "key block")

# What was committed in this session, so that running a cell again does not hand out a second guess.
_committed: dict[tuple[str, str], tuple[Any, float | None]] = {}


class PredictCard(anywidget.AnyWidget):
    """The card that `predict` returns.

    Attributes:
        committed: whether a prediction was accepted. It then stays as it is.
        guess: the prediction, a float in the card's unit, one of the choices, or bool (rows, columns); None before.
        sure: how sure the reader was, in percent; None where that was left open.
        message: one sentence about an input that could not be taken, or "".
        score: how well this reader predicts, in words; "" before committing and where no score is kept.
        outcome: what the reader sees after committing: yours, answer, verdict, explain, figure, alt; {} before.
    """

    _esm = Path(__file__).parent / "predict.js"
    _css = Path(__file__).parent / "predict.css"

    key = traitlets.Unicode().tag(sync=True)
    question = traitlets.Unicode().tag(sync=True)
    unit = traitlets.Unicode().tag(sync=True)
    choices = traitlets.List().tag(sync=True)
    shape = traitlets.List().tag(sync=True)
    axes = traitlets.List().tag(sync=True)
    percentages = traitlets.List(list(SURE)).tag(sync=True)
    score = traitlets.Unicode().tag(sync=True)
    message = traitlets.Unicode().tag(sync=True)
    outcome = traitlets.Dict().tag(sync=True)

    def __init__(self, answer: Any, show: Callable | None, tolerance: float | None, explain: str, **shown: Any) -> None:
        self._answer, self._show, self._tolerance, self._explain = answer, show, tolerance, explain
        self._known: Any = None
        self.guess: float | str | np.ndarray | None = None
        self.sure: float | None = None
        super().__init__(**shown)
        self.on_msg(self._from_browser)
        if before := _committed.get((self.key, self.question)):
            self.commit(*before)

    @property
    def committed(self) -> bool:
        return bool(self.outcome)

    def commit(self, text: Any, sure: float | None = None) -> str:
        """Take a prediction, as the Commit button does, and return what the card then says.

        text: a number, one of the choices, or cells: pairs (row, column), a grid, a BlockPattern. sure: in percent.
        A prediction that cannot be read, or an answer that cannot be computed, leaves the card open, with one sentence
        that says why. A committed prediction stays: a second one changes nothing.
        """
        if self.committed:
            return f"Already committed. {self._sentence()}"
        try:
            guess, sure = self._read(text), _percentage(sure)
            answer = self.answer()
            if isinstance(answer, float) and guess < 0 <= answer:
                raise ValueError(f"{_number(guess)} is below 0, and what is asked for cannot be; {_HOW}")
        except ValueError as error:
            self.message = f"{str(error)[:1].upper()}{str(error)[1:]}."
            return self.message
        self.message, self.guess, self.sure = "", guess, sure
        _committed[self.key, self.question] = (text, sure)
        verdict = self._verdict(guess, answer)
        factor = _factor_off(guess, answer) if isinstance(answer, float) else None
        self.score = guesses.keep(self.key, self.question, verdict.startswith("right"), sure, factor)
        self.outcome = {
            "yours": self._with_unit(guess),
            "answer": self._with_unit(answer),
            "verdict": verdict,
            "explain": self._explain,
            **self._figure(guess),
        }
        return self._sentence()

    def answer(self) -> Any:
        """The true answer; where it is a function, it is called once. Raises ValueError, a sentence, if it fails."""
        if self._known is None:
            self._known = self._checked(_called(self._answer) if callable(self._answer) else self._answer)
        return self._known

    def __repr__(self) -> str:
        choices = f" ({' / '.join(self.choices)})" if self.choices else ""
        return f"Predict {self.key}: {self.question}{choices}"

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data, metadata = super()._repr_mimebundle_(**kwargs)
        return data | {"text/plain": repr(self), "text/html": self._still()}, metadata

    def _from_browser(self, _widget: Any, content: dict[str, Any], _buffers: Any) -> None:
        if content.get("kind") == "commit":
            self.commit(str(content.get("text", "")), content.get("sure"))
            self.send({"kind": "answered"})  # also where the same message as before says no change

    def _read(self, text: Any) -> float | str | np.ndarray:
        """The prediction as a number, one of the choices, or a grid; ValueError with a sentence otherwise."""
        if self.shape and isinstance(text, str) and not text.strip():
            raise ValueError("draw at least one cell first")
        if self.shape:
            return drawing.read_cells(text, tuple(self.shape))
        if not self.choices:
            return read_number(str(text), self.unit)
        for choice in self.choices:
            if str(text).strip().casefold() == choice.casefold():
                return choice
        raise ValueError(f"choose one of: {', '.join(self.choices)}")

    def _checked(self, answer: Any) -> Any:
        """The answer as a float, as one of the choices, or as a grid."""
        if self.shape:
            return drawing.read_cells(answer, tuple(self.shape))
        if self.choices:
            if str(answer) not in self.choices:
                raise ValueError(f"the answer {answer!r} of card {self.key} is none of its choices")
            return str(answer)
        try:
            number = float(answer)
        except (TypeError, ValueError, RuntimeError) as error:
            raise ValueError(f"the answer {answer!r} of card {self.key} is no number; give choices=[...]") from error
        if not math.isfinite(number):
            raise ValueError(f"the answer of card {self.key} is {number}, not a number to compare with")
        return number

    def _verdict(self, guess: Any, answer: Any) -> str:
        if self.shape:
            return drawing.compared(guess, answer)
        if self.choices:
            return "right" if guess == answer else "not right"
        return how_far(guess, answer, self._tolerance)

    def _with_unit(self, value: Any) -> str:
        if isinstance(value, np.ndarray):
            return counted(int(value.sum()), "cell")
        return value if isinstance(value, str) else f"{_number(value)} {self.unit}".strip()

    def _sentence(self) -> str:
        seen = self.outcome
        parts = [f"You said {seen['yours']}; it is {seen['answer']}: {seen['verdict']}.", seen["explain"]]
        return " ".join(part for part in parts if part)

    def _figure(self, guess: Any) -> dict[str, str]:
        """The figure of `show` as a data: address with its words; a sentence instead where it fails; {} without one."""
        if self._show is None and not self.shape:
            return {}
        try:
            picture, alt = self._drawn(guess)
            return {"figure": data_url(picture), "alt": alt}
        except ValueError as error:
            return {"alt": f"The figure could not be drawn: {error}"}

    def _drawn(self, guess: Any) -> tuple[Any, str]:
        """(PNG or SVG, alt) from `show`, which may take the prediction, to draw it in; without it, of drawn cells."""
        if self._show is None:
            return drawing.picture(guess, self.answer(), tuple(self.axes))
        pair = _called(self._show, *([guess] if _takes_one(self._show) else []))
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[1], str) and pair[1].strip()):
            raise ValueError("show must return a pair: the figure, and words for readers who cannot see it")
        return encode(pair[0])[1], pair[1]

    def _still(self) -> str:
        """The card without a kernel: the question, and the answer folded away."""
        items = "".join(f"<li>{html.escape(choice)}</li>" for choice in self.choices)
        question = f"<p><b>Predict {html.escape(self.key)}.</b> {html.escape(self.question)}</p>"
        try:
            folded = f"<p><b>{html.escape(self._with_unit(self.answer()))}</b></p>"
        except ValueError as error:
            folded = f"<p>Run the notebook to see the answer ({html.escape(str(error))}).</p>"
        folded += f"<p>{html.escape(self._explain)}</p>" if self._explain else ""
        if self._show is not None or self.shape:
            try:
                folded += img_tag(*self._drawn(None))
            except ValueError as error:
                folded += f"<p>{html.escape(str(error))}</p>"
        start = question + (f"<ul>{items}</ul>" if items else "")
        return f"<div>{start}<details><summary>Show the answer</summary>{folded}</details></div>"


def predict(
    key: str,
    question: str,
    answer: Any,
    unit: str = "",
    show: Callable[..., tuple[Any, str]] | None = None,
    tolerance: float | None = None,
    explain: str = "",
    choices: Sequence[Any] | None = None,
    cells: int | tuple[int, int] | None = None,
    axes: tuple[str, str] = _AXES,
) -> PredictCard:
    """A card on which the reader commits to a prediction before seeing the answer, and may say how sure they are.

    key: the card's name, as "3.1". answer: a number in `unit`, or one of `choices`, or a set of cells, or a function
    without arguments that computes it. It is called once, when the card is first shown (the saved notebook holds the
    answer, folded away) or committed; one that fails is tried again at the next commit.
    show: a function that returns (figure, words for readers who cannot see it); where it takes an argument, it gets
    the prediction, to draw it in, and None for the saved notebook.
    tolerance: relative error that counts as right, 0.1 = 10 %; None asks for the number itself.
    explain: one sentence, seen after committing.
    cells: rows and columns of a grid on which the reader draws; the answer is then a BlockPattern, a grid of True and
    False, or pairs (row, column). axes: what a row and a column are.
    The first prediction of a card counts for the score, see `predictions`.
    Raises TypeError or ValueError where the card itself makes no sense.
    """
    if not str(key).strip() or not str(question).strip():
        raise ValueError("a card needs a key and a question")
    if choices is not None and len(choices) < 2:
        raise ValueError("choices need at least two entries; without choices the reader types a number")
    if choices is not None and len({str(c).casefold() for c in choices}) < len(choices):
        raise ValueError("two of the choices are the same")
    if choices is not None and cells is not None:
        raise ValueError("a card has choices or cells to draw, not both")
    if tolerance is not None and not 0 <= tolerance < 1:
        raise ValueError(f"tolerance={tolerance} is out of range: 0.1 stands for 10 %")
    if show is not None and not callable(show):
        raise TypeError("show must be a function that returns (figure, words), so that it is drawn only when needed")
    card = PredictCard(
        answer,
        show,
        tolerance,
        explain,
        key=str(key),
        question=str(question),
        unit=unit,
        choices=[str(choice) for choice in choices or ()],
        shape=[] if cells is None else list(drawing.grid_shape(cells)),
        axes=list(axes),
    )
    if not callable(answer):
        card.answer()  # a wrong kind of answer is the author's mistake: say so at once
    return card


def read_number(text: str, unit: str = "") -> float:
    """A number as people write it: 4096, 1e6, 1,000,000, 4k, 2.5 million, 2^20, 12 %, 3 GB; in `unit`.

    k, M, G, T are powers of 1000, Ki, Mi, Gi, Ti of 1024; bytes in one unit are turned into the card's unit.
    Raises ValueError, one sentence, for anything else.
    """
    text = text.strip().replace("\u2212", "-")  # the minus sign of typography
    if not text:
        raise ValueError(f"type a number first: {_HOW}")
    if match := _POWER.match(text):
        base, exponent = int(match[1]), int(match[2])
        number = float(base**exponent) if base <= 10_000 and exponent <= 64 else math.inf
    elif match := _NUMBER.match(text):
        number = float(f"{match[1]}{re.sub('[ ,_]', '', match[2])}e{match[3] or 0}")
    factor = _factor(text[match.end() :], unit) if match else None
    if factor is None:
        kind = f"a number of {unit}" if unit else "a number"
        comma = ", with a point before decimals" if re.match(r"[+-]?\d+,\d", text) else ""
        raise ValueError(f'"{text}" cannot be read as {kind}; {_HOW}{comma}')
    if not math.isfinite(number * factor):
        raise ValueError(f'"{text}" is too large to be a prediction')
    return number * factor


def how_far(guess: float, answer: float, tolerance: float | None = None) -> str:
    """How far a guess is from the answer, as a ratio in words: "right", "3 % too low", "2 times too high"."""
    if guess == answer:
        return "right"
    off = abs(guess - answer)
    side = "too low" if guess < answer else "too high"
    if tolerance is not None and off <= tolerance * abs(answer):
        return f"right, within {tolerance:.0%}"
    if guess * answer <= 0:  # no ratio with 0, or across it
        return f"{_number(off)} {side}"
    ratio = max(guess / answer, answer / guess)
    if ratio < 1.1:
        percent = 100 * off / abs(answer)
        return f"{percent:.2g}% {side}" if percent >= 0.01 else f"less than 0.01% {side}"
    times = f"{ratio:,.0f}" if ratio >= 9.95 else f"{ratio:.1f}".removesuffix(".0")
    return f"{times} times {side}"


def _factor(suffix: str, unit: str) -> float | None:
    """What a number with this suffix is multiplied by to be in `unit`; None where the suffix means nothing."""
    own, name = unit.casefold(), suffix.casefold()
    if own and name.strip() != own:  # "4k tokens", "1 token"; but "5 ms" is no number of s: a space is asked for
        name = re.sub(rf"(^|\s)\s*({re.escape(own)}|{re.escape(own.removesuffix('s') or own)})\s*$", "", name)
    name = name.strip()
    if name in ("", own):
        return 1.0
    if name in _BYTES and own in _BYTES:
        return _BYTES[name] / _BYTES[own]
    if _BYTES.get(own, 1.0) > 1:  # "3G" of MiB could be two things
        return None
    if name == "%" and not own:
        return 0.01
    return _SCALES.get(name) or _SCALE_WORDS.get(name)


def _number(value: float) -> str:
    """A number for reading: 4,096, 0.152, 2.5 billion."""
    if abs(value) >= 1e15:
        return f"{value:.3g}"
    for size, word in ((1e12, "trillion"), (1e9, "billion")):
        if abs(value) >= size:
            return f"{value / size:.4g} {word}"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.4g}"


def _percentage(sure: Any) -> float | None:
    """How sure a reader is, or one sentence about what is wrong with it; None and "" leave it open."""
    if sure is None or sure == "":
        return None
    try:
        value = float(sure)
    except (TypeError, ValueError):
        value = math.nan
    if not 0 <= value <= 100:
        raise ValueError(f"how sure you are is a percentage from 0 to 100, not {sure!r}")
    return value


def _factor_off(guess: float, answer: float) -> float | None:
    """By what a guess is too large or too small, at least 1; None where there is no ratio."""
    return max(guess / answer, answer / guess) if guess * answer > 0 else None


def _called(function: Any, *arguments: Any) -> Any:
    """The function's result; a ValueError with one sentence where it fails, so that a card never shows a traceback."""
    try:
        return function(*arguments)
    except Exception as error:
        raise ValueError(
            f"it could not be computed yet ({type(error).__name__}: {error}); run the cells above, then try again"
        ) from error


def _takes_one(function: Any) -> bool:
    """Whether a function has a parameter to put the prediction in."""
    return len(inspect.signature(function).parameters) > 0
