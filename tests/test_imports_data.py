"""Which import does a name come from: the labels against Python's own scopes, and texts spelled out by hand."""

import symtable

import numpy as np
import pytest
import torch

from bigbird_mini.data import (
    FRESH_NAMES,
    STATEMENT_NUMBERS,
    ByteTokenizer,
    Document,
    import_documents,
    imported_names,
    stdlib_text,
)

SOURCE = '''\
"""os in a docstring."""
import os.path, json as j
from collections import (  # two lines
    Counter, OrderedDict as OD)
from . import sibling
from .far \\
    import away
if os.name == "ß": print(j.x, f"{Counter}", Counter)
import late; OD(sibling=late, away=away.away)
def f(sibling2):
    return OD, os
'''
V = ByteTokenizer.vocab_size


def texts(source, spans):
    return [source.encode()[slice(*span)].decode() for span in spans]


def spelled(ids, names=V):
    """Text with <k> for the fresh name of id V + k and ? for the mask."""
    tokens = ByteTokenizer()
    letters = {tokens.mask_id: "?"}
    return "".join(
        f"<{i - names}>" if i >= names else letters.get(i) or tokens.decode(torch.tensor([i])) for i in ids.tolist()
    )


def test_what_imports_bind_and_where_it_is_used():
    found = imported_names(SOURCE)
    assert [(n.name, n.statement) for n in found] == [
        ("os", 0), ("j", 0), ("Counter", 1), ("OD", 1), ("sibling", 2), ("away", 3), ("late", 4)
    ]  # fmt: skip
    sources = ["os.path", "json as j", "collections", "collections", ".", ".far", "late"]
    assert texts(SOURCE, [n.source for n in found]) == sources
    at = ["os.path", "json as j", "Counter", "OrderedDict as OD", "sibling", "away", "late"]
    assert texts(SOURCE, [n.at for n in found]) == at
    assert [len(n.uses) for n in found] == [2, 1, 1, 2, 0, 1, 1]  # neither in an f-string, nor keywords, nor attributes
    for name in found:
        assert set(texts(SOURCE, name.uses)) <= {name.name}


@pytest.mark.parametrize(
    "other",
    [
        "x = 1",
        "def x(): pass",
        "class x: pass",
        "def f(x): pass",
        "def f(*x): pass",
        "def f(**x): pass",
        "lambda x: 0",
        "def f():\n    import x",
        "def f():\n    from a import b as x",
        "def f():\n    global x\n    x = 1",
        "class A:\n    x: int = 1",
        "for x in (): pass",
        "[0 for x in ()]",
        "(x := 1)",
        "with a as x: pass",
        "try: pass\nexcept A as x: pass",
        "try:\n    import x\nexcept A: pass",
        "match a:\n    case x: pass",
        "match a:\n    case [*x]: pass",
        "match a:\n    case {**x}: pass",
        "match a:\n    case A() as x: pass",
        "del x",
        "x += 1",
        "from b import *",
        "import x",
        "import x.y",
    ],
)
def test_a_name_that_anything_else_binds_is_left_out(other):
    source = "from a import x, y\n{}\nprint(x, y)\n"
    names = [name.name for name in imported_names(source.format("pass"))]
    assert names == ["x", "y"]
    assert "x" not in [name.name for name in imported_names(source.format(other))]


def test_uses_in_inner_scopes_count_and_those_before_the_import_do_not():
    source = "def f():\n    return x\nfrom a import x, y\nclass B(x):\n    z = [x for _ in x if (lambda: x)]\n"
    x, y = imported_names(source)
    assert texts(source, x.uses) == ["x"] * 4 and y.uses == ()
    with pytest.raises(SyntaxError):
        imported_names("from a import")


def globals_of(table, name):
    """Does every scope that mentions the name mean the module's?"""
    own = name in table.get_identifiers() and table.get_type() != "module"
    here = not own or table.lookup(name).is_global()
    return here and all(globals_of(child, name) for child in table.get_children())


def test_real_files_agree_with_the_symbol_tables_of_python():
    checked = 0
    for document in stdlib_text()[::7]:
        try:
            names = imported_names(document.text)
        except SyntaxError:
            continue
        table = symtable.symtable(document.text, document.name, "exec")
        raw = document.text.encode()
        for name in names:
            assert table.lookup(name.name).is_imported() and globals_of(table, name.name), (document.name, name)
            assert {raw[slice(*use)].decode() for use in name.uses} <= {name.name}
            checked += len(name.uses)
    assert checked > 500


# ---------------------------------------------------------------- tokens


def document(source=SOURCE, least=2):
    (made,) = import_documents([Document("a.py", source)], ByteTokenizer(), least)
    return made


