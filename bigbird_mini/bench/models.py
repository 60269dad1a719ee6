"""Whole encoders side by side, forward, without a head: ours, ours with full attention, and named peers.

All have the same width, depth and heads, random weights and no dropout; each reads one document of random ids.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..model import BigBirdConfig, BigBirdModel
from .peers import HEAD_SIZE, CannotRun, Case, need_transformers

VOCABULARY = 30_000
WHAT = {
    "bigbird-mini": "ours",
    "bigbird-mini-full": "ours, attention_type original_full",
    "huggingface-bigbird": "BigBirdModel of transformers, in training mode (in evaluation it has no random blocks), "
    "with dropout 0",
    "modernbert": "ModernBertModel of transformers: a window of 128 tokens, every third layer full, a gated "
    "feed-forward of its own width",
}


def prepare(case: Case) -> Callable[[], object]:
    """A function that runs the encoder once and gives its last hidden state; CannotRun where there is none."""
    if case.direction != "forward":
        raise CannotRun("models are measured forward only")
    torch.manual_seed(0)
    model = MODELS[case.route](case).to(case.device, getattr(torch, case.dtype))
    ids = torch.randint(5, VOCABULARY, (case.batch, case.n), device=case.device)

    def run() -> object:
        with torch.no_grad():
            return model(input_ids=ids).last_hidden_state

    return run


def ours(case: Case, attention_type: str = "block_sparse") -> torch.nn.Module:
    config = BigBirdConfig(
        vocab_size=VOCABULARY,
        hidden_size=case.heads * HEAD_SIZE,
        num_hidden_layers=case.layers,
        num_attention_heads=case.heads,
        intermediate_size=4 * case.heads * HEAD_SIZE,
        max_position_embeddings=case.n,
        block_size=case.block,
        window_blocks=case.window,
        num_random_blocks=case.random,
        attention_type=attention_type,
    )
    return BigBirdModel(config).eval()


def huggingface(case: Case) -> torch.nn.Module:
    need_transformers()
    from transformers import BigBirdConfig, BigBirdModel

    if case.window != 3 or case.random == 0:
        raise CannotRun(f"has a window of 3 blocks and some random ones, not {case.window} and {case.random}")
    least = (5 + 2 * case.random) * case.block
    if case.n <= least:
        raise CannotRun(f"uses full attention up to {least:,} tokens")
    config = BigBirdConfig(
        vocab_size=VOCABULARY,
        hidden_size=case.heads * HEAD_SIZE,
        num_hidden_layers=case.layers,
        num_attention_heads=case.heads,
        intermediate_size=4 * case.heads * HEAD_SIZE,
        max_position_embeddings=max(4096, case.n),
        block_size=case.block,
        num_random_blocks=case.random,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BigBirdModel(config, add_pooling_layer=False).train()


def modernbert(case: Case) -> torch.nn.Module:
    need_transformers()
    from transformers import ModernBertConfig, ModernBertModel

    config = ModernBertConfig(
        vocab_size=VOCABULARY,
        hidden_size=case.heads * HEAD_SIZE,
        num_hidden_layers=case.layers,
        num_attention_heads=case.heads,
        intermediate_size=case.heads * HEAD_SIZE * 3 // 2,
        max_position_embeddings=case.n,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
    )
    return ModernBertModel(config).eval()


MODELS: dict[str, Callable[[Case], torch.nn.Module]] = {
    "bigbird-mini": ours,
    "bigbird-mini-full": lambda case: ours(case, "original_full"),
    "huggingface-bigbird": huggingface,
    "modernbert": modernbert,
}
