"""Plots and maps of vectors in a real JupyterLab, live and in a notebook that is not trusted."""

from __future__ import annotations

from pathlib import Path

import pytest

from llm_magics.host import TRANSIENT_KEY
from tests.support.lab import lab, needs_browser
from tests.support.scatter import hover, lasso, wait_until_drawn
from tests.support.screens import each_look, take

pytestmark = [pytest.mark.browser, needs_browser]

# A fifth of the points is far to the left of the others.
FRAME = """
import numpy as np, pandas as pd, llm_magics as lm
lm.config.embedding_model = "echo/echo"
draw = np.random.default_rng(0)
vectors = draw.standard_normal((2000, 64)).astype(np.float32)
vectors[:, 0] *= 40
vectors[:400, 0] -= 400
df = pd.DataFrame({"text": [f"<img src=x onerror='window.hacked = 1'> text {n}" for n in range(2000)]})
df["vector"] = list(vectors)
"""


def test_points_are_selected_with_the_mouse_and_by_meaning(tmp_path: Path) -> None:
    """What is selected is a DataFrame in the next cell; texts come when the mouse asks."""
    cells = [
        FRAME,
        "m = df.llm.map(clusters=12)\nm",
        "len(m.selection) > 380, m.selection.index.max() < 400",
    ]
    with lab(tmp_path, cells) as page:
        page.run_all()
        wait_until_drawn(page)
        area = page.outputs(1)
        assert "onerror" in hover(page, "onerror")
        lasso(page, 0.0, 0.35)
        area.get_by_text("of 2,000 points selected").wait_for(timeout=20_000)
        page.page.evaluate("window.jupyterapp.shell.currentWidget.content.activeCellIndex = 2")
        page.command("notebook:run-cell")
        page.wait()
        assert "True" in page.outputs(2).inner_text()
        assert "False" not in page.outputs(2).inner_text()
        search = area.get_by_label("Search")
        search.fill("a question")
        search.press("Enter")
        area.get_by_text("20 of 2,000 points selected").wait_for(timeout=20_000)
        for look in each_look(page):
            area.get_by_text("20 of 2,000").scroll_into_view_if_needed()
            take(page, f"map-{look}")
        area.get_by_role("button", name="Clear").click()
        area.get_by_text("Draw around points").wait_for(timeout=20_000)
        assert page.page.evaluate("window.hacked") is None


def test_pictures_survive_without_trust(tmp_path: Path) -> None:
    """A map's, and a plot's with its texts, in a notebook from another machine."""
    cells = [FRAME, "df[:300].llm.map(clusters=3)", "df[:300].llm.plot(clusters=3)"]
    with lab(tmp_path, cells) as page:
        page.run_all()
        wait_until_drawn(page)
        notebook = page.saved()
        widget, picture = notebook.cells[1].outputs
        assert widget.metadata == {
            TRANSIENT_KEY: "widget"
        }  # an unattended run has only the picture
        assert "image/png" in picture.data
        page.open_untrusted(notebook)
        shown = page.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-OutputArea-output")
        pictures = shown.locator("img")
        pictures.nth(1).wait_for(timeout=20_000)
        for picture in pictures.all():
            assert picture.evaluate("(image) => image.naturalWidth") > 1000
            assert picture.bounding_box()["width"] > 400
        plot = pictures.nth(1).bounding_box()
        spots = shown.locator("i[title]")
        assert spots.count() == 300
        for spot in (spots.first, spots.last):
            box = spot.bounding_box()
            assert plot["x"] < box["x"] < plot["x"] + plot["width"]
            assert plot["y"] < box["y"] < plot["y"] + plot["height"]
            assert 5 < box["width"] < 12
            assert "text" in spot.get_attribute("title")
        for look in each_look(page):
            pictures.nth(1).scroll_into_view_if_needed()
            take(page, f"plot-untrusted-{look}")
