"""
The program around this package: where progress is displayed, questions are put and cells run.

A terminal's host is there from the start; the notebook's extension installs its own with
`install_host`. Warnings and errors point to the line of the user's code that called this package.
"""

from __future__ import annotations

import linecache
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import CodeType, FrameType, TracebackType
from typing import Any, NamedTuple
from uuid import uuid4

from llm_magics._util.text import (
    count_or_none,
    display_name,
    escape_controls,
    replace_lone_surrogates,
)


@dataclass(frozen=True, slots=True)
class Progress:
    """
    How much of some long work is done.

    Attributes:
        task: what is being done, for people ("fetching smollm2-135m").
        done, total: how much of it, in ``unit``; ``total`` is ``None`` where unknown.
        unit: ``"B"`` for bytes, else a word for the things counted.
        elapsed_s: seconds since the work began.
        before: how much of ``done`` was there then, and took no time.
        is_load: whether this is loading a model rather than answering.
    """

    task: str
    done: int = 0
    total: int | None = None
    unit: str = "B"
    elapsed_s: float = 0.0
    is_load: bool = False
    before: int = 0

    def __post_init__(self) -> None:
        """A service may send anything: a size that is none counts as unknown."""
        object.__setattr__(self, "task", replace_lone_surrogates(self.task))
        object.__setattr__(self, "done", count_or_none(self.done) or 0)
        object.__setattr__(self, "total", count_or_none(self.total))

    @property
    def fraction(self) -> float | None:
        """From 0 to 1, or ``None`` where the total is unknown."""
        return min(1.0, self.done / self.total) if self.total else None

    @property
    def eta_s(self) -> float | None:
        """Seconds to go at the speed so far, or ``None`` while that is unknown."""
        if not self.total or not self.speed:
            return None
        return max(0.0, (self.total - self.done) / self.speed)

    @property
    def speed(self) -> float | None:
        """So much a second, or ``None`` while that is unknown."""
        since = self.done - self.before
        return since / self.elapsed_s if since > 0 and self.elapsed_s else None

    def __str__(self) -> str:
        parts = [self.task]
        if self.total:
            parts.append(f"{_amount(self.done, self.unit, self.total)}")
            parts.append(f"{self.fraction:.0%}")
        if self.speed is not None:
            parts.append(f"{_quantity(self.speed, self.unit)}/s")
        if self.eta_s is not None and self.fraction != 1:
            parts.append(f"ETA {self.eta_s:.0f} s")
        return "  ".join(parts)


def _amount(done: int, unit: str, total: int) -> str:
    if unit == "B":
        return f"{done / 1e6:.1f}/{total / 1e6:.1f} MB"
    return f"{done:,}/{total:,} {unit}"


def _quantity(amount: float, unit: str) -> str:
    return f"{amount / 1e6:.1f} MB" if unit == "B" else f"{amount:,.0f} {unit}"


# Displays the progress of some work; called with ``None``, it removes the display.
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
        """Return the user's answer to ``question``; ``None`` if the session is not interactive."""

    def shows_full_tracebacks(self) -> bool:
        """Return whether errors are rendered with their full traceback, not in two to four lines."""
        return False

    def label_cell(self, code: CodeType) -> str | None:
        """Return the label of the cell that ``code`` was compiled from; ``None`` for other code."""
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
    """Return a progress display on one line of the terminal; it is silent without a terminal."""
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


# Frames of these packages stand between the user's code and ours, or below ours.
_LIBRARIES = frozenset(
    {
        "IPython",
        "asyncio",
        "concurrent",
        "contextlib",
        "decorator",
        "distributed",
        "functools",
        "importlib",
        "ipykernel",
        "llm_magics",
        "pandas",
        "threading",
        "traitlets",
    }
)

_MAX_SOURCE = 100


class CodeLocation(NamedTuple):
    """
    A line of the user's code.

    Attributes:
        file: the path of a script or module, or the label of a cell (``Cell In[3]``).
        line: its number, from 1.
        module: the name of the module that it is in.
        source: the line itself, without its indentation; empty where it is not known.
    """

    file: str
    line: int
    module: str
    source: str

    def __str__(self) -> str:
        where = self.file if self.file.startswith("Cell ") else f"File {self.file}"
        code = self.source if len(self.source) <= _MAX_SOURCE else f"{self.source[:_MAX_SOURCE]}…"
        return f"{where}, line {self.line}: {code}" if code else f"{where}, line {self.line}"


class _Caller(NamedTuple):
    """The user's line that called this package; what a warning says of it is looked up later."""

    code: CodeType
    line: int
    variables: dict[str, Any]

    def locate(self) -> CodeLocation:
        """Return its location, with the current source."""
        path = self.code.co_filename
        source = linecache.getline(path, self.line, self.variables).strip()
        file = current_host().label_cell(self.code) or path
        return CodeLocation(file, self.line, str(self.variables.get("__name__", "")), source)


# The caller for whom work on the event loop's own thread is done.
_called_from: ContextVar[_Caller | None] = ContextVar("called_from", default=None)

# Warnings that were issued already, by file: Python's own registry does not distinguish cells.
_registries: dict[str, dict[Any, Any]] = {}


def warn(
    message: str, category: type[Warning] = UserWarning, *, location: CodeLocation | None = None
) -> None:
    """
    Issue a warning that points to the user's line, also from the event loop's thread.

    Args:
        location: that line, where no frame shows it: before its cell runs.
    """
    message = escape_controls(message)  # it may quote a service
    caller = None if location else _find_caller() or _called_from.get()
    if caller is not None:
        location = caller.locate()
    if location is None:
        warnings.warn(message, category, stacklevel=2)
        return
    registry = _registries.setdefault(location.file, {})
    file, line, module, _ = location
    warnings.warn_explicit(message, category, file, line, module, registry)


def note_caller() -> None:
    """Remember the user's line for the work that is handed to another thread from here."""
    caller = _find_caller()
    if caller is not None:
        _called_from.set(caller)


def location_in(traceback: TracebackType | None) -> CodeLocation | None:
    """Return the line of Python that called into this package; ``None`` for a magic's cell."""
    before: FrameType | None = None
    line = 0
    while traceback is not None:
        frame = traceback.tb_frame
        package = _package_of(frame)
        if package == "llm_magics":
            break
        if package not in _LIBRARIES or package in ("IPython", "ipykernel"):
            before, line = frame, traceback.tb_lineno
        traceback = traceback.tb_next
    if traceback is None or before is None or _package_of(before) in _LIBRARIES:
        return None
    return _Caller(before.f_code, line, before.f_globals).locate()


def _find_caller() -> _Caller | None:
    for frame in _frames(sys._getframe(2)):
        if _package_of(frame) not in _LIBRARIES:
            return _Caller(frame.f_code, frame.f_lineno, frame.f_globals)
    return None


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _package_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
