"""Models read from folders and written to them, without transformers; tests/golden/make.py made the tiny ones of
transformers that are read here."""

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import bigbird_mini
from bigbird_mini import (
    BigBirdConfig,
    BigBirdForMaskedLM,
    BigBirdForSequenceClassification,
    BigBirdForTokenClassification,
    BigBirdModel,
    BlockPattern,
)

GOLDEN = Path(__file__).parent / "golden" / "big_bird"
HEADS = ["Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering"]
MODES = {
    "hf_train": {"random_plan": "hf_train"},
    "hf_eval": {"random_plan": "hf_eval"},
    "original_full": {"attention_type": "original_full"},
}
TINY = BigBirdConfig(
    vocab_size=30,
    hidden_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=40,
    max_position_embeddings=100,
    type_vocab_size=3,
    block_size=4,
    num_random_blocks=2,
    num_labels=5,
)


def ids(B, n, seed=0):
    return torch.randint(1, 30, (B, n), generator=torch.Generator().manual_seed(seed))


def made(kind=BigBirdForMaskedLM, seed=0, **changes):
    torch.manual_seed(seed)
    net = kind(dataclasses.replace(TINY, **changes)).eval()
    for parameter in net.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return net


@pytest.fixture
def folder(tmp_path):
    """A model of transformers, as it stands on disk, to be spoilt."""
    return Path(shutil.copytree(GOLDEN / "ForMaskedLM", tmp_path / "bird"))


def edit(folder, remove=(), **changes):
    config = json.loads((folder / "config.json").read_text("utf-8")) | changes
    for name in remove:
        del config[name]
    (folder / "config.json").write_text(json.dumps(config), "utf-8")


def edit_weights(folder, change):
    weights = load_file(folder / "model.safetensors")
    save_file(change(weights) or weights, folder / "model.safetensors")


# ---------------------------------------------------------------- numbers


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_the_numbers_of_transformers(head, mode):
    kept = load_file(GOLDEN / "answers.safetensors")
    net = getattr(bigbird_mini, f"BigBird{head}").from_pretrained(GOLDEN / head, **MODES[mode])
    out = net(**{name: kept[name] for name in ("input_ids", "attention_mask", "token_type_ids")})
    real = kept["attention_mask"].bool()
    names = [key for key in kept if key.startswith(f"{head}.{mode}.")]
    assert len(names) == {"Model": 2, "ForQuestionAnswering": 2}.get(head, 1)
    for key in names:
        got = getattr(out, key.rpartition(".")[2])[..., :46]
        cut = [x[real] if x.shape[:2] == real.shape else x for x in (got, kept[key])]
        assert torch.allclose(*cut, rtol=0, atol=1e-5), key
        for other in set(MODES) - {mode}:  # every mode has its own
            wrong = kept[key.replace(mode, other)]
            wrong = wrong[real] if wrong.shape[:2] == real.shape else wrong
            assert not torch.allclose(cut[0], wrong, rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("plan", "checksum"),
    [
        ("uniform", "29349f68bca87b99"),
        ("google", "f20ac33df3ca28ad"),
        ("hf_train", "323b2ee14b794fa1"),
        ("hf_eval", "faa838833ed2986a"),
    ],
)
def test_the_blocks_of_the_paper_s_sizes_are_drawn_for_ever(plan, checksum):
    assert BigBirdConfig(random_plan=plan).pattern_checksum() == checksum


# ---------------------------------------------------------------- there and back

OURS = [
    {},
    {"norm": "pre", "positions": "rotary", "extra_global_tokens": 5, "pattern_seed": 2**40, "random_plan": "uniform"},
    {"positions": "sinusoidal", "use_bias": False, "global_blocks": (0, 2), "window_blocks": 5},
    {"positions": "none", "hidden_act": "relu", "rescale_embeddings": True, "classifier_dropout": 0.3},
]


@pytest.mark.parametrize("changes", OURS, ids=str)
@pytest.mark.parametrize("head", HEADS)
@torch.no_grad()
def test_what_was_written_is_read_again(head, changes, tmp_path):
    kind, x = getattr(bigbird_mini, f"BigBird{head}"), ids(2, 67)
    net = made(kind, gradient_checkpointing=True, **changes)
    net.save_pretrained(tmp_path / "new" / "folder")
    again = kind.from_pretrained(str(tmp_path / "new" / "folder"))
    assert again.config == dataclasses.replace(net.config, gradient_checkpointing=False) and not again.training
    for name, weight in net.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight)
    assert torch.equal(again(x).last_hidden_state, net(x).last_hidden_state)
    config = json.loads((tmp_path / "new" / "folder" / "config.json").read_text("utf-8"))
    plain = not {"norm", "positions", "extra_global_tokens"} & set(changes)
    assert config["model_type"] == ("big_bird" if plain else "bigbird_mini")
    assert config["architectures"] == [f"BigBird{head}"] and config["pattern_seed"] == net.config.pattern_seed
    assert len(config["id2label"]) == len(config["label2id"]) == 5 and "gradient_checkpointing" not in config


