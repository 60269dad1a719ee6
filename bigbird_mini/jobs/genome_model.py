"""The encoder of the genome job: 3-mers in, one number out, which changes its sign with the strand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ..data import reverse_complement
from ..model import BigBirdConfig, BigBirdModel
from ..model.pretrained import Pattern, Pretrained

PATTERNS = ("W", "W+R", "W+G", "W+G+R", "full")
BLOCK = 32  # tokens
WORDS = 64  # 3-mers; id 64 is padding, a 3-mer that reaches over the end of the window
START = 0.5  # spread of the first vectors of 3-mers: wide, so that a step of training turns them little


def strand_config(pattern: str = "W+G+R") -> BigBirdConfig:
    """The encoder's settings, 72,000 parameters: two pre-norm layers, no positions, blocks of 32 tokens.

    Where the pattern has globals (and where it is full), 32 extra global tokens are the read-out block. Raises
    ValueError for a pattern that is none of PATTERNS.
    """
    if pattern not in PATTERNS:
        raise ValueError(f"pattern={pattern!r} is not known; allowed: {', '.join(PATTERNS)}")
    return BigBirdConfig(
        vocab_size=WORDS + 1,
        pad_token_id=WORDS,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=16384,
        type_vocab_size=1,
        hidden_act="gelu",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-5,
        initializer_range=0.07,
        block_size=BLOCK,
        num_random_blocks=3 if "R" in pattern else 0,
        global_blocks=(),
        extra_global_tokens=BLOCK if "G" in pattern or pattern == "full" else 0,
        attention_type="original_full" if pattern == "full" else "block_sparse",
        norm="pre",
        positions="none",
    )


@dataclass
class StrandOutput:
    """logits: (B,), above 0 where the strand that was given leads; loss: mean cross-entropy in nats, with labels."""

    logits: torch.Tensor
    loss: torch.Tensor | None = None


class StrandModel(Pretrained):
    """Which strand leads: logit = w . RMSNorm(h(x) - h(other strand of x)), so the other strand gets minus the logit.

    A token is the mean of the vectors of the overlapping 3-mers that start at ``bases_per_token`` neighbouring bases,
    times the root of that number. h is the encoder's vector of the first read-out token. With global tokens in the
    config the read-out block is those; without, it is an ordinary block that stands before the first block of the
    window: it reads itself and that one, and what else the pattern gives it.

    Args:
        config: of the encoder, such as :func:`strand_config` gives.
        pattern, attention_fn: as for :class:`BigBirdModel`.
        bases_per_token: must divide the length of the windows.
        mean: h is the mean over the window's tokens in place of the read-out token.
    """

    def __init__(
        self,
        config: BigBirdConfig,
        pattern: Pattern | Sequence[Pattern] | None = None,
        attention_fn: Callable[..., torch.Tensor] | None = None,
        bases_per_token: int = 8,
        mean: bool = False,
    ) -> None:
        super().__init__()
        self.config, self.bases_per_token, self.mean = config, bases_per_token, mean
        self.encoder = BigBirdModel(config, pattern, attention_fn)
        words = self.encoder.embeddings.word
        nn.init.normal_(words.weight, std=START)
        nn.init.zeros_(words.weight[words.padding_idx])
        if config.extra_global_tokens:
            nn.init.normal_(self.encoder.embeddings.extra_global.weight, std=START)
        else:
            self.readout = nn.Parameter(START * torch.randn(config.block_size, config.hidden_size))
        self.weight = nn.Parameter(0.1 * torch.randn(config.hidden_size))

    def tokens(self, bases: torch.Tensor) -> torch.Tensor:
        """bases (B, n), 0 to 3, to token vectors (B, n / bases_per_token, hidden)."""
        B, n = bases.shape
        if n % self.bases_per_token or n < 3:
            raise ValueError(
                f"a window of {n} bases cannot be cut into tokens; it must be a multiple of "
                f"bases_per_token={self.bases_per_token}, and at least 3"
            )
        words = self.encoder.embeddings.word
        threes = trimers(bases, over_the_end=words.padding_idx)  # (B, n)
        bags = F.embedding_bag(
            threes.view(-1, self.bases_per_token), words.weight, mode="mean", padding_idx=words.padding_idx
        )
        return bags.view(B, -1, words.embedding_dim) * self.bases_per_token**0.5

    def features(self, bases: torch.Tensor) -> torch.Tensor:
        """h: (B, n) bases to (B, hidden)."""
        x = self.tokens(bases)
        extra = self.encoder.config.extra_global_tokens
        if not extra:
            x = torch.cat((self.readout.expand(len(x), -1, -1), x), 1)  # (B, 32 + n / s, hidden)
        out = self.encoder(inputs_embeds=x)
        own = out.last_hidden_state
        if self.mean:
            return own[:, 0 if extra else len(self.readout) :].mean(1)
        return out.global_hidden_state[:, 0] if extra else own[:, 0]

    def forward(self, bases: torch.Tensor, labels: torch.Tensor | None = None) -> StrandOutput:
        """bases: (B, n) int64, A, C, G, T as 0 to 3; labels: (B,), 1 where the strand as given leads."""
        one, other = self.features(torch.cat((bases, reverse_complement(bases)))).chunk(2)  # (B, hidden) each
        logits = F.rms_norm(one - other, one.shape[-1:], eps=1e-6) @ self.weight  # (B,)
        if labels is None:
            return StrandOutput(logits)
        return StrandOutput(logits, F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype)))

    def save(self, folder: str | Path, about: dict[str, Any] | None = None) -> None:
        """Write config.json and model.safetensors, with ``about`` (JSON) under "strand" in the config.

        The folder is one for ``BigBirdModel.from_pretrained`` too, which reads the encoder alone.
        """
        self.kept = {"strand": {"bases_per_token": self.bases_per_token, "mean": self.mean, **(about or {})}}
        self.save_pretrained(folder)

    @classmethod
    def load(cls, folder: str | Path) -> StrandModel:
        """The model that :meth:`save` wrote, in eval mode. Raises ValueError for a folder with another model."""
        model = cls.from_pretrained(folder)
        strand = model.kept.get("strand")
        if not isinstance(strand, dict):
            raise ValueError(f"{folder} holds no model of the genome job: its config.json has no 'strand'")
        model.bases_per_token, model.mean = strand["bases_per_token"], strand["mean"]
        return model


def trimers(bases: torch.Tensor, over_the_end: int | None = None) -> torch.Tensor:
    """The number 0 to 63 of each overlapping 3-mer, AAA to TTT in alphabetical order: (..., n) to (..., n - 2).

    over_the_end: (..., n), with this number for the last two places, from where a 3-mer would reach over the end.
    """
    found = bases[..., :-2] * 16 + bases[..., 1:-1] * 4 + bases[..., 2:]
    return found if over_the_end is None else F.pad(found, (0, 2), value=over_the_end)
