"""Fixtures of the browser tests. Where Playwright or Chromium is missing they are skipped, with the reason."""

import os
from pathlib import Path

import pytest
from browser import rig

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    reason = None
    for item in items:
        if HERE in Path(item.path).parents:
            item.add_marker(pytest.mark.browser)
            reason = rig.missing() if reason is None else reason
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    with rig.jupyterlab(tmp_path_factory.mktemp("lab")) as running:
        yield running


# of a module, not of the session: while Playwright's is open, no other test in this process can run an event loop
@pytest.fixture(scope="module")
def chromium():
    with rig.browser() as running:
        yield running


@pytest.fixture(scope="module")
def notebook(request, lab, chromium):
    """The notebook of a test module, made of its list CELLS and open in the browser."""
    opened = rig.open_notebook(lab, chromium, f"{request.module.__name__.split('.')[-1]}.ipynb", request.module.CELLS)
    opened.python(request.module.CELLS[0])  # the slow imports, once
    yield opened
    opened.page.context.close()


@pytest.fixture
def fresh(notebook):
    """The same notebook, all cells run anew: new widgets. After the test the console must hold no error."""
    notebook.fresh()
    yield notebook
    assert notebook.take_errors() == []


@pytest.fixture
def shot(request, tmp_path_factory):
    """Save a picture of a locator, in a temporary folder or in the one that the variable SHOTS names."""
    folder = Path(os.environ["SHOTS"]) if "SHOTS" in os.environ else tmp_path_factory.mktemp("shots")
    folder.mkdir(parents=True, exist_ok=True)

    def take(locator, name):
        return locator.screenshot(path=folder / f"{name}.png")

    return take
