"""One service's address, and the connections to it."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import dataclass, field
from typing import Any
from urllib.request import getproxies

from llm_magics.errors import ConfigurationError, ConnectionError
from llm_magics.metering import METER, Meter
from llm_magics.plain_http import are_possible
from llm_magics.secrets import Secret
from llm_magics.transport.library import http
from llm_magics.transport.plain import PlainTransport
from llm_magics.transport.values import Form, KeyHeader, Reply, Timeouts


@dataclass(slots=True)
class ByteStream:
    """An answer that is still coming."""

    status: int
    headers: Mapping[str, str]
    _response: http.Response
    _sent: float
    _deadline: float | None = None
    _meter: Meter | None = None

    @property
    def ok(self) -> bool:
        """Whether the status says success."""
        return 200 <= self.status < 300

    @property
    def elapsed_s(self) -> float:
        """Seconds since the request was sent."""
        return time.perf_counter() - self._sent

    @property
    async def blocks(self) -> AsyncGenerator[tuple[float, bytes], None]:
        """``(seconds since the request was sent, bytes)``, as they come."""
        clock, sent, meter = time.perf_counter, self._sent, self._meter
        socket = self._response.extensions.get("socket")
        blocks = self._response.aiter_bytes()
        while True:
            try:
                if self._deadline is None:  # a context for every block is a tenth of its cost
                    block = await anext(blocks)
                else:
                    with _told_apart():
                        async with _until(self._deadline):
                            block = await anext(blocks)
            except StopAsyncIteration:
                return
            at = max(0.0, (clock() if socket is None else socket.read_at) - sent)
            if meter is not None:
                meter.bytes_received += len(block)
            yield at, block

    def end_within(self, seconds: float) -> None:
        """Wait no longer than ``seconds`` for what is left of it."""
        deadline = time.monotonic() + seconds
        self._deadline = min(deadline, self._deadline or deadline)

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
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    key: Secret | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    key_header: KeyHeader = field(default_factory=KeyHeader)
    query: Mapping[str, str] = field(default_factory=dict)
    _has_answered: bool = field(default=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    _clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, http.AsyncClient] = field(
        default_factory=weakref.WeakKeyDictionary, repr=False
    )

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """The whole answer to one request; a `ConnectionError` where there is none."""
        async with self.stream(method, path, body, headers) as stream:
            return await stream.reply()

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[ByteStream, None]:
        """
        The answer to one request as it comes; leaving the block closes the connection.

        ``body`` is sent as JSON, or as a form where it is a `Form`.
        """
        total = self.timeouts.total
        deadline = None if total is None else time.monotonic() + total
        client = self._client()
        seen = _Connection()
        request = client.build_request(
            method, path, headers=headers, extensions={"trace": seen.trace}, **_content(body)
        )
        try:
            with _told_apart():
                async with _until(deadline):
                    response = await self._begun(client, request, seen)
            self._has_answered = True
            meter = METER.get()
            if meter is not None:
                _begin(meter, seen, request)
            try:
                yield ByteStream(
                    response.status_code, response.headers, response, seen.sent, deadline, meter
                )
            finally:
                await response.aclose()
        except http.HTTPError as error:
            raise self._unanswered(error) from None
        except _LateError:
            msg = f"{self.base_url} was not done within {total or 0:g} s."
            raise ConnectionError(msg, hint="Raise the setting total_s.") from None

    async def _begun(
        self, client: http.AsyncClient, request: http.Request, seen: _Connection
    ) -> http.Response:
        """
        The answer's beginning.

        A connection that was kept from before may just have been closed by the server. That
        shows at once, and then nobody has read the request: it is sent once more. Later, or on
        a new connection, somebody may have.
        """
        try:
            return await client.send(request, stream=True)
        except http.RemoteProtocolError as error:
            is_at_once = time.perf_counter() - seen.sent < _AT_ONCE_S
            if seen.is_new or not is_at_once or "without sending a response" not in str(error):
                raise
            return await client.send(request, stream=True)

    async def close(self) -> None:
        """Close the connections of the running loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def _client(self) -> http.AsyncClient:
        loop = asyncio.get_running_loop()
        with self._lock:
            client = self._clients.get(loop)
            if client is None:
                for gone in [each for each in self._clients if each.is_closed()]:
                    del self._clients[gone]
                client = self._clients[loop] = self._new_client()
        return client

    def _new_client(self) -> http.AsyncClient:
        try:
            return http.AsyncClient(
                transport=PlainTransport() if self._is_plain() else None,
                limits=_LIMITS,
                base_url=self.base_url,
                headers=dict(self.headers),
                params=dict(self.query) or None,
                auth=_KeyAuth(self.key, self.key_header) if self.key else None,
                timeout=http.Timeout(self.timeouts.idle, connect=self.timeouts.connect),
                trust_env=not _is_loopback(self.base_url),
            )
        except (ValueError, OSError, ImportError, http.InvalidURL) as error:
            msg = f"No connection to {self.base_url} can be set up: {error}"
            hint = "Check the address, HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE."
            raise ConfigurationError(msg, hint=hint) from None

    def _is_plain(self) -> bool:
        """Whether it can go over sockets of our own: without TLS, and without a proxy."""
        if not self.base_url.lower().startswith("http://") or not are_possible():
            return False
        return _is_loopback(self.base_url) or not getproxies()

    def _unanswered(self, error: http.HTTPError) -> ConnectionError:
        with suppress(RuntimeError):  # an error may be looked into, and holds its request
            error.request.headers.pop(self.key_header.name, None)
        what = str(error) or type(error).__name__
        code = None
        hint = "Check that the server runs and can be reached."
        if isinstance(error, http.LocalProtocolError):  # its words would show the header
            message = f"The request to {self.base_url} holds what cannot be sent."
            hint = "Check the key and the headers for line breaks and characters beyond ASCII."
        elif "CERTIFICATE_VERIFY_FAILED" in what or "[SSL" in what:
            message = f"No safe connection to {self.base_url} can be made ({what})."
            hint = "Check the address, and whether a proxy stands between; SSL_CERT_FILE adds its certificate."
        elif isinstance(error, http.ConnectError | http.ConnectTimeout):
            # Who has answered before, and takes no connection in time, has too many to take.
            is_busy = self._has_answered and isinstance(error, http.ConnectTimeout)
            code = None if is_busy else "unreachable"
            message = f"Nobody answers at {self.base_url} ({what})."
        elif isinstance(error, http.TimeoutException):
            message = f"{self.base_url} fell silent for {self.timeouts.idle:g} s."
        else:
            message = f"The connection to {self.base_url} broke ({what})."
        return ConnectionError(message, hint=hint, code=code)


