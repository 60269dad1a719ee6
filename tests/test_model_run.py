"""Running a model: compiled, with patterns prepared ahead, and looked into (attention maps)."""

import dataclasses
import math

import pytest
import torch

from bigbird_mini import (
    BigBirdConfig,
    BigBirdForMaskedLM,
    BigBirdForQuestionAnswering,
    BigBirdForSequenceClassification,
    BigBirdForTokenClassification,
    BigBirdModel,
    BlockPattern,
    attention,
)

CONFIG = BigBirdConfig(
    vocab_size=30,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=40,
    max_position_embeddings=100,
    block_size=4,
    num_random_blocks=2,
    num_labels=5,
    sep_token_id=7,
    initializer_range=0.3,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
ODD = {"extra_global_tokens": 3, "positions": "rotary", "norm": "pre"}
LABELS = {
    BigBirdForMaskedLM: {"labels": (2, 50)},
    BigBirdForSequenceClassification: {"labels": (2,)},
    BigBirdForTokenClassification: {"labels": (2, 50)},
    BigBirdForQuestionAnswering: {"start_positions": (2,), "end_positions": (2,)},
}


def model(kind=BigBirdForMaskedLM, pattern=None, attention_fn=None, **changes):
    torch.manual_seed(0)
    made = kind(dataclasses.replace(CONFIG, **changes), pattern, attention_fn).double()
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made


def ids(B, n, seed=0):
    return torch.randint(8, 30, (B, n), generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- compiled


@pytest.mark.parametrize("kind", LABELS)
def test_prepared_heads_compile_to_one_graph(kind):
    """Forward and backward with the loss of labels; what torch.compile makes gives the same numbers."""
    torch._dynamo.reset()
    changes = ODD if kind is BigBirdForMaskedLM else {"gradient_checkpointing": kind is BigBirdForTokenClassification}
    net, x = model(kind, **changes).train(), ids(2, 50)
    labels = {name: torch.arange(math.prod(shape)).view(shape) % 5 for name, shape in LABELS[kind].items()}
    net.prepare(50)
    found = []
    for run in (net, torch.compile(net, fullgraph=True, backend="aot_eager")):
        out = run(x, **labels)
        net.zero_grad()
        out.loss.backward()
        found.append([out.loss, out.logits, out.last_hidden_state, *(p.grad.clone() for p in net.parameters())])
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=0, atol=1e-12)


@torch.no_grad()
def test_one_graph_needs_patterns_and_lengths_that_are_known():
    x, mask = ids(2, 50), torch.arange(50) < torch.tensor([[50], [31]])
    for changes, masked in (
        ({}, False),
        ({"random_plan": "hf_eval"}, True),
        ({"attention_type": "original_full"}, True),
    ):
        torch._dynamo.reset()
        net = model(BigBirdModel, **changes).eval()
        given = (x, mask) if masked else (x,)
        want = net(*given).last_hidden_state
        compiled = torch.compile(net, fullgraph=True, backend="eager")
        with pytest.raises(torch._dynamo.exc.Unsupported):
            compiled(*given)
        net.prepare(50)
        assert torch.allclose(compiled(*given).last_hidden_state, want, rtol=0, atol=1e-12)
    torch._dynamo.reset()
    net = model(BigBirdModel).eval()
    net.prepare(50, [31])
    compiled = torch.compile(net, backend="eager")  # with lengths in a mask: in several graphs
    assert torch.allclose(compiled(x, mask).last_hidden_state, net(x, mask).last_hidden_state, rtol=0, atol=1e-12)


def test_prepared_patterns_are_those_that_would_be_built(monkeypatch):
    x = ids(2, 50)
    for pattern in (None, BlockPattern.window, BlockPattern.window(15), [BlockPattern.full, BlockPattern.window(14)]):
        for changes in ({}, {"extra_global_tokens": 3}, {"random_plan": "hf_train"}):
            net = model(pattern=pattern, **changes).eval()
            short = torch.arange(50) < torch.tensor([[31], [31]])
            want, want_short = net(x).logits, net(x, short).logits
            net.prepare(50, lengths=[7, 31])
            with monkeypatch.context() as m:
                m.setattr(BigBirdModel, "_patterns", None)  # nothing is built any more, for 49 to 52 tokens
                assert torch.equal(net(x).logits, want)
                net(x[:, :49])
            assert torch.equal(net(x, short).logits, want_short)  # another length is another pattern


# ---------------------------------------------------------------- attention maps


@pytest.mark.parametrize("changes", [{}, ODD, {"attention_type": "original_full"}], ids=str)
@torch.no_grad()
def test_maps_are_the_weights_of_the_layer(changes):
    """Against softmax over what the pattern and the mask let through, from the layer's own queries and keys."""
    net, x = model(BigBirdModel, **changes).eval(), ids(2, 50)
    mask, types = torch.arange(50) < torch.tensor([[50], [31]]), x % 2
    given = []
    for layer in net.layers:
        layer.register_forward_pre_hook(lambda layer, args: given.append((layer, *args)))
    maps = net.attention_maps(x, mask, types, layers=(1, 0))
    given.clear()
    net(x, mask, types)
    assert list(maps) == [1, 0] and len(given) == 2
    for (layer, inner, p, key_mask, turns), index in zip(given, (0, 1), strict=True):
        inner = layer.attention_norm(inner) if layer.pre else inner
        q, k, _ = layer.q_k_v(inner, turns)
        grids = [one.token_mask(4) for one in (p if isinstance(p, list) else [p, p])]
        allowed = torch.stack([g.expand(4, -1, -1) for g in grids]) & key_mask[:, None, None]
        weights = (q @ k.transpose(-1, -2) / math.sqrt(6)).masked_fill(~allowed, -math.inf).softmax(-1).nan_to_num(0.0)
        got = maps[index].dense()
        assert got.shape == weights.shape and torch.allclose(got, weights, rtol=0, atol=1e-12)
        used = [*range(3), *range(4, 35)] if "norm" in changes else range(31)
        assert torch.allclose(got[1, :, used].sum(-1), torch.ones(()).double(), rtol=0, atol=1e-12)


def test_maps_cost_nothing_where_nobody_asks():
    calls = []

    def spy(q, k, v, p, key_mask=None, **more):
        calls.append(more)
        return attention(q, k, v, p, key_mask, **more)

    net, x = model(attention_fn=spy).eval(), ids(1, 30)
    out = net(x)
    assert calls == [{}, {}]
    calls.clear()
    assert set(net.attention_maps(x, layers=[0])) == {0}
    assert calls == [{"return_weights": True}]  # and what lies above is not run
    calls.clear()
    assert net.attention_maps(x, layers=()) == {} and calls == []
    assert torch.equal(net(x).logits, out.logits)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: model().attention_maps(ids(1, 9), layers=[2]), "layer 2 is not there; allowed are 0 to 1"),
        (lambda: model().attention_maps(ids(1, 9), layers=[-1]), "layer -1 is not there"),
        (
            lambda: model(attention_fn=lambda q, k, v, p, key_mask=None: v).attention_maps(ids(1, 9)),
            "attention_fn has no return_weights=True, which attention maps need",
        ),
        (
            lambda: model(attention_fn=lambda q, k, v, p, **more: v).attention_maps(ids(1, 9)),
            "it gave no pair",
        ),
        (lambda: model().attention_maps(ids(1, 101)), r"lengthen\(model, 101\)"),
        (lambda: model().prepare(0), "n=0"),
        (
            lambda: model().prepare(50, [51]),
            "a length of 51 does not go into a batch of n=50 tokens; allowed are 1 to 50",
        ),
    ],
)
def test_bad_requests_get_one_sentence(call, says):
    with pytest.raises(ValueError, match=says):
        call()
