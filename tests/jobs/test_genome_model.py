"""The genome job's encoder and the controls beside it: what they see, and against slow and plain versions."""

import json

import pytest
import torch

from bigbird_mini import BigBirdModel, BlockPattern
from bigbird_mini.data import genome_encoder, leads, replichore_split, reverse_complement
from bigbird_mini.jobs import genome
from bigbird_mini.jobs import genome_controls as controls
from bigbird_mini.jobs.genome import Run
from bigbird_mini.jobs.genome_model import PATTERNS, StrandModel, strand_config, trimers


def model(pattern="W+G+R", seed=0, **more):
    """No weight at its start, biases and norms included."""
    torch.manual_seed(seed)
    made = StrandModel(strand_config(pattern), **more).eval()
    for parameter in made.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return made


def bases(B, n, seed=0):
    return torch.randint(0, 4, (B, n), generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- the encoder


@pytest.mark.parametrize("each", [1, 2, 8])
def test_a_token_is_the_mean_of_the_three_mers_that_start_in_it(each):
    net, x = model(bases_per_token=each), bases(2, 24)
    table = net.encoder.embeddings.word.weight
    for b in range(2):
        for t in range(24 // each):
            starts = [i for i in range(t * each, (t + 1) * each) if i + 3 <= 24]
            vectors = [table[int("".join(str(c) for c in x[b, i : i + 3].tolist()), 4)] for i in starts]
            want = sum(vectors) / len(vectors) * each**0.5 if vectors else torch.zeros(64)
            assert torch.allclose(net.tokens(x)[b, t], want, atol=1e-6)
    assert trimers(torch.tensor([0, 0, 0, 3, 3, 3])).tolist() == [0, 3, 15, 63]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("length", [256, 3072])
def test_the_other_strand_has_minus_the_logit(pattern, length):
    net, x = model(pattern), bases(3, length)
    logits = net(x).logits
    assert logits.shape == (3,) and logits.abs().max() > 0.01
    assert torch.allclose(net(reverse_complement(x)).logits, -logits, rtol=0, atol=2e-6)


def test_the_logit_is_what_the_formula_says():
    net, x = model(seed=1), bases(2, 512)
    difference = net.features(x) - net.features(reverse_complement(x))
    normed = difference / (difference.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    out = net(x, torch.tensor([1, 0]))
    assert torch.allclose(out.logits, (normed * net.weight).sum(-1), atol=1e-5)
    wrong = torch.stack((-out.logits[0], out.logits[1]))
    assert torch.allclose(out.loss, (1 + wrong.exp()).log().mean(), atol=1e-6)


@pytest.mark.parametrize(
    ("pattern", "mean", "reached"),
    [("W", False, 512), ("W+G", False, 4096), ("W+G+R", False, 4096), ("full", False, 4096), ("W", True, 4096)],
)
def test_how_far_the_read_out_token_sees(pattern, mean, reached):
    """Two layers of a window bring the block before the window two blocks: 64 tokens, 512 bases (and a 3-mer's end)."""
    net = model(pattern, mean=mean)
    x = net.tokens(bases(1, 4096)).detach().requires_grad_()
    net.tokens = lambda _: x
    net.features(None).square().sum().backward()
    seen = x.grad[0].abs().sum(-1).nonzero().flatten()
    assert len(seen) == seen[-1] + 1 == reached // 8


def test_what_the_patterns_are():
    """With a G, a block of extra globals before the window; else the pattern of the window and the block before it."""
    window = BlockPattern.window(20, 3)
    for layer in (0, 1):
        drawn = {"heads": 2, "layer": layer, "avoid": window}
        random = window | BlockPattern.random(20, 3, **drawn)
        want = {"W": window, "W+R": random, "W+G": window.with_extra_globals(), "W+G+R": random.with_extra_globals()}
        want["full"] = BlockPattern.full(21)
        for name, pattern in want.items():
            got = strand_config(name).pattern(20, layer).grid()
            assert torch.equal(got.expand(2, -1, -1), pattern.grid().expand(2, -1, -1)), (name, layer)


def test_random_blocks_reach_further_than_the_window():
    net = model("W+R")
    x = net.tokens(bases(1, 16384)).detach().requires_grad_()
    net.tokens = lambda _: x
    net.features(None).square().sum().backward()
    seen = (x.grad[0].abs().sum(-1) > 0).view(64, 32)
    assert (seen.any(1) == seen.all(1)).all() and 8 < seen.any(1).sum() < 64


def test_without_attention_a_token_knows_itself_alone():
    assert not controls.no_attention(*torch.ones(3, 1, 2, 4, 5), None, key_mask=None).any()
    net = controls.mean_pooling(8).eval()
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    x = bases(1, 2048)
    halves = net.features(x[:, :1024]) + net.features(x[:, 1024:])
    assert torch.allclose(net.features(x), halves / 2, atol=0.02)  # two 3-mers lie over the cut
    assert not torch.allclose(model("W", mean=True).features(x), halves / 2, atol=0.02)


def test_every_weight_learns():
    for pattern in ("W", "W+G+R"):
        net = model(pattern)
        net(bases(4, 512), torch.tensor([0, 1, 0, 1])).loss.backward()
        still = {name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()}
        assert still <= {"encoder.final_norm.bias"}  # the same in both strands: it cancels, up to rounding


def test_saved_and_loaded_it_says_the_same(tmp_path):
    for pattern in ("W+R", "W+G+R", "full"):
        net, x = model(pattern, bases_per_token=4, mean=pattern == "W+R"), bases(2, 1024)
        net.save(tmp_path / pattern, {"seed": 7})
        again = StrandModel.load(tmp_path / pattern)
        assert torch.equal(again(x).logits, net(x).logits) and not again.training
        about = json.loads((tmp_path / pattern / "config.json").read_text("utf-8"))["strand"]
        assert about == {"bases_per_token": 4, "mean": pattern == "W+R", "seed": 7}
    net.save_pretrained(tmp_path / "full")
    config = json.loads((tmp_path / "full" / "config.json").read_text("utf-8"))
    del config["strand"]
    (tmp_path / "full" / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(ValueError, match=r"holds no model of the genome job: its config\.json has no 'strand'"):
        StrandModel.load(tmp_path / "full")


def test_the_encoder_of_the_package_does_what_it_says():
    """On a few of the validation windows, as their labels say; loaded as an encoder alone, the same vectors."""
    folder = genome_encoder()
    net, about = StrandModel.load(folder), json.loads((folder / "config.json").read_text("utf-8"))["strand"]
    assert net.config == strand_config("W+G+R") and not net.training
    assert (about["length"], about["pattern"], about["seed"], about["validation"]) == (16384, "W+G+R", 0, 1.0)
    centres = replichore_split(0).validation[::25]
    assert genome.scores("validation", genome.predict(net, centres, 16384), centres)["validation"] == 1.0
    x = bases(1, 4096)
    alone = BigBirdModel.from_pretrained(folder)(inputs_embeds=net.tokens(x)).global_hidden_state[:, 0]
    assert torch.equal(alone, net.features(x))


# ---------------------------------------------------------------- the controls


def test_three_mers_are_counted_on_both_strands():
    letters, partner = "ACGT", {"A": "T", "C": "G", "G": "C", "T": "A"}
    words = [a + b + c for a in letters for b in letters for c in letters]
    turned = {word: "".join(partner[letter] for letter in reversed(word)) for word in words}
    assert [words[i] for i in controls.partners()] == [turned[word] for word in words]
    x = bases(3, 50)
    got = controls.strand_frequencies(x)
    for row, found in zip(x.tolist(), got.tolist(), strict=True):
        text = "".join(letters[code] for code in row)
        here = [text[i : i + 3] for i in range(48)]
        want = [(here.count(word) - here.count(turned[word])) / 48 for word in words]
        assert found == pytest.approx(want)
    assert torch.allclose(controls.strand_frequencies(reverse_complement(x)), -got)


def test_the_gradient_of_logistic_regression_is_the_closed_form():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(40, 5, dtype=torch.float64, generator=g)
    y = (torch.rand(40, generator=g) < 0.4).double()
    weights = torch.randn(5, dtype=torch.float64, generator=g).requires_grad_()
    controls.logistic_loss(weights, x, y, 0.3).backward()
    closed = x.T @ ((x @ weights).sigmoid() - y) / 40 + 2 * 0.3 * weights
    assert torch.allclose(weights.grad, closed.detach(), atol=1e-12)
    found = controls.fit_logistic(x, y, 0.01)
    flat = x.T @ ((x @ found).sigmoid() - y) / 40 + 2 * 0.01 * found
    assert flat.abs().max() < 1e-6


def test_logistic_regression_chooses_by_validation_and_knows_no_test(monkeypatch):
    monkeypatch.setattr(controls, "LOGISTIC_WINDOWS", 600)
    split = replichore_split(2)
    logits, penalty = controls.logistic_regression(split, 2048, 2)
    assert logits["validation"].shape == (246,) and logits["test"].shape == (410,)
    truth = torch.from_numpy(leads(split.validation)).double()
    losses = {}
    for only in controls.PENALTIES:
        monkeypatch.setattr(controls, "PENALTIES", (only,))
        own = controls.logistic_regression(split, 2048, 2)[0]["validation"]
        losses[only] = torch.nn.functional.binary_cross_entropy_with_logits(own, truth).item()
    assert len(set(losses.values())) > 1 and penalty == min(losses, key=losses.get)
    assert genome.scores("validation", logits["validation"], split.validation)["validation"] > 0.7


# ---------------------------------------------------------------- bad input


def test_settings_that_cannot_be():
    with pytest.raises(ValueError, match=r"pattern='WG' is not known; allowed: W, W\+R, W\+G, W\+G\+R, full"):
        strand_config("WG")
    with pytest.raises(ValueError, match="model='forest' is not known; allowed: encoder, mean, logistic, cost"):
        Run("forest")
    with pytest.raises(ValueError, match=r"a window of 20 bases cannot be cut .* bases_per_token=8"):
        model()(bases(1, 20))
