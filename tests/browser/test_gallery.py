"""The gallery in JupyterLab: every instrument on one page, each first frame in the colours of the page."""

import json
from pathlib import Path

import pytest
from browser import rig

expect = pytest.importorskip("playwright.sync_api", reason="needs the extra browser").expect

GALLERY = Path(__file__).parents[2] / "lessons" / "gallery.ipynb"
CODE = ["".join(c["source"]) for c in json.loads(GALLERY.read_text("utf-8"))["cells"] if c["cell_type"] == "code"]
KINDS = ("pattern", "flow", "paint", "cost", "attention", "watch")


@pytest.fixture(scope="module")
def gallery(lab, chromium):
    """So tall a window that JupyterLab shows all cells; it renders their widgets before they are in the page."""
    opened = rig.open_notebook(lab, chromium, "gallery.ipynb", CODE, height=7600)
    opened.python(CODE[0])
    opened.fresh()
    yield opened
    opened.page.context.close()


@pytest.mark.parametrize("kind", KINDS)
def test_every_instrument_is_there_and_at_work(gallery, kind):
    view = gallery.page.locator(f".bb-{kind}").first
    expect(view).to_be_visible()
    expect(view.locator(".bb-problem").first).to_have_text("")
    assert gallery.take_errors() == []


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_what_is_empty_has_the_colour_of_the_page(gallery, theme):
    """The end of the light cone of a window, where no news has come: a canvas that did not know its colours yet would
    have filled it."""
    if theme == "Dark":
        gallery.theme(theme)
    cone = gallery.page.locator(".bb-flow canvas").nth(2)
    pixel = "(c) => [...c.getContext('2d').getImageData(c.width - 40, c.height / 4, 1, 1).data]"
    red, *_, alpha = cone.evaluate(pixel)
    assert alpha == 0 or (red > 200) == (theme == "Light")
