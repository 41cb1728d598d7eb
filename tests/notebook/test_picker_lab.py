"""The panel of ``%llm pick`` in a real JupyterLab: keyboard, accessibility, and its saved form."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.support.fake_ollama import CHAT, EMBED, FakeOllama
from tests.support.lab import Lab, lab, needs_browser
from tests.support.nested import nbval
from tests.support.screens import each_look, take
from tests.support.serving import Asked, Says, serving

pytestmark = [pytest.mark.browser, needs_browser]

CELLS = ["%load_ext llm_magics", "%llm pick", "%llm config model", "%llm config embedding_model"]


class Ollama(FakeOllama):
    """A server whose model ``slow:1b`` is never pulled to the end."""

    def __init__(self, models: int = 0) -> None:
        super().__init__("0.30.0")
        self.models |= {
            f"family-{number % 7}/model-{number}:{number % 9 + 1}b": ["completion", "tools"]
            for number in range(models)
        }

    def __call__(self, asked: Asked) -> Says:
        if asked.path == "/api/pull" and asked.json()["model"] == "slow:1b":
            layer = {"status": "pulling b179c9523d0e", "digest": "sha256:b1", "total": 98}
            line = json.dumps({**layer, "completed": 40}) + "\n"
            return Says([line.encode()], content_type="application/x-ndjson", hang=True)
        return super().__call__(asked)


@contextmanager
def panel_of(folder: Path, ollama: FakeOllama, cells: list[str] = CELLS) -> Iterator[Lab]:
    """JupyterLab with the panel in the second cell's output, and an Ollama server."""
    with serving(ollama) as server, lab(folder, cells, OLLAMA_HOST=server.url) as page:
        page.run_all()
        page.page.locator(".llm-pick tbody tr").first.wait_for(timeout=60_000)
        yield page


def text_of_focus(page: Lab) -> str:
    """The text of the element that has the focus."""
    return str(page.page.evaluate("document.activeElement.textContent"))


def test_the_picker_moves_with_the_settings(tmp_path: Path) -> None:
    """Picked in the page and set in a cell; its line goes to the clipboard; its saved form is a table."""
    cells = [*CELLS[:2], "%llm config temperature 0.3", CELLS[2]]
    with lab(tmp_path, cells) as page:
        page.run_all()
        page.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        panel = page.page.locator(".llm-pick-panel")
        field = panel.get_by_label("temperature")
        field.wait_for()
        assert field.input_value() == "0.3"
        assert not page.outputs(1).locator(".llm-pick-table").is_visible()
        assert not [url for url in page.requests if "127.0.0.1" not in url and "http" in url]
        page.saved()
        untouched = tmp_path / "untouched.ipynb"
        untouched.write_bytes(page.path.read_bytes())
        panel.get_by_role("row", name="echo/lorem").first.click()
        code = panel.locator("code", has_text="echo/lorem")
        code.wait_for()
        line = "%llm use echo/lorem\n%llm config temperature 0.3"
        assert code.inner_text() == line
        panel.get_by_role("button", name="copy the lines").click()
        panel.get_by_text("copied").first.wait_for()
        assert page.page.evaluate("navigator.clipboard.readText()") == line
        page.run_all()
        assert "echo/lorem" in page.outputs(3).inner_text()
        page.saved()
        page.page.evaluate(RESTART)
        page.wait()
        page.page.reload()
        check_saved_form(page, "trusted")
        # A changed notebook is another one, which the user has not trusted.
        notebook = nbformat.read(page.path, as_version=4)
        notebook.cells[0].source += " "
        nbformat.write(notebook, tmp_path / "other.ipynb")
        # Without the other notebook, which JupyterLab would open again in a hidden tab.
        page.page.goto(page.page.url.replace("notebook.ipynb", "other.ipynb?reset"))
        check_saved_form(page, "untrusted")
    said = nbval(untouched, "--nbval")
    assert "4 passed" in said, said[-3000:]


RESTART = """
    window.ended = false;
    window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()
        .then(() => { window.ended = true }); 1
"""


def check_saved_form(page: Lab, name: str) -> None:
    """Check that the table is displayed, and nothing else."""
    table = page.outputs(1).locator("table")
    table.wait_for(timeout=60_000)
    page.page.wait_for_timeout(2000)
    assert "local/smollm2-135m" in table.inner_text()
    assert not page.page.get_by_text("Error displaying widget").is_visible()
    for look in each_look(page):
        take(page, f"picker-saved-{name}-{look}")


