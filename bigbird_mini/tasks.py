"""Generated tasks on which attention patterns demonstrably differ: local copy, broadcast, far copy, lookup.

Four tasks, four winners: a window, a global block, random blocks, full attention. A text is n tokens; each is the sum
of two things, a value and a key, which an encoder takes as ``input_ids`` and ``token_type_ids``. The first tokens are
blank: a place for notes, which a global block makes of them. Every question asks for the value of one other token, so
what a pattern lets a model know can be said before any training: :meth:`Task.predicted`.

Our own generators; content lookup is MQAR's question (Arora et al. 2023, "Zoology") for an encoder, with key and value
in one token. Draws depend on (seed, part, number) alone; no global random state is read or changed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from .plans import whole

VALUES = 16  # different values; the answer to every question is one of them
KEYS = 64  # different keys of a lookup
BLANK, ASKED = 0, VALUES + 1  # input ids: nothing here; here a value is asked for. Values are 1 .. VALUES
NO_LABEL = -100
PARTS = ("train", "test")

Batch = dict[str, torch.Tensor]
# (rng, texts) -> values, keys, and where the answer to each token's question stands (-1: none is asked); (texts, n)
_Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Task:
    """A task to draw texts of. Made by :func:`local_copy`, :func:`far_copy`, :func:`broadcast` and :func:`lookup`.

    Attributes:
        name, question: what it is called, and what it asks, in a sentence.
        n: tokens of a text. blank: so many of them, the first ones, hold nothing.
        pairs: int64 (n, n), of how many questions, of all there can be, token i asks and token j holds the answer.
    """

    name: str
    question: str
    n: int
    blank: int
    pairs: np.ndarray = field(repr=False)
    _draw: _Draw = field(repr=False)

    vocab_size = VALUES + 2  # of input_ids
    type_vocab_size = 1 + KEYS  # of token_type_ids
    num_labels = VALUES
    chance = 1 / VALUES  # accuracy of a guess

    def batch(self, number: int, texts: int = 32, seed: int = 0, part: str = "train") -> Batch:
        """The texts of this number: a dict of int64 (texts, n), as a model that classifies tokens takes it.

        input_ids: 0 blank, 1 to 16 a value, 17 "which value?". token_type_ids: 0 no key, else a key. labels: the value
        asked for, as class 0 to 15, and -100 where nothing is asked. The same for the same number, seed and part;
        "train" and "test" never share a draw.
        """
        number, texts = whole(number, "number", least=0), whole(texts, "texts", least=1)
        if part not in PARTS:
            raise ValueError(f"part={part!r} is not known; allowed: 'train', 'test'")
        key = [whole(seed, "seed", least=0), PARTS.index(part), number]
        values, keys, sources = self._draw(np.random.default_rng(key), texts)
        answers = np.take_along_axis(values, np.maximum(sources, 0), 1) - 1
        labels = np.where(sources < 0, NO_LABEL, answers)  # (texts, n)
        named = {"input_ids": values, "token_type_ids": keys, "labels": labels}
        return {name: torch.from_numpy(x) for name, x in named.items()}

    def needs(self, n_blocks: int) -> np.ndarray:
        """float64 (N, N): the share of questions asked in query block i and answered in key block j; sums to 1."""
        return self._by_block(n_blocks) / self.pairs.sum()

    def _by_block(self, n_blocks: int) -> np.ndarray:
        """int64 (N, N): pairs, of blocks."""
        N = whole(n_blocks, "n_blocks", least=1)
        if self.n % N:
            raise ValueError(f"{self.n} tokens do not make {N} blocks of one size")
        return self.pairs.reshape(N, self.n // N, N, self.n // N).sum((1, 3))

    def predicted(self, connected: Any) -> float:
        """The accuracy of a model that knows the answer wherever blocks are connected, and elsewhere guesses.

        connected: bool (N, N), query block i hears of key block j: by an edge, or by a path through the layers. With
        p the share of questions whose answer is heard of, or stands in the asking token itself, that is
        p + (1 - p) / 16. What is measured may stay below: a path is there, and may still be too narrow for all that
        must go through it.
        """
        grid = np.asarray(connected, bool)
        if grid.ndim != 2 or grid.shape[0] != grid.shape[1]:
            raise ValueError(f"connected has shape {grid.shape}; it must be (N, N), a row for each query block")
        blocks = self._by_block(len(grid))[grid].sum()
        own = self.pairs.diagonal().reshape(len(grid), -1).sum(1)  # (N,) asked and answered by one and the same token
        heard = float((blocks + own[~grid.diagonal()].sum()) / self.pairs.sum())
        return heard + (1 - heard) * self.chance


def majority(labels: torch.Tensor) -> float:
    """Accuracy of always giving the commonest label, whatever the text: the baseline that reads nothing."""
    given = labels[labels != NO_LABEL]
    if not len(given):
        raise ValueError(f"labels of shape {tuple(labels.shape)} have nothing but {NO_LABEL}: no question is asked")
    return int(given.bincount().max()) / len(given)


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of the questions whose answer has the highest logit. logits: (texts, n, classes); labels: (texts, n)."""
    asked = labels != NO_LABEL
    return float((logits.argmax(-1) == labels)[asked].double().mean())


