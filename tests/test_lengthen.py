"""A model with full attention becomes a block-sparse one for longer texts, with the same weights."""

import dataclasses

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from bigbird_mini import (
    BigBirdConfig,
    BigBirdForMaskedLM,
    BigBirdForQuestionAnswering,
    BigBirdForSequenceClassification,
    BigBirdForTokenClassification,
    BigBirdModel,
    attention,
    checkpoint,
)
from bigbird_mini.model import lengthen

SHORT = BigBirdConfig(
    vocab_size=30,
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=40,
    max_position_embeddings=22,
    hidden_act="gelu",
    block_size=4,
    num_random_blocks=2,
    initializer_range=0.3,
    attention_type="original_full",
)
HEADS = [
    BigBirdModel,
    BigBirdForMaskedLM,
    BigBirdForSequenceClassification,
    BigBirdForTokenClassification,
    BigBirdForQuestionAnswering,
]


def model(kind=BigBirdModel, seed=0, **changes):
    """Weights and biases all different from their start, so that none can hide."""
    torch.manual_seed(seed)
    made = kind(dataclasses.replace(SHORT, **changes)).eval()
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made


def encoder(net):
    return getattr(net, "encoder", net)


def table(net):
    return encoder(net).embeddings.position.weight


def ids(B, n, seed=0):
    return torch.randint(1, 30, (B, n), generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- the table of positions


def test_tiled_rows_are_the_old_ones_over_and_over():
    net = model()
    rows = table(lengthen(net, 53))
    assert rows.shape == (53, 24) and rows.is_contiguous()
    assert all(torch.equal(rows[i], table(net)[i % 22]) for i in range(53))
    assert torch.equal(table(lengthen(net, 53, how="tiled")), rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_interpolated_rows_lie_on_straight_lines_between_the_old_ones(dtype):
    net = model().to(dtype)
    rows = table(lengthen(net, 64, "interpolated"))  # 64 = 3 x 21 + 1: each third row is an old one
    assert rows.dtype == dtype and rows.is_contiguous()
    assert torch.allclose(rows[::3], table(net), rtol=0, atol=1e-6)
    old = table(net).detach().double().numpy()
    want = np.stack([np.interp(np.linspace(0, 21, 64), np.arange(22), column) for column in old.T], 1)
    assert np.allclose(rows.detach().double().numpy(), want, rtol=0, atol=1e-2 if dtype == torch.bfloat16 else 1e-6)


def test_fresh_rows_are_drawn():
    net = model()
    torch.manual_seed(5)
    first = table(lengthen(net, 4000, "fresh"))
    torch.manual_seed(6)
    second = table(lengthen(net, 4000, "fresh"))
    assert first.std().item() == pytest.approx(0.3, rel=0.02) and abs(first.mean().item()) < 0.01
    assert not torch.isclose(first, second).any(1).all() and not torch.equal(first[:22], table(net))


# ---------------------------------------------------------------- what is shared and what stays


@pytest.mark.parametrize("kind", HEADS)
def test_all_but_the_positions_are_the_same_parameters(kind):
    net = model(kind)
    net.get_parameter(("encoder." if encoder(net) is not net else "") + "layers.1.up.weight").requires_grad_(False)
    before = {name: x.detach().clone() for name, x in net.named_parameters()}
    longer = lengthen(net, 100, pattern_seed=3)
    assert type(longer) is kind and not longer.training
    mine, theirs = dict(longer.named_parameters()), dict(net.named_parameters())
    assert mine.keys() == theirs.keys() and list(longer.state_dict()) == list(net.state_dict())
    other = [name for name in mine if mine[name] is not theirs[name]]
    assert other == ["encoder." * (encoder(net) is not net) + "embeddings.position.weight"]
    assert [x.requires_grad for x in mine.values()] == [x.requires_grad for x in theirs.values()]
    assert sum(not x.requires_grad for x in mine.values()) == 1
    assert net.config == SHORT and all(torch.equal(x, before[name]) for name, x in net.named_parameters())
    want = dataclasses.replace(
        SHORT, attention_type="block_sparse", max_position_embeddings=100, pattern_seed=3, block_size=4
    )
    assert longer.config == want and encoder(longer).config == want


def test_a_frozen_table_stays_frozen_and_a_training_model_stays_in_training():
    net = model().train()
    table(net).requires_grad_(False)
    longer = lengthen(net, 50)
    assert not table(longer).requires_grad and longer.training and longer.layers[2].training
    assert table(lengthen(model(), 50)).requires_grad


def test_training_one_trains_both():
    net = model(BigBirdForSequenceClassification)
    longer = lengthen(net, 100)
    longer(ids(2, 70), labels=torch.tensor([0, 1])).loss.backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in longer.parameters())
    assert [name for name, x in net.named_parameters() if x.grad is None] == ["encoder.embeddings.position.weight"]


def test_the_attention_function_is_kept_and_a_pattern_is_not():
    seen = []

    def spy(q, k, v, p, key_mask=None):
        seen.append(p)
        return attention(q, k, v, p, key_mask)

    torch.manual_seed(0)
    net = BigBirdModel(SHORT, pattern=SHORT.pattern(6, 0), attention_fn=spy).eval()
    longer = lengthen(net, 64)
    longer(ids(1, 64))
    assert seen == [longer.config.pattern(16, layer) for layer in range(3)] and longer.pattern is None
    assert all(p.density() < 1 for p in seen)


# ---------------------------------------------------------------- what comes out


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("n", [5, 13, 22])
def test_with_full_attention_short_texts_come_out_as_before(seed, n):
    net, x = model(seed=seed), ids(2, n, seed)
    mask = torch.arange(n) < torch.tensor([[n], [n - 3]])
    want = net(x, mask).last_hidden_state
    for changes in ({"attention_type": "original_full"}, {"window_blocks": 13}):
        got = lengthen(net, 100, **changes)(x, mask).last_hidden_state
        assert torch.allclose(got[mask], want[mask], rtol=0, atol=1e-5)
    sparse = lengthen(net, 100, num_random_blocks=0, window_blocks=1, global_blocks=())(x, mask).last_hidden_state
    assert not torch.allclose(sparse[mask], want[mask], atol=1e-2)


def test_each_text_of_the_old_length_has_the_old_positions():
    """With a window of one block of 22 tokens, three texts in a row are three texts by themselves."""
    net, x = model(), ids(1, 66)
    alone = net(x.view(3, 22)).last_hidden_state.reshape(1, 66, 24)
    longer = lengthen(net, 66, block_size=22, window_blocks=1, num_random_blocks=0, global_blocks=())
    assert torch.allclose(longer(x).last_hidden_state, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("how", ["tiled", "interpolated", "fresh"])
@pytest.mark.parametrize("kind", HEADS)
def test_it_is_the_model_one_would_have_built(how, kind):
    net = model(kind).double()
    longer = lengthen(net, 75, how, block_size=8, num_random_blocks=1, window_blocks=5, global_blocks=(0,))
    want = kind(longer.config).double().eval()
    want.load_state_dict(net.state_dict() | {name: x for name, x in longer.state_dict().items() if "position" in name})
    got, want = (vars(each(ids(2, 75))) for each in (longer, want))
    compared = [name for name, x in want.items() if isinstance(x, torch.Tensor)]
    assert compared and all(torch.equal(got[name], want[name]) for name in compared)


def test_the_same_length_makes_it_sparse():
    net, x = model(), ids(1, 22)
    longer = lengthen(net, 22, num_random_blocks=0)
    assert torch.equal(table(longer), table(net)) and table(longer) is not table(net)
    assert longer.config.attention_type == "block_sparse"
    assert not torch.allclose(longer(x).last_hidden_state, net(x).last_hidden_state, atol=1e-3)


def test_extra_global_tokens_may_be_new():
    torch.manual_seed(0)
    net = model().to(torch.float64)
    longer = lengthen(net, 64, extra_global_tokens=5)
    extra = longer.embeddings.extra_global.weight
    assert extra.shape == (5, 24) and extra.dtype == torch.float64 and 0.15 < extra.std() < 0.45
    out = longer(ids(2, 60))
    assert out.last_hidden_state.shape == (2, 60, 24) and out.global_hidden_state.shape == (2, 5, 24)
    again = lengthen(longer, 90)
    assert again.embeddings.extra_global.weight is extra


@pytest.mark.parametrize("positions", ["rotary", "sinusoidal", "none"])
def test_without_a_table_only_the_length_and_the_pattern_change(positions):
    net, x = model(positions=positions), ids(1, 64)
    full = lengthen(net, 64, attention_type="original_full")
    assert torch.equal(full(x).last_hidden_state, net(x).last_hidden_state)
    longer = lengthen(net, 64)
    assert longer.config.max_position_embeddings == 64 and longer.config.attention_type == "block_sparse"
    assert dict(longer.named_parameters()).keys() == dict(net.named_parameters()).keys()
    assert not torch.allclose(longer(x).last_hidden_state, net(x).last_hidden_state, atol=1e-3)
    with pytest.raises(ValueError, match=f"positions='{positions}' has no table to be tiled; leave `how` out"):
        lengthen(net, 64, "tiled")


def test_a_pooler_stays():
    torch.manual_seed(0)
    net = BigBirdModel(SHORT, pooler=True).eval()
    longer = lengthen(net, 44)
    assert longer.pooler.weight is net.pooler.weight and longer(ids(1, 40)).pooler_output.shape == (1, 24)


def test_a_table_of_one_row_can_be_stretched():
    net = model(max_position_embeddings=1)
    assert torch.equal(table(lengthen(net, 5, "interpolated")), table(net).expand(5, -1))


def test_twice_is_as_good_as_once():
    net = model(BigBirdForMaskedLM)
    once, twice = lengthen(net, 88), lengthen(lengthen(net, 44), 88)
    assert torch.equal(once(ids(1, 80)).logits, twice(ids(1, 80)).logits)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("n", "changes", "error", "says"),
    [
        (21, {}, ValueError, "n=21 must be a whole number, at least the 22 tokens that the model takes today"),
        (64.0, {}, ValueError, "n=64.0 must be a whole number"),
        (True, {}, ValueError, "n=True must be a whole number"),
        (64, {"how": "longer"}, ValueError, "how='longer' is not known; allowed: 'tiled', 'interpolated', 'fresh'"),
        (64, {"window": 3}, ValueError, "window is no setting to change here; did you mean window_blocks?"),
        (64, {"xyz": 3}, ValueError, "xyz is no setting to change here; see BigBirdConfig"),
        (64, {"max_position_embeddings": 3}, ValueError, "max_position_embeddings is no setting .*; n sets it"),
        (64, {"window_blocks": 2}, ValueError, "window width=2 is even"),
        (64, {"hidden_size": 48}, ValueError, "config needs another .*; lengthen keeps the weights as they are"),
        (64, {"num_hidden_layers": 4}, ValueError, "the changed config needs a new layers.3"),
        (64, {"num_hidden_layers": 2}, ValueError, "the changed config needs no layers.2"),
        (64, {"use_bias": False}, ValueError, "the changed config needs no layers.0.query.bias"),
        (64, {"norm": "pre"}, ValueError, "the changed config needs a new final_norm.weight"),
        (64, {"positions": "rotary"}, ValueError, "the changed config needs no embeddings.position"),
    ],
)
def test_bad_input_gets_one_sentence(n, changes, error, says):
    with pytest.raises(error, match=says):
        lengthen(model(), n, **changes)


@pytest.mark.parametrize("thing", [torch.nn.Linear(2, 2), SHORT, "bert-base"])
def test_only_models_of_ours_are_lengthened(thing):
    with pytest.raises(TypeError, match=f"takes a BigBirdModel or a head around one, not {type(thing).__name__}"):
        lengthen(thing, 64)


def test_a_text_that_is_too_long_still_says_so():
    with pytest.raises(ValueError, match="n=65 tokens; allowed are 1 to max_position_embeddings=64"):
        lengthen(model(), 64)(ids(1, 65))


def test_from_a_bert_folder_and_back_to_one(tmp_path):
    """A folder as transformers writes it for BERT: other names, no prefix, full attention."""
    net = model(type_vocab_size=1)
    theirs = {"model_type": "bert", "hidden_act": "gelu", "id2label": {"0": "bad", "1": "ok"}, "type_vocab_size": 1}
    sizes = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    theirs |= {name: getattr(SHORT, name) for name in (*sizes, "max_position_embeddings")}
    weights = {checkpoint.to_hugging_face(name): x for name, x in net.state_dict().items()}
    checkpoint.write(tmp_path / "bert", theirs, weights)
    read = BigBirdModel.from_pretrained(tmp_path / "bert", block_size=4, num_random_blocks=2)
    longer = lengthen(read, 100)
    assert torch.equal(longer(ids(2, 90)).last_hidden_state, lengthen(net, 100)(ids(2, 90)).last_hidden_state)
    longer.save_pretrained(tmp_path / "long")
    again = BigBirdModel.from_pretrained(tmp_path / "long")
    assert torch.equal(again(ids(2, 90)).last_hidden_state, longer(ids(2, 90)).last_hidden_state)
    assert checkpoint.read(tmp_path / "long")[0]["id2label"] == {"0": "bad", "1": "ok"}


@pytest.mark.parametrize("how", ["tiled", "interpolated", "fresh"])
def test_what_is_new_lies_on_the_model_s_device(how):
    net = BigBirdModel(SHORT)
    with FakeTensorMode(allow_non_fake_inputs=True):
        for name, x in list(net.named_parameters()):
            owner, _, own = name.rpartition(".")
            there = torch.empty(x.shape, device="cuda", dtype=torch.float16)
            setattr(net.get_submodule(owner), own, torch.nn.Parameter(there))
        longer = lengthen(net, 64, how, extra_global_tokens=2)
        kinds = {(x.device.type, x.dtype) for x in longer.parameters()}
    assert kinds == {("cuda", torch.float16)} and longer.embeddings.position.weight.shape == (64, 24)
