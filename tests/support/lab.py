"""A real JupyterLab in a real browser."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.support.lab_server import lab_server

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or ""
needs_browser = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium on this machine")

# Without these Chromium asks hosts of its maker's at every start.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


KERNEL_IS_READY = """
    window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === "idle"
"""


# Without a kernel, which would not change the outputs.
OPEN_OTHER = """
    window.jupyterapp.commands.execute("docmanager:open", {
        path: PATH, kernelPreference: {shouldStart: false, canStart: false}
    }).then(() => 1)
"""
IS_TRUSTED = "window.jupyterapp.shell.currentWidget.context.model.cells.get(0).trusted"


@dataclass
class Lab:
    """A page of JupyterLab with one notebook open in it."""

    page: Any
    path: Path
    requests: list[str]

    def command(self, name: str) -> None:
        """Start one of JupyterLab's commands, and do not wait for it."""
        self.page.evaluate(
            f"window.ended = false; window.jupyterapp.commands.execute('{name}')"
            ".then(() => { window.ended = true }); 1"
        )

    def wait(self, timeout_s: float = 120) -> None:
        """Wait until the last command has ended."""
        self.page.wait_for_function("window.ended === true", timeout=timeout_s * 1000)

    def run_all(self) -> None:
        """Run every cell, to the end."""
        self.command("notebook:run-all-cells")
        self.wait()

    def saved(self) -> nbformat.NotebookNode:
        """The notebook as JupyterLab saves it."""
        self.command("docmanager:save")
        self.wait()
        return nbformat.read(self.path, as_version=4)

    def open_untrusted(self, notebook: nbformat.NotebookNode) -> None:
        """Open the notebook as one that was run on another machine."""
        for cell in notebook.cells:
            cell.source += "\n# changed"
        nbformat.write(notebook, self.path.parent / "other.ipynb")
        path = f"{self.path.parent.name}/other.ipynb"
        self.page.evaluate(OPEN_OTHER.replace("PATH", json.dumps(path)))
        self.page.get_by_text("# changed").first.wait_for()
        assert self.page.evaluate(IS_TRUSTED) is False

    def outputs(self, cell: int) -> Any:
        """The output area of a code cell, for looking into."""
        return self.page.locator(".jp-CodeCell").nth(cell).locator(".jp-OutputArea")


@contextmanager
def lab(folder: Path, cells: list[str], **environment: str) -> Iterator[Lab]:
    """JupyterLab in ``folder`` with a notebook of ``cells`` open."""
    from playwright.sync_api import sync_playwright

    path = folder / "notebook.ipynb"
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)"}}
    made = [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(nbformat.v4.new_notebook(cells=made, metadata=metadata), path)
    server = lab_server(folder.parent)
    with (
        server.kernels(folder, environment),
        sync_playwright() as playwright,
        playwright.chromium.launch_persistent_context(
            server.browser,
            executable_path=CHROMIUM,
            args=FLAGS,
            viewport={"width": 1200, "height": 1600},
        ) as browser,
    ):
        page = browser.pages[0]
        page.set_default_timeout(60_000)  # a busy machine takes more than the usual 30 s
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{server.url}/lab/tree/{folder.name}/{path.name}?token={server.token}")
        page.wait_for_selector(".jp-Notebook .jp-CodeCell")
        page.wait_for_function("window.jupyterapp !== undefined")
        page.wait_for_function(KERNEL_IS_READY)
        yield Lab(page, path, requests)
