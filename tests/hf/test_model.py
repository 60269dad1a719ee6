"""The same weights in Hugging Face's BigBird (full attention) and in ours give the same numbers (extra `hf`)."""

import pytest
import torch

transformers = pytest.importorskip("transformers", reason="needs the extra hf: pip install -e '.[hf]'")

from bigbird_mini import BigBirdConfig, BigBirdForMaskedLM, BlockPattern  # noqa: E402

SIZES = {
    "vocab_size": 70,  # their sep_token_id is 66
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 40,
    "max_position_embeddings": 64,
    "block_size": 4,
}
LAYER = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "out": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "output_norm": "output.LayerNorm",
}


def theirs_and_ours(seed):
    torch.manual_seed(seed)
    config = transformers.BigBirdConfig(**SIZES, attention_type="original_full")
    theirs = transformers.BigBirdForMaskedLM(config).eval()
    for p in theirs.parameters():
        p.data += 0.2 * torch.randn_like(p)
    ours = BigBirdForMaskedLM(BigBirdConfig(**SIZES), pattern=BlockPattern.full).eval()
    names = {f"encoder.layers.{i}.{a}": f"bert.encoder.layer.{i}.{b}" for i in range(3) for a, b in LAYER.items()}
    for a, b in (
        ("word", "word_embeddings"),
        ("position", "position_embeddings"),
        ("token_type", "token_type_embeddings"),
    ):
        names[f"encoder.embeddings.{a}"] = f"bert.embeddings.{b}"
    names["encoder.embeddings.norm"] = "bert.embeddings.LayerNorm"
    names |= {"transform": "cls.predictions.transform.dense", "norm": "cls.predictions.transform.LayerNorm"}
    given, state = theirs.state_dict(), {"bias": theirs.cls.predictions.bias}
    for mine, other in names.items():
        state |= {
            f"{mine}.{part}": given[f"{other}.{part}"] for part in ("weight", "bias") if f"{other}.{part}" in given
        }
    ours.load_state_dict(state)
    return theirs, ours


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("n", [5, 32, 63])
def test_full_attention_gives_their_numbers(seed, n):
    theirs, ours = theirs_and_ours(seed)
    ids = torch.randint(1, 70, (2, n))
    mask = (torch.arange(n) < torch.tensor([[n], [n - 3]])).long()
    types = (torch.arange(n).expand(2, -1) > n // 2).long()
    labels = ids.masked_fill((torch.rand(2, n) < 0.6) | (mask == 0), -100)
    with torch.no_grad():
        want = theirs(ids, attention_mask=mask, token_type_ids=types, labels=labels)
        got = ours(ids, mask, types, labels)
    real = mask.bool()
    assert torch.allclose(got.logits[real], want.logits[real], rtol=0, atol=1e-5)
    assert got.loss.item() == pytest.approx(want.loss.item(), abs=1e-5)
