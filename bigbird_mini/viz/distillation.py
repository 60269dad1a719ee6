"""What a teacher attends to and its sparse student cannot, or does not: missed mass, distance, both in words.

A student that reads only some keys cannot give weight to the others. The share of the teacher's softmax that lies there
is the *missed mass* m of a query. However long it is trained, the distance of the two rows of weights (half the sum of
their absolute differences) stays at m or more: the weights that must be moved are at least those outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bigbird_mini.pattern import BlockPattern
from bigbird_mini.plans import whole

LONGEST = 1024  # tokens: the teacher's softmax is an n x n table
_NEAR = 1e-3  # what a row of a softmax may be off


@dataclass(frozen=True)
class Comparison:
    """Attention of a teacher and of its student in one text, layer by layer.

    teacher, student: a float32 tensor (H, n, n) for each layer of the student; of a deeper teacher those layers that
    the student's are compared with. patterns: the student's, one for each layer. tokens: n words to show.
    """

    teacher: tuple[torch.Tensor, ...]
    student: tuple[torch.Tensor, ...]
    patterns: tuple[BlockPattern, ...]
    block_size: int
    tokens: tuple[str, ...]

    @property
    def n(self) -> int:
        return len(self.tokens)

    @property
    def layers(self) -> int:
        return len(self.student)

    @property
    def heads(self) -> int:
        """How many heads can be looked at one by one: none where teacher and student differ in their number."""
        heads = {w.shape[0] for w in (*self.teacher, *self.student)}
        return heads.pop() if len(heads) == 1 else 0

    def maps(self, layer: int, head: int = -1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(n, n) each: the teacher's weights, the student's, and whether the student reads the key; -1: all heads.

        Of all heads: the mean of the weights, and the share of the heads that read the key.
        """
        pair = [w[layer].mean(0) if head < 0 else w[layer][head] for w in (self.teacher, self.student)]
        read = self.read(layer)
        read = read.float().mean(0) if head < 0 else read[head if len(read) > 1 else 0].float()
        return tuple(x.numpy() for x in (*pair, read))

    def read(self, layer: int) -> torch.Tensor:
        """bool (1 or H, n, n): which keys the student reads."""
        return self.patterns[layer].token_mask(self.block_size)[:, : self.n, : self.n]

    def missed(self, layer: int, head: int = -1) -> np.ndarray:
        """(n,): for each query the share of the teacher's weight that lies outside the student's pattern."""
        outside = (self.teacher[layer] * ~self.read(layer)).sum(-1)  # (H, n)
        return (outside.mean(0) if head < 0 else outside[head]).numpy()

    def distance(self, layer: int, head: int = -1) -> np.ndarray:
        """(n,): for each query half the sum of |teacher - student| over the keys: 0 is alike, 1 nothing in common.

        Never below `missed`. Of all heads: the mean over heads; of unlike numbers of heads, that of the mean weights.
        """
        t, s = self.teacher[layer], self.student[layer]
        if not self.heads:
            t, s = t.mean(0, keepdim=True), s.mean(0, keepdim=True)
        far = (t - s).abs().sum(-1) / 2  # (H, n)
        return (far.mean(0) if head < 0 else far[head]).numpy()

    def means(self) -> tuple[list[float], list[float]]:
        """For each layer the missed mass and the distance, mean over heads and queries."""
        layers = range(self.layers)
        return [float(self.missed(k).mean()) for k in layers], [float(self.distance(k).mean()) for k in layers]


def comparison_of(found: Any) -> Comparison:
    """A Comparison from anything with its attributes, checked; every problem is one sentence.

    found: has ``teacher`` and ``student``, a tensor (H, n, n) or a BlockWeights of one document for each layer,
    ``patterns``, ``block_size``, and may have ``tokens``; padded places behind the tokens are cut off.
    """
    missing = [name for name in ("teacher", "student", "patterns", "block_size") if not hasattr(found, name)]
    if missing:
        raise TypeError(f"what compare() returned, a {type(found).__name__}, has no {missing[0]!r}")
    teacher, student = ([_weights(w) for w in getattr(found, name)] for name in ("teacher", "student"))
    patterns = [found.patterns] * len(student) if isinstance(found.patterns, BlockPattern) else list(found.patterns)
    if not student or not len(teacher) == len(student) == len(patterns):
        raise ValueError(
            f"{len(teacher)} layers of the teacher, {len(student)} of the student and {len(patterns)} patterns; give "
            "one of each for every layer of the student"
        )
    tokens = tuple(map(str, getattr(found, "tokens", None) or range(teacher[0].shape[-1])))
    n, block_size = len(tokens), whole(found.block_size, "block_size", least=1)
    if n > LONGEST:
        raise ValueError(f"a text of {n} tokens is too long to compare; at most {LONGEST}")
    for layer, (t, s, p) in enumerate(zip(teacher, student, patterns, strict=True)):
        for name, w in (("teacher", t), ("student", s)):
            if min(w.shape[1:]) < n:
                raise ValueError(f"layer {layer} of the {name} has shape {tuple(w.shape)}, the text {n} tokens")
        if p.n_blocks * block_size < n:
            raise ValueError(f"{p.n_blocks} blocks of block_size={block_size} are fewer than {n} tokens")
        if p.heads not in (1, t.shape[0]):
            raise ValueError(f"layer {layer}: the pattern has {p.heads} heads, the teacher {t.shape[0]}")
    made = Comparison(
        tuple(w[:, :n, :n] for w in teacher), tuple(w[:, :n, :n] for w in student), tuple(patterns), block_size, tokens
    )
    for layer in range(made.layers):
        _check_rows(made, layer)
    return made


