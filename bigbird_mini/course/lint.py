"""python -m bigbird_mini.course lint: what the notebooks of the course promise their readers, held to.

Each rule is a function that yields sentences, and its name is the name of the rule. The rhythm of a lesson: 25 to 45
cells, code cells of 2 to 5 lines (the median) and nine in ten under 20, at most three of them in a row.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from . import notebook as files
from .build import BEGIN, CHECKOUT, END, STUB, task_called
from .checking import all_tasks
from .claims import wrong_claims

CELLS = (25, 45)
MEDIAN_LINES = (2, 5)
LONG_LINES = 20
IN_A_ROW = 3
WORDS = (600, 1600)
WORDS_IN_A_CELL = 200
ALT_CHARACTERS = 20
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

Finds = Iterator[tuple[str, str]]  # (id of a cell or "", sentence)


class Finding(NamedTuple):
    """One thing that is not as it should be. `cell` is "" where it is the whole notebook."""

    path: str
    cell: str
    rule: str
    sentence: str

    def __str__(self) -> str:
        where = f"{self.path}, cell {self.cell}" if self.cell else self.path
        return f"{where}: {self.rule}: {self.sentence}"


@dataclass
class Page:
    """One notebook under the eyes of lint."""

    root: Path
    path: Path  # relative to the root
    notebook: files.Notebook

    @property
    def kind(self) -> str:
        """lessons, solutions or exercises."""
        return self.path.parent.name

    def cells(self, kind: str) -> list[files.Notebook]:
        return [cell for cell in self.notebook.cells if cell.cell_type == kind]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="only notebooks whose path begins so, as in lessons/01"
    )
    parser.add_argument("--root", type=Path, default=CHECKOUT, help="the course's folder (default: this checkout)")


def main(options: argparse.Namespace) -> int:
    """Print what was found, a line for each; 0 where nothing was, else 1."""
    found, count = lint(options.root, options.names)
    for finding in found:
        print(finding)
    print(f"{count} notebooks, {len(found)} findings")
    return 1 if found else 0


def lint(root: Path, names: list[str] | tuple[str, ...] = ()) -> tuple[list[Finding], int]:
    """(what is not as it should be in the course under `root`, how many notebooks were looked at)."""
    every = [p.relative_to(root) for kind in RULES for p in sorted((root / kind).glob("*.ipynb"))]
    paths = [p for p in every if not names or any(p.as_posix().startswith(name) for name in names)]
    if not paths:
        raise ValueError(f"there are no notebooks {' or '.join(names)} in {root}: name the course's folder with --root")
    found = []
    for path in paths:
        try:
            page = Page(root, path, files.read(root / path))
        except ValueError as error:
            found.append(Finding(path.as_posix(), "", "readable", f"the file {error}"))
            continue
        for rule in RULES[page.kind]:
            if rule in RHYTHM and path.as_posix() in files.PAGES:
                continue
            found += [Finding(path.as_posix(), cell, rule.__name__, sentence) for cell, sentence in rule(page)]
    return found, len(paths)


# ---------------------------------------------------------------- rhythm


def cells(page: Page) -> Finds:
    """A lesson is done in one sitting."""
    count = len(page.notebook.cells)
    if not CELLS[0] <= count <= CELLS[1]:
        yield "", f"{count} cells; a lesson has {CELLS[0]} to {CELLS[1]}"


def median(page: Page) -> Finds:
    """Code comes in small bites. Folded cells are not looked at by the reader, nor by this."""
    lengths = [_lines(cell) for cell in page.cells("code") if not cell.metadata.get("jupyter", {}).get("source_hidden")]
    if lengths and not MEDIAN_LINES[0] <= (middle := statistics.median(lengths)) <= MEDIAN_LINES[1]:
        yield "", f"the median code cell has {middle:g} lines; it should have {MEDIAN_LINES[0]} to {MEDIAN_LINES[1]}"


def long(page: Page) -> Finds:
    """At most one code cell in ten is a screenful."""
    code = page.cells("code")
    over = [cell for cell in code if _lines(cell) >= LONG_LINES]
    if len(over) * 10 > len(code):
        for cell in over:
            yield cell.id, f"{_lines(cell)} lines, and {len(over)} of {len(code)} code cells have {LONG_LINES} or more"


def row(page: Page) -> Finds:
    """Somebody speaks between the code."""
    run = 0
    for cell in page.notebook.cells:
        run = run + 1 if cell.cell_type == "code" else 0
        if run == IN_A_ROW + 1:
            yield cell.id, f"more than {IN_A_ROW} code cells in a row"


def words(page: Page) -> Finds:
    """Enough to understand, and no more."""
    counts = {cell.id: len(cell.source.split()) for cell in page.cells("markdown")}
    total = sum(counts.values())
    if not WORDS[0] <= total <= WORDS[1]:
        yield "", f"{total} words; a lesson has {WORDS[0]} to {WORDS[1]}"
    for cell, count in counts.items():
        if count > WORDS_IN_A_CELL:
            yield cell, f"{count} words without a break; at most {WORDS_IN_A_CELL}"


def _lines(cell: files.Notebook) -> int:
    return sum(bool(line.strip()) for line in cell.source.splitlines())


# ---------------------------------------------------------------- what a reader sees

PATH = re.compile(r"(?<![\w.:/])/(?:home|Users|root|tmp|work|var|opt|mnt)/\w+|\b[A-Z]:\\+\w+|file://")
NETWORK = re.compile(
    r"\b(?:urllib|requests|httpx|aiohttp|socket|ftplib|wget|curl|urlopen|hf_hub_download|snapshot_download|load_dataset)\b"
    r"|pip install|git clone|https?://|from_pretrained\(\s*[\"'][\w.-]+/[\w.-]+[\"']"
)
REMOTE = re.compile(
    r"<(?:script|link|img|iframe|video|audio|source|object|embed)\b[^>]*(?:src|href|data)=[\"']?(?:https?:)?//"
    r"|url\([\"']?(?:https?:)?//|!\[[^\]]*\]\(https?:"
)
DURATION = re.compile(r"\b\d[\d.,]*\s*(?:ns|[µu]s|ms|s|sec|seconds?|milliseconds?|min|minutes?|h|hours?)\b(?!\w)")
FASTER = re.compile(r"\b\d[\d.,]*\s*(?:x|×|times)\s+(?:as\s+)?(?:fast(?:er)?|slow(?:er)?|quick(?:er)?)\b", re.I)


def pictures(page: Page) -> Finds:
    """Every picture has words for those who cannot see it."""
    for cell in page.notebook.cells:
        pages = [cell.source] if cell.cell_type == "markdown" else []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            shown = _text(data.get("text/html", ""))
            pages.append(shown)
            if ("image/png" in data or "image/jpeg" in data) and not re.search(r"<img\b", shown):
                yield cell.id, "a picture without words: show it with bigbird_mini.viz.show(figure, alt=...)"
            if "image/svg+xml" in data:
                pages.append(_text(data["image/svg+xml"]))
        for text in pages:
            yield from ((cell.id, sentence) for sentence in _wordless(text))


def _wordless(page: str) -> Iterator[str]:
    for words in re.findall(r"!\[([^\]]*)\]\(", page):
        if len(words) < ALT_CHARACTERS:
            yield f"the picture's words, {words!r}, are too few"
    for tag in re.findall(r"<img\b[^>]*>", page):
        words = re.search(r"\balt=\"([^\"]*)\"", tag)
        if not words or len(words[1]) < ALT_CHARACTERS:
            yield f"an <img> whose alt text is {words[1]!r}" if words else "an <img> without alt text"
    for tag in re.findall(r"<svg\b[^>]*>.{0,200}", page, re.S):
        if not re.search(r"aria-label(?:ledby)?=|aria-hidden=|<title\b", tag):
            yield "an <svg> without aria-label or <title>"


def errors(page: Page) -> Finds:
    """No traceback is saved, but where it is the point."""
    for cell in page.cells("code"):
        for output in cell.outputs:
            if output.output_type == "error" and "raises-exception" not in cell.metadata.get("tags", []):
                yield cell.id, f"a saved error, {output.get('ename')}"
            if output.output_type == "stream" and output.name == "stderr":
                yield cell.id, f"output on stderr: {output.text.strip().splitlines()[-1][:60]!r}"


def ran(page: Page) -> Finds:
    """What is shown came from this code, run from top to bottom."""
    for cell in page.cells("code"):
        if cell.source.strip() and cell.execution_count is None:
            yield cell.id, "it has not been run: python -m bigbird_mini.course build"


def clean(page: Page) -> Finds:
    """An exercise comes without outputs."""
    for cell in page.cells("code"):
        if cell.outputs or cell.execution_count is not None:
            yield cell.id, "it has outputs; exercises are made by python -m bigbird_mini.course build --no-run"


def widgets(page: Page) -> Finds:
    """GitHub shows no notebook that holds a widget's state."""
    if "widgets" in page.notebook.metadata:
        yield "", "metadata.widgets is left in the file"
    for cell in page.cells("code"):
        if any(files.WIDGET_VIEW in output.get("data", {}) for output in cell.outputs):
            yield cell.id, "a widget view is left in the outputs"


