"""Where the body of an answer ends, and what of it there is in what has come in."""

from __future__ import annotations

import re
from typing import Protocol

# A line of a transfer that is longer is none.
LONGEST_LINE = 64 * 1024
# What may follow a transfer, all together.
_LONGEST_TRAILERS = 100 * 1024


class ProtocolError(Exception):
    """The server said what is no HTTP, or ended before it had said all."""


class Framing(Protocol):
    """
    Cuts a body out of what comes.

    Attributes:
        is_done: whether that was all of it.
        rest: what came behind it, or is not whole yet.
    """

    is_done: bool
    rest: bytes

    def feed(self, block: bytes) -> bytes:
        """What of the body is in ``block``."""


class Fixed:
    """A body of so many bytes."""

    def __init__(self, length: int) -> None:
        self._left = length
        self.is_done = length == 0
        self.rest = b""

    def feed(self, block: bytes) -> bytes:
        part, self.rest = block[: self._left], block[self._left :]
        self._left -= len(part)
        self.is_done = self._left == 0
        return part


_SIZE = re.compile(rb"([0-9A-Fa-f]{1,20})[ \t]*(?:;.*)?")


class Chunked:
    """A body in pieces, each with its size before it (RFC 9112, 7.1)."""

    def __init__(self) -> None:
        self.is_done = False
        self.rest = b""
        self._left = 0
        self._is_after_piece = False
        self._is_in_trailers = False
        self._trailers = 0

    def feed(self, block: bytes) -> bytes:
        """
        All that of the body is in ``block``.

        Raises:
            ProtocolError: it is not so transferred.
        """
        data = self.rest + block if self.rest else block
        parts: list[bytes] = []
        at = 0
        while not self.is_done:
            if self._left:
                part = data[at : at + self._left]
                parts.append(part)
                at += len(part)
                self._left -= len(part)
                if self._left:
                    break
                self._is_after_piece = True
            end = data.find(b"\r\n", at, at + LONGEST_LINE)
            if end < 0:
                if len(data) - at >= LONGEST_LINE:
                    msg = "a line of the transfer is too long"
                    raise ProtocolError(msg)
                break
            self._line(data[at:end])
            at = end + 2
        self.rest = data[at:]
        return b"".join(parts)

    def _line(self, line: bytes) -> None:
        """A line between the pieces: the end of one, a size, or a trailer."""
        if self._is_in_trailers:
            self._trailers += len(line) + 2
            if self._trailers > _LONGEST_TRAILERS or (line and b":" not in line):
                msg = "what follows the transfer is too long, or no header"
                raise ProtocolError(msg)
            self.is_done = not line
        elif self._is_after_piece:
            if line:
                msg = "a piece of the transfer is longer than it says"
                raise ProtocolError(msg)
            self._is_after_piece = False
        else:
            size = _SIZE.fullmatch(line)
            if size is None:
                raise ProtocolError(f"illegal chunk header: {line[:40]!r}")
            self._left = int(size[1], 16)
            self._is_in_trailers = self._left == 0
