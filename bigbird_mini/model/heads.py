"""The heads: an encoder and what makes answers of its vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .config import BigBirdConfig
from .encoder import BigBirdModel, BigBirdOutput, Pattern


class BigBirdForMaskedLM(nn.Module):
    """The encoder with a masked-language-model head; its decoder is the word embedding again (tied).

    Arguments as for :class:`BigBirdModel`.
    """

    def __init__(
        self,
        config: BigBirdConfig,
        pattern: Pattern | Sequence[Pattern] | None = None,
        attention_fn: Callable[..., torch.Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.encoder = BigBirdModel(config, pattern, attention_fn)
        self.transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.transform.apply(self.encoder._start)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> BigBirdOutput:
        """As the encoder, with logits (B, n, vocabulary).

        labels: (B, n) the true ids, -100 where none is asked for; the loss is their mean cross-entropy in nats, and 0
        where no position has a label.
        """
        x = self.encoder(input_ids, attention_mask, token_type_ids, inputs_embeds).last_hidden_state  # (B, n, hidden)
        ready = self.norm(F.gelu(self.transform(x), approximate="tanh"))
        logits = F.linear(ready, self.encoder.embeddings.word.weight, self.bias)  # (B, n, vocabulary)
        if labels is None:
            return BigBirdOutput(x, logits)
        if not isinstance(labels, torch.Tensor) or labels.is_floating_point() or labels.dtype == torch.bool:
            raise TypeError("labels must be a tensor of whole numbers")
        if labels.shape != logits.shape[:2]:
            raise ValueError(
                f"labels have shape {tuple(labels.shape)}; they must be (B, n) = {tuple(logits.shape[:2])}"
            )
        # in float32 at least: a sum of half-precision losses overflows
        wide = logits.flatten(0, 1).to(torch.promote_types(logits.dtype, torch.float32))
        loss = F.cross_entropy(wide, labels.flatten().long(), ignore_index=-100, reduction="sum")
        return BigBirdOutput(x, logits, loss / (labels != -100).sum().clamp(min=1))
