"""A new learner at a task, in a real JupyterLab: not attempted, wrong, wrong again, a hint, right; and a warm-up."""

from urllib.parse import unquote

import pytest

SETUP = """
import os, tempfile
for name in ("PYTEST_VERSION", "BIGBIRD_GRADING"):
    os.environ.pop(name, None)  # a learner's session, not a grader's
os.environ["BIGBIRD_MINI_PROGRESS"] = tempfile.mkdtemp() + "/progress.json"
import torch
from bigbird_mini.course import check, hint, progress, warm_up
import bigbird_mini.course.checking, bigbird_mini.course.hints, bigbird_mini.course.tasks_01
"""
STUB = "def head_attention(q, k, v):\n    raise NotImplementedError"
WRONG = "def head_attention(q, k, v):\n    return torch.softmax(q @ k.T, dim=-1) @ v"
RIGHT = WRONG.replace("q @ k.T", "q @ k.T / q.shape[1] ** 0.5")
CELLS = [SETUP, STUB, 'check("1.1", head_attention)', 'hint("1.1")', "progress()", 'warm_up("1.4")']
RUN = """async ([cell, source]) => {
  const notebook = window.jupyterapp.shell.currentWidget.content;
  if (source !== null) notebook.model.cells.get(cell).sharedModel.setSource(source);
  notebook.deselectAll();
  notebook.activeCellIndex = cell;
  await window.jupyterapp.commands.execute('notebook:run-cell');
}"""


def run(notebook, cell, source=None):
    """Run a cell, with a new text where one is given, and wait for its end."""
    notebook.page.evaluate(RUN, [cell, source])


def outputs(notebook, cell):
    return notebook.page.locator(".jp-Notebook-cell").nth(cell).locator(".jp-Cell-outputArea")


def attempt(notebook, source):
    """Write an answer, run it and its check; returns what the check shows."""
    run(notebook, 1, source)
    run(notebook, 2)
    return outputs(notebook, 2)


def test_a_learner_at_a_task(notebook, shot):
    run(notebook, 0)
    shown = attempt(notebook, STUB)
    text = shown.inner_text()
    assert "○ Task 1.1 (one head by hand): not attempted yet, 0 of 2 points." in text and "Traceback" not in text
    assert "Not passed yet: see the message above" in text
    shot(shown, "not_attempted")

    shown = attempt(notebook, WRONG)
    text = shown.inner_text()
    assert "✘ Task 1.1 (one head by hand): wrong, 0 of 2 points." in text and "No 1/√d" in text
    assert "A smaller case" not in text and 'Stuck? Run hint("1.1").' in text and "Traceback" not in text
    picture = shown.locator("img")
    words = picture.get_attribute("alt")
    assert words.startswith("First differing place: query 0, key 0: expected") and "Different are:" in words
    assert picture.evaluate("image => image.complete && image.naturalWidth") > 300
    shot(shown, "wrong_light")
    notebook.theme("Dark")
    shot(shown, "wrong_dark")
    contrast = shown.locator("[role=status]").evaluate(
        "e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]"
    )
    assert contrast[0] != contrast[1]

    again = attempt(notebook, WRONG.replace("q @ k.T", "(q @ k.T)"))  # another text, the same mistake
    assert "A smaller case, to follow with a pencil" in again.inner_text()
    third = attempt(notebook, WRONG)
    assert "Look again: lesson 01" in third.inner_text()
    link = third.locator("a").first.get_attribute("href")
    assert "lessons/01_dense_attention.ipynb" in link and unquote(link).endswith("#Why-divide-by-√d")
    shot(third, "third_dark")

    run(notebook, 3)
    hint = outputs(notebook, 3)
    assert "Hint 1 of 3" in hint.inner_text() and "worked solution" not in hint.inner_text().split("Hint")[0]
    shot(hint, "hint_dark")
    notebook.theme("Light")

    right = attempt(notebook, RIGHT)
    assert right.inner_text().strip() == "✔ Task 1.1 (one head by hand): right, 2 of 2 points."
    run(notebook, 3)
    assert "The worked solution of task 1.1" in outputs(notebook, 3).inner_text()
    run(notebook, 4)
    assert (
        "✔ 1.1" in outputs(notebook, 4).inner_text()
        and "1 of 5 tasks, 2 of 10 points" in outputs(notebook, 4).inner_text()
    )
    shot(right, "right_light")
    shot(outputs(notebook, 4), "progress_light")
    assert notebook.take_errors() == []


@pytest.fixture
def card(notebook):
    run(notebook, 5)
    card = outputs(notebook, 5).locator(".bb-warm-up")
    card.locator("[role=option]").first.wait_for()
    return card


def texts(card):
    return card.locator("[role=option]").all_inner_texts()


def test_a_warm_up_by_keyboard(notebook, card, shot):
    press = notebook.page.keyboard.press
    before = texts(card)
    card.locator("[role=listbox]").focus()
    press("ArrowDown")
    press("Alt+ArrowUp")
    assert texts(card)[:2] == [before[1], before[0]]
    assert card.locator("[aria-selected=true]").inner_text() == before[1]
    press("ArrowRight")
    assert card.locator(".bb-said").inner_text() == f"{before[1]}: line 1 of {len(before)}, indent 2"
    press("ArrowLeft")
    press("Delete")
    assert texts(card)[0] == f"left out: {before[1]}"
    press("Delete")
    assert texts(card)[0] == before[1]
    card.get_by_role("button", name="Run it").click()
    outcome = card.locator(".bb-outcome")
    outcome.locator("p").wait_for()
    assert "Python cannot read this" in outcome.inner_text() or "error in your code" in outcome.inner_text()

    # put in order, line by line, as a learner would
    wanted = [("i = ", 1), ("grid = (i[:, None] - i[None, :]).abs() <= width // 2", 1), ("for g", 1)]
    wanted += [("grid[g, :]", 2), ("grid[:, g]", 2), ("return", 1)]
    rows = card.locator("[role=option]")
    for goal, (start, indents) in enumerate(wanted):
        place = next(k for k, text in enumerate(texts(card)) if text.startswith(start))
        rows.nth(place).click()
        for _ in range(place - goal):
            press("Alt+ArrowUp")
        for _ in range(indents - 1):
            press("ArrowRight")
    for place in (6, 7):
        rows.nth(place).click()
        card.get_by_role("button", name="leave out").click()
    shot(card, "warm_up_ordered")
    card.get_by_role("button", name="Run it").click()
    notebook.page.wait_for_function("() => document.querySelector('.bb-warm-up').dataset.verdict === 'right'")
    assert "Now write it yourself" in card.locator(".bb-outcome").inner_text()
    notebook.theme("Dark")
    shot(card, "warm_up_dark")
    notebook.theme("Light")
    assert notebook.take_errors() == []
