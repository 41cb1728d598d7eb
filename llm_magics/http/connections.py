"""
Connections to servers: opened to the first address that accepts, pooled, and read in blocks.

A model server sends each token as an HTTP chunk, and a busy client finds many of them in one
read. httpcore passes each chunk through several nested generators of its own and of httpx, which
costs more than parsing it. Here all chunks of one read, which have the same time of arrival, are
passed on as one. h11 parses them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from typing import Any

import h11
import httpcore

from llm_magics.http.timing import TimestampStream

# The next address of a host is tried this long after the one before (RFC 8305).
_NEXT_ADDRESS_S = 0.25


class JoiningConnectionPool(httpcore.AsyncConnectionPool):
    """A pool of direct connections (no proxy, no HTTP/2)."""

    def create_connection(self, origin: httpcore.Origin) -> httpcore.AsyncConnectionInterface:
        return _Connection(
            origin=origin,
            ssl_context=self._ssl_context,
            keepalive_expiry=self._keepalive_expiry,
            network_backend=self._network_backend,
        )


class _Connection(httpcore.AsyncHTTPConnection):
    """Connects, and sends its requests over a `_JoiningConnection`."""

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        try:
            async with self._request_lock:
                if self._connection is None:
                    stream = await self._connect(request)
                    self._connection = _JoiningConnection(
                        self._origin, stream, self._keepalive_expiry
                    )
        except BaseException:
            self._connect_failed = True
            raise
        return await self._connection.handle_async_request(request)


class _JoiningConnection(httpcore.AsyncHTTP11Connection):
    async def _receive_response_body(self, request: httpcore.Request) -> AsyncIterator[bytes]:
        """Yield the body; all parts that one read returned are joined."""
        timeout = request.extensions.get("timeout", {}).get("read")
        event: h11.Event | type = await self._receive_event(timeout)
        while isinstance(event, h11.Data):
            parts: list[bytes] = []
            try:
                while isinstance(event, h11.Data):
                    parts.append(event.data)
                    event = self._h11_state.next_event()
            except h11.RemoteProtocolError as error:
                yield b"".join(parts)  # what precedes the fault is part of the answer
                raise httpcore.RemoteProtocolError(error) from error
            yield b"".join(parts)
            if event is h11.NEED_DATA:
                event = await self._receive_event(timeout)


class TimestampBackend(httpcore.AsyncNetworkBackend):
    """Makes connections whose streams know when the bytes that were read had arrived."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> TimestampStream:
        try:
            async with asyncio.timeout(timeout):
                connection = await _connect(host, port)
        except TimeoutError as error:
            msg = f"no connection within {timeout:g} s" if timeout else str(error)
            raise httpcore.ConnectTimeout(msg) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in socket_options or ():
            connection.setsockopt(*option)
        return TimestampStream(connection)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def _connect(host: str, port: int) -> socket.socket:
    """
    Connect to the first address of ``host`` that accepts.

    Each address is tried a moment after the one before, or when that has failed, so that one
    which drops packets does not hold up the others (RFC 8305).
    """
    loop = asyncio.get_running_loop()
    try:
        # As bytes: the name is in ASCII already, and Python would encode it by another standard.
        found = await loop.getaddrinfo(host.encode("ascii"), port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        msg = f"{host!r} is not a valid host name"
        raise OSError(msg) from error
    first_error: OSError | None = None
    attempts: set[asyncio.Task[socket.socket]] = set()
    remaining = list(found)
    try:
        while remaining or attempts:
            if remaining:
                attempts.add(asyncio.create_task(_connect_to(remaining.pop(0))))
            done, attempts = await asyncio.wait(
                attempts,
                timeout=_NEXT_ADDRESS_S if remaining else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for each in done:
                failure = each.exception()
                if failure is None:
                    attempts |= done - {each}
                    return each.result()
                first_error = first_error or _as_os_error(failure)
    finally:
        for each in attempts:
            each.cancel()
            each.add_done_callback(_close_connected)
    raise first_error or OSError(f"{host!r} has no address")


def _as_os_error(error: BaseException) -> OSError:
    return error if isinstance(error, OSError) else OSError(str(error))


async def _connect_to(address_info: Any) -> socket.socket:
    family, kind, protocol, _, address = address_info
    connection = socket.socket(family, kind, protocol)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection


def _close_connected(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()
