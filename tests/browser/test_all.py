"""What holds for every instrument in JupyterLab: a stopped Python, a narrow page, a saved notebook."""

import json

import pytest
from browser import rig

expect = pytest.importorskip("playwright.sync_api", reason="needs the extra browser").expect

CELLS = [
    "import time\nfrom bigbird_mini import BlockPattern\nfrom bigbird_mini.viz import *",
    "a = explore_pattern(24)\na",
    "b = explore_flow(BlockPattern.bigbird(24), layers=3)\nb",
    "c = explore_cost()\nc",
    "d = paint_pattern(12)\nd",
    "import torch\nfrom bigbird_mini import BigBirdConfig, BigBirdModel\n"
    "e = explore_attention(BigBirdModel(BigBirdConfig(9, 8, 2, 2, 16, block_size=4)), torch.arange(61)[None] % 9)\ne",
]
KINDS = ("pattern", "flow", "cost", "paint", "attention")
SLIDER = {
    "pattern": "seed",
    "flow": "the news starts at token",
    "cost": "device memory",
    "paint": "a training takes at most",
    "attention": "layer",
}

# The elements of an instrument that stick out of it to the right.
OVER = """(e) => [...e.querySelectorAll('*')]
  .filter((x) => !x.closest('.bb-heard') && x.getBoundingClientRect().right > e.getBoundingClientRect().right + 1)
  .map((x) => x.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def zoomed(lab, chromium, notebook):
    """The same notebook in the browser's zoom of 200 %: half as many CSS pixels, twice as fine."""
    notebook.fresh()
    cells = "notebook_at_200.ipynb"
    opened = rig.open_notebook(lab, chromium, cells, CELLS, width=640, height=3000, scale=2)
    opened.page.evaluate("window.jupyterapp.commands.execute('application:toggle-left-area')")
    opened.python(CELLS[0])
    opened.fresh()
    yield opened
    opened.page.context.close()


@pytest.mark.parametrize("kind", KINDS)
def test_at_200_percent_nothing_is_cut_off(zoomed, kind, shot):
    view = zoomed.page.locator(f".bb-{kind}")
    expect(view).to_be_visible()
    zoomed.page.wait_for_timeout(500)
    shot(view, f"{kind}_200")
    over = "(e) => [...e.querySelectorAll('*')].filter((x) => !x.closest('.bb-heard') && "
    over += (
        "x.getBoundingClientRect().right > e.getBoundingClientRect().right + 1).map((x) => x.outerHTML.slice(0, 80))"
    )
    assert view.evaluate(over) == []
    canvas = view.locator("canvas").first
    assert canvas.evaluate("(c) => c.width / parseFloat(c.style.width)") == pytest.approx(2, abs=0.01)  # sharp
    slider = view.get_by_role("slider", name=SLIDER[kind])
    before = slider.get_attribute("aria-valuetext")
    slider.focus()
    zoomed.page.keyboard.press("ArrowRight")
    expect(slider).not_to_have_attribute("aria-valuetext", before)
    assert zoomed.take_errors() == []


@pytest.mark.parametrize(("kind", "name"), zip(KINDS, "abcde", strict=True))
def test_an_interrupted_kernel_is_said_and_the_next_change_works(fresh, kind, name):
    view = fresh.page.locator(f".bb-{kind}")
    fresh.page.evaluate(
        "(code) => { window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel"
        ".requestExecute({ code, store_history: false }) }",
        f"{name}._attempt(lambda: time.sleep(30))",
    )
    fresh.page.wait_for_timeout(500)
    fresh.page.evaluate(
        "async () => { await window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel.interrupt() }"
    )
    expect(view.get_by_role("alert")).to_contain_text("Interrupted")
    view.get_by_role("slider", name=SLIDER[kind]).focus()
    fresh.page.keyboard.press("ArrowRight")
    expect(view.get_by_role("alert")).to_have_text("")


def test_every_control_can_be_reached_by_tab(fresh):
    for kind in KINDS:
        view = fresh.page.locator(f".bb-{kind}")
        view.locator("canvas").first.focus()
        seen = set()
        for _ in range(40):
            fresh.page.keyboard.press("Tab")
            inside = "(e) => e.contains(document.activeElement) && (document.activeElement.ariaLabel"
            inside += " || document.activeElement.textContent)"
            if not (found := view.evaluate(inside)):
                break
            seen.add(found)
        shown = view.locator("input:not([disabled]), select, button, summary")
        wanted = [e for e in shown.all() if e.is_visible()]
        assert len(seen) >= len({e.get_attribute("aria-label") or e.inner_text() for e in wanted}) - 1, kind


def test_a_python_that_does_not_answer_is_said(fresh):
    view = fresh.page.locator(".bb-pattern")
    code = "time.sleep(9)"
    fresh.page.evaluate(
        "(code) => { window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel"
        ".requestExecute({ code, store_history: false }) }",
        code,
    )
    view.get_by_role("slider", name="seed").focus()
    fresh.page.keyboard.press("ArrowRight")
    expect(view.get_by_role("alert")).to_contain_text("Python has not answered yet", timeout=9000)
    expect(view.get_by_role("alert")).to_have_text("", timeout=9000)  # and when it does, all is well
    fresh.until("a.seed", 1)


def test_a_saved_notebook_shows_the_pictures_without_a_kernel(lab, chromium, fresh, shot):
    """Normalised as the course commits it: no widget views, no widget state."""
    from bigbird_mini.course import notebook as files

    fresh.page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save') }")
    saved = files.read(lab.folder / fresh.name)
    files.write_if_changed(lab.folder / "committed.ipynb", files.text_of(files.normalise(saved)))
    text = (lab.folder / "committed.ipynb").read_text("utf-8")
    assert "widgets" not in json.loads(text)["metadata"] and "widget-view" not in text
    opened = rig.reopen(lab, chromium, "committed.ipynb", kernel=False)
    pictures = opened.page.locator(".jp-OutputArea-output img")
    expect(pictures).to_have_count(len(KINDS))
    told = ("block pairs are read", "News of block 12", "fits up to", "far copy", "of its weight")
    for picture, words in zip(pictures.all(), told, strict=True):
        assert words in picture.get_attribute("alt")
        assert picture.evaluate("(i) => i.naturalWidth") > 300
        assert len(shot(picture, "saved")) > 5000
    assert opened.take_errors() == []
    opened.page.context.close()
