"""What opens when a task is right: the flight recorder, measured beside the course's, in a model, as a package."""

import dataclasses
import json
import linecache
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from bigbird_mini.course import diary, measuring, packing, recorder, swapping
from bigbird_mini.course.catalogue import find_task
from bigbird_mini.course.handover import Closed
from bigbird_mini.course.judging import Misuse
from bigbird_mini.course.tally import Tally, tallied

TASK = dataclasses.replace(find_task("1.5"), seconds=100.0)  # on a machine that does other things too
MASKED, QUERY_BY_QUERY, GATHERED = TASK.also_right


def notebook(code, number):
    """A notebook's cells in one: its global names after running `code`, whose source can be read."""
    name = f"<cell {number}>"
    linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
    names = {"__name__": "__main__"}
    exec(compile(code, name, "exec"), names)
    return names


# ---------------------------------------------------------------- counting


def test_a_tally_counts_products_and_what_is_held():
    with Tally() as tally:
        a = torch.zeros(10, 100)  # 4,000 bytes
        b = a @ torch.zeros(100, 7)
        a.view(100, 10)[0] += 1
        del a
        c = [b + k for k in range(5)]
    assert tally.multiply_adds == 10 * 100 * 7
    assert tally.largest == ((10, 100), 4000)
    assert tally.peak == 4000 + 100 * 7 * 4 + 10 * 7 * 4 and len(c) == 5


def test_products_of_every_kind_count_alike():
    a, b = torch.ones(3, 5), torch.ones(5, 4)
    ways = [
        lambda: a @ b,
        lambda: torch.einsum("ij,jk->ik", a, b),
        lambda: torch.addmm(torch.ones(4), a, b),
        lambda: torch.stack([torch.stack([row @ column for column in b.T]) for row in a]),
        lambda: torch.stack([a @ column for column in b.T]),
        lambda: torch.nn.functional.linear(a, b.T),
    ]
    assert [tallied(way).multiply_adds for way in ways] == [60] * 6


# ---------------------------------------------------------------- the flight recorder


@pytest.mark.parametrize("answer", [TASK.solution, QUERY_BY_QUERY, GATHERED])
def test_who_reads_only_what_is_needed_is_at_par(answer):
    flown = recorder.fly(TASK, answer)
    assert flown.over == 0 and torch.equal(flown.computed, flown.needed) and flown.picture() is None
    assert flown.lines()[0] == "Scores: 2,048, par (par 2,048)."


def test_par_is_what_the_lists_ask_for():
    inputs = TASK.par.inputs()
    needed = sum(len(set(row)) for row in inputs["reads"])
    flown = recorder.fly(TASK, TASK.solution)
    assert int(flown.needed.sum()) == needed * 16 and int((flown.needed > 0).sum()) == needed == 128
    assert flown.multiply_adds == flown.par_adds == 2048 * (8 + 6)


def test_masking_computes_everything():
    flown = recorder.fly(TASK, MASKED)
    assert flown.computed.tolist() == [[16] * 16] * 16 and flown.over == 4096 - 2048
    assert flown.lines()[0] == "Scores: 4,096, 2,048 over par (par 2,048)."
    assert flown.largest == ((64, 64), 64 * 64 * 8)
    svg, words = flown.picture()
    assert svg.startswith("<svg") and "query block 1, key block 3: expected 0, yours 16" in words
    assert "<img alt=" in flown._repr_html_() and words in repr(flown)


def scored_by(way):
    """block_attention in which the scores of all pairs come about in some way."""

    def block_attention(q, k, v, reads):
        scores = way(q, k)
        mask = TASK.par.needed(q, k, v, reads)
        return torch.softmax((scores / q.shape[-1] ** 0.5).masked_fill(~mask, -torch.inf), -1).nan_to_num() @ v

    return block_attention


WAYS = {
    "keys first": lambda q, k: (k @ q.T).T,
    "scaled before": lambda q, k: (3 * q) @ (k / 3).T,
    "einsum": lambda q, k: torch.einsum("id,jd->ij", q, k),
    "one by one": lambda q, k: torch.stack([torch.stack([a @ b for b in k]) for a in q]),
    "query by query": lambda q, k: torch.stack([k @ a for a in q]),
    "by hand": lambda q, k: (q[:, None] * k[None]).sum(-1),
    "by hand, features first": lambda q, k: (q.T[:, :, None] * k.T[:, None]).sum(0),
    "in a batch": lambda q, k: (q.unflatten(0, (4, -1)) @ k.T).flatten(0, 1),
}


