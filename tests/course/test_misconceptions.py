"""The planted mistakes: each is rejected under its own name, none under another's; right answers pass however written.

The trials are those of `python -m bigbird_mini.course mistakes`; here they are also shown to be able to fail.
"""

import inspect
import json
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bigbird_mini.course import catalogue, mistakes
from bigbird_mini.course.__main__ import main
from bigbird_mini.course.catalogue import Case, Mistake, Task, add, all_tasks
from bigbird_mini.course.hints import worked
from bigbird_mini.course.judging import evaluate
from bigbird_mini.course.misconceptions import outcome_of, same_outcome
from bigbird_mini.course.tasks_01.block_attention import _block_by_block, _mask
from bigbird_mini.course.tasks_01.common import scores_of

ROOT = Path(__file__).parents[2]
TASKS = list(all_tasks().values())
INF = float("inf")
by_number = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.number)


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(catalogue, "_TASKS", dict(catalogue._TASKS))


@by_number
def test_every_answer_that_is_known_gets_what_it_deserves(task):
    rows = list(mistakes.trials(task))
    assert [f"{row.handed}: {row.fault}" for row in rows if row.fault] == []
    assert mistakes.lacks(task) == []
    kinds = [row.handed.split(":")[0] for row in rows]
    assert kinds.count("right") >= 4 and kinds.count("mistake") >= 4 and "stub" in kinds
    assert ("unknown" in kinds) != task.by_rule
    planted = {row.told for row in rows if row.handed.startswith("mistake")}
    assert planted == {mistake.name for mistake in task.mistakes}


@by_number
def test_no_planted_mistake_gives_what_another_gives(task):
    """Over all cases together, whatever the order of the catalogue."""
    profiles = {}
    for mistake in task.mistakes:
        for number, wrong in enumerate(mistake.wrong):
            profiles[mistake.name, number] = [outcome_of(wrong, case.inputs) for case in task.cases()]
    for (name, _), mine in profiles.items():
        for (other, _), theirs in profiles.items():
            same = all(same_outcome(a, b) for a, b in zip(mine, theirs, strict=True))
            assert name == other or not same, f"{name} and {other}"


@by_number
def test_what_is_said_explains_and_does_not_tell(task):
    secret = [line.split("#")[0].strip() for line in worked(task).splitlines()[2:]]
    secret = [line for line in secret if len(line) > 12]
    for mistake in task.mistakes:
        assert 40 < len(mistake.says) < 300 and mistake.says.endswith((".", "?")), mistake.name
        assert not any(line in mistake.says for line in secret), mistake.name
        assert len(mistake.name) < 50 and mistake.name == mistake.name.strip()
    lengths = [len(words) for words in task.hints]
    assert min(lengths) > 40 and task.why.endswith(".")
    names = [mistake.name for mistake in task.mistakes]
    assert len(set(names)) == len(names)


@by_number
def test_pointers_lead_to_cells_of_the_lesson(task):
    cells = json.loads((ROOT / "lessons" / f"{task.lesson}.ipynb").read_text("utf-8"))["cells"]
    for look in [task.look, *(m.look for m in task.mistakes if m.look)]:
        place = next(k for k, cell in enumerate(cells) if cell["id"] == look.cell)
        assert look.line in "".join(cells[place]["source"])
        above = "\n".join("".join(c["source"]) for c in cells[:place] if c["cell_type"] == "markdown")
        headings = [line.removeprefix("## ") for line in above.splitlines() if line.startswith("## ")]
        assert headings[-1] == look.section


@by_number
def test_worked_solution_is_the_one_of_the_notebook(task):
    notebook = json.loads((ROOT / "solutions" / f"{task.lesson}.ipynb").read_text("utf-8"))
    name = f"answer-{task.number.replace('.', '-')}"
    cell = next("".join(c["source"]) for c in notebook["cells"] if c["id"] == name)
    _, *body = [line for line in cell.splitlines() if "### " not in line]
    assert body == inspect.getsource(task.solution).rstrip().splitlines()[1:]
    assert cell.startswith(
        f"def {task.asks}({', '.join(inspect.signature(task.solution).parameters)}".split("=")[0][:40]
    )


