"""Checkpoints: names both ways, whole and sharded folders, and the hub."""

import json
import sys
import types

import pytest
import safetensors.torch
import torch
from checkpoints import CONFIG, inside, same, weights
from safetensors.torch import save_file

from bigbird_mini import BigBirdConfig, BigBirdForMaskedLM, BigBirdModel
from bigbird_mini.checkpoint import from_hugging_face, read, to_hugging_face, write

SMALL = BigBirdConfig(11, 8, 12, 2, 6, max_position_embeddings=7, block_size=4)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "model", CONFIG, weights())
    return tmp_path / "model"


# ---------------------------------------------------------------- names

EXPECTED = """
    embeddings.word.weight            embeddings.word_embeddings.weight
    embeddings.position.weight        embeddings.position_embeddings.weight
    embeddings.token_type.weight      embeddings.token_type_embeddings.weight
    embeddings.norm.weight            embeddings.LayerNorm.weight
    layers.0.query.bias               encoder.layer.0.attention.self.query.bias
    layers.3.key.weight               encoder.layer.3.attention.self.key.weight
    layers.10.value.weight            encoder.layer.10.attention.self.value.weight
    layers.2.out.weight               encoder.layer.2.attention.output.dense.weight
    layers.1.attention_norm.bias      encoder.layer.1.attention.output.LayerNorm.bias
    layers.11.up.weight               encoder.layer.11.intermediate.dense.weight
    layers.4.down.bias                encoder.layer.4.output.dense.bias
    layers.5.output_norm.weight       encoder.layer.5.output.LayerNorm.weight
"""
ENCODER = [line.split() for line in EXPECTED.split("\n") if line.strip()]
HEADS = [
    ("transform.weight", "cls.predictions.transform.dense.weight"),
    ("norm.bias", "cls.predictions.transform.LayerNorm.bias"),
    ("bias", "cls.predictions.bias"),
    ("classifier.weight", "classifier.weight"),
    ("encoder.final_norm.weight", "bert.final_norm.weight"),  # theirs has none: only the prefix changes
    ("final_norm.weight", "final_norm.weight"),
    ("encoder.pooler.weight", "bert.pooler.weight"),
]


@pytest.mark.parametrize(
    ("ours", "theirs"), [*ENCODER, *[("encoder." + a, "bert." + b) for a, b in ENCODER], *HEADS], ids=str
)
def test_a_name_is_translated_both_ways(ours, theirs):
    assert to_hugging_face(ours) == theirs and from_hugging_face(theirs) == ours


@pytest.mark.parametrize("kind", [BigBirdModel, BigBirdForMaskedLM])
def test_every_parameter_has_a_name_of_its_own_there_and_comes_back(kind):
    ours = list(kind(SMALL).state_dict())
    theirs = [to_hugging_face(name) for name in ours]
    assert len(set(theirs)) == len(ours) and [from_hugging_face(name) for name in theirs] == ours
    start = ("bert.", "cls.") if kind is BigBirdForMaskedLM else ("embeddings.", "encoder.layer.")
    assert all(name.startswith(start) for name in theirs)


# ---------------------------------------------------------------- there and back


def test_what_is_written_is_read(folder):
    config, found = read(folder)
    assert config == CONFIG and same(found, weights()) and inside(folder) == ["config.json", "model.safetensors"]
    assert "ß" in json.loads((folder / "config.json").read_text("utf-8"))["name"]
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}  # transformers refuses a file that does not say so


@pytest.mark.parametrize("given", [str, lambda f: f / "config.json", lambda f: f / "model.safetensors"])
def test_a_folder_may_be_named_by_its_files(folder, given):
    config, found = read(given(folder))
    assert config == CONFIG and same(found, weights())


def test_a_file_of_weights_with_a_name_of_its_own(folder):
    save_file(weights(1), folder / "other.safetensors")
    assert same(read(folder / "other.safetensors")[1], weights(1)) and same(read(folder)[1], weights(0))


