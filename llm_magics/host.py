"""
The host of this package: the program that displays progress, asks questions and runs cells.

The default is a host for terminals. The notebook extension installs its own with `install_host`.
Warnings and errors point to the line of the user's code that called this package.
"""

from __future__ import annotations

import linecache
import math
import sys
import threading
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import CodeType, FrameType, TracebackType
from typing import Any, NamedTuple, Protocol
from uuid import uuid4
from weakref import WeakSet

from llm_magics._util.text import (
    count_or_none,
    display_name,
    escape_controls,
    replace_lone_surrogates,
)


@dataclass(frozen=True, slots=True)
class Progress:
    """
    The progress of a long task.

    Attributes:
        task: a description of the task for the user.
        done, total: the amounts in ``unit``; ``total`` is ``None`` if unknown.
        unit: ``"B"`` for bytes, otherwise a plural noun for the items counted.
        elapsed_s: seconds since the start of the task.
        before: the part of ``done`` that was complete at the start; not counted in the speed.
        is_load: whether the task is loading a model, not answering.
    """

    task: str
    done: int = 0
    total: int | None = None
    unit: str = "B"
    elapsed_s: float = 0.0
    is_load: bool = False
    before: int = 0

    def __post_init__(self) -> None:
        """Treat invalid sizes as unknown, because a service may send any value."""
        object.__setattr__(self, "task", replace_lone_surrogates(self.task))
        object.__setattr__(self, "done", count_or_none(self.done) or 0)
        object.__setattr__(self, "total", count_or_none(self.total))

    @property
    def fraction(self) -> float | None:
        """The progress from 0 to 1; ``None`` if the total is unknown."""
        return min(1.0, self.done / self.total) if self.total else None

    @property
    def eta_s(self) -> float | None:
        """The estimated remaining seconds; ``None`` if the speed or the total is unknown."""
        if not self.total or not self.speed:
            return None
        return max(0.0, (self.total - self.done) / self.speed)

    @property
    def speed(self) -> float | None:
        """The amount per second; ``None`` if unknown."""
        since = self.done - self.before
        return since / self.elapsed_s if since > 0 and self.elapsed_s else None

    def __str__(self) -> str:
        parts = [self.task]
        if self.total:
            parts.append(f"{_amount(self.done, self.unit, self.total)}")
            parts.append(f"{self.fraction:.0%}")
        if self.speed is not None:
            parts.append(_rate(self.speed, self.unit))
        if self.eta_s is not None and self.fraction != 1:
            parts.append(f"about {format_duration(math.ceil(self.eta_s))} left")
        return "  ".join(parts)


def _amount(done: int, unit: str, total: int) -> str:
    if unit == "B":
        return f"{done / 1e6:.1f}/{total / 1e6:.1f} MB"
    return f"{done:,}/{total:,} {unit}"


def _rate(speed: float, unit: str) -> str:
    if unit == "B":
        return f"{speed / 1e6:.1f} MB/s"
    if speed < 1:  # "0 rows/s" would look like a standstill
        return f"{format_duration(1 / speed)} a {unit.removesuffix('s')}"
    return f"{speed:,.0f} {unit}/s"


def format_duration(seconds: float) -> str:
    """Return a duration in a readable unit, as in ``12 s``, ``4 min`` or ``3 h``."""
    if seconds < 100:
        digits = f"{seconds:.0f}" if seconds >= 2 else f"{seconds:.1f}".removesuffix(".0")
        return f"{digits} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.0f} h"


# The key in the metadata of outputs that only interactive notebooks have. Without these outputs, a
# notebook that was saved by a user equals one that ran unattended.
TRANSIENT_KEY = "llm_magics_transient"

# Displays the progress of some work; called with ``None``, it removes the display.
ProgressDisplay = Callable[[Progress | None], None]


@dataclass(frozen=True, slots=True)
class Cell:
    """
    A run of a cell.

    Attributes:
        key: identifies the cell in all of its runs; empty if unknown.
        number: the number of the run, as in ``In [3]``.
        run: a unique id of this run.
    """

    key: str = ""
    number: int | None = None
    run: str = field(default_factory=lambda: uuid4().hex, compare=False)


class Closable(Protocol):
    """A stream that can be stopped early."""

    def close(self) -> None:
        """Stop it; without effect if it has ended."""


