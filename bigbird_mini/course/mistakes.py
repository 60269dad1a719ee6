"""python -m bigbird_mini.course mistakes: is every planted mistake rejected under its own name?

For each task: the solution and the other right answers pass, each mistake is wrong and told by its name, its first
showing is its own, its small case shows it, and an answer that no catalogue knows is rejected with a picture.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from bigbird_mini.viz.words import counted

from .catalogue import Mistake, Task, all_tasks, find_task
from .judging import Result, evaluate
from .misconceptions import outcome_of, same_outcome, smaller
from .running import Crashed


@dataclass(frozen=True)
class Row:
    """One trial: what was handed in, what became of it, and what is not as it should be ("" where all is)."""

    task: str
    handed: str
    outcome: str
    told: str = ""
    fault: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="such as 1.2 (default: all tasks)")
    parser.add_argument("--brief", action="store_true", help="the sums only, and what is not as it should be")


def main(options: argparse.Namespace) -> int:
    """Print the report; 0 where all is as it should be, else 1."""
    tasks = [find_task(number) for number in options.tasks] or list(all_tasks().values())
    faults, every = 0, []
    for task in tasks:
        rows = list(trials(task))
        every += rows
        print(f"\nTask {task.number} ({task.title}), {task.points} points")
        for row in rows:
            if row.fault or not options.brief:
                print(_line(row))
        print("  " + _sums(rows))
        faults += sum(bool(row.fault) for row in rows)
        for missing in lacks(task):
            print(f"  lacks: {missing}")
            faults += 1
    print(f"\n{counted(len(tasks), 'task')}: {_sums(every)}; stubs not attempted {_good(every, 'stub')}")
    print("all as it should be" if not faults else f"{counted(faults, 'fault')}, marked !")
    return 1 if faults else 0


def _line(row: Row) -> str:
    told = f"told as: {row.told}" if row.told else ""
    fault = f"  ! {row.fault}" if row.fault else ""
    return f"  {'!' if fault else ' '} {row.handed:<56} {row.outcome:<14} {told}{fault}".rstrip()


def _sums(rows: list[Row]) -> str:
    """How many of what kind were handed in, and how many of them came to what they should."""
    kinds = {"right": "right answers accepted", "mistake": "planted mistakes rejected by name"}
    kinds["unknown"] = "unknown mistakes rejected with a picture"
    return "; ".join(f"{words} {_good(rows, kind)}" for kind, words in kinds.items())


def _good(rows: list[Row], kind: str) -> str:
    mine = [row for row in rows if row.handed.startswith(kind)]
    return f"{sum(not row.fault for row in mine)}/{len(mine)}"


def lacks(task: Task) -> list[str]:
    """What a task must have and has not, a sentence each."""
    out = []
    if len(task.mistakes) < 4:
        out.append(f"{len(task.mistakes)} mistakes; at least 4 that people really make")
    if len(task.hints) != 3:
        out.append(f"{len(task.hints)} hints; three, rising")
    if len(task.also_right) < 3:
        out.append(f"{len(task.also_right)} other right answers; three, such as loops, einsum, gather")
    for name in ("why", "lesson", "skill", "look"):
        if not getattr(task, name):
            out.append(name)
    return out


def trials(task: Task) -> Iterator[Row]:
    """Hand in everything that is known about a task, right and wrong, and something unknown."""
    for kind, answer in [("the solution", task.solution), *((_name(a), a) for a in task.also_right)]:
        yield _row(task, f"right: {kind}", evaluate(task.number, answer), "right", "")
    stub = evaluate(task.number, _stub if callable(task.solution) else ...)
    yield _row(task, "stub", stub, "not attempted", "")
    for mistake in task.mistakes:
        for number, wrong in enumerate(mistake.wrong, 1):
            ways = f" ({number} of {len(mistake.wrong)})" if len(mistake.wrong) > 1 else ""
            row = _row(task, f"mistake: {mistake.name}{ways}", evaluate(task.number, wrong), "", mistake.name)
            fault = row.fault or _ambiguous(task, mistake, wrong) or _no_small_case(task, mistake, wrong)
            yield Row(row.task, row.handed, row.outcome, row.told, fault)
    for name, answer in strangers(task):
        result = evaluate(task.number, answer)
        fault = _row(task, name, result, "wrong", "").fault
        if not fault and not result.picture() and not task.by_rule:
            fault = "no picture"
        yield Row(task.number, f"unknown: {name}", result.outcome, result.mistake.name if result.mistake else "", fault)


def _row(task: Task, handed: str, result: Result, outcome: str, name: str) -> Row:
    """A trial beside what it should come to; outcome "": anything that loses the points."""
    told = result.mistake.name if result.mistake else ""
    fault = ""
    if "fault of the course" in result.why:
        fault = result.why
    elif outcome and result.outcome != outcome:
        fault = f"should be {outcome}: {result.why}"
    elif not outcome and result.outcome not in ("wrong", "error"):
        fault = "should be rejected"
    elif told != name:
        fault = f"should be told as: {name or 'nothing known'}"
    return Row(task.number, handed, result.outcome, told, fault)


def _ambiguous(task: Task, mistake: Mistake, wrong: Any) -> str:
    """Up to the case where it first shows, no other mistake of the catalogue may give the same."""
    if mistake.seen:
        return ""
    tried: list[tuple[dict[str, Any], Any]] = []
    for case in task.cases():
        tried.append((case.inputs, outcome_of(wrong, case.inputs)))
        if not same_outcome(tried[-1][1], task.expected(case.inputs)):
            break
    for other in task.mistakes:
        for w in other.wrong if other is not mistake else ():
            if all(same_outcome(found, outcome_of(w, inputs)) for inputs, found in reversed(tried)):
                return f"looks like this too: {other.name}"
    return ""


def _no_small_case(task: Task, mistake: Mistake, wrong: Any) -> str:
    if task.by_rule or not callable(task.solution):
        return ""

    def give(inputs: dict[str, Any]) -> Any:
        found = outcome_of(wrong, inputs)
        if isinstance(found, Crashed):
            raise found
        return found

    return "" if smaller(task, mistake, give) else "does not show on its small case"


def strangers(task: Task) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Wrong answers that nobody planned: the right result with something done to it."""
    if not callable(task.solution) or task.by_rule:
        return
    for name, spoil in (("the last number wrong", _last), ("every row one place on", _moved)):
        if spoil is _last or isinstance(task.expected(task.cases()[0].inputs), torch.Tensor):
            yield name, lambda *inputs, spoil=spoil: spoil(task.solution(*inputs))


def _last(result: Any) -> Any:
    if not isinstance(result, torch.Tensor):
        return result + 1
    spoiled = result.clone()
    last = spoiled.view(-1)[-1:]
    if last.dtype == torch.bool:
        last.logical_not_()
    else:
        last += 0.123 if last.is_floating_point() else 1
    return spoiled


def _moved(result: torch.Tensor) -> torch.Tensor:
    return result.roll(1, max(result.dim() - 2, 0))


def _stub(*_inputs: Any) -> None:
    raise NotImplementedError


def _name(answer: Any) -> str:
    return getattr(answer, "__name__", "another value").strip("_").replace("_", " ")
