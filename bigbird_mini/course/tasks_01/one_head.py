"""Task 1.1: attention of one head, over all keys."""

import math
from typing import Any

import torch
from torch import Tensor

from ..catalogue import Case, Mistake, Task, add
from .common import BY_HAND, LESSON, MATRICES, ROOT, attend, randoms, scores_of, table


def head_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of one head: q (n, d), k (m, d), v (m, e) -> (n, e)."""
    scores = q @ k.T / q.shape[-1] ** 0.5  # (n, m)
    weights = torch.softmax(scores, dim=-1)  # each row sums to 1
    return weights @ v  # (n, e)


def _head_cases() -> list[Case]:
    def case(words: str, seed: int, n: int, m: int, d: int, e: int, size: float = 1.0) -> Case:
        q, k, v = randoms(seed, (n, d), (m, d), (m, e))
        return Case(words, {"q": q * size, "k": k * size, "v": v}, ("query", "number"))

    q, k = randoms(3, (6, 4), (6, 4))
    one_hot = torch.eye(6, dtype=torch.float64)
    return [
        Case("With 6 queries, 6 keys and one-hot values", {"q": q, "k": k, "v": one_hot}, ("query", "key")),
        case("With 7 queries, 6 keys, d = 5, e = 4", 0, 7, 6, 5, 4),
        case("With 6 queries, 9 keys, d = 3, e = 8", 1, 6, 9, 3, 8),
        # float64 overflows in exp from 710 on, and whole rows of exp vanish below -745
        case("With scores in the thousands", 2, 8, 7, 5, 4, 40.0),
    ]


def _head_spec(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return table(attend(q.tolist(), k.tolist(), v.tolist()))


def _head_loop(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out = torch.zeros(len(q), v.shape[1], dtype=v.dtype)
    for i in range(len(q)):
        weights = torch.softmax(torch.stack([q[i] @ key for key in k]) / q.shape[1] ** 0.5, dim=0)
        for j in range(len(k)):
            out[i] += weights[j] * v[j]
    return out


def _head_einsum(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores = torch.einsum("id,jd->ij", q, k) / math.sqrt(q.shape[1])
    weights = (scores - scores.amax(1, keepdim=True)).exp()
    return torch.einsum("ij,je->ie", weights / weights.sum(1, keepdim=True), v)


def _head_numpy(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    a, b, c = q.numpy(), k.numpy(), v.numpy()
    scores = (a[:, None] * b[None]).sum(-1) * a.shape[-1] ** -0.5
    weights = math.e ** (scores - scores.max(1, keepdims=True))
    return torch.from_numpy((weights[:, :, None] * c[None]).sum(1) / weights.sum(1)[:, None])


def _exp_only(q: Tensor, k: Tensor, v: Tensor, less: Any = lambda scores: 0.0, sums: bool = True) -> Tensor:
    """exp and sum without softmax's care: `less` is what is taken from the scores first."""
    weights = (scores_of(q, k) - less(scores_of(q, k))).exp()
    return (weights / weights.sum(-1, keepdim=True) if sums else weights) @ v