@pytest.mark.parametrize("way", WAYS)
def test_scores_are_seen_however_they_come_about(way):
    assert recorder.fly(TASK, scored_by(WAYS[way])).computed.tolist() == [[16] * 16] * 16


def test_what_is_computed_twice_counts_twice():
    flown = recorder.fly(TASK, scored_by(lambda q, k: (q @ k.T + q @ k.T) / 2))
    assert flown.over == 2 * 4096 - 2048


def test_fused_attention_is_seen():
    def fused(q, k, v, reads):
        mask = TASK.par.needed(q, k, v, reads)
        return torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], mask)[0]

    assert recorder.fly(TASK, fused).computed.tolist() == [[16] * 16] * 16


def test_what_leaves_torch_is_not_seen_and_that_is_said():
    flown = recorder.fly(TASK, TASK.spec)
    assert flown.lines() == [
        "Par is 2,048 scores. The recorder saw none of yours: it sees what PyTorch multiplies, not what lists or NumPy "
        "do."
    ]
    assert flown.picture() is None


def test_it_opens_when_the_task_is_right(monkeypatch):
    names = notebook("from bigbird_mini.course import beside, flight, swap\n", 0) | {"block_attention": MASKED}
    for call in ('flight("1.5")', 'beside("1.5")', 'swap("1.5")'):
        assert repr(eval(call, names)) == "Not run while notebooks are graded."
    monkeypatch.setattr(diary, "grading", lambda: False)
    closed = "This opens when task 1.5 (only the blocks that are read) is right."
    for code in ("", "def block_attention(q, k, v, reads):\n    raise NotImplementedError\n"):
        names = notebook(f"from bigbird_mini.course import beside, flight, swap\n{code}", 1)
        for call in ('flight("1.5")', 'beside("1.5")', 'swap("1.5")'):
            assert repr(eval(call, names)) == closed
    names = notebook("from bigbird_mini.course import flight\n", 2) | {"block_attention": MASKED}
    assert eval('flight("1.5")', names).over == 2048
    with pytest.raises(Misuse, match=r"task 1\.3 has no par to show; there is one for 1\.5"):
        eval('flight("1.3")', names)
    with pytest.raises(Misuse, match=r"there is no task '7\.7'"):
        eval('flight("7.7")', names)


# ---------------------------------------------------------------- beside the course's


def smaller(task, **sizes):
    return dataclasses.replace(task, large=task.par.inputs, **sizes)


def test_beside_the_courses(monkeypatch):
    monkeypatch.setattr(measuring, "ROUND_SECONDS", 0.0)
    seen = measuring.compared(smaller(TASK), MASKED)
    yours, ours = seen.sides
    assert yours.tally.largest == ((64, 64), 64 * 64 * 8) and ours.tally.multiply_adds == 28_672
    assert yours.seconds > 0 and ours.seconds > 0
    ratio = yours.tally.peak / ours.tally.peak
    assert ratio > 3 and f"{ratio:.1f} times its memory." in seen.words()
    page = seen._repr_html_()
    assert page.count("<pre ") == 2 and "def _masked(" in page and "def block_attention(" in page
    assert "(64, 64), 32.8 kB" in repr(seen) and "q (64, 8), k (64, 8), v (64, 6), 16 reads" in repr(seen)


def test_beside_without_torch_and_too_slow(monkeypatch):
    monkeypatch.setattr(measuring, "ROUND_SECONDS", 0.0)
    assert "its memory is not seen" in measuring.compared(smaller(TASK), TASK.spec).words()
    monkeypatch.setattr(measuring, "SECONDS", 0.3)

    def endless(q, k, v, reads):
        while len(q) > 60:
            pass

    assert repr(measuring.compared(smaller(TASK), endless)).endswith("could not be measured: it is too slow for them.")


def test_every_large_input_is_of_its_task():
    for number in ("1.1", "1.2", "1.4", "1.5"):
        task = find_task(number)
        assert task.large().keys() == task.cases()[0].inputs.keys()


# ---------------------------------------------------------------- in a model


def test_in_a_model_it_does_what_the_courses_does():
    seen = swapping.swapped(TASK, MASKED)
    assert (seen.right, seen.before) == (1.0, 1.0) and seen.apart < 1e-4
    assert "100.0% right with yours, 100.0% with the course's attention, the same scores." in repr(seen)
    # the model really runs it, and really needs it
    calls = []
    spoiled = swapping.swapped(TASK, lambda q, k, v, reads: calls.append(reads) or torch.zeros_like(v))
    assert spoiled.right < 0.6 and len(calls) == 2 * 2 * swapping.TEXTS and len(calls[0]) == swapping.BLOCKS
    assert "apart" in repr(spoiled)


