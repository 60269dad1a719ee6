"""The encoder: any length, any pattern, any attention function, and no influence of batch mates."""

import dataclasses
import subprocess
import sys

import pytest
import torch

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


def model(seed=0, kind=BigBirdForMaskedLM, config=SMALL, **more):
    """Weights and biases all different from their start, so that none can hide."""
    torch.manual_seed(seed)
    made = kind(config, **more).eval()
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made


def ids(B, n, seed=0):
    return torch.randint(1, 30, (B, n), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n", [1, 3, 4, 5, 16, 37, 99, 100])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_sparse_equals_dense_at_any_length(n, dtype):
    x = ids(2, n)
    fast = model().to(dtype)
    slow = model(attention_fn=lambda *args, **kw: attention(*args, backend="dense", **kw)).to(dtype)
    got, want = fast(x), slow(x)
    assert got.logits.shape == (2, n, 30) and got.last_hidden_state.shape == (2, n, 24)
    assert torch.allclose(got.logits, want.logits, rtol=0, atol=1e-10 if dtype == torch.float64 else 1e-4)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("length", [1, 4, 21, 43])
def test_a_document_does_not_depend_on_its_batch(seed, length):
    """Alone, and padded beside longer ones: the same to 1e-5, also where its last block is not the batch's last."""
    net, x = model(seed), ids(3, 67, seed)
    mask = torch.arange(67) < torch.tensor([[length], [67], [50]])
    together = net(x, mask).logits
    alone = net(x[:1, :length]).logits
    assert torch.allclose(together[0, :length], alone[0], rtol=0, atol=1e-5)
    assert torch.allclose(together[1], net(x[1:2]).logits[0], rtol=0, atol=1e-5)
    x[0, length:] = 7
    assert torch.equal(net(x, mask).logits[0, :length], together[0, :length])


def test_the_pattern_matters_and_the_seed_is_kept():
    x = ids(1, 60)
    first = model()(x).logits
    assert torch.equal(model()(x).logits, first)
    other = dataclasses.replace(SMALL, pattern_seed=1)
    assert not torch.allclose(model(config=other)(x).logits, first, atol=1e-3)
    layers = [SMALL.pattern(15, layer) for layer in range(3)]
    assert len(set(layers)) == 3 and all(p.heads == 4 for p in layers)


@pytest.mark.parametrize("plan", ["google", "hf_train", "hf_eval"])
def test_a_released_plan_has_the_pattern_of_the_padded_batch(plan):
    config = dataclasses.replace(SMALL, random_plan=plan, max_position_embeddings=1024, block_size=64)
    seen = []

    def spy(q, k, v, p, key_mask=None):
        seen.append(p)
        return torch.zeros_like(v)

    net, x = model(config=config, attention_fn=spy), ids(2, 1000)
    net(x, torch.arange(1000) < torch.tensor([[700], [1000]]))
    layers = [
        BlockPattern.bigbird(16, random=2, heads=4, plan=plan, block_size=64, max_length=1024, layer=layer)
        for layer in range(3)
    ]
    assert seen == layers and (plan == "hf_eval" or len(set(layers)) == 3)
    assert layers[0] == config.pattern(16, 0) and layers[0].listed_multiplicity() is not None
    seen.clear()
    net(x[:, :100], torch.arange(100) < torch.tensor([[64], [100]]))
    assert [p.density() for p in seen] == [1.0] * 3 and {p.n_blocks for p in seen} == {2}


def test_train_and_eval_read_the_same_blocks():
    config = dataclasses.replace(SMALL, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    net, x = model(config=config), ids(2, 50)
    assert torch.equal(net.train()(x).logits, net.eval()(x).logits)
    seen = []

    def spy(q, k, v, p, key_mask=None, **kw):
        seen.append((p, kw))
        return attention(q, k, v, p, key_mask, **kw)

    net = model(attention_fn=spy)
    net.eval()(x), net.train()(x)
    assert [p for p, _ in seen[:3]] == [p for p, _ in seen[3:]]
    assert [kw for _, kw in seen] == [{}] * 3 + [{"dropout_p": 0.1}] * 3


def test_dropout_acts_in_training_only():
    net, x = model().train(), ids(1, 30)
    assert not torch.equal(net(x).logits, net(x).logits)
    net.eval()
    assert torch.equal(net(x).logits, net(x).logits)


def test_pattern_may_be_one_a_list_or_a_function():
    x = ids(2, 38)
    want = model(pattern=[SMALL.pattern(10, layer) for layer in range(3)])(x).logits
    assert torch.allclose(want, model()(x).logits, rtol=0, atol=1e-5)
    window = BlockPattern.window(10)
    by_function = model(pattern=BlockPattern.window)(x).logits
    assert torch.allclose(model(pattern=window)(x).logits, by_function, rtol=0, atol=1e-5)
    assert not torch.allclose(by_function, want, atol=1e-3)
    mixed = model(pattern=[window, BlockPattern.window, BlockPattern.full])(x).logits
    assert not torch.allclose(mixed, by_function, atol=1e-3)
    longer = model(pattern=BlockPattern.window(12))(x)  # the input is padded to the pattern
    assert torch.allclose(longer.logits, by_function, rtol=0, atol=1e-5)


def test_perturbing_a_token_reaches_as_far_as_the_pattern_lets_it():
    """Three layers of a window of three blocks: three blocks to each side, and not a token more."""
    x = ids(1, 80)
    net = model(pattern=BlockPattern.window(20, 3))
    before = net(x).logits
    x[0, 41] = 1 + x[0, 41] % 29
    changed = (net(x).logits != before).any(-1)[0].view(20, 4).any(-1)
    assert changed.nonzero()[:, 0].tolist() == list(range(10 - 3, 10 + 3 + 1))


def test_attention_fn_is_what_runs():
    x = ids(1, 20)
    nothing = model(attention_fn=lambda q, k, v, p, key_mask=None: torch.zeros_like(v))
    assert not torch.allclose(nothing(x).logits, model()(x).logits, atol=1e-3)
    x[0, 5] = 1 + x[0, 5] % 29  # without attention, no other token hears of it
    other = nothing(x).logits
    x[0, 5] = 1 + x[0, 5] % 29
    changed = (nothing(x).logits != other).any(-1)[0]
    assert changed.nonzero()[:, 0].tolist() == [5]


def test_the_loss_is_the_mean_over_labelled_positions_in_nats():
    net, x = model(), ids(2, 15)
    labels = torch.full_like(x, -100)
    labels[0, 3], labels[1, 14] = 5, 9
    out = net(x, labels=labels)
    log_p = out.logits.log_softmax(-1)
    assert out.loss.item() == pytest.approx(-(log_p[0, 3, 5] + log_p[1, 14, 9]).item() / 2, rel=1e-5)
    assert net(x, labels=torch.full_like(x, -100)).loss.item() == 0.0
    out.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert net(x).loss is None


def test_the_decoder_is_the_word_embedding():
    net = model()
    assert not [name for name, _ in net.named_parameters() if "decoder" in name]
    before = net(ids(1, 5)).logits
    hidden = net(ids(1, 5)).last_hidden_state
    ready = net.norm(torch.nn.functional.gelu(net.transform(hidden), approximate="tanh"))
    assert torch.allclose(ready @ net.encoder.embeddings.word.weight.T + net.bias, before, atol=1e-5)


def test_words_may_be_given_as_vectors():
    net, x = model(kind=BigBirdModel), ids(2, 13)
    vectors = net.embeddings.word(x)
    assert torch.equal(net(inputs_embeds=vectors).last_hidden_state, net(x).last_hidden_state)
    types = torch.arange(13).expand(2, -1) % 2
    assert not torch.allclose(net(x, token_type_ids=types).last_hidden_state, net(x).last_hidden_state, atol=1e-3)


def test_masks_of_zeros_and_ones_are_booleans():
    net, x = model(), ids(2, 30)
    mask = torch.arange(30) < torch.tensor([[30], [17]])
    for kind in (torch.int64, torch.float32):
        assert torch.equal(net(x, mask.to(kind)).logits, net(x, mask).logits)
    holes = mask.clone()
    holes[0, 3:9] = False
    x2 = x.clone()
    x2[0, 3:9] = 1
    assert torch.equal(net(x, holes).logits[0, 9:], net(x2, holes).logits[0, 9:])


def test_it_learns():
    torch.manual_seed(0)
    net, x = BigBirdForMaskedLM(dataclasses.replace(SMALL, initializer_range=0.1)).train(), ids(4, 40)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = net(x, labels=x).loss
        optimiser.zero_grad(), loss.backward(), optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_the_start_is_the_paper_s():
    torch.manual_seed(0)
    net = BigBirdForMaskedLM(BigBirdConfig(vocab_size=500, hidden_size=64, num_hidden_layers=2, num_attention_heads=2))
    assert net.encoder.layers[1].query.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert net.transform.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert net.encoder.layers[0].up.bias.abs().max() == 0 and net.encoder.layers[0].output_norm.weight.min() == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"hidden_size": 25}, "hidden_size=25 is not a multiple of num_attention_heads=4"),
        ({"window_blocks": 2}, "window width=2 is even"),
        ({"window_blocks": 0}, "window_blocks=0 must be a whole number, at least 1"),
        ({"num_random_blocks": -1}, "num_random_blocks=-1 must be a whole number, at least 0"),
        ({"block_size": 2.5}, "block_size=2.5 must be a whole number"),
        ({"random_plan": "magic"}, "plan='magic' is not known"),
        ({"random_plan": "google", "window_blocks": 5}, "plan='google' has window=3 and .* not window=5"),
        (
            {"random_plan": "hf_train", "global_blocks": (0,)},
            r"random_plan='hf_train' has global_blocks=\(0, -1\), not \(0,\)",
        ),
        ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob=1.0 must be at least 0 and below 1"),
        ({"global_blocks": (0, 1.5)}, r"global_blocks=\(0, 1.5\) must be whole numbers"),
        ({"global_blocks": 0}, "global_blocks=0 must be whole numbers"),
        ({"pad_token_id": 30}, "pad_token_id=30 is outside the vocabulary of 30"),
    ],
)
def test_a_config_that_cannot_be_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(SMALL, **changes)


