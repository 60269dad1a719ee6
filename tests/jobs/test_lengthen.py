"""The lengthening job, on a small encoder in the place of the real one: offline and quick."""

import argparse
import json
import sys

import pytest
import torch
import torch.nn.functional as F

from bigbird_mini import BigBirdConfig, BigBirdModel
from bigbird_mini.jobs import lengthen as job
from bigbird_mini.jobs.__main__ import main as jobs
from bigbird_mini.model import lengthen

tokenizers = pytest.importorskip("tokenizers", reason="needs the extra lab or hf")

LENGTH = 1000  # sixteen blocks, so that three random ones are not all that is left


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small BERT with a vocabulary of letters, as data.minilm() would give it."""
    home = tmp_path_factory.mktemp("encoder")
    letters = [chr(x) for x in range(33, 127)]
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters])}
    made = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.enable_truncation(64), made.enable_padding(length=64)
    made.save(str(home / "tokenizer.json"))
    torch.manual_seed(0)
    config = BigBirdConfig(
        len(vocabulary), 12, 2, 2, 20, max_position_embeddings=64, attention_type="original_full", initializer_range=1.0
    )
    BigBirdModel(config).save_pretrained(home)
    return home


@pytest.fixture
def encoder(folder, monkeypatch):
    monkeypatch.setattr(job, "minilm", lambda: folder)
    return BigBirdModel.from_pretrained(folder)


def arguments(**changes):
    parser = argparse.ArgumentParser()
    job.add_arguments(parser)
    return argparse.Namespace(**(vars(parser.parse_args([])) | changes))


def test_one_command_measures_and_prints_a_table(encoder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(job, "memory", lambda pattern, length, threads: None if pattern == "W" else 12.3)
    words = ["lengthen", "--length", str(LENGTH), "--documents", "3", "--how", "interpolated", "tiled", "--seed", "5"]
    before = torch.get_num_threads()
    try:
        assert jobs([*words, "--out", str(tmp_path / "new")]) == 0
    finally:
        torch.set_num_threads(before)
    lines = [json.loads(line) for line in (tmp_path / "new" / "results.jsonl").read_text("utf-8").splitlines()]
    found = [line for line in lines if "how" in line]
    assert len(found) == 2 * 5 * 3 and lines[-5:] == [
        {"pattern": pattern, "memory_mb": None if pattern == "W" else 12.3} for pattern in job.PATTERNS
    ]
    texts = job.documents(LENGTH, 3)
    for how in ("interpolated", "tiled"):
        full = {
            name: mean_vector(lengthen(encoder, LENGTH, how, attention_type="original_full"), texts[name])
            for name in texts
        }
        for pattern, changes in {"W+G+R": {}, "W": {"global_blocks": (), "num_random_blocks": 0}}.items():
            sparse = lengthen(encoder, LENGTH, how, pattern_seed=5, **changes)
            for name, ids in texts.items():
                [record] = [x for x in found if (x["how"], x["pattern"], x["document"]) == (how, pattern, name)]
                vector = mean_vector(sparse, ids)
                assert record["full"] == pytest.approx(float(vector @ full[name]), abs=1e-5)
                pieces = float(vector @ job.in_pieces(encoder, ids))
                assert record["pieces"] == pytest.approx(pieces, abs=1e-5) and record["pieces"] != record["full"]
                assert record["full"] < 0.9995  # or a wrong pattern would not be seen
                others = [float(vector @ full[other]) for other in texts if other != name]
                assert record["others"] == pytest.approx(sum(others) / 2, abs=1e-5)
                assert record["nearest_is_own"] == (record["full"] > max(others)) and record["tokens"] == LENGTH
    assert all(x["full"] == pytest.approx(1, abs=1e-5) for x in found if x["pattern"] == "full")
    out = capsys.readouterr().out
    assert out.count("| tiled |") == 5 and out.count("| interpolated |") == 5
    own = [x for x in found if (x["how"], x["pattern"]) == ("tiled", "W+G+R")]
    full, pieces = ([x[name] for x in own] for name in ("full", "pieces"))
    nearest = sum(x["nearest_is_own"] for x in own)
    row = f"| tiled | W+G+R | {sum(full) / 3:.4f} ({min(full):.4f}) | {nearest} of 3 | {sum(pieces) / 3:.4f} | "
    assert row in out and out.count(" | 12 |\n") == 8 and out.count(" | - |\n") == 2
    assert "Cosine of two different documents, full attention: interpolated 0." in out


@torch.no_grad()
def mean_vector(model, ids):
    return F.normalize(model(ids).last_hidden_state.mean((0, 1)), dim=0)


def test_each_pattern_is_what_its_name_says():
    kinds = {}
    for pattern, changes in job.PATTERNS.items():
        p = BigBirdConfig(**job.SPARSE | changes).pattern(40, 0)
        kinds[pattern] = set(p.kinds().unique().tolist()) - {0}
    assert kinds == {"full": {4}, "W": {1}, "W+G": {1, 2}, "W+R": {1, 3}, "W+G+R": {1, 2, 3}}


def test_fresh_positions_are_the_same_for_all_patterns_and_follow_from_the_seed(encoder, monkeypatch):
    texts = {name: ids[:, :100] for name, ids in job.documents(200, 2).items()}
    monkeypatch.setitem(job.PATTERNS, "W", {"window_blocks": 3, "num_random_blocks": 0})  # of two blocks: everything
    first, again, other = (list(job.measured(texts, ["fresh"], seed)) for seed in (1, 1, 2))
    numbers = [[record["pieces"] for record in records] for records in (first, again, other)]
    assert numbers[0] == numbers[1] and numbers[0] != numbers[2]
    assert all(record["full"] == pytest.approx(1, abs=1e-5) for record in first)


def test_documents_are_the_docstrings_of_modules(encoder):
    source = '"One."\ndef f():\n    """Two."""\nclass A:\n    "Three."\n    def g(self):\n        "Four."\n    x = 1\n'
    assert job.docstrings(source) == "One.\n\nTwo.\n\nThree.\n\nFour."
    assert job.docstrings("x = 1") == "" == job.docstrings("print 'old'")
    texts = job.documents(300, 4)
    assert list(texts) == sorted(texts) and len(texts) == 4
    for ids in texts.values():
        assert ids.shape == (1, 300) and ids[0, 0] == 2 and ids[0, -1] == 3 and not (ids[0, 1:-1] == 3).any()


def test_the_original_reads_a_document_in_pieces(encoder):
    """Of 64 with [CLS] and [SEP], the last one shorter; all tokens weigh the same."""
    ids = torch.cat([torch.tensor([[2]]), torch.randint(4, 90, (1, 150)), torch.tensor([[3]])], 1)
    inside, vectors = ids[0, 1:-1], []
    for piece in (inside[:62], inside[62:124], inside[124:]):
        whole = torch.cat([ids[0, :1], piece, ids[0, -1:]])[None]
        vectors.append(encoder(whole).last_hidden_state[0])
    want = F.normalize(torch.cat(vectors).mean(0), dim=0)
    assert torch.allclose(job.in_pieces(encoder, ids), want, atol=1e-6)


def test_memory_grows_with_the_length():
    pytest.importorskip("psutil", reason="needs the extra lab")
    sizes = {"vocab_size": 9, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BigBirdConfig(**sizes, intermediate_size=2048, max_position_embeddings=20_000)
    before = torch.get_num_threads()
    try:
        assert job._extra_megabytes(config, 20_000, 1) > 20_000 * 2048 * 4 / 1e6  # one tensor of the feed-forward
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"documents": 1}, "documents=1 must be at least 2"),
        ({"threads": 0}, "threads=0 at least 1"),
        ({"length": 63}, "n=63 must be a whole number, at least the 64 tokens"),
        ({"length": 10**7}, "only 0 modules of this Python have docstrings of 10000000 tokens, not 6"),
    ],
)
def test_bad_input_gets_one_sentence(encoder, tmp_path, changes, says):
    with pytest.raises(ValueError, match=says):
        job.main(arguments(out=tmp_path, **changes))


def test_without_the_tokenizer_s_package_it_says_what_to_install(encoder, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(OSError, match=r"needs the package tokenizers: pip install \"bigbird-mini\[lab\]\""):
        job.main(arguments(out=tmp_path))
