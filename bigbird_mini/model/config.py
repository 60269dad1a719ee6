"""BigBirdConfig: every size and setting of an encoder, and the pattern that they mean for a text."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import lru_cache

from ..pattern import BlockPattern

CHOICES = {
    "hidden_act": ("gelu_new", "gelu", "relu"),
    "attention_type": ("block_sparse", "original_full"),
    "norm": ("post", "pre"),
    "positions": ("learned", "sinusoidal", "rotary", "none"),
}
MAY_BE_ZERO = {"num_hidden_layers", "num_random_blocks", "pad_token_id", "sep_token_id", "extra_global_tokens"}


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
    hidden_act: str = "gelu_new"  # GELU by its tanh formula; "gelu" by the error function; "relu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    classifier_dropout: float | None = None  # of the classifying heads; None: hidden_dropout_prob
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int = 0
    sep_token_id: int = 66  # ends the question in question answering
    use_bias: bool = True  # of queries, keys and values; all other linear maps have one
    rescale_embeddings: bool = False  # word vectors times the root of hidden_size
    num_labels: int = 2
    attention_type: str = "block_sparse"  # or "original_full": everything reads everything, with the same weights
    block_size: int = 64  # tokens
    num_random_blocks: int = 3
    window_blocks: int = 3
    global_blocks: tuple[int, ...] = (0, -1)
    extra_global_tokens: int = 0  # learned vectors before the text that read and are read by everything (ETC)
    random_plan: str = "uniform"  # or "google", "hf_train", "hf_eval": the released code's, bit for bit
    pattern_seed: int = 0
    norm: str = "post"  # LayerNorm after each residual, as in BERT; "pre": before each half of a layer, and at the end
    positions: str = "learned"  # a table of max_position_embeddings rows; the others know no longest text
    gradient_checkpointing: bool = False  # in training: keep only what enters each layer, and compute it again

    def __post_init__(self) -> None:
        for field in fields(self):
            self._check(field.name, field.type, getattr(self, field.name))
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size={self.hidden_size} is not a multiple of num_attention_heads={self.num_attention_heads}"
            )
        if self.pad_token_id >= self.vocab_size:
            raise ValueError(f"pad_token_id={self.pad_token_id} is outside the vocabulary of {self.vocab_size}")
        head_size = self.hidden_size // self.num_attention_heads
        for positions, name, size in (("rotary", "head size", head_size), ("sinusoidal", "size", self.hidden_size)):
            if self.positions == positions and size % 2:
                raise ValueError(f"positions={positions!r} turns pairs of numbers; the {name} of {size} is odd")
        if not isinstance(self.global_blocks, Iterable) or not all(type(g) is int for g in self.global_blocks):
            raise ValueError(f"global_blocks={self.global_blocks!r} must be whole numbers, such as (0, -1)")
        object.__setattr__(self, "global_blocks", tuple(self.global_blocks))
        self._drawn(1, 0)  # a width or a plan that BlockPattern refuses is refused here
        if self.random_plan != "uniform" and set(self.global_blocks) != {0, -1}:
            raise ValueError(f"random_plan={self.random_plan!r} has global_blocks=(0, -1), not {self.global_blocks}")

    @staticmethod
    def _check(name: str, kind: str, value: object) -> None:
        if name in CHOICES and value not in CHOICES[name]:
            raise ValueError(f"{name}={value!r} is not known; allowed: {', '.join(map(repr, CHOICES[name]))}")
        if kind == "bool" and not isinstance(value, bool):
            raise ValueError(f"{name}={value!r} must be True or False")
        if (name.endswith("_prob") or (name == "classifier_dropout" and value is not None)) and not 0.0 <= value < 1.0:
            raise ValueError(f"{name}={value} must be at least 0 and below 1")
        if kind == "int" and name != "pattern_seed":
            least = 0 if name in MAY_BE_ZERO else 1
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ValueError(f"{name}={value!r} must be a whole number, at least {least}")

    @property
    def extra_blocks(self) -> int:
        """How many whole blocks the extra global tokens fill, the last of them perhaps in part."""
        return -(-self.extra_global_tokens // self.block_size)

    @property
    def head_dropout(self) -> float:
        """Of the heads that classify texts and tokens."""
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout

    def pattern(self, n_blocks: int, layer: int) -> BlockPattern:
        """The pattern of a layer for a document of n_blocks blocks; globals that a short one lacks are left out.

        The blocks of the extra global tokens, if any, stand before those of the document. Where Google's code fails
        for want of random blocks (for the released sizes from 9 to 11 blocks), all is read, as Hugging Face's does.
        """
        if self.attention_type == "original_full":
            return extended(_full(n_blocks), self.extra_blocks)
        try:
            own = self._drawn(n_blocks, layer)
        except ValueError:
            if n_blocks > 5 + 2 * self.num_random_blocks:
                raise
            own = _full(n_blocks)
        return extended(own, self.extra_blocks)

    def pattern_checksum(self) -> str:
        """Of the patterns of every layer at three lengths, 16 hex digits: says whether another version draws others."""
        digest = hashlib.blake2b(digest_size=8)
        for n_blocks in (12, 16, 32):
            for layer in range(self.num_hidden_layers):
                try:
                    p = self._drawn(n_blocks, layer)
                    digest.update((p.grid() * p.multiplicity()).numpy().tobytes())
                except ValueError:  # a released plan that has none for this length
                    digest.update(b"none")
        return digest.hexdigest()

    def _drawn(self, n_blocks: int, layer: int) -> BlockPattern:
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


def extended(p: BlockPattern, blocks: int) -> BlockPattern:
    """The pattern with so many global blocks before it, remembered."""
    return _extended(p, blocks) if blocks else p


_bigbird = lru_cache(maxsize=1024)(BlockPattern.bigbird)
_full = lru_cache(maxsize=256)(BlockPattern.full)
_extended = lru_cache(maxsize=256)(BlockPattern.with_extra_globals)