# ---------------------------------------------------------------- not planted


def shifted(q, k, v):
    """No scale, and the softmax over the queries: a combination."""
    return torch.softmax(q @ k.T, 0) @ v


def doubly_wrong_mask(q, k, v, key_mask):
    weights = torch.softmax(q @ k.mT, -1) * key_mask[:, None, None]  # no scale, and masked after the softmax
    return weights @ v


def inverted_queries(q, k, v, key_mask):
    scores = scores_of(q, k).masked_fill(key_mask[:, None, :, None], -INF)
    return torch.softmax(scores, -1).nan_to_num(0.0) @ v


def wrapped_rows(n_blocks, width, global_blocks):
    i = torch.arange(n_blocks)
    grid = (i[None] - i[:, None] + width // 2) % n_blocks < width  # wraps, and no global columns
    grid[global_blocks] = True
    return grid


def wide_and_first(n_blocks, width, global_blocks):
    i = torch.arange(n_blocks)
    grid = (i[None] - i[:, None]).abs() <= width
    grid[: len(global_blocks)] = True
    return grid


def unscaled_after(q, k, v, reads):
    return torch.softmax(q @ k.T, -1) * _mask(reads, len(q) // len(reads)) @ v


def each_block_unscaled(q, k, v, reads):
    return _block_by_block(q * q.shape[1] ** 0.5, k, v, reads, mean=True)


COMBINED = {
    "no scale, softmax over the queries": ("1.1", shifted, ""),
    "swapped, no scale": ("1.1", lambda q, k, v: torch.softmax(k @ q.T, -1) @ v, ""),
    "no scale, exp overflows": ("1.1", lambda q, k, v: (w := (q @ k.T).exp()) / w.sum(-1, keepdim=True) @ v, "no 1/√d"),
    "no scale, masked after": ("1.2", doubly_wrong_mask, "no 1/√d"),
    "inverted, and queries": ("1.2", inverted_queries, "True taken for padding"),
    "one head, and half": ("1.3", lambda n, heads, bytes_per_number=4: n * (n + 1) // 2 * bytes_per_number, ""),
    "bits, and no heads": ("1.3", lambda n, heads, bytes_per_number=4: n * n * bytes_per_number * 8, ""),
    "wraps, no columns": ("1.4", wrapped_rows, "a window that wraps round the ends"),
    "too wide, first blocks": ("1.4", wide_and_first, "a window off by one"),
    "no scale, masked after (blocks)": ("1.5", unscaled_after, ""),
    "no scale, a softmax for each block": ("1.5", each_block_unscaled, ""),
}


@pytest.mark.parametrize("name", COMBINED)
def test_combinations_are_rejected(name):
    """Told by the name of one of the two where that one alone gives this much; else as unknown, with the picture."""
    number, answer, told = COMBINED[name]
    result = evaluate(number, answer)
    assert (result.outcome, result.points) == ("wrong", 0)
    assert (result.mistake.name if result.mistake else "") == told
    assert result.picture()[0].startswith("<svg")


def test_unknown_mistake_says_where():
    result = evaluate("1.5", lambda q, k, v, reads: outcome_of(all_tasks()["1.5"].solution, locals()).roll(2, 0))
    assert result.mistake is None
    start = "With 6 blocks of 2 tokens and one-hot values: first differing block: query block 0, key block 0 (queries 0"
    assert result.why.startswith(start), result.why
    assert "of 36 blocks differ)." in result.why and "\n" not in result.why
    assert "Different are: query blocks 0 and 1: key blocks 0, 1, 3 and 5; " in result.picture()[1]


# ---------------------------------------------------------------- the trials can fail


def identity(x):
    return x


def doubled(x):
    return 2 * x


def tripled(x):
    return 3 * x


def sample(**changes):
    """A small task in good order; x is a vector of three."""
    x = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    known = Mistake("doubled", "it is twice as large as what came in, and it should be the same.", (doubled,))
    others = [
        Mistake(
            f"plus {k}", "something is added to every number of it, and nothing should be.", (lambda x, k=k: x + k,)
        )
        for k in (1, 2, 3)
    ]
    task = Task(
        number="98.1",
        title="the same again",
        points=1,
        solution=identity,
        cases=lambda: [Case("With three numbers", {"x": x}, ("number",))],
        mistakes=(known, *others),
        hints=("h" * 41,) * 3,
        why="It is there already.",
        also_right=(torch.clone, torch.Tensor.double, lambda x: x + 0),
        small={"x": torch.tensor([1.0], dtype=torch.float64)},
        look=catalogue.Look("s", "c", "l"),
        lesson="98_sample",
        skill="patience",
    )
    return replace(task, **changes)


def faults(task):
    add(task)
    return {row.handed: row.fault for row in mistakes.trials(task) if row.fault}


def test_a_task_in_good_order_has_no_fault(registry):
    assert faults(sample()) == {} and mistakes.lacks(sample()) == []


def test_each_fault_of_a_task_is_found(registry):
    good = sample()
    harmless = Mistake("harmless", "does nothing wrong at all, as far as anyone can see.", (torch.clone,))
    assert faults(replace(good, mistakes=(harmless,))) == {"mistake: harmless": "should be rejected"}
    twin = Mistake("twin", "it is the same mistake under another name, told second.", (lambda x: x + x,))
    found = faults(replace(good, mistakes=(*good.mistakes, twin)))
    assert found["mistake: twin"] == "should be told as: twin"
    assert found["mistake: doubled"] == "looks like this too: twin"
    assert list(faults(replace(good, also_right=(tripled,)))) == ["right: tripled"]
    assert faults(replace(good, spec=tripled))["right: the solution"].startswith("should be right")
    zero = {"x": torch.zeros(1, dtype=torch.float64)}
    assert faults(replace(good, small=zero)) == {"mistake: doubled": "does not show on its small case"}
    bare = replace(good, hints=(), mistakes=good.mistakes[:3], also_right=(), why="", look=None)
    assert [words.split(";")[0] for words in mistakes.lacks(bare)] == [
        "3 mistakes",
        "0 hints",
        "0 other right answers",
        "why",
        "look",
    ]


def test_a_fault_in_the_tasks_own_code_is_no_learners_fault(registry):
    def broken(x):
        raise KeyError("oops")

    add(sample(spec=broken))
    result = evaluate("98.1", identity)
    assert result.outcome == "error" and "a fault of the course" in result.why and "KeyError: 'oops'" in result.why


def test_the_command_prints_the_table(capsys):
    assert main(["mistakes", "1.3", "1.4"]) == 0
    out = capsys.readouterr().out
    assert "mistake: a window that wraps round the ends (1 of 2)" in out
    assert "told as: a window that wraps round the ends" in out
    sums = (
        "right answers accepted {}; planted mistakes rejected by name {}; unknown mistakes rejected with a picture {}"
    )
    assert f"  {sums.format('4/4', '17/17', '1/1')}\n" in out
    assert out.splitlines()[-2] == f"2 tasks: {sums.format('8/8', '33/33', '3/3')}; stubs not attempted 2/2"
    assert out.rstrip().endswith("all as it should be") and "Task 1.1" not in out


def test_the_command_fails_where_something_is_wrong(registry, capsys):
    add(sample(also_right=(tripled,)))
    assert main(["mistakes", "98.1", "--brief"]) == 1
    out = capsys.readouterr().out
    assert "! right: tripled" in out and "lacks: 1 other right answers" in out and "2 faults, marked !" in out
    assert "\n1 task: right answers accepted 1/2;" in out


# ---------------------------------------------------------------- tasks with many right answers


def random_blocks(n_blocks, per_row, seed):
    """(N, per_row): for each row, that many different blocks, none of them of the row's window of three."""
    out = []
    for row in range(n_blocks):
        free = torch.tensor([j for j in range(n_blocks) if abs(j - row) > 1])
        generator = torch.Generator().manual_seed(1000 * seed + row)
        out.append(free[torch.randperm(len(free), generator=generator)[:per_row]])
    return torch.stack(out)


def in_the_window(found, n_blocks, **_):
    return bool(((found - torch.arange(n_blocks)[:, None]).abs() <= 1).any())


RANDOM = Task(
    number="98.2",
    title="random blocks",
    points=1,
    solution=random_blocks,
    cases=lambda: [Case("For 9 blocks, 3 in a row", {"n_blocks": 9, "per_row": 3, "seed": 5})],
    by_rule=True,
    mistakes=(
        Mistake(
            "random blocks of the window",
            "a block that the window reads already is drawn again.",
            (lambda n, r, s: torch.arange(n)[:, None] + torch.zeros(1, r, dtype=torch.long),),
            seen=in_the_window,
        ),
        Mistake(
            "a block drawn twice",
            "a row has the same block twice.",
            (lambda n, r, s: ((torch.arange(n)[:, None] + 4) % n).expand(n, r),),
            seen=lambda found, **_: any(len(row.unique()) < len(row) for row in found),
        ),
    ),
)


def other_draw(n_blocks, per_row, seed):
    return random_blocks(n_blocks, per_row, seed + 77)


def test_where_many_answers_are_right_the_rules_judge(registry):
    add(RANDOM)
    assert evaluate("98.2", other_draw).outcome == "right"
    for mistake in RANDOM.mistakes:
        result = evaluate("98.2", mistake.wrong[0])
        assert result.mistake is mistake and result.why.startswith(f"{mistake.name.capitalize()}: {mistake.says}")
    assert "shape (9, 2)" in evaluate("98.2", lambda n, r, s: random_blocks(n, 2, s)).why
    assert evaluate("98.2", lambda n, r, s: random_blocks(n, r, s).tolist()).outcome == "wrong"


def test_redrawn_at_every_call(registry):
    add(RANDOM)

    def redrawn(n_blocks, per_row, seed):
        return random_blocks(n_blocks, per_row, int(torch.randint(10**6, ())))

    result = evaluate("98.2", redrawn)
    assert result.outcome == "wrong" and result.why.startswith("A second call with the same inputs gives another")


def test_help_text_is_dedented(registry):
    assert worked(RANDOM) == textwrap.dedent(inspect.getsource(random_blocks)).rstrip()


def forgetful(grids, source):
    rows = [torch.arange(grids.shape[1]) == source]
    for grid in grids:
        rows.append((grid & rows[-1]).any(1))
    return torch.stack(rows)


def test_a_grid_for_each_layer_is_written_as_pictures():
    small = evaluate("2.3", forgetful).small
    assert "grids = [[000, 100, 000], [000, 000, 010]]; source = 0" in small and "[100, 010, 001]" in small


def test_an_input_may_be_a_list_of_tensors(registry):
    def total(parts):
        return sum(parts)

    def emptied(parts):
        parts[1] *= 0
        return parts[0] + torch.tensor([3.0, 4.0])

    tensors = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0])]
    add(Task("97.1", "sum", 1, total, lambda: [Case("Of two", {"parts": tensors})]))
    assert evaluate("97.1", total).outcome == "right"
    assert "changes its input `parts` in place" in evaluate("97.1", emptied).why
    assert "changes its input `parts` in place" in evaluate("97.1", lambda parts: parts.pop() + parts[0]).why
