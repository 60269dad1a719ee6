"""A room imports only rooms listed above it, and `import bigbird_mini` stays light."""

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "bigbird_mini"
# Rooms of one line do not import each other.
FLOORS = [
    {"plans"},
    {"lists"},
    {"pattern"},
    {"graph", "cost", "attention", "tasks", "data", "checkpoint"},
    {"rivals"},
    {"model"},
    {"train"},
    {"jobs"},
    {"distill"},
    {"experiments"},
    {"viz"},
    {"course"},
    {"bench"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
HEAVY = ("matplotlib", "ipywidgets", "anywidget", "nbformat", "scipy", "transformers", "safetensors", "tqdm", "IPython")


def imports(path, package=PACKAGE):
    """The rooms that a file of the package imports, by absolute or relative import, at any depth."""
    here = path.relative_to(package.parent).with_suffix("").parts  # ('bigbird_mini', 'attention', 'dense')
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            home = list(here[: len(here) - node.level]) if node.level else []
            home += node.module.split(".") if node.module else []
            names = [[*home, alias.name] for alias in node.names]
        else:
            continue
        for name in names:
            if name[0] == package.name and len(name) > 1:
                yield name[1]


def breaches(package=PACKAGE):
    found = []
    for path in sorted(package.rglob("*.py")):
        room = path.relative_to(package).with_suffix("").parts[0]
        if room == "__init__":
            continue
        if room not in FLOOR:
            found.append(f"{path.name}: {room} is no room of the house")
            continue
        for other in imports(path, package):
            if other not in FLOOR:
                found.append(f"{path.relative_to(package)} imports {other}, by way of the package itself")
            if other != room and FLOOR.get(other, -1) >= FLOOR[room]:
                found.append(f"{path.relative_to(package)} imports {other}")
    return found


def test_no_room_imports_upwards_or_sideways():
    assert breaches() == []


def test_a_breach_would_be_seen(tmp_path):
    house = tmp_path / "bigbird_mini"
    (house / "attention").mkdir(parents=True)
    (house / "pattern.py").write_text("from .model import X\nimport bigbird_mini.viz\nfrom . import BigBirdModel\n")
    (house / "attention" / "dense.py").write_text("from ..data import genome\nfrom .. import pattern, course\n")
    (house / "kitchen.py").write_text("")
    assert breaches(house) == [
        "attention/dense.py imports data",
        "attention/dense.py imports course",
        "kitchen.py: kitchen is no room of the house",
        "pattern.py imports model",
        "pattern.py imports viz",
        "pattern.py imports BigBirdModel, by way of the package itself",
    ]


def test_importing_and_running_loads_torch_and_numpy_alone():
    code = (
        "import sys, torch, numpy; before = set(sys.modules); import bigbird_mini as bm, torch;"
        "c = bm.BigBirdConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2);"
        "bm.BigBirdForMaskedLM(c)(torch.ones(1, 700, dtype=torch.long));"
        "print(sorted({m.split('.')[0] for m in set(sys.modules) - before}))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = ast.literal_eval(ran.stdout)
    assert "bigbird_mini" in loaded and not set(loaded) & set(HEAVY)


def test_the_public_names_are_there():
    import bigbird_mini

    for name in bigbird_mini.__all__:
        assert getattr(bigbird_mini, name).__doc__
