"""Where progress is shown: a line in the terminal, until a notebook puts a better view there."""

from __future__ import annotations

import sys
from collections.abc import Callable

from llm_magics._util.terminal import name
from llm_magics.types import Progress

# Shows how far some work has come; told ``None``, the work has ended and the view goes away.
View = Callable[[Progress | None], None]


def terminal_view() -> View:
    """One line on the terminal, rewritten in place; nothing where there is no terminal."""
    stream = sys.stderr
    if not stream.isatty():
        return lambda progress: None

    def show(progress: Progress | None) -> None:
        # A service names the steps and the files in it.
        shown = name(str(progress)) if progress else ""
        stream.write(f"\r\x1b[K{shown}")
        stream.flush()

    return show


_make_view: Callable[[], View] = terminal_view


def new_view() -> View:
    """A view for one piece of work."""
    return _make_view()


def show_in(make_view: Callable[[], View]) -> None:
    """Show the progress of all work from now on in views that ``make_view`` makes."""
    global _make_view  # noqa: PLW0603 (one place a process, like sys.displayhook)
    _make_view = make_view
