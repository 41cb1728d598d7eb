"""
Server-sent events (WHATWG HTML, section 9.2), from bytes.

Two liberties, both seen in the wild: an event counts even if the stream ends before its
blank line, and there is no bound on its size, for images come this way too.
"""

from __future__ import annotations

from typing import NamedTuple


class NewlineSplitter:
    r"""
    Cuts a stream of bytes at ``\n`` alone, as JSON lines are cut.

    A line that is not complete stays in the pieces in which it arrived: to join it with each
    further one would take quadratic time.
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that ``data`` completes, without their ends."""
        if b"\n" not in data:
            if data:
                self._rest.append(data)
            return []
        lines = data.split(b"\n")
        if self._rest:
            lines[0] = b"".join([*self._rest, lines[0]])
        last = lines.pop()
        self._rest = [last] if last else []
        return lines

    def flush(self) -> list[bytes]:
        """Return the last line, if the stream ended without ending it."""
        rest, self._rest = b"".join(self._rest), []
        return [rest] if rest else []


class LineSplitter:
    r"""
    Cuts a stream of bytes at ``\n``, ``\r`` and ``\r\n``.

    On bytes, not on text: ``str.splitlines`` also cuts at U+2028 and its like, which may
    stand inside a JSON string. Lines come without their ends.
    """

    def __init__(self) -> None:
        self._lines = NewlineSplitter()
        self._skip_newline = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that ``data`` completes."""
        if self._skip_newline and data:
            data = data.removeprefix(b"\n")
            self._skip_newline = False
        if b"\r" in data:
            # A \r at the very end may be the first half of \r\n: if so, its \n is still to come.
            self._skip_newline = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return self._lines.feed(data)

    def flush(self) -> list[bytes]:
        """Return the last line, if the stream ended without ending it."""
        return self._lines.flush()


class ServerEvent(NamedTuple):
    """One event: its name (``message`` by default) and its data, lines joined by newlines."""

    name: bytes
    data: bytes


class EventDecoder:
    """Feeds on bytes, yields events. Comments and unknown fields are passed over."""

    def __init__(self) -> None:
        self._lines = LineSplitter()
        self._name = b"message"
        self._data: list[bytes] = []
        self._is_first = True

    def feed(self, data: bytes) -> list[ServerEvent]:
        """The events that ``data`` completes."""
        return self._events(self._lines.feed(data))

    def flush(self) -> list[ServerEvent]:
        """The last event, where the stream ended without a blank line."""
        return self._events([*self._lines.flush(), b""])

    def _events(self, lines: list[bytes]) -> list[ServerEvent]:
        events: list[ServerEvent] = []
        if self._is_first and lines:
            lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")  # a mark of the byte order
            self._is_first = False
        for line in lines:
            if not line:
                if self._data:
                    events.append(ServerEvent(self._name, b"\n".join(self._data)))
                    self._data = []
                self._name = b"message"
                continue
            if line.startswith(b"data: "):
                self._data.append(line[6:])
                continue
            field, _, value = line.partition(b":")
            if field == b"data":
                self._data.append(value.removeprefix(b" "))
            elif field == b"event":
                self._name = value.removeprefix(b" ")
        return events
