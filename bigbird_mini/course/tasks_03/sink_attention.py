"""Task 3.3: attention with a sink, a learned score without a value."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..catalogue import Case, Mistake, Task, add
from ..tasks_01.common import randoms, scores_of, table
from .common import GATE, LESSON, SINK


def sink_attention(q: Tensor, k: Tensor, v: Tensor, sink: float) -> Tensor:
    """Attention of one head with a sink of this score: q (n, d), k (m, d), v (m, e) -> (n, e)."""
    scores = q @ k.T / q.shape[-1] ** 0.5  # (n, m)
    column = torch.full_like(scores[:, :1], sink)  # (n, 1): the same score for every query
    weights = torch.softmax(torch.cat([scores, column], -1), dim=-1)  # (n, m + 1), each row sums to 1
    return weights[:, :-1] @ v  # (n, e): the sink's share is given to nobody


def _cases() -> list[Case]:
    def case(words: str, seed: int, n: int, m: int, d: int, e: int, sink: float, size: float = 1.0) -> Case:
        q, k, v = randoms(seed, (n, d), (m, d), (m, e or m))
        v = v if e else torch.eye(m, dtype=torch.float64)
        inputs = {"q": q * size, "k": k, "v": v, "sink": sink}
        return Case(words, inputs, ("query", "number" if e else "key"))

    return [
        case("With 6 queries, 5 keys, one-hot values, a sink of 1.5", 0, 6, 5, 4, 0, 1.5),
        case("With 4 queries, 7 keys, e = 3, a sink of -0.5", 1, 4, 7, 5, 3, -0.5),
        case("With scores in the thousands", 2, 5, 6, 4, 3, 2.0, 2000.0),
        case("With a sink of 900", 3, 3, 4, 2, 5, 900.0),
    ]


def _spec(q: Tensor, k: Tensor, v: Tensor, sink: float) -> Tensor:
    """Number by number: the weight of key j is 1 over the sum of exp(other score - its score), the sink among them."""
    out = []
    for query in q.tolist():
        scores = [sum(a * c for a, c in zip(query, key, strict=True)) / len(query) ** 0.5 for key in k.tolist()]
        every = table([*scores, sink])
        weights = [float(1 / (every - s).exp().sum()) for s in scores]
        out.append([sum(w * row[c] for w, row in zip(weights, v.tolist(), strict=True)) for c in range(v.shape[1])])
    return table(out)


def _as_token(q: Tensor, k: Tensor, v: Tensor, sink: float) -> Tensor:
    scores = torch.cat([torch.full((len(q), 1), sink, dtype=q.dtype), scores_of(q, k)], 1)
    return torch.softmax(scores, 1) @ torch.cat([torch.zeros_like(v[:1]), v])


def _gated(q: Tensor, k: Tensor, v: Tensor, sink: float) -> Tensor:
    scores = scores_of(q, k)
    gate = torch.sigmoid(scores.logsumexp(-1, keepdim=True) - sink)  # what the sink leaves of each row
    return gate * (torch.softmax(scores, -1) @ v)


def _loops(q: Tensor, k: Tensor, v: Tensor, sink: float) -> Tensor:
    out = torch.zeros(len(q), v.shape[1], dtype=v.dtype)
    for i in range(len(q)):
        scores = torch.stack([(q[i] * key).sum() for key in k]) / q.shape[1] ** 0.5
        top = max(scores.max().item(), sink)
        total = (scores - top).exp().sum() + torch.tensor(sink - top, dtype=q.dtype).exp()
        for j in range(len(k)):
            out[i] += (scores[j] - top).exp() / total * v[j]
    return out


# ---------------------------------------------------------------- wrong answers


def _column(scores: Tensor, sink: float) -> Tensor:
    return torch.full_like(scores[:, :1], sink)


def _joined(
    before: Callable[[Tensor, Tensor], Tensor] = scores_of,
    after: Callable[[Tensor], Tensor] = lambda w: w[:, :-1],
    values: Callable[[Tensor], Tensor] = lambda v: v,
    scale: Callable[[Tensor], float] = lambda q: 1.0,
) -> Callable[..., Tensor]:
    """Wrong answers that join the sink's column at the end and do something else besides."""

    def wrong(q: Tensor, k: Tensor, v: Tensor, sink: float) -> Tensor:
        scores = before(q, k)
        weights = torch.softmax(torch.cat([scores, _column(scores, sink * scale(q))], -1), -1)
        return after(weights) @ values(v)

    return wrong


def _wrong_end(q: Tensor, k: Tensor, v: Tensor, sink: float) -> Tensor:
    scores = scores_of(q, k)
    return torch.softmax(torch.cat([_column(scores, sink), scores], -1), -1)[:, :-1] @ v


def _over_a_key(q: Tensor, k: Tensor, v: Tensor, sink: float, at: int) -> Tensor:
    scores = scores_of(q, k)
    scores[:, at] = sink
    weights = torch.softmax(scores, -1)
    weights[:, at] = 0
    return weights @ v


def _naive(q: Tensor, k: Tensor, v: Tensor, sink: float) -> Tensor:
    weights = scores_of(q, k).exp()
    return weights / (weights.sum(-1, keepdim=True) + torch.tensor(sink, dtype=q.dtype).exp()) @ v