def test_settings_that_only_others_read_are_kept(folder, tmp_path):
    edit(folder, id2label={"0": "no", "1": "yes"}, label2id={"no": 0, "yes": 1}, task_specific={"a": [1]})
    net = BigBirdForMaskedLM.from_pretrained(folder)
    assert net.config.num_labels == 2
    net.save_pretrained(tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text("utf-8"))
    assert config["task_specific"] == {"a": [1]} and config["eos_token_id"] == 2
    assert config["id2label"] == {"0": "no", "1": "yes"} and config["random_plan"] == "google"
    BigBirdForSequenceClassification.from_pretrained(folder, num_labels=3).save_pretrained(tmp_path / "b")
    config = json.loads((tmp_path / "b" / "config.json").read_text("utf-8"))
    assert config["id2label"] == {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"} and len(config["label2id"]) == 3


def test_half_precision_is_written_as_it_is_and_read_as_float32(tmp_path):
    net = made().to(torch.bfloat16)
    net.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text("utf-8"))["dtype"] == "bfloat16"
    assert {x.dtype for x in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}
    again = BigBirdForMaskedLM.from_pretrained(tmp_path)
    assert torch.equal(again.bias, net.bias.float()) and again.bias.dtype == torch.float32


def test_the_model_owns_what_it_read(tmp_path):
    net = made()
    net.save_pretrained(tmp_path)
    again = BigBirdForMaskedLM.from_pretrained(tmp_path)
    again.bias.data += 1
    again.save_pretrained(tmp_path)  # over the file that it came from
    assert torch.equal(BigBirdForMaskedLM.from_pretrained(tmp_path).bias, net.bias + 1)


def test_patterns_and_attention_of_one_s_own_are_given_again(tmp_path, caplog):
    net = made()
    window = BigBirdForMaskedLM(net.config, pattern=BlockPattern.window)
    window.save_pretrained(tmp_path)
    assert "a pattern given to the model is not saved with it" in caplog.text
    seen = []

    def spy(q, k, v, p, key_mask=None):
        seen.append(p)
        return v

    again = BigBirdForMaskedLM.from_pretrained(tmp_path, pattern=BlockPattern.window, attention_fn=spy)
    again(ids(1, 40))
    assert seen == [BlockPattern.window(10)] * 3


# ---------------------------------------------------------------- what the log says


def test_a_folder_without_a_plan_is_google_s_and_says_so_once(folder, caplog):
    net = BigBirdForMaskedLM.from_pretrained(folder)
    assert net.config.random_plan == "google"
    said = [r for r in caplog.records if 'random_plan="google"' in r.getMessage()]
    assert len(said) == 1 and said[0].name == "bigbird_mini" and str(folder) in said[0].getMessage()
    caplog.clear()
    for overrides in ({"random_plan": "uniform"}, {"attention_type": "original_full"}):
        BigBirdForMaskedLM.from_pretrained(folder, **overrides)
    assert "random_plan" not in caplog.text
    net.save_pretrained(folder)
    BigBirdForMaskedLM.from_pretrained(folder)
    assert "random_plan" not in caplog.text


def test_short_texts_are_read_in_full_where_google_s_code_fails():
    config = BigBirdConfig(random_plan="google")
    for n_blocks in (9, 10, 11):
        with pytest.raises(ValueError, match="the released code fails here"):
            BlockPattern.bigbird(n_blocks, heads=12, plan="google", block_size=64)
        assert config.pattern(n_blocks, 0).density() == 1.0
    assert config.pattern(12, 0).density() < 1.0
    with pytest.raises(ValueError, match="the released code fails here"):  # and this one is not short
        dataclasses.replace(config, block_size=256).pattern(16, 0)


