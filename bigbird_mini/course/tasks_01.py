"""The tests of exercise 01, dense attention.

Every dimension differs from every other, queries and keys are not alike, and the expected results come from plain
loops over Python numbers, so that a mistake in an axis, a scale or a mask cannot go unseen.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .checking import task
from .compare import call, same_integer, same_tensor

Rows = list[list[float]]


def _attend(q: Rows, k: Rows, v: Rows, real: list[bool] | None = None) -> Rows:
    """softmax(q k^T / sqrt(d)) v over the real keys, number by number; zeros where there are none."""
    out = []
    for query in q:
        scores = [sum(a * b for a, b in zip(query, key, strict=True)) / math.sqrt(len(query)) for key in k]
        kept = [j for j in range(len(k)) if real is None or real[j]]
        top = max((scores[j] for j in kept), default=0.0)
        weights = {j: math.exp(scores[j] - top) for j in kept}
        total = sum(weights.values()) or 1.0
        out.append([sum(w * v[j][c] for j, w in weights.items()) / total for c in range(len(v[0]))])
    return out


def _random(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@task("1.1", "one head by hand", points=2)
def one_head(head_attention: Callable[..., Any]) -> None:
    cases = [
        ("With 7 queries, 6 keys, d = 5, e = 4", 0, (7, 6, 5, 4), 1.0),
        ("With 6 queries, 9 keys, d = 3, e = 8", 1, (6, 9, 3, 8), 1.0),
        # float64 overflows in exp from 710 on, and whole rows of exp vanish below -745
        ("With scores in the thousands", 2, (8, 7, 5, 4), 40.0),
    ]
    for case, seed, (n, keys, d, e), size in cases:
        q, k, v = _random(seed, (n, d), (keys, d), (keys, e))
        q, k = q * size, k * size
        expected = torch.tensor(_attend(q.tolist(), k.tolist(), v.tolist()), dtype=torch.float64)
        same_tensor(call(head_attention, q=q, k=k, v=v), expected, ("query", "number"), case)


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


@task("1.2", "many heads, real tokens only", points=2)
def many_heads(multi_head: Callable[..., Any]) -> None:
    for seed, (batch, heads, n, d) in enumerate([(2, 3, 7, 5), (3, 2, 6, 4)]):
        for case, mask in _masks(batch, n):
            q, k, v = _random(seed, *[(batch, heads, n, d)] * 3)
            _expect_heads(multi_head, q, k, v, mask, f"Where {case}")
            # large scores of either sign show how firmly padding is shut out, and whether exp overflows
            _expect_heads(multi_head, q, 300 * k, v, mask, f"Where {case} and the scores are in the hundreds")
            # here every real score lies far below zero: a masked one that is merely "very negative" would win
            low = -3e4 * (k.abs() + 0.5)
            _expect_heads(multi_head, q.abs() + 0.5, low, v, mask, f"Where {case} and all scores are far below zero")


def _expect_heads(multi_head: Callable[..., Any], q: Tensor, k: Tensor, v: Tensor, mask: Tensor, case: str) -> None:
    expected = torch.tensor(
        [
            [_attend(*(x[b, h].tolist() for x in (q, k, v)), mask[b].tolist()) for h in range(q.shape[1])]
            for b in range(q.shape[0])
        ],
        dtype=torch.float64,
    )
    found = call(multi_head, q=q, k=k, v=v, key_mask=mask)
    same_tensor(found, expected, ("document", "head", "query", "number"), case)


@task("1.3", "the memory of the scores", points=1)
def memory(score_bytes: Callable[..., Any]) -> None:
    for n, heads, size in [(1, 1, None), (7, 3, None), (4096, 12, None), (4096, 12, 2), (333, 5, 8)]:
        inputs = {"n": n, "heads": heads} | ({} if size is None else {"bytes_per_number": size})
        case = ", ".join(f"{name} = {value}" for name, value in inputs.items())
        # the tokens' pairs, counted one query at a time
        expected = sum(n for _ in range(n)) * heads * (4 if size is None else size)
        same_integer(call(score_bytes, **inputs), expected, f"For {case}")
