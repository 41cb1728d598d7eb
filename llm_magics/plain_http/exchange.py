"""A request sent over a connection that was kept or made, and its answer as it comes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import h11

from llm_magics.plain_http.framing import LONGEST_LINE, Chunked, Fixed, Framing, ProtocolError
from llm_magics.plain_http.sockets import StampedSocket, connected

# What is kept for the next request: so many connections, so long.
_MOST_KEPT, _KEPT_S = 100, 5.0

# As many bytes as httpx reads of a head.
_LONGEST_HEAD = 100 * 1024

Headers = Sequence[tuple[bytes, bytes]]
# Told of steps, by the names that httpx gives them.
Trace = Callable[[str], Awaitable[None]]


class UnreachableError(Exception):
    """No connection could be made; its cause is what went wrong."""


class Waits(NamedTuple):
    """Seconds to wait for a connection, for the next bytes, and for bytes to be taken."""

    connect: float | None = None
    read: float | None = None
    write: float | None = None


@dataclass(frozen=True)
class Request:
    """What is asked of ``origin``, a host and a port; the body comes in parts, as its headers say."""

    method: bytes
    target: bytes
    headers: Headers
    body: AsyncIterable[bytes]
    origin: tuple[bytes, int]


@dataclass
class Answer:
    """The head of an answer, and its body as it comes."""

    status: int
    reason: bytes
    headers: Headers
    body: Body
    socket: StampedSocket


class PlainHTTP:
    """Sends requests, each over a connection that is kept from before or made for it."""

    def __init__(self) -> None:
        self._kept: list[tuple[float, tuple[bytes, int], StampedSocket]] = []  # oldest first
        self._used: set[StampedSocket] = set()
        self._is_closed = False

    async def send(self, request: Request, waits: Waits, trace: Trace) -> Answer:
        """
        The answer, as soon as its head has come.

        Raises:
            UnreachableError: with the `TimeoutError` or `OSError` as its cause.
            TimeoutError: the server fell silent.
            OSError: the connection broke.
            ProtocolError: see there.
        """
        socket = self._one_kept(request.origin)
        if socket is None:
            await trace("connection.connect_tcp.started")
            try:
                socket = await connected(*request.origin, waits.connect)
            except (TimeoutError, OSError) as error:
                raise UnreachableError(str(error) or "it took too long") from error
        self._used.add(socket)
        try:
            socket.watch()
            parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LONGEST_HEAD)
            await trace("http11.send_request_headers.started")
            await _write(socket, parser, request, waits.write)
            head = await _head(socket, parser, waits.read)
        except h11.RemoteProtocolError as error:
            self._let_go(socket)
            raise ProtocolError(str(error)) from error
        except BaseException:
            self._let_go(socket)
            raise
        framing = _framing(request, head)
        kept_for = request.origin if framing and _keeps_alive(request, head) else None

        def done(is_whole: bool) -> None:
            self._done(socket, kept_for if is_whole else None)

        body = Body(socket, parser.trailing_data[0], framing, waits.read, done)
        return Answer(head.status_code, head.reason, head.headers.raw_items(), body, socket)

    def _one_kept(self, origin: tuple[bytes, int]) -> StampedSocket | None:
        oldest = time.monotonic() - _KEPT_S
        while self._kept and self._kept[0][0] < oldest:
            self._kept.pop(0)[2].close()
        for place in range(len(self._kept) - 1, -1, -1):
            if self._kept[place][1] == origin:
                socket = self._kept.pop(place)[2]
                if not socket.is_stale:
                    return socket
                socket.close()
        return None

    def _done(self, socket: StampedSocket, kept_for: tuple[bytes, int] | None) -> None:
        """An answer has ended; its connection is kept where it can be used again."""
        if kept_for is None or self._is_closed:
            self._let_go(socket)
            return
        self._used.discard(socket)
        socket.unwatch()  # what is watched is held by the loop; this may be forgotten
        self._kept.append((time.monotonic(), kept_for, socket))
        if len(self._kept) > _MOST_KEPT:
            self._kept.pop(0)[2].close()

    def _let_go(self, socket: StampedSocket) -> None:
        self._used.discard(socket)
        socket.close()

    def close(self) -> None:
        """Close all connections; what is under way breaks off."""
        self._is_closed = True
        for _, _, socket in self._kept:
            socket.close()
        for socket in [*self._used]:
            self._let_go(socket)
        self._kept.clear()


class Body:
    """
    The parts of a body as they come, to be iterated once.

    However it ends, its connection is given back or closed; `aclose` ends it at any moment.
    """

    def __init__(
        self,
        socket: StampedSocket,
        begun: bytes,
        framing: Framing | None,
        wait_s: float | None,
        done: Callable[[bool], None],
    ) -> None:
        """``begun`` came with the head; ``done`` is told whether it ended as it should."""
        self._socket = socket
        self._block = begun
        self._framing = framing
        self._wait_s = wait_s
        self._done = done
        self._has_ended = False

    def __aiter__(self) -> Body:
        return self

    async def __anext__(self) -> bytes:
        while not self._has_ended:
            try:
                part = self._part()
                if not self._has_ended and not part:
                    await self._read()
            except BaseException:
                self._end(is_whole=False)
                raise
            if part:
                return part
        raise StopAsyncIteration

    def _part(self) -> bytes:
        """What of the body is in the block that came last."""
        block, self._block = self._block, b""
        if self._framing is None:
            return block
        part = self._framing.feed(block)
        if self._framing.is_done:
            self._end(is_whole=not self._framing.rest)
        return part

    async def _read(self) -> None:
        self._block = await self._socket.read(self._wait_s)
        if self._block:
            return
        if self._framing is not None:
            msg = "peer closed connection without sending complete message body"
            raise ProtocolError(msg)
        self._end(is_whole=True)

    def _end(self, *, is_whole: bool) -> None:
        if not self._has_ended:
            self._has_ended = True
            self._done(is_whole)

    async def aclose(self) -> None:
        """End it, whole or not, read or not."""
        self._end(is_whole=False)


async def _write(
    socket: StampedSocket, parser: h11.Connection, request: Request, wait_s: float | None
) -> None:
    """Send the request, its head and the beginning of its body in one packet."""
    made = h11.Request(method=request.method, target=request.target, headers=list(request.headers))
    ready = parser.send(made) or b""
    async for part in request.body:
        ready += parser.send(h11.Data(data=part)) or b""
        if len(ready) > LONGEST_LINE:
            if not await _is_written(socket, ready, wait_s):
                return
            ready = b""
    ready += parser.send(h11.EndOfMessage()) or b""
    await _is_written(socket, ready, wait_s)


async def _is_written(socket: StampedSocket, data: bytes, wait_s: float | None) -> bool:
    """Whether it was taken; a server may refuse a request before it has read all of it."""
    try:
        await socket.write(data, wait_s)
    except TimeoutError:
        raise
    except OSError:
        return False
    return True


async def _head(
    socket: StampedSocket, parser: h11.Connection, wait_s: float | None
) -> h11.Response:
    has_said = False
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            block = await socket.read(wait_s)
            if not block and not has_said:
                msg = "Server disconnected without sending a response."
                raise ProtocolError(msg)
            has_said = True
            parser.receive_data(block)
        elif isinstance(event, h11.Response):
            return event
        elif not isinstance(event, h11.InformationalResponse):
            raise ProtocolError(f"{type(event).__name__} in place of an answer")


def _framing(request: Request, head: h11.Response) -> Framing | None:
    """How the end of the body is told; ``None`` where by the end of the connection."""
    headers = dict(head.headers)
    if request.method == b"HEAD" or head.status_code in (204, 304):
        return Fixed(0)
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        return Chunked()
    length = headers.get(b"content-length")
    return None if length is None else Fixed(int(length))


def _keeps_alive(request: Request, head: h11.Response) -> bool:
    said = b",".join(
        value.lower()
        for name, value in (*request.headers, *head.headers)
        if name.lower() == b"connection"
    )
    return head.http_version >= b"1.1" and b"close" not in said
