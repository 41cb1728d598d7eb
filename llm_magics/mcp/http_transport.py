"""The connection to a server with an address, with its bearer token and bounds on what it sends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import TracebackType
from urllib.parse import urlsplit

import httpx2
from mcp.client._transport import TransportStreams
from mcp.client.streamable_http import streamable_http_client

from llm_magics.errors import ConfigurationError
from llm_magics.mcp.transport import MAX_BYTES
from llm_magics.secrets import Secret

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class _Bounded(httpx2.AsyncByteStream):
    """The body of a response; one that is too long breaks off with an error."""

    def __init__(self, stream: httpx2.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        received = 0
        async for data in self._stream:
            received += len(data)
            if received > MAX_BYTES:
                msg = f"the server sent more than {MAX_BYTES:,} bytes to one request"
                raise httpx2.ReadError(msg)
            yield data

    async def aclose(self) -> None:
        await self._stream.aclose()


class HttpTransport:
    """
    The streams of the messages of a server with an address.

    Attributes:
        status: the HTTP status of the last response.
        problem: why the connection cannot be used, in words.
    """

    def __init__(self, name: str, url: str, token: Secret | None) -> None:
        address = urlsplit(url)
        if token and address.scheme != "https" and address.hostname not in _LOOPBACK:
            msg = f"The token of the MCP server {name} would be sent without encryption."
            raise ConfigurationError(msg, hint="Use an address that starts with https://")
        self._url = url
        self._token = token
        self.status = 0
        self.problem = ""

    async def __aenter__(self) -> TransportStreams:
        # A compressed body could be larger than any bound on the bytes received.
        headers = {"Accept-Encoding": "identity"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token.reveal()}"
        client = httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(30.0, read=None),  # each call has its own timeout
            event_hooks={"response": [self._check]},
        )
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(client)
            streams = await stack.enter_async_context(
                streamable_http_client(self._url, http_client=client)
            )
            self._stack = stack.pop_all()
        return streams

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, traceback)

    async def _check(self, response: httpx2.Response) -> None:
        self.status = response.status_code
        if response.headers.get("content-encoding", "identity") != "identity":
            msg = "the server sent a compressed response, which was not asked for"
            raise httpx2.ReadError(msg)
        if isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = _Bounded(response.stream)

    def kill(self) -> None:
        """Do nothing: the server is not a process of the kernel."""

    @property
    def is_running(self) -> bool:
        """Whether nothing is wrong with the connection."""
        return not self.problem

    def describe_end(self) -> str:
        """Return in words how the connection ended."""
        if self.status in (401, 403):
            return f"refused the token (HTTP {self.status}), or needs one"
        return (
            f"answered with HTTP {self.status}" if self.status >= 400 else "closed the connection"
        )

    async def wait_for_end(self) -> None:
        """Return at once: the server runs elsewhere."""
