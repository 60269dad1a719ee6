"""On a CUDA device: every head forward and backward, in float32 and bfloat16, by gather and by flex; training steps.

The CPU, held to the dense oracle elsewhere, is what the device must agree with.
"""

import copy
from functools import partial

import pytest
import torch

from bigbird_mini import (
    BigBirdConfig,
    BigBirdForMaskedLM,
    BigBirdForQuestionAnswering,
    BigBirdForSequenceClassification,
    BigBirdForTokenClassification,
    attention,
)

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and PyTorch built for it"),
]
CONFIG = BigBirdConfig(
    vocab_size=3000,
    hidden_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=256,
    max_position_embeddings=2048,
    num_labels=5,
    initializer_range=0.1,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
HEADS = [
    BigBirdForMaskedLM,
    BigBirdForSequenceClassification,
    BigBirdForTokenClassification,
    BigBirdForQuestionAnswering,
]
N = 1500  # 24 blocks of 64, the last of them padded


def model(kind, attention_fn=None, **changes):
    torch.manual_seed(0)
    made = kind(BigBirdConfig(**vars(CONFIG) | changes), attention_fn=attention_fn)
    for name, parameter in made.named_parameters():
        if name.endswith("bias"):
            parameter.data += 0.1 * torch.randn_like(parameter)
    return made


def batch(kind, masked):
    g = torch.Generator().manual_seed(1)
    given = {"input_ids": torch.randint(1, 3000, (2, N), generator=g)}
    if masked:
        given["attention_mask"] = torch.arange(N) < torch.tensor([[N], [700]])
    if kind is BigBirdForQuestionAnswering:
        return given | {"start_positions": torch.tensor([40, 90]), "end_positions": torch.tensor([44, 5000])}
    if kind is BigBirdForSequenceClassification:
        return given | {"labels": torch.tensor([3, 0])}
    labels = torch.randint(0, 5, (2, N), generator=g)
    return given | {"labels": labels.masked_fill(torch.arange(N) % 7 > 0, -100)}


def run(net, given, device):
    """Loss, scores of real tokens and gradients, on the CPU."""
    net = copy.deepcopy(net).to(device)
    given = {name: x.to(device) for name, x in given.items()}
    out = net(**given)
    out.loss.backward()
    logits = out.logits
    if "attention_mask" in given and logits.dim() == 3:
        logits = logits[given["attention_mask"]]
    return [out.loss.detach().cpu(), logits.detach().cpu(), *(p.grad.cpu() for p in net.parameters())]


def near(found, want, within):
    for got, expected in zip(found, want, strict=True):
        scale = expected.float().abs().max().clamp(min=1e-3)
        assert got.isfinite().all() and (got.float() - expected.float()).abs().max() < within * scale


@pytest.fixture(autouse=True)
def exact():
    """float32 in full: TensorFloat-32 rounds to 10 bits."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", HEADS)
def test_the_device_gives_the_numbers_of_the_cpu(kind, masked):
    given = batch(kind, masked)
    for changes in ({}, {"extra_global_tokens": 5, "positions": "rotary", "norm": "pre"}):
        net = model(kind, partial(attention, backend="gather"), **changes)
        near(run(net, given, DEVICE), run(net, given, "cpu"), 1e-3)
    net = model(kind, attention_type="original_full", gradient_checkpointing=True)
    near(run(net, given, DEVICE), run(net, given, "cpu"), 1e-3)


@pytest.mark.parametrize("masked", [False, True])
def test_flex_gives_the_numbers_of_gather(masked):
    given = batch(BigBirdForTokenClassification, masked)
    want = run(model(BigBirdForTokenClassification, partial(attention, backend="gather")), given, DEVICE)
    for backend in ("flex", "auto"):
        net = model(BigBirdForTokenClassification, partial(attention, backend=backend))
        near(run(net, given, DEVICE), want, 1e-3)


@pytest.mark.parametrize("kind", HEADS)
def test_bfloat16_is_near(kind):
    given = batch(kind, True)
    net = model(kind)
    want = run(net, given, "cpu")
    with torch.autocast(DEVICE, torch.bfloat16):
        near(run(net, given, DEVICE)[:1], want[:1], 0.05)
    whole = run(net.to(torch.bfloat16), given, DEVICE)
    assert whole[0].dtype == torch.float32
    near(whole[:1], want[:1], 0.05)


def test_dropout_and_checkpointing_agree_on_what_was_dropped():
    given, found = batch(BigBirdForMaskedLM, True), []
    for checkpointing in (False, True):
        dropping = {"hidden_dropout_prob": 0.2, "attention_probs_dropout_prob": 0.2}
        net = model(BigBirdForMaskedLM, gradient_checkpointing=checkpointing, **dropping).train()
        torch.manual_seed(5)
        found.append(run(net, given, DEVICE))
    near(*found, 1e-4)


def test_a_compiled_head_gives_the_same():
    torch._dynamo.reset()
    net = model(BigBirdForMaskedLM).to(DEVICE)
    given = {name: x.to(DEVICE) for name, x in batch(BigBirdForMaskedLM, False).items()}
    net.prepare(N)
    want, got = net(**given), torch.compile(net, fullgraph=True)(**given)
    near([got.loss.detach().cpu()], [want.loss.detach().cpu()], 1e-4)
    got.loss.backward()
    assert all(p.grad.isfinite().all() for p in net.parameters())


def test_what_is_wrong_is_said_before_the_device_fails():
    net = model(BigBirdForMaskedLM).to(DEVICE)
    ids = torch.ones(1, 9, dtype=torch.long, device=DEVICE)
    ids[0, 3] = 3000
    with pytest.raises(ValueError, match=r"input_ids\[0, 3\]=3000 is outside the vocabulary"):
        net(ids)
    assert net(ids - 1).logits.isfinite().all()  # and the device still works


def test_folders_know_no_device(tmp_path):
    net = model(BigBirdForTokenClassification).eval().to(DEVICE)
    net.save_pretrained(tmp_path)
    again = BigBirdForTokenClassification.from_pretrained(tmp_path)
    assert {p.device.type for p in again.parameters()} == {"cpu"}
    for name, weight in net.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight.cpu())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_steps_lower_the_loss(precision):
    from bigbird_mini.train import Trainer, TrainSettings

    for kind in HEADS:
        settings = TrainSettings(steps=8, learning_rate=1e-3, precision=precision, device=DEVICE)
        trainer = Trainer(model(kind), lambda number, kind=kind: batch(kind, True), settings)
        records = [trainer.step() for _ in range(8)]
        assert trainer.device.type == torch.device(DEVICE).type
        assert records[-1]["loss"] < records[0]["loss"]
