"""A map of points in JupyterLab: waiting for it, selecting with the mouse, reading its texts."""

from __future__ import annotations

import time
from typing import Any

from tests.support.lab import Lab

# Whether a canvas shows something: jupyter-scatter copies what it draws to two dimensions.
_IS_DRAWN = """() => [...document.querySelectorAll(".jp-OutputArea canvas")].some((canvas) => {
    const context = canvas.getContext("2d");
    if (!context || canvas.width < 9) return false;
    const bytes = context.getImageData(0, 0, canvas.width, canvas.height).data;
    let drawn = 0;
    for (let at = 3; at < bytes.length; at += 4) drawn += bytes[at] > 0;
    return drawn > 500;
})"""


def wait_until_drawn(page: Lab) -> None:
    """Wait until the points of a map are visible."""
    page.page.wait_for_function(_IS_DRAWN, timeout=120_000)


def _square(page: Lab) -> tuple[float, float, float]:
    """The position and the size of the square that the points are in."""
    canvas = page.page.locator(".jp-OutputArea canvas").first
    canvas.scroll_into_view_if_needed()
    box: Any = canvas.bounding_box()
    size = min(box["width"], box["height"])
    left = box["x"] + (box["width"] - size) / 2
    return left, box["y"] + (box["height"] - size) / 2, size


def lasso(page: Lab, left: float, right: float) -> float:
    """Draw around the points between two positions from 0 to 1; return when that ended."""
    x, y, size = _square(page)
    first, last, edge = x + left * size, x + right * size, 2
    corners = [
        (first, y + edge),
        (last, y + edge),
        (last, y + size - edge),
        (first, y + size - edge),
    ]
    mouse = page.page.mouse
    mouse.move(*corners[0])
    mouse.down()
    for corner in [*corners[1:], corners[0]]:
        mouse.move(*corner, steps=8)
        page.page.wait_for_timeout(60)
    ended = time.perf_counter()
    mouse.up()
    return ended


def hover(page: Lab, text: str) -> str:
    """Move the mouse over the points until a text that contains ``text`` appears; return it."""
    x, y, size = _square(page)
    shown = page.page.locator(f".jp-OutputArea :text('{text}'):visible")
    page.page.mouse.move(x + size / 2, y - 10)  # an earlier text disappears
    page.page.wait_for_timeout(300)
    before = shown.count()
    for step in range(200):
        page.page.mouse.move(x + size * (0.05 + step * 0.0045), y + size * 0.5)
        page.page.wait_for_timeout(40)
        if shown.count() > before:
            return str(shown.last.inner_text())
    msg = f"no text with {text!r} appeared"
    raise AssertionError(msg)
