"""Bytes into lines, as they come: cut anywhere, even inside a character."""

from __future__ import annotations


class LineSplitter:
    r"""
    Cuts a stream of bytes at ``\n``, ``\r`` and ``\r\n``.

    On bytes, not on text: ``str.splitlines`` also cuts at U+2028 and its like, which may
    stand inside a JSON string. Lines come without their ends.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._skip_newline = False

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes."""
        if self._skip_newline and data:
            data = data.removeprefix(b"\n")
            self._skip_newline = False
        if b"\r" in data:
            # A \r at the very end may be the first half of \r\n: if so, its \n is still to come.
            self._skip_newline = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if self._rest:
            data = self._rest + data
        lines = data.split(b"\n")
        self._rest = lines.pop()
        return lines

    def flush(self) -> list[bytes]:
        """The last line, where the stream ended without ending it."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []


class NewlineSplitter:
    r"""Cuts a stream of bytes at ``\n`` alone, as JSON lines are cut."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that ``data`` completes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines

    def flush(self) -> list[bytes]:
        """The last line, where the stream ended without ending it."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []
