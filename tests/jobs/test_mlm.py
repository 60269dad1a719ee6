"""The masked-language-model job: its text, what is hidden, and its scores, against slow and plain versions.

Most of it with the small library and the short stretches of small_jobs.py: 256 tokens, contexts of 64, 128 and 256.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import small_jobs
import torch

from bigbird_mini.data import Document, stdlib_text
from bigbird_mini.jobs import cells, mlm, mlm_table
from bigbird_mini.jobs.mlm import Questions, Run

pytest.importorskip("tokenizers", reason="needs the extra lab or hf")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def small(monkeypatch, cache):
    monkeypatch.setenv("BIGBIRD_MINI_CACHE", str(cache))
    small_jobs.shrink(monkeypatch.setattr)
    kept = mlm.split
    yield
    kept.cache_clear()


def model(run, seed=0):
    """No weight at its start, biases and norms included."""
    torch.manual_seed(seed)
    made = mlm.fresh_model(run).eval()
    for parameter in made.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return made


def questions(rows=2, seed=0, vocabulary=small_jobs.VOCABULARY):
    rng = np.random.default_rng(seed)
    return mlm.asked(torch.from_numpy(rng.integers(4, vocabulary, (rows, 256))), seed)


# ---------------------------------------------------------------- text


def test_files_of_training_validation_and_test_are_apart_and_so_is_the_vocabulary(monkeypatch):
    vocabulary, library, known, own = cells.vocabulary, small_jobs.library(), [], {}
    monkeypatch.setattr(cells, "vocabulary", lambda size, some: known.append([*some]) or vocabulary(size, some))
    for seed in (0, 1):
        text = mlm.split(seed)
        encoded = {document.name: text.tokenizer.encode(document.text) for document in library}
        train = {name for name, ids in encoded.items() if any(torch.equal(ids, one) for one in text.train)}
        assert train == {document.name for document in known[seed]} and len(train) == len(text.train) == 16
        assert text.tokenizer.vocab_size == small_jobs.VOCABULARY
        found = [train]
        for rows in (text.validation, text.test):
            assert rows.shape == (6, 256) and rows.dtype == torch.int64
            names = [
                next(name for name, ids in encoded.items() if any(torch.equal(row, part) for part in ids.split(256)))
                for row in rows
            ]
            assert max(map(names.count, names)) <= 4 and len({tuple(row.tolist()) for row in rows}) == 6
            found.append(set(names))
        assert not (found[0] & found[1] or found[0] & found[2] or found[1] & found[2])
        own[seed] = found
    assert own[0][0] != own[1][0] and own[0][2] != own[1][2]
    assert mlm.split(1) is text and torch.equal(mlm.split(0).test, mlm.split(0).test)


def test_short_files_and_tables_of_letters_are_left_out_and_long_ones_do_not_fill_the_test(monkeypatch):
    short = tuple(Document(f"s{i}.py", document.text[:1000]) for i, document in enumerate(small_jobs.library(40)))
    tables = tuple(Document(f"encodings/{one.name}", one.text) for one in small_jobs.library(40))
    monkeypatch.setattr(mlm, "stdlib_text", lambda: (*tables, *small_jobs.library(), *short))
    assert len(mlm.split(0).train) == 16
    long = [Document(one.name, one.text * 3) for one in small_jobs.library(8)]
    monkeypatch.setattr(mlm, "stdlib_text", lambda: tuple(long))
    monkeypatch.setattr(mlm, "TESTED", 1000)
    mlm.split.cache_clear()
    text = mlm.split(0)
    assert text.test.shape == (8, 256) and text.validation.shape == (4, 256)  # of two files and of one


def test_the_real_library_has_enough_for_the_tables(monkeypatch):
    """Tokens are counted by letters, of which one has three or four, so that it is quick."""
    monkeypatch.undo()
    letters = SimpleNamespace(encode=lambda text: torch.arange(len(text) * 7 // 24))
    monkeypatch.setattr(cells, "vocabulary", lambda size, documents: letters)
    mlm.split.cache_clear()
    for seed in mlm_table.SEEDS:
        text = mlm.split(seed)
        assert text.validation.shape == text.test.shape == (mlm.TESTED, mlm.STRETCH) and len(text.train) > 50
    assert sum(document.name.startswith("encodings/") for document in stdlib_text()) > 50  # are still called so


# ---------------------------------------------------------------- what is hidden


def test_what_is_read_and_what_is_asked_by_hand(monkeypatch):
    ids = torch.arange(10, 18)
    draws = iter([[0.0, 0.2, 0.149, 0.1, 0.05, 0.9, 0.15, 0.14], [0.0, 0.0, 0.799, 0.8, 0.85, 0.85, 0.0, 0.9]])
    bounds = []
    rng = SimpleNamespace(
        random=lambda shape: np.array(next(draws)),
        integers=lambda low, high, shape: bounds.append((low, high)) or np.arange(50, 58),
    )
    read, labels = mlm.masked(ids, rng)
    mask = mlm.BPETokenizer.mask_id
    assert read.tolist() == [mask, 11, mask, 53, 54, 15, 16, 17]
    assert labels.tolist() == [10, -100, 12, 13, 14, -100, -100, 17]
    assert bounds == [(4, small_jobs.VOCABULARY)]  # any token but the special ones


def test_shares_of_what_is_read():
    ids = torch.full((300, 256), 9)
    read, labels = mlm.masked(ids, np.random.default_rng(0))
    asked = labels != -100
    assert (labels[asked] == 9).all() and (read[~asked] == 9).all()
    assert asked.double().mean().item() == pytest.approx(0.15, abs=0.005)
    shares = [(read[asked] == token).double().mean().item() for token in (mlm.BPETokenizer.mask_id, 9)]
    assert shares == pytest.approx([0.8, 0.1], abs=0.015)
    others = read[asked & (read != mlm.BPETokenizer.mask_id) & (read != 9)]
    assert others.min() >= 4 and others.max() < small_jobs.VOCABULARY and len(others.unique()) > 300


def test_batches_follow_from_their_number_and_all_models_of_a_seed_read_the_same():
    batch = mlm.batches(Run(length=256, seed=1))
    first = batch(3)
    assert first["input_ids"].shape == first["labels"].shape == (2, 256)
    for run in (Run(length=256, seed=1), Run("full", 64, 1, steps=3), Run("W", 128, 1)):
        other = mlm.batches(run)(3)
        assert other["input_ids"].shape == other["labels"].shape == (512 // run.length, run.length)
        assert all(torch.equal(other[name].view(2, 256), first[name]) for name in first)
    for other in (batch(4), mlm.batches(Run(length=256, seed=2))(3)):
        assert not torch.equal(other["input_ids"], first["input_ids"])
    assert not torch.equal(first["labels"][0] >= 0, first["labels"][1] >= 0)


def test_batches_are_cut_from_training_files_in_proportion_to_their_length(monkeypatch):
    files = [torch.arange(1000, 1256), torch.arange(2000, 2000 + 3 * 256 + 1)]
    monkeypatch.setattr(mlm, "split", lambda seed: SimpleNamespace(train=files))
    monkeypatch.setattr(mlm, "masked", lambda ids, rng: (ids, ids))
    starts = []
    batch = mlm.batches(Run(length=256))
    for number in range(1500):
        for row in batch(number)["input_ids"]:
            assert (row.diff() == 1).all()
            starts.append(int(row[0]))
    short = [start for start in starts if start < 2000]
    assert set(short) == {1000} and len(short) / 3000 == pytest.approx(256 / 1025, abs=0.03)
    assert set(starts) - {1000} > {2000, 2513} and max(starts) == 2513  # from the first token to the last


# ---------------------------------------------------------------- questions and scores


def test_the_nearest_visible_occurrence_against_a_loop():
    rng, seen = np.random.default_rng(1), set()
    for _ in range(10):
        ids, hidden = torch.from_numpy(rng.integers(0, 12, 60)), torch.from_numpy(rng.random(60) < 0.4)
        ids[rng.integers(60)] = 99  # of which there is one
        want = []
        for i in hidden.nonzero().flatten().tolist():
            gaps = [abs(i - j) for j in range(60) if not hidden[j] and ids[j] == ids[i]]
            want.append(min(gaps, default=0))
        assert mlm.nearest(ids, hidden).tolist() == want
        seen |= set(want)
    assert {0, 1, 20} < seen


def test_questions_are_the_same_for_every_model_of_a_seed():
    ids = torch.from_numpy(np.random.default_rng(5).integers(4, 50, (20, 256)))
    one, again, other = mlm.asked(ids, 0), mlm.asked(ids, 0), mlm.asked(ids, 1)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert torch.equal(one.ids, ids) and not torch.equal(one.hidden, other.hidden)
    assert one.hidden.double().mean().item() == pytest.approx(0.15, abs=0.02)
    by_row = [mlm.nearest(ids[i], one.hidden[i]) for i in range(20)]
    assert torch.equal(one.distances, torch.cat(by_row)) and len(one.distances) == one.hidden.sum()


@pytest.mark.parametrize("length", [64, 128, 256])
def test_losses_against_full_logits(length):
    """Every hidden token is read as the mask, no other token is changed, and pieces are read alone."""
    net, asked = model(Run("full", length)), questions()
    got = mlm.nats(net, asked, length)
    read = asked.ids.clone()
    read[asked.hidden] = mlm.BPETokenizer.mask_id
    want = []
    with torch.no_grad():
        for row, ids, hidden in zip(read, asked.ids, asked.hidden, strict=True):
            for start in range(0, 256, length):
                piece = slice(start, start + length)
                scores = net(row[None, piece]).logits[0].log_softmax(-1)
                want += [-scores[i, ids[piece][i]] for i in hidden[piece].nonzero().flatten().tolist()]
        labels = torch.where(asked.hidden, asked.ids, -100)
        loss = net(read.view(-1, length), labels=labels.view(-1, length)).loss
    assert torch.allclose(got, torch.stack(want), atol=1e-4) and got.std() > 0.1
    assert got.mean().item() == pytest.approx(loss.item(), abs=1e-4) and not got.requires_grad


def test_the_questions_go_to_where_the_model_is():
    class Seen(Exception):
        pass

    def forward(ids):
        assert ids.device.type == "meta"
        raise Seen

    net = model(Run("full", 64)).to("meta")
    net.forward = forward
    with pytest.raises(Seen):
        mlm.nats(net, questions(), 64)


def test_bits_by_hand():
    text = SimpleNamespace(tokenizer=SimpleNamespace(byte_lengths=torch.tensor([0, 0, 0, 0, 1, 2, 4])))
    ids = torch.tensor([[4, 5, 6, 4], [5, 5, 4, 6]])
    hidden = torch.tensor([[True, True, False, True], [False, True, True, True]])
    asked = Questions(ids, hidden, torch.tensor([0, 1, 15, 16, 128, 255]))  # of bytes 1 2 1 2 1 4
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    found, log2 = mlm.bits(losses, asked, text), np.log(2)
    want = {"all": (21 / 11, 6), "none": (1, 1), "1": (5 / 3, 2), "16": (4 / 2, 1), "128": (11 / 5, 2)}
    assert {name: pytest.approx([value / log2, count]) for name, (value, count) in want.items()} == found
    assert all(type(count) is int for _, count in found.values())


@pytest.mark.parametrize(("length", "share"), [(64, 0.3), (256, 0.75), (128, 0.0)])
def test_the_mixture_against_a_loop(length, share):
    asked = questions(vocabulary=20)
    asked.ids[0, :64], asked.hidden[0, :64] = 7, True  # a piece of which nothing is visible
    unigram = torch.rand(20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    want = []
    for ids, hidden in zip(asked.ids, asked.hidden, strict=True):
        for i in hidden.nonzero().flatten().tolist():
            start = i // length * length
            seen = [int(ids[j]) for j in range(start, start + length) if not hidden[j]]
            cache = seen.count(int(ids[i])) / max(1, len(seen))
            want.append(share * cache + (1 - share) * unigram[ids[i]].item())
    assert mlm.mixture(asked, length, unigram, share).tolist() == pytest.approx(want)


def test_guesses_choose_by_validation_and_count_the_training_files_alone(monkeypatch):
    text, calls = mlm.split(0), []
    counts = np.ones(small_jobs.VOCABULARY)
    for ids in text.train:
        np.add.at(counts, ids.numpy(), 1)
    unigram = torch.from_numpy(counts / counts.sum())
    asked = {name: mlm.asked(getattr(text, name), 3) for name in ("validation", "test")}
    found = mlm.guesses(text, 3)
    assert list(found) == ["unigram", "64", "128", "256"]
    assert found["unigram"] == mlm.bits(-unigram[text.test[asked["test"].hidden]].log(), asked["test"], text)
    for length in mlm.LENGTHS:
        losses = {s: -mlm.mixture(asked["validation"], length, unigram, s).log().mean().item() for s in mlm.SHARES}
        best = min(losses, key=losses.get)
        calls.append(best)
        want = mlm.bits(-mlm.mixture(asked["test"], length, unigram, best).log(), asked["test"], text)
        assert found[str(length)] == want
        assert found[str(length)]["all"][0] < found["unigram"]["all"][0]
    assert min(calls) > 0 and max(calls) < 1
