"""The views of widgets: a script and styles that all share, and those of each widget."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent


def read_view(path: Path) -> str:
    """Return a script or style sheet of a widget, after the shared one (``widget.js`` or ``.css``)."""
    shared = (_FOLDER / f"widget{path.suffix}").read_text("utf-8")
    return f"{shared}\n{path.read_text('utf-8')}"
