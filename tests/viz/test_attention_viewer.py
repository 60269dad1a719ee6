"""explore_attention, draw_attention and their words without a browser."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("anywidget")
from bigbird_mini import BigBirdConfig, BigBirdForMaskedLM
from bigbird_mini.viz import describe_attention, draw_attention, explore_attention
from bigbird_mini.viz.attention_view import FULL, LOCKED, NOTHING
from bigbird_mini.viz.show import encode

TEXT = "the cat sat on the mat and the dog sat on the log while birds sang"
WORDS = TEXT.split()
VOCABULARY = sorted(set(WORDS))
IDS = torch.tensor([VOCABULARY.index(word) for word in WORDS])  # 16 of them


def model(seed=0, **changes):
    sizes = {"vocab_size": 20, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3}
    sizes |= {"intermediate_size": 16, "block_size": 2, "max_position_embeddings": 40, "num_random_blocks": 1}
    torch.manual_seed(seed)
    made = BigBirdForMaskedLM(BigBirdConfig(**(sizes | changes)))
    with torch.no_grad():
        for layer in made.encoder.layers:
            layer.query.weight.normal_(std=0.6)
            layer.key.weight.normal_(std=0.6)
    return made


def explore(*models, **settings):
    given = {"tokens": WORDS, **settings}
    return explore_attention(dict(zip("ab", models, strict=False)) if len(models) > 1 else models[0], IDS, **given)


def pairs(side):
    """{cell: share} of what the browser gets."""
    cells, share = np.frombuffer(side["cells"], np.int32), np.frombuffer(side["share"], np.float32)
    return dict(zip(cells.tolist(), share.tolist(), strict=True))


def test_the_widget_sends_the_weights_of_the_model():
    net = model()
    widget = explore(net, head=1, cell=(3, 4))
    dense = net.eval().attention_maps(IDS[None], layers=(0, 1))
    assert widget.problem == "" and (widget.blocks, widget.block_size, widget.heads, widget.layers) == (8, 2, 3, 2)
    for layer, head, cell in ((0, 1, (3, 4)), (0, 2, (3, 4)), (1, 2, (3, 4)), (1, 2, (7, 0))):
        widget.layer, widget.head, widget.cell = layer, head, list(cell)
        table = dense[layer].dense()[0, head]
        mean = table.view(8, 2, 8, 2).sum(3).mean(1).flatten()
        sent = pairs(widget.left)
        assert all(share == pytest.approx(float(mean[at]), abs=1e-6) for at, share in sent.items())
        assert sum(sent.values()) == pytest.approx(8, abs=1e-4)
        tile = np.frombuffer(widget.tiles[0], np.float32)
        if len(tile):
            i, j = cell
            assert np.allclose(tile.reshape(2, 2), table[2 * i : 2 * i + 2, 2 * j : 2 * j + 2], atol=1e-6)
        else:
            assert cell[0] * 8 + cell[1] not in sent
    assert len(widget.tiles[0]) == 16  # the global row reads everything
    assert widget.texts == WORDS and widget.tokens == 16


def test_full_attention_beside_it():
    widget = explore(model(), head=0)
    assert widget.beside == FULL and widget.sides == [NOTHING, FULL] and widget.right["title"] == FULL
    missed = np.frombuffer(widget.right["missed"], np.float32)
    full = pairs(widget.right)
    kinds = dict(zip(full, widget.right["kinds"], strict=True))
    for i in range(8):
        outside = sum(share for cell, share in full.items() if cell // 8 == i and kinds[cell] == 0)
        assert missed[i] == pytest.approx(outside, abs=1e-5)
    assert len(full) == 64 and missed.max() > 0.05
    assert f"{missed.mean():.0%} of its weight outside this pattern" in widget.comparison
    assert widget.shares[-1][0] == "full attention" and widget.used[-1]["name"] == "outside the pattern"
    widget.beside = NOTHING
    assert widget.right == {} and len(widget.tiles) == 1 and widget.comparison == "" and widget.problem == ""
    assert [name for name, _ in widget.shares] == ["head 0", "head 1", "head 2", "evenly"]


def test_a_locked_head_stays_while_others_are_looked_at():
    widget = explore(model(), head=1)
    before = dict(widget.left)
    widget.locked = ["model", 0, 1]
    widget.beside = LOCKED
    assert widget.right["cells"] == before["cells"] and widget.right["title"] == "locked: layer 0, head 1"
    assert "100% of their weight" in widget.comparison
    widget.head = 2
    assert widget.right["share"] == before["share"] and widget.left["share"] != before["share"]
    widget.layer = 1
    assert widget.left["title"] == "layer 1, head 2" and widget.right["share"] == before["share"]
    assert widget.sides == [NOTHING, FULL, LOCKED] and widget.view.locked == ("model", 0, 1)
    widget.beside = FULL
    assert widget.locked == ["model", 0, 1]  # it can be asked for again
    widget.beside = LOCKED
    widget.locked = []
    assert widget.beside == NOTHING and widget.right == {} and widget.problem == ""


def test_two_models_side_by_side():
    first, second = model(), model(seed=1)
    widget = explore(first, second, head=0)
    assert widget.models == ["a", "b"] and widget.beside == LOCKED and widget.locked == ["b", 0, 0]
    alone = explore(second, head=0, beside=NOTHING)
    assert pairs(widget.right) == pairs(alone.left)
    widget.model = "b"
    assert pairs(widget.left) == pairs(alone.left) and "b, layer 0, head 0" in widget.words


def test_models_of_other_sizes_are_refused_beside_each_other_but_not_alone():
    widget = explore(model(), model(block_size=4, num_hidden_layers=1, num_attention_heads=2))
    assert "nly models of like blocks stand side by side" in widget.problem
    assert widget.blocks == 8 and widget.right == {}  # the first is shown
    widget.layer, widget.head = 1, 2
    widget.model = "b"
    assert widget.problem == "" and (widget.layer, widget.head, widget.blocks) == (0, 1, 4)


def test_the_pair_stays_for_another_head_once_it_was_chosen():
    widget = explore(model(), head=0)
    chosen = list(widget.cell)
    widget.head = 1
    assert widget.cell == list(explore(model(), head=1).cell)
    widget.cell = [7, 7]
    widget.spot = [1, 0]
    widget.head = 2
    assert (widget.cell, widget.spot) == ([7, 7], [1, 0]) and chosen != [7, 7]
    assert widget.token_name == "token 15 'sang'" and len(widget.tops) == 6
    widget.cell = [0, 3]
    assert widget.spot == list(np.unravel_index(widget.view.tile().argmax(), (2, 2)))


def test_extra_global_tokens_and_padding_have_names():
    mask = torch.ones(1, 16, dtype=torch.bool)
    mask[0, 13:] = False
    net = model(extra_global_tokens=3, global_blocks=())
    widget = explore_attention(net, IDS[None], mask, tokens=WORDS, cell=(0, 4), head=0)
    assert widget.room == 4 and widget.blocks == 10 and widget.tokens == 16
    assert widget.texts == ["global 0", "global 1", "global 2", "", *WORDS[:13], "", "", ""]
    assert "Query block 0 (extra global tokens) gives" in widget.words
    widget.cell = [4, 0]
    assert "key block 0 (extra global tokens): global. Largest: token" in widget.words
    widget.cell = [9, 0]
    assert "does not read" in widget.words and widget.tops == [] and widget.token_name == "padding"


# -------------------------------------------------------------------- what goes wrong


def mixed():
    net = model(seed=3)
    net.encoder.layers[1].to("meta")
    return net


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: explore_attention(model(), torch.zeros(2, 3, 4)), r"input_ids have shape \(2, 3, 4\)"),
        (lambda: explore_attention(model(), IDS.float()), "input_ids must be a tensor of int64 or int32"),
        (lambda: explore_attention(model(), IDS + 10), "vocabulary"),
        (lambda: explore_attention(model(), torch.ones(41, dtype=torch.long)), r"lengthen\(model, 41\)"),
        (lambda: explore_attention(model(), IDS, tokens=["a"]), "1 tokens for a text of 16"),
        (lambda: explore_attention(model(), inputs_embeds=torch.zeros(4, 7)), "inputs_embeds have shape"),
        (lambda: explore(model(), layer=2), "layer=2 is out of range"),
        (lambda: explore(model().to("meta")), "meta"),
        (lambda: explore(mixed()), "meta"),
    ],
)
def test_what_does_not_fit_is_said_inside_and_another_text_or_setting_works(make, words):
    widget = make()
    assert re.search(words, widget.problem) and widget.problem.endswith(".")
    assert widget.problem in repr(widget)
    data, _ = widget._repr_mimebundle_()
    assert "image/png" not in data and widget.problem in data["text/plain"]
    with pytest.raises(ValueError, match=re.escape(widget.problem)):
        _ = widget.view
    answers = widget.answers
    widget.head = 1
    assert widget.answers == answers + 1 and (widget.problem or widget.blocks)


def test_it_stays_usable():
    widget = explore_attention(model(), torch.zeros(2, 3, 4), tokens=None)
    widget.read(IDS, tokens=WORDS)
    assert widget.problem == "" and widget.blocks == 8 and widget.texts == WORDS
    shown = widget.left
    widget.read(IDS[:9])  # the words stay, and are too many now
    assert "16 tokens for a text of 9" in widget.problem and widget.left == shown and widget.texts == WORDS
    widget.head = 2
    assert widget.problem == "" and widget.left["title"] == "layer 0, head 2"
    widget.read(IDS[:9], tokens=WORDS[:9])
    assert widget.problem == "" and widget.blocks == 5 and widget.left["title"] == "layer 0, head 2"


def test_a_broken_model_leaves_the_other():
    widget = explore(mixed(), model())
    assert "meta" in widget.problem
    widget.model = "b"
    assert widget.problem == "" and widget.left["title"] == "b, layer 0, head 0"
    good = explore(model(), mixed())
    assert "meta" in good.problem and good.left["title"].startswith("a, layer 0") and good.right == {}


def test_what_is_too_much_is_refused_and_the_old_picture_stays(monkeypatch):
    widget = explore(model(), head=0, beside=NOTHING)
    monkeypatch.setattr("bigbird_mini.viz.attention_maps.MOST_FULL", 700)
    widget.beside = FULL
    assert "full attention has 768 weights in a layer" in widget.problem.lower() and widget.beside == NOTHING
    widget.head = 1
    assert widget.problem == "" and widget.left["title"].endswith("head 1")


def test_what_is_no_model_is_refused_at_once():
    with pytest.raises(TypeError, match="a BigBird model is needed here"):
        explore_attention(3, IDS)
    with pytest.raises(ValueError, match="there is no model"):
        explore_attention({}, IDS)
    with pytest.raises(ValueError, match=r"locked=\[1\] must be"):
        draw_attention(model(), IDS, locked=[1])


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("tensors on cuda:0 and cpu"), "RuntimeError: tensors on cuda:0 and cpu."),
        (KeyboardInterrupt(), "Interr"),
    ],
)
def test_a_failure_inside_is_shown_and_the_next_change_works(error, words, monkeypatch):
    widget = explore(model(), head=0)

    def fails(*_):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(widget, "_update", fails)
        widget.layer = 1
        assert widget.problem.startswith(words)
    widget.head = 1
    assert widget.problem == "" and widget.left["title"] == "layer 1, head 1"


# -------------------------------------------------------------------- still picture and words


def test_the_still_picture_shows_maps_tokens_and_kinds():
    net = model()
    fig = draw_attention(net, IDS, tokens=WORDS, head=2, cell=(5, 7))
    axes = [ax for ax in fig.axes if ax.get_label() != "<colorbar>"]
    assert [ax.get_title() for ax in axes[:2]] == ["layer 0, head 2", FULL]
    widget = explore(net, head=2, cell=(5, 7))
    for ax, side in zip(axes[:2], (widget.left, widget.right), strict=True):
        table = np.full(64, np.nan)
        sent = pairs(side)
        table[list(sent)] = list(sent.values())
        assert np.allclose(
            np.ma.filled(ax.images[0].get_array(), np.nan), table.reshape(8, 8), equal_nan=True, atol=1e-6
        )
    tile = axes[3]
    assert np.allclose(tile.images[0].get_array().flatten(), np.frombuffer(widget.tiles[0], np.float32))
    assert [t.get_text() for t in tile.get_yticklabels()] == WORDS[10:12]
    assert [t.get_text() for t in tile.get_xticklabels()] == WORDS[14:16]
    widths = [patch.get_width() for patch in axes[2].patches]
    assert np.allclose(widths, [part for _, share in widget.shares for part in share])
    assert encode(fig)[1].startswith(b"\x89PNG")


def test_letters_that_the_font_lacks_become_boxes_without_a_warning(recwarn):
    texts = ["\x13", "長い", "a b", "\x85", *WORDS[4:]]
    fig = draw_attention(model(), IDS, tokens=texts, head=0, cell=(0, 0), spot=(0, 0))
    encode(fig)
    assert [str(w.message) for w in recwarn if "Glyph" in str(w.message)] == []
    assert [t.get_text() for t in fig.axes[3].get_yticklabels()] == ["□", "□□"]  # the sign for a control character too
    assert "gives most to: " in describe_attention(model(), IDS, tokens=texts, head=0, cell=(0, 0), spot=(0, 0))


def test_a_map_of_many_blocks_keeps_its_largest_pairs():
    net = model(block_size=1, positions="none", num_attention_heads=1)
    fig = draw_attention(net, torch.arange(600) % 20, head=0, beside=NOTHING)
    table = np.ma.filled(fig.axes[0].images[0].get_array(), np.nan)
    assert table.shape == (200, 200)
    widget = explore_attention(net, torch.arange(600) % 20, head=0, beside=NOTHING)
    wanted = np.full((200, 200), np.nan)
    for cell, share in pairs(widget.left).items():
        i, j = cell // 600 // 3, cell % 600 // 3
        wanted[i, j] = np.fmax(wanted[i, j], share)
    assert np.allclose(table, wanted, equal_nan=True)


def test_the_words_alone_answer_questions():
    net = model()
    words = describe_attention(net, IDS, tokens=WORDS, head=1, cell=(3, 2))
    dense = net.eval().attention_maps(IDS[None])[0].dense()[0, 1]
    view = explore(net, head=1, cell=(3, 2)).view
    # Which part of its weight does head 1 give to the random blocks, and which would an even spread give?
    share, even = re.search(r"random (\d+)% \(evenly (\d+)%\)", words).groups()
    assert int(share) == round(100 * view.maps.shares[1, 3]) and int(even) == round(100 * view.maps.even[1, 3])
    # To which block does query block 4 give most?
    line = next(line for line in words.splitlines() if line.startswith("Query block 4 (tokens 8-9) gives most"))
    block = dense.view(8, 2, 8, 2).sum(3).mean(1)[4]
    assert int(re.search(r"blocks (\d+) ", line)[1]) == int(block.argmax())
    # To which token does the token that is looked at give most, and how much?
    line = words.splitlines()[-1]
    who = int(re.match(r"Token (\d+) ", line)[1])
    weight, key = re.search(r"gives most to: ([\d.]+) to token (\d+)", line).groups()
    assert int(key) == int(dense[who].argmax()) and float(weight) == pytest.approx(float(dense[who].max()), rel=1e-2)
    # Which query block loses most by the pattern?
    twin = BigBirdForMaskedLM(BigBirdConfig(**{**vars(net.config), "attention_type": "original_full"}))
    twin.load_state_dict(net.state_dict())
    full = twin.eval().attention_maps(IDS[None])[0].dense()[0, 1]
    missed = (full * ~net.encoder.patterns(0, [8], 8).token_mask(2)[1]).sum(-1).view(8, 2).mean(1)
    most, percent = re.search(r"Query block (\d+) \([^)]*\) misses most \((\d+)%\)", words).groups()
    assert int(most) == int(missed.argmax()) and int(percent) == round(100 * float(missed.max()))


def test_a_strand_of_the_genome():
    from bigbird_mini.data import genome_encoder, replichore_split, replichore_windows
    from bigbird_mini.jobs.genome_model import StrandModel

    strand = StrandModel.load(genome_encoder())
    bases, _ = replichore_windows(replichore_split(0).test[:1], 1024)
    with torch.no_grad():
        vectors = strand.tokens(bases)
    letters = "".join("ACGT"[k] for k in bases[0].tolist())
    pieces = [letters[k : k + 8] for k in range(0, 1024, 8)]
    widget = explore_attention(strand, inputs_embeds=vectors, tokens=pieces, layer=1, cell=(0, 2))
    assert widget.problem == "" and widget.room == 32 and widget.texts[32:] == pieces
    weights = strand.encoder.attention_maps(inputs_embeds=vectors, layers=[1])[1].dense()[0, widget.head]
    place = widget.spot[0]
    best = int(weights[place].argmax())
    assert widget.tops[0][:2] == [widget.texts[best], str(best - 32) if best >= 32 else ""]


# -------------------------------------------------------------------- as all instruments


def test_bundle_and_repr():
    widget = explore(model())
    data, _ = widget._repr_mimebundle_()
    assert set(data) >= {"text/plain", "text/html", "image/png", "application/vnd.jupyter.widget-view+json"}
    assert len(re.search(r'alt="([^"]+)"', data["text/html"])[1]) > 100 and data["text/plain"] == repr(widget)
    assert repr(widget) == repr(explore(model())) and repr(widget).startswith("AttentionExplorer: layer 0, head")


def test_one_text_without_imports_or_addresses_and_with_its_own_keys():
    script = str(explore(model())._esm)
    assert not re.search(r"^\s*import\b|https?://|@import", script, re.M)
    assert script.count("export default") == 1 and len(script.encode()) < 40_000
    calls = re.findall(
        r'element\("(?:input|select|button|summary)"[^;]*?\)|element\("canvas", \{ tabindex[^;]*', script
    )
    assert len(calls) >= 5 and all("...OWN_KEYS" in call for call in calls)


def test_the_words_do_not_load_matplotlib():
    code = "import sys; from bigbird_mini.viz import describe_attention; print('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