def paths(page: Page) -> Finds:
    """Nothing of the machine that ran it."""
    for cell in page.notebook.cells:
        for place, text in (("source", cell.source), ("output", _outputs(cell))):
            if found := PATH.search(text):
                yield cell.id, f"an absolute path in the {place}, {found[0]}"


def network(page: Page) -> Finds:
    """The course runs offline."""
    for cell in page.notebook.cells:
        if cell.cell_type == "code" and (found := NETWORK.search(cell.source)):
            yield cell.id, f"code that asks for a network, {found[0]}"
        if found := REMOTE.search(cell.source if cell.cell_type == "markdown" else _outputs(cell)):
            yield cell.id, f"a picture or a script from elsewhere, {found[0][:60]}"


def times(page: Page) -> Finds:
    """Times are measured where the reader runs them; in prose they would be those of another machine."""
    for number, cell in enumerate(page.cells("markdown")):
        prose = re.sub(r"\$[^$]*\$", "", cell.source)  # in a formula, s is no unit
        for found in (DURATION.search(prose), FASTER.search(prose)):
            # the first cell says how long the page takes to read
            if found and not (number == 0 and re.search(r"\bm(?:in|inutes?)$|\bhours?$", found[0])):
                yield cell.id, f"a time in prose, {found[0]!r}"


