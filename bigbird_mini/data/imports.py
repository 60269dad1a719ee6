"""Which import does this name come from? Questions with exact answers, from the standard library's own code.

``from json import loads`` on line 3, ``loads(text)`` on line 900: the answer lies thousands of tokens before the
question, and only the two places together give it. So that nothing can be known by heart, the names are drawn afresh
for each reading of a document, and so are the numbers of its import statements; what they import from is masked.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch

from .stdlib import Document

FRESH_NAMES, STATEMENT_NUMBERS = 64, 32  # as many to draw from; files that need more are left out
_FROM = re.compile(rb"from\b[\s\\]*(.*?)[\s\\]*\bimport\b", re.DOTALL)
Span = tuple[int, int]


class ImportedName(NamedTuple):
    """A name that one import statement at the top level of a file binds, and nothing else in that file.

    name: as the code uses it. statement: the number of the statement among those of its file. source, at, uses: where
    the module is named, where the name is bound (in ``import json`` the same place), and where it is read afterwards;
    byte offsets (start, end) into the UTF-8 text.
    """

    name: str
    statement: int
    source: Span
    at: Span
    uses: tuple[Span, ...]


class Reading(NamedTuple):
    """A document, or an excerpt, with names and statement numbers drawn: all int64 (n,).

    ids: tokens. segments: 1 + the number of the import statement that a token belongs to, 0 elsewhere (token types).
    labels: at each use of an imported name the number of its statement, -100 elsewhere. distances: at each use the
    number of tokens since the import, in the whole document; 0 elsewhere.
    """

    ids: torch.Tensor
    segments: torch.Tensor
    labels: torch.Tensor
    distances: torch.Tensor


class ImportDocument(NamedTuple):
    """A file as tokens, from its first import on, with the places of imported names left open.

    name: of the file. ids: (n,) token ids, -1 - k where imported name k stands. statements: (n,) the number of the
    import statement that a token belongs to, -1 elsewhere. bindings: (names, 2), of each name where it is bound and by
    which statement. uses: (uses, 2), in order, where a name is used and which one. All int64.
    """

    name: str
    ids: torch.Tensor
    statements: torch.Tensor
    bindings: torch.Tensor
    uses: torch.Tensor

    @property
    def header(self) -> int:
        """How many tokens there are up to the end of the last import."""
        return int(self.bindings[:, 0].max()) + 1

    def read(self, vocab_size: int, rng: np.random.Generator, keep: torch.Tensor | None = None) -> Reading:
        """With fresh names, whose ids are the FRESH_NAMES after vocab_size, and fresh numbers of the statements.

        keep: (n,) bool, the tokens that are read; a use has a label only where its import is read, too.
        """
        keep = torch.ones_like(self.ids, dtype=torch.bool) if keep is None else keep
        names = vocab_size + torch.from_numpy(rng.permutation(FRESH_NAMES))
        numbers = torch.from_numpy(rng.permutation(STATEMENT_NUMBERS))
        ids = torch.where(self.ids < 0, names[(-1 - self.ids).clamp(min=0)], self.ids)
        segments = torch.where(self.statements < 0, 0, 1 + numbers[self.statements.clamp(min=0)])
        labels, distances = torch.full_like(ids, -100), torch.zeros_like(ids)
        bound = self.bindings[self.uses[:, 1]]  # (uses, 2)
        asked = keep[bound[:, 0]]
        place = self.uses[asked, 0]
        labels[place] = numbers[bound[asked, 1]]
        distances[place] = place - bound[asked, 0]
        return Reading(ids[keep], segments[keep], labels[keep], distances[keep])

    def excerpt(self, length: int, around: int, rng: np.random.Generator) -> torch.Tensor:
        """(n,) bool, True for ``length`` tokens (or all): the header, and pieces of code around uses drawn at random.

        around: how many tokens such a piece has; two thirds of them end with the use. A header longer than half of the
        length is cut there. Where the uses do not fill the length, the code after the header does.
        """
        keep = torch.zeros_like(self.ids, dtype=torch.bool)
        keep[: min(self.header, length // 2)] = True
        before = (2 * around + 2) // 3
        left = length - int(keep.sum())
        for use in rng.permutation(len(self.uses)):
            end = int(self.uses[use, 0]) + 1 + around - before
            new = (~keep[max(0, end - around) : end]).nonzero().flatten() + max(0, end - around)
            keep[new[:left]] = True
            left -= len(new[:left])
        keep[(~keep).nonzero().flatten()[:left]] = True
        return keep


class Tokenizer(Protocol):
    """ByteTokenizer and BPETokenizer are such."""

    mask_id: int

    def encode(self, text: str) -> torch.Tensor: ...


def imported_names(text: str) -> list[ImportedName]:
    """The names that top-level imports bind, by ``ast``, in the order of the file.

    A name that anything else in the file binds too (a second import, an argument, an assignment in any scope) is left
    out: so every use of it, in every scope, is that import's. Uses inside f-strings are left out, as not every Python
    knows their places. A file with a star import has no such names. Raises SyntaxError for what is not Python.
    """
    tree = ast.parse(text)
    raw = text.encode()
    lines = np.cumsum([0, *(len(line) for line in raw.splitlines(keepends=True))])
    found = []
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    for statement, node in enumerate(imports):
        for alias in node.names:
            source = at = _span(alias, lines)
            if isinstance(node, ast.ImportFrom):
                source = _FROM.match(raw, _span(node, lines)[0]).span(1)
            found.append((_binds(alias), statement, source, at))
    times = Counter(_bound(tree))
    uses: dict[str, list[Span]] = {name: [] for name, *_ in found if times[name] == 1 and not times["*"]}
    for name in _read(tree):
        if name.id in uses:
            uses[name.id].append(_span(name, lines))
    return [
        ImportedName(name, statement, source, at, tuple(use for use in sorted(uses[name]) if use > at))
        for name, statement, source, at in found
        if name in uses
    ]


def import_documents(documents: Iterable[Document], tokenizer: Tokenizer, least: int = 2) -> list[ImportDocument]:
    """The files in which at least ``least`` statements import names, and one of these is used, as tokens.

    Each file starts at its first such statement. There, ``import json`` reads ``import [MASK] as NAME`` and
    ``from json import loads`` reads ``from [MASK] import NAME``; what is put in takes the blank before it. Files that
    are not Python, or need more than FRESH_NAMES or STATEMENT_NUMBERS, are left out.
    """
    made = []
    for document in documents:
        try:
            names = imported_names(document.text)
        except SyntaxError:
            continue
        statements = len({name.statement for name in names})
        used = any(name.uses for name in names)
        if used and least <= statements <= STATEMENT_NUMBERS and len(names) <= FRESH_NAMES:
            made.append(_tokens(document, names, tokenizer))
    return made


def _tokens(document: Document, names: list[ImportedName], tokenizer: Tokenizer) -> ImportDocument:
    """The text between the open places, token by token, and the places."""
    parts: dict[Span, list[int]] = {}
    for k, name in enumerate(names):
        parts[name.source] = [tokenizer.mask_id]
        parts[name.at] = [*parts[name.at], *tokenizer.encode(" as").tolist()] if name.at == name.source else []
        for place in (name.at, *name.uses):
            parts[place] = [*parts.get(place, []), -1 - k]
    raw, ids, places = document.text.encode(), [], {}
    first = names[0].source[0]
    done = max(raw.rfind(b"from", 0, first), raw.rfind(b"import", 0, first))
    for start, end in sorted(parts):
        ids += tokenizer.encode(raw[done:start].decode().removesuffix(" ")).tolist()
        places[start, end] = len(ids)
        ids += parts[start, end]
        done = end
    ids += tokenizer.encode(raw[done:].decode()).tolist()
    numbers = {old: new for new, old in enumerate(dict.fromkeys(name.statement for name in names))}
    statements = torch.full((len(ids),), -1)
    bindings, starts = [], {}
    for name in names:
        bound, statement = places[name.at] + len(parts[name.at]) - 1, numbers[name.statement]
        statements[starts.setdefault(statement, places[name.source]) : bound + 1] = statement
        bindings.append((bound, statement))
    uses = sorted((places[use], k) for k, name in enumerate(names) for use in name.uses)
    return ImportDocument(document.name, torch.tensor(ids), statements, torch.tensor(bindings), torch.tensor(uses))


def _binds(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]


def _bound(tree: ast.AST) -> Iterator[str]:
    """Every name, once for each place that binds it, in any scope."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            if not isinstance(node.ctx, ast.Load):
                yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.alias):
            yield _binds(node)
        elif isinstance(node, ast.MatchMapping):
            yield node.rest or ""
        elif isinstance(getattr(node, "name", None), str):  # functions, classes, except, match, type parameters
            yield node.name


def _read(tree: ast.AST) -> Iterator[ast.Name]:
    """Every name that is read, except inside f-strings and the like."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node
        if type(node).__name__ not in ("JoinedStr", "TemplateStr"):
            waiting.extend(ast.iter_child_nodes(node))


def _span(node: ast.stmt | ast.expr | ast.alias, lines: np.ndarray) -> Span:
    """Byte offsets of a node; ast counts columns in bytes of UTF-8."""
    return int(lines[node.lineno - 1]) + node.col_offset, int(lines[node.end_lineno - 1]) + node.end_col_offset
