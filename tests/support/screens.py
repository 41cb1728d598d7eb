"""Pictures of pages in both themes and at both widths, in a folder that git ignores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.support.lab import Lab

FOLDER = Path(__file__).parents[2] / "screenshots"
THEMES = ("light", "dark")
WIDTHS = (700, 1400)

_CHANGE_THEME = """(name) => window.jupyterapp.commands
    .execute("apputils:change-theme", {theme: `JupyterLab ${name}`}).then(() => 1)"""
_HAS_THEME = "(isLight) => document.body.dataset.jpThemeLight === isLight"


def each_look(page: Lab, height: int = 1000) -> Iterator[str]:
    """Show the page in each theme and width in turn, and yield the name of the look."""
    page.page.evaluate("window.jupyterapp.shell.collapseLeft()")
    for theme in THEMES:
        page.page.evaluate(_CHANGE_THEME, theme.capitalize())
        page.page.wait_for_function(_HAS_THEME, arg=str(theme == "light").lower())
        for width in WIDTHS:
            page.page.set_viewport_size({"width": width, "height": height})
            page.page.wait_for_timeout(500)  # JupyterLab lays out its panels again
            yield f"{theme}-{width}"


def take(page: Lab, name: str) -> None:
    """Save a picture of the page."""
    FOLDER.mkdir(exist_ok=True)
    page.page.screenshot(path=FOLDER / f"{name}.png")
