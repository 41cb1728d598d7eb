"""A request sent over a connection that was kept or made, and its answer as it comes."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import h11

from llm_magics.plain_http.framing import LONGEST_LINE, Chunked, Fixed, Framing, ProtocolError
from llm_magics.plain_http.sockets import StampedSocket, connected

# What is kept for the next request: so many connections, so long.
_MOST_KEPT, _KEPT_S = 100, 5.0

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
    """What is asked of ``host``; the body comes in parts, as its headers say."""

    method: bytes
    target: bytes
    headers: Headers
    body: AsyncIterable[bytes]
    host: str
    port: int


@dataclass
class Answer:
    """The head of an answer, and its body as it comes."""

    status: int
    reason: bytes
    headers: Headers
    body: AsyncGenerator[bytes, None]
    socket: StampedSocket


class PlainHTTP:
    """Sends requests, each over a connection that is kept from before or made for it."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], list[tuple[float, StampedSocket]]] = {}

    async def send(self, request: Request, waits: Waits, trace: Trace) -> Answer:
        """
        The answer, as soon as its head has come.

        Raises:
            UnreachableError: with the `TimeoutError` or `OSError` as its cause.
            TimeoutError: the server fell silent.
            OSError: the connection broke.
            ProtocolError: see there.
        """
        socket = self._one_kept(request)
        if socket is None:
            await trace("connection.connect_tcp.started")
            try:
                socket = await connected(request.host, request.port, waits.connect)
            except (TimeoutError, OSError) as error:
                raise UnreachableError(str(error) or "it took too long") from error
        try:
            parser = h11.Connection(h11.CLIENT)
            await trace("http11.send_request_headers.started")
            await _write(socket, parser, request, waits.write)
            head = await _head(socket, parser, waits.read)
        except h11.RemoteProtocolError as error:
            socket.close()
            raise ProtocolError(str(error)) from error
        except BaseException:
            socket.close()
            raise
        body = self._body(socket, parser, request, head, waits.read)
        return Answer(head.status_code, head.reason, head.headers.raw_items(), body, socket)

    def _one_kept(self, request: Request) -> StampedSocket | None:
        kept = self._kept.get((request.host, request.port), [])
        while kept:
            since, socket = kept.pop()
            if time.monotonic() - since < _KEPT_S and not socket.is_stale:
                return socket
            socket.close()
        return None

    async def _body(
        self,
        socket: StampedSocket,
        parser: h11.Connection,
        request: Request,
        head: h11.Response,
        wait_s: float | None,
    ) -> AsyncGenerator[bytes, None]:
        """The parts of a body; then the connection is kept, or closed if it cannot be."""
        framing = _framing(request, head)
        can_be_kept = framing is not None and _keeps_alive(request, head)
        is_whole = False
        try:
            block, _ = parser.trailing_data
            while True:
                part = block if framing is None else framing.feed(block)
                if part:
                    yield part
                if framing is not None and framing.is_done:
                    is_whole = True
                    return
                block = await socket.read(wait_s)
                if not block:
                    if framing is None:
                        return
                    msg = "peer closed connection without sending complete message body"
                    raise ProtocolError(msg)
        finally:
            if is_whole and can_be_kept and framing is not None and not framing.rest:
                self._keep(request, socket)
            else:
                socket.close()

    def _keep(self, request: Request, socket: StampedSocket) -> None:
        kept = self._kept.setdefault((request.host, request.port), [])
        kept.append((time.monotonic(), socket))
        if len(kept) > _MOST_KEPT:
            kept.pop(0)[1].close()

    def close(self) -> None:
        """Close what is kept."""
        for kept in self._kept.values():
            for _, socket in kept:
                socket.close()
        self._kept.clear()


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
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            block = await socket.read(wait_s)
            if (
                not block
                and parser.their_state is h11.SEND_RESPONSE
                and not parser.trailing_data[0]
            ):
                msg = "Server disconnected without sending a response."
                raise ProtocolError(msg)
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