def test_a_head_that_is_not_in_the_file_starts_fresh_and_is_named(folder, caplog):
    caplog.set_level(logging.INFO)
    net = BigBirdForTokenClassification.from_pretrained(folder, random_plan="uniform")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    for words in (str(folder), "start fresh, to be trained: classifier.weight, classifier.bias", "not used: "):
        assert words in record.getMessage()
    assert "cls.predictions.bias" in record.getMessage() and "bert.pooler.weight" in record.getMessage()
    assert net.classifier.bias.abs().max() == 0 and net.classifier.weight.std() < 0.05
    caplog.clear()
    BigBirdForMaskedLM.from_pretrained(folder, random_plan="uniform")  # only the pooler is left
    (record,) = caplog.records
    assert record.levelno == logging.INFO and record.getMessage().endswith("bert.pooler.bias, bert.pooler.weight")


@torch.no_grad()
def test_an_override_may_add_parts_or_take_some(folder, caplog):
    whole = BigBirdModel.from_pretrained(folder)
    net = BigBirdModel.from_pretrained(folder, extra_global_tokens=3, norm="pre")
    assert "start fresh, to be trained: embeddings.extra_global.weight, final_norm.weight" in caplog.text
    assert torch.equal(net.layers[1].up.weight, whole.layers[1].up.weight)
    caplog.set_level(logging.INFO)
    first = BigBirdModel.from_pretrained(folder, num_hidden_layers=1, positions="none")
    assert "not used: " in caplog.text and "encoder.layer.1.attention.self.query.weight" in caplog.text
    assert "embeddings.position_embeddings.weight" in caplog.text
    assert len(first.layers) == 1 and first.pooler is not None


# ---------------------------------------------------------------- other people's folders


@torch.no_grad()
def test_old_names_buffers_and_copies_are_understood(folder):
    want = BigBirdForMaskedLM.from_pretrained(folder).state_dict()

    def older(weights):
        found = {name.replace("LayerNorm.weight", "LayerNorm.gamma"): x.clone() for name, x in weights.items()}
        found = {name.replace("LayerNorm.bias", "LayerNorm.beta"): x for name, x in found.items()}
        found["bert.embeddings.position_ids"] = torch.arange(64)[None]
        found["cls.predictions.decoder.weight"] = found["bert.embeddings.word_embeddings.weight"].clone()
        found["cls.predictions.decoder.bias"] = found["cls.predictions.bias"].clone()
        return found

    edit_weights(folder, older)
    got = BigBirdForMaskedLM.from_pretrained(folder).state_dict()
    assert got.keys() == want.keys() and all(torch.equal(got[name], want[name]) for name in want)


