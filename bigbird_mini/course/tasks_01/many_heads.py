"""Task 1.2: attention of many heads over a batch of documents, in which padding is not read."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bigbird_mini.pattern import BlockPattern

from ..catalogue import Case, Mistake, Swap, Task, add
from .common import HEADS, INF, LESSON, MASKS, MATRICES, NOTHING, ROOT, attend, randoms, scores_of, table
from .one_head import head_attention


def multi_head(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor) -> Tensor:
    """Attention of H heads over B documents: q, k, v (B, H, n, d), key_mask (B, n) -> (B, H, n, d)."""
    real = key_mask[:, None, None, :]  # (B, 1, 1, n): the same keys for every head and query
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5  # (B, H, n, n)
    scores = scores.masked_fill(~real, float("-inf"))  # exp(-inf) is 0: no weight at all
    weights = torch.softmax(scores, dim=-1)
    weights = weights.masked_fill(~real, 0.0)  # a row of -inf alone came out as nan
    return weights @ v


def _masks(batch: int, n: int) -> list[tuple[str, Tensor]]:
    """Which tokens are real, from harmless to hard; no two documents alike."""
    every = torch.ones(batch, n, dtype=torch.bool)
    end, anywhere, empty = every.clone(), every.clone(), every.clone()
    for b in range(batch):
        end[b, n - 1 - b :] = False
        anywhere[b, b :: 2 + b] = False
    empty[-1] = False
    return [
        ("every token is real", every),
        ("each document ends in padding", end),
        ("padding lies between real tokens", anywhere),
        ("the last document is all padding, so its rows are zeros", empty),
    ]


def _many_cases() -> list[Case]:
    cases = []
    q, k = randoms(5, *[(2, 3, 5, 5)] * 2)
    one_hot = torch.eye(5, dtype=torch.float64).expand(2, 3, 5, 5).contiguous()
    for words, mask in _masks(2, 5):
        inputs = {"q": q, "k": k, "v": one_hot, "key_mask": mask}
        cases.append(Case(f"Where {words} (one-hot values)", inputs, ("document", "head", "query", "key")))
    for seed, (batch, heads, n, d) in enumerate([(2, 3, 7, 5), (3, 2, 6, 4)]):
        q, k, v = randoms(seed, *[(batch, heads, n, d)] * 3)
        for words, mask in _masks(batch, n):
            for more, q_, k_ in [
                ("", q, k),
                # large scores of either sign show how firmly padding is shut out, and whether exp overflows
                (" and the scores are in the hundreds", q, 300 * k),
                # every real score lies far below zero: a masked one that is merely "very negative" would win
                (" and all scores are far below zero", q.abs() + 0.5, -3e4 * (k.abs() + 0.5)),
            ]:
                inputs = {"q": q_, "k": k_, "v": v, "key_mask": mask}
                cases.append(Case(f"Where {words}{more}", inputs, ("document", "head", "query", "number")))
    return cases


def _large() -> dict[str, Any]:
    q, k, v = randoms(5, *[(2, 4, 256, 64)] * 3)
    mask = torch.ones(2, 256, dtype=torch.bool)
    mask[1, 200:] = False
    return {"q": q, "k": k, "v": v, "key_mask": mask}


def _as_attention(answer: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The answer with the signature of bigbird_mini.attention; it knows no pattern but the full one."""

    def fn(q: Tensor, k: Tensor, v: Tensor, p: BlockPattern, key_mask: Tensor | None = None) -> Tensor:
        every = torch.ones(q.shape[0], q.shape[2], dtype=torch.bool)  # (B, n)
        return answer(q, k, v, every if key_mask is None else key_mask)

    return fn


def _many_spec(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor) -> Tensor:
    rows = [
        [attend(*(x[b, h].tolist() for x in (q, k, v)), key_mask[b].tolist()) for h in range(q.shape[1])]
        for b in range(q.shape[0])
    ]
    return table(rows)


def _many_loop(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor) -> Tensor:
    out = torch.zeros_like(v)
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            if (real := key_mask[b]).any():
                out[b, h] = head_attention(q[b, h], k[b, h][real], v[b, h][real])
    return out


def _many_einsum(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor) -> Tensor:
    scores = torch.einsum("bhid,bhjd->bhij", q, k) / math.sqrt(q.shape[-1])
    scores = torch.where(key_mask[:, None, None], scores, -1e30)
    return torch.einsum("bhij,bhjd->bhid", torch.softmax(scores, -1) * key_mask[:, None, None], v)