def claims(page: Page) -> Finds:
    """A number in prose is the one that its expression gives."""
    for cell in page.cells("markdown"):
        for sentence in wrong_claims(cell.source):
            yield cell.id, sentence


def links(page: Page) -> Finds:
    """Links to files lead somewhere."""
    for cell in page.cells("markdown"):
        for link in re.findall(r"(?<!!)\]\(([^)#\s]+)[^)]*\)", cell.source):
            if not re.match(r"\w+:", link) and not (page.root / page.path.parent / link).exists():
                yield cell.id, f"the link {link} leads nowhere"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "".join(value)


def _outputs(cell: files.Notebook) -> str:
    """All that a cell's outputs say, pictures left out."""
    text = []
    for output in cell.get("outputs", []):
        data = {kind: value for kind, value in output.get("data", {}).items() if not kind.startswith("image/p")}
        text += [_text(value) if isinstance(value, str | list) else json.dumps(value) for value in data.values()]
        text += [_text(output.get("text", "")), _text(output.get("evalue", "")), *output.get("traceback", [])]
    return re.sub(r"base64,[A-Za-z0-9+/=]+", "", "\n".join(text))


# ---------------------------------------------------------------- tasks


def points(page: Page) -> Finds:
    """The headings and the first cell promise the points that the checks give."""
    tasks = {number: all_tasks()[number] for cell in page.cells("code") if (number := task_called(cell.source))}
    headings = {}
    for cell in page.cells("markdown"):
        for number, title, most in re.findall(r"^## Task (\S+) (.+) \((\d+) points?\)$", cell.source, re.M):
            headings[number] = (cell.id, title, int(most))
    for number, task in tasks.items():
        wanted = f"## Task {number} {task.title.capitalize()} ({task.points} point{'s' * (task.points > 1)})"
        cell, title, most = headings.pop(number, ("", "", 0))
        if (title.casefold(), most) != (task.title.casefold(), task.points):
            yield cell, f"the heading of task {number} should be: {wanted}"
    for number, (cell, _, _) in headings.items():
        yield cell, f"there is a heading for task {number}, and no check"
    first = next((cell for cell in page.cells("markdown")), None)
    total = sum(task.points for task in tasks.values())
    promise = f"{_number(len(tasks))} task{'s' * (len(tasks) != 1)}, {total} point{'s' * (total != 1)}"
    if tasks and (first is None or promise not in first.source.casefold()):
        yield first.id if first else "", f"the first cell should say: {promise}"


def _number(count: int) -> str:
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def hints(page: Page) -> Finds:
    """Each task has three hints and the why of its solution, and a cell that opens them."""
    opened = {found[1] for cell in page.cells("code") if (found := re.match(r"\s*hint\([\"']([\d.]+)", cell.source))}
    for cell in page.cells("code"):
        if not (number := task_called(cell.source)):
            continue
        task = all_tasks()[number]
        given = [hint.strip() for hint in task.hints]
        if len(set(filter(None, given))) != 3 or len(given) != 3:
            yield cell.id, f"task {number} has {len(set(filter(None, given)))} different hints, not 3"
        if not task.why.strip():
            yield cell.id, f"task {number} does not say why its solution is as it is"
        if number not in opened:
            yield cell.id, f'no cell says hint("{number}")'


def answers(page: Page) -> Finds:
    """Nothing of a solution stands in its exercise, in code or in words."""
    source = page.root / "solutions" / page.path.name
    if not source.exists():
        yield "", f"there is no solutions/{page.path.name} that it comes from"
        return
    inside, outside = set(), set()
    for cell in files.read(source).cells:
        hidden = False
        for line in map(str.strip, cell.source.splitlines()):
            if line.startswith((BEGIN, END, STUB)):
                hidden = line.startswith(BEGIN) or (hidden and not line.startswith(END))
            else:
                (inside if hidden else outside).add(line.partition("  #")[0])
    secret = [line for line in inside - outside if len(line) >= 12]
    for cell in page.notebook.cells:
        marks = [mark for mark in (BEGIN, END, STUB) if mark in cell.source]
        lines = [line for line in secret if line in cell.source]
        for text in sorted(marks + lines):
            yield cell.id, f"text of the solution, {text!r}"


COMMON: tuple[Callable[[Page], Finds], ...] = (
    long,
    row,
    pictures,
    errors,
    widgets,
    paths,
    network,
    times,
    claims,
    links,
)
RHYTHM = (cells, median, words)
RULES: dict[str, tuple[Callable[[Page], Finds], ...]] = {
    "lessons": (*RHYTHM, ran, *COMMON),
    "solutions": (ran, points, hints, *COMMON),
    "exercises": (clean, points, answers, *COMMON),
}
