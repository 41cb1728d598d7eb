"""
Arrival times of an answer's bytes: measurements of a request, and the sockets that record them.

An event loop that is busy with other answers reads a socket late, so that the time of the read
would include this delay. Linux records when a packet was received (``SO_TIMESTAMPNS``), and the
streams here use that time; on other systems, they use the time of the read. They implement
httpcore's interface of network backends, for ``http`` and for ``https``.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
import struct
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import httpcore

from llm_magics._util.text import reason_of
from llm_magics.http.deadlines import ConnectionTimeout

_T = TypeVar("_T")


@dataclass(slots=True, kw_only=True)
class RequestTiming:
    """
    The network times of one call; after a retry, those of the last request.

    Attributes:
        sent_at: when the request was passed to the socket, by `time.perf_counter`; ``None`` if
            nothing was sent over the network.
        connect_s: the time to open a new connection (name, TCP, TLS) before that, in seconds; 0 if
            an open connection was used.
        headers_s: the time from sending to the headers of the response, in seconds.
        bytes_sent: the size of the request bodies.
        bytes_received: the size of the response bodies, after decompression.
    """

    sent_at: float | None = None
    connect_s: float = 0.0
    headers_s: float | None = None
    bytes_sent: int = 0
    bytes_received: int = 0


# Set by a caller that measures, in the context (task) that makes the call.
REQUEST_TIMING: ContextVar[RequestTiming | None] = ContextVar("REQUEST_TIMING", default=None)

# From <asm-generic/socket.h>: each block is returned with the arrival time of its last packet.
_SO_TIMESTAMPNS = 35
_TIMESPEC = struct.Struct("@qq")
_ANCILLARY_SIZE = socket.CMSG_SPACE(_TIMESPEC.size) if hasattr(socket, "CMSG_SPACE") else 0
# If the difference of the clocks changes by more than this between two reads, one has been set.
_CLOCK_STEP_NS = 2_000_000


# The number of bytes to read ahead of the consumer. After that, the sender has to wait.
_MAX_READ_AHEAD = 256 * 1024
_BLOCK_SIZE = 64 * 1024


def is_available() -> bool:
    """Return whether this system's event loop can watch sockets; Windows' default loop cannot."""
    return sys.platform != "win32"


class NothingSentError(httpcore.WriteError):
    """The connection was closed before the first byte of a request was sent."""


class _PacketClock:
    """
    Converts packet times from the system clock, which can be set, to `time.perf_counter`.

    As long as both clocks advance equally, the age of a packet is reliable. After the system clock
    was set, the time of the read is used.
    """

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.perf_counter_ns()

    def perf_counter(self, stamp_ns: int) -> float:
        """Convert ``stamp_ns`` of the system clock to `time.perf_counter`, but at most to now."""
        now_ns = time.perf_counter_ns()
        offset_ns = time.time_ns() - now_ns
        was_set = abs(offset_ns - self._offset_ns) > _CLOCK_STEP_NS
        self._offset_ns = offset_ns
        return (now_ns if was_set else min(stamp_ns - offset_ns, now_ns)) / 1e9


class TimestampStream(httpcore.AsyncNetworkStream):
    """
    A TCP connection that records when bytes arrived.

    The event loop reads ahead of the consumer, up to a limit, so that each block has its own time.
    The loop only has a weak reference to the stream, so that an unused connection is closed.

    Attributes:
        received_at: when the last block that was read had arrived, by `time.perf_counter`.
        sent_at: when the first byte of the last request was passed to the system.
    """

    def __init__(self, connection: socket.socket) -> None:
        self.received_at = self.sent_at = time.perf_counter()
        self._socket = connection
        self._loop = weakref.ref(asyncio.get_running_loop())
        self._blocks: deque[tuple[float, bytes]] = deque()
        self._ahead = 0
        self._waiting: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._has_ended = False
        self._is_watched = False
        self._has_sent = False  # since the last read, so in the current request
        self._clock = _PacketClock() if _enable_timestamps(connection) else None
        weakref.finalize(self, _discard, self._loop, connection).atexit = False
        self._watch()

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """
        Return the next block; empty at the end.

        Raises:
            httpcore.ReadTimeout: nothing arrived within ``timeout`` seconds.
            httpcore.ReadError: the connection broke.
        """
        self._has_sent = False
        while not self._blocks:
            if self._error is not None:
                raise httpcore.ReadError(reason_of(self._error)) from self._error
            if self._has_ended:
                return b""
            self._watch()
            await self._until_readable(timeout)
        stamp, block = self._blocks.popleft()
        if len(block) > max_bytes:
            self._blocks.appendleft((stamp, block[max_bytes:]))
            block = block[:max_bytes]
        self._ahead -= len(block)
        self._watch()
        self.received_at = max(self.received_at, stamp)
        return block

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """
        Send all of ``buffer``.

        Raises:
            NothingSentError: no byte of a request was sent; the connection cannot be used again.
            httpcore.WriteTimeout: the server accepted no data for ``timeout`` seconds.
            httpcore.WriteError: the connection broke.
        """
        if not buffer:
            return
        if not self._has_sent:
            self.sent_at = time.perf_counter()
        try:
            sent = self._send_now(buffer)
        except OSError as error:
            if self._has_sent:
                raise httpcore.WriteError(reason_of(error)) from error
            self._fail(error)
            raise NothingSentError(reason_of(error)) from error
        self._has_sent = self._has_sent or sent > 0
        if sent == len(buffer):
            return
        rest, loop = memoryview(buffer)[sent:], asyncio.get_running_loop()
        try:
            # A large body over a slow connection may take longer than the time for each part.
            for start in range(0, len(rest), _BLOCK_SIZE):
                async with ConnectionTimeout(timeout):
                    await loop.sock_sendall(self._socket, rest[start : start + _BLOCK_SIZE])
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.WriteError(reason_of(error)) from error

    def _send_now(self, buffer: bytes) -> int:
        """Send as much as possible without waiting, and return the number of bytes."""
        try:
            return self._socket.send(buffer)
        except (BlockingIOError, InterruptedError):
            return 0

    async def aclose(self) -> None:
        """Close the connection; a task that reads from it gets an error."""
        self._fail(ConnectionAbortedError("the connection was closed"))
        self._socket.close()

    def _fail(self, error: Exception) -> None:
        """End the connection; a task that reads from it gets ``error``."""
        self._unwatch()
        if not self._has_ended:
            self._has_ended = True
            self._error = error
            self._blocks.clear()
        self._wake()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> TLSTimestampStream:
        """Return a TLS stream over this connection."""
        stream = TLSTimestampStream(self, ssl_context, server_hostname)
        try:
            async with ConnectionTimeout(timeout):
                await stream.handshake()
        except TimeoutError as error:
            await self.aclose()
            msg = f"no TLS handshake within {timeout:g} s"
            raise httpcore.ConnectTimeout(msg) from error
        except (ssl.SSLError, OSError, httpcore.NetworkError) as error:
            await self.aclose()
            raise httpcore.ConnectError(reason_of(error)) from error
        except BaseException:
            await self.aclose()
            raise
        return stream

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":
            return self._has_ended or bool(self._blocks) or _is_readable(self._socket)
        if info == "socket":
            return self._socket
        if info == "client_addr":
            return self._socket.getsockname()
        if info == "server_addr":
            return self._socket.getpeername()
        return None

    def _watch(self) -> None:
        """Make the loop read data when it arrives."""
        loop = self._loop()
        if loop is None or self._is_watched or self._has_ended or self._ahead >= _MAX_READ_AHEAD:
            return
        loop.add_reader(self._socket, _on_readable, weakref.ref(self))
        self._is_watched = True

    def _unwatch(self) -> None:
        loop = self._loop()
        if self._is_watched and loop is not None and not loop.is_closed():
            loop.remove_reader(self._socket)
        self._is_watched = False

    def on_readable(self) -> None:
        """Read one block; the event loop calls this."""
        try:
            stamp, block = self._receive()
        except (BlockingIOError, InterruptedError):
            return
        except Exception as error:  # raised again in the task that reads
            self._error = error
            stamp, block = 0.0, b""
        if block:
            self._blocks.append((stamp, block))
            self._ahead += len(block)
        else:
            self._has_ended = True
        if self._has_ended or self._ahead >= _MAX_READ_AHEAD:
            self._unwatch()
        self._wake()

    def _receive(self) -> tuple[float, bytes]:
        if self._clock is None:
            block = self._socket.recv(_BLOCK_SIZE)
            return time.perf_counter(), block
        block, ancillary, _, _ = self._socket.recvmsg(  # type: ignore[attr-defined, unused-ignore]
            _BLOCK_SIZE, _ANCILLARY_SIZE
        )
        for level, kind, data in ancillary:
            is_stamp = level == socket.SOL_SOCKET and kind == _SO_TIMESTAMPNS
            if is_stamp and len(data) == _TIMESPEC.size:
                seconds, nanoseconds = _TIMESPEC.unpack(data)
                return self._clock.perf_counter(seconds * 1_000_000_000 + nanoseconds), block
        return time.perf_counter(), block

    async def _until_readable(self, timeout: float | None) -> None:
        """Wait until there is data; a timer is faster than a timeout context for each block."""
        loop = asyncio.get_running_loop()
        waiting = self._waiting = loop.create_future()
        timer = loop.call_later(timeout, _time_out, waiting) if timeout is not None else None
        try:
            await waiting
        finally:
            self._waiting = None
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class TLSTimestampStream(httpcore.AsyncNetworkStream):
    """TLS over a `TimestampStream`; a decrypted block has the arrival time of its last packet."""

    def __init__(
        self, stream: TimestampStream, context: ssl.SSLContext, server_hostname: str | None
    ) -> None:
        self._stream = stream
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._ssl = context.wrap_bio(
            self._incoming, self._outgoing, server_hostname=server_hostname
        )

    @property
    def received_at(self) -> float:
        """When the last packet that was read had arrived, by `time.perf_counter`."""
        return self._stream.received_at

    @property
    def sent_at(self) -> float:
        """When the first byte of the last request was passed to the system."""
        return self._stream.sent_at

    async def handshake(self) -> None:
        """Perform the TLS handshake, and verify the server's certificate."""
        await self._run(self._ssl.do_handshake)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        try:
            return await self._run(lambda: self._ssl.read(max_bytes), timeout)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""
        except ssl.SSLError as error:
            raise httpcore.ReadError(reason_of(error)) from error

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        try:
            await self._run(lambda: self._ssl.write(buffer), timeout)
        except ssl.SSLError as error:
            raise httpcore.WriteError(reason_of(error)) from error

    async def aclose(self) -> None:
        await self._stream.aclose()

    def get_extra_info(self, info: str) -> Any:
        return self._ssl if info == "ssl_object" else self._stream.get_extra_info(info)

    async def _run(self, operation: Callable[[], _T], timeout: float | None = None) -> _T:
        """Run ``operation``, and transfer bytes between it and the connection as needed."""
        while True:
            try:
                result = operation()
            except ssl.SSLWantReadError:
                await self._flush(timeout)
                block = await self._stream.read(_BLOCK_SIZE, timeout)
                if block:
                    self._incoming.write(block)
                else:
                    self._incoming.write_eof()
            else:
                await self._flush(timeout)
                return result

    async def _flush(self, timeout: float | None) -> None:
        if self._outgoing.pending:
            await self._stream.write(self._outgoing.read(), timeout)


