"""Attention weights without the n x n matrix: for each query block, over the key blocks it reads, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

_LARGEST_DENSE = 2**30  # numbers


class Rows(NamedTuple):
    """Weights of some query blocks of some documents.

    documents: (D,) and rows: (R,) which. keys: (1 or H, R, K) the key blocks of each row, N where it reads fewer.
    values: (D, H, R, b, K, b): the weight that each query gives to each key; 0 where keys says N.
    """

    documents: torch.Tensor
    rows: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor


@dataclass(frozen=True)
class BlockWeights:
    """What ``attention(..., return_weights=True)`` returns beside its output; before dropout, where there is dropout.

    parts: query blocks that read equally many key blocks stand together; each (document, query block) is in one part.
    shape: (B, H, n, n), that of the matrix these weights stand for. n_blocks: N.
    """

    parts: list[Rows]
    shape: tuple[int, int, int, int]
    n_blocks: int

    def dense(self) -> torch.Tensor:
        """The whole matrix (B, H, n, n): rows sum to 1, or to 0 where a query reads nothing.

        Raises ValueError where it would hold more than 2**30 numbers.
        """
        B, H, n, _ = self.shape
        N, b = self.n_blocks, n // self.n_blocks
        if B * H * n * n > _LARGEST_DENSE:
            raise ValueError(f"dense() would make {B} x {H} x {n} x {n} numbers; look at parts, or at fewer documents")
        first = self.parts[0].values
        out = first.new_zeros(B, H, N, N + 1, b, b)  # one column more, where the absent neighbours go
        head = torch.arange(H, device=first.device).view(1, H, 1, 1)
        for documents, rows, keys, values in self.parts:
            where = (documents.view(-1, 1, 1, 1), head, rows.view(1, 1, -1, 1), keys.unsqueeze(0))
            out = out.index_put(where, values.transpose(3, 4))  # (D, H, R, K, b, b)
        return out.narrow(3, 0, N).transpose(3, 4).reshape(self.shape)


def masked_softmax(scores: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Softmax over the last dimension, of the places where mask is True; zeros where it is False everywhere."""
    if mask is None:
        return scores.softmax(-1)
    return scores.masked_fill(mask.logical_not(), torch.finfo(scores.dtype).min).softmax(-1) * mask