# -------------------------------------------------------------------- the tasks


def local_copy(n: int = 128, blank: int = 8, distance: int | None = None) -> Task:
    """Which value stands ``distance`` tokens before? Near: ``blank`` tokens, one block, if None. A window does it."""
    return _copy("local copy", n, blank, blank if distance is None else distance)


def far_copy(n: int = 128, blank: int = 8, distance: int | None = None) -> Task:
    """The same question from afar: 3/8 of the text if None. It needs an edge for each place, and few of them at once
    through a global block: a path for every pair, and no room on it."""
    return _copy("far copy", n, blank, 3 * whole(n, "n", least=8) // 8 if distance is None else distance)


def _copy(name: str, n: int, blank: int, distance: int) -> Task:
    n, blank = _sizes(n, blank)
    distance = whole(distance, "distance", least=1)
    if distance >= n - blank:
        raise ValueError(f"distance={distance} is too far; with n={n} and blank={blank} it is at most {n - blank - 1}")
    asking = np.arange(blank + distance, n)
    pairs = np.zeros((n, n), np.int64)
    pairs[asking, asking - distance] = 1

    def draw(rng: np.random.Generator, texts: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        values, keys, sources = _empty(texts, n)
        values[:, blank:] = rng.integers(1, VALUES + 1, (texts, n - blank))
        sources[:, asking] = asking - distance
        return values, keys, sources

    return Task(name, f"Which value stands {distance} tokens before?", n, blank, pairs, draw)


def broadcast(n: int = 128, blank: int = 8) -> Task:
    """Which value does the flagged token have? Asked everywhere; the flag (key 1) is on one token, anywhere. One word
    for all: a global block does it."""
    n, blank = _sizes(n, blank)
    pairs = np.zeros((n, n), np.int64)
    pairs[blank:, blank:] = 1

    def draw(rng: np.random.Generator, texts: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        values, keys, sources = _empty(texts, n)
        values[:, blank:] = rng.integers(1, VALUES + 1, (texts, n - blank))
        flagged = rng.integers(blank, n, (texts, 1))
        np.put_along_axis(keys, flagged, 1, 1)
        sources[:, blank:] = flagged
        return values, keys, sources

    return Task("broadcast", "Which value does the flagged token have?", n, blank, pairs, draw)


def lookup(
    n: int = 128, blank: int = 8, items: int | None = None, questions: int | None = None, keys: int = KEYS
) -> Task:
    """Which value goes with this key? In the first half ``items`` tokens have a key and a value, each key once; in the
    second ``questions`` tokens have a key, and ask for its value. If None, they are a quarter of all tokens, as far as
    there are keys, and half as many. Where the answer stands depends on the content: only full attention does it.
    """
    n, blank = _sizes(n, blank)
    half, size = n // 2, whole(keys, "keys", least=1)
    items = whole(min(n // 4, size) if items is None else items, "items", least=1)
    questions = whole(max(1, items // 2) if questions is None else questions, "questions", least=1)
    for name, value, most in (
        ("keys", size, KEYS),
        ("items", items, min(size, half - blank)),
        ("questions", questions, min(items, n - half)),
    ):
        if value > most:
            raise ValueError(f"{name}={value} is too large; with n={n} and blank={blank} it is at most {most}")
    pairs = np.zeros((n, n), np.int64)
    pairs[half:, blank:half] = 1

    def some(rng: np.random.Generator, texts: int, first: int, behind: int, count: int) -> np.ndarray:
        """(texts, count): in each row different numbers from first to behind - 1, in any order."""
        return rng.permuted(np.tile(np.arange(first, behind), (texts, 1)), axis=1)[:, :count]

    def draw(rng: np.random.Generator, texts: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        values, keys, sources = _empty(texts, n)
        places, names = some(rng, texts, blank, half, items), some(rng, texts, 1, size + 1, items)
        asking, chosen = some(rng, texts, half, n, questions), some(rng, texts, 0, items, questions)
        np.put_along_axis(values, places, rng.integers(1, VALUES + 1, (texts, items)), 1)
        np.put_along_axis(keys, places, names, 1)
        np.put_along_axis(values, asking, ASKED, 1)
        np.put_along_axis(keys, asking, np.take_along_axis(names, chosen, 1), 1)
        np.put_along_axis(sources, asking, np.take_along_axis(places, chosen, 1), 1)
        return values, keys, sources

    return Task("lookup", "Which value goes with this key?", n, blank, pairs, draw)


# name -> a function of n and blank that makes the task
TASKS: dict[str, Callable[..., Task]] = {
    "local copy": local_copy,
    "broadcast": broadcast,
    "far copy": far_copy,
    "lookup": lookup,
}


def _sizes(n: int, blank: int) -> tuple[int, int]:
    n, blank = whole(n, "n", least=8), whole(blank, "blank", least=0)
    if blank > n // 4:
        raise ValueError(f"blank={blank} is too large; with n={n} tokens it is at most {n // 4}")
    return n, blank


def _empty(texts: int, n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, keys and sources of texts in which nothing stands and nothing is asked, int64 (texts, n)."""
    return np.full((texts, n), BLANK), np.zeros((texts, n), np.int64), np.full((texts, n), -1)
