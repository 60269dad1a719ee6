"""The heads against their formulas: scores, losses, gradients, dropout, half precision."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from bigbird_mini import (
    BigBirdConfig,
    BigBirdForMaskedLM,
    BigBirdForQuestionAnswering,
    BigBirdForSequenceClassification,
    BigBirdForTokenClassification,
    BigBirdModel,
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
    hidden_act="relu",
)
MASKED, TEXT, TOKEN, SPAN = HEADS = [
    BigBirdForMaskedLM,
    BigBirdForSequenceClassification,
    BigBirdForTokenClassification,
    BigBirdForQuestionAnswering,
]


def model(kind, seed=0, **changes):
    torch.manual_seed(seed)
    made = kind(dataclasses.replace(CONFIG, **changes)).eval().double()
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made


def ids(B, n, seed=0):
    return torch.randint(8, 30, (B, n), generator=torch.Generator().manual_seed(seed))


def near(a, b):
    return torch.allclose(a, b, rtol=0, atol=1e-10)


def targets(kind, B, n):
    """What each head is trained with, some of it left out."""
    if kind is SPAN:
        return {"start_positions": torch.arange(B) + 3, "end_positions": torch.arange(B) * n + n - 1}
    if kind is TEXT:
        return {"labels": torch.arange(B) % 5}
    labels = ids(B, n, 9) % 5
    labels[:, ::3] = -100
    return {"labels": labels}


# ---------------------------------------------------------------- formulas


@pytest.mark.parametrize("seed", [0, 1])
@torch.no_grad()
def test_classes_are_read_as_the_formula_says(seed):
    x, mask = ids(3, 21, seed), torch.arange(21) < torch.tensor([[21], [13], [8]])
    text, token = model(TEXT, seed), model(TOKEN, seed)
    out, c = text(x, mask), text.classifier
    want = torch.relu(out.last_hidden_state[:, 0] @ c.dense.weight.T + c.dense.bias) @ c.out_proj.weight.T
    assert out.logits.shape == (3, 5) and near(out.logits, want + c.out_proj.bias)
    out = token(x, mask)
    assert out.logits.shape == (3, 21, 5)
    assert near(out.logits, out.last_hidden_state @ token.classifier.weight.T + token.classifier.bias)
    for net in (text, token):
        assert near(net(x, mask).last_hidden_state, net.encoder(x, mask).last_hidden_state) and net(x).loss is None


def span_scores(net, hidden):
    q = net.qa_classifier
    inner = torch.relu(hidden @ q.intermediate["dense"].weight.T + q.intermediate["dense"].bias)
    inner = inner @ q.output["dense"].weight.T + q.output["dense"].bias
    inner = F.layer_norm(inner + hidden, (24,), q.output["LayerNorm"].weight, q.output["LayerNorm"].bias, 1e-12)
    return inner @ q.qa_outputs.weight.T + q.qa_outputs.bias


@torch.no_grad()
def test_answers_are_sought_outside_the_question():
    net, x = model(SPAN), ids(3, 21)
    x[0, 6] = x[0, 15] = x[1, 9] = 7  # ends of questions: the first counts; the third text has none
    lengths = torch.tensor([7, 10, 1])
    types = (torch.arange(21) >= lengths[:, None]).long()
    want = span_scores(net, net.encoder(x, token_type_ids=types).last_hidden_state)
    want[0, 1:7] -= 1e6
    want[1, 1:10] -= 1e6
    for given in ({}, {"question_lengths": lengths}, {"question_lengths": lengths[:, None]}):
        out = net(x, **given)
        assert near(out.start_logits, want[..., 0]) and near(out.end_logits, want[..., 1])
        assert near(out.logits, want) and out.loss is None
    vectors = net.encoder.embeddings.word(x)
    assert near(net(inputs_embeds=vectors, question_lengths=lengths).logits, want)
    own = torch.ones_like(x)  # token types that are given are not touched
    got = net(x, token_type_ids=own, question_lengths=torch.tensor([4, 1, 2]))
    want = span_scores(net, net.encoder(x, token_type_ids=own).last_hidden_state)
    want[0, 1:4] -= 1e6
    want[2, 1:2] -= 1e6
    assert near(got.logits, want)
    assert near(net(inputs_embeds=vectors).logits, span_scores(net, net.encoder(x).last_hidden_state))


@torch.no_grad()
def test_the_maps_of_a_question_are_those_of_its_answer():
    """Question and text are told apart in them, too: by their sep token, by the lengths given, or by the types."""
    net, x = model(BigBirdForQuestionAnswering, type_vocab_size=2).eval(), ids(2, 11)
    x[:, 4] = CONFIG.sep_token_id
    for parameter in net.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    for lengths, types in ((None, torch.arange(11) > 4), (torch.tensor([3, 3]), torch.arange(11) > 2)):
        own = net.attention_maps(x, layers=[1], question_lengths=lengths)[1].dense()
        told = net.encoder.attention_maps(x, token_type_ids=types.long().expand(2, -1), layers=[1])[1].dense()
        assert torch.equal(own, told)
        assert not torch.allclose(own, net.encoder.attention_maps(x, layers=[1])[1].dense(), atol=1e-3)


def test_the_loss_of_a_class_is_its_mean_negative_log_probability():
    x = ids(3, 10)
    net = model(TEXT)
    out = net(x, labels=torch.tensor([4, -100, 2]))
    log_p = out.logits.log_softmax(-1)
    assert out.loss.item() == pytest.approx(-(log_p[0, 4] + log_p[2, 2]).item() / 2)
    labels = torch.full((3, 10), -100)
    labels[1, 3], labels[2, 9] = 0, 4
    net = model(TOKEN)
    out = net(x, labels=labels.int())
    log_p = out.logits.log_softmax(-1)
    assert out.loss.item() == pytest.approx(-(log_p[1, 3, 0] + log_p[2, 9, 4]).item() / 2)
    assert net(x, labels=torch.full((3, 10), -100)).loss.item() == 0.0


@torch.no_grad()
def test_one_label_is_a_number_and_several_may_hold_at_once():
    x, net = ids(3, 10), model(TEXT, num_labels=1)
    numbers = torch.tensor([0.5, -2.0, 3.0])
    for labels in (numbers, numbers[:, None], numbers.double()):
        out = net(x, labels=labels)
        assert out.logits.shape == (3, 1)
        assert out.loss.item() == pytest.approx((out.logits[:, 0] - numbers).pow(2).mean().item())
    assert net(x, labels=torch.tensor([1, 0, 2])).loss.isfinite()
    net, several = model(TEXT), torch.tensor([[0.0, 1, 1, 0, 1]] * 3)
    out = net(x, labels=several)
    p = out.logits.sigmoid()
    assert out.loss.item() == pytest.approx(-(several * p.log() + (1 - several) * (1 - p).log()).mean().item())


@torch.no_grad()
def test_the_loss_of_an_answer_is_the_mean_of_its_ends_and_ends_outside_are_left_out():
    net, x = model(SPAN), ids(3, 10)
    out = net(x, start_positions=torch.tensor([2, 10, -1]), end_positions=torch.tensor([[4], [9], [99]]))
    start, end = out.start_logits.log_softmax(-1), out.end_logits.log_softmax(-1)
    want = -start[0, 2] / 1 / 2 - (end[0, 4] + end[1, 9]) / 2 / 2
    assert out.loss.item() == pytest.approx(want.item())
    none = torch.tensor([10, 11, 12])
    assert net(x, start_positions=none, end_positions=none).loss.item() == 0.0


@torch.no_grad()
def test_padding_is_no_answer():
    net, x = model(SPAN), ids(2, 21)
    mask = torch.arange(21) < torch.tensor([[21], [13]])
    ends = {"start_positions": torch.tensor([5, 6]), "end_positions": torch.tensor([7, 8])}
    out, alone = net(x, mask), net(x[1:, :13])
    assert near(out.logits[1, :13], alone.logits[0]) and (out.logits[1, 13:] < -1e5).all()
    losses = [
        net(x[i : i + 1, :n], **{name: end[i : i + 1] for name, end in ends.items()}).loss
        for i, n in ((0, 21), (1, 13))
    ]
    assert near(net(x, mask, **ends).loss, sum(losses) / 2)


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("kind", HEADS)
def test_every_parameter_gets_its_gradient(kind):
    net, x = model(kind, extra_global_tokens=3, norm="pre"), ids(3, 21)
    net(x, token_type_ids=x % 2, **targets(kind, 3, 21)).loss.backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("kind", HEADS)
def test_heads_learn_their_batch(kind):
    torch.manual_seed(0)
    net = kind(dataclasses.replace(CONFIG, initializer_range=0.1)).train()
    x, first = ids(4, 30), None
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for _ in range(60):
        loss = net(x, **targets(kind, 4, 30)).loss
        optimiser.zero_grad(), loss.backward(), optimiser.step()
        first = first or loss.item()
    assert loss.item() < 0.5 * first


def entering(net, *places):
    """What enters these layers of a head, with the encoder still and the head in training."""
    given = {}
    net.train(), net.encoder.eval()
    head = net.qa_classifier if hasattr(net, "qa_classifier") else net.classifier
    for place in places:
        head.get_submodule(place).register_forward_pre_hook(lambda _, x, place=place: given.update({place: x[0]}))
    net(ids(3, 24))
    return given


def test_heads_drop_half_of_what_enters_their_layers():
    def half(x):
        return 0.35 < (x == 0).double().mean() < 0.65

    net = model(TEXT, classifier_dropout=0.5, hidden_dropout_prob=0.0)
    net.classifier.act = torch.nn.Identity()  # relu would leave zeros of its own
    assert all(map(half, entering(net, "dense", "out_proj").values()))
    assert all(map(half, entering(model(TOKEN, classifier_dropout=0.5, hidden_dropout_prob=0.0), "").values()))
    net = model(SPAN, hidden_dropout_prob=0.5)
    assert all(map(half, entering(net, "intermediate.dense").values()))
    net.qa_classifier.intermediate["dense"].weight.data.zero_()  # so that only what follows differs
    first, second = (entering(net, "qa_outputs")["qa_outputs"] for _ in range(2))
    assert not torch.equal(first, second)
    net.qa_classifier.output["dense"].weight.data.zero_(), net.qa_classifier.output["dense"].bias.data.zero_()
    first, second = (entering(net, "qa_outputs")["qa_outputs"] for _ in range(2))
    assert torch.equal(first, second)  # the residual is whole


def test_classifiers_have_their_own_dropout_or_the_encoder_s():
    assert model(TOKEN, hidden_dropout_prob=0.4).dropout.p == 0.4
    assert model(TEXT, classifier_dropout=0.0, hidden_dropout_prob=0.4).classifier.dropout.p == 0


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_weights_have_a_float32_loss(kind, dtype):
    net, x = model(kind), ids(3, 21)
    want = net(x, **targets(kind, 3, 21)).loss
    loss = net.to(dtype)(x, **targets(kind, 3, 21)).loss
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(want.item(), rel=0.1)
    loss.backward()
    assert all(p.grad.dtype == dtype and p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


@pytest.mark.parametrize("kind", HEADS)
def test_autocast_gives_nearly_the_same(kind):
    net, x = model(kind).float(), ids(3, 21)
    want = net(x, **targets(kind, 3, 21))
    with torch.autocast("cpu", torch.bfloat16):
        got = net(x, **targets(kind, 3, 21))
    assert got.loss.dtype == torch.float32
    assert got.logits.dtype == (torch.float32 if kind is SPAN else torch.bfloat16)
    assert got.loss.item() == pytest.approx(want.loss.item(), rel=0.1)
    got.loss.backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("kind", HEADS)
def test_every_head_is_clean_of_cpu_tensors_on_cuda(kind):
    net = kind(dataclasses.replace(CONFIG, extra_global_tokens=3, positions="rotary")).eval()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        weights = {name: torch.empty(p.shape, device="cuda") for name, p in net.named_parameters()}
        x = torch.ones(2, 50, dtype=torch.long, device="cuda")
        names = ["start_positions", "end_positions"] if kind is SPAN else ["labels"]
        labels = dict.fromkeys(names, x.select(1, 0) if kind in (SPAN, TEXT) else x)
        for given in ({}, {"attention_mask": x, "token_type_ids": x}):
            out = torch.func.functional_call(net, weights, (x,), given | labels)
            assert {y.device.type for y in (out.loss, out.logits, out.last_hidden_state)} == {"cuda"}
    assert net(ids(2, 50)).logits.isfinite().all()  # nothing of it is left


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (
            lambda: model(TEXT)(ids(2, 5), labels=torch.tensor([4, 5])),
            ValueError,
            r"labels\[1\]=5 is outside num_labels=5; allowed are 0 to 4, and -100 for none",
        ),
        (
            lambda: model(TOKEN)(ids(1, 3), labels=torch.tensor([[0, -1, 9]])),
            ValueError,
            r"labels\[0, 1\]=-1 is outside num_labels=5",
        ),
        (
            lambda: model(MASKED)(ids(1, 3), labels=torch.tensor([[0, -100, 30]])),
            ValueError,
            r"labels\[0, 2\]=30 is outside the vocabulary; allowed are 0 to 29, and -100 for none",
        ),
        (lambda: model(TEXT)(ids(2, 5), labels=ids(2, 5)), ValueError, r"labels have shape \(2, 5\).* \(B,\) = \(2,\)"),
        (
            lambda: model(TEXT)(ids(2, 5), labels=torch.ones(2)),
            ValueError,
            r"\(B, num_labels\) = \(2, 5\); this is \(2",
        ),
        (lambda: model(TEXT)(ids(2, 5), labels=[0, 1]), TypeError, "labels must be a tensor of whole numbers"),
        (
            lambda: model(TEXT, num_labels=1)(ids(2, 5), labels=torch.ones(3)),
            ValueError,
            r"labels must be a tensor \(B,\) of numbers.* this is \(3,\)",
        ),
        (lambda: model(TOKEN)(ids(2, 5), labels=torch.zeros(2, 4).long()), ValueError, r"\(B, n\) = \(2, 5\)"),
        (lambda: model(TOKEN)(ids(2, 5), labels=torch.zeros(2, 5)), TypeError, "whole numbers"),
        (
            lambda: model(SPAN)(ids(2, 5), start_positions=torch.tensor([1, 2])),
            ValueError,
            "give start_positions and end_positions, both",
        ),
        (
            lambda: model(SPAN)(ids(2, 5), start_positions=torch.zeros(2), end_positions=torch.zeros(2)),
            ValueError,
            r"start_positions must be a tensor of whole numbers \(B,\) = \(2,\), not \(2,\), torch.float32",
        ),
        (
            lambda: model(SPAN)(ids(2, 5), question_lengths=torch.tensor([1, 2, 3])),
            ValueError,
            r"question_lengths must be a tensor \(B,\) = \(2,\), not \(3,\)",
        ),
        (lambda: model(SPAN)(ids(2, 5)[0]), ValueError, r"must be \(B, n\), so use ids\[None\]"),
        (lambda: model(SPAN)(), ValueError, "give input_ids or inputs_embeds"),
        (lambda: model(SPAN)(ids(0, 5)), ValueError, "an empty batch"),
        (lambda: model(SPAN, type_vocab_size=1)(ids(1, 5)), ValueError, r"token_type_ids\[0, 1\]=1 is outside"),
    ],
)
def test_bad_labels_get_one_sentence(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_the_pooler_is_there_where_it_is_asked_for():
    torch.manual_seed(0)
    net, x = BigBirdModel(CONFIG, pooler=True).eval(), ids(2, 9)
    net.pooler.bias.data.normal_()
    out = net(x)
    want = torch.tanh(out.last_hidden_state[:, 0] @ net.pooler.weight.T + net.pooler.bias)
    assert torch.allclose(out.pooler_output, want, atol=1e-6)
    assert BigBirdModel(CONFIG)(x).pooler_output is None
