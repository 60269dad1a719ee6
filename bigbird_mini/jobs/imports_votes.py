"""The control of the imports job: pieces of a text that do not see each other, each with a vote on every question."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ..model import BigBirdConfig, BigBirdForTokenClassification, BigBirdOutput


class Voters(nn.Module):
    """A score for a use = what its own piece says of it + the sum of what all pieces say about the text.

    A piece's vote is made of the mean of its vectors. It is the most that pieces can do which see neither each other
    nor the question: a piece with the imports in it may favour a statement, but not because of the name.

    config: of the encoder that reads the pieces. piece: their tokens; the last may have fewer.
    """

    def __init__(self, config: BigBirdConfig, piece: int) -> None:
        super().__init__()
        self.config, self.piece = config, piece
        self.own = BigBirdForTokenClassification(config)
        self.vote = nn.Linear(config.hidden_size, config.num_labels)

    def forward(
        self, input_ids: torch.Tensor, token_type_ids: torch.Tensor, labels: torch.Tensor | None = None
    ) -> BigBirdOutput:
        """As BigBirdForTokenClassification."""
        parts = zip(input_ids.split(self.piece, 1), token_type_ids.split(self.piece, 1), strict=True)
        outs = [self.own(ids, token_type_ids=segments) for ids, segments in parts]
        votes = torch.stack([self.vote(out.last_hidden_state.mean(1)) for out in outs], 1)  # (B, pieces, num_labels)
        logits = torch.cat([out.logits for out in outs], 1) + votes.sum(1, keepdim=True)  # (B, n, num_labels)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
        return BigBirdOutput(torch.cat([out.last_hidden_state for out in outs], 1), logits, loss)