def test_the_keyboard_finds_and_uses_a_model(tmp_path: Path) -> None:
    """Of both sections; no key reaches the notebook's own shortcuts."""
    with panel_of(tmp_path, Ollama()) as page:
        press, panel = page.page.keyboard.press, page.page.locator(".llm-pick")
        cells = page.page.locator(".jp-Cell").count()
        panel.get_by_label("Search models").focus()
        page.page.keyboard.type("tools ollama")
        panel.get_by_text("1 of 7 models").wait_for()
        press("ArrowDown")
        assert text_of_focus(page).startswith(f"ollama/{CHAT}")
        press("Enter")
        panel.locator(".llm-chosen", has_text=f"ollama/{CHAT}").wait_for()
        for key in ("x", "d", "d", "b", "m", "ArrowDown", "End", "Home"):  # "x" cuts a cell
            press(key)
        assert page.page.locator(".jp-Cell").count() == cells
        assert text_of_focus(page).startswith(f"ollama/{CHAT}")

        press("Shift+Tab")
        press("Shift+Tab")
        press("Escape")
        panel.get_by_text("7 models", exact=True).wait_for()
        panel.get_by_role("button", name="embeddings").focus()
        press("Enter")
        assert text_of_focus(page).startswith("local/minilm-l6-v2")
        press("End")
        assert text_of_focus(page).startswith(f"ollama/{EMBED}")
        press("Enter")
        panel.locator(".llm-chosen", has_text=f"ollama/{EMBED}").wait_for()
        page.run_all()
        assert f"ollama/{CHAT}" in page.outputs(2).inner_text()
        assert f"ollama/{EMBED}" in page.outputs(3).inner_text()


def test_the_keyboard_pulls_and_deletes(tmp_path: Path) -> None:
    """A pull can be cancelled; a delete button that was pressed once disarms itself."""
    fake = Ollama()
    with panel_of(tmp_path, fake) as page:
        press, panel = page.page.keyboard.press, page.page.locator(".llm-pick")
        search = panel.get_by_label("Search models")
        armed = panel.get_by_text("really delete?")
        search.fill(CHAT)
        search.press("ArrowDown")
        press("ArrowRight")
        assert text_of_focus(page) == "delete"
        for disarm in ("Escape", "ArrowLeft", "time"):
            press("Enter")
            armed.wait_for()
            if disarm != "time":
                press(disarm)
            armed.wait_for(state="detached", timeout=8000)
            press("ArrowRight")
        assert CHAT in fake.models
        press("Enter")
        press("Enter")
        panel.get_by_text(f"Deleted ollama/{CHAT}.").wait_for()
        assert CHAT not in fake.models

        search.fill("slow:1b")
        panel.get_by_text("No model matches “slow:1b”.").wait_for()
        assert panel.get_by_text("no match").is_visible()
        panel.get_by_text("Deleted").wait_for(state="hidden")
        search.fill("ollama/slow:1b")
        press("Tab")
        press("Tab")
        assert text_of_focus(page) == "pull ollama/slow:1b"
        press("Enter")
        panel.get_by_text("downloading slow:1b").wait_for()
        assert panel.get_by_role("progressbar").is_visible()
        press("Tab")
        assert text_of_focus(page) == "cancel"
        press("Enter")
        panel.get_by_text("cancelled.").wait_for()
        assert page.page.evaluate("document.activeElement.type") == "search"


HOSTILE = "<img src=x onerror='window.hacked = 1'>"


def test_no_fault_of_accessibility_is_found(tmp_path: Path) -> None:
    """By axe-core, in both themes, in the states that differ most; hostile names stay text."""
    pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    fake = Ollama(400)
    fake.models[HOSTILE] = ["completion"]
    with panel_of(tmp_path, fake) as page:
        panel = page.page.locator(".llm-pick")
        search = panel.get_by_label("Search models")
        search.fill("ollama/slow:1b")
        panel.get_by_role("button", name="pull ollama/slow:1b").click()
        panel.get_by_text("downloading slow:1b").wait_for()
        search.fill("")
        assert panel.get_by_role("row", name=HOSTILE).count() == 1
        assert page.page.evaluate("window.hacked") is None
        found = []
        for look in each_look(page):
            take(page, f"picker-{look}")
            found += faults(page, look)
            panel.get_by_role("button", name="openai").click()
            panel.get_by_text("openai is not set up").first.wait_for()
            take(page, f"picker-not-set-up-{look}")
            found += faults(page, look)
            panel.get_by_role("button", name="all", exact=True).click()
            search.fill("ollama/none")
            panel.get_by_role("button", name="pull ollama/none").wait_for()
            page.page.get_by_label("top p").fill("7")
            page.page.get_by_label("top p").press("Enter")
            panel.get_by_text("for top_p").wait_for()
            take(page, f"picker-no-match-{look}")
            found += faults(page, look)
            search.fill("")
            row = panel.get_by_role("row", name=f"ollama/{CHAT}").first
            row.hover()
            row.get_by_role("button").click()
            take(page, f"picker-delete-{look}")
            found += faults(page, look)
            row.get_by_role("button").press("Escape")
        assert found == []
        page.page.evaluate("document.querySelector('.llm-search input').ariaLabel = ''")
        page.page.evaluate("document.querySelector('.llm-search input').placeholder = ''")
        assert [fault.partition(" ")[0] for fault in faults(page)] == ["label"]


def faults(page: Lab, look: str = "") -> list[str]:
    """The faults that axe-core finds in the panel, by rule, with the elements; at one width."""
    if look.endswith("700"):
        return []
    from axe_playwright_python.sync_playwright import Axe

    results: dict[str, Any] = Axe().run(page.page, context=".llm-pick-panel").response
    return [
        f"{fault['id']} ({fault['impact']}): {node['html']}"
        for fault in results["violations"]
        for node in fault["nodes"]
    ]
