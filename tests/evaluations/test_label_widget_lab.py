"""The widget of ``lm.label`` in a real JupyterLab: keyboard, accessibility, and its saved form."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.lab import lab, needs_browser
from tests.support.screens import each_look, take

pytestmark = [pytest.mark.browser, needs_browser]

CELLS = [
    """
import llm_magics as lm, pandas as pd
df = pd.DataFrame({
    "question": [f"Question {n}?" for n in range(6)],
    "text": [f"<img src=x onerror='window.hacked = 1'> answer {n}\\n\\nwith a second line" for n in range(6)],
    "model": "secret-model",
})
""",
    'labels = lm.label(df, ["question", "text"], labels=["good", "bad"], annotator="anna", question="Is it right?")\nlabels',
    "labels.frame()",
]


def test_items_are_labelled_with_the_keyboard(tmp_path: Path) -> None:
    """Labels, a skip, an undo and a note; the saved notebook has a table; axe finds no fault."""
    with lab(tmp_path, CELLS) as page:
        page.run_all()
        widget = page.page.locator(".llm-labelling")
        item = widget.locator(".llm-item")
        item.wait_for(timeout=60_000)
        press, count = page.page.keyboard.press, page.page.locator(".jp-Cell").count()
        shown = item.inner_text()
        assert "answer" in shown
        assert "secret-model" not in widget.inner_text()
        item.click()
        press("1")
        widget.get_by_text("1 of 6 labelled").wait_for()
        assert item.inner_text() != shown
        press("n")
        page.page.keyboard.type("x1 su")  # keys of a note do not label
        press("Enter")
        press("2")
        widget.get_by_text("2 of 6 labelled").wait_for()
        press("s")
        widget.get_by_text("2 of 6 labelled, 1 skipped").wait_for()
        press("u")
        widget.get_by_text("2 of 6 labelled", exact=True).wait_for()
        for key in ("x", "d", "d", "b"):  # shortcuts of the notebook
            press(key)
        assert page.page.locator(".jp-Cell").count() == count
        for look in each_look(page):
            item.scroll_into_view_if_needed()
            take(page, f"label-{look}")
            assert faults(page.page) == []
        lines = (tmp_path / "labels-question-text.jsonl").read_text("utf-8").splitlines()
        events = [json.loads(line) for line in lines]
        assert [each["action"] for each in events] == ["label", "label", "skip", "undo"]
        assert [each["note"] for each in events[:2]] == ["", "x1 su"]
        for done in range(3, 7):
            widget.get_by_role("button", name="good").click()
            widget.get_by_text(f"{done} of 6 labelled").wait_for()
        widget.get_by_text("All items are done.").wait_for()
        assert page.page.evaluate("window.hacked") is None
        notebook = page.saved()
        saved = notebook.cells[1].outputs[-1].data
        assert "6 of 6 items labelled by anna" in saved["text/html"]
        assert "<table" in saved["text/html"]


def faults(page: object) -> list[str]:
    """The faults that axe-core finds in the widget."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    results = axe.Axe().run(page, context=".llm-labelling").response
    return [
        f"{fault['id']}: {node['html']}"
        for fault in results["violations"]
        for node in fault["nodes"]
    ]
