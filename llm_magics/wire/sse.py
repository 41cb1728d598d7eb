"""
Server-sent events (WHATWG HTML, section 9.2), from bytes.

Two liberties, both seen in the wild: an event counts even if the stream ends before its
blank line, and there is no bound on its size, for images come this way too.
"""

from __future__ import annotations

from typing import NamedTuple

from llm_magics.wire.lines import LineSplitter


class ServerEvent(NamedTuple):
    """One event: its name (``message`` unless given) and its data, lines joined by newlines."""

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
