"""The real MiniLM-L6 encoder: ours gives the numbers of transformers, and the scores that its makers document.

Skipped where the encoder is not in the cache: nothing is fetched in a test.
"""

import pytest
import torch
import torch.nn.functional as F

transformers = pytest.importorskip("transformers", reason="needs the extra hf: pip install -e '.[hf]'")

from bigbird_mini import BigBirdModel  # noqa: E402
from bigbird_mini.data import minilm  # noqa: E402
from bigbird_mini.model import lengthen  # noqa: E402

LEFT = ["The cat sits outside", "A man is playing guitar", "The new movie is awesome"]
RIGHT = ["The dog plays in the garden", "A woman watches TV", "The new movie is so great"]
DOCUMENTED = [0.2838, -0.0327, 0.8939]  # sentence-transformers' page on semantic similarity


@pytest.fixture(scope="module")
def home():
    try:
        return minilm(download=False)
    except FileNotFoundError:
        pytest.skip("all-MiniLM-L6-v2 is not in the cache: python -c 'from bigbird_mini.data import minilm; minilm()'")


@pytest.fixture(scope="module")
def ours(home):
    return BigBirdModel.from_pretrained(home)


@pytest.fixture(scope="module")
def tokenizer(home):
    from tokenizers import Tokenizer

    made = Tokenizer.from_file(str(home / "tokenizer.json"))
    made.no_truncation(), made.enable_padding()
    return made


@torch.no_grad()
def embedded(model, tokenizer, texts):
    """As sentence-transformers does it: the mean of the real tokens' vectors, of length 1."""
    encoded = tokenizer.encode_batch(texts)
    ids = torch.tensor([x.ids for x in encoded])
    mask = torch.tensor([x.attention_mask for x in encoded])
    vectors = model(ids, mask).last_hidden_state * mask.unsqueeze(-1)
    return F.normalize(vectors.sum(1) / mask.sum(1, keepdim=True), dim=-1)


def test_it_is_read_as_what_it_is(ours):
    config = ours.config
    assert (config.attention_type, config.hidden_act, config.max_position_embeddings) == ("original_full", "gelu", 512)
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (384, 6, 12)
    assert not ours.training


@pytest.mark.parametrize("n", [7, 130, 512])
def test_the_vectors_are_those_of_transformers(home, ours, n):
    theirs = transformers.BertModel.from_pretrained(home, attn_implementation="eager").eval()
    ids = torch.randint(1000, 30_000, (2, n), generator=torch.Generator().manual_seed(n))
    mask = torch.arange(n) < torch.tensor([[n], [n - 5]])
    types = (torch.arange(n) > n // 2).long().expand(2, -1)
    with torch.no_grad():
        want = theirs(ids, attention_mask=mask.long(), token_type_ids=types)
        got = ours(ids, mask, types)
    assert torch.allclose(got.last_hidden_state[mask], want.last_hidden_state[mask], rtol=0, atol=1e-4)
    assert torch.allclose(got.pooler_output, want.pooler_output, rtol=0, atol=1e-4)


def test_the_scores_are_the_documented_ones(ours, tokenizer):
    scores = (embedded(ours, tokenizer, LEFT) * embedded(ours, tokenizer, RIGHT)).sum(-1)
    assert scores.tolist() == pytest.approx(DOCUMENTED, abs=1e-4)


@pytest.mark.parametrize("changes", [{"attention_type": "original_full"}, {}])
def test_lengthened_with_tiled_positions_the_scores_stay(ours, tokenizer, changes):
    """Sparse too: a sentence is one block."""
    longer = lengthen(ours, 4096, **changes)
    scores = (embedded(longer, tokenizer, LEFT) * embedded(longer, tokenizer, RIGHT)).sum(-1)
    assert scores.tolist() == pytest.approx(DOCUMENTED, abs=1e-4)
    assert longer.layers[5].up.weight is ours.layers[5].up.weight


def test_a_lengthened_one_is_saved_and_read_again(ours, tokenizer, tmp_path):
    longer = lengthen(ours, 1024, block_size=32)
    longer.save_pretrained(tmp_path)
    again = BigBirdModel.from_pretrained(tmp_path)
    ids = torch.randint(1000, 30_000, (1, 1000), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(again(ids).last_hidden_state, longer(ids).last_hidden_state)
    assert again.config == longer.config and again.config.max_position_embeddings == 1024
