"""Whoever sits there is asked before something is done that costs; where nobody does, it is not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import uuid4

from llm_magics._util.terminal import display_name
from llm_magics.errors import UsageError
from llm_magics.progress import Progress

# Puts a question; ``None`` where nobody is there to answer.
Asker = Callable[[str], str | None]


def _ask_the_terminal(question: str) -> str | None:
    if not (sys.stdin and sys.stdin.isatty()):
        return None
    return input(question)


_ask: Asker = _ask_the_terminal


def ask_by(asker: Asker | None) -> None:
    """Have questions put by ``asker`` from now on; by the terminal, if ``None``."""
    global _ask  # noqa: PLW0603 (one place a process, like sys.displayhook)
    _ask = asker or _ask_the_terminal


def obtain(what: str, how_to_allow: str) -> None:
    """
    Return if somebody allows ``what``, a sentence.

    Raises:
        UsageError: nobody is there to ask, or the answer was not yes.
    """
    answer = _ask(f"{what} Go on? [y/N] ")
    if answer is None:
        msg = f"{what} Nobody is there to allow it."
    elif answer.strip().lower() in ("y", "yes"):
        return
    else:
        msg = f"{what} It was not allowed."
    raise UsageError(f"{msg} Nothing was sent.", hint=how_to_allow)


@dataclass(frozen=True, slots=True)
class Cell:
    """
    A run of a cell.

    Attributes:
        key: what tells the cell from all others, also when it runs again; empty where none is known.
        number: that of the run, as in ``In [3]``.
        run: what tells this run from all others.
    """

    key: str = ""
    number: int | None = None
    run: str = field(default_factory=lambda: uuid4().hex, compare=False)


_running = Cell()


def running() -> Cell:
    """The cell that runs, or ran last."""
    return _running


def begin(cell: Cell) -> None:
    """``cell`` runs from now on."""
    global _running  # noqa: PLW0603 (one notebook a process)
    _running = cell


# Shows how far some work has come; told ``None``, the work has ended and the view goes away.
View = Callable[[Progress | None], None]


def terminal_view() -> View:
    """One line on the terminal, rewritten in place; nothing where there is no terminal."""
    stream = sys.stderr
    if not stream.isatty():
        return lambda progress: None

    def show(progress: Progress | None) -> None:
        # A service names the steps and the files in it.
        shown = display_name(str(progress)) if progress else ""
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
