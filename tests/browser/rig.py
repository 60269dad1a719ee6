"""A real JupyterLab on this computer and a headless Chromium: notebooks are opened, run and driven as a reader would.

Needs Playwright (the extra `browser`) and a Chromium: on the path, named by the variable CHROMIUM, or Playwright's own.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
START = 90  # seconds that JupyterLab, a kernel and a first import may take on a busy machine
READY = """() => { const w = window.jupyterapp && window.jupyterapp.shell.currentWidget;
  return w && w.context && w.context.isReady && w.context.sessionContext.session
    && w.context.sessionContext.session.kernel }"""
EXECUTE = """async (code) => {
  const kernel = window.jupyterapp.shell.currentWidget.context.sessionContext.session.kernel;
  const future = kernel.requestExecute({ code, store_history: false });
  let text = "";
  future.onIOPub = (m) => {
    if (m.header.msg_type === "stream") text += m.content.text;
    if (m.header.msg_type === "error") text += `${m.content.ename}: ${m.content.evalue}`;
  };
  await future.done;
  return text;
}"""


def missing() -> str:
    """Why there can be no browser here, in one sentence; "" where there can."""
    for module, extra in (("playwright", "browser"), ("jupyterlab", "lab"), ("anywidget", "lab")):
        if importlib.util.find_spec(module) is None:
            return f'{module} is not installed: pip install "bigbird-mini[{extra}]"'
    if chromium_path() is None and not playwrights_own():
        return "no Chromium is found: apt-get install chromium, or playwright install chromium, or set CHROMIUM"
    return ""


def chromium_path() -> str | None:
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")


def playwrights_own() -> bool:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        return Path(p.chromium.executable_path).exists()


@contextmanager
def browser() -> Iterator[Any]:
    """A headless Chromium, as Playwright's Browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as p:
        path = chromium_path()
        chromium = p.chromium.launch(args=FLAGS, **({"executable_path": path} if path else {}))
        try:
            yield chromium
        finally:
            chromium.close()


@dataclass
class Lab:
    """A running JupyterLab whose files are in `folder`."""

    folder: Path
    port: int
    token: str

    def address(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/lab/tree/{name}?token={self.token}&reset"


@contextmanager
def jupyterlab(folder: Path) -> Iterator[Lab]:
    """JupyterLab on a free port with the course's settings; all it writes goes into `folder`."""
    token, files, log = secrets.token_hex(16), folder / "files", folder / "lab.log"
    files.mkdir(parents=True)
    env = dict(
        os.environ,
        JUPYTER_CONFIG_PATH=str(ROOT / "jupyter"),
        JUPYTER_CONFIG_DIR=str(folder / "config"),
        JUPYTER_RUNTIME_DIR=str(folder / "runtime"),
        JUPYTER_DATA_DIR=str(folder / "data"),
        JUPYTERLAB_SETTINGS_DIR=str(folder / "settings"),
        JUPYTERLAB_WORKSPACES_DIR=str(folder / "workspaces"),
        IPYTHONDIR=str(folder / "ipython"),
    )
    options = [
        "--no-browser",
        "--allow-root",
        "--ip=127.0.0.1",
        "--port=0",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={files}",
        "--LabApp.expose_app_in_browser=True",
    ]
    with log.open("w", encoding="utf-8") as out:
        server = subprocess.Popen([sys.executable, "-m", "jupyter", "lab", *options], env=env, stdout=out, stderr=out)
    try:
        end = time.monotonic() + START
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)/", log.read_text("utf-8"))):
            if time.monotonic() > end or server.poll() is not None:
                raise RuntimeError(f"JupyterLab did not start:\n{log.read_text('utf-8')}")
            time.sleep(0.1)
        yield Lab(files, int(found[1]), token)
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


@dataclass
class Notebook:
    """A notebook that is open in the browser, with its kernel."""

    page: Any
    name: str
    errors: list[str] = field(default_factory=list)  # what the browser's console called an error

    def python(self, code: str) -> str:
        """Run code in the notebook's kernel; what it prints, or its error."""
        return self.page.evaluate(EXECUTE, code).strip()

    def value(self, expression: str) -> Any:
        """What an expression is in the kernel, of the kinds that JSON knows."""
        return json.loads(self.python(f"import json; print(json.dumps({expression}))"))

    def until(self, expression: str, wanted: Any) -> None:
        """Wait until an expression has this value in the kernel."""
        end = time.monotonic() + 10
        while (found := self.value(expression)) != wanted:
            assert time.monotonic() < end, f"{expression} is {found!r}, not {wanted!r}"
            time.sleep(0.05)

    def fresh(self) -> None:
        """Run all cells again and wait for the new widgets."""
        old = "for (const e of document.querySelectorAll('.bb-instrument')) e.dataset.old = '1'"
        self.page.evaluate(f"() => {{ {old} }}")
        self.page.evaluate("async () => { await window.jupyterapp.commands.execute('notebook:run-all-cells') }")
        self.page.wait_for_function("() => !document.querySelector('.bb-instrument[data-old]')")
        self.page.wait_for_function("() => document.querySelector('.bb-instrument[data-drawn]')")

    def take_errors(self) -> list[str]:
        found, self.errors[:] = list(self.errors), []
        return found

    def theme(self, name: str) -> None:
        """ "Light" or "Dark"."""
        self.page.emulate_media(color_scheme=name.lower())
        self.page.wait_for_function(f"() => document.body.dataset.jpThemeName === 'JupyterLab {name}'")
        self.page.wait_for_timeout(300)  # the canvases are drawn anew


def open_notebook(
    lab: Lab, chromium: Any, name: str, cells: list[str], width: int = 1280, height: int = 2400, scale: float = 1
) -> Notebook:
    """Write a notebook of these code cells, open it and wait for its kernel. A tall window: JupyterLab draws only the
    cells in view. scale: device pixels for a CSS pixel; a smaller window with scale 2 is the browser's zoom of 200 %.
    """
    import nbformat

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    nbformat.write(notebook, lab.folder / name)
    return reopen(lab, chromium, name, width, height, scale)


def reopen(
    lab: Lab, chromium: Any, name: str, width: int = 1280, height: int = 2400, scale: float = 1, kernel: bool = True
) -> Notebook:
    """Open a notebook that is there already, in a fresh window."""
    page = chromium.new_context(viewport={"width": width, "height": height}, device_scale_factor=scale).new_page()
    page.set_default_timeout(START * 1000)
    opened = Notebook(page, name)
    page.on("console", lambda m: opened.errors.append(f"{m.text} ({m.location})") if m.type == "error" else None)
    page.on("pageerror", lambda error: opened.errors.append(str(error)))
    page.goto(lab.address(name))
    page.wait_for_function(READY if kernel else READY.split("&& w.context.sessionContext")[0] + "}")
    return opened
