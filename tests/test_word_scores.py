"""The masked-language-model head on a long text: scores of words only when asked for, and never all of them at once."""

import dataclasses
import math
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from bigbird_mini import BigBirdConfig, BigBirdForMaskedLM
from bigbird_mini.model import losses

CONFIG = BigBirdConfig(
    vocab_size=30,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=40,
    max_position_embeddings=100,
    block_size=4,
    num_random_blocks=2,
    initializer_range=0.3,
)


def model(**changes):
    torch.manual_seed(0)
    made = BigBirdForMaskedLM(dataclasses.replace(CONFIG, **changes)).eval().double()
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made


def ids(B, n, seed=0):
    return torch.randint(1, 30, (B, n), generator=torch.Generator().manual_seed(seed))


def near(a, b):
    return torch.allclose(a, b, rtol=0, atol=1e-10)


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest tensor had that any operation gave."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, torch.Tensor):
                self.numbers = max(self.numbers, x.numel())
        return out


def test_word_scores_are_made_when_asked_for_and_once():
    net, x = model(vocab_size=5000), ids(2, 40)
    with Largest() as seen:
        out = net(x, labels=x)
        out.loss.backward()
    assert seen.numbers == 5000 * 24  # the word vectors' gradient; all the scores would be 80 x 5000
    with Largest() as seen:
        logits = out.logits
        assert out.logits is logits and logits.shape == (2, 40, 5000)
    assert seen.numbers == 80 * 5000
    assert out.loss.item() == pytest.approx(F.cross_entropy(logits.flatten(0, 1), x.flatten()).item())


def test_the_loss_holds_few_scores_at_a_time(monkeypatch):
    """What the operator does within, forward and backward; with the limit set low."""
    monkeypatch.setattr(losses, "LARGEST", 7 * 500)
    x, words, bias = torch.randn(90, 6), torch.randn(500, 6), torch.randn(500)
    labels = torch.randint(0, 500, (90,))
    labels[::4] = -100
    with Largest() as seen:
        losses.forward(x, words, bias, labels)
        losses.backward(torch.ones(()), x, words, bias, labels)
    assert seen.numbers == 7 * 500  # of 67 labelled positions times 500 words


@pytest.mark.parametrize("largest", [1, 7 * 50, 2**24])
@pytest.mark.parametrize("seed", [0, 1])
def test_loss_and_gradients_are_those_of_cross_entropy(largest, seed, monkeypatch):
    monkeypatch.setattr(losses, "LARGEST", largest)
    g = torch.Generator().manual_seed(seed)
    x, words, bias = (torch.randn(size, generator=g, dtype=torch.float64) for size in ((33, 6), (50, 6), (50,)))
    labels = torch.randint(0, 50, (33,), generator=g)
    labels[torch.rand(33, generator=g) < 0.5] = -100
    given = [t.requires_grad_() for t in (x, words, bias)]
    got, want = losses.word_loss(*given, labels), F.cross_entropy(F.linear(*given), labels)
    assert near(got, want)
    for a, b in zip(*(torch.autograd.grad(3 * loss, given) for loss in (got, want)), strict=True):
        assert near(a, b) and b.abs().max() > 0
    assert losses.word_loss(*given, torch.full_like(labels, -100)).item() == 0.0
    torch.library.opcheck(torch.ops.bigbird_mini.word_loss.default, (*given, labels))


def test_scores_come_as_the_forward_pass_would_have_made_them():
    net, x = model(), ids(1, 9)
    with torch.no_grad():
        out = net(x)
    assert not out.logits.requires_grad and out.logits.numpy().shape == (1, 9, 30)
    with torch.inference_mode():
        out = net(x)
    assert torch.equal(out.logits, net(x).logits)  # asked for outside
    out = net(x)
    with torch.no_grad():
        assert out.logits.requires_grad
    (got,) = torch.autograd.grad(out.logits[0, 3, 5], net.bias)
    assert got.nonzero().tolist() == [[5]] and got[5] == 1


def test_16384_positions_of_50358_words_never_exist_at_once():
    """Forward and backward in a fresh process; their scores alone would be 3.3 GB."""
    pytest.importorskip("psutil", reason="needs the extra lab")
    code = """
import torch
from bigbird_mini import BigBirdConfig, BigBirdForMaskedLM
from bigbird_mini.bench import measure
config = BigBirdConfig(50358, 8, 1, 1, 8, max_position_embeddings=16384, attention_probs_dropout_prob=0.0)
model, ids = BigBirdForMaskedLM(config), torch.arange(16384)[None] * 3
labels = ids.masked_fill(ids % 4 > 0, -100)
def step():
    loss = model(ids, labels=labels).loss
    loss.backward()
    return loss
run = measure(step)
print(run.result.item(), run.peak_bytes)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loss, peak = map(float, ran.stdout.split())
    assert abs(loss - math.log(50358)) < 0.1 and peak < 1e9


def test_scores_of_words_are_half_precision_under_autocast_whatever_the_norm_gives():
    """On CUDA, autocast's LayerNorm gives float32; the largest product of the model is to be made in half of it."""
    net, x = model().float(), ids(1, 9)
    net.norm.register_forward_hook(lambda *given: given[-1].float())
    with torch.autocast("cpu", torch.bfloat16):
        out = net(x, labels=x)
    assert out.ready.dtype == out.logits.dtype == torch.bfloat16