def _many_gather(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor) -> Tensor:
    one_by_one = zip(*(x.flatten(0, 1) for x in (q, k, v)), key_mask.repeat_interleave(q.shape[1], 0), strict=True)
    rows = [head_attention(a, b[real], c[real]) if real.any() else 0 * c for a, b, c, real in one_by_one]
    return torch.stack(rows).unflatten(0, q.shape[:2])


# ---------------------------------------------------------------- wrong answers


def _heads(on_scores: Any, on_weights: Any = lambda w, m: w, zeros: bool = True) -> Any:
    """A wrong answer with the mask used in another way. on_scores, on_weights: (tensor, mask) -> tensor."""

    def wrong(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor) -> Tensor:
        weights = torch.softmax(on_scores(scores_of(q, k), key_mask), -1)
        return on_weights(weights.nan_to_num(0.0) if zeros else weights, key_mask) @ v

    return wrong


def _lowered(by: float) -> Any:
    return lambda s, m: s - by * ~m[:, None, None]


def _filled(value: float) -> Any:
    return _heads(lambda s, m: s.masked_fill(~m[:, None, None], value), lambda w, m: w * m.any(-1)[:, None, None, None])


def _batch_and_heads(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor) -> Tensor:
    b, h, n, d = q.shape
    q, k, v = (x.reshape(h, b, n, d).transpose(0, 1) for x in (q, k, v))
    return multi_head(q, k, v, key_mask)


def _heads_and_tokens(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor) -> Tensor:
    return multi_head(q, k, v, key_mask).transpose(1, 2).reshape(q.shape)


def _exp(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor) -> Tensor:
    weights = scores_of(q, k).exp() * key_mask[:, None, None]
    return weights / weights.sum(-1, keepdim=True).clamp(min=1e-300) @ v


def _one(q: list[float], k: list[float], mask: list[bool]) -> dict[str, Tensor]:
    """One document, one head, d = 1, values 10 and 20."""
    q_, k_ = (table(x)[None, None, :, None] for x in (q, k))
    return {"q": q_, "k": k_, "v": table([10, 20])[None, None, :, None], "key_mask": torch.tensor([mask])}