def _on_readable(stream: weakref.ref[TimestampStream]) -> None:
    found = stream()
    if found is not None:
        found.on_readable()


def _discard(loop: weakref.ref[asyncio.AbstractEventLoop], connection: socket.socket) -> None:
    """Close the connection of a stream that is no longer used; may run in any thread."""
    running = loop()
    if connection.fileno() < 0:
        return
    if running is None or running.is_closed():
        connection.close()
    elif running.is_running():
        with suppress(RuntimeError):  # it was closed in the meantime
            running.call_soon_threadsafe(_remove, running, connection)
    else:
        _remove(running, connection)


def _remove(loop: asyncio.AbstractEventLoop, connection: socket.socket) -> None:
    if connection.fileno() >= 0:
        loop.remove_reader(connection)
        connection.close()


def _enable_timestamps(connection: socket.socket) -> bool:
    """Make the system record when packets arrive; return whether it can."""
    if not sys.platform.startswith("linux") or not _ANCILLARY_SIZE:
        return False
    try:
        connection.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    except OSError:
        return False
    return True


def _time_out(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_exception(httpcore.ReadTimeout("read timeout"))


def _is_readable(connection: socket.socket) -> bool:
    if connection.fileno() < 0:
        return True
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([connection], [], [], 0)[0])
    poll: Any = select.poll()
    poll.register(connection, select.POLLIN)  # type: ignore[attr-defined, unused-ignore]
    return bool(poll.poll(0))
