"""Task 2.5: attention in a window of blocks, for a whole batch."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..catalogue import Case, Mistake, Task, add
from ..tasks_01.common import INF, attend, randoms, scores_of, table
from .common import BAND, BLOCKS, LESSON, LOOPS, apart


def window_attention(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor, n_blocks: int, width: int) -> Tensor:
    """Attention in a window of blocks: q, k, v (B, H, n, d), key_mask bool (B, n) -> (B, H, n, d)."""
    b = q.shape[2] // n_blocks
    ends = width // 2 * b  # zeros at either end, so that all windows are equally long
    q = q.unflatten(2, (n_blocks, b))  # (B, H, N, b, d)
    k = F.pad(k, (0, 0, ends, ends)).unfold(2, width * b, b)  # (B, H, N, d, width * b)
    v = F.pad(v, (0, 0, ends, ends)).unfold(2, width * b, b)  # (B, H, N, d, width * b)
    real = F.pad(key_mask, (ends, ends)).unfold(1, width * b, b)[:, None, :, None]  # (B, 1, N, 1, width * b)
    scores = (q @ k / q.shape[-1] ** 0.5).masked_fill(~real, float("-inf"))  # (B, H, N, b, width * b)
    weights = torch.softmax(scores, dim=-1).masked_fill(~real, 0.0)  # nan where a window has no real key
    return (weights @ v.mT).flatten(2, 3)  # (B, H, n, d)


def _cases() -> list[Case]:
    def case(
        words: str, seed: int, shape: tuple[int, ...], blocks: int, width: int, unreal: Any = (), size: float = 1.0
    ) -> Case:
        batch, _, n, d = shape
        q, k, v = randoms(seed, *[shape] * 3)
        axes, block = ("document", "head", "query", "number"), (n // blocks, d)
        if n == d:
            v, axes = torch.eye(n, dtype=torch.float64).expand(shape).contiguous(), (*axes[:3], "key")
            block = (n // blocks, n // blocks)
        mask = torch.ones(batch, n, dtype=torch.bool)
        for document, tokens in unreal:
            mask[document, tokens] = False
        inputs = {"q": q * size, "k": k, "v": v, "key_mask": mask, "n_blocks": blocks, "width": width}
        return Case(words, inputs, axes, block)

    end, empty = (0, slice(9, None)), (1, slice(0, 6))
    return [
        case("With 6 blocks of 2, width 3, one-hot values", 0, (1, 2, 12, 12), 6, 3),
        case("With 6 blocks of 2, width 3, where each document has padding", 1, (2, 2, 12, 12), 6, 3, [end, (1, 3)]),
        case(
            "With 6 blocks of 2, width 3, where some windows hold padding only", 2, (2, 2, 12, 12), 6, 3, [end, empty]
        ),
        case("With 7 blocks of 3, width 5, d = 4", 3, (2, 3, 21, 4), 7, 5, [(1, slice(15, None))]),
        case("With 5 blocks of 2, width 1", 4, (1, 2, 10, 5), 5, 1),
        case("With 3 blocks of 2, width 9", 5, (2, 1, 6, 4), 3, 9, [(0, slice(4, None))]),
        case("With scores in the thousands", 6, (2, 2, 12, 5), 4, 3, [(1, slice(8, None))], 1000.0),
    ]


def _spec(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor, n_blocks: int, width: int) -> Tensor:
    batch, heads, n, _ = q.shape
    b, rows = n // n_blocks, []
    for document in range(batch):
        for head in range(heads):
            one = [x[document, head].tolist() for x in (q, k, v)]
            for i in range(n):
                near = [abs(j // b - i // b) <= (width - 1) / 2 for j in range(n)]
                read = [a and real for a, real in zip(near, key_mask[document].tolist(), strict=True)]
                rows += attend([one[0][i]], one[1], one[2], read)
    return table(rows).view(v.shape)


def _band(n: int, n_blocks: int, width: int) -> Tensor:
    """(n, n): the window of blocks as a mask of tokens."""
    block = torch.arange(n) // (n // n_blocks)
    return (block[:, None] - block).abs() <= width // 2


def _masked(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor, n_blocks: int, width: int) -> Tensor:
    read = _band(q.shape[2], n_blocks, width) & key_mask[:, None, None]  # (B, 1, n, n)
    weights = torch.softmax(scores_of(q, k).masked_fill(~read, -INF), -1)
    return weights.masked_fill(~read, 0.0) @ v


def _query_blocks(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor, n_blocks: int, width: int) -> Tensor:
    b, out = q.shape[2] // n_blocks, torch.zeros_like(v)
    for i in range(n_blocks):
        keys = slice(max(0, i - width // 2) * b, (i + width // 2 + 1) * b)
        real = key_mask[:, None, None, keys]
        scores = scores_of(q[:, :, i * b : (i + 1) * b], k[:, :, keys]).masked_fill(~real, -1e300)
        out[:, :, i * b : (i + 1) * b] = torch.softmax(scores, -1) * real @ v[:, :, keys]
    return out


def _moved(x: Tensor, blocks: int) -> Tensor:
    """(..., N, b, d), each block replaced by the one so many further on; zeros beyond the ends."""
    out, n = torch.zeros_like(x), x.shape[-3]
    if abs(blocks) < n:
        out[..., max(0, -blocks) : n - max(0, blocks), :, :] = x[..., max(0, blocks) : n + min(0, blocks), :, :]
    return out


def _copies(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor, n_blocks: int, width: int) -> Tensor:
    """As many moved copies of all keys as the window is wide."""
    half = range(-(width // 2), width // 2 + 1)
    q, k, v, real = (x.unflatten(-2, (n_blocks, -1)) for x in (q, k, v, key_mask[:, None, :, None].to(q)))
    keys, values, there = (torch.cat([_moved(x, s) for s in half], -2) for x in (k, v, real))
    scores = torch.einsum("...qd,...kd->...qk", q, keys) / q.shape[-1] ** 0.5
    scores = scores.masked_fill(there.mT == 0, -INF)
    weights = (scores - scores.amax(-1, keepdim=True).clamp(min=-1e300)).exp()
    total = weights.sum(-1, keepdim=True)
    return (weights / total.where(total > 0, 1.0) @ values).flatten(-3, -2)


# ---------------------------------------------------------------- wrong answers


def _other(read: Callable[..., Tensor], after: bool = True) -> Callable[..., Tensor]:
    """A wrong answer that reads other tokens. read: (n, n_blocks, width) -> (n, n) bool."""

    def wrong(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor, n_blocks: int, width: int) -> Tensor:
        mask = read(q.shape[2], n_blocks, width) & key_mask[:, None, None]
        weights = torch.softmax(scores_of(q, k).masked_fill(~mask, -INF), -1)
        return (weights.masked_fill(~mask, 0.0) if after else weights) @ v

    return wrong


def _scored(weigh: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """A wrong answer that weighs the right scores wrongly. weigh: (scores, read, real) -> weights, (B, H, n, n)."""

    def wrong(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor, n_blocks: int, width: int) -> Tensor:
        real = key_mask[:, None, None]
        return weigh(scores_of(q, k), _band(q.shape[2], n_blocks, width) & real, real) @ v

    return wrong


def _softmax(scores: Tensor, read: Tensor, value: float = -INF, dim: int = -1) -> Tensor:
    weights = torch.softmax(scores.masked_fill(~read, value), dim)
    return weights.masked_fill(~read, 0.0)


def _ring(n: int, n_blocks: int, width: int) -> Tensor:
    apart_ = apart(n_blocks) % n_blocks
    near = torch.minimum(apart_, n_blocks - apart_) <= width // 2
    return near.repeat_interleave(n // n_blocks, 0).repeat_interleave(n // n_blocks, 1)


def _blocks(keep: Callable[[Tensor, int], Tensor]) -> Callable[..., Tensor]:
    """keep: (key block less query block (N, N), half the width) -> (N, N) bool; as a mask of tokens."""

    def read(n: int, n_blocks: int, width: int) -> Tensor:
        grid, b = keep(apart(n_blocks), width // 2), n // n_blocks
        return grid.repeat_interleave(b, 0).repeat_interleave(b, 1)

    return read


def _zeros_read(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor, n_blocks: int, width: int) -> Tensor:
    """The zeros beyond the ends keep a score of 0, and their share of the softmax."""
    b = q.shape[2] // n_blocks
    ends = width // 2 * b
    q = q.unflatten(2, (n_blocks, b))
    k, v = (F.pad(x, (0, 0, ends, ends)).unfold(2, width * b, b) for x in (k, v))
    real = F.pad(key_mask, (ends, ends), value=True).unfold(1, width * b, b)[:, None, :, None]
    return (_softmax(q @ k / q.shape[-1] ** 0.5, real) @ v.mT).flatten(2, 3)


def _mixed(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor, n_blocks: int, width: int) -> Tensor:
    """The values of the window in the opposite order."""
    half = range(-(width // 2), width // 2 + 1)
    q, k, v, real = (x.unflatten(-2, (n_blocks, -1)) for x in (q, k, v, key_mask[:, None, :, None].to(q)))
    keys, there = (torch.cat([_moved(x, s) for s in half], -2) for x in (k, real))
    values = torch.cat([_moved(v, -s) for s in half], -2)
    weights = _softmax(q @ keys.mT / q.shape[-1] ** 0.5, there.mT > 0)
    return (weights @ values).flatten(-3, -2)


def _mean_of_window(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor, n_blocks: int, width: int) -> Tensor:
    """A large negative number in place of -inf, in windows cut out as in the lesson."""
    b = q.shape[2] // n_blocks
    ends = width // 2 * b
    q = q.unflatten(2, (n_blocks, b))
    k, v = (F.pad(x, (0, 0, ends, ends)).unfold(2, width * b, b) for x in (k, v))
    real = F.pad(key_mask, (ends, ends)).unfold(1, width * b, b)[:, None, :, None]
    return (torch.softmax((q @ k / q.shape[-1] ** 0.5).masked_fill(~real, -1e30), -1) @ v.mT).flatten(2, 3)


def _each_block(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor, n_blocks: int, width: int, mean: bool) -> Tensor:
    """A softmax for each block of the window, added up or averaged."""
    out, count, n = torch.zeros_like(v), 0, q.shape[2]
    for s in range(-(width // 2), width // 2 + 1):
        grid = (apart(n_blocks) == s).repeat_interleave(n // n_blocks, 0).repeat_interleave(n // n_blocks, 1)
        read = grid & key_mask[:, None, None]
        out = out + _softmax(scores_of(q, k), read) @ v
        count = count + read.any(-1, keepdim=True)
    return out / count.clamp(min=1) if mean else out


def _one(mask: list[bool], width: int = 3, keys: tuple[float, ...] = (0, 0, 0)) -> dict[str, Any]:
    """Three blocks of one token, d = 1, values 10, 20 and 40."""
    q, k, v = (table(x)[None, None, :, None] for x in ((1, 1, 1), keys, (10, 20, 40)))
    return {"q": q, "k": k, "v": v, "key_mask": torch.tensor([mask]), "n_blocks": 3, "width": width}


_ALL = [True, True, True]
_TWO = {
    "q": torch.zeros(1, 1, 6, 1, dtype=torch.float64),
    "k": torch.zeros(1, 1, 6, 1, dtype=torch.float64),
    "v": table([1, 2, 4, 8, 16, 32])[None, None, :, None],
    "key_mask": torch.ones(1, 6, dtype=torch.bool),
    "n_blocks": 3,
    "width": 3,
}
add(
    Task(
        "2.5",
        "attention in a window",
        3,
        window_attention,
        _cases,
        _spec,
        mistakes=(
            Mistake(
                "zeros beyond the ends that are read",
                "the zeros at the two ends get a score of 0 and a share of the attention, so the first and last blocks "
                "grow fainter. They are no words; which score has no weight at all?",
                (_zeros_read,),
                look=BLOCKS,
            ),
            Mistake(
                "a window that wraps round the ends",
                "the first block reads the last one, as roll brings it. A text has two ends, and the window is cut "
                "there.",
                (_other(_ring),),
                small={**_one(_ALL), **{key: torch.cat([_one(_ALL)[key]] * 2, 2) for key in "qkv"}}
                | {"key_mask": torch.ones(1, 6, dtype=torch.bool), "n_blocks": 6},
            ),
            Mistake(
                "a window of tokens",
                "each token has a window of its own, that moves with it. The window is one of blocks: all tokens of a "
                "block read the same keys.",
                (
                    _other(lambda n, blocks, width: apart(n).abs() <= width // 2),
                    _other(lambda n, blocks, width: apart(n).abs() <= width // 2 * (n // blocks)),
                ),
                small=_TWO,
                look=BAND,
            ),
            Mistake(
                "a window off by one",
                "your window is too wide or too narrow. The width counts the block itself; how many blocks are left "
                "for each side?",
                (
                    _other(_blocks(lambda far, half: far.abs() <= half + 1)),
                    _other(_blocks(lambda far, half: far.abs() <= 2 * half + 1)),
                    _other(_blocks(lambda far, half: far.abs() <= half - 1)),
                ),
                small=_one(_ALL, 1),
                look=LOOPS,
            ),
            Mistake(
                "a window to one side only",
                "your blocks look back, or ahead, but not both ways. The block itself is the middle of its window.",
                (
                    _other(_blocks(lambda far, half: (far <= 0) & (far >= -half))),
                    _other(_blocks(lambda far, half: (far >= 0) & (far <= half))),
                    _other(_blocks(lambda far, half: (far <= 0) & (far >= -2 * half))),
                    _other(_blocks(lambda far, half: (far >= 0) & (far <= 2 * half))),
                ),
                look=LOOPS,
            ),
            Mistake(
                "values of other blocks than the keys",
                "the weights belong to the keys of the window, and meet the values of other blocks. Keys and values "
                "have to be moved the same way.",
                (_mixed,),
                small=_one(_ALL, keys=(3, 0, 1)),
            ),
            Mistake(
                "a softmax for each block",
                "each block of the window is weighed by itself, so that every block gets the same in all, however "
                "badly it fits. Over which keys do the weights of a query sum to 1?",
                (lambda *x: _each_block(*x, mean=False), lambda *x: _each_block(*x, mean=True)),
                small=_one(_ALL, keys=(3, 0, 1)),
            ),
            Mistake(
                "no window at all",
                "every token reads the whole text. The scores are right, and too many of them are used.",
                (_other(lambda n, blocks, width: torch.ones(n, n, dtype=torch.bool)),),
            ),
            Mistake(
                "masked after the softmax",
                "keys outside the window, or padding, have had their share of the softmax before you took them away: "
                "the weights that are left sum to less than 1.",
                (
                    _scored(lambda s, read, real: torch.softmax(s, -1) * read),
                    _scored(lambda s, read, real: _softmax(s, read | ~real) * read),
                    _scored(lambda s, read, real: torch.softmax(s.masked_fill(~real, -1e300), -1) * read),
                ),
                small=_one([True, True, False]),
            ),
            Mistake(
                "padding keys left in",
                "every query still gives some of its attention to tokens that are not there: `key_mask` changes "
                "nothing in your result.",
                (lambda q, k, v, m, blocks, width: window_attention(q, k, v, torch.ones_like(m), blocks, width),),
                small=_one([True, True, False]),
            ),
            Mistake(
                "queries masked",
                "whole rows are taken away where a query is padding. Padding is not to be read; the row of a padded "
                "query is computed like any other.",
                (
                    lambda q, k, v, m, blocks, width: window_attention(q, k, v, m, blocks, width) * m[:, None, :, None],
                    lambda q, k, v, m, blocks, width: (
                        window_attention(q, k, v, torch.ones_like(m), blocks, width) * m[:, None, :, None]
                    ),
                ),
                small=_one([True, True, False]),
            ),
            Mistake(
                "nan where a window is all padding",
                "a window without a real key is a softmax of -inf alone, which is 0 / 0. Such a row is to give zeros.",
                (_other(_band, after=False),),
                small=_one([True, False, False], 1),
            ),
            Mistake(
                "padding read where a window is all padding",
                "in a window without a real key all scores are pushed equally low, and the softmax shares out all the "
                "same. Such a row is to give zeros.",
                (
                    _scored(lambda s, read, real: torch.softmax(s.masked_fill(~read, -1e30), -1)),
                    _mean_of_window,
                ),
                small=_one([True, False, False], 1),
            ),
            Mistake(
                "no 1/√d",
                "the right keys are read, with weights that are too sharp. Each score is still to be divided by "
                "something.",
                (lambda q, k, v, m, blocks, width: window_attention(q * q.shape[-1] ** 0.5, k, v, m, blocks, width),),
                small={
                    **_one(_ALL, 1),
                    "q": table([[1, 0, 1, 0], [2, 2, 0, 2]])[None, None],
                    "k": table([[2, 0, 0, 0], [0, 1, 0, 1]])[None, None],
                    "v": table([[1, 0, 0, 0], [0, 1, 0, 0]])[None, None],
                    "key_mask": torch.tensor([[True, True]]),
                    "n_blocks": 1,
                },
                look=LOOPS,
            ),
        ),
        hints=(
            "Begin with one query block in a loop: the keys of its window are one slice of the text, cut off at both "
            "ends. Then the rest is task 1.2 for these keys.",
            "Without a loop, as in the lesson: `F.pad` puts zeros before and behind, `unfold` cuts out the windows. "
            "Dimension 2 of (B, H, n, d) is the tokens; for `unfold` along it, the windows come as the last dimension.",
            "Treat `key_mask` as you treat the keys, with False beyond the ends: then one mask shuts out padding and "
            "the zeros alike. Where it leaves nothing, the weights are nan: fill them with zeros.",
        ),
        why="Windows that are equally long make one matrix product for all blocks, and the padding at the ends costs "
        "little. One mask, padded with False, says what is a word: padding of the batch and zeros beyond the ends are "
        "the same thing to it. The memory grows with n, not with n times n.",
        also_right=(_masked, _query_blocks, _copies),
        small=_one(_ALL),
        look=BLOCKS,
        lesson=LESSON,
        skill="attention in a window",
    )
)