def _no_exp(q: Tensor, k: Tensor, v: Tensor, sink: float) -> Tensor:
    weights = scores_of(q, k).exp()
    return weights / (weights.sum(-1, keepdim=True) + sink) @ v


def _not_moved(q: Tensor, k: Tensor, v: Tensor, sink: float) -> Tensor:
    """The largest score is taken from the scores and not from the sink."""
    scores = scores_of(q, k)
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    return weights / (weights.sum(-1, keepdim=True) + torch.tensor(sink, dtype=q.dtype).exp()) @ v


def _same_for_all(q: Tensor, k: Tensor, v: Tensor, sink: float) -> Tensor:
    left = 1 - torch.sigmoid(torch.tensor(sink, dtype=q.dtype))
    return left * (torch.softmax(scores_of(q, k), -1) @ v)


_KEYS = {
    "q": table([[1, 0, 0, 0], [0, 2, 0, 0]]),
    "k": table([[2, 0, 0, 0], [0, 0, 1, 0]]),
    "v": table([[1, 0], [0, 1]]),
    "sink": 1.0,
}
_LARGE = {**_KEYS, "q": table([[2000, 0, 0, 0], [0, 2, 0, 0]])}
add(
    Task(
        "3.3",
        "attention with a sink",
        2,
        sink_attention,
        _cases,
        _spec,
        mistakes=(
            Mistake(
                "weights that still sum to 1",
                "the sink has no effect: your weights over the keys sum to 1 in every row. A sink takes its share of "
                "that 1 and gives it to nobody.",
                (
                    lambda q, k, v, sink: torch.softmax(scores_of(q, k), -1) @ v,
                    lambda q, k, v, sink: torch.softmax(scores_of(q, k) + sink, -1) @ v,
                    _joined(after=lambda w: w[:, :-1] / w[:, :-1].sum(-1, keepdim=True)),
                ),
            ),
            Mistake(
                "the sink divided by √d",
                "scores are divided because they are sums of d products. The sink is a score already, and no product.",
                (_joined(scale=lambda q: q.shape[1] ** -0.5),),
            ),
            Mistake(
                "the wrong end dropped",
                "the sink's column was put at one end of the scores, and the weights of the other end are dropped: a "
                "key is lost, and the others stand one place off.",
                (_wrong_end, _joined(after=lambda w: w[:, 1:])),
            ),
            Mistake(
                "the sink in the place of a key",
                "one key's score is overwritten by the sink's. The sink comes besides all keys.",
                (
                    lambda q, k, v, sink: _over_a_key(q, k, v, sink, 0),
                    lambda q, k, v, sink: _over_a_key(q, k, v, sink, -1),
                ),
            ),
            Mistake(
                "a sink that hands something over",
                "what the sink takes comes back as a value. It is to be given to nobody, or, which is the same, the "
                "sink's value is all zeros.",
                (
                    _joined(after=lambda w: w, values=lambda v: torch.cat([v, torch.ones_like(v[:1])])),
                    _joined(after=lambda w: w, values=lambda v: torch.cat([v, v.mean(0, keepdim=True)])),
                    _joined(after=lambda w: w, values=lambda v: torch.cat([v, v[:1]])),
                ),
            ),
            Mistake(
                "the sink not put through exp",
                "to the sum of all exp(score) you add the sink itself. It is a score, like the others.",
                (_no_exp,),
            ),
            Mistake(
                "the same share for every query",
                "each row loses the same part. A query that finds a key that fits well loses less to the sink than one "
                "that finds nothing.",
                (_same_for_all,),
                look=GATE,
            ),
            Mistake(
                "each key against the sink alone",
                "each of your weights knows one key and the sink, and nothing of the other keys: a row may sum to more "
                "than 1. All of them share one softmax.",
                (lambda q, k, v, sink: torch.sigmoid(scores_of(q, k) - sink) @ v,),
            ),
            Mistake(
                "no 1/√d",
                "the scores of the keys are too large beside the sink. They are still to be divided by something.",
                (_joined(before=lambda q, k: q @ k.T),),
            ),
            Mistake(
                "the largest score taken from the keys only",
                "to keep exp small you take the largest score from those of the keys, and leave the sink as it was: "
                "now it weighs more than it should. What is taken from one is taken from all.",
                (_not_moved,),
            ),
            Mistake(
                "exp of large scores",
                "the formula is right, the numbers are not: exp(710) is too large for float64, and inf / inf is nan. "
                "Taking one number from all scores of a row, the sink's too, changes none of its weights.",
                (_naive,),
                small=_LARGE,
            ),
        ),
        hints=(
            "A sink is a key that no query compares itself with: its score is always the same number. How many scores "
            "has each query then, and how many weights?",
            "`torch.full((n, 1), sink, dtype=q.dtype)` is a column of the sink's score. `torch.cat` puts it beside the "
            "scores of the keys, before the softmax.",
            "After the softmax over m + 1 scores, drop the sink's column, the one that you have put there, and leave "
            "the others as they are: they sum to less than 1. Then they meet the m values.",
        ),
        why="One more column before the softmax, dropped behind it. In other words: what ordinary attention gives, "
        "times sigmoid(logsumexp(scores) - sink), a gate for each query. A query that fits nothing is turned down.",
        also_right=(_as_token, _gated, _loops),
        small=_KEYS,
        look=SINK,
        lesson=LESSON,
        skill="attention sinks",
    )
)
