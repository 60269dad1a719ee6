"""lint: the course's notebooks keep what they promise, and each rule finds what was planted against it."""

import json
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from bigbird_mini.course import lint
from bigbird_mini.course.__main__ import main

ROOT = Path(__file__).parents[2]
# (notebook, rule): what is known and not yet mended. Take it out when it is.
KNOWN = {("lessons/01_dense_attention.ipynb", "cells"), ("lessons/01_dense_attention.ipynb", "median")}
TASK = SimpleNamespace(number="5.1", title="one thing", points=2, hints=("a", "b", "c"), why="because")
PROSE = "A sentence of ten words stands here, and here again. " * 5
ALT = '<img alt="a picture of twelve blocks" src="data:image/png;base64,iVBO/home/me">'


def test_the_course():
    found, count = lint.lint(ROOT)
    assert count >= 4
    assert [str(f) for f in found if (f.path, f.rule) not in KNOWN] == []


# ---------------------------------------------------------------- a course without a fault


def markdown(text, id):
    return nbformat.v4.new_markdown_cell(text, id=id)


def code(text, id, *outputs, count=1):
    outputs = [nbformat.from_dict(output) for output in outputs]
    return nbformat.v4.new_code_cell(text, id=id, outputs=outputs, execution_count=count)


def shown(**data):
    kinds = {"png": "image/png", "html": "text/html", "svg": "image/svg+xml", "text": "text/plain"}
    return {"output_type": "display_data", "metadata": {}, "data": {kinds[k]: v for k, v in data.items()}}