def ten_blocks_whatever(n_blocks):
    return BlockPattern.window(10)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: model()(ids(1, 101)), ValueError, "n=101 tokens; allowed are 1 to max_position_embeddings=100"),
        (lambda: model()(ids(1, 0)), ValueError, "n=0 tokens"),
        (
            lambda: model()(ids(1, 5)[0]),
            ValueError,
            r"shape \(5,\); they must be \(B, n\), so use ids",
        ),
        (lambda: model()(ids(1, 5).float()), TypeError, "int64 or int32, not torch.float32"),
        (lambda: model()(), ValueError, "give input_ids or inputs_embeds"),
        (lambda: model()(ids(1, 5), torch.ones(1, 6)), ValueError, r"attention_mask has shape \(1, 6\).*\(1, 5\)"),
        (lambda: model()(ids(1, 5), token_type_ids=ids(2, 5)), ValueError, r"token_type_ids has shape \(2, 5\)"),
        (lambda: model()(ids(1, 5), [[1] * 5]), TypeError, "attention_mask must be a tensor, not list"),
        (lambda: model()(inputs_embeds=torch.ones(1, 5, 1)), ValueError, r"shape \(1, 5, 1\), not \(B, n, 24\)"),
        (lambda: model()(ids(1, 5)[:0]), ValueError, "with B > 0"),
        (lambda: model()(ids(1, 5), labels=[1]), TypeError, "labels must be a tensor of whole numbers"),
        (lambda: model()(ids(2, 5), torch.tensor([[1] * 5, [0] * 5])), ValueError, "hides every token of document 1"),
        (lambda: model()(ids(1, 5), labels=ids(1, 4)), ValueError, r"labels have shape \(1, 4\).*\(1, 5\)"),
        (lambda: model(pattern=[BlockPattern.full] * 2), ValueError, "2 patterns for 3 layers"),
        (
            lambda: model(pattern=BlockPattern.full(9))(ids(1, 40)),
            ValueError,
            "the input has 10 blocks of 4, the pattern 9",
        ),
        (lambda: model(pattern=ten_blocks_whatever)(ids(1, 9)), ValueError, r"pattern\(3\) returned .*of 3 blocks"),
        (
            lambda: model(attention_fn=lambda q, k, v, p, key_mask: v[:, :1])(ids(1, 9)),
            ValueError,
            r"attention_fn returned \(1, 1, 12, 6\); it must be \(B, H, n, d\) = \(1, 4, 12, 6\)",
        ),
    ],
)
def test_bad_input_gets_one_sentence(call, error, says):
    with pytest.raises(error, match=says):
        call()


