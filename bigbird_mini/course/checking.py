"""check("1.1", my_function): test one answer, show the outcome, help a little more each time, remember it.

The first time a mistake is made it is named and drawn; the second time there is a case to follow by hand, the third a
pointer to the lesson. The judgement itself is in `judging`.
"""

import html
import re
import sys
from typing import Any

from bigbird_mini.viz.show import img_tag

from . import diary
from .catalogue import Look, Task, all_tasks
from .judging import LOOKS, Misuse, Result, evaluate

__all__ = ["LOOKS", "MIME", "Misuse", "NotPassed", "Result", "Task", "all_tasks", "check", "evaluate"]

MIME = "application/vnd.bigbird.score+json"
_BOX = (
    "color: var(--jp-content-font-color1, inherit); background: var(--jp-layout-color1, transparent); "
    "border: 1px solid var(--jp-border-color2, gray); border-left: 4px solid var({colour}, gray); padding: 4px 8px"
)


class NotPassed(AssertionError):
    """Ends a check cell whose task is not passed. IPython prints one line for it in place of a traceback."""

    def _render_traceback_(self) -> list[str]:
        if diary.grading():  # there is no message above that anybody reads
            return [str(self)]
        return ["Not passed yet: see the message above, change your answer, run both cells again."]


def check(number: str, *answers: Any) -> None:
    """Test the answer to a task and show the outcome in one line, with a picture where there is one.

    Raises NotPassed where the task is not passed, so that the notebook fails wherever it is run, and Misuse (a
    ValueError) where there is no such task or no answer.
    """
    result = evaluate(number, *answers)
    _show(result, _help(result))
    if result.outcome != "right":
        raise NotPassed(result.text())


def _help(result: Result) -> list[str]:
    """What is said beyond the outcome, one paragraph each; remembers the check. Nothing while grading."""
    name = result.mistake.name if result.mistake else ""
    now = diary.note(result.task.number, result.outcome, name, result.effort)
    said = []
    if now.told >= 2 and result.small:
        said.append(result.small)
    look = (result.mistake and result.mistake.look) or result.task.look
    if now.told >= 3 and look:
        said.append(pointer(result.task, look))
    if now.attempts and result.outcome in ("wrong", "error") and result.task.hints and not diary.grading():
        said.append(f'Stuck? Run hint("{result.task.number}").')
    return said + diary.take_notices()


def pointer(task: Task, look: Look) -> str:
    """Where the lesson speaks of it, in words."""
    number = task.lesson.split("_")[0]
    return f"Look again: lesson {number}, «{look.section}», the cell with `{look.line}`."


def linked(words: str, task: Task, look: Look | None) -> str:
    """The words as HTML; where they name the place in the lesson, as a link to it."""
    page = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(words))
    if look:
        address = f"../lessons/{task.lesson}.ipynb#{look.section.replace(' ', '-')}"
        name = html.escape(look.section)
        page = page.replace(f"«{name}»", f'<a href="{html.escape(address)}">{name}</a>')
    return page


def _html(result: Result, said: list[str]) -> str:
    """The outcome in the colours of the reader's JupyterLab theme, with the picture and the help."""
    mark, _, colour = LOOKS[result.outcome]
    page = f'<div><b><span aria-hidden="true">{mark}</span> {html.escape(result.head())}</b></div>'
    if result.why:
        page += f'<div style="margin: 6px 0; white-space: pre-wrap">{_why(result)}</div>'
    if picture := _picture(result):
        page += f'<div style="margin: 6px 0">{img_tag(*picture)}</div>'
    look = (result.mistake and result.mistake.look) or result.task.look
    page += "".join(f'<p style="margin: 6px 0">{linked(part, result.task, look)}</p>' for part in said)
    return f'<div role="status" style="{_BOX.format(colour=colour)}">{page}</div>'


def _why(result: Result) -> str:
    """The reason as HTML, the name of the mistake standing out; line ends are kept."""
    name = result.mistake.name if result.mistake else ""
    words = linked(result.why[len(name) :], result.task, None)
    return f"<b>{html.escape(result.why[: len(name)])}</b>{words}" if name else words


def _picture(result: Result) -> tuple[str, str] | None:
    try:
        return result.picture()
    except Exception:
        return None  # the words matter more than a drawing that fails


def in_notebook() -> bool:
    """Whether there is a notebook (or another IPython) that shows what is displayed."""
    shell = sys.modules.get("IPython")  # not imported, not running
    return shell is not None and shell.get_ipython() is not None


def _show(result: Result, said: list[str]) -> None:
    if result.printed:
        print(f"Your function printed:\n{result.printed}")
    words = "\n".join([result.text(), *said])
    if not in_notebook():
        print(words)
        return
    from IPython.display import display

    display({"text/plain": words, "text/html": _html(result, said), MIME: result.record()}, raw=True)
