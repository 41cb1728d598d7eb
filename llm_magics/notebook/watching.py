"""Is anybody watching, and how do they see what is going on?"""

from __future__ import annotations

import html
import time
from typing import TYPE_CHECKING, Literal

from llm_magics.progress import View, terminal_view
from llm_magics.settings.config import config
from llm_magics.types import Progress

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

Rendering = Literal["live", "static", "text"]

_REFRESH_S = 0.2


def rendering(shell: InteractiveShell) -> Rendering:
    """
    How answers are to be shown in ``shell``: the setting ``render``, or what fits.

    ``live`` where somebody watches a notebook, ``static`` where it runs by itself or its
    output is captured, ``text`` in a terminal.
    """
    chosen: str = config.render
    if chosen == "live":
        return "live"
    if chosen == "static":
        return "static"
    if chosen == "text" or not hasattr(shell, "kernel"):
        return "text"
    return "live" if _is_watched(shell) else "static"


def _is_watched(shell: InteractiveShell) -> bool:
    """Whoever runs a notebook unattended (nbclient, papermill, nbval) allows no questions."""
    from IPython.core.displaypub import CapturingDisplayPublisher

    if isinstance(shell.display_pub, CapturingDisplayPublisher):
        return False
    return bool(getattr(shell.kernel, "_allow_stdin", True))


def progress_view(shell: InteractiveShell) -> View:
    """Where work that is no answer shows its progress: nowhere, if nobody watches."""
    shown_in = rendering(shell)
    if shown_in == "text":
        return terminal_view()
    if shown_in == "static":
        return lambda progress: None
    return _LiveProgress()


class _LiveProgress:
    """A bar in the cell, gone when the work has ended."""

    def __init__(self) -> None:
        self._last = 0.0
        self._handle: object = None

    def __call__(self, progress: Progress | None) -> None:
        from IPython.display import display

        if progress is None:
            if self._handle is not None:
                self._handle.update({}, raw=True)  # type: ignore[attr-defined]
            return
        now = time.monotonic()
        if now - self._last < _REFRESH_S and progress.fraction != 1:
            return
        self._last = now
        bundle = progress_bundle(progress)
        if self._handle is None:
            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)  # type: ignore[attr-defined]


def progress_bundle(progress: Progress) -> dict[str, str]:
    """``progress`` as a bar and as words."""
    fraction = progress.fraction
    value = f' value="{fraction:.3f}"' if fraction is not None else ""
    words = html.escape(str(progress))
    return {
        "text/plain": str(progress),
        "text/html": f'<progress{value} style="width: 14em"></progress> <code>{words}</code>',
    }
