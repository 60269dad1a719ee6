"""The imports job: its files and batches, and how answers are judged, against plain versions and models that know.

Most of it with the small library of small_jobs.py, whose files have 2,400 tokens.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import small_jobs
import torch
from torch import nn

from bigbird_mini.data import STATEMENT_NUMBERS, ByteTokenizer, Document, import_documents, stdlib_text
from bigbird_mini.jobs import cells, imports
from bigbird_mini.jobs.imports import FAR, Run

pytest.importorskip("tokenizers", reason="needs the extra lab or hf")
V = small_jobs.VOCABULARY


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def small(monkeypatch, cache):
    monkeypatch.setenv("BIGBIRD_MINI_CACHE", str(cache))
    small_jobs.shrink(monkeypatch.setattr)
    kept = imports.files
    yield
    kept.cache_clear()


class Lookup(nn.Module):
    """Knows the answer: looks a name up in the import statements, at most so many tokens back. Beyond, it says another
    statement; and it scores numbers that no statement has higher still."""

    def __init__(self, reach=10**6):
        super().__init__()
        self.reach, self.read, self.weight = reach, [], nn.Parameter(torch.zeros(1))

    def forward(self, ids, token_type_ids):
        assert ids.shape == token_type_ids.shape == (1, ids.shape[1])
        ids, segments = ids[0], token_type_ids[0]
        self.read.append((ids, segments))
        present = segments.unique()[1:] - 1
        logits = torch.full((1, len(ids), STATEMENT_NUMBERS), 9.0)
        logits[..., present] = 0
        for place in (ids >= V).nonzero().flatten().tolist():
            bound = ((ids == ids[place]) & (segments > 0)).nonzero().flatten()
            if len(bound):
                number = segments[bound[0]] - 1
                known = place - int(bound[0]) <= self.reach
                logits[0, place, number if known else present[present != number][0]] = 1
        return SimpleNamespace(logits=logits)


def uses(document, length):
    """Of the uses in the first tokens: where, and where the import stands."""
    places = [(place, int(document.bindings[name, 0])) for place, name in document.uses.tolist()]
    return [(place, bound) for place, bound in places if place < length]


# ---------------------------------------------------------------- files and batches


def test_files_of_training_validation_and_test_are_apart_and_so_is_the_vocabulary(monkeypatch):
    vocabulary, known, names = cells.vocabulary, [], []
    monkeypatch.setattr(cells, "vocabulary", lambda size, some: known.append((size, [*some])) or vocabulary(size, some))
    for seed in (0, 1):
        parts = imports.files(seed)
        names.append([{document.name for document in part} for part in parts])
        assert [*map(len, parts)] == [*map(len, names[-1])] == [14, 4, 6]  # 60, 15 and 25 of a hundred
        assert known[seed][0] == V and {document.name for document in known[seed][1]} == names[seed][0]
        assert set.union(*names[-1]) == {document.name for document in small_jobs.library()}
    assert names[0][0] != names[1][0] and names[0][2] != names[1][2]
    assert imports.files(1) is parts


def test_files_without_four_statements_are_not_asked_about(monkeypatch):
    few = Document("few.py", "import a, b, c, d, e\nimport f\nimport g\n" + "a.f(b, c, d, e, f, g)\n" * 200)
    monkeypatch.setattr(imports, "stdlib_text", lambda: (*small_jobs.library(), *[few] * 16))
    parts = imports.files(0)
    assert "few.py" not in {document.name for part in parts for document in part} and sum(map(len, parts)) == 24


def test_the_real_library_has_far_uses_in_every_part(monkeypatch):
    """Every fifth file of it, in letters, so that it is quick; a token has three or four of them."""
    monkeypatch.undo()
    monkeypatch.setattr(imports, "stdlib_text", lambda: stdlib_text()[::5])
    monkeypatch.setattr(cells, "vocabulary", lambda size, documents: ByteTokenizer())
    imports.files.cache_clear()
    for part in imports.files(0):
        far = [place - bound for document in part for place, bound in uses(document, 4 * 4096)]
        assert len(part) >= 5 and sum(distance >= 4 * FAR for distance in far) > 50
        assert sum(distance >= 4 * 2048 for distance in far) > 10


@pytest.fixture
def read(monkeypatch):
    """What the batches read: the name of the file, the tokens that are kept, and the reading."""
    found, original = [], imports.ImportDocument.read

    def spy(self, size, rng, keep=None):
        assert size == V
        found.append((self.name, keep, original(self, size, rng, keep)))
        return found[-1][2]

    monkeypatch.setattr(imports.ImportDocument, "read", spy)
    return found


def test_batches_follow_from_their_number_and_differ_by_seed(monkeypatch):
    parts = imports.files(1)
    monkeypatch.setattr(imports, "files", lambda seed: parts)  # so that only the draw differs
    run = Run(length=1024, seed=1, steps=4, short=2)
    for number in (0, 2, 4, 6):
        first = imports.batches(run)(number)
        assert first.keys() == {"input_ids", "token_type_ids", "labels"}
        for same in (run, Run("W+R", 1024, 1, steps=9, short=2)):
            again = imports.batches(same)(number)
            assert all(torch.equal(first[name], again[name]) for name in first)
        for other in (imports.batches(run)(number + 1), imports.batches(replace(run, seed=2))(number)):
            assert not torch.equal(first["input_ids"], other["input_ids"])


def test_the_first_steps_read_excerpts_and_the_others_whole_files_of_the_training(read):
    run = Run(length=1024, steps=30, short=10)
    train, names = {document.name: document for document in imports.files(0)[0]}, set()
    batch = imports.batches(run)
    for number in (0, 19, 20, *range(30, 60)):
        read.clear()
        got = batch(number)
        short = number < 20
        assert got["input_ids"].shape == ((4, 128) if short else (1, 1024)) and len(read) == len(got["input_ids"])
        for row, (name, keep, reading) in enumerate(read):
            assert torch.equal(got["input_ids"][row], reading.ids) and torch.equal(got["labels"][row], reading.labels)
            assert torch.equal(got["token_type_ids"][row], reading.segments)
            if short:
                header = min(train[name].header, 64)
                assert keep.sum() == 128 and keep[:header].all()
            else:
                assert keep.nonzero().flatten().tolist() == list(range(1024))
        assert (got["labels"] >= 0).sum() > (25 if short else 5)
        names |= {name for name, *_ in read}
    assert names == set(train) and imports.EXCERPTS == 2 * 4


def documents(*texts):
    made = import_documents([Document(f"{i}.py", text) for i, text in enumerate(texts)], ByteTokenizer(), 2)
    assert len(made) == len(texts)
    return made


def test_files_that_are_too_short_or_ask_too_late_are_not_read_whole(read, monkeypatch):
    start = "import a\nimport b\n"
    made = documents(
        start + "a, b\n" * 20,  # no excerpt
        start + "a, b\n" * 60,
        start + "c\n" * 300 + "a\n",  # its only use is beyond the length
        start + "a, b\n" * 120,
    )
    assert len(made[0].ids) < 256 < len(made[1].ids) < 300 and len(made[2].ids) > 600
    monkeypatch.setattr(imports, "files", lambda seed: (made, [], []))
    batch = imports.batches(Run(length=600, steps=9, short=1))
    for seed in range(3):
        imports.batches(Run(length=600, steps=9, short=1, seed=seed))(0)
    assert {name for name, *_ in read} == {"1.py", "2.py", "3.py"}
    read.clear()
    for number in range(2, 12):
        assert batch(number)["input_ids"].shape[1] == min(600, len(made[3].ids))
    assert {name for name, *_ in read} == {"3.py"}
    with pytest.raises(ValueError, match="length=2048: no training file is half as long"):
        imports.batches(Run(length=2048))


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize("length", [1024, 4096])
def test_a_model_that_looks_up_knows_all_answers_and_one_that_sees_less_those_it_sees(length):
    test, run = imports.files(0)[2], Run(length=length)
    want = [place - bound for document in test for place, bound in uses(document, length)]
    found = imports.answers(Lookup(), test, run)
    assert found == [(distance, True) for distance in want] and len(want) > 50
    found = imports.answers(Lookup(reach=600), test, run)
    assert found == [(distance, distance <= 600) for distance in want]
    assert {right for _, right in found} == {True, False}


def test_questions_are_the_same_for_every_model_of_a_seed():
    test = imports.files(0)[2]
    models, runs = (
        [Lookup() for _ in range(3)],
        [Run(length=512), Run("W", 512, steps=5, short=1), Run(length=512, seed=1)],
    )
    for model, run in zip(models, runs, strict=True):
        imports.answers(model, test, run)
    one, same, other = (torch.stack([torch.stack(pair) for pair in model.read]) for model in models)
    assert torch.equal(one, same) and one.shape == (6, 2, 512)
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    names = [tuple(ids[ids >= V][:8].tolist()) for ids, _ in one]
    assert len(set(names)) == 6  # drawn for each file anew


def test_only_statements_of_the_file_can_be_the_answer_and_ties_are_not_broken_for_the_right_one():
    """A model with no opinion names the present statement with the lowest number, and is judged by that."""
    test, run, model = imports.files(0)[2], Run(length=1024), Lookup(reach=-1)
    model.forward = lambda ids, token_type_ids: (
        model.read.append((ids[0], token_type_ids[0]))
        or SimpleNamespace(logits=torch.zeros(1, ids.shape[1], STATEMENT_NUMBERS))
    )
    found = imports.answers(model, test, run)
    want = []
    for document, (_, segments) in zip(test, model.read, strict=True):
        lowest = int(segments[segments > 0].min())
        want += [bool(segments[bound] == lowest) for _, bound in uses(document, 1024)]
    assert [right for _, right in found] == want and 0 < sum(want) < len(want) / 2


def test_far_uses_with_what_a_search_would_bring():
    test, run, model = imports.files(0)[2], Run(length=2000), Lookup()
    found, want, late = imports.answers_retrieved(model, test, run), [], 0
    readings = iter(model.read)
    for document in test:
        for place, bound in uses(document, 2000):
            if place - bound < FAR:
                continue
            if bound >= 512:  # its import is not among what is read
                late += 1
                continue
            want.append((place - bound, True))
            ids, segments = next(readings)
            places = sorted({*range(512), *range(place - 63, place + 1)})
            own = document.ids[places]
            assert len(ids) == len(places) <= 576 and torch.equal(ids[own >= 0], own[own >= 0])
            assert (ids[own < 0] >= V).all() and torch.equal(segments > 0, document.statements[places] >= 0)
    assert found == want and next(readings, None) is None
    assert late > 3 and len(want) > 50
    blind = imports.answers_retrieved(Lookup(reach=0), test, run)
    assert [distance for distance, _ in blind] == [distance for distance, _ in want]
    assert not any(right for _, right in blind)


def test_the_questions_go_to_where_the_model_is():
    test, model = imports.files(0)[2][:1], Lookup().to("meta")
    places = []

    def forward(ids, token_type_ids):
        places.extend((ids.device.type, token_type_ids.device.type))
        return SimpleNamespace(logits=torch.zeros(1, ids.shape[1], STATEMENT_NUMBERS))

    model.forward = forward
    assert imports.answers(model, test, Run(length=512)) and places == ["meta", "meta"]


def test_accuracies_by_distance_by_hand():
    found = [(1, True), (511, False), (512, True), (1023, False), (1024, True), (2047, True), (4096, False)]
    want = {"0": (1 / 2, 2), "512": (1 / 2, 2), "1024": (1.0, 2), "4096": (0.0, 1), "far": (3 / 5, 5)}
    assert imports.by_distance(found) == {name: [pytest.approx(a), n] for name, (a, n) in want.items()}
    assert imports.by_distance([(9000, True)]) == {"8192": [1.0, 1], "far": [1.0, 1]} and imports.by_distance([]) == {}


def test_guesses_against_a_loop():
    test = [*imports.files(0)[2], *imports.files(0)[1]]
    length, right, total = 1500, dict.fromkeys(("chance", "first", "last", "names", "used"), 0.0), 0
    for document in test:
        statement = {int(bound): int(number) for bound, number in document.bindings.tolist()}
        binds = [[*statement.values()].count(number) for number in range(max(statement.values()) + 1)]
        far = [statement[bound] for place, bound in uses(document, length) if place - bound >= FAR]
        total += len(far)
        right["chance"] += len(far) / len(binds)
        right["first"] += far.count(0)
        right["last"] += far.count(len(binds) - 1)
        right["names"] += far.count(binds.index(max(binds)))
        right["used"] += max(far.count(number) for number in range(len(binds)))
    assert imports.guesses(test, length) == {name: pytest.approx(value / total) for name, value in right.items()}
    assert right["first"] != right["last"] and imports.guesses(test, 400) == {}  # where no use is far


def test_what_must_be_known_to_answer_is_not_in_the_file_alone():
    """The guess that knows the answers is right less often than a look-up, but more often than those that do not."""
    found = imports.guesses(imports.files(0)[2], 4096)
    assert max(found[name] for name in ("chance", "first", "last", "names")) <= found["used"] < 0.9
    numbers = np.concatenate([document.bindings[:, 1].numpy() for document in imports.files(0)[2]])
    assert numbers.max() == 4
