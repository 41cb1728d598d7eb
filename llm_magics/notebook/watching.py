"""Is anybody watching?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

from llm_magics.settings.config import config

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from llm_magics.host import Asker

Rendering = Literal["live", "static", "text"]


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
    return "live" if is_watched(shell) else "static"


def is_watched(shell: InteractiveShell) -> bool:
    """Whoever runs a notebook unattended (nbclient, papermill, nbval) allows no questions."""
    from IPython.core.displaypub import CapturingDisplayPublisher

    if isinstance(shell.display_pub, CapturingDisplayPublisher):
        return False
    return bool(getattr(shell.kernel, "_allow_stdin", True))


def asker(shell: InteractiveShell) -> Asker:
    """Puts questions to whoever watches ``shell``; ``None`` is the answer where nobody does."""

    def ask(question: str) -> str | None:
        shown_in = rendering(shell)
        is_there = shown_in == "live" or (shown_in == "text" and sys.stdin.isatty())
        return input(question) if is_there else None

    return ask
