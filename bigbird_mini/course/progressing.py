"""progress(): the map of lessons, tasks and skills; review(): a question about a mistake that was made before.

Both read the diary, which stays on this computer. A mistake that was told comes back as a question after 1, 3, 7 and 21
days, from the start again after a wrong answer.
"""

import argparse
import html
from dataclasses import dataclass
from datetime import date
from typing import Any

from . import diary
from .catalogue import Mistake, Task, all_tasks, by_number
from .checking import in_notebook
from .judging import LOOKS, Result, evaluate, titled

CHOICES = 4


@dataclass(frozen=True)
class Line:
    """One task on the map: its mark, what became of it in words, and the task."""

    task: Task
    mark: str
    state: str
    passed: bool


class Progress:
    """What `progress` shows; as text in a terminal, as a table in a notebook."""

    def __init__(self) -> None:
        rows, tasks = diary.rows(), all_tasks()
        self.lessons: dict[str, list[Line]] = {}
        for task in tasks.values():
            self.lessons.setdefault(_lesson(task), []).append(_line(task, rows.get(task.number, {})))
        self.due = [(number, name, day) for number, name, day in diary.due() if number in tasks]
        self.tasks, self.notices, self.place = tasks, diary.take_notices(), diary.place()

    def _sums(self, lines: list[Line]) -> str:
        done = [line for line in lines if line.passed]
        points, most = (sum(line.task.points for line in some) for some in (done, lines))
        return f"{len(done)} of {len(lines)} tasks, {points} of {most} points"

    def _reviews(self) -> list[str]:
        out = []
        for number, name, day in self.due:
            when = "now" if day <= diary.today() else day.isoformat()
            out.append(f"{when}: task {number}, {name}")
        return out

    def _foot(self) -> list[str]:
        where = f"Kept in {self.place}; nothing leaves this computer." if self.place else "Not kept in any file."
        return [*self.notices, where]

    def __repr__(self) -> str:
        out = []
        for lesson, lines in self.lessons.items():
            out.append(f"Lesson {lesson}: {self._sums(lines)}")
            out += [f"  {x.mark} {x.task.number:<5} {x.task.title:<34} {x.task.skill:<32} {x.state}" for x in lines]
        if reviews := self._reviews():
            out += ["To look at again, with review() in a notebook:", *(f"  {line}" for line in reviews)]
        return "\n".join([*out, *self._foot()])

    def _repr_html_(self) -> str:
        cell = 'style="text-align: left; padding: 2px 10px 2px 0"'
        page = ""
        for lesson, lines in self.lessons.items():
            body = ""
            for x in lines:
                words = (f"{x.mark} {x.task.number}", x.task.title, x.task.skill, x.state)
                body += f"<tr>{''.join(f'<td {cell}>{html.escape(word)}</td>' for word in words)}</tr>"
            head = "".join(f'<th scope="col" {cell}>{word}</th>' for word in ("task", "", "skill", "so far"))
            caption = f"<caption {cell}><b>Lesson {html.escape(lesson)}</b>: {self._sums(lines)}</caption>"
            page += f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        if reviews := self._reviews():
            items = "".join(f"<li>{html.escape(line)}</li>" for line in reviews)
            page += f"<p><b>To look at again</b> with <code>review()</code>:</p><ul>{items}</ul>"
        foot = "".join(f"<p><small>{html.escape(line)}</small></p>" for line in self._foot())
        return f'<div style="color: var(--jp-content-font-color1, inherit)">{page}{foot}</div>'


def progress() -> Progress:
    """The map of lessons and skills, with what is passed, tried, and due to be looked at again."""
    return Progress()


def _lesson(task: Task) -> str:
    number, _, title = task.lesson.partition("_")
    return f"{number} {title.replace('_', ' ')}".strip() or str(by_number(task.number)[0])


def _line(task: Task, row: dict[str, Any]) -> Line:
    passed, outcome = row.get("passed", ""), row.get("outcome", "")
    tries = len(row.get("attempts", ()))
    other = (
        f"{tries} other {'try' if tries == 1 else 'tries'}" if passed else f"{tries} {'try' if tries == 1 else 'tries'}"
    )
    state = f"passed {passed}" if passed else LOOKS[outcome][1] if outcome in LOOKS else "not attempted yet"
    mark = LOOKS["right" if passed else outcome if outcome in LOOKS else "not attempted"][0]
    return Line(task, mark, state + (f", {other}" if tries else ""), bool(passed))


# ---------------------------------------------------------------- reviews


class Nothing:
    """What `review` returns where nothing is due: one sentence."""

    def __init__(self, following: date | None) -> None:
        self.following = following

    def __repr__(self) -> str:
        if self.following is None:
            return "There is nothing to look at again: a mistake that a check names comes back here a day later."
        return f"There is nothing to look at again today; the next is due on {self.following.isoformat()}."


def review() -> Any:
    """A question about the mistake that is due first: a card that shows what it gives and asks which one it is."""
    tasks = all_tasks()
    known = [(tasks[number], name, day) for number, name, day in diary.due() if number in tasks]
    waiting = [(task, found, day) for task, name, day in known if (found := _by_name(task, name))]
    if not waiting or waiting[0][2] > diary.today():
        return Nothing(waiting[0][2] if waiting else None)
    task, mistake, day = waiting[0]
    result = evaluate(task.number, mistake.wrong[0])
    _show_what_comes(result)
    from .predicting import predict

    card = predict(
        f"review {task.number}, due {day.isoformat()}",
        f"{_question(task, mistake, result)} What went wrong?",
        answer=mistake.name,
        choices=choices_for(task, mistake),
        explain=mistake.says[:1].upper() + mistake.says[1:],
    )
    card.observe(lambda change: _answered(task, mistake, change["new"]), names="outcome")
    return card


def _by_name(task: Task, name: str) -> Mistake | None:
    return next((mistake for mistake in task.mistakes if mistake.name == name), None)


def _answered(task: Task, mistake: Mistake, outcome: dict[str, Any]) -> None:
    if outcome:
        diary.reviewed(task.number, mistake.name, outcome.get("verdict") == "right")


def choices_for(task: Task, mistake: Mistake) -> list[str]:
    """The mistake's name among others of its task, always in the same order."""
    names = [m.name for m in task.mistakes]
    place = names.index(mistake.name)
    some = [names[(place + step) % len(names)] for step in range(min(CHOICES, len(names)))]
    return sorted(some, key=str.casefold)


def _question(task: Task, mistake: Mistake, result: Result) -> str:
    whose = f"Somebody's {task.asks} (task {task.number}, {task.title})"
    if result.picture():
        return f"{whose} gives this."
    return f"{whose}: {result.why.removeprefix(titled(mistake)).strip()}"


def _show_what_comes(result: Result) -> None:
    picture = result.picture()
    if picture is None:
        return
    if in_notebook():
        from bigbird_mini.viz.show import show

        show(*picture)
    else:
        print(picture[1])


# ---------------------------------------------------------------- command line


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """`python -m bigbird_mini.course progress` takes no options."""


def main(_options: argparse.Namespace) -> int:
    print(progress())
    return 0
