"""The BigBird encoder: embeddings, then layers of block-sparse attention and feed-forward.

Zaheer et al. 2020, section 2 and appendix E; the layers are BERT's, only the attention differs. Any BlockPattern and
any attention function run inside.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch._compile import _disable_dynamo
from torch.utils.checkpoint import checkpoint

from ..attention import attention
from ..attention.plan import is_real
from ..pattern import BlockPattern
from .config import BigBirdConfig, extended
from .losses import within
from .outputs import BigBirdOutput

Pattern = BlockPattern | Callable[[int], BlockPattern]
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


class BigBirdModel(nn.Module):
    """The encoder: ids (B, n) to vectors (B, n, hidden), of any length that the table of positions has room for.

    The input is padded to a whole block and the output cut back. Each document has the pattern of its own length: its
    last real block is the global one, so its result does not depend on what shares the batch. Only with a
    ``random_plan`` of the released code all have, as there, the pattern of the padded batch.

    Args:
        config: sizes and settings.
        pattern: in place of the config's: a BlockPattern (the input is then padded to its length), a function from the
            number of blocks of a document to its pattern, or a list with one of these for each layer. Blocks of extra
            global tokens are put before it.
        attention_fn: in place of bigbird_mini.attention: any function called as fn(q, k, v, p, key_mask=mask) with
            q, k, v (B, H, n, d) and mask (B, n) bool or None; p is a BlockPattern, or a list of B where documents of
            one batch differ in length. With attention dropout in training it also gets dropout_p.
        pooler: whether there is a layer that makes one vector of the first token's, ``pooler_output``.
    """

    def __init__(
        self,
        config: BigBirdConfig,
        pattern: Pattern | Sequence[Pattern] | None = None,
        attention_fn: Callable[..., torch.Tensor] | None = None,
        pooler: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(pattern, Sequence) and len(pattern) != config.num_hidden_layers:
            raise ValueError(
                f"{len(pattern)} patterns for {config.num_hidden_layers} layers; give one for each, or one"
            )
        self.config, self.pattern = config, pattern
        self.embeddings = Embeddings(config)
        fn = attention if attention_fn is None else attention_fn
        self.layers = nn.ModuleList(Layer(config, fn) for _ in range(config.num_hidden_layers))
        if config.norm == "pre":
            self.final_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if pooler else None
        self.apply(self._start)

    def _start(self, module: nn.Module) -> None:
        """First weights, as in BERT: normal with a small spread, biases zero."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
    ) -> BigBirdOutput:
        """ids (B, n), or word vectors (B, n, hidden) in their place; attention_mask (B, n), 1 or True for a real token.

        Pad on the right: positions and blocks are counted from the first place. A document reaches to its last real
        token; masked ones before it are skipped as keys.

        Raises ValueError, with the values, for inputs that are too long, empty, outside the vocabulary, or of shapes
        that disagree.
        """
        words, token_type_ids, attention_mask = self._checked(input_ids, attention_mask, token_type_ids, inputs_embeds)
        (B, n, _), b = words.shape, self.config.block_size
        real = _real_blocks(attention_mask, B, n, b)
        N = max([-(-n // b), *(p.n_blocks for p in self._fixed())])
        more, extra = N * b - n, self.config.extra_blocks * b  # places behind each document, and before it
        key_mask = self._key_mask(attention_mask, B, n, more, words.device)
        x = self.embeddings(F.pad(words, (0, 0, 0, more)), F.pad(token_type_ids, (0, more)))  # (B, extra + N b, hidden)
        turns = self._turns(N * b, x)
        for i, layer in enumerate(self.layers):
            x = self._run(layer, x, self.patterns(i, real, N), key_mask, turns)
        if self.config.norm == "pre":
            x = self.final_norm(x)
        first = x.narrow(1, 0, self.config.extra_global_tokens) if extra else None
        x = x.narrow(1, extra, n)  # (B, n, hidden)
        pooled = None if self.pooler is None else self.pooler(x.select(1, 0)).tanh()  # (B, hidden)
        return BigBirdOutput(x, global_hidden_state=first, pooler_output=pooled)

    def _run(self, layer: Layer, *given: Any) -> torch.Tensor:
        if self.config.gradient_checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(layer, *given, use_reentrant=False)
        return layer(*given)

    def _checked(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        token_type_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Word vectors (B, n, hidden), token types (B, n) and the mask (B, n), or a sentence about what is wrong."""
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give input_ids or inputs_embeds, one of the two")
        given = _ids(input_ids) if inputs_embeds is None else inputs_embeds
        if inputs_embeds is not None and (given.dim() != 3 or given.shape[-1] != self.config.hidden_size):
            raise ValueError(f"inputs_embeds have shape {tuple(given.shape)}, not (B, n, {self.config.hidden_size})")
        B, n = given.shape[:2]
        if B == 0:
            raise ValueError(f"an empty batch, of shape {tuple(given.shape)}; (B, n) is needed with B > 0")
        most = self.config.max_position_embeddings
        if n == 0 or (n > most and self.config.positions == "learned"):
            ways = f"; cut the text to {most}, or use lengthen(model, {n})" if n else ""
            raise ValueError(f"n={n} tokens; allowed are 1 to max_position_embeddings={most}{ways}")
        for name, x in (("attention_mask", attention_mask), ("token_type_ids", token_type_ids)):
            if x is not None and not isinstance(x, torch.Tensor):
                raise TypeError(f"{name} must be a tensor, not {type(x).__name__}")
            if x is not None and x.shape != (B, n):
                raise ValueError(f"{name} has shape {tuple(x.shape)}; it must be (B, n) = {(B, n)}")
        if inputs_embeds is None:
            within("input_ids", input_ids, self.config.vocab_size, "the vocabulary")
        if token_type_ids is None:
            token_type_ids = torch.zeros(B, n, dtype=torch.long, device=given.device)
        else:
            within("token_type_ids", token_type_ids, self.config.type_vocab_size, "the token types")
        words = self.embeddings.word(given) if inputs_embeds is None else given
        return words, token_type_ids, attention_mask

    def _key_mask(
        self, mask: torch.Tensor | None, B: int, n: int, more: int, device: torch.device
    ) -> torch.Tensor | None:
        """(B, extra + n + more) bool, True for what may be read; None where that is everything."""
        used = self.config.extra_global_tokens
        unused = self.config.extra_blocks * self.config.block_size - used
        if mask is None and not (more or unused):
            return None
        mask = torch.ones(B, n, dtype=torch.bool, device=device) if mask is None else mask.bool()
        mask = F.pad(F.pad(mask, (unused, more)), (used, 0), value=True)
        return mask

    def _turns(self, n: int, x: torch.Tensor) -> Turns | None:
        """Of every place, (extra + n, d) each; the extra global tokens have no place, and are not turned."""
        if self.config.positions != "rotary":
            return None
        own = angles(n, x.shape[-1] // self.config.num_attention_heads, x)  # (n, d / 2)
        own = F.pad(own, (0, 0, x.shape[1] - n, 0)).repeat(1, 2)
        return own.cos(), own.sin()

    @_disable_dynamo  # torch.compile has nothing to gain in here
    def patterns(self, layer: int, real: list[int], n_blocks: int) -> Patterns:
        """The pattern of a layer for documents of ``real`` blocks each, in a batch of n_blocks; one if all agree."""
        config = self.config
        source = self.pattern[layer] if isinstance(self.pattern, Sequence) else self.pattern
        if isinstance(source, BlockPattern):
            if source.n_blocks != n_blocks:
                raise ValueError(
                    f"the input has {n_blocks} blocks of {config.block_size}, the pattern {source.n_blocks}"
                )
            return extended(source, config.extra_blocks)
        if source is None and (config.random_plan != "uniform" or config.attention_type == "original_full"):
            return config.pattern(n_blocks, layer)
        found = {}
        for blocks in set(real):
            own = config.pattern(blocks, layer) if source is None else source(blocks)
            if source is not None:
                if not isinstance(own, BlockPattern) or own.n_blocks != blocks:
                    raise ValueError(
                        f"pattern({blocks}) returned {own!r}; it must be a BlockPattern of {blocks} blocks"
                    )
                own = extended(own, config.extra_blocks)
            found[blocks] = own.padded(n_blocks + config.extra_blocks)
        return found[real[0]] if len(found) == 1 else [found[blocks] for blocks in real]

    def _fixed(self) -> list[BlockPattern]:
        sources = self.pattern if isinstance(self.pattern, Sequence) else [self.pattern]
        return [p for p in sources if isinstance(p, BlockPattern)]


def _ids(input_ids: Any) -> torch.Tensor:
    if not isinstance(input_ids, torch.Tensor) or input_ids.dtype not in (torch.int64, torch.int32):
        kind = input_ids.dtype if isinstance(input_ids, torch.Tensor) else type(input_ids).__name__
        raise TypeError(f"input_ids must be a tensor of int64 or int32, not {kind}")
    if input_ids.dim() != 2:
        raise ValueError(
            f"input_ids have shape {tuple(input_ids.shape)}; they must be (B, n), so use ids[None] for one text"
        )
    return input_ids


@_disable_dynamo
def _real_blocks(attention_mask: torch.Tensor | None, B: int, n: int, block_size: int) -> list[int]:
    """The number of blocks of each document, up to its last real token."""
    if attention_mask is None or not is_real(attention_mask):
        return [-(-n // block_size)] * B
    places = torch.arange(1, n + 1, device=attention_mask.device)
    lengths = (attention_mask.bool() * places).amax(1).tolist()
    if 0 in lengths:
        raise ValueError(f"attention_mask hides every token of document {lengths.index(0)}; leave it out of the batch")
    return [-(-length // block_size) for length in lengths]
