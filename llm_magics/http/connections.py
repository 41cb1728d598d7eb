"""
A pool of HTTP/1.1 connections that hand on everything that was read from the network at once.

A server of a model sends each token as an HTTP chunk, and a busy client finds many of them in one
read. httpcore passes each chunk through several nested generators of its own and of httpx, which
costs more than to parse it. Here the chunks of one read, which have the same time of arrival, are
passed on as one. The parsing is that of h11.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import h11
import httpcore


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
        """Yield the body; all parts that arrived together as one."""
        timeout = request.extensions.get("timeout", {}).get("read")
        event: h11.Event | type = await self._receive_event(timeout)
        while isinstance(event, h11.Data):
            parts: list[bytes] = []
            try:
                while isinstance(event, h11.Data):
                    parts.append(event.data)
                    event = self._h11_state.next_event()
            except h11.RemoteProtocolError as error:
                yield b"".join(parts)  # what came before the fault is part of the answer
                raise httpcore.RemoteProtocolError(error) from error
            yield b"".join(parts)
            if event is h11.NEED_DATA:
                event = await self._receive_event(timeout)
