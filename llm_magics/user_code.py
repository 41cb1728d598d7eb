"""Where in the user's own code a call was made: the place that warnings and errors point to."""

from __future__ import annotations

import linecache
import sys
import warnings
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import CodeType, FrameType, TracebackType
from typing import Any, NamedTuple

from llm_magics._util.terminal import escape_controls

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


class Place(NamedTuple):
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
        shown = self.source if len(self.source) <= _MAX_SOURCE else f"{self.source[:_MAX_SOURCE]}…"
        return f"{where}, line {self.line}: {shown}" if shown else f"{where}, line {self.line}"


# The place of the call that work on the event loop's own thread is done for.
_called_from: ContextVar[Place | None] = ContextVar("called_from", default=None)

# Warnings that were shown already, by place: Python's own registry does not tell cells apart.
_shown: dict[str, dict[Any, Any]] = {}


def _no_label(code: CodeType) -> str | None:
    return None


_label: Callable[[CodeType], str | None] = _no_label


def label_cells_by(label: Callable[[CodeType], str | None] | None) -> None:
    """Have ``label`` name the cell that a code object was compiled from, if it is a cell's."""
    global _label  # noqa: PLW0603 (one notebook a process)
    _label = label or _no_label


def warn(
    message: str, category: type[Warning] = UserWarning, *, place: Place | None = None
) -> None:
    """
    Issue a warning that points to the user's line, also from the event loop's thread.

    Args:
        place: that line, where no frame shows it: before its cell runs.
    """
    message = escape_controls(message)  # it may quote a service
    place = place or _place_of_caller() or _called_from.get()
    if place is None:
        warnings.warn(message, category, stacklevel=2)
        return
    registry = _shown.setdefault(place.file, {})
    warnings.warn_explicit(message, category, place.file, place.line, place.module, registry)


def note_caller() -> None:
    """Remember the user's line for the work that is handed to another thread from here."""
    place = _place_of_caller()
    if place is not None:
        _called_from.set(place)


def place_in(traceback: TracebackType | None) -> Place | None:
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
    return _place(before, line)


def _place_of_caller() -> Place | None:
    for frame in _frames(sys._getframe(2)):
        if _package_of(frame) not in _LIBRARIES:
            return _place(frame, frame.f_lineno)
    return None


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _package_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _place(frame: FrameType, line: int) -> Place:
    code = frame.f_code
    source = linecache.getline(code.co_filename, line, frame.f_globals).strip()
    file = _label(code) or code.co_filename
    return Place(file, line, str(frame.f_globals.get("__name__", "")), source)