def test_tensors_of_every_kind_come_back(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    given = {
        "half": base.to(torch.bfloat16),
        "wide": base.double() / 3,
        "yes": base > 5,
        "count": torch.tensor(7),
        "turned": base.T,
        "every_other": base[:, ::2],
        "whole": base,
        "tied": base,
        "part": base[1:3],
        "parameter": torch.nn.Parameter(base[0]),
        "empty": torch.zeros(0, 3),
        "none": torch.zeros(0),
    }
    write(tmp_path, CONFIG, given)
    _, found = read(tmp_path)
    assert same(found, {name: x.detach().contiguous() for name, x in given.items()})


def test_writing_again_replaces_both_and_the_folder_may_be_new(folder):
    before = read(folder)[1]
    write(folder, {"new": 1}, weights(1))
    config, found = read(folder)
    assert config == {"new": 1} and same(found, weights(1)) and len(inside(folder)) == 2
    assert same(before, weights(0))  # what was read from the old file does not change under the reader's feet
    write(folder / "deep" / "er", CONFIG, weights())
    assert same(read(folder / "deep" / "er")[1], weights())


def shard(folder):
    everything = weights()
    (folder / "model.safetensors").unlink()
    places = {"bert.a.weight": "model-00001-of-00002.safetensors", "bert.a.bias": "model-00002-of-00002.safetensors"}
    for name, file in places.items():
        save_file({name: everything[name]}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}), "utf-8")
    return folder


def test_shards_are_put_together(folder):
    shard(folder)
    assert same(read(folder)[1], weights())
    assert same(read(folder / "model.safetensors.index.json")[1], weights())


def test_old_files_are_brought_up_to_date(folder):
    x = torch.randn(3, 2), torch.randn(3), torch.arange(4)
    old = {
        "bert.embeddings.word_embeddings.weight": x[0],
        "bert.embeddings.LayerNorm.gamma": x[1],
        "bert.embeddings.LayerNorm.beta": -x[1],
        "bert.embeddings.position_ids": x[2],
        "embeddings.token_type_ids": x[2].clone(),
        "cls.predictions.decoder.weight": x[0].clone(),
        "cls.predictions.decoder.bias": x[1].clone(),
    }
    save_file(old, folder / "model.safetensors")
    want = {
        "bert.embeddings.word_embeddings.weight": x[0],
        "bert.embeddings.LayerNorm.weight": x[1],
        "bert.embeddings.LayerNorm.bias": -x[1],
        "cls.predictions.bias": x[1],
    }
    assert same(read(folder)[1], want)
    save_file(old | {"cls.predictions.decoder.weight": x[0] + 1}, folder / "model.safetensors")
    assert same(read(folder)[1], want | {"cls.predictions.decoder.weight": x[0] + 1})  # not tied, so not lost


# ---------------------------------------------------------------- what is wrong with a folder


def unlink(name):
    return lambda folder: (folder / name).unlink()


def text(name, content):
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


def cut(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-5])


def index(weight_map):
    return lambda folder: (shard(folder) / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": weight_map}), "utf-8"
    )


@pytest.mark.parametrize(
    ("harm", "error", "says"),
    [
        (unlink("config.json"), FileNotFoundError, "model has no config.json; a checkpoint is a folder with one"),
        (text("config.json", "{"), ValueError, r"config.json is damaged, it is no JSON: Expecting property name"),
        (
            lambda f: (f / "config.json").write_bytes(b"\xff"),
            ValueError,
            r"config.json is damaged, it is no JSON: .*utf-8",
        ),
        (text("config.json", "[1]"), ValueError, "config.json is damaged: it holds a list, not an object"),
        (
            unlink("model.safetensors"),
            FileNotFoundError,
            r"model has no model.safetensors. Only safetensors are read, never pickles \(pytorch_model.bin\)",
        ),
        (cut("model.safetensors"), ValueError, r"model.safetensors is damaged, or no safetensors file \(.+\); copy or"),
        (text("model.safetensors", ""), ValueError, "model.safetensors is damaged"),
        (text("model.safetensors", "version https://"), ValueError, "model.safetensors is damaged"),
        (
            lambda f: (shard(f) / "model-00002-of-00002.safetensors").unlink(),
            FileNotFoundError,
            "has no model-00002-of-00002.safetensors, which its index names",
        ),
        (lambda f: cut("model-00001-of-00002.safetensors")(shard(f)), ValueError, "model-00001-of-00002.* is damaged"),
        (index(None), ValueError, "index.json is damaged: its weight_map must name a file for each tensor"),
        (index({"a": 3}), ValueError, "index.json is damaged: its weight_map"),
        (index({"a": "../config.json"}), ValueError, r"names '../config.json', which is not a file of its own folder"),
        (index({"b": "model-00001-of-00002.safetensors"}), ValueError, "names tensors that its files lack: b"),
    ],
)
def test_a_damaged_folder_is_refused_by_name(folder, harm, error, says):
    harm(folder)
    with pytest.raises(error, match=says):
        read(folder)