def test_in_a_model_with_padding_or_an_error_one_sentence():
    fn = TASK.swap.adapt(TASK.solution)
    q = torch.ones(1, 1, 12, 4)
    mask = torch.arange(12)[None] < 11
    with pytest.raises(ValueError, match="knows no padding"):
        fn(q, q, q, TASK.swap.pattern(6), key_mask=mask)
    closed = swapping.swapped(TASK, lambda q, k, v, reads: q @ v)
    assert isinstance(closed, Closed) and repr(closed).startswith("In a model of float32 numbers your block_attention")


# ---------------------------------------------------------------- a package

CODE = '''
import math
import torch
from torch import softmax as soft

TWO = 2

def root(d):
    return math.sqrt(d)

def head_attention(q, k, v):
    """Attention of one head."""
    ### BEGIN SOLUTION
    # TODO: your code here
    return soft(q @ k.T / root(q.shape[1]), -1) @ v

def score_bytes(n, heads, bytes_per_number=4):
    return heads * n ** TWO * bytes_per_number

def multi_head(q, k, v, key_mask):
    raise NotImplementedError
'''


def test_what_passed_becomes_a_package_that_stands_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(diary, "grading", lambda: False)
    names = notebook(f"from bigbird_mini.course import pack\n{CODE}", 3) | {"folder": tmp_path / "my_bird"}
    said = repr(eval("pack(folder)", names))
    assert said.startswith("Written to my_bird: head_attention, score_bytes, with tests.")
    written = {p.relative_to(tmp_path).as_posix(): p.read_text("utf-8") for p in tmp_path.rglob("*") if p.is_file()}
    functions = written["my_bird/my_bird/functions.py"]
    assert functions.count("def ") == 3 and functions.index("def root") < functions.index("def head_attention")
    assert "import math\n" in functions and "from torch import softmax as soft" in functions and "TWO = 2" in functions
    assert "###" not in functions and "TODO" not in functions and "multi_head" not in functions
    assert not any("bigbird_mini" in text for text in written.values())
    assert "already: it stays as it is" in repr(eval("pack(folder)", names))

    # its tests pass, and find what is spoiled
    path = tmp_path / "my_bird/my_bird/functions.py"
    path.write_text(functions.replace("heads * n ** TWO", "n ** TWO"), "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=no"]
    done = subprocess.run(command, cwd=tmp_path / "my_bird", capture_output=True, text=True)
    cases = json.loads(written["my_bird/tests/cases.json"])
    failed = sum(case["inputs"][1] != 1 for case in cases["score_bytes"])
    passed = len(cases["head_attention"]) + len(cases["score_bytes"]) - failed
    assert failed >= 3 and re.search(rf"\b{failed} failed, {passed} passed", done.stdout), done.stdout + done.stderr


def test_what_cannot_be_written_down_is_said():
    def package(code, asks="score_bytes"):
        names = notebook(code, 4)
        return packing.package("bird", [(find_task("1.3"), names[asks])])

    texts, said = package("table = {1: 2}\ndef score_bytes(n, h, b=4):\n    return table[1]\n")
    assert texts == {} and said == ["score_bytes is left out: it uses table, a dict, which cannot be written down."]
    texts, said = package("score_bytes = lambda n, h, b=4: n\n")
    assert texts == {} and "score_bytes is no plain function of that name" in said[0]
    texts, said = package("from bigbird_mini import attention\ndef score_bytes(n):\n    return attention\n")
    assert texts == {} and said == ["score_bytes is left out: it uses attention of the course itself."]


def test_pack_says_why_not(tmp_path, monkeypatch):
    names = notebook("from bigbird_mini.course import pack\n", 5) | {"here": tmp_path}
    assert repr(eval("pack(here / 'bird')", names)) == "Nothing is written while notebooks are graded."
    monkeypatch.setattr(diary, "grading", lambda: False)
    assert repr(eval("pack(here / 'bird')", names)) == "No function of yours passes yet, so there is nothing to pack."
    with pytest.raises(Misuse, match="not 'My Bird'"):
        eval("pack(here / 'My Bird')", names)
    assert list(tmp_path.iterdir()) == []


def test_cases_are_stored_to_the_bit():
    cases = packing._cases(find_task("1.2"))
    assert len(cases) <= packing.CASES
    first = find_task("1.2").cases()[0]
    stored = json.loads(json.dumps(cases[0]["inputs"][0]))
    assert torch.equal(torch.tensor(stored["numbers"], dtype=torch.float64).view(stored["shape"]), first.inputs["q"])
    assert SimpleNamespace(**stored).dtype == "float64"