@torch.no_grad()
def test_a_bert_folder_may_say_little(folder):
    """Its defaults are BERT's; its pooler lies one deeper; its names have no prefix."""
    config = {"model_type": "bert", "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 3}
    config |= {"intermediate_size": 20, "max_position_embeddings": 64, "vocab_size": 68}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")

    def bert(weights):
        inner = {name.removeprefix("bert."): x for name, x in weights.items() if name.startswith("bert.")}
        return {name.replace("pooler.", "pooler.dense."): x for name, x in inner.items()}

    before = load_file(folder / "model.safetensors")
    edit_weights(folder, bert)
    net = BigBirdModel.from_pretrained(folder)
    assert (net.config.attention_type, net.config.hidden_act) == ("original_full", "gelu")
    assert net.config.random_plan == "uniform"
    assert torch.equal(net.pooler.weight, before["bert.pooler.weight"])
    assert torch.equal(net.layers[1].down.bias, before["bert.encoder.layer.1.output.dense.bias"])
    for field, value in (("vocab_size", 30522), ("max_position_embeddings", 512)):
        edit(folder, [field])
        with pytest.raises(ValueError, match=rf"by its config \(and overrides\) it must be \({value}, 12\)"):
            BigBirdModel.from_pretrained(folder)
        edit(folder, **{field: config[field]})


def test_what_a_config_leaves_empty_is_as_if_it_were_not_there(folder):
    edit(folder, pad_token_id=None, sep_token_id=None, hidden_act=None)
    config = BigBirdForMaskedLM.from_pretrained(folder).config
    assert (config.pad_token_id, config.sep_token_id, config.hidden_act) == (0, 66, "gelu_new")


# ---------------------------------------------------------------- contradictions


def drop(*names):
    return lambda folder: edit_weights(folder, lambda w: {n: x for n, x in w.items() if n not in names})


def whole_numbers(weights):
    weights["bert.encoder.layer.0.output.dense.bias"] = torch.ones(12, dtype=torch.int8)


@pytest.mark.parametrize(
    ("spoil", "overrides", "says"),
    [
        (
            lambda f: edit(f, hidden_size=24),
            {},
            r"bert.embeddings.word_embeddings.weight is \(68, 12\) in .*bird; by its config .* must be \(68, 24\)",
        ),
        (
            lambda f: None,
            {"max_position_embeddings": 128},
            r"position_embeddings.weight is \(64, 12\) .* be \(128, 12\); lengthen\(model, n\) makes a longer table",
        ),
        (lambda f: edit(f, num_hidden_layers=3), {}, r"lacks the weights bert.encoder.layer.2.*query.weight.* 12 more"),
        (lambda f: edit(f, num_hidden_layers=1), {}, "no place for its weights bert.encoder.layer.1.* more"),
        (lambda f: edit(f, use_bias=False), {}, "no place for its weights .*attention.self.*.bias"),
        (
            drop("bert.embeddings.LayerNorm.bias"),
            {},
            "contradicts its config: it lacks .* bert.embeddings.LayerNorm.bias",
        ),
        (
            lambda f: edit_weights(f, whole_numbers),
            {},
            "bert.encoder.layer.0.output.dense.bias is torch.int8 in .*; it must be floating point",
        ),
        (lambda f: edit(f, model_type="roberta"), {}, "has model_type='roberta' in its config; 'big_bird', 'bert'"),
        (lambda f: edit(f, is_decoder=True), {}, "has is_decoder=True in its config; only False can be read"),
        (lambda f: edit(f, tie_word_embeddings=False), {}, "tie_word_embeddings=False .* only True"),
        (lambda f: edit(f, position_embedding_type="relative_key"), {}, "only 'absolute' can be read"),
        (
            lambda f: edit(f, hidden_act="silu"),
            {},
            "config.json of .*bird cannot be read: hidden_act='silu' is not known",
        ),
        (
            lambda f: edit(f, hidden_size="12"),
            {},
            "config.json of .*bird cannot be read: hidden_size='12' must be a whole",
        ),
        (lambda f: None, {"window": 5}, "BigBirdConfig has no window; it has .*window_blocks"),
        (lambda f: None, {"window_blocks": 5}, "plan='google' has window=3"),
        (lambda f: None, {"num_attention_heads": 5}, "hidden_size=12 is not a multiple of num_attention_heads=5"),
        (lambda f: (f / "config.json").write_text("{"), {}, "config.json is damaged, it is no JSON"),
    ],
)
def test_a_contradiction_is_named(folder, spoil, overrides, says):
    spoil(folder)
    with pytest.raises(ValueError, match=says):
        BigBirdForMaskedLM.from_pretrained(folder, **overrides)


def test_other_blocks_than_were_saved_are_noticed(tmp_path, monkeypatch):
    made().save_pretrained(tmp_path)
    kept = json.loads((tmp_path / "config.json").read_text("utf-8"))["pattern_checksum"]
    assert len(kept) == 16
    for field, value in (
        ("pattern_seed", 1),
        ("num_random_blocks", 1),
        ("random_plan", "google"),
        ("window_blocks", 5),
    ):
        edit(tmp_path, **{field: value})
        with pytest.raises(ValueError, match=f"not those it was saved with .* saved {kept}.* delete pattern_checksum"):
            BigBirdForMaskedLM.from_pretrained(tmp_path)
        edit(tmp_path, **{field: getattr(TINY, field)})
    again = BigBirdForMaskedLM.from_pretrained(tmp_path, pattern_seed=1)  # on purpose
    assert again.config.pattern_checksum() != kept
    edit(tmp_path, ["pattern_checksum"], pattern_seed=1)
    assert BigBirdForMaskedLM.from_pretrained(tmp_path).config.pattern_seed == 1
    monkeypatch.setattr(BigBirdConfig, "_drawn", lambda self, n_blocks, layer: BlockPattern.window(n_blocks))
    edit(tmp_path, pattern_checksum=kept, pattern_seed=0)
    with pytest.raises(ValueError, match="or this version draws others"):
        BigBirdForMaskedLM.from_pretrained(tmp_path)


def test_places_that_cannot_be_read_or_written(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        BigBirdModel.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"'gogle/big bird' .* a name on the hub has the form owner/name"):
        BigBirdModel.from_pretrained("gogle/big bird")
    (tmp_path / "file").write_text("mine", "utf-8")
    with pytest.raises(OSError, match="could not be written"):
        made().save_pretrained(tmp_path / "file")
    assert (tmp_path / "file").read_text("utf-8") == "mine"
