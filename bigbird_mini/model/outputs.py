"""What the models return."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass
class BigBirdOutput:
    """Without the padding of whole blocks: (B, n, hidden), the head's scores, and a scalar.

    logits: (B, labels) for texts, (B, n, labels) for tokens. global_hidden_state: (B, g, hidden), the vectors of the
    extra global tokens, where the config has some. pooler_output: (B, hidden), where the encoder has a pooler.
    """

    last_hidden_state: torch.Tensor
    logits: torch.Tensor | None = None
    loss: torch.Tensor | None = None
    global_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None


@dataclass
class QuestionAnsweringOutput(BigBirdOutput):
    """logits (B, n, 2): for each token, how well an answer starts there, and how well it ends there."""

    @property
    def start_logits(self) -> torch.Tensor:  # (B, n)
        return self.logits.select(-1, 0)

    @property
    def end_logits(self) -> torch.Tensor:  # (B, n)
        return self.logits.select(-1, 1)


@dataclass
class MaskedLMOutput:
    """Scores of all words at all places are many: ``logits`` makes them when it is first asked for, and keeps them.

    ready: (B, n, hidden), what meets the word vectors; words: (V, hidden); bias: (V,). differentiable: whether the
    forward pass recorded gradients; then the logits do, else they do not, whenever they are made.
    """

    last_hidden_state: torch.Tensor
    ready: torch.Tensor
    words: torch.Tensor
    bias: torch.Tensor
    differentiable: bool
    loss: torch.Tensor | None = None
    global_hidden_state: torch.Tensor | None = None

    @property
    def logits(self) -> torch.Tensor:
        """(B, n, V)"""
        if "_logits" not in self.__dict__:
            with torch.set_grad_enabled(self.differentiable):
                kind = self.ready.dtype
                self._logits = F.linear(self.ready, self.words.to(kind), self.bias.to(kind))
        return self._logits
