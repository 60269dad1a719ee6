"""The pattern as money: score entries, floating point operations (FLOPs) and bytes.

A score entry is one number for one head, one query and one key it reads: n² a head where attention is dense, which is
a pattern too: ``BlockPattern.full(1)`` with ``block_size=n``. Only score entries depend on the pattern. A config is a
BigBirdConfig, or any object with the same names for its sizes. For seconds see ``bigbird_mini.bench``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .pattern import BlockPattern
from .plans import whole

VECTORS = 7  # of the hidden size, for each token of a layer: input, q, k, v, mix of values, its projection, output


def score_entries(p: BlockPattern, block_size: int, heads: int | None = None) -> int:
    """Number of score entries of one document and one layer, over all heads: p.heads, or ``heads``, where a pattern of
    one head stands for all of them."""
    if not isinstance(p, BlockPattern):
        raise TypeError(f"the pattern must be a BlockPattern, not {type(p).__name__}")
    block_size = whole(block_size, "block_size", least=1)
    heads = p.heads if heads is None else whole(heads, "heads", least=1)
    if p.heads not in (1, heads):
        raise ValueError(f"the pattern has {p.heads} heads, the model {heads}; the pattern may have 1 or {heads}")
    return int(p.keys_per_query(1).sum()) * heads // p.heads * block_size**2  # pairs of blocks, each of so many tokens


def attention_flops(
    p: BlockPattern, block_size: int, head_size: int, heads: int | None = None, training: bool = False, batch: int = 1
) -> int:
    """FLOPs of q·k and of weights·v in one layer: 4 · head_size for each score entry, a multiply-add counted as 2.

    training: three times that, since the backward pass has two matrix products for each one of the forward pass.
    Left out: softmax and masks, and what a backward pass computes again that did not keep the weights ("gather").
    """
    entries = score_entries(p, block_size, heads) * whole(batch, "batch", least=1)
    return 4 * whole(head_size, "head_size", least=1) * entries * (3 if training else 1)


def attention_bytes(
    p: BlockPattern, block_size: int, heads: int | None = None, values: int = 1, dtype_bytes: int = 4, batch: int = 1
) -> int:
    """Bytes of ``values`` numbers for each score entry of one layer.

    values: 0 with a fused kernel or one that computes again (torch's scaled_dot_product_attention, "gather" without
    dropout); 1 for the weights, which the plain formula keeps for training; 2 for scores and weights, both there for a
    moment, or for weights and their copy after dropout, which training then keeps; 3 for all three. "dense" holds all
    n² whatever the pattern: give it BlockPattern.full.
    """
    each = whole(values, "values", least=0) * whole(dtype_bytes, "dtype_bytes", least=1)
    return score_entries(p, block_size, heads) * each * whole(batch, "batch", least=1)


def layer_parameters(config: Any) -> int:
    """Parameters of one layer: q, k, v, output and two feed-forward matrices with biases, two LayerNorms."""
    h, wide = _size(config, "hidden_size"), _size(config, "intermediate_size")
    return 4 * (h * h + h) + 2 * h * wide + wide + h + 4 * h


def parameters(config: Any, masked_lm: bool = False) -> int:
    """Parameters of BigBirdModel, or of BigBirdForMaskedLM, whose decoder is the word embedding again."""
    h, vocabulary = _size(config, "hidden_size"), _size(config, "vocab_size")
    tables = vocabulary + _size(config, "max_position_embeddings") + _size(config, "type_vocab_size")
    encoder = tables * h + 2 * h + _size(config, "num_hidden_layers", 0) * layer_parameters(config)
    return encoder + (h * h + 3 * h + vocabulary if masked_lm else 0)


def layer_bytes(
    config: Any, p: BlockPattern, block_size: int, values: int = 2, vectors: int = VECTORS, dtype_bytes: int = 4
) -> int:
    """Bytes of one layer going forward with one document, as if all its tensors were held at once: its weights, then
    ``vectors`` of the hidden size and one of the feed-forward size a token, then ``values`` numbers a score entry:
    those of attention_bytes. (A count with head_size numbers for each entry is wrong: a score sums them up.)"""
    h, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
    pairs = attention_bytes(p, block_size, heads, values, dtype_bytes)
    token = whole(vectors, "vectors", least=0) * h + _size(config, "intermediate_size")  # numbers
    return pairs + dtype_bytes * (layer_parameters(config) + p.n_blocks * block_size * token)


@dataclass(frozen=True)
class ModelCost:
    """What a model costs for one batch: FLOPs of a forward pass, in training of a forward and a backward pass, and the
    bytes held. attention_*: what belongs to score entries; the projections to q, k and v are with the rest."""

    tokens: int  # of one document
    batch: int
    training: bool
    parameters: int
    attention_flops: int
    other_flops: int
    weight_bytes: int
    attention_bytes: int
    other_activation_bytes: int
    optimiser_bytes: int  # gradients, and what the optimiser remembers

    @property
    def flops(self) -> int:
        return self.attention_flops + self.other_flops

    @property
    def bytes(self) -> int:
        return self.weight_bytes + self.attention_bytes + self.other_activation_bytes + self.optimiser_bytes

    def __str__(self) -> str:
        parts = [(self.weight_bytes, "weights"), (self.optimiser_bytes, "gradients and optimiser")]
        parts += [(self.attention_bytes, "score entries"), (self.other_activation_bytes, "other activations")]
        return (
            f"{'training' if self.training else 'inference'}, {self.batch} x {self.tokens:,} tokens\n"
            f"{_short(self.parameters)} parameters\n"
            f"{_short(self.flops)}FLOP, {self.attention_flops / max(self.flops, 1):.0%} of them for score entries\n"
            f"{_short(self.bytes)}B: " + ", ".join(f"{_short(size)}B {name}" for size, name in parts if size)
        )


def model_cost(
    config: Any,
    p: BlockPattern,
    block_size: int,
    training: bool = False,
    dtype_bytes: int = 4,
    batch: int = 1,
    masked_lm: bool = False,
    fused: bool = False,
    mask_bytes: int = 1,
    optimiser_values: int = 2,
) -> ModelCost:
    """FLOPs and bytes of the whole encoder, with or without the masked-language-model head, on documents of p's length.

    FLOPs are those of the matrix products, a multiply-add as 2; training has three times those of the forward pass.
    Bytes at inference: one layer as in layer_bytes, scores and weights both there, and the logits. In training: what
    autograd keeps of the plain formula, which for each layer is 8 vectors of the hidden and 2 of the feed-forward size
    a token, and the weights; with the config's dropouts also the dropped weights, and masks of ``mask_bytes`` (on a CPU
    torch keeps whole numbers: dtype_bytes). In BERT's shape that is s·b·h (34 + 5 a s / h) bytes a layer in half
    precision (Korthikanti et al. 2022). Of the logits nothing is kept in training: the loss makes them a few rows at a
    time. Left out: token ids, and what a backward pass makes meanwhile, those rows too.

    p: the pattern of every layer; a document has p.n_blocks * block_size tokens.
    fused: nothing is held for the score entries, and in training one number more for each token and head.
    optimiser_values: numbers remembered for each parameter beside its gradient: 2 for Adam, 0 for plain descent.
    """
    h, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
    wide, layers = _size(config, "intermediate_size"), _size(config, "num_hidden_layers", 0)
    if h % heads:
        raise ValueError(f"hidden_size={h} is not a multiple of num_attention_heads={heads}")
    count, vocabulary = parameters(config, masked_lm), _size(config, "vocab_size") if masked_lm else 0
    attention = layers * attention_flops(p, block_size, h // heads, heads, training, batch)
    n = p.n_blocks * block_size
    matrices = layers * (4 * h * h + 2 * h * wide) + (h * h + h * vocabulary if masked_lm else 0)
    other = 2 * batch * n * matrices * (3 if training else 1)
    weights, optimiser = count * whole(dtype_bytes, "dtype_bytes", least=1), 0
    if training:
        masks = whole(mask_bytes, "mask_bytes", least=0)
        dropped = getattr(config, "attention_probs_dropout_prob", 0) > 0
        each = 0 if fused else 2 * dtype_bytes + masks if dropped else dtype_bytes  # bytes for each score entry
        held = layers * attention_bytes(p, block_size, heads, each, 1, batch)
        values = layers * (8 * h + 2 * wide) + 2 * h + (3 * h if masked_lm else 0)
        sums = 2 * (2 * layers + 1 + masked_lm) + fused * layers * heads  # of norms and softmax, in float32
        masked = (2 * layers + 1) * h if getattr(config, "hidden_dropout_prob", 0) > 0 else 0
        rest = batch * n * (values * dtype_bytes + 4 * sums + masked * masks)
        optimiser = weights * (1 + whole(optimiser_values, "optimiser_values", least=0))
    else:
        held = min(layers, 1) * attention_bytes(p, block_size, heads, 0 if fused else 2, dtype_bytes, batch)
        rest = batch * n * (VECTORS * h + wide + vocabulary) * dtype_bytes
    return ModelCost(n, batch, training, count, attention, other, weights, held, rest, optimiser)


def longest(budget_bytes: float, bytes_at: Callable[[int], int], step: int = 1) -> int:
    """The largest n, a multiple of step, with bytes_at(n) <= budget_bytes; 0 where not even n = step fits.

    bytes_at: bytes for n tokens, growing with n. One dense layer, and a whole BigBird in training:
    ``longest(11e9, lambda n: layer_bytes(config, BlockPattern.full(1), n))``,
    ``longest(11e9, lambda n: model_cost(config, BlockPattern.bigbird(n // 64), 64, training=True).bytes, step=64)``.
    """
    if not isinstance(budget_bytes, int | float) or not budget_bytes > 0 or budget_bytes == float("inf"):
        raise ValueError(f"budget_bytes={budget_bytes!r} is no number of bytes; it must be above 0 and finite")
    fits, too_long, step = 0, 1, whole(step, "step", least=1)  # the first two in steps
    while bytes_at(too_long * step) <= budget_bytes:
        fits, too_long = too_long, 2 * too_long
        if too_long * step > 2**40:
            raise ValueError(f"bytes_at({fits * step}) is still within the budget; it must grow with n")
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        fits, too_long = (middle, too_long) if bytes_at(middle * step) <= budget_bytes else (fits, middle)
    return fits * step


def break_even(
    pattern: Callable[[int], BlockPattern] = BlockPattern.bigbird,
    block_size: int = 64,
    times: float = 1,
    most: int = 256,
) -> int:
    """The length in tokens from which the pattern computes fewer score entries than dense attention, as far as ``most``
    blocks. In seconds the two meet later, and where depends on the machine: ``bigbird_mini.bench`` measures it.

    pattern: from a number of blocks to the pattern of that length. times: layers of the sparse model for each layer of
    the dense one. Raises ValueError where even with ``most`` blocks it computes no less.
    """
    block_size, most = whole(block_size, "block_size", least=1), whole(most, "most", least=1)
    if not times > 0:
        raise ValueError(f"times={times} must be above 0")
    last = next((blocks for blocks in range(most, 0, -1) if pattern(blocks).density() * times >= 1), 0)
    if last == most:
        raise ValueError(f"with {most} blocks the pattern computes no less than dense attention; raise most")
    return (last + 1) * block_size


def _size(config: Any, name: str, least: int = 1) -> int:
    return whole(getattr(config, name), name, least)


def _short(number: int) -> str:
    """Three digits and a prefix: "109 M"."""
    for power, prefix in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if number >= 0.9995 * 10**power:
            return f"{number / 10**power:.3g} {prefix}"
    return f"{number} "