# What a connection that the server has closed says, it says at once.
_AT_ONCE_S = 0.5

# httpx would let a hundred requests through at once and have the others wait, unseen; how many
# there may be is for others to say.
_LIMITS = http.Limits(max_connections=None, max_keepalive_connections=100)


def _begin(meter: Meter, seen: _Connection, request: http.Request) -> None:
    """Note how an answer began."""
    meter.sent_at, meter.connect_s = seen.sent, seen.connect_s
    meter.headers_s = time.perf_counter() - seen.sent
    meter.bytes_sent += int(request.headers.get("content-length", 0))


def _content(body: Any) -> dict[str, Any]:
    if isinstance(body, Form):
        return {"data": dict(body.fields), "files": dict(body.files)}
    return {"json": body} if body is not None else {}


class _LateError(Exception):
    """The whole answer took longer than it may."""


@contextmanager
def _told_apart() -> Generator[None, None, None]:
    """Our own deadline, from that of whoever reads."""
    try:
        yield
    except TimeoutError:
        raise _LateError from None


def _until(deadline: float | None) -> AbstractAsyncContextManager[Any]:
    """Ends what is awaited inside with a TimeoutError at ``deadline``, if there is one."""
    if deadline is None:
        return nullcontext()
    return asyncio.timeout(deadline - time.monotonic())


class _Connection:
    """
    What happened to a request on its way, on the clock of `time.perf_counter`.

    ``sent`` is when it was handed to the socket; before that, when it was made.
    """

    def __init__(self) -> None:
        self.is_new = False
        self.sent = self._made = time.perf_counter()
        self.connect_s = 0.0

    async def trace(self, event: str, _: Mapping[str, Any]) -> None:
        """Called by httpx for each step of a request."""
        if event == "connection.connect_tcp.started":
            self.is_new = True
            self._made = time.perf_counter()
        elif event.endswith(".send_request_headers.started"):
            self.sent = time.perf_counter()
            if self.is_new:
                self.connect_s = self.sent - self._made


class _KeyAuth(http.Auth):
    """Puts the key into the header of a request, and nowhere before."""

    def __init__(self, key: Secret, header: KeyHeader) -> None:
        self._key = key
        self._header = header

    def auth_flow(self, request: http.Request) -> Any:
        request.headers[self._header.name] = self._header.value(self._key)
        yield request


def _is_loopback(url: str) -> bool:
    # A proxy from the environment must not see what stays on this machine.
    return http.URL(url).host in {"127.0.0.1", "localhost", "::1"}
