"""The genome, the standard library's text, and the tokens of both."""

import hashlib
import sys

import pytest
import torch

from bigbird_mini.data import GENOME_LETTERS, ByteTokenizer, DNATokenizer, genome, stdlib, stdlib_text

genome_module = sys.modules["bigbird_mini.data.genome"]


def test_the_genome_is_the_public_record():
    text = genome()
    assert len(text) == GENOME_LETTERS == 4_646_332
    assert text.startswith("AGCTTTTCATTCTGACTGCA") and text.endswith("TAAGTATTTTTC")
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "1dd7c87af0a250510a4280edf0c22bbfdc1bb231b9e3dee14a8e84689d92f261"
    )
    counts = {letter: text.count(letter) for letter in "ACGT"}
    assert counts == {"A": 1_142_182, "C": 1_179_079, "G": 1_181_238, "T": 1_143_833}


def test_a_damaged_genome_is_refused(tmp_path, monkeypatch):
    broken = tmp_path / "ecoli.2bit"
    broken.write_bytes(b"\x00" * 100)
    monkeypatch.setattr(genome_module, "_FILE", broken)
    with pytest.raises(RuntimeError, match=r"ecoli.2bit is damaged .*; install bigbird-mini again"):
        genome.__wrapped__()


def test_the_standard_library_is_there_as_text():
    documents = stdlib_text()
    names = [document.name for document in documents]
    assert names == sorted(names) and {"argparse.py", "json/decoder.py"} <= set(names)
    assert not [name for name in names if {"test", "tests", "site-packages"} & set(name.split("/"))]
    assert len(dict(documents)["argparse.py"]) > 50_000


def test_unreadable_files_are_skipped_and_an_empty_python_is_told(tmp_path):
    (tmp_path / "b.py").write_text("x = 'ß'\n", encoding="utf-8")
    (tmp_path / "latin.py").write_bytes(b"# -*- coding: latin-1 -*-\nx = '\xdf'\n")
    (tmp_path / "broken.py").write_bytes(b"x = '\xff\xfe'\n")
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "left_out.py").write_text("")
    found = stdlib._documents(tmp_path)
    assert [name for name, _ in found] == ["b.py", "latin.py"] and all("ß" in text for _, text in found)
    with pytest.raises(RuntimeError, match="keeps no sources of its standard library"):
        stdlib._documents(tmp_path / "nothing")


@pytest.mark.parametrize("text", ["", "a", "plain", "naïve → ß\n\x00\t🧬"])
def test_bytes_and_back(text):
    tokens = ByteTokenizer()
    ids = tokens.encode(text)
    assert ids.dtype == torch.int64 and ids.shape == (len(text.encode()),)
    assert not len(ids) or (ids.min() >= 4 and ids.max() < tokens.vocab_size)
    assert tokens.decode(ids) == text
    special = torch.tensor([tokens.cls_id, *ids.tolist(), tokens.sep_id, tokens.pad_id, tokens.mask_id])
    assert tokens.decode(special) == text


def test_broken_letters_are_replaced():
    tokens = ByteTokenizer()
    assert tokens.decode(tokens.encode("aß")[:2]) == "a\N{REPLACEMENT CHARACTER}"


def test_dna_and_back():
    tokens = DNATokenizer()
    ids = tokens.encode("ACGTNacgtn")
    assert ids.tolist() == [4, 5, 6, 7, 8] * 2 and tokens.vocab_size == 9
    assert tokens.decode(ids) == "ACGTN" * 2
    assert tokens.decode(torch.tensor([1, 4, 7, 2, 0])) == "AT"
    piece = genome()[1000:2000]
    assert tokens.decode(tokens.encode(piece)) == piece


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: DNATokenizer().encode("ACXT"), "letter 'X' at position 2 is not DNA; allowed are A, C, G, T, N"),
        (lambda: DNATokenizer().encode("A→"), "letter '→' at position 1"),
        (lambda: DNATokenizer().decode(torch.tensor([4, 9])), "id 9 is outside the vocabulary of 9"),
        (lambda: ByteTokenizer().decode(torch.tensor([-1])), "id -1 is outside the vocabulary of 260"),
    ],
)
def test_bad_input_gets_one_sentence(call, says):
    with pytest.raises(ValueError, match=says):
        call()