_LARGE = {
    "q": table([[100, 0, 0, 0], [0, 0, 0, 0]]),
    "k": table([[40, 0, 0, 0], [0, 0, 0, 0]]),
    "v": table([[1, 0], [0, 1]]),
}
_HEAD_SMALL = {
    "q": table([[1, 0, 1, 0], [2, 2, 0, 2]]),
    "k": table([[2, 0, 0, 0], [0, 1, 0, 1]]),
    "v": table([[1, 0], [0, 1]]),
}
add(
    Task(
        "1.1",
        "one head by hand",
        2,
        head_attention,
        _head_cases,
        _head_spec,
        mistakes=(
            Mistake(
                "no 1/√d",
                "the more numbers a query has, the larger its products with the keys, and the softmax then gives "
                "nearly all to one key. The formula has something against it.",
                (lambda q, k, v: torch.softmax(q @ k.T, -1) @ v,),
                look=ROOT,
            ),
            Mistake(
                "another divisor than √d",
                "the scores are divided, though not by the number that undoes the growth. A score is a sum of how "
                "many products, and how fast does the spread of such a sum grow?",
                tuple(
                    lambda q, k, v, by=by: torch.softmax(q @ k.T / by(q, k, v), -1) @ v
                    for by in (
                        lambda q, k, v: q.shape[1],
                        lambda q, k, v: len(q) ** 0.5,
                        lambda q, k, v: len(k) ** 0.5,
                        lambda q, k, v: v.shape[1] ** 0.5,
                        lambda q, k, v: q.shape[1] ** -0.5,
                    )
                ),
                look=ROOT,
            ),
            Mistake(
                "softmax over the queries",
                "your weights sum to 1 down each column, over the queries; so keys share themselves out among their "
                "readers. Who has one unit of attention to give away, a query or a key?",
                (lambda q, k, v: torch.softmax(scores_of(q, k), 0) @ v,),
            ),
            Mistake(
                "queries and keys swapped",
                "each row of your result belongs to a key, which looks through the queries. A row of the result "
                "answers a query.",
                (lambda q, k, v: torch.softmax(scores_of(k, q), -1) @ v,),
            ),
            Mistake(
                "keys not turned",
                "a row of q cannot be multiplied with the rows of k like this. Each score is the product of one row "
                "of q with one row of k.",
                (lambda q, k, v: torch.softmax(q @ k / q.shape[1] ** 0.5, -1) @ v,),
            ),
            Mistake(
                "no softmax",
                "the scores themselves are used as weights, and scores may be negative. The formula has a step "
                "between the scores and the mean.",
                (
                    lambda q, k, v: scores_of(q, k) @ v,
                    lambda q, k, v: scores_of(q, k) / scores_of(q, k).sum(-1, keepdim=True) @ v,
                ),
                look=BY_HAND,
            ),
            Mistake(
                "weights that do not sum to 1",
                "you take exp, and then use the result as it is: a query with large scores gets more in all than "
                "another. What makes a mean of a sum?",
                (
                    lambda q, k, v: _exp_only(q, k, v, sums=False),
                    lambda q, k, v: _exp_only(q, k, v, lambda s: s.amax(-1, keepdim=True), sums=False),
                ),
                look=BY_HAND,
            ),
            Mistake(
                "exp of large scores",
                "the formula is right, the numbers are not: exp(710) is too large for float64, exp(-750) is 0, and a "
                "row of these makes 0 / 0. Taking one number from all scores of a row changes none of its weights.",
                (_exp_only, lambda q, k, v: _exp_only(q, k, v, lambda s: s.max())),
                small=_LARGE,
                look=MATRICES,
            ),
            Mistake(
                "the weights handed back",
                "the weights are a step on the way. What a query gets is the mean that they make of the values, and "
                "nothing else is to come back.",
                (
                    lambda q, k, v: torch.softmax(scores_of(q, k), -1),
                    lambda q, k, v: (head_attention(q, k, v), torch.softmax(scores_of(q, k), -1)),
                ),
                small={**_HEAD_SMALL, "v": table([[1], [3]])},
            ),
        ),
        hints=(
            "Three steps, one line each: a score for every pair of a query and a key, weights from the scores, means "
            "of the values. What shape has the result of each?",
            "`q @ k.T` is the (n, m) matrix of all products: row i belongs to query i. Divide it by the square root "
            "of d, which is `q.shape[-1]`.",
            "`torch.softmax(scores, dim=...)` makes weights: choose the dimension along which they are to sum to 1 "
            "for each query. Then `weights @ v` takes the means.",
        ),
        why="One matrix product makes all scores, a softmax along the keys makes each row a set of shares, and a "
        "second product takes the means. torch.softmax takes the largest score of the row away first, so that no exp "
        "overflows.",
        also_right=(_head_loop, _head_einsum, _head_numpy),
        small=_HEAD_SMALL,
        look=MATRICES,
        lesson=LESSON,
        skill="attention of one head",
        large=lambda: dict(zip("qkv", randoms(5, (128, 64), (96, 64), (96, 48)), strict=True)),
    )
)