_ONE = _one([1, 2], [1, 0], [True, False])
add(
    Task(
        "1.2",
        "many heads, real tokens only",
        2,
        multi_head,
        _many_cases,
        _many_spec,
        mistakes=(
            Mistake(
                "padding keys left in",
                "every query still gives some of its attention to tokens that are not there: `key_mask` changes "
                "nothing in your result.",
                (_heads(lambda s, m: s),),
            ),
            Mistake(
                "masked after the softmax",
                "padding has had its share of the softmax before you took it away, so the weights that are left sum "
                "to less than 1 and the document grows fainter. Where in the formula can padding be taken out earlier?",
                (_heads(lambda s, m: s, lambda w, m: w * m[:, None, None]),),
            ),
            Mistake(
                "queries masked",
                "a mask of queries takes whole rows away. Padding is not to be read, so it goes from the columns; the "
                "row of a padded query is computed like any other.",
                (
                    _heads(lambda s, m: s.masked_fill(~m[:, None, :, None], -INF)),
                    _heads(lambda s, m: s.masked_fill(~m[:, None, :, None], -1e30)),
                    _heads(lambda s, m: s.masked_fill(~(m[:, None, :, None] & m[:, None, None]), -INF)),
                    _heads(lambda s, m: s.masked_fill(~m[:, None, None], -INF), lambda w, m: w * m[:, None, :, None]),
                    _heads(lambda s, m: s, lambda w, m: w * m[:, None, :, None]),
                ),
            ),
            Mistake(
                "True taken for padding",
                "you leave out the real tokens and read the padding. What does True in `key_mask` stand for?",
                (_heads(lambda s, m: s.masked_fill(m[:, None, None], -INF)),),
            ),
            Mistake(
                "masked scores times 0",
                "0 is a score like any other, and exp(0) is 1: padding still weighs something. Which score has no "
                "weight at all?",
                (_heads(lambda s, m: s * m[:, None, None]), _filled(0.0)),
            ),
            Mistake(
                "padding pushed away by too little",
                "a large negative number stands where padding is, and where real scores lie even lower, padding wins. "
                "Which number is below every score?",
                (*(_filled(-x) for x in (1e2, 1e3, 1e4)), *(_heads(_lowered(x)) for x in (10.0, 100.0, 1e4))),
                small=_one([1, 1], [-60000, 0], [True, False]),
            ),
            Mistake(
                "nan where all is padding",
                "in a document without a real token each row is a softmax of -inf alone, which is 0 / 0. That case is "
                "to give zeros; and nan times 0 is still nan.",
                (_heads(lambda s, m: s.masked_fill(~m[:, None, None], -INF), zeros=False),),
                small=_one([1, 2], [1, 0], [False, False]),
                look=NOTHING,
            ),
            Mistake(
                "padding read where all is padding",
                "in a document without a real token, all scores are pushed equally low, and the softmax shares out "
                "all the same. That case is to give zeros.",
                (_heads(lambda s, m: s.masked_fill(~m[:, None, None], -1e30)),),
                small=_one([1, 2], [1, 0], [False, False]),
                look=NOTHING,
            ),
            Mistake(
                "one document's mask for all",
                "the documents of a batch have padding in different places, and you use the mask of one of them for "
                "all.",
                (
                    _heads(lambda s, m: s.masked_fill(~m[:1, None, None], -INF)),
                    _heads(lambda s, m: s.masked_fill(~m[-1:, None, None], -INF)),
                    _heads(lambda s, m: s.masked_fill(~m.all(0), -INF)),
                ),
                small={key: torch.cat([x, x]) for key, x in _ONE.items() if key != "key_mask"}
                | {"key_mask": torch.tensor([[True, False], [False, True]])},
            ),
            Mistake(
                "heads mixed up",
                "numbers of one head (or document) have landed in another: a reshape puts the same numbers into "
                "another shape in the order in which they lie, and swaps no dimensions.",
                (_batch_and_heads, _heads_and_tokens),
                small={
                    "q": torch.zeros(2, 2, 2, 1, dtype=torch.float64),
                    "k": torch.zeros(2, 2, 2, 1, dtype=torch.float64),
                    "v": torch.arange(8, dtype=torch.float64).view(2, 2, 2, 1),
                    "key_mask": torch.tensor([[True, True], [True, False]]),
                },
                look=HEADS,
            ),
            Mistake(
                "no 1/√d",
                "the mask is right, and the scores are too large: task 1.1 divided them by something.",
                (lambda q, k, v, key_mask: multi_head(q * q.shape[-1] ** 0.5, k, v, key_mask),),
                small={
                    "q": table([[[[1, 0, 1, 0], [2, 2, 0, 2]]]]),
                    "k": table([[[[2, 0, 0, 0], [0, 1, 0, 1]]]]),
                    "v": table([[[[1, 0, 0, 0], [0, 1, 0, 0]]]]),
                    "key_mask": torch.tensor([[True, True]]),
                },
                look=ROOT,
            ),
            Mistake(
                "softmax over the queries",
                "your weights sum to 1 down each column. Each query has one unit of attention of its own to give away.",
                (
                    lambda q, k, v, key_mask: (
                        torch.softmax(scores_of(q, k).masked_fill(~key_mask[:, None, None], -1e30), -2) @ v
                    ),
                    lambda q, k, v, key_mask: (
                        torch.softmax(scores_of(q, k).masked_fill(~key_mask[:, None, None], -INF), -2).nan_to_num(0.0)
                        @ v
                    ),
                ),
                look=MATRICES,
            ),
            Mistake(
                "exp of large scores",
                "exp(710) is too large for float64, and a row of such numbers makes inf / inf. Taking one number from "
                "all scores of a row changes none of its weights.",
                (_exp,),
                small=_one([1000, 1], [1, 0], [True, True]),
                look=MATRICES,
            ),
        ),
        hints=(
            "Leave the mask out at first: with `k.transpose(-1, -2)` the lines of task 1.1 work for (B, H, n, d) as "
            "they are. Then ask where padding must not be: in the rows of the scores, or in the columns?",
            "`key_mask[:, None, None, :]` has shape (B, 1, 1, n) and stretches over heads and queries by itself. Put "
            "-inf into the scores where it is False, before the softmax.",
            "One case is left: a row of -inf alone comes out of the softmax as nan. `masked_fill` on the weights puts "
            "zeros where padding is, whatever stood there.",
        ),
        why="The mask has one row for each document, and broadcasting lends it to every head and query. Before the "
        "softmax it takes padding out of the sum; after it, it only has to clean up the rows that had nothing to "
        "read. -inf is below every score, which no finite number is.",
        also_right=(_many_loop, _many_einsum, _many_gather),
        small=_ONE,
        look=MASKS,
        lesson=LESSON,
        skill="heads and padding",
        large=_large,
        swap=Swap(_as_attention, BlockPattern.full),
        distractors=('scores = scores.masked_fill(real, float("-inf"))', "weights = torch.softmax(scores, dim=-2)"),
    )
)
