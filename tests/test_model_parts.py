"""What the config may choose inside the encoder, against the same written out by its formulas: norms, positions,
extra global tokens, activations, biases, scale; full attention; and gradient checkpointing."""

import cmath
import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from bigbird_mini import BigBirdConfig, BigBirdForMaskedLM, BigBirdModel, BlockPattern, attention

SMALL = BigBirdConfig(
    vocab_size=30,
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=40,
    max_position_embeddings=100,
    block_size=4,
    num_random_blocks=2,
    initializer_range=0.3,
)


def encoder(seed=0, pattern=None, attention_fn=None, kind=BigBirdModel, **changes):
    torch.manual_seed(seed)
    made = kind(dataclasses.replace(SMALL, **changes), pattern, attention_fn).eval().double()
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made


def ids(B, n, seed=0):
    return torch.randint(1, 30, (B, n), generator=torch.Generator().manual_seed(seed))


def rotated(x, place):
    """One vector (d,), its pairs (i, i + d / 2) as complex numbers, each turned by its angle."""
    d = len(x)
    out = x.clone()
    for i in range(d // 2):
        z = complex(x[i].item(), x[i + d // 2].item()) * cmath.exp(1j * place * 10000 ** (-2 * i / d))
        out[i], out[i + d // 2] = z.real, z.imag
    return out


def by_formula(net, words, types, allowed):
    """One document, words (n, hidden): every step as it stands in the papers, in loops. allowed: (H, m, m) bool."""
    config, e = net.config, net.embeddings
    n, hidden = words.shape
    act = {"relu": torch.relu, "gelu": F.gelu, "gelu_new": None}[config.hidden_act] or (
        lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    )
    x = words * (math.sqrt(hidden) if config.rescale_embeddings else 1) + e.token_type.weight[types]
    for place in range(n):
        if config.positions == "learned":
            x[place] += e.position.weight[place]
        elif config.positions == "sinusoidal":
            for i in range(hidden):
                wave = place / 10000 ** (2 * (i // 2) / hidden)
                x[place, i] += 0.3 * math.sqrt(2) * (math.cos(wave) if i % 2 else math.sin(wave))
    g = config.extra_global_tokens
    if g:
        x = torch.cat((e.extra_global.weight, x))
    x = e.norm(x)
    d = hidden // config.num_attention_heads
    for layer in net.layers:
        before = layer.attention_norm(x) if config.norm == "pre" else x
        q, k, v = (f(before).view(-1, config.num_attention_heads, d) for f in (layer.query, layer.key, layer.value))
        if config.positions == "rotary":
            for place in range(n):
                for head in range(config.num_attention_heads):
                    q[g + place, head] = rotated(q[g + place, head], place)
                    k[g + place, head] = rotated(k[g + place, head], place)
        scores = torch.einsum("ihd,jhd->hij", q, k) / math.sqrt(d)
        weights = scores.masked_fill(~allowed, -math.inf).softmax(-1)
        x = x + layer.out(torch.einsum("hij,jhd->ihd", weights, v).reshape(len(x), hidden))
        if config.norm == "pre":
            x = x + layer.down(act(layer.up(layer.output_norm(x))))
        else:
            x = layer.attention_norm(x)
            x = layer.output_norm(x + layer.down(act(layer.up(x))))
    x = net.final_norm(x) if config.norm == "pre" else x
    return x[g:], x[:g]


VARIANTS = [
    {},
    {"norm": "pre"},
    {"positions": "sinusoidal"},
    {"positions": "rotary"},
    {"positions": "none"},
    {"hidden_act": "gelu", "use_bias": False},
    {"hidden_act": "relu", "rescale_embeddings": True},
    {"extra_global_tokens": 3},
    {"extra_global_tokens": 6, "positions": "rotary", "norm": "pre"},
    {"extra_global_tokens": 4, "positions": "sinusoidal", "rescale_embeddings": True},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@pytest.mark.parametrize("seed", [0, 1])
@torch.no_grad()
def test_every_choice_is_its_formula(changes, seed):
    """Two documents of 22 and 15 tokens in one batch, all attention over everything."""
    net = encoder(seed, **changes, attention_type="original_full")
    x, types = ids(2, 22, seed), torch.arange(22).expand(2, -1) % 3 % 2
    out = net(x, torch.arange(22) < torch.tensor([[22], [15]]), types)
    g = net.config.extra_global_tokens
    for document, length in enumerate((22, 15)):
        everything = torch.ones(4, g + length, g + length, dtype=torch.bool)
        words = net.embeddings.word.weight[x[document, :length]]
        want, want_first = by_formula(net, words, types[document, :length], everything)
        assert torch.allclose(out.last_hidden_state[document, :length], want, rtol=0, atol=1e-9)
        if g:
            assert torch.allclose(out.global_hidden_state[document], want_first, rtol=0, atol=1e-9)
    assert out.last_hidden_state.shape == (2, 22, 24)
    assert (out.global_hidden_state is None) == (g == 0)


@pytest.mark.parametrize("g", [1, 4, 5])
@torch.no_grad()
def test_extra_global_tokens_see_the_text_and_are_seen_through_the_pattern(g):
    """The sparse pattern moved behind the global blocks, whose unused places nobody reads."""
    net, x = encoder(extra_global_tokens=g), ids(1, 27)
    room = -(-g // 4)
    allowed = []
    for layer in range(3):
        p = SMALL.pattern(7, layer)  # as without them
        wide = torch.ones(4, room + 7, room + 7, dtype=torch.bool)
        wide[:, room:, room:] = p.grid()
        assert torch.equal(net.config.pattern(7, layer).grid(), wide)
        tokens = wide.repeat_interleave(4, 1).repeat_interleave(4, 2)
        used = [*range(g), *range(4 * room, 4 * room + 27)]
        allowed.append(tokens[:, used][:, :, used])
    assert len({tuple(a.flatten().tolist()) for a in allowed}) == 3
    words = net.embeddings.word.weight[x[0]]
    # the formula takes one pattern for all layers; so does the model, one at a time
    for a in allowed:
        p = BlockPattern.from_grid(a[:, g:, g:][:, ::4, ::4])
        one = encoder(extra_global_tokens=g, pattern=p)
        want, first = by_formula(one, words, torch.zeros(27, dtype=torch.long), a)
        got = one(x)
        assert torch.allclose(got.last_hidden_state[0], want, rtol=0, atol=1e-9)
        assert torch.allclose(got.global_hidden_state[0], first, rtol=0, atol=1e-9)


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@torch.no_grad()
def test_batch_mates_have_no_say_in_any_of_them(changes):
    net, x = encoder(**changes), ids(3, 67)
    mask = torch.arange(67) < torch.tensor([[21], [67], [50]])
    together = net(x, mask)
    for document, length in enumerate((21, 67, 50)):
        alone = net(x[document : document + 1, :length])
        near = {"rtol": 0, "atol": 1e-10}
        assert torch.allclose(together.last_hidden_state[document, :length], alone.last_hidden_state[0], **near)
        if alone.global_hidden_state is not None:
            assert torch.allclose(together.global_hidden_state[document], alone.global_hidden_state[0], **near)


@torch.no_grad()
def test_a_pattern_of_one_s_own_goes_behind_the_extra_blocks():
    x = ids(2, 38)
    seen = []

    def spy(q, k, v, p, key_mask=None):
        seen.append(p)
        return attention(q, k, v, p, key_mask)

    for pattern in (BlockPattern.window(10), BlockPattern.window, [BlockPattern.window] * 3):
        seen.clear()
        encoder(extra_global_tokens=5, pattern=pattern, attention_fn=spy)(x)
        assert seen == [BlockPattern.window(10).with_extra_globals(2)] * 3
    seen.clear()
    encoder(extra_global_tokens=5, attention_fn=spy)(x, torch.arange(38) < torch.tensor([[38], [9]]))
    assert [p.n_blocks for p in seen[0]] == [12, 12] and seen[0][1].unpadded().n_blocks == 5


@torch.no_grad()
def test_full_attention_is_the_same_weights_with_everything_read():
    x, mask = ids(2, 61), torch.arange(61) < torch.tensor([[61], [33]])
    full = encoder(attention_type="original_full")(x, mask).last_hidden_state[mask]
    assert torch.allclose(full, encoder(pattern=BlockPattern.full)(x, mask).last_hidden_state[mask], rtol=0, atol=1e-10)
    assert not torch.allclose(full, encoder()(x, mask).last_hidden_state[mask], atol=1e-3)
    plan = encoder(attention_type="original_full", random_plan="hf_eval")(x, mask)
    assert torch.equal(plan.last_hidden_state[mask], full)


@torch.no_grad()
def test_only_a_table_of_positions_has_an_end():
    x = ids(1, 130)
    for positions in ("sinusoidal", "rotary", "none"):
        net = encoder(positions=positions)
        assert net(x).last_hidden_state.isfinite().all() and not hasattr(net.embeddings, "position")
    with pytest.raises(ValueError, match=r"n=130 tokens; .*=100; cut the text to 100, or use lengthen\(model, 130\)"):
        encoder()(x)


@torch.no_grad()
def test_rotary_knows_distances_only():
    """In one window the answer does not change when all places move on together; a table's answer does."""
    x = ids(1, 40)
    for positions, moved in (("rotary", False), ("sinusoidal", True)):
        net = encoder(positions=positions, pattern=lambda N: BlockPattern.window(N, 1))
        there = net(x).last_hidden_state[0, 20:24]
        here = net(x[:, 20:24]).last_hidden_state[0]
        assert torch.allclose(here, there, rtol=0, atol=1e-9) != moved


@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_positions_start_with_the_spread_of_the_words(positions):
    torch.manual_seed(0)
    net = BigBirdModel(dataclasses.replace(SMALL, positions=positions, initializer_range=0.02))
    nothing = torch.zeros(1, 100, 24), torch.zeros(1, 100, dtype=torch.long)
    net.embeddings.token_type.weight.data.zero_()
    net.embeddings.norm = net.embeddings.dropout = torch.nn.Identity()
    assert net.embeddings(*nothing).std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize("changes", [{}, {"extra_global_tokens": 3, "positions": "rotary", "norm": "pre"}], ids=str)
def test_checkpointing_gives_the_same_loss_and_gradients(changes):
    """With dropout on: what was dropped is dropped again."""
    x, found = ids(2, 50), []
    for checkpointing in (False, True):
        net = encoder(kind=BigBirdForMaskedLM, gradient_checkpointing=checkpointing, **changes).train()
        passes = []
        net.encoder.layers[1].register_forward_pre_hook(lambda *_, passes=passes: passes.append(1))
        torch.manual_seed(5)
        loss = net(x, torch.arange(50) < torch.tensor([[50], [31]]), labels=x).loss
        loss.backward()
        assert len(passes) == 1 + checkpointing
        found.append([loss.detach(), *(p.grad for p in net.parameters())])
    for a, b in zip(*found, strict=True):
        assert torch.equal(a, b)
    net.eval()(x, labels=x).loss.backward()
    assert len(passes) == 3  # in evaluation, once


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"norm": "both"}, "norm='both' is not known; allowed: 'post', 'pre'"),
        ({"positions": "absolute"}, "positions='absolute' is not known; allowed: 'learned', 'sinusoidal', 'rotary'"),
        ({"hidden_act": "silu"}, "hidden_act='silu' is not known; allowed: 'gelu_new', 'gelu', 'relu'"),
        ({"attention_type": "full"}, "attention_type='full' is not known; allowed: 'block_sparse', 'original_full'"),
        ({"use_bias": 1}, "use_bias=1 must be True or False"),
        ({"extra_global_tokens": -1}, "extra_global_tokens=-1 must be a whole number, at least 0"),
        ({"num_labels": 0}, "num_labels=0 must be a whole number, at least 1"),
        ({"classifier_dropout": 1.5}, "classifier_dropout=1.5 must be at least 0 and below 1"),
        ({"positions": "rotary", "num_attention_heads": 8}, "positions='rotary' turns pairs .* head size of 3 is odd"),
        (
            {"positions": "sinusoidal", "hidden_size": 25, "num_attention_heads": 5},
            "positions='sinusoidal' .* the size of 25 is odd",
        ),
    ],
)
def test_a_choice_that_is_none_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(SMALL, **changes)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: encoder()(torch.tensor([[1, 2], [3, 30]])), r"input_ids\[1, 1\]=30 is outside the vocabulary; .*29"),
        (lambda: encoder()(torch.tensor([[1, -7, 99]])), r"input_ids\[0, 1\]=-7 is outside the vocabulary; .* 0 to 29"),
        (
            lambda: encoder()(ids(1, 3), token_type_ids=torch.tensor([[0, 1, 2]])),
            r"token_type_ids\[0, 2\]=2 is outside the token types; allowed are 0 to 1",
        ),
        (lambda: encoder()(ids(0, 5)), r"an empty batch, of shape \(0, 5\); .* B > 0"),
        (lambda: encoder()(inputs_embeds=torch.ones(1, 0, 24)), "n=0 tokens"),
        (lambda: encoder(positions="none")(ids(1, 0)), "n=0 tokens"),
    ],
)
def test_bad_input_is_named_with_its_place(call, says):
    with pytest.raises(ValueError, match=says):
        call()
