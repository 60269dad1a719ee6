"""The numbers behind the attention viewer, against the dense matrices of the model's own maps."""

import copy
import math
import tracemalloc

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bigbird_mini import BigBirdConfig, BigBirdForMaskedLM, BigBirdModel, BlockPattern, attention
from bigbird_mini.data import ByteTokenizer
from bigbird_mini.viz.attention_maps import Lookup, encoder_of
from bigbird_mini.viz.attention_text import text_of, token_texts
from bigbird_mini.viz.attention_view import FULL, LOCKED, NOTHING, view_of

B = 4


def model(seed=0, pattern=None, attention_fn=None, sharp=0.6, **changes):
    """Untrained, but with scores that differ."""
    sizes = {"vocab_size": 40, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {"intermediate_size": 16, "block_size": B, "max_position_embeddings": 80, "num_random_blocks": 1}
    torch.manual_seed(seed)
    made = BigBirdModel(BigBirdConfig(**(sizes | changes)), pattern, attention_fn).double()
    with torch.no_grad():
        for layer in made.layers:
            for part in (layer.query, layer.key):
                part.weight.normal_(std=sharp)
    return made


def ids(n, seed=1):
    return torch.randint(1, 40, (n,), generator=torch.Generator().manual_seed(seed))


HOLES = torch.tensor([[True] * 3 + [False] * 2 + [True] * 30 + [False] * 10])
CASES = {
    "plain": (model, {}, 40, None),
    "part of a block": (model, {}, 37, None),
    "padded": (model, {}, 45, HOLES),
    "extra global tokens": (lambda: model(extra_global_tokens=3, global_blocks=()), {}, 45, HOLES),
    "counted more than once": (lambda: model(random_plan="hf_eval", num_random_blocks=3), {}, 64, None),
    "own pattern, longer than the text": (
        lambda: model(pattern=BlockPattern.bigbird(13, 5, (2,), 2, seed=3)),
        {},
        33,
        None,
    ),
    "some read nothing": (lambda: model(pattern=BlockPattern.random(10, 1, seed=1)), {}, 40, None),
    "full": (lambda: model(attention_type="original_full"), {}, 33, None),
    "dense backend": (lambda: model(attention_fn=lambda *a, **k: attention(*a, backend="dense", **k)), {}, 40, None),
}


@pytest.fixture(params=CASES)
def case(request):
    """(model, text, lookup, dense weights (layers, H, n, n), real (n,))"""
    make, _, n, mask = CASES[request.param]
    net = make()
    text = text_of(ids(n), None if mask is None else mask)
    dense = net.eval().attention_maps(ids(n)[None], mask, layers=(0, 1))
    table = torch.stack([dense[layer].dense()[0] for layer in (0, 1)])
    room, places = net.config.extra_blocks * B, table.shape[-1]
    real = torch.zeros(places, dtype=torch.bool)
    real[: net.config.extra_global_tokens] = True
    real[room : room + n] = True if mask is None else mask[0]
    return net, text, Lookup({"model": net}, text), table, real


def blocks(table, real):
    """(H, n, n) -> (H, N, N): by block pair, the mean over real queries of the weight."""
    H, n, _ = table.shape
    some = (table * real[:, None]).view(H, n // B, B, n // B, B).sum((2, 4))
    return some / real.view(-1, B).sum(1).clamp(min=1)[:, None]


def test_masses_and_tiles_are_those_of_the_dense_matrix(case):
    _, _, lookup, table, real = case
    for layer in (0, 1):
        maps = lookup.maps("model", layer)
        wanted = blocks(table[layer], real).numpy()
        N = wanted.shape[-1]
        for head in (0, 1):
            cells, share, kinds = maps.masses(head)
            got = np.zeros(N * N)
            got[cells] = share
            assert np.allclose(got.reshape(N, N), wanted[head], rtol=0, atol=1e-6)
            assert (np.diff(cells) > 0).all()
            assert np.array_equal(kinds, maps.kinds(head).ravel()[cells])
            grid = maps.pattern.grid()[head if maps.pattern.heads > 1 else 0].numpy()
            assert set(cells) == set(np.flatnonzero(grid & (maps.queries > 0)[:, None]))
            for i in range(N):
                for j in range(N):
                    tile = maps.tile(head, i, j)
                    rows = slice(i * B, (i + 1) * B)
                    cut = table[layer, head, rows, j * B : (j + 1) * B] * real[rows, None]
                    assert np.allclose(0 if tile is None else tile, cut, atol=1e-6)


def test_the_largest_keys_of_a_token(case):
    _, _, lookup, table, real = case
    maps = lookup.maps("model", 1)
    for place in range(len(real)):
        row = table[1, 1, place]
        tops = maps.tops(1, place, 4)
        if not real[place] or row.sum() == 0:
            assert tops == []
            continue
        best = row.sort(descending=True)
        assert [weight for _, weight in tops] == pytest.approx([w for w in best.values[:4].tolist() if w > 0], abs=1e-6)
        assert all(row[key] == pytest.approx(weight, abs=1e-6) for key, weight in tops)


def test_shares_by_kind(case):
    net, _, lookup, table, real = case
    maps = lookup.maps("model", 0)
    kinds = np.broadcast_to(maps.pattern.kinds().numpy(), (2, maps.n_blocks, maps.n_blocks))
    wanted = blocks(table[0], real).numpy() * maps.queries[:, None] / maps.queries.sum()
    for kind in range(5):
        assert np.allclose(maps.shares[:, kind], (wanted * (kinds == kind)).sum((1, 2)), atol=1e-6)
    # a model whose queries are all zero gives every key the same
    even = copy.deepcopy(net)
    with torch.no_grad():
        for part in (even.layers[0].query.weight, even.layers[0].query.bias):
            part.zero_()
    assert np.allclose(Lookup({"model": even}, lookup.text).maps("model", 0).shares, maps.even, atol=1e-6)


def test_missed_mass_is_what_the_full_model_puts_outside(case):
    net, text, lookup, _, real = case
    if net.config.attention_type == "original_full":
        assert lookup.full_count("model", 0) == 0
        with pytest.raises(ValueError, match="full attention is the same"):
            lookup.maps("model", 0, full=True)
        return
    config = BigBirdConfig(**{**vars(net.config), "attention_type": "original_full"})
    twin = BigBirdModel(config, BlockPattern.full(net.pattern.n_blocks) if net.pattern else None).double().eval()
    twin.load_state_dict(net.state_dict())
    dense = twin.attention_maps(text.given["input_ids"], text.given.get("attention_mask"), layers=(0, 1))
    for layer in (0, 1):
        full, own = lookup.maps("model", layer, full=True), lookup.maps("model", layer)
        weights = dense[layer].dense()[0]  # (H, n, n)
        read = own.pattern.token_mask(B).expand(2, -1, -1)
        missed = (weights * ~read).sum(-1)  # (H, n)
        for head in (0, 1):
            by_block = (missed[head] * real).view(-1, B).sum(1) / real.view(-1, B).sum(1).clamp(min=1)
            assert np.allclose(full.outside(head), by_block, atol=1e-6)
            assert full.shares[head, 0] == pytest.approx(float(missed[head][real].mean()), abs=1e-6)
            assert not own.outside(head).any()
            for place in real.nonzero().flatten().tolist()[::5]:
                assert full.missed_by(head, place) == pytest.approx(float(missed[head, place]), abs=1e-6)
        if layer == 0 and own.pattern.listed_multiplicity() is None:  # the same scores: what is left, renormalised
            kept = (weights * read) / (weights * read).sum(-1, keepdim=True).clamp(min=1e-300)
            assert np.allclose(blocks(kept, real)[0].flatten()[own.masses(0).cells], own.masses(0).share, atol=1e-6)
    assert float(full.shares[:, 0].min()) > 0.01


def test_the_model_is_left_as_it_was():
    net = model(hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5)
    net.train()
    net.layers[1].eval()
    before, state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    lookup = Lookup({"model": net}, text_of(ids(30)))
    cells, share, _ = lookup.maps("model", 1).masses(0)
    lookup.maps("model", 1, full=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training and net.layers[0].training and not net.layers[1].training and net.layers[0].dropout.training
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    again = Lookup({"model": net.eval()}, text_of(ids(30))).maps("model", 1).masses(0)
    assert np.array_equal(again.share, share) and np.array_equal(again.cells, cells)


def test_agreement_of_two_heads():
    lookup = Lookup({"model": model()}, text_of(ids(38)))
    view = view_of(lookup, ("model", 0, 1), LOCKED, ["model", 1, 0])
    maps = lookup.maps("model", 0), lookup.maps("model", 1)
    tables = []
    for one, head in zip(maps, (1, 0), strict=True):
        table = np.zeros(100)
        table[one.masses(head).cells] = one.masses(head).share
        tables.append(table.reshape(10, 10))
    rows = np.minimum(*tables).sum(1)
    assert view.agreement() == pytest.approx(rows @ maps[0].queries / 38, abs=1e-6) and 0 < view.agreement() < 1
    same = view_of(lookup, ("model", 0, 1), LOCKED, ["model", 0, 1])
    assert same.agreement() == pytest.approx(1, abs=1e-5)


class Largest(TorchDispatchMode):
    """The largest tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, torch.Tensor):
                self.numbers = max(self.numbers, x.untyped_storage().nbytes() // x.element_size())
        return out


def test_16384_tokens_without_a_table_of_16384_squared():
    n = 16384
    net = BigBirdModel(
        BigBirdConfig(
            vocab_size=8,
            hidden_size=4,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=4,
            max_position_embeddings=n,
        )
    )
    tracemalloc.start()
    try:
        with Largest() as seen:
            lookup = Lookup({"model": net}, text_of(torch.randint(8, (n,))))
            view = view_of(lookup, (None, 0, None))
            assert view.full is None and view.tile().shape == (64, 64) and view.tops() and view.maps.even.sum() > 0.99
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 252 * 64 * 512 <= seen.numbers < n * n / 16  # nearly all rows read 8 blocks of 64 keys
    assert peak < n * n / 8  # bytes of NumPy and Python
    with pytest.raises(ValueError, match=r"full attention has 268,435,456 weights.*enough for 8,192 tokens"):
        view_of(lookup, (None, 0, 0), FULL)


def test_layers_are_computed_together_and_only_once():
    calls = []

    def spy(*args, return_weights=False, **more):
        calls.append(return_weights)
        return attention(*args, return_weights=return_weights, **more)

    lookup = Lookup({"model": model(attention_fn=spy)}, text_of(ids(20)))
    first = lookup.maps("model", 0)
    assert calls.count(True) == 2
    calls.clear()
    assert lookup.maps("model", 0) is first and lookup.maps("model", 1).heads == 2 and calls == []


def test_what_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr("bigbird_mini.viz.attention_maps._KEPT", 1)
    monkeypatch.setattr("bigbird_mini.viz.attention_maps._AT_ONCE", 1)
    lookup = Lookup({"a": model(num_hidden_layers=4)}, text_of(ids(20)))
    for layer in range(4):
        lookup.maps("a", layer)
    assert list(lookup._kept) == [("a", 2, False), ("a", 3, False)]


def test_too_many_blocks_or_weights_are_refused():
    net = model(block_size=1, positions="none", num_hidden_layers=1)
    with pytest.raises(ValueError, match="2,049 blocks are too many; the viewer shows up to 2,048"):
        Lookup({"model": net}, text_of(torch.ones(2049, dtype=torch.long))).maps("model", 0)
    net = model(attention_type="original_full", positions="none", block_size=64)
    most = math.isqrt(2**28 // 2) // 64 * 64
    with pytest.raises(ValueError, match=f"full attention has .* computed here, which is enough for {most:,} tokens"):
        Lookup({"model": net}, text_of(torch.ones(most + 64, dtype=torch.long))).maps("model", 0)


# -------------------------------------------------------------------- the text


def test_shapes_of_a_text():
    one, many = text_of(ids(9)), text_of(torch.stack([ids(9), ids(9, 2)]), document=1)
    assert len(one) == 9 and one.given["input_ids"].shape == (1, 9) and one.reach == 9
    assert torch.equal(many.given["input_ids"][0], ids(9, 2)) and text_of([3, 1, 2]).tokens == ["3", "1", "2"]
    assert text_of(inputs_embeds=torch.zeros(5, 3)).tokens == ["0", "1", "2", "3", "4"]
    masked = text_of(ids(6), [1, 1, 0, 1, 0, 0])
    assert masked.reach == 4 and masked.real.tolist() == [True, True, False, True, False, False]


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({}, ValueError, "give input_ids or inputs_embeds"),
        ({"input_ids": torch.zeros(2, 3, 4)}, ValueError, r"input_ids have shape \(2, 3, 4\); they must be \(n,\) or"),
        ({"input_ids": []}, ValueError, r"shape \(0,\)"),
        ({"inputs_embeds": torch.zeros(3)}, ValueError, r"inputs_embeds have shape \(3,\)"),
        ({"input_ids": [1, 2], "attention_mask": [1]}, ValueError, r"attention_mask has shape \(1, 1\).*\(1, 2\)"),
        ({"input_ids": [1, 2], "attention_mask": [0, 0]}, ValueError, "hides every token of document 0"),
        ({"input_ids": [[1], [2]], "document": 2}, ValueError, "document=2 is out of range: .* 0 to 1"),
        ({"input_ids": [1, 2], "tokens": ["a"]}, ValueError, "1 tokens for a text of 2"),
        ({"input_ids": [1, 2], "tokens": 7}, TypeError, "tokens must be a list of texts.*not int"),
        ({"inputs_embeds": torch.zeros(2, 3), "tokens": str}, ValueError, "vectors have no ids"),
    ],
)
def test_a_text_that_does_not_fit_is_one_sentence(given, error, words):
    with pytest.raises(error, match=words):
        text_of(**given)


def test_tokens_from_tokenizers_of_all_kinds():
    class Hub:
        def convert_ids_to_tokens(self, k):
            return f"w{k}"

    class Rust:
        def id_to_token(self, k):
            return f"t{k}"

    tokenizer = ByteTokenizer()
    own = tokenizer.encode("a b\n").tolist()
    assert token_texts(tokenizer, [0, *own], 5) == ["[0]", "a", "␣", "b", "⏎"]  # what it leaves out is shown by its id
    assert token_texts(tokenizer.decode, own, 4) == ["a", "␣", "b", "⏎"]
    assert token_texts(Hub(), [5, 6], 2) == ["w5", "w6"] and token_texts(Rust(), [5], 1) == ["t5"]
    assert token_texts("ACGT", [0, 1, 2, 3], 4) == ["A", "C", "G", "T"]
    assert token_texts("ABCD".__getitem__, [3, 0, 3], 3) == ["D", "A", "D"]


def test_encoders_are_found():
    head = BigBirdForMaskedLM(model().config)
    assert encoder_of(head) is head.encoder
    with pytest.raises(TypeError, match=r"a BigBird model is needed here .*not Linear"):
        encoder_of(torch.nn.Linear(1, 1))


# -------------------------------------------------------------------- a view


def test_good_choices_where_nothing_is_said():
    lookup = Lookup({"model": model()}, text_of(ids(39)))
    view = view_of(lookup, (None, 0, None))
    maps = view.maps
    far = abs(maps.shares - maps.even).sum(1)
    assert view.head == ("model", 0, int(far.argmax())) and view.full is not None
    cells, share, kinds = maps.masses(view.head[2])
    best = max((s, c) for s, c, k in zip(share, cells, kinds, strict=True) if k == 3)[1]
    assert view.cell == divmod(best, maps.n_blocks)
    assert view.tile()[view.spot] == view.tile().max()
    only_window = Lookup({"model": model(pattern=BlockPattern.window(10))}, lookup.text)
    i, j = view_of(only_window, (None, 0, 0), NOTHING).cell
    assert abs(i - j) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"head": ("b", 0, 0)}, "model='b' is not there; there are a, other"),
        ({"head": ("a", 2, 0)}, "layer=2 is out of range; allowed are 0 to 1"),
        ({"head": ("a", 0, -1)}, "head=-1 is out of range; allowed are 0 to 1"),
        ({"beside": "left"}, "beside='left' is not known; allowed: 'nothing', 'full"),
        ({"beside": LOCKED}, "no head is locked yet"),
        ({"cell": (0, 10)}, r"cell=\[0, 10\] is out of range: blocks go from 0 to 9"),
        ({"cell": (0, 1), "spot": (4, 0)}, r"spot=\[4, 0\] is out of range: places in a block go from 0 to 3"),
        ({"locked": ["other", 0, 0]}, r"only models of like blocks .* 10 blocks of 4 tokens .* and 5 blocks of 8"),
    ],
)
def test_what_is_not_there_is_said(change, words):
    lookup = Lookup({"a": model(), "other": model(block_size=8)}, text_of(ids(40)))
    with pytest.raises(ValueError, match=words):
        view_of(lookup, **({"head": ("a", 0, 0)} | change))
