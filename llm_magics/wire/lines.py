"""Bytes into lines, as they arrive: cut anywhere, even inside a character."""

from __future__ import annotations


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
