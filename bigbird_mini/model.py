"""The BigBird encoder: embeddings, post-norm layers with block-sparse attention, a masked-language-model head.

Zaheer et al. 2020, section 2 and appendix E; the layers are BERT's, only the attention differs. Any BlockPattern and
any attention function run inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch._compile import _disable_dynamo

from .attention import attention
from .pattern import BlockPattern

Pattern = BlockPattern | Callable[[int], BlockPattern]


@dataclass(frozen=True)
class BigBirdConfig:
    """Sizes and settings; the defaults are the base model of the paper (table 8). Names as in Hugging Face's configs.

    Raises ValueError for sizes that do not fit together. The seed fixes the random blocks for ever: for a layer, a head
    and a length they are the same in training, in evaluation, after loading, and on every machine.
    """

    vocab_size: int = 50358
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    max_position_embeddings: int = 4096
    type_vocab_size: int = 2
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int = 0
    block_size: int = 64  # tokens
    num_random_blocks: int = 3
    window_blocks: int = 3
    global_blocks: tuple[int, ...] = (0, -1)
    random_plan: str = "uniform"  # or "google", "hf_train", "hf_eval": the released code's, bit for bit
    pattern_seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_prob"):
                if not 0.0 <= value < 1.0:
                    raise ValueError(f"{field.name}={value} must be at least 0 and below 1")
            elif field.type == "int" and field.name != "pattern_seed":
                least = 0 if field.name in ("num_hidden_layers", "num_random_blocks", "pad_token_id") else 1
                if isinstance(value, bool) or not isinstance(value, int) or value < least:
                    raise ValueError(f"{field.name}={value!r} must be a whole number, at least {least}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is not a multiple of num_attention_heads={self.num_attention_heads}"
            )
        if self.pad_token_id >= self.vocab_size:
            raise ValueError(f"pad_token_id={self.pad_token_id} is outside the vocabulary of {self.vocab_size}")
        if not isinstance(self.global_blocks, Iterable) or not all(type(g) is int for g in self.global_blocks):
            raise ValueError(f"global_blocks={self.global_blocks!r} must be whole numbers, such as (0, -1)")
        object.__setattr__(self, "global_blocks", tuple(self.global_blocks))
        self.pattern(1, 0)  # a width or a plan that BlockPattern refuses is refused here
        if self.random_plan != "uniform" and set(self.global_blocks) != {0, -1}:
            raise ValueError(f"random_plan={self.random_plan!r} has global_blocks=(0, -1), not {self.global_blocks}")

    def pattern(self, n_blocks: int, layer: int) -> BlockPattern:
        """The pattern of a layer for a document of n_blocks blocks; globals that a short one lacks are left out."""
        here = tuple(g for g in self.global_blocks if -n_blocks <= g < n_blocks)
        return _bigbird(
            n_blocks,
            window=self.window_blocks,
            global_blocks=here,
            random=self.num_random_blocks,
            heads=self.num_attention_heads,
            seed=self.pattern_seed,
            plan=self.random_plan,
            block_size=self.block_size,
            max_length=self.max_position_embeddings,
            layer=layer,
        )


_bigbird = lru_cache(maxsize=256)(BlockPattern.bigbird)


@dataclass
class BigBirdOutput:
    """What a model returns, without the padding: (B, n, hidden), (B, n, vocabulary) and a scalar."""

    last_hidden_state: torch.Tensor
    logits: torch.Tensor | None = None
    loss: torch.Tensor | None = None


class Embeddings(nn.Module):
    """Word + token type + position, then dropout, then LayerNorm (in this order, as in the released code)."""

    def __init__(self, config: BigBirdConfig) -> None:
        super().__init__()
        self.word = nn.Embedding(config.vocab_size, config.hidden_size, padding_idx=config.pad_token_id)
        self.position = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, words: torch.Tensor, token_type_ids: torch.Tensor) -> torch.Tensor:
        """words: (B, n, hidden), already looked up; token_type_ids: (B, n)."""
        places = torch.arange(words.shape[1], device=words.device)
        places = places.clamp(max=self.position.num_embeddings - 1)  # only padding lies beyond, and nobody reads it
        return self.norm(self.dropout(words + self.token_type(token_type_ids) + self.position(places)))


class Layer(nn.Module):
    """Attention and feed-forward, each with its residual and LayerNorm after it (post-norm)."""

    def __init__(self, config: BigBirdConfig, attention_fn: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.heads = config.num_attention_heads
        self.query, self.key, self.value, self.out = (nn.Linear(hidden, hidden) for _ in range(4))
        self.up, self.down = nn.Linear(hidden, config.intermediate_size), nn.Linear(config.intermediate_size, hidden)
        self.attention_norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.output_norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.attention_dropout = config.attention_probs_dropout_prob
        self.attention_fn = attention_fn

    def forward(
        self, x: torch.Tensor, p: BlockPattern | list[BlockPattern], key_mask: torch.Tensor | None
    ) -> torch.Tensor:
        x = self.attention_norm(x + self.dropout(self.out(self.mix(x, p, key_mask))))
        return self.output_norm(x + self.dropout(self.down(F.gelu(self.up(x), approximate="tanh"))))

    def mix(self, x: torch.Tensor, p: BlockPattern | list[BlockPattern], key_mask: torch.Tensor | None) -> torch.Tensor:
        """The one place where tokens meet."""
        B, n, hidden = x.shape
        q, k, v = (f(x).view(B, n, self.heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        dropout = {"dropout_p": self.attention_dropout} if self.training and self.attention_dropout else {}
        mixed = self.attention_fn(q, k, v, p, key_mask=key_mask, **dropout)  # (B, H, n, d)
        if mixed.shape != q.shape:
            raise ValueError(f"attention_fn returned {tuple(mixed.shape)}; it must be (B, H, n, d) = {tuple(q.shape)}")
        return mixed.transpose(1, 2).reshape(B, n, hidden)


class BigBirdModel(nn.Module):
    """The encoder: ids (B, n) of any length up to max_position_embeddings to vectors (B, n, hidden).

    The input is padded to a whole block and the output cut back. Each document has the pattern of its own length: its
    last real block is the global one, so its result does not depend on what shares the batch. Only with a
    ``random_plan`` of the released code all have, as there, the pattern of the padded batch.

    Args:
        config: sizes and settings.
        pattern: in place of the config's: a BlockPattern (the input is then padded to its length), a function from the
            number of blocks of a document to its pattern, or a list with one of these for each layer.
        attention_fn: in place of bigbird_mini.attention: any function called as fn(q, k, v, p, key_mask=mask) with
            q, k, v (B, H, n, d) and mask (B, n) bool or None; p is a BlockPattern, or a list of B where documents of
            one batch differ in length. With attention dropout in training it also gets dropout_p.
    """

    def __init__(
        self,
        config: BigBirdConfig,
        pattern: Pattern | Sequence[Pattern] | None = None,
        attention_fn: Callable[..., torch.Tensor] | None = None,
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
        self.apply(self._start)

    def _start(self, module: nn.Module) -> None:
        """First weights, as in BERT: normal with a small spread, biases zero."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear):
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

        Raises ValueError, with the values, for inputs that are too long, empty, or of shapes that disagree.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give input_ids or inputs_embeds, one of the two")
        words = self.embeddings.word(_ids(input_ids)) if inputs_embeds is None else inputs_embeds  # (B, n, hidden)
        if words.dim() != 3 or words.shape[-1] != self.config.hidden_size or 0 in words.shape[::2]:
            raise ValueError(
                f"inputs have shape {tuple(words.shape)}, not (B, n, {self.config.hidden_size}) with B > 0"
            )
        B, n, _ = words.shape
        if n == 0 or n > self.config.max_position_embeddings:
            raise ValueError(
                f"n={n} tokens; allowed are 1 to max_position_embeddings={self.config.max_position_embeddings}"
            )
        if token_type_ids is None:
            token_type_ids = torch.zeros(B, n, dtype=torch.long, device=words.device)
        for name, x in (("attention_mask", attention_mask), ("token_type_ids", token_type_ids)):
            if x is not None and not isinstance(x, torch.Tensor):
                raise TypeError(f"{name} must be a tensor, not {type(x).__name__}")
            if x is not None and x.shape != (B, n):
                raise ValueError(f"{name} has shape {tuple(x.shape)}; it must be (B, n) = {(B, n)}")

        real = _real_blocks(attention_mask, B, n, self.config.block_size)
        N = max([-(-n // self.config.block_size), *(p.n_blocks for p in self._fixed())])
        more = N * self.config.block_size - n  # padding tokens behind each document
        key_mask = None if attention_mask is None else attention_mask.bool()
        if more:
            everything = torch.ones(B, n, dtype=torch.bool, device=words.device)
            key_mask = F.pad(everything if key_mask is None else key_mask, (0, more))
        x = self.embeddings(F.pad(words, (0, 0, 0, more)), F.pad(token_type_ids, (0, more)))
        for i, layer in enumerate(self.layers):
            x = layer(x, self.patterns(i, real, N), key_mask)
        return BigBirdOutput(x.narrow(1, 0, n))

    @_disable_dynamo  # torch.compile has nothing to gain in here
    def patterns(self, layer: int, real: list[int], n_blocks: int) -> BlockPattern | list[BlockPattern]:
        """The pattern of a layer for documents of ``real`` blocks each, in a batch of n_blocks; one if all agree."""
        source = self.pattern[layer] if isinstance(self.pattern, Sequence) else self.pattern
        if isinstance(source, BlockPattern):
            if source.n_blocks != n_blocks:
                raise ValueError(
                    f"the input has {n_blocks} blocks of {self.config.block_size}, the pattern {source.n_blocks}"
                )
            return source
        if source is None and self.config.random_plan != "uniform":
            return self.config.pattern(n_blocks, layer)
        found = {}
        for blocks in set(real):
            own = self.config.pattern(blocks, layer) if source is None else source(blocks)
            if not isinstance(own, BlockPattern) or own.n_blocks != blocks:
                raise ValueError(f"pattern({blocks}) returned {own!r}; it must be a BlockPattern of {blocks} blocks")
            found[blocks] = own.padded(n_blocks)
        return found[real[0]] if len(found) == 1 else [found[blocks] for blocks in real]

    def _fixed(self) -> list[BlockPattern]:
        sources = self.pattern if isinstance(self.pattern, Sequence) else [self.pattern]
        return [p for p in sources if isinstance(p, BlockPattern)]


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


def _ids(input_ids: Any) -> torch.Tensor:
    if not isinstance(input_ids, torch.Tensor) or input_ids.dtype not in (torch.int64, torch.int32):
        kind = input_ids.dtype if isinstance(input_ids, torch.Tensor) else type(input_ids).__name__
        raise TypeError(f"input_ids must be a tensor of int64 or int32, not {kind}")
    if input_ids.dim() != 2:
        raise ValueError(
            f"input_ids have shape {tuple(input_ids.shape)}; they must be (B, n), so use ids[None] for one text"
        )
    return input_ids


def _real_blocks(attention_mask: torch.Tensor | None, B: int, n: int, block_size: int) -> list[int]:
    """The number of blocks of each document, up to its last real token."""
    if attention_mask is None:
        return [-(-n // block_size)] * B
    places = torch.arange(1, n + 1, device=attention_mask.device)
    lengths = (attention_mask.bool() * places).amax(1).tolist()
    if 0 in lengths:
        raise ValueError(f"attention_mask hides every token of document {lengths.index(0)}; leave it out of the batch")
    return [-(-length // block_size) for length in lengths]
