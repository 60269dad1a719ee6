"""What the tasks of exercise 01 share: the oracle, random inputs, and places in the lesson."""

import math
from typing import Any

import torch
from torch import Tensor

from ..catalogue import Look

LESSON = "01_dense_attention"
INF = float("inf")
Rows = list[list[float]]

BY_HAND = Look("One query, by hand", "88d929a3", "it_scores = ")
MATRICES = Look("All queries: the loops, then three lines", "73f4fdc8", "weights = scores.softmax(dim=-1)")
ROOT = Look("Why divide by √d", "d34f10ec", "undivided = raw.softmax(-1)")
HEADS = Look("Heads", "74450b81", "Q, K, V = heads(hidden @ M_q)")
MASKS = Look("Masks: leaving keys out", "881f87a4", "wrong = many_scores.softmax(-1) * real")
NOTHING = Look("Masks: leaving keys out", "2dc44ae4", "row = torch.full((3,), -torch.inf)")
PATTERN = Look("Masks: leaving keys out", "dedb61c5", "explorer = explore_pattern(6,")
BLOCKS = Look("Masks: leaving keys out", "85da13d8", "masked_fill(~p.token_mask(2)[0]")
MEMORY = Look("Where the memory goes", "a92a1f7b", "pair, token, _ = ")


def attend(q: Rows, k: Rows, v: Rows, real: list[bool] | None = None) -> Rows:
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


def table(rows: Any) -> Tensor:
    """Nested lists as a float64 tensor."""
    return torch.tensor(rows, dtype=torch.float64)


def randoms(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Normal float64 tensors, the same at each call, from a generator of their own."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def scores_of(q: Tensor, k: Tensor) -> Tensor:
    """All products of queries and keys, divided by the root of d; for the wrong answers."""
    return q @ k.mT / q.shape[-1] ** 0.5