def test_16384_tokens_fit_in_2_gb():
    """A small encoder at 16,384 tokens in a fresh process: peak memory of all of it, torch included."""
    pytest.importorskip("psutil", reason="needs the extra lab")
    code = """
import torch
from bigbird_mini import BigBirdConfig, BigBirdForMaskedLM
from bigbird_mini.bench import measure
from bigbird_mini.data import DNATokenizer, genome
config = BigBirdConfig(9, 128, 4, 4, 512, max_position_embeddings=16384)
model, ids = BigBirdForMaskedLM(config).eval(), DNATokenizer().encode(genome()[:16384])[None]
with torch.inference_mode():
    run = measure(lambda: model(ids).logits)
print(tuple(run.result.shape), run.peak_bytes)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shape, peak = ran.stdout.rsplit(" ", 1)
    assert shape == "(1, 16384, 9)" and int(peak) < 2e9


def test_a_document_with_holes_reaches_to_its_last_real_token():
    net, x = model(), ids(2, 67)
    mask = torch.ones(2, 67, dtype=torch.bool)
    mask[0, 21:] = False
    mask[0, 2:15] = False
    alone = net(x[:1, :21], mask[:1, :21]).logits[0]
    assert torch.allclose(net(x, mask).logits[0, :21], alone, rtol=0, atol=1e-5)
    seen = []

    def spy(q, k, v, p, key_mask=None):
        seen.append(p)
        return attention(q, k, v, p, key_mask)

    model(attention_fn=spy)(x, mask)
    assert [p.unpadded().n_blocks for p in seen[0]] == [6, 17]  # 21 tokens, and not the 8 that are real


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_dropout_comes_before_the_norm_of_the_embeddings_and_after_both_halves_of_a_layer(norm):
    config = dataclasses.replace(SMALL, hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.0, norm=norm)
    torch.manual_seed(0)
    net = BigBirdModel(config).train()
    x = net.embeddings(net.embeddings.word(ids(2, 12)), torch.zeros(2, 12, dtype=torch.long))
    assert x.mean(-1).abs().max() < 1e-5 and (x.std(-1, unbiased=False) - 1).abs().max() < 1e-5
    assert not torch.equal(x, net.embeddings(net.embeddings.word(ids(2, 12)), torch.zeros(2, 12, dtype=torch.long)))
    layer, p = net.layers[0], BlockPattern.full(3)
    for silent in (layer.out, layer.down):
        before = silent.weight.data.clone()
        silent.weight.data.zero_()
        assert not torch.equal(layer(x, p, None), layer(x, p, None))  # the other half still drops
        silent.weight.data.copy_(before)
    layer.out.weight.data.zero_(), layer.down.weight.data.zero_()
    assert torch.equal(layer(x, p, None), layer(x, p, None))


def test_every_place_has_its_own_position_vector():
    net, x = model(kind=BigBirdModel, pattern=lambda N: BlockPattern.window(N, 1)), ids(1, 100)
    before = net(x).last_hidden_state
    net.embeddings.position.weight.data[99] += 1.0
    changed = (net(x).last_hidden_state != before).any(-1)[0]
    assert changed.nonzero()[:, 0].tolist() == [96, 97, 98, 99]  # its block of four


def test_one_label_is_a_mean_of_one_and_half_precision_sums_do_not_overflow():
    net, x = model(), ids(1, 9)
    labels = torch.full_like(x, -100)
    labels[0, 4] = 11
    out = net(x, labels=labels.int())
    assert out.loss.item() == pytest.approx(-out.logits.log_softmax(-1)[0, 4, 11].item(), rel=1e-5)
    many = BigBirdForMaskedLM(dataclasses.replace(SMALL, max_position_embeddings=30_000)).half().eval()
    x = ids(1, 30_000)
    assert many(x, labels=x).loss.isfinite()


def test_the_padding_word_is_never_trained():
    net = model()
    net(torch.zeros(1, 5, dtype=torch.long)).last_hidden_state.sum().backward()
    assert net.encoder.embeddings.word.weight.grad[0].abs().max() == 0


def test_torch_compile_gives_the_same_in_a_fresh_process():
    """A process that never ran the model before: nothing is cached when it is traced."""
    code = """