def test_a_document_as_tokens_by_hand():
    one = document()
    opened = torch.where(one.ids < 0, V - 1 - one.ids, one.ids)
    text = spelled(opened)
    assert text.startswith("import? as<0>,? as<1>\nfrom? import (  # two lines\n   <2>,<3>)\nfrom? import<4>\nfrom?")
    broken = 2 * "\N{REPLACEMENT CHARACTER}"  # of ß, spelled byte by byte
    assert text.endswith(
        f'if<0>.name == "{broken}": print(<1>.x, f"{{Counter}}",<2>)\nimport? as<6>;<3>(sibling=<6>, away=<5>.away)\n'
        "def f(sibling2):\n    return<3>,<0>\n"
    )
    assert one.bindings[:, 1].tolist() == [0, 0, 1, 1, 2, 3, 4]
    assert (one.ids[one.bindings[:, 0]] == -1 - torch.arange(7)).all()
    assert (one.ids[one.uses[:, 0]] == -1 - one.uses[:, 1]).all() and one.uses[:, 0].diff().min() > 0
    assert one.uses[:, 1].tolist() == [0, 1, 2, 3, 6, 5, 3, 0]
    inside = "".join(spelled(opened[one.statements == s]) + "|" for s in range(5))
    assert inside == "? as<0>,? as<1>|? import (  # two lines\n   <2>,<3>|? import<4>|? \\\n    import<5>|? as<6>|"
    assert one.header == int(one.bindings[6, 0]) + 1


def test_statements_without_a_name_that_counts_have_no_number():
    one = document("import a\nimport b\nimport c\nb = 1\nc.x, a.y\n")
    assert one.bindings[:, 1].tolist() == [0, 1]
    assert spelled(torch.where(one.ids < 0, V - 1 - one.ids, one.ids)).startswith("import? as<0>\nimport b\nimport? as")


def test_files_that_do_not_fit_are_left_out():
    def made(source, least=2):
        return len(import_documents([Document("a.py", source)], ByteTokenizer(), least))

    assert made("import a, b\na") == 0 and made("import a, b\na", 1) == made("import a\nimport b\na") == 1
    assert made("import a\nimport b\n") == made("import a\nimport b\nimport") == made("x = 1", 1) == 0
    many = [f"import a{i}\n" for i in range(STATEMENT_NUMBERS + 1)]
    assert made("".join(many) + "a0") == 0 and made("".join(many[1:]) + "a1") == 1
    names = [f"a{i}" for i in range(FRESH_NAMES)]
    assert made(f"import b\nfrom c import {', '.join(names)}\na0") == 0
    assert made(f"import b\nfrom c import {', '.join(names[1:])}\na1") == 1


@pytest.mark.parametrize("seed", [0, 1])
def test_a_reading_keeps_names_together_and_labels_by_statement(seed):
    one = document()
    reading = one.read(V, np.random.default_rng(seed))
    open_places = one.ids < 0
    assert torch.equal(reading.ids[~open_places], one.ids[~open_places])
    drawn = {}
    for code, got in zip(one.ids[open_places].tolist(), reading.ids[open_places].tolist(), strict=True):
        assert drawn.setdefault(code, got) == got and V <= got < V + FRESH_NAMES
    assert len(set(drawn.values())) == len(drawn) == 7
    assert torch.equal(reading.segments > 0, one.statements >= 0)
    numbers = {}
    for place, name in one.uses.tolist():
        bound, statement = one.bindings[name].tolist()
        assert reading.labels[place] == reading.segments[bound] - 1
        assert reading.distances[place] == place - bound
        numbers[statement] = int(reading.labels[place])
    assert len(set(numbers.values())) == len(numbers) and max(numbers.values()) < STATEMENT_NUMBERS
    assert (reading.labels >= 0).sum() == len(one.uses) == (reading.distances > 0).sum()


def test_readings_differ_by_what_is_drawn_alone():
    one = document()
    first, again, other = (one.read(V, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.ids, other.ids) and not torch.equal(first.segments, other.segments)
    assert torch.equal(first.distances, other.distances)


def test_a_use_is_asked_only_where_its_import_is_read():
    one = document()
    keep = torch.ones_like(one.ids, dtype=torch.bool)
    keep[: int(one.bindings[1, 0])] = False  # the import of os is cut off; that of j is not
    reading = one.read(V, np.random.default_rng(0), keep)
    assert len(reading.ids) == int(keep.sum())
    asked = reading.labels >= 0
    left = [(place, name) for place, name in one.uses.tolist() if name != 0]
    assert asked.nonzero().flatten().tolist() == [place - int((~keep).sum()) for place, _ in left]
    assert reading.distances[asked].tolist() == [place - int(one.bindings[name, 0]) for place, name in left]


def test_excerpts_are_the_header_and_what_lies_around_uses():
    names = "".join(f"from m{i} import n{i}\n" for i in range(3))
    code = "".join(f"{'x = 12345678; ' * 20}\ny = n{i % 3} + 1\n" for i in range(12))
    one = document(names + code)
    seen = set()
    for seed in range(5):
        keep = one.excerpt(one.header + 60, 12, np.random.default_rng(seed))
        assert keep.sum() == one.header + 60 and keep[: one.header].all()
        reading = one.read(V, np.random.default_rng(seed), keep)
        assert (reading.labels >= 0).sum() >= 5
        seen.add(tuple(keep.nonzero().flatten().tolist()))
        starts = [int(place) for place in one.uses[:, 0] if keep[place - 7 : place + 5].all()]
        assert len(starts) >= 5  # of twelve tokens, eight end with the use
    assert len(seen) == 5
    assert one.excerpt(40, 12, np.random.default_rng(0))[:20].all() and one.header > 40
    assert one.excerpt(10**6, 12, np.random.default_rng(0)).all()
    assert one.excerpt(len(one.ids) - 1, 2, np.random.default_rng(0)).sum() == len(one.ids) - 1