def _weights(w: Any) -> torch.Tensor:
    """float32 (H, n, n) on the CPU."""
    w = w.dense() if hasattr(w, "dense") else w
    if not isinstance(w, torch.Tensor):
        raise TypeError(f"attention weights must be a tensor (H, n, n) or BlockWeights, not {type(w).__name__}")
    w = w.detach().float().cpu()
    w = w[0] if w.dim() == 4 and len(w) == 1 else w
    if w.dim() != 3 or w.shape[1] != w.shape[2]:
        raise ValueError(f"attention weights of shape {tuple(w.shape)}; one text is compared: (H, n, n)")
    return w


def _check_rows(made: Comparison, layer: int) -> None:
    sums = made.teacher[layer].sum(-1)  # (H, n)
    off = (sums - 1).abs()
    if not bool((off <= _NEAR).all()):  # NaN too
        row = int(off.nan_to_num(9.0).amax(0).argmax())
        raise ValueError(
            f"layer {layer} of the teacher: the weights of query {row} sum to {float(sums[:, row].mean()):.3g}, not to "
            "1; the whole softmax of real tokens is needed, before dropout"
        )
    student, read = made.student[layer], made.read(layer)
    if not bool(student.isfinite().all()):
        raise ValueError(f"layer {layer} of the student has weights that are no numbers")
    if student.shape[0] == read.shape[0] or read.shape[0] == 1:
        outside = float((student * ~read).sum(-1).max())
        if outside > _NEAR:
            raise ValueError(
                f"layer {layer}: the student gives {outside:.2g} of a query's weight to keys outside its pattern; are "
                "these its patterns, and its block_size?"
            )


def in_blocks(table: np.ndarray, block_size: int, rows_only: bool = False) -> np.ndarray:
    """(N, N) of (n, n): what the queries of a block give to the keys of a block, on average.

    rows_only: the mean over the keys too, for shares rather than weights. The last block may be shorter.
    """
    starts = np.arange(0, len(table), block_size)
    sizes = np.diff([*starts, len(table)])
    added = np.add.reduceat(np.add.reduceat(table, starts, 0), starts, 1) / sizes[:, None]
    return added / sizes[None] if rows_only else added


def describe_distillation(
    comparison: Any, layer: int = 0, head: int = -1, before: Sequence[float] | None = None
) -> str:
    """Teacher and student in words: the missed mass and distance of every layer, and of one what stands out.

    comparison: as compare() returns it (see explore_distillation). head: -1 for all. before: distances of the layers
    at an earlier time, to tell what has changed.
    """
    made = checked(comparison, layer, head)
    missed, far = made.means()
    n_blocks = -(-made.n // made.block_size)
    lines = [
        f"A teacher and its student in a text of {made.n} tokens, {n_blocks} blocks of {made.block_size}. Missed mass: "
        "the share of the teacher's attention outside the student's pattern. Distance: 0 is alike, 1 has nothing in "
        "common; it cannot be less than the missed mass."
    ]
    for k, (m, d) in enumerate(zip(missed, far, strict=True)):
        was = f", at the start {before[k]:.3f}" if before else ""
        lines.append(f"Layer {k}: missed mass {m:.3f}, distance {d:.3f}{was}.")
    which = f"Layer {layer}, " + (f"head {head}" if head >= 0 else "all heads")
    t, s, read = made.maps(layer, head)
    worst = made.missed(layer, head)
    query = int(worst.argmax())
    gap = s - t
    lines += [
        f"{which}: the query that misses most is {token(made, query)}, with {worst[query]:.3f}.",
        f"The student falls short most in {cell_words(made, t, s, read, *_place(gap.argmin(), made.n))}.",
        f"It gives too much most in {cell_words(made, t, s, read, *_place(gap.argmax(), made.n))}.",
    ]
    return "\n".join(lines)


def checked(comparison: Any, layer: int, head: int) -> Comparison:
    """The Comparison, where it has this layer and this head; else one sentence."""
    made = comparison if isinstance(comparison, Comparison) else comparison_of(comparison)
    if not 0 <= layer < made.layers:
        raise ValueError(f"layer={layer} is out of range: allowed are 0 to {made.layers - 1}")
    if not -1 <= head < made.heads:
        allowed = f"-1 for all, or 0 to {made.heads - 1}" if made.heads else "-1: teacher and student have unlike heads"
        raise ValueError(f"head={head} is out of range; allowed is {allowed}")
    return made


def cell_words(made: Comparison, t: np.ndarray, s: np.ndarray, read: np.ndarray, i: int, j: int) -> str:
    """One cell of the maps: "query 'a' (5), key 'b' (11): teacher 0.210, student 0, which does not read it"."""
    seen = "" if read[i, j] == 1 else ", which does not read it" if read[i, j] == 0 else ", some heads do not read it"
    return f"query {token(made, i)}, key {token(made, j)}: teacher {t[i, j]:.3f}, student {s[i, j]:.3f}{seen}"


def token(made: Comparison, i: int) -> str:
    """ "'the' (5)", or "5" where the tokens have no names."""
    return str(i) if made.tokens[i] == str(i) else f"'{made.tokens[i]}' ({i})"


def _place(flat: np.integer, n: int) -> tuple[int, int]:
    return divmod(int(flat), n)
