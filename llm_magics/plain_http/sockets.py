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
import weakref
from collections import deque
from typing import Any

# <asm-generic/socket.h>: each block comes with the time at which its last packet did.
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@qq")
_ROOM = socket.CMSG_SPACE(_TIMESPEC.size) if hasattr(socket, "CMSG_SPACE") else 0
# Clocks that come apart by so much between two reads have been set.
_APART_NS = 2_000_000

# An address has so long before the next one is tried beside it.
_NEXT_ADDRESS_S = 0.25

# So much is read ahead of whoever takes it; then the sender has to wait.
_AHEAD = 256 * 1024
_BLOCK = 64 * 1024


def are_possible() -> bool:
    """Whether loops can watch sockets here."""
    return sys.platform != "win32"


async def connected(host: bytes, port: int, wait_s: float | None) -> StampedSocket:
    """
    A connection to the first address of ``host`` that takes one; it is in ASCII, as in a URL.

    Raises:
        TimeoutError: none did within ``wait_s`` seconds.
        OSError: none does.
    """
    async with asyncio.timeout(wait_s):
        made = await _first_that_connects(host, port)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return StampedSocket(made)


async def _first_that_connects(host: bytes, port: int) -> socket.socket:
    """
    Each address is tried a moment after the one before, or when that has failed (RFC 8305).

    One that swallows what it is sent must not hold the others up.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # a label that is none
        raise OSError(f"{host!r} is no name of a host") from error
    failed: OSError | None = None
    tries: set[asyncio.Task[socket.socket]] = set()
    left = list(found)
    try:
        while left or tries:
            if left:
                tries.add(asyncio.create_task(_to_address(left.pop(0))))
            wait_s = _NEXT_ADDRESS_S if left else None
            done, tries = await asyncio.wait(
                tries, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED
            )
            for each in done:
                wrong = each.exception()
                if wrong is None:
                    tries |= done - {each}
                    return each.result()
                failed = failed or (wrong if isinstance(wrong, OSError) else OSError(str(wrong)))
    finally:
        for each in tries:
            each.cancel()
            each.add_done_callback(_close_if_made)
    raise failed or OSError(f"{host!r} has no address")


async def _to_address(found: Any) -> socket.socket:
    family, kind, protocol, _, address = found
    made = socket.socket(family, kind, protocol)
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, address)
    except BaseException:
        made.close()
        raise
    return made


def _close_if_made(tried: asyncio.Task[socket.socket]) -> None:
    if not tried.cancelled() and tried.exception() is None:
        tried.result().close()


class Clock:
    """
    The times of packets, which are of a clock that can be set, on one that cannot.

    While the two go on together a packet's age is believed; when they have come apart, it came
    when it was read.
    """

    def __init__(self) -> None:
        self._apart_ns = time.time_ns() - time.perf_counter_ns()

    def of(self, stamp_ns: int) -> float:
        """``stamp_ns`` of the system's clock by `time.perf_counter`; never later than now."""
        now_ns = time.perf_counter_ns()
        apart_ns = time.time_ns() - now_ns
        is_set = abs(apart_ns - self._apart_ns) > _APART_NS
        self._apart_ns = apart_ns
        told_ns = stamp_ns - apart_ns
        return (now_ns if is_set else min(told_ns, now_ns)) / 1e9


class StampedSocket:
    """
    A connection.

    Attributes:
        read_at: when the last block that was read came in, by `time.perf_counter`.
    """

    def __init__(self, made: socket.socket) -> None:
        self.read_at = time.perf_counter()
        self._socket = made
        self._loop = weakref.ref(
            asyncio.get_running_loop()
        )  # of which it must not be the last hold
        self._blocks: deque[tuple[float, bytes]] = deque()
        self._ahead = 0
        self._waiting: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._has_ended = False
        self._is_watched = False
        self._clock = Clock() if _asks_for_stamps(made) else None
        # One that is forgotten is closed; no loop watches it, or it would be held.
        weakref.finalize(self, made.close).atexit = False

    def watch(self) -> None:
        """Have the loop take what comes in; it holds the socket as long."""
        loop = self._loop()
        if loop is not None and not self._is_watched and not self._has_ended:
            loop.add_reader(self._socket, self._on_readable)
            self._is_watched = True

    def unwatch(self) -> None:
        """Leave what comes in to the system."""
        loop = self._loop()
        if self._is_watched and loop is not None and not loop.is_closed():
            loop.remove_reader(self._socket)
        self._is_watched = False

    def _on_readable(self) -> None:
        """Called by the loop."""
        try:
            stamp, block = self._received()
        except (BlockingIOError, InterruptedError):
            return
        except Exception as error:  # of whatever kind: whoever reads is to be told
            self._error = error
            stamp, block = 0.0, b""
        if block:
            self._blocks.append((stamp, block))
            self._ahead += len(block)
        else:
            self._has_ended = True
        if self._has_ended or self._ahead >= _AHEAD:
            self.unwatch()
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def _received(self) -> tuple[float, bytes]:
        if self._clock is None:
            block = self._socket.recv(_BLOCK)
            return time.perf_counter(), block
        block, notes, _, _ = self._socket.recvmsg(_BLOCK, _ROOM)
        for level, kind, data in notes:
            is_stamp = level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS
            if is_stamp and len(data) == _TIMESPEC.size:
                seconds, nanoseconds = _TIMESPEC.unpack(data)
                return self._clock.of(seconds * 1_000_000_000 + nanoseconds), block
        return time.perf_counter(), block

    async def read(self, wait_s: float | None) -> bytes:
        """
        The next block; empty at the end.

        Raises:
            TimeoutError: nothing came within ``wait_s`` seconds.
            OSError: the connection broke.
        """
        while not self._blocks:
            self.watch()
            if self._error is not None:
                raise self._error
            if self._has_ended:
                return b""
            await self._news(wait_s)
        stamp, block = self._blocks.popleft()
        self._ahead -= len(block)
        self.watch()
        self.read_at = max(self.read_at, stamp)
        return block

    async def _news(self, wait_s: float | None) -> None:
        """Wait; a timer costs less than a scope of cancellation for each block."""
        loop = asyncio.get_running_loop()
        waiting = self._waiting = loop.create_future()
        timer = loop.call_later(wait_s, _give_up, waiting) if wait_s is not None else None
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
                await asyncio.get_running_loop().sock_sendall(
                    self._socket, memoryview(data)[sent:]
                )

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
        """Close the connection; whoever waits for it is told that it broke."""
        self.unwatch()
        if not self._has_ended:
            self._has_ended = True
            self._error = ConnectionAbortedError("the connection was closed")
        self._socket.close()
        self._wake()


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
