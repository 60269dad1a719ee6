"""What is wrong with a result, as a picture and in words: expected, yours and the difference, block by block.

The picture is an SVG on light paper of its own, so that it reads in a dark theme too. The difference panel says with
signs, not with colour alone, where a result is too large, too small or no number; the first differing block is boxed.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bigbird_mini.viz.words import counted, listed

SIDE, LARGEST, SMALLEST = 216, 40, 10  # pixels: a panel, and the cell it is made of
SHOWN = 32  # rows and columns that are drawn at most
PARTS_IN_WORDS = 6
INK, PAPER, FAINT = "#1A1A1A", "#FFFFFF", "#C8C8C8"
LOW, HIGH = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)  # Okabe-Ito blue and vermilion: below and above 0
SIGNS = {"more": "+", "less": "\u2212", "other": "?"}


@dataclass(frozen=True)
class Failure:
    """Two tables that should be alike: (rows, columns), numbers or truth values.

    differs: bool (rows, columns). axes: what a row and a column are, such as ("query", "key"). block: rows and columns
    that make one block. place: which table it is where the result holds several ("document 1, head 0").
    """

    expected: np.ndarray
    found: np.ndarray
    differs: np.ndarray
    axes: tuple[str, str] = ("row", "column")
    block: tuple[int, int] = (1, 1)
    place: str = ""

    def __post_init__(self) -> None:
        if not (self.expected.shape == self.found.shape == self.differs.shape) or self.expected.ndim != 2:
            raise ValueError(
                f"tables of one shape are compared, not {self.expected.shape}, {self.found.shape}, {self.differs.shape}"
            )
        if not self.differs.any():
            raise ValueError("the two tables do not differ")

    @property
    def blocks(self) -> np.ndarray:
        """bool (block rows, block columns): which blocks differ anywhere; parts at the edges count as blocks."""
        rows, columns = (-(-size // step) for size, step in zip(self.differs.shape, self.block, strict=True))
        h, w = self.block
        whole = np.zeros((rows * h, columns * w), bool)
        whole[: self.differs.shape[0], : self.differs.shape[1]] = self.differs
        return whole.reshape(rows, h, columns, w).any((1, 3))

    @property
    def first(self) -> tuple[int, int]:
        """The first differing block, row by row."""
        return tuple(int(k) for k in np.argwhere(self.blocks)[0])

    def inside(self) -> tuple[slice, slice]:
        """The rows and columns of the first differing block."""
        (i, j), (h, w) = self.first, self.block
        rows, columns = self.differs.shape
        return slice(i * h, min((i + 1) * h, rows)), slice(j * w, min((j + 1) * w, columns))


# ---------------------------------------------------------------- in words


def first_difference(f: Failure) -> str:
    """One sentence: the first differing block, what is expected and found in it, and how many differ."""
    unit = _unit(f)
    here, there = f.found[f.inside()], f.expected[f.inside()]
    place = f"{f.place}, " if f.place else ""
    number = int(f.blocks.sum())
    count = f"{number:,} of {counted(f.blocks.size, unit)} {'differs' if number == 1 else 'differ'}"
    where = f"{place}{_named(f, *f.first)}"
    return f"First differing {unit}: {where}: expected {_span(there)}, yours {_span(here)} ({count})."


def describe_failure(f: Failure) -> str:
    """The picture in words: the first differing block, and which others differ."""
    alike: dict[tuple[int, ...], list[int]] = {}  # the columns that differ, and the rows where it is these
    for i in np.flatnonzero(f.blocks.any(1)).tolist():
        alike.setdefault(tuple(np.flatnonzero(f.blocks[i]).tolist()), []).append(i)
    names = [_block_name(f, axis) for axis in (0, 1)]
    parts = [f"{_several(names[0], rows)}: {_several(names[1], keys)}" for keys, rows in alike.items()]
    if len(parts) > PARTS_IN_WORDS:
        rest = sum(len(rows) for rows in list(alike.values())[PARTS_IN_WORDS - 1 :])
        parts = [*parts[: PARTS_IN_WORDS - 1], f"and more in {counted(rest, 'other row')}"]
    return f"{first_difference(f)} Different are: {'; '.join(parts)}."


def _unit(f: Failure) -> str:
    return "block" if f.block != (1, 1) or f.axes[0].endswith("block") else "place"


def _block_name(f: Failure, axis: int) -> str:
    """ "query block" where a block holds several queries, "query" where it is one."""
    return f"{f.axes[axis]} block" if f.block[axis] > 1 else f.axes[axis]


def _several(name: str, numbers: Sequence[int]) -> str:
    return f"{name if len(numbers) == 1 else _plural(name)} {listed(numbers)}"


def _plural(name: str) -> str:
    return f"{name[:-1]}ies" if name.endswith("ry") else f"{name}s"


def _named(f: Failure, i: int, j: int) -> str:
    """A block by its row and column, with the rows and columns that it holds."""
    inside = [_several(f.axes[k], range(s.start, s.stop)) for k, s in enumerate(f.inside()) if f.block[k] > 1]
    name = f"{_block_name(f, 0)} {i}, {_block_name(f, 1)} {j}"
    return f"{name} ({', '.join(inside)})" if inside else name


def _span(values: np.ndarray) -> str:
    """The values of a block: one number, or from the least to the greatest."""
    if values.dtype == bool:
        return "True" if values.all() else "False" if not values.any() else "True and False"
    fine = values[~np.isnan(values)]
    if not len(fine):
        return "nan"
    least, most = f"{fine.min():.3g}", f"{fine.max():.3g}"
    text = least if least == most else f"{least} to {most}"
    return text if len(fine) == values.size else f"{text} and nan"


# ---------------------------------------------------------------- as a picture


def draw_failure(f: Failure) -> str:
    """The picture as SVG text: three panels, the first differing block boxed in each, the signs explained below."""
    rows, columns = _window(f, 0), _window(f, 1)
    cell = max(SMALLEST, min(LARGEST, SIDE // max(len(rows), len(columns))))
    width, height = cell * len(columns), cell * len(rows)
    left, top, step = 46, 60 + (18 if f.place else 0), max(width, 110) + 30
    body = [_words(f.place, 12, 20)] if f.place else []
    for k, title in enumerate(("expected", "yours", "difference")):
        head = _words(title, 0, -40, 13, 'font-weight="bold"') + _words(f"{f.axes[1]} \u2192", 0, -23, 11)
        if k == 0:
            turned = f'text-anchor="middle" transform="translate(-27 {height / 2:g}) rotate(-90)"'
            head += _words(f"\u2190 {f.axes[0]}", 0, 0, 11, turned)
        parts = head + _ticks(rows, columns, cell, rows_too=k == 0) + _panel(f, k, rows, columns, cell)
        body.append(f'<g transform="translate({left + k * step} {top})">{parts}</g>')
    below = top + height + 22
    notes = _notes(f, rows, columns)
    body += [_words(note, 12, below + 17 * k) for k, note in enumerate(notes)]
    longest = max(len(note) for note in notes)
    return _svg("".join(body), max(left + 3 * step - 14, 24 + 7 * longest), below + 17 * len(notes) - 6)


def draw_numbers(expected: float, found: float) -> str:
    """The picture of two single numbers: a bar for each, on a scale that begins at 0."""
    top = max(abs(expected), abs(found), 1e-300)
    body = []
    for k, (name, value) in enumerate((("expected", expected), ("yours", found))):
        y, length = 14 + 34 * k, max(2.0, 300 * abs(value) / top) if np.isfinite(value) else 2.0
        fill = "#{:02X}{:02X}{:02X}".format(*(LOW, HIGH)[k])
        body.append(f'<rect x="86" y="{y}" width="{length:.1f}" height="22" fill="{fill}" stroke="{INK}"/>')
        body.append(_words(name, 12, y + 16, 13, 'font-weight="bold"') + _words(f"{value:,.10g}", 394, y + 16, 12))
    return _svg("".join(body), 540, 86)


def _svg(body: str, width: int, height: int) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="system-ui, sans-serif" fill="{INK}"><rect width="{width}" height="{height}" fill="{PAPER}"/>'
        f"{body}</svg>"
    )


def _words(words: str, x: float, y: float, size: float = 12, more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" {more}>{html.escape(words)}</text>'


def _window(f: Failure, axis: int) -> range:
    """The rows (columns) that are drawn: all, or some around the first differing block."""
    size, step = f.differs.shape[axis], f.block[axis]
    if size <= SHOWN:
        return range(size)
    start = min(max(f.first[axis] * step - SHOWN // 2, 0), size - SHOWN)
    start -= start % step
    return range(start, min(start + SHOWN, size))


def _panel(f: Failure, kind: int, rows: range, columns: range, cell: int) -> str:
    """One of the three tables: coloured cells, lines between the blocks, the box."""
    both = np.concatenate([np.abs(x[np.isfinite(x)]).ravel() for x in (f.expected * 1.0, f.found * 1.0)])
    top = max(float(both.max(initial=0.0)), 1e-12)
    if top > 4 * (usual := float(np.abs(f.expected * 1.0)[np.isfinite(f.expected * 1.0)].max(initial=0.0))) > 0:
        top = usual  # one wild number would leave all others white
    out = []
    for y, i in enumerate(rows):
        for x, j in enumerate(columns):
            draw = _sign if kind == 2 else _number
            out.append(draw(f, (f.expected, f.found)[kind % 2][i, j], (i, j), x * cell, y * cell, cell, top))
    width, height = cell * len(columns), cell * len(rows)
    out += [_line(x * cell, 0, x * cell, height, j % f.block[1] == 0) for x, j in enumerate(columns)]
    out += [_line(0, y * cell, width, y * cell, i % f.block[0] == 0) for y, i in enumerate(rows)]
    out.append(f'<rect width="{width}" height="{height}" fill="none" stroke="{INK}"/>')
    boxed, beside = f.inside()
    x, y = (beside.start - columns[0]) * cell, (boxed.start - rows[0]) * cell
    w, h = (min(beside.stop, columns[-1] + 1) - beside.start) * cell, (min(boxed.stop, rows[-1] + 1) - boxed.start)
    frame = f'<rect x="{x}" y="{y}" width="{w}" height="{h * cell}" fill="none"'
    out += [f'{frame} stroke="{PAPER}" stroke-width="6"/>', f'{frame} stroke="{INK}" stroke-width="3"/>']
    return "".join(out)


def _line(x1: int, y1: int, x2: int, y2: int, thick: bool) -> str:
    look = f'stroke="{INK}" stroke-width="0.8"' if thick else f'stroke="{FAINT}" stroke-width="0.5"'
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" {look}/>'


def _number(f: Failure, value: float, _at: tuple[int, int], x: int, y: int, cell: int, top: float) -> str:
    """A cell of a table: darker for larger, blue above 0 and vermilion below, with the number where it fits."""
    if np.isnan(value):
        return _cell(x, y, cell, "#E0E0E0", "nan", INK)
    share = min(abs(float(value)) / top, 1.0)
    tone = LOW if value >= 0 else HIGH
    fill = "#{:02X}{:02X}{:02X}".format(*(round(255 - (255 - part) * share) for part in tone))
    text = ("1" if value else "0") if f.expected.dtype == bool else _short(float(value))
    return _cell(x, y, cell, fill, text, PAPER if share > 0.55 else INK)


def _sign(f: Failure, _value: float, at: tuple[int, int], x: int, y: int, cell: int, _top: float) -> str:
    """A cell of the difference: a sign where the tables differ, nothing elsewhere."""
    if not f.differs[at]:
        return ""
    here, there = float(f.found[at]), float(f.expected[at])
    kind = "more" if here > there else "less" if here < there else "other"
    fill = {"more": "#F5C396", "less": "#9CCBE8", "other": "#D0D0D0"}[kind]
    return _cell(x, y, cell, fill, SIGNS[kind], INK, whole=True)


def _cell(x: int, y: int, cell: int, fill: str, text: str, ink: str, whole: bool = False) -> str:
    out = f'<rect x="{x}" y="{y}" width="{cell}" height="{cell}" fill="{fill}"/>'
    size = min(cell * 0.8, 16) if whole else min(11.5, cell * 0.43, cell / (0.6 * len(text)))
    if whole or size >= 6:
        out += _words(text, x + cell / 2, y + cell / 2 + size * 0.36, size, f'text-anchor="middle" fill="{ink}"')
    return out


def _short(value: float) -> str:
    """A number in four characters or so: .25, -1.3, 120, 3e+04."""
    if value == 0:
        return "0"
    text = f"{value:.2f}" if abs(value) < 10 else f"{value:.3g}"
    if text.lstrip("-").startswith("0."):
        text = text.replace("0.", ".", 1)  # .00 is small, 0 is nothing at all
    elif text.endswith(".00"):
        text = text.removesuffix(".00")
    return text.replace("-", "\u2212")


def _ticks(rows: range, columns: range, cell: int, rows_too: bool) -> str:
    """The numbers of the columns, and of the rows beside the first panel; only some where they stand close."""
    every = 1 if cell >= 13 else 2 if cell >= 8 else 4
    middle = 'text-anchor="middle"'
    out = [_words(str(columns[k]), (k + 0.5) * cell, -6, 10, middle) for k in range(0, len(columns), every)]
    if rows_too:
        end = 'text-anchor="end"'
        out += [_words(str(rows[k]), -5, (k + 0.5) * cell + 3.5, 10, end) for k in range(0, len(rows), every)]
    return "".join(out)


def _notes(f: Failure, rows: range, columns: range) -> list[str]:
    """What stands under the panels: the signs that occur, the box, and what was left out."""
    here, there = f.found[f.differs] * 1.0, f.expected[f.differs] * 1.0
    used = {"more": (here > there).any(), "less": (here < there).any()}
    used["other"] = not (used["more"] or used["less"]) or np.isnan(here).any()
    words = {"more": "yours is larger", "less": "yours is smaller", "other": "no number"}
    if f.expected.dtype == bool:
        words |= {"more": "yours is True, should be False", "less": "yours is False, should be True"}
    signs = [f"{SIGNS[kind]} {words[kind]}" for kind in SIGNS if used[kind]]
    notes = ["; ".join([*signs, f"boxed: the first differing {_unit(f)}"])]
    if (len(rows), len(columns)) != f.differs.shape:
        part = f"{f.axes[0]} {rows[0]}-{rows[-1]}, {f.axes[1]} {columns[0]}-{columns[-1]}"
        notes.append(f"drawn: {part} of {f.differs.shape[0]} by {f.differs.shape[1]}")
    return notes