ANSWER = "def f(x):\n    ### BEGIN SOLUTION\n    return secret_of(x, 3)  # so\n    ### END SOLUTION\n    unused = 1"
TASKS = [
    markdown("# Exercise\n\nOne task, 2 points, about 30 minutes.", "intro"),
    markdown("## Task 5.1 One thing (2 points)\n\nSee [the lesson](../lessons/05_sample.ipynb#one).", "task"),
]


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A course with one lesson, one solution and one exercise, in order: a function that gives their notebooks."""
    monkeypatch.setattr(lint, "all_tasks", lambda: {"5.1": TASK})
    lesson = [markdown(f"*About 30 minutes.* {PROSE}", "m0")]
    for number in range(1, 15):
        lesson += [code("x = 1\n\ny = 2", f"c{number}"), markdown(PROSE, f"m{number}")]
    lesson[3].outputs = [nbformat.from_dict(shown(png="iVBO", html=ALT, text="words"))]
    check = [code('check("5.1", f)', "check"), code('hint("5.1")', "hint")]
    books = {
        "lessons": lesson,
        "solutions": [*TASKS, code(ANSWER, "answer"), *check],
        "exercises": [*TASKS, code("def f(x):\n    # TODO\n    unused = 1", "answer", count=None), *check],
    }
    notebooks = {
        kind: nbformat.v4.new_notebook(cells=[nbformat.from_dict(c) for c in cells]) for kind, cells in books.items()
    }
    for cell in notebooks["exercises"].cells[3:]:
        cell.execution_count = None
    course = SimpleNamespace(root=tmp_path, **notebooks)
    course.find = lambda: findings(course)
    return course


def findings(course):
    for kind in ("lessons", "solutions", "exercises"):
        (course.root / kind).mkdir(exist_ok=True)
        text = json.dumps(getattr(course, kind))
        (course.root / kind / "05_sample.ipynb").write_text(text, "utf-8")
    found, count = lint.lint(course.root)
    assert count == 3
    return [(f.path.split("/")[0], f.cell, f.rule, f.sentence) for f in found]


def test_a_course_in_order_has_no_findings(course):
    assert course.find() == []


def cell(notebook, id):
    return next(c for c in notebook.cells if c.id == id)


def prose(text):
    return lambda course: cell(course.lessons, "m3").update(source=f"{PROSE} {text}")


def source(text):
    return lambda course: cell(course.lessons, "c3").update(source=text)


def output(**data):
    return lambda course: cell(course.lessons, "c3").update(outputs=[nbformat.from_dict(shown(**data))])


def solution(id, text):
    return lambda course: cell(course.solutions, id).update(source=text)


def exercise(id, text):
    return lambda course: cell(course.exercises, id).update(source=text)


def few_words(course):
    for c in course.lessons.cells[::2]:
        c.source = "few"


def stream(name, text):
    said = nbformat.from_dict({"output_type": "stream", "name": name, "text": text})
    return lambda course: cell(course.lessons, "c3").update(outputs=[said])


def error(course):
    said = {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": []}
    cell(course.lessons, "c3").outputs = [nbformat.from_dict(said)]


def many(kind, number):
    def plant(course):
        course.lessons.cells += [kind("x = 1", f"x{n}") for n in range(number)]

    return plant


def short(course):
    del course.lessons.cells[20:]


def lines(number):
    def plant(course):
        for c in course.lessons.cells:
            if c.cell_type == "code":
                c.source = "\n".join("x = 1" for _ in range(number))

    return plant


def screenfuls(course):
    for id in ("c3", "c5"):
        cell(course.lessons, id).source = "\n".join("x = 1" for _ in range(20))


PLANTED = {
    "cells": [("lessons", "", "46 cells", many(markdown, 17)), ("lessons", "", "20 cells", short)],
    "median": [("lessons", "", "6 lines", lines(6)), ("lessons", "", "1 lines", lines(1))],
    "long": [("lessons", "c5", "20 lines, and 2 of 14", screenfuls)],
    "row": [("lessons", "x3", "more than 3 code cells in a row", many(code, 4))],
    "words": [
        ("lessons", "m3", "250 words", prose("word " * 200)),
        ("lessons", "", "words; a lesson has", few_words),
    ],
    "ran": [
        ("lessons", "c3", "has not been run", lambda course: cell(course.lessons, "c3").update(execution_count=None)),
        ("solutions", "check", "has not been run", lambda c: cell(c.solutions, "check").update(execution_count=None)),
    ],
    "clean": [("exercises", "check", "it has outputs", lambda c: cell(c.exercises, "check").update(execution_count=1))],
    "pictures": [
        ("lessons", "c3", "a picture without words", output(png="iVBO", text="x")),
        ("lessons", "c3", "whose alt text is 'few'", output(png="iVBO", html='<img alt="few" src="data:">')),
        ("lessons", "c3", "an <img> without alt text", output(html='<p><img src="data:"></p>')),
        ("lessons", "c3", "an <svg> without aria-label", output(html='<svg width="3"><path/></svg>')),
        ("lessons", "c3", "an <svg> without aria-label", output(svg="<svg><path/></svg>", text="x")),
        ("lessons", "m3", "the picture's words, 'few', are too few", prose("![few](05_sample.ipynb)")),
    ],
    "errors": [
        ("lessons", "c3", "a saved error, ValueError", error),
        ("lessons", "c3", "output on stderr: 'Warning: b'", stream("stderr", "a\nWarning: b\n")),
    ],
    "widgets": [
        ("lessons", "", "metadata.widgets", lambda course: course.lessons.metadata.update(widgets={"a": 1})),
        ("lessons", "c3", "a widget view", lambda course: cell(course.lessons, "c3").update(outputs=[nbformat.from_dict(
            {"output_type": "display_data", "metadata": {}, "data": {lint.files.WIDGET_VIEW: {}}})])),
    ],
    "paths": [
        ("lessons", "c3", "an absolute path in the source, /home/me", source("x = 1\nopen('/home/me/x')")),
        ("lessons", "c3", "an absolute path in the output, /tmp/x", stream("stdout", "see /tmp/x")),
        ("lessons", "c3", "an absolute path in the output, C:\\Users", stream("stdout", "see C:\\Users\\me")),
        ("lessons", "m3", "an absolute path in the source, /home/x", prose("in /home/x")),
    ],
    "network": [
        ("lessons", "c3", "asks for a network, requests", source("x = 1\nimport requests")),
        ("lessons", "c3", "asks for a network, https://", source("x = 1\nopen_it('https://a.b')")),
        ("lessons", "c3", "asks for a network, pip install", source("x = 1\n%pip install thing")),
        ("lessons", "c3", "asks for a network, from_pretrained", source('x = 1\nM.from_pretrained("google/bird")')),
        ("lessons", "c3", "from elsewhere, <script src", output(html='<script src="https://a.b/c.js"></script>')),
        ("lessons", "m3", "from elsewhere, ![", prose("![a picture of many blocks](https://a.b/c.png)")),
    ],
    "times": [
        ("lessons", "m3", "a time in prose, '3.5 seconds'", prose("takes 3.5 seconds")),
        ("lessons", "m3", "a time in prose, '12 ms'", prose("takes 12 ms")),
        ("lessons", "m3", "a time in prose, '20 minutes'", prose("trains for 20 minutes.")),
        ("lessons", "m3", "a time in prose, '6 times faster'", prose("is 6 times faster")),
    ],
    "claims": [
        ("lessons", "m3", "65 is stated, and 8 ** 2 is 64.00", prose("64<!--= 8 ** 2 --> or 65<!--= 8 ** 2 --> cells")),
        ("solutions", "task", "no number stands right before", solution("task", "many<!--= 3 -->")),
    ],
    "links": [("lessons", "m3", "the link 06_gone.ipynb leads nowhere", prose("[next](06_gone.ipynb#here)"))],
    "points": [
        ("solutions", "task", "One thing (2 points)", solution("task", "## Task 5.1 One thing (3 points)")),
        ("solutions", "", "the heading of task 5.1 should be", solution("task", "## Five")),
        ("solutions", "task", "should be: ## Task 5.1 One thing", solution("task", "## Task 5.1 Another (2 points)")),
        ("solutions", "intro", "should say: one task, 2 points", solution("intro", "Two tasks, 2 points")),
        ("solutions", "intro", "task 5.2, and no", solution("intro", "One task, 2 points\n## Task 5.2 X (1 point)")),
    ],
    "hints": [("solutions", "check", 'no cell says hint("5.1")', solution("hint", "x = 1"))],
    "answers": [
        ("exercises", "answer", "'return secret_of(x, 3)'", exercise("answer", ANSWER.replace("###", "#"))),
        ("exercises", "task", "'return secret_of(x, 3)'", exercise("task", "Write `return secret_of(x, 3)`.")),
        ("exercises", "answer", "'### END SOLUTION'", exercise("answer", "x\n### END SOLUTION")),
    ],
}  # fmt: skip


@pytest.mark.parametrize("rule, number", [(rule, n) for rule, plants in PLANTED.items() for n in range(len(plants))])
def test_each_rule_finds_what_is_planted(course, rule, number):
    kind, id, words, plant = PLANTED[rule][number]
    plant(course)
    found = course.find()
    assert any(f[:3] == (kind, id, rule) and words in f[3] for f in found), found
    others = {f[2] for f in found} - {rule}
    assert others <= {"cells", "words", "median", "row", "points"}, found


def test_every_rule_is_tried():
    assert set(PLANTED) == {rule.__name__ for rules in lint.RULES.values() for rule in rules}


def test_hints_are_three_different_ones_with_a_why(course, monkeypatch):
    poor = SimpleNamespace(**vars(TASK) | {"hints": ("a", "b", "b"), "why": " "})
    monkeypatch.setattr(lint, "all_tasks", lambda: {"5.1": poor})
    assert [f[3] for f in course.find()] == [
        "task 5.1 has 2 different hints, not 3",
        "task 5.1 does not say why its solution is as it is",
    ]


ALLOWED = [
    prose("[a site](https://a.b/c), [here](05_sample.ipynb#it), $x = 3s$, 768 in a row, 11 GB, half a minute"),
    source("x = 1\nprint(f'{x:.1f} seconds')"),
    output(html='<svg role="img" aria-label="12 blocks"><path/></svg> <a href="https://a.b">more</a>'),
    output(html='<svg><title>12 blocks</title></svg>'),
    stream("stdout", "and/or, 1/2, ratio/home"),
    lambda course: (error(course), cell(course.lessons, "c3").metadata.update(tags=["raises-exception"])),
    lambda course: [c.metadata.update(jupyter={"source_hidden": True}) or c.update(source="x\n" * 9)
                    for c in course.lessons.cells[1:20:2]],
]  # fmt: skip


@pytest.mark.parametrize("plant", ALLOWED)
def test_what_is_allowed_is_not_found(course, plant):
    plant(course)
    assert course.find() == []


def test_the_command(course, capsys):
    assert course.find() == []
    assert main(["lint", "--root", str(course.root)]) == 0
    assert capsys.readouterr().out == "3 notebooks, 0 findings\n"
    error(course)
    course.find()
    (course.root / "lessons" / "06_cut.ipynb").write_text('{"cells": [', "utf-8")
    assert main(["lint", "--root", str(course.root), "lessons"]) == 1
    first, second, last = capsys.readouterr().out.splitlines()
    assert first == "lessons/05_sample.ipynb, cell c3: errors: a saved error, ValueError"
    assert second.startswith("lessons/06_cut.ipynb: readable: the file cannot be read as a notebook (")
    assert last == "2 notebooks, 2 findings"
    assert main(["lint", "--root", str(course.root), "nothing"]) == 2
    assert "there are no notebooks nothing in" in capsys.readouterr().err
