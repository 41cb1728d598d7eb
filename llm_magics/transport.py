"""
Bytes to and from a service over HTTP: the only module that imports httpx.

A block of an answer is stamped with the clock as it is read from the socket, before
anybody looks into it, so that time to first token is the network's and not the parser's.
"""

from __future__ import annotations

import asyncio
import json
import time
import weakref
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from llm_magics.errors import ConnectionError
from llm_magics.secrets import Secret


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to wait: for a connection, and for the next byte of an answer."""

    connect: float = 5.0
    idle: float = 300.0

    def for_httpx(self) -> httpx.Timeout:
        return httpx.Timeout(self.idle, connect=self.connect, pool=self.connect)


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer: its status, headers and bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether the status says success."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body decoded, or as text where it is no JSON: proxies answer in HTML."""
        try:
            return json.loads(self.body)
        except ValueError:
            return self.body.decode("utf-8", "replace")


@dataclass(slots=True)
class ByteStream:
    """
    An answer that is still coming.

    ``blocks`` yields ``(seconds since the request was sent, bytes)``.
    """

    status: int
    headers: Mapping[str, str]
    blocks: AsyncGenerator[tuple[float, bytes], None]

    @property
    def ok(self) -> bool:
        """Whether the status says success."""
        return 200 <= self.status < 300

    async def reply(self) -> Reply:
        """All that is left of it, as one `Reply`: an error's text comes this way."""
        body = b"".join([block async for _, block in self.blocks])
        return Reply(self.status, self.headers, body)


@dataclass
class Transport:
    """
    One service's address, and the connections to it.

    Safe to use from several event loops: each has its own connections.
    """

    base_url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    key: Secret | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    _clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = field(
        default_factory=weakref.WeakKeyDictionary, repr=False
    )

    async def send(self, method: str, path: str, body: Any = None) -> Reply:
        """The whole answer to one request; a `ConnectionError` where there is none."""
        async with self.stream(method, path, body) as stream:
            return await stream.reply()

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, body: Any = None
    ) -> AsyncGenerator[ByteStream, None]:
        """The answer to one request as it comes; leaving the block closes the connection."""
        started = time.perf_counter()
        try:
            async with self._client().stream(method, path, json=body) as response:
                yield ByteStream(
                    response.status_code, response.headers, _blocks(response, started)
                )
        except httpx.HTTPError as error:
            raise self._unanswered(error) from None

    async def close(self) -> None:
        """Close the connections of the running loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def _client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            client = self._clients[loop] = httpx.AsyncClient(
                base_url=self.base_url,
                headers=dict(self.headers),
                auth=_Bearer(self.key) if self.key else None,
                timeout=self.timeouts.for_httpx(),
                trust_env=not _is_loopback(self.base_url),
            )
        return client

    def _unanswered(self, error: httpx.HTTPError) -> ConnectionError:
        what = str(error) or type(error).__name__
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            message = f"Nobody answers at {self.base_url} ({what})."
        elif isinstance(error, httpx.TimeoutException):
            message = f"{self.base_url} fell silent for {self.timeouts.idle:.0f} s."
        else:
            message = f"The connection to {self.base_url} broke ({what})."
        return ConnectionError(message, hint="Check that the server runs and can be reached.")


async def _blocks(
    response: httpx.Response, started: float
) -> AsyncGenerator[tuple[float, bytes], None]:
    clock = time.perf_counter
    async for block in response.aiter_bytes():
        yield clock() - started, block


class _Bearer(httpx.Auth):
    """Puts the key into the header of a request, and nowhere before."""

    def __init__(self, key: Secret) -> None:
        self._key = key

    def auth_flow(self, request: httpx.Request) -> Any:
        request.headers["Authorization"] = f"Bearer {self._key.reveal()}"
        yield request


def _is_loopback(url: str) -> bool:
    # A proxy from the environment must not see what stays on this machine.
    return httpx.URL(url).host in {"127.0.0.1", "localhost", "::1"}
