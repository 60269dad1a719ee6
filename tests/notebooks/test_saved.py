"""What is saved in the committed notebooks: pictures with words, no errors, nothing of the machine that ran them."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(p for folder in ("lessons", "solutions", "exercises") for p in (ROOT / folder).glob("*.ipynb"))
PATHS = re.compile(r"(?<![\w.])/(?:home|Users|root|tmp|work|var)/\w|[A-Z]:\\\\Users")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_what_is_saved(path):
    notebook = json.loads(path.read_text("utf-8"))
    assert "widgets" not in notebook["metadata"], "widget state: GitHub would refuse the file"
    for number, cell in enumerate(notebook["cells"]):
        for output in cell.get("outputs", []):
            where = f"cell {number}"
            data = output.get("data", {})
            assert output["output_type"] != "error", f"{where} saved an error: {output.get('ename')}"
            assert "application/vnd.jupyter.widget-view+json" not in data, f"{where}: a widget view"
            if "image/png" in data:
                words = re.findall(r'alt="([^"]{30,})"', "".join(data.get("text/html", "")))
                assert words, f"{where}: a picture without words"
            text = json.dumps({kind: x for kind, x in data.items() if kind != "image/png"}) + str(
                output.get("text", "")
            )
            text = re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
            assert not PATHS.search(text), f"{where}: a path of the machine, {PATHS.search(text)[0]}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_links_to_files_lead_somewhere(path):
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "markdown":
            for link in re.findall(r"\]\(([^)#]+)[^)]*\)", "".join(cell["source"])):
                assert re.match(r"https?:", link) or (path.parent / link).exists(), f"{path.name} links to {link}"


def test_there_are_notebooks():
    assert {"00_start.ipynb", "01_dense_attention.ipynb"} <= {p.name for p in NOTEBOOKS}
