"""
Plain sockets that say when bytes came in.

A loop that is busy with other answers looks at a socket late, and a time taken then would be its
own lateness. Linux notes when it has received a packet (``SO_TIMESTAMPNS``); elsewhere it is the
moment at which the loop reads.

Needs a loop with ``add_reader``, which is every one but Windows' usual.
"""

from __future__ import annotations

import asyncio
import select
import socket
import struct
import sys
import time
from collections import deque
from typing import Any

# <asm-generic/socket.h>: each block comes with the time at which its last packet did.
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@qq")
_ROOM = socket.CMSG_SPACE(_TIMESPEC.size) if hasattr(socket, "CMSG_SPACE") else 0
# The clock of those times can be set: what claims to be older is not believed.
_OLDEST_NS = 1_000_000_000

# So much is read ahead of whoever takes it; then the sender has to wait.
_AHEAD = 256 * 1024
_BLOCK = 64 * 1024


def are_possible() -> bool:
    """Whether loops can watch sockets here."""
    return sys.platform != "win32"


async def connected(host: str, port: int, wait_s: float | None) -> StampedSocket:
    """
    A connection to the first address of ``host`` that takes one.

    Raises:
        TimeoutError: none did within ``wait_s`` seconds.
        OSError: none does.
    """
    async with asyncio.timeout(wait_s):
        made = await _first_that_connects(host, port)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return StampedSocket(made)


async def _first_that_connects(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    failed: OSError | None = None
    for family, kind, protocol, _, address in await loop.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        made = socket.socket(family, kind, protocol)
        try:
            made.setblocking(False)
            await loop.sock_connect(made, address)
            return made
        except OSError as error:
            made.close()
            failed = failed or error
        except BaseException:
            made.close()
            raise
    raise failed or OSError(f"{host} has no address")


class StampedSocket:
    """
    A connection.

    Attributes:
        read_at: when the last block that was read came in, by `time.perf_counter`.
    """

    def __init__(self, made: socket.socket) -> None:
        self.read_at = time.perf_counter()
        self._socket = made
        self._loop = asyncio.get_running_loop()
        self._blocks: deque[tuple[float, bytes]] = deque()
        self._ahead = 0
        self._waiting: asyncio.Future[None] | None = None
        self._error: OSError | None = None
        self._has_ended = False
        self._is_watched = False
        self._has_stamps = _asks_for_stamps(made)
        self._watch()

    def _watch(self) -> None:
        self._loop.add_reader(self._socket, self._on_readable)
        self._is_watched = True

    def _unwatch(self) -> None:
        if self._is_watched:
            self._is_watched = False
            self._loop.remove_reader(self._socket)

    def _on_readable(self) -> None:
        """Called by the loop."""
        try:
            stamp, block = self._received()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._error = error
            stamp, block = 0.0, b""
        if block:
            self._blocks.append((stamp, block))
            self._ahead += len(block)
        else:
            self._has_ended = True
        if self._has_ended or self._ahead >= _AHEAD:
            self._unwatch()
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _received(self) -> tuple[float, bytes]:
        if not self._has_stamps:
            block = self._socket.recv(_BLOCK)
            return time.perf_counter(), block
        block, notes, _, _ = self._socket.recvmsg(_BLOCK, _ROOM)
        now = time.perf_counter()
        for level, kind, data in notes:
            if level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS:
                seconds, nanoseconds = _TIMESPEC.unpack(data)
                age_ns = time.time_ns() - (seconds * 1_000_000_000 + nanoseconds)
                if 0 <= age_ns <= _OLDEST_NS:
                    return now - age_ns / 1e9, block
        return now, block

    async def read(self, wait_s: float | None) -> bytes:
        """
        The next block; empty at the end.

        Raises:
            TimeoutError: nothing came within ``wait_s`` seconds.
            OSError: the connection broke.
        """
        while not self._blocks:
            if self._error is not None:
                raise self._error
            if self._has_ended:
                return b""
            await self._news(wait_s)
        stamp, block = self._blocks.popleft()
        self._ahead -= len(block)
        if not self._is_watched and not self._has_ended:
            self._watch()
        self.read_at = max(self.read_at, stamp)
        return block

    async def _news(self, wait_s: float | None) -> None:
        """Wait; a timer costs less than a scope of cancellation for each block."""
        waiting = self._waiting = self._loop.create_future()
        timer = self._loop.call_later(wait_s, _give_up, waiting) if wait_s is not None else None
        try:
            await waiting
        finally:
            self._waiting = None
            if timer is not None:
                timer.cancel()

    async def write(self, data: bytes, wait_s: float | None) -> None:
        """
        Send all of it.

        Raises:
            TimeoutError: it was not taken within ``wait_s`` seconds.
            OSError: the connection broke.
        """
        sent = self._sent(data)
        if sent < len(data):
            async with asyncio.timeout(wait_s):
                await self._loop.sock_sendall(self._socket, memoryview(data)[sent:])

    def _sent(self, data: bytes) -> int:
        """How much of it went at once."""
        try:
            return self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            return 0

    @property
    def is_stale(self) -> bool:
        """Whether, with nothing under way, it has ended or says something unasked."""
        return self._has_ended or bool(self._blocks) or _is_readable(self._socket)

    def close(self) -> None:
        """Close the connection."""
        self._unwatch()
        self._has_ended = True
        self._socket.close()


def _asks_for_stamps(made: socket.socket) -> bool:
    """Have the system note when bytes come in, where it can."""
    if not sys.platform.startswith("linux") or not _ROOM:
        return False
    try:
        made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return True


def _give_up(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_exception(TimeoutError())


def _is_readable(made: socket.socket) -> bool:
    if made.fileno() < 0:
        return True
    poll: Any = select.poll()
    poll.register(made, select.POLLIN)
    return bool(poll.poll(0))
