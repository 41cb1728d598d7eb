"""
Plain sockets that say when bytes came in, for httpx to be built on.

A loop that is busy with other answers looks at a socket late, and a time taken then would be its
own lateness. Linux notes when it has received a packet (``SO_TIMESTAMPNS``); elsewhere it is the
moment at which the loop reads. Reading costs less than over anyio's streams, too: no scope of
cancellation is opened for each block.

For ``http://`` only; TLS goes over httpx's own. Needs a loop with ``add_reader``, which is every
one but Windows' usual.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
import struct
import sys
import time
from collections import deque
from collections.abc import Iterable
from typing import Any

import httpcore

# <asm-generic/socket.h>: each block comes with the time at which its last packet did.
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@qq")
_ROOM = socket.CMSG_SPACE(_TIMESPEC.size) if hasattr(socket, "CMSG_SPACE") else 0
# The clock of those times can be set: what claims to be older is not believed.
_OLDEST_NS = 1_000_000_000

# So much is read ahead of whoever takes it; then the sender has to wait.
_AHEAD = 256 * 1024
_BLOCK = 64 * 1024

SocketOption = tuple[int, int, Any]


def are_possible() -> bool:
    """Whether the running loop can watch sockets."""
    return sys.platform != "win32"


class StampedSockets(httpcore.AsyncNetworkBackend):
    """Makes the connections."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of ``host`` that takes it."""
        try:
            async with asyncio.timeout(timeout):
                made = await _connected(host, port, local_address)
        except TimeoutError:
            msg = f"no connection within {timeout:g} s"
            raise httpcore.ConnectTimeout(msg) from None
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in socket_options or ():
            made.setsockopt(*option)
        return StampedStream(made)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def _connected(host: str, port: int, local_address: str | None) -> socket.socket:
    loop = asyncio.get_running_loop()
    failed: OSError | None = None
    for family, kind, protocol, _, address in await loop.getaddrinfo(
        host, port, type=socket.SOCK_STREAM
    ):
        made = socket.socket(family, kind, protocol)
        try:
            made.setblocking(False)
            if local_address is not None:
                made.bind((local_address, 0))
            await loop.sock_connect(made, address)
            return made
        except OSError as error:
            made.close()
            failed = failed or error
        except BaseException:
            made.close()
            raise
    raise failed or OSError(f"{host} has no address")


class StampedStream(httpcore.AsyncNetworkStream):
    """
    A connection; ``get_extra_info("read_at")`` is when the last block that was read came in.

    On the clock of `time.perf_counter`.
    """

    def __init__(self, made: socket.socket) -> None:
        self._socket = made
        self._loop = asyncio.get_running_loop()
        self._blocks: deque[tuple[float, bytes]] = deque()
        self._size = 0
        self._waiting: asyncio.Future[None] | None = None
        self._error: OSError | None = None
        self._has_ended = False
        self._is_watched = False
        self._read_at = time.perf_counter()
        self._has_stamps = _asks_for_stamps(made)
        self._watch()

    def _watch(self) -> None:
        self._loop.add_reader(self._socket, self._on_readable)
        self._is_watched = True

    def _unwatch(self) -> None:
        if self._is_watched:
            self._loop.remove_reader(self._socket)
            self._is_watched = False

    def _on_readable(self) -> None:
        """Called by the loop."""
        try:
            stamp, block = self._received()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._error = error
            block = b""
        if block:
            self._blocks.append((stamp, block))
            self._size += len(block)
            if self._size >= _AHEAD:
                self._unwatch()
        else:
            self._has_ended = True
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

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """The next block; empty at the end."""
        while not self._blocks:
            if self._error is not None:
                raise httpcore.ReadError(str(self._error)) from self._error
            if self._has_ended:
                return b""
            await self._news(timeout)
        stamp, block = self._blocks.popleft()
        if len(block) > max_bytes:
            self._blocks.appendleft((stamp, block[max_bytes:]))
            block = block[:max_bytes]
        self._size -= len(block)
        if not self._is_watched and not self._has_ended and self._size < _AHEAD:
            self._watch()
        self._read_at = max(self._read_at, stamp)
        return block

    async def _news(self, timeout: float | None) -> None:
        waiting = self._waiting = self._loop.create_future()
        handle = None
        if timeout is not None:
            error = httpcore.ReadTimeout(f"nothing came within {timeout:g} s")
            handle = self._loop.call_later(timeout, _fail, waiting, error)
        try:
            await waiting
        finally:
            self._waiting = None
            if handle is not None:
                handle.cancel()

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it."""
        try:
            sent = self._sent(buffer)
            if sent < len(buffer):
                async with asyncio.timeout(timeout):
                    await self._loop.sock_sendall(self._socket, memoryview(buffer)[sent:])
        except TimeoutError:
            msg = f"not sent within {timeout:g} s"
            raise httpcore.WriteTimeout(msg) from None
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    def _sent(self, buffer: bytes) -> int:
        """How much of it went at once."""
        try:
            return self._socket.send(buffer)
        except (BlockingIOError, InterruptedError):
            return 0

    async def aclose(self) -> None:
        """Close the connection."""
        self._unwatch()
        self._has_ended = True
        self._socket.close()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Not here; see the module."""
        raise NotImplementedError

    def get_extra_info(self, info: str) -> Any:
        """What httpx asks about a connection, and ``read_at``."""
        if info == "read_at":
            return self._read_at
        if info == "is_readable":  # of an idle one: that the server has closed it
            return self._has_ended or bool(self._blocks) or _is_readable(self._socket)
        if info == "socket":
            return self._socket
        if info == "client_addr":
            return self._socket.getsockname()
        if info == "server_addr":
            return self._socket.getpeername()
        return None


def _asks_for_stamps(made: socket.socket) -> bool:
    """Have the system note when bytes come in, where it can."""
    if not sys.platform.startswith("linux") or not _ROOM:
        return False
    try:
        made.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return True


def _fail(waiting: asyncio.Future[None], error: Exception) -> None:
    if not waiting.done():
        waiting.set_exception(error)


def _is_readable(made: socket.socket) -> bool:
    if made.fileno() < 0:
        return True
    poll = select.poll()
    poll.register(made, select.POLLIN)
    return bool(poll.poll(0))
