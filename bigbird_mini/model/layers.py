"""What an encoder is made of: embeddings with positions, and layers of attention and feed-forward."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from ..attention import BlockWeights
from ..pattern import BlockPattern
from .config import BigBirdConfig

Patterns = BlockPattern | list[BlockPattern]
Turns = tuple[torch.Tensor, torch.Tensor]  # the cosine and sine of each place's angles, (n, d)

ACTIVATIONS = {"gelu_new": partial(F.gelu, approximate="tanh"), "gelu": F.gelu, "relu": F.relu}


class Embeddings(nn.Module):
    """Word + token type + position, then dropout, then LayerNorm (in this order, as in the released code)."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.word = nn.Embedding(config.vocab_size, hidden, padding_idx=config.pad_token_id)
        if config.positions == "learned":
            self.position = nn.Embedding(config.max_position_embeddings, hidden)
        self.token_type = nn.Embedding(config.type_vocab_size, hidden)
        self.norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        if config.extra_global_tokens:
            self.extra_global = nn.Embedding(config.extra_global_tokens, hidden)
        self.room = config.extra_blocks * config.block_size  # places before the text
        self.scale = math.sqrt(hidden) if config.rescale_embeddings else 1.0
        # The fixed waves get the spread that a learned table starts with, or they would drown the words.
        self.positions, self.height = config.positions, math.sqrt(2) * config.initializer_range

    def forward(self, words: torch.Tensor, token_type_ids: torch.Tensor) -> torch.Tensor:
        """words: (B, n, hidden), already looked up; token_type_ids: (B, n). Gives (B, room + n, hidden)."""
        B, n, hidden = words.shape
        x = words * self.scale + self.token_type(token_type_ids)
        if self.positions == "learned":
            places = torch.arange(n, device=words.device)
            places = places.clamp(max=self.position.num_embeddings - 1)  # only padding lies beyond: nobody reads it
            x = x + self.position(places)
        elif self.positions == "sinusoidal":
            waves = angles(n, hidden, words)  # (n, hidden / 2)
            x = x + self.height * torch.stack((waves.sin(), waves.cos()), -1).reshape(n, hidden).to(x.dtype)
        if self.room:
            extra = self.extra_global.weight.to(x.dtype)  # (g, hidden)
            extra = F.pad(extra, (0, 0, 0, self.room - len(extra))).expand(B, -1, -1)
            x = torch.cat((extra, x), 1)  # (B, room + n, hidden)
        return self.norm(self.dropout(x))


class Layer(nn.Module):
    """Attention and feed-forward, each with its residual, and its LayerNorm after (post) or before it (pre)."""

    def __init__(self, config: BigBirdConfig, attention_fn: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        hidden, bias = config.hidden_size, config.use_bias
        self.heads, self.pre = config.num_attention_heads, config.norm == "pre"
        self.query, self.key, self.value = (nn.Linear(hidden, hidden, bias) for _ in range(3))
        self.out = nn.Linear(hidden, hidden)
        self.up, self.down = nn.Linear(hidden, config.intermediate_size), nn.Linear(config.intermediate_size, hidden)
        self.attention_norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.output_norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.attention_dropout = config.attention_probs_dropout_prob
        self.activation = ACTIVATIONS[config.hidden_act]
        self.attention_fn = attention_fn

    def forward(
        self, x: torch.Tensor, p: Patterns, key_mask: torch.Tensor | None, turns: Turns | None = None
    ) -> torch.Tensor:
        if self.pre:
            x = x + self.dropout(self.out(self.mix(self.attention_norm(x), p, key_mask, turns)))
            return x + self.dropout(self.feed(self.output_norm(x)))
        x = self.attention_norm(x + self.dropout(self.out(self.mix(x, p, key_mask, turns))))
        return self.output_norm(x + self.dropout(self.feed(x)))

    def feed(self, x: torch.Tensor) -> torch.Tensor:
        """Each token by itself."""
        return self.down(self.activation(self.up(x)))

    def mix(self, x: torch.Tensor, p: Patterns, key_mask: torch.Tensor | None, turns: Turns | None) -> torch.Tensor:
        """The one place where tokens meet."""
        q, k, v = self.q_k_v(x, turns)
        dropout = {"dropout_p": self.attention_dropout} if self.training and self.attention_dropout else {}
        mixed = self.attention_fn(q, k, v, p, key_mask=key_mask, **dropout)  # (B, H, n, d)
        if mixed.shape != q.shape:
            raise ValueError(f"attention_fn returned {tuple(mixed.shape)}; it must be (B, H, n, d) = {tuple(q.shape)}")
        return mixed.transpose(1, 2).reshape(x.shape)

    def weights(self, x: torch.Tensor, p: Patterns, key_mask: torch.Tensor | None, turns: Turns | None) -> BlockWeights:
        """What every token gives to every other in :meth:`mix`, without dropout."""
        x = self.attention_norm(x) if self.pre else x
        refused = "attention_fn has no return_weights=True, which attention maps need; see bigbird_mini.attention"
        takes = inspect.signature(self.attention_fn).parameters.values()
        if not any(each.name == "return_weights" or each.kind is each.VAR_KEYWORD for each in takes):
            raise ValueError(refused)
        found = self.attention_fn(*self.q_k_v(x, turns), p, key_mask=key_mask, return_weights=True)
        if not isinstance(found, tuple) or len(found) != 2:
            raise ValueError(f"{refused}: it gave no pair (output, weights)")
        return found[1]

    def q_k_v(self, x: torch.Tensor, turns: Turns | None) -> list[torch.Tensor]:
        """Queries, keys and values, (B, H, n, d) each; the first two turned by their places, where places turn."""
        B, n, _ = x.shape
        q, k, v = (f(x).view(B, n, self.heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        return [q, k, v] if turns is None else [turned(q, *turns), turned(k, *turns), v]


def angles(n: int, size: int, like: torch.Tensor) -> torch.Tensor:
    """(n, size / 2): place times 10000 ** (-2i / size), the angle of pair i (Vaswani et al. 2017, section 3.5)."""
    exact = {"device": like.device, "dtype": torch.promote_types(like.dtype, torch.float32)}
    rates = 10000.0 ** (torch.arange(0, size, 2, **exact) / -size)
    return torch.arange(n, **exact).unsqueeze(1) * rates


def turned(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Each pair of numbers (i, i + d / 2) of x (B, H, n, d) turned by its angle (Su et al. 2021, section 3.2)."""
    first, second = x.chunk(2, -1)
    return x * cosine.to(x.dtype) + torch.cat((-second, first), -1) * sine.to(x.dtype)
