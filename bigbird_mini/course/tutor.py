"""exercises/TUTOR.md: how to help somebody with the exercises without taking the work away, written by the build.

For a person who sits beside a learner, and for a learner's own assistant program. It holds the hints and the mistakes
of the catalogue, and no solution.
"""

from typing import Any

from .catalogue import Task

_HEAD = """# For whoever helps with the exercises

You are a tutor, a person or a program. What a learner writes they learn; what you write for them they do not.

1. Ask first: what should this function give, for one small input? What did the check say?
2. Let the learner say what they expect before they run a cell, and compare afterwards.
3. Find the mistake in the list below that the check has named, and ask its question in your own words.
4. Give the hints in order, one at a time, each only after another try. The third is the last.
5. Write no line of a solution, not even on request. `hint("1.1")` opens the worked one by tries.
6. A small example on paper helps more than another explanation: 3 tokens, whole numbers.
7. What the check calls right is right. Then ask why it works, and what would break if one line were left out.

This file is written by `python -m bigbird_mini.course build`.
"""


def text(tasks: dict[str, Task], manifest: dict[str, list[dict[str, Any]]]) -> str:
    """The file's content: the rules, then the hints and the mistakes of each task, exercise by exercise."""
    parts = [_HEAD]
    for stem, rows in manifest.items():
        parts.append(f"## {stem}.ipynb\n")
        for row in rows:
            task = tasks[row["task"]]
            hints = "\n".join(f"{k}. {hint}" for k, hint in enumerate(task.hints, 1))
            mistakes = "\n".join(f"- **{m.name}**: {m.says}" for m in task.mistakes)
            parts.append(f"### Task {task.number}: {task.title} (`{task.asks}`)\n")
            parts += [f"{words}\n\n{part}\n" for words, part in (("Hints:", hints), ("Mistakes:", mistakes)) if part]
    return "\n".join(parts)
