"""A byte-pair vocabulary: spelled exactly, the same everywhere, kept in a cache that may be missing or broken."""

import json
import os
import subprocess
import sys

import pytest
import torch

pytest.importorskip("tokenizers")

from bigbird_mini.data import BPETokenizer, ByteTokenizer, Document, bpe, bpe_tokenizer, stdlib_text

DOCUMENTS = [Document(name, text) for name, text in stdlib_text() if name in ("ast.py", "bisect.py", "json/decoder.py")]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("BIGBIRD_MINI_CACHE", str(tmp_path / "kept" / "here"))
    return tmp_path / "kept" / "here"


@pytest.mark.parametrize("text", ["", "a", " a  b", "def f(x):\n\treturn x\r\n", "naïve → ß\n\x00\t🧬", "[MASK] [PAD]"])
def test_text_and_back(text):
    tokens = bpe_tokenizer(400, DOCUMENTS)
    ids = tokens.encode(text)
    assert ids.dtype == torch.int64 and ids.dim() == 1
    assert not len(ids) or (ids.min() >= 4 and ids.max() < tokens.vocab_size)
    assert tokens.decode(ids) == text
    assert tokens.byte_lengths[ids].sum() == len(text.encode())
    special = torch.tensor([tokens.cls_id, *ids.tolist(), tokens.sep_id, tokens.pad_id, tokens.mask_id])
    assert tokens.decode(special) == text


def test_the_interface_is_that_of_bytes():
    tokens, letters = bpe_tokenizer(400, DOCUMENTS), ByteTokenizer()
    for name in ("pad_id", "cls_id", "sep_id", "mask_id"):
        assert getattr(tokens, name) == getattr(letters, name)
    assert tokens.vocab_size == len(tokens.byte_lengths) == 400
    assert tokens.byte_lengths[:4].tolist() == [0] * 4 and tokens.byte_lengths[4:].min() == 1
    text = DOCUMENTS[0].text
    assert len(tokens.encode(text)) < 0.6 * len(letters.encode(text))
    assert tokens.decode(tokens.encode("→")[:1]) == "\N{REPLACEMENT CHARACTER}"


def test_a_larger_vocabulary_spells_shorter_and_a_short_text_yields_fewer_ids():
    text = DOCUMENTS[2].text
    lengths = [len(bpe_tokenizer(size, DOCUMENTS).encode(text)) for size in (260, 300, 600)]
    assert lengths[0] == len(text.encode()) and lengths[0] > lengths[1] > lengths[2]
    assert bpe_tokenizer(5000, [Document("a", "aaab")]).vocab_size < 270


def test_it_is_trained_once_for_each_text_and_size(cache, monkeypatch):
    first = bpe_tokenizer(300, DOCUMENTS)
    assert [path.name.split("-")[1] for path in cache.iterdir()] == ["300"]
    kept = next(cache.iterdir()).read_text("utf-8")
    json.loads(kept)
    again = monkeypatch.setattr(bpe, "_trained", None) or bpe_tokenizer(300, DOCUMENTS)
    text = DOCUMENTS[1].text
    assert torch.equal(again.encode(text), first.encode(text))
    monkeypatch.undo()
    monkeypatch.setenv("BIGBIRD_MINI_CACHE", str(cache))
    bpe_tokenizer(301, DOCUMENTS), bpe_tokenizer(300, DOCUMENTS[:2]), bpe_tokenizer(300, DOCUMENTS[::-1])
    assert len(list(cache.iterdir())) == 4


def test_the_same_on_any_number_of_threads(cache):
    """Another process, other hash seeds and thread settings: the same file, byte for byte."""
    bpe_tokenizer(500, DOCUMENTS)
    here = next(cache.iterdir())
    want = here.read_bytes()
    here.unlink()
    code = (
        "import sys; from bigbird_mini.data import *;"
        "bpe_tokenizer(500, [d for d in stdlib_text() if d.name in ('ast.py', 'bisect.py', 'json/decoder.py')])"
    )
    more = {"PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "4", "TOKENIZERS_PARALLELISM": "true"}
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **more}, check=True)
    assert here.read_bytes() == want
    assert "RAYON_NUM_THREADS" not in os.environ and "TOKENIZERS_PARALLELISM" not in os.environ


def test_a_damaged_or_foreign_file_is_trained_again(cache):
    bpe_tokenizer(300, DOCUMENTS)
    file = next(cache.iterdir())
    want = file.read_bytes()
    for broken in (b"", want[:1000], b"\xff\xfe", b"{}", want.replace(b"[MASK]", b"[MASC]")):
        file.write_bytes(broken)
        assert bpe_tokenizer(300, DOCUMENTS).vocab_size == 300
        assert file.read_bytes() == want
    assert list(cache.iterdir()) == [file]  # no parts are left behind


def test_a_folder_that_cannot_be_written_is_told_and_does_no_harm(tmp_path, monkeypatch):
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("BIGBIRD_MINI_CACHE", str(tmp_path / "a file" / "inside"))
    with pytest.warns(UserWarning, match="the vocabulary is not kept: .*set BIGBIRD_MINI_CACHE to a folder"):
        assert bpe_tokenizer(300, DOCUMENTS).vocab_size == 300


@pytest.mark.parametrize(
    ("platform", "variable", "ends"),
    [
        ("win32", "LOCALAPPDATA", ("AppData", "Local", "bigbird_mini")),
        ("darwin", None, ("Library", "Caches", "bigbird_mini")),
        ("linux", "XDG_CACHE_HOME", (".cache", "bigbird_mini")),
    ],
)
def test_the_cache_folder_of_each_platform(platform, variable, ends, tmp_path, monkeypatch):
    monkeypatch.delenv("BIGBIRD_MINI_CACHE")
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr(bpe.Path, "home", lambda: tmp_path)
    for name in ("LOCALAPPDATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert bpe._cache_folder() == tmp_path.joinpath(*ends)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "own"))
        assert bpe._cache_folder() == tmp_path / "own" / "bigbird_mini"


@pytest.mark.parametrize("size", [259, 0, -1, 300.0, True, "300"])
def test_a_size_that_makes_no_sense(size):
    with pytest.raises(ValueError, match=r"vocab_size=.* must be a whole number, at least 260"):
        bpe_tokenizer(size, DOCUMENTS)


def test_other_bad_input():
    tokens = bpe_tokenizer(300, DOCUMENTS)
    with pytest.raises(ValueError, match="id 300 is outside the vocabulary of 300"):
        tokens.decode(torch.tensor([4, 300]))
    with pytest.raises(ValueError, match="this is no definition of a byte-pair vocabulary"):
        BPETokenizer("{}")


def test_without_the_package_one_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r'needs the package tokenizers: pip install "bigbird-mini\[lab\]"'):
        bpe_tokenizer(300, DOCUMENTS)
