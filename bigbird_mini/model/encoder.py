"""The BigBird encoder: embeddings, then layers of block-sparse attention and feed-forward.

Zaheer et al. 2020, section 2 and appendix E; the layers are BERT's, only the attention differs. Any BlockPattern and
any attention function run inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch._compile import _disable_dynamo
from torch.utils.checkpoint import checkpoint

from ..attention import BlockWeights, attention
from ..attention.plan import is_real
from ..pattern import BlockPattern
from ..plans import whole
from .config import BigBirdConfig, extended
from .layers import Embeddings, Layer, Patterns, Turns, angles
from .losses import within
from .outputs import BigBirdOutput
from .pretrained import Pattern, Pretrained


class BigBirdModel(Pretrained):
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
        self._ready: dict[int, list[Patterns]] = {}  # what prepare() built, by the number of blocks of a batch
        self.embeddings = Embeddings(config)
        fn = attention if attention_fn is None else attention_fn
        self.layers = nn.ModuleList(Layer(config, fn) for _ in range(config.num_hidden_layers))
        if config.norm == "pre":
            self.final_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if pooler else None
        self.apply(self._start)

    @classmethod
    def _is_encoder(cls) -> bool:
        return True

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
        x, patterns, key_mask, turns = self._padded(words, token_type_ids, attention_mask)
        for layer, p in zip(self.layers, patterns, strict=True):
            x = self._run(layer, x, p, key_mask, turns)
        if self.config.norm == "pre":
            x = self.final_norm(x)
        g, room = self.config.extra_global_tokens, self.embeddings.room
        first = x.narrow(1, 0, g) if g else None  # (B, g, hidden)
        x = x.narrow(1, room, words.shape[1])  # (B, n, hidden)
        pooled = None if self.pooler is None else self.pooler(x.select(1, 0)).tanh()  # (B, hidden)
        return BigBirdOutput(x, global_hidden_state=first, pooler_output=pooled)

    def prepare(self, n: int, lengths: Iterable[int] = ()) -> None:
        """Build the patterns of texts of n tokens ahead, and those of texts of other ``lengths`` in their batches.

        After it ``torch.compile(model, fullgraph=True)`` finds the patterns of batches of n tokens without a mask ready
        (with one too, where no text's own length matters: patterns of one's own, the released plans, full attention).
        Elsewhere, what looks for the patterns is left out of the compiled graphs, which are then more than one.
        """
        full, N = self._blocks(whole(n, "n", least=1))
        for length in lengths:
            if not 1 <= whole(length, "a length") <= n:
                raise ValueError(f"a length of {length} does not go into a batch of n={n} tokens; allowed are 1 to {n}")
            self._patterns([-(-length // self.config.block_size)], N)  # the config remembers them
        self._ready[full] = self._patterns([full], N)

    @torch.no_grad()
    def attention_maps(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        layers: Iterable[int] = (0,),
    ) -> dict[int, BlockWeights]:
        """Of each asked layer, how much weight every token gives to every other: (B, H, n, n) in block layout.

        The input is that of :meth:`forward`. The weights are those of the padded input: whole blocks, with the extra
        global tokens before the text. Without gradients; nothing is run that lies above the last of them.
        """
        asked = [whole(layer, "a layer") for layer in layers]
        for layer in asked:
            if not 0 <= layer < len(self.layers):
                raise ValueError(f"layer {layer} is not there; allowed are 0 to {len(self.layers) - 1}")
        words, token_type_ids, attention_mask = self._checked(input_ids, attention_mask, token_type_ids, inputs_embeds)
        x, patterns, key_mask, turns = self._padded(words, token_type_ids, attention_mask)
        found, last = {}, max(asked, default=-1)
        for i in range(last + 1):
            if i in asked:
                found[i] = self.layers[i].weights(x, patterns[i], key_mask, turns)
            if i < last:
                x = self.layers[i](x, patterns[i], key_mask, turns)
        return {layer: found[layer] for layer in asked}

    def _padded(
        self, words: torch.Tensor, token_type_ids: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, list[Patterns], torch.Tensor | None, Turns | None]:
        """What the first layer takes (B, room + N b, hidden), the pattern of every layer, and what they share."""
        (B, n, _), b = words.shape, self.config.block_size
        full, N = self._blocks(n)
        real = [full]  # one number where all agree
        if mask is not None and (self._by_length() or not torch.compiler.is_compiling()):
            real = _real_blocks(mask, b)
        ready = self._ready.get(full) if real == [full] else None
        patterns = self._patterns(real, N) if ready is None else ready
        more = N * b - n  # places behind each document
        x = self.embeddings(F.pad(words, (0, 0, 0, more)), F.pad(token_type_ids, (0, more)))
        return x, patterns, self._key_mask(mask, B, n, more, words.device), self._turns(N * b, x)

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
    def _patterns(self, real: list[int], n_blocks: int) -> list[Patterns]:
        """Of every layer."""
        return [self.patterns(layer, real, n_blocks) for layer in range(len(self.layers))]

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

    def _sources(self) -> Sequence[Pattern | None]:
        return self.pattern if isinstance(self.pattern, Sequence) else [self.pattern]

    def _blocks(self, n: int) -> tuple[int, int]:
        """Of a text of n tokens, and of its input, which is as long as the longest pattern of one's own."""
        full = -(-n // self.config.block_size)
        return full, max([full, *(p.n_blocks for p in self._sources() if isinstance(p, BlockPattern))])

    def _by_length(self) -> bool:
        """Whether documents of different lengths have different patterns, in some layer."""
        own = self.config.random_plan == "uniform" and self.config.attention_type == "block_sparse"
        return any(own if source is None else not isinstance(source, BlockPattern) for source in self._sources())


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
def _real_blocks(mask: torch.Tensor, block_size: int) -> list[int]:
    """The number of blocks of each document, up to its last real token; one number where all agree."""
    n = mask.shape[1]
    if not is_real(mask):
        return [-(-n // block_size)]
    lengths = (mask.bool() * torch.arange(1, n + 1, device=mask.device)).amax(1).tolist()
    if 0 in lengths:
        raise ValueError(f"attention_mask hides every token of document {lengths.index(0)}; leave it out of the batch")
    blocks = [-(-length // block_size) for length in lengths]
    return blocks[:1] if len(set(blocks)) == 1 else blocks
