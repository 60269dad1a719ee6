"""Notebook files: read, make the same on every run (normalise), write.

A notebook that is run again without a change gives the same bytes, so that a diff shows what its author did.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import nbformat

Notebook = nbformat.NotebookNode

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
PAGES = ("lessons/gallery.ipynb",)  # which are no lessons: no number, no rhythm
CELL_NOISE = ("execution", "ExecuteTime", "lines_to_next_cell")
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
# Complete, or JupyterLab shows each freshly opened notebook as unsaved; without the Python version, which differs.
LANGUAGE_INFO = {
    "codemirror_mode": {"name": "ipython", "version": 3},
    "file_extension": ".py",
    "mimetype": "text/x-python",
    "name": "python",
    "nbconvert_exporter": "python",
    "pygments_lexer": "ipython3",
}


def sha256(source: str) -> str:
    """The fingerprint of a cell's source; blank lines and spaces around it do not count."""
    return hashlib.sha256(source.strip().encode()).hexdigest()


def read(path: Path) -> Notebook:
    """The notebook in a file, as it stands there. ValueError in one sentence where it is none."""
    try:
        text = path.read_text("utf-8")
        # not nbformat.read: that puts random ids into cells that have none
        notebook = nbformat.reader.reads(text)
        cells = notebook.cells
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"cannot be read as a notebook ({str(error).splitlines()[0][:80]})") from None
    if notebook.nbformat != 4 or not isinstance(cells, list):
        raise ValueError("is in an old notebook format: open and save it once in JupyterLab")
    return notebook


def text_of(notebook: Notebook) -> str:
    """The file content: LF, indent 1, readable Unicode, one newline at the end. ValueError where it is not valid."""
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        raise ValueError(f"is not a valid notebook: {str(error).splitlines()[0]}") from None
    return nbformat.v4.writes(nbformat.from_dict(notebook), split_lines=True).rstrip("\n") + "\n"


def write_if_changed(path: Path, text: str) -> bool:
    """Put the text into the file in one step, if it is not there already. Says whether it was written."""
    data = text.encode()
    if path.exists() and path.read_bytes() == data:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_bytes(data)
    draft.replace(path)
    return True


def normalise(notebook: Notebook) -> Notebook:
    """Take out of the notebook, in place, what differs from run to run; returns it too."""
    notebook.nbformat, notebook.nbformat_minor = 4, max(5, notebook.get("nbformat_minor", 5))
    notebook.metadata.pop("widgets", None)
    notebook.metadata.kernelspec = nbformat.from_dict(KERNELSPEC)
    notebook.metadata.language_info = nbformat.from_dict(LANGUAGE_INFO)
    fix_ids(notebook.cells)
    runs = 0
    for cell in notebook.cells:
        for name in CELL_NOISE:
            cell.metadata.pop(name, None)
        if cell.cell_type != "code":
            continue
        cell.outputs = _outputs(cell.get("outputs", []))
        ran = cell.get("execution_count") is not None or bool(cell.outputs)
        runs += ran
        cell.execution_count = runs if ran else None
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = runs
    return notebook


def fix_ids(cells: list[Notebook]) -> None:
    """Keep the ids that are valid and unique, the first of two alike; make the others from the cell's content."""
    seen: set[str] = set()
    missing = []
    for cell in cells:
        name = cell.get("id")
        if isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) and name not in seen:
            seen.add(name)
        else:
            missing.append(cell)
    for cell in missing:
        stem = name = sha256(f"{cell.cell_type}\n{cell.source}")[:8]
        number = 1
        while name in seen:
            number += 1
            name = f"{stem}-{number}"
        seen.add(name)
        cell.id = name


def _outputs(outputs: list[Notebook]) -> list[Notebook]:
    kept: list[Notebook] = []
    for output in outputs:
        if output.output_type == "stream":
            last = kept[-1] if kept else None
            if last and last.output_type == "stream" and last.name == output.name:
                last.text += output.text
                continue
        elif output.output_type in ("display_data", "execute_result", "update_display_data"):
            output.data.pop(WIDGET_VIEW, None)
            output.get("metadata", {}).pop(WIDGET_VIEW, None)
            if not output.data:
                continue
            output.pop("transient", None)
        kept.append(output)
    for output in kept:
        _clean_text(output)
    return kept


def _clean_text(output: Notebook) -> None:
    """Drop the addresses of objects, and the random names that matplotlib gives an animation's parts."""
    places: list[tuple[Any, str]] = [(output, "text"), (output, "evalue")]
    data = output.get("data", {})
    places.append((data, "text/plain"))
    for holder, key in places:
        if isinstance(holder.get(key), str):
            holder[key] = _no_address(holder[key])
    if "traceback" in output:
        output.traceback = [_no_address(line) for line in output.traceback]
    page = data.get("text/html")
    if isinstance(page, str):
        for number, name in enumerate(dict.fromkeys(re.findall(r"_anim_img([0-9a-f]{32})", page))):
            page = page.replace(name, f"{number:032x}")
        data["text/html"] = page


def _no_address(text: str) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)
