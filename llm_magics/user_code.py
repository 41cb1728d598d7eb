"""The line of the user's own code that called this package: warnings and errors point to it."""

from __future__ import annotations

import linecache
import sys
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from types import FrameType, TracebackType
from typing import Any, NamedTuple

from llm_magics._util.terminal import escape_controls
from llm_magics.host import current_host

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


# The user's line that work on the event loop's own thread is done for.
_called_from: ContextVar[CodeLocation | None] = ContextVar("called_from", default=None)

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
    location = location or _location_of_caller() or _called_from.get()
    if location is None:
        warnings.warn(message, category, stacklevel=2)
        return
    registry = _registries.setdefault(location.file, {})
    file, line, module, _ = location
    warnings.warn_explicit(message, category, file, line, module, registry)


def note_caller() -> None:
    """Remember the user's line for the work that is handed to another thread from here."""
    location = _location_of_caller()
    if location is not None:
        _called_from.set(location)


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
    return _location_at(before, line)


def _location_of_caller() -> CodeLocation | None:
    for frame in _frames(sys._getframe(2)):
        if _package_of(frame) not in _LIBRARIES:
            return _location_at(frame, frame.f_lineno)
    return None


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _package_of(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def _location_at(frame: FrameType, line: int) -> CodeLocation:
    code = frame.f_code
    source = linecache.getline(code.co_filename, line, frame.f_globals).strip()
    file = current_host().label_cell(code) or code.co_filename
    return CodeLocation(file, line, str(frame.f_globals.get("__name__", "")), source)