def test_a_pickle_is_never_opened(folder):
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"Only safetensors are read, never pickles"):
        read(folder)
    with pytest.raises(ValueError, match=r"pytorch_model.bin is no checkpoint: give its folder, or .*never a pickle"):
        read(folder / "pytorch_model.bin")


@pytest.mark.parametrize("name", ["nowhere", "a/b/c", "/x/y", "../here", "", "~nobody/at/home"])
def test_a_missing_folder_is_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    if not name:  # the empty path is the current folder
        with pytest.raises(FileNotFoundError, match=r"has no config.json"):
            read(name)
        return
    with pytest.raises(FileNotFoundError, match=f"there is no folder '{name}'.*the form owner/name"):
        read(name)


# ---------------------------------------------------------------- the hub


def hub(monkeypatch, answer):
    """A huggingface_hub that answers with a folder or an error, and remembers what it was asked."""
    asked = []
    errors = types.ModuleType("huggingface_hub.errors")
    errors.RepositoryNotFoundError = type("RepositoryNotFoundError", (OSError,), {})
    errors.GatedRepoError = type("GatedRepoError", (errors.RepositoryNotFoundError,), {})

    def snapshot_download(name, allow_patterns):
        asked.append((name, allow_patterns))
        if isinstance(answer, str):
            raise getattr(errors, answer)("404 Client Error.\n\nMany lines")
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    module = types.ModuleType("huggingface_hub")
    module.snapshot_download, module.errors = snapshot_download, errors
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return asked


def test_a_name_is_looked_for_on_the_hub(folder, monkeypatch):
    asked = hub(monkeypatch, folder)
    assert same(read("owner/Some_name-1.0")[1], weights())
    [(name, patterns)] = asked
    assert name == "owner/Some_name-1.0"
    assert patterns[:3] == ["config.json", "model.safetensors", "model.safetensors.index.json"]
    assert not [p for p in patterns if "bin" in p or p.startswith("*")]


def test_a_folder_of_that_name_comes_first(folder, monkeypatch):
    asked = hub(monkeypatch, folder)
    monkeypatch.chdir(folder.parent.parent)
    assert same(read(f"{folder.parent.name}/model")[1], weights()) and not asked


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        ("RepositoryNotFoundError", FileNotFoundError, "the hub shows no model of this name; check the spelling"),
        ("GatedRepoError", OSError, "'some/model' on the hub asks for consent first"),
        (
            ConnectionError("no route\nto host"),
            OSError,
            r"could not be had from the hub \(no route\); go online, or copy",
        ),
        (ValueError(""), OSError, r"from the hub \(ValueError\)"),
    ],
)
def test_the_hub_s_refusals_are_one_sentence(tmp_path, monkeypatch, answer, error, says):
    hub(monkeypatch, answer)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=says) as caught:
        read("some/model")
    assert "\n" not in str(caught.value) and caught.value.__cause__ is not None
    if answer != "GatedRepoError":
        assert str(caught.value).startswith("there is no folder 'some/model' here")


def test_without_the_extra_a_hub_name_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        ImportError, match=r"there is no folder 'some/model' here .* pip install \"bigbird-mini\[hf\]\""
    ):
        read("some/model")