class Host(ABC):
    """
    The interface to the program that this package runs in.

    Attributes:
        current_cell: the cell that is running, or ran last.
    """

    def __init__(self) -> None:
        self.current_cell = Cell()
        self._streams: WeakSet[Closable] = WeakSet()

    def watch_stream(self, stream: Closable) -> None:
        """Close ``stream`` if an interrupt ends the current cell, which reads it."""
        # A stream of another thread cannot be closed while that thread waits for its next chunk.
        if threading.current_thread() is threading.main_thread():
            self._streams.add(stream)

    def begin_cell(self, cell: Cell) -> None:
        """Make ``cell`` the current one."""
        self.current_cell = cell
        self._streams.clear()

    def end_cell(self, *, is_interrupted: bool) -> None:
        """Note that the current cell has ended."""
        if is_interrupted:
            self.close_streams()

    def close_streams(self) -> None:
        """Stop the models whose streams the interrupted cell has not read to the end."""
        while self._streams:
            self._streams.pop().close()

    @abstractmethod
    def create_progress_display(self) -> ProgressDisplay:
        """Return a progress display for one task."""

    @abstractmethod
    def ask(self, question: str) -> str | None:
        """Return the user's answer to ``question``; ``None`` if the session is not interactive."""

    def is_unattended(self) -> bool:
        """Whether it is certain that no user watches; a dialog would only delay the call."""
        return False

    def report(self, summary: str, problem: str = "") -> None:
        """Report on a finished operation; here, only a ``problem``, as a warning at the user's line."""
        if problem:
            warn(problem)

    def note(self, text: str) -> None:
        """Inform the user of something that is worth one line, such as where data is stored."""
        if sys.stderr and sys.stderr.isatty():
            sys.stderr.write(f"{escape_controls(text)}\n")

    def notebook(self) -> str:
        """Return the path of the notebook or script that runs; empty if unknown."""
        path = getattr(sys.modules.get("__main__"), "__file__", None)
        return str(path) if path else ""

    def shows_full_tracebacks(self) -> bool:
        """Whether errors are displayed with their full traceback instead of two to four lines."""
        return False

    def label_cell(self, code: CodeType) -> str | None:
        """Return the label of the cell that ``code`` was compiled from; ``None`` for other code."""
        return None

    def typed_line(self, source: str) -> str:
        """Return a line of code as the user typed it, before the host transformed it to Python."""
        return source


class TerminalHost(Host):
    """Displays progress on one line of stderr, and asks questions if stdin is a terminal."""

    def create_progress_display(self) -> ProgressDisplay:
        """Return a display that updates one line of the terminal; without effect otherwise."""
        return terminal_progress()

    def ask(self, question: str) -> str | None:
        """Return the line typed by the user; ``None`` if stdin is not a terminal."""
        if not (sys.stdin and sys.stdin.isatty()):
            return None
        return input(question)


def terminal_progress() -> ProgressDisplay:
    """Return a progress display on one line of stderr; without effect outside a terminal."""
    stream = sys.stderr
    if not stream.isatty():
        return lambda progress: None

    def display(progress: Progress | None) -> None:
        # The text may contain names from a service.
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
    global _host  # noqa: PLW0603 (one host per process, like sys.displayhook)
    _host = host


# Frames of these packages are between the user's code and this package, or below this package.
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
        line: the line number, from 1.
        module: the name of the module.
        source: the text of the line without indentation; empty if unknown.
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
    """The user's line that called this package; its source is looked up only if needed."""

    code: CodeType
    line: int
    variables: dict[str, Any]

    def locate(self) -> CodeLocation:
        """Return its location, with the current source."""
        path = self.code.co_filename
        source = linecache.getline(path, self.line, self.variables).strip()
        source = current_host().typed_line(source)
        file = current_host().label_cell(self.code) or path
        return CodeLocation(file, self.line, str(self.variables.get("__name__", "")), source)


# The caller of the work in the event loop's thread.
_called_from: ContextVar[_Caller | None] = ContextVar("called_from", default=None)

# The registries of issued warnings, by file: Python's own registry does not distinguish cells.
_registries: dict[str, dict[Any, Any]] = {}


def warn(
    message: str, category: type[Warning] = UserWarning, *, location: CodeLocation | None = None
) -> None:
    """
    Issue a warning that points to the user's line, also from the event loop's thread.

    Args:
        location: the line, for a warning about a cell that does not run yet.
    """
    message = escape_controls(message)  # it may contain text from a service
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
    """Record the user's line for warnings from work that is passed to another thread."""
    caller = _find_caller()
    if caller is not None:
        _called_from.set(caller)


def location_in(traceback: TracebackType | None) -> CodeLocation | None:
    """Return the user's line that called this package, also by a magic; ``None`` if unknown."""
    caller: tuple[FrameType, int] | None = None
    while traceback is not None:
        frame = traceback.tb_frame
        package = _package_of(frame)
        if package == "llm_magics":
            break
        if package not in _LIBRARIES:
            caller = frame, traceback.tb_lineno
        traceback = traceback.tb_next
    if traceback is None or caller is None:
        return None
    frame, line = caller
    return _Caller(frame.f_code, line, frame.f_globals).locate()


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
