"""The control of the imports job: pieces of a text that do not see each other, each with a vote on every question."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..model import BigBirdConfig, BigBirdForTokenClassification, BigBirdOutput
from ..pattern import BlockPattern


def pieces(n_blocks: int, size: int) -> BlockPattern:
    """Each block reads the ``size`` blocks of its own piece of the text."""
    piece = torch.arange(n_blocks) // size
    return BlockPattern.from_grid(piece[:, None] == piece[None])


class Voters(nn.Module):
    """A score for a use = what its own piece says of it + the sum of what all pieces say about the text.

    A piece's vote is made of the mean of its vectors. It is the most that pieces can do which see neither each other
    nor the question: a piece with the imports in it may favour a statement, but not because of the name.
    """

    def __init__(self, config: BigBirdConfig, piece: int) -> None:
        super().__init__()
        self.config, self.piece = config, piece
        self.own = BigBirdForTokenClassification(config, lambda n_blocks: pieces(n_blocks, piece // config.block_size))
        self.vote = nn.Linear(config.hidden_size, config.num_labels)

    def forward(
        self, input_ids: torch.Tensor, token_type_ids: torch.Tensor, labels: torch.Tensor | None = None
    ) -> BigBirdOutput:
        """As BigBirdForTokenClassification."""
        out = self.own(input_ids, token_type_ids=token_type_ids)
        x = out.last_hidden_state  # (B, n, hidden)
        means = torch.stack([part.mean(1) for part in x.split(self.piece, 1)], 1)  # (B, pieces, hidden)
        out.logits = out.logits + self.vote(means).sum(1, keepdim=True)  # (B, n, num_labels)
        if labels is not None:
            out.loss = F.cross_entropy(out.logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
        return out
