"""
The program around this package: where progress is displayed, questions are put and cells run.

A terminal's host is there from the start; the notebook's extension installs its own with
`install_host`.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from types import CodeType
from uuid import uuid4

from llm_magics._util.terminal import display_name
from llm_magics.progress import Progress

# Displays how far some work has come; called with ``None``, it ends and the display goes away.
ProgressDisplay = Callable[[Progress | None], None]


@dataclass(frozen=True, slots=True)
class Cell:
    """
    A run of a cell.

    Attributes:
        key: identifies the cell, also when it runs again; empty where it is unknown.
        number: the number of the run, as in ``In [3]``.
        run: identifies this run among all others.
    """

    key: str = ""
    number: int | None = None
    run: str = field(default_factory=lambda: uuid4().hex, compare=False)


class Host(ABC):
    """
    What the program around this package does for it.

    Attributes:
        current_cell: the cell that is running, or ran last.
    """

    def __init__(self) -> None:
        self.current_cell = Cell()

    @abstractmethod
    def create_progress_display(self) -> ProgressDisplay:
        """Return a display for one piece of work."""

    @abstractmethod
    def ask(self, question: str) -> str | None:
        """Return the user's answer to ``question``; ``None`` if there is no user to ask."""

    def shows_full_tracebacks(self) -> bool:
        """Return whether errors are rendered with their full traceback, not in two to four lines."""
        return False

    def label_cell(self, code: CodeType) -> str | None:
        """Return the label of the cell that ``code`` was compiled from; ``None`` if it is no cell's."""
        return None


class TerminalHost(Host):
    """Progress on one line of standard error; questions where standard input is a terminal."""

    def create_progress_display(self) -> ProgressDisplay:
        """Return a display that rewrites one line of the terminal; without one it shows nothing."""
        return terminal_progress()

    def ask(self, question: str) -> str | None:
        """Return what is typed in answer to ``question``."""
        if not (sys.stdin and sys.stdin.isatty()):
            return None
        return input(question)


def terminal_progress() -> ProgressDisplay:
    """Return a display on one line of the terminal; it shows nothing where there is no terminal."""
    stream = sys.stderr
    if not stream.isatty():
        return lambda progress: None

    def display(progress: Progress | None) -> None:
        # A service names the steps and the files in it.
        line = display_name(str(progress)) if progress else ""
        stream.write(f"\r\x1b[K{line}")
        stream.flush()

    return display


_host: Host = TerminalHost()


def current_host() -> Host:
    """Return the host of this process."""
    return _host


def install_host(host: Host) -> None:
    """Make ``host`` the host of this process."""
    global _host  # noqa: PLW0603 (one host a process, like sys.displayhook)
    _host = host