import torch
from bigbird_mini import BigBirdConfig, BigBirdForMaskedLM
model = BigBirdForMaskedLM(BigBirdConfig(30, 32, 2, 4, 64, max_position_embeddings=512, block_size=8)).eval()
ids, mask = torch.randint(1, 30, (2, 200)), torch.arange(200) < torch.tensor([[200], [77]])
fast = torch.compile(model, backend="aot_eager")
with torch.no_grad():
    got = fast(ids, mask).logits, fast(ids).logits
want = model(ids, mask).logits, model(ids).logits
fast(ids, mask).logits.sum().backward()
print(max((g - w).abs().max().item() for g, w in zip(got, want)), model.bias.grad.isfinite().all().item())
"""
    ran = subprocess.run(
        [sys.executable, "-W", "error:The given NumPy array", "-c", code], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    gap, finite = ran.stdout.split()
    assert float(gap) < 1e-5 and finite == "True"


def test_short_texts_keep_the_globals_they_have():
    config = dataclasses.replace(SMALL, global_blocks=[0, 5, -1])
    assert config.global_blocks == (0, 5, -1)
    assert config.pattern(3, 0).density() == 1.0  # block 5 is left out
    assert config.pattern(20, 0).grid()[0, 5].all()
    long = model(config=config)(ids(1, 80))
    short = model(config=config)(ids(1, 8))
    assert long.logits.isfinite().all() and short.logits.isfinite().all()
