"""
One service's address, key, timeouts and connections, over httpx.

The only module that imports httpx.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import threading
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Mapping
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import dataclass, field
from typing import Any, NoReturn
from urllib.parse import urlencode

import httpx

from llm_magics._util.text import read_json
from llm_magics.errors import ConfigurationError, ConnectionError, ProviderError
from llm_magics.http import addresses, timing
from llm_magics.http.connections import JoiningConnectionPool
from llm_magics.http.timing import REQUEST_TIMING, RequestTiming
from llm_magics.secrets import Hidden, Secret

# httpx would let a hundred requests through and have the others wait, unseen; how many there may
# be is decided by the rate limiter. Servers (uvicorn, llama.cpp) close a connection that was idle
# for 5 s: one that is used again before that is not closed while a request is on its way.
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=4.0)

# Decoded block by block, each to at most a thousand times its size. Brotli, zstd and encodings
# within encodings have no such limit, and nobody asked for them.
_ENCODINGS = {"", "identity", "gzip", "deflate"}

_LOCAL_CONNECT_S, _REMOTE_CONNECT_S = 2.0, 10.0

# llama.cpp's server closes a connection after a stream without saying so in a header.
_CLOSING_SERVERS = {"llama.cpp"}


@dataclass(frozen=True, slots=True)
class Timeouts:
    """
    Seconds to wait: for a connection, for the next byte, and for the whole answer.

    Without ``connect``, 2 s for a server on this machine and 10 s for any other.
    """

    connect: float | None = None
    idle: float = 300.0
    total: float | None = None


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """
    How large an answer may be, in bytes after decompression; ``None`` for no limit.

    Attributes:
        line: one line of a stream.
        total: all of it.
        error: what is read of an error's body; the rest is left out.
    """

    line: int | None = 16_000_000
    total: int | None = 512_000_000
    error: int = 1_000_000


@dataclass(frozen=True, slots=True)
class KeyHeader:
    """The header in which a service expects its key, and the word before it."""

    name: str = "Authorization"
    scheme: str = "Bearer"

    def value(self, key: Secret) -> str:
        """Return the header's value; the key is revealed for nothing else."""
        return f"{self.scheme} {key.reveal()}".lstrip()


@dataclass(frozen=True, slots=True)
class Form:
    """
    A body of the type ``multipart/form-data``.

    ``files`` holds by field ``(file name, bytes, media type)``.
    """

    fields: Mapping[str, str | list[str]]
    files: Mapping[str, tuple[str, bytes, str]]


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer: its status, headers and bytes."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)  # a service may repeat the key in it

    @property
    def ok(self) -> bool:
        """Whether the status is a success."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """Return the body decoded, or as text if it is not JSON: proxies answer in HTML."""
        try:
            return read_json(self.body)
        except ValueError:
            return self.body.decode("utf-8", "replace")


@dataclass(slots=True)
class ByteStream:
    """An answer that is still arriving."""

    status: int
    headers: Mapping[str, str]
    _response: httpx.Response
    _sent_at: float
    _limits: BodyLimits
    _deadline: float | None = None
    _timing: RequestTiming | None = None

    @property
    def ok(self) -> bool:
        """Whether the status is a success."""
        return 200 <= self.status < 300

    @property
    def elapsed_s(self) -> float:
        """Seconds since the request was sent."""
        return time.perf_counter() - self._sent_at

    @property
    def blocks(self) -> AsyncGenerator[tuple[float, bytes], None]:
        """
        ``(seconds since the request was sent, bytes)`` as they arrive.

        Raises (while it is iterated):
            ProviderError: a line, or all of it, is longer than it may be.
        """
        return self._read(self._limits.line, self._limits.total)

    async def _read(
        self, line_limit: int | None, limit: int | None
    ) -> AsyncGenerator[tuple[float, bytes], None]:
        clock, sent_at, request_timing = time.perf_counter, self._sent_at, self._timing
        network: Any = self._response.extensions.get("network_stream")
        has_times = hasattr(network, "received_at")
        parts = self._parts()
        size = line = 0
        while True:
            try:
                if self._deadline is None:  # a context for every block is a tenth of its cost
                    block = await anext(parts)
                else:
                    with _translate_deadline():
                        async with _until(self._deadline):
                            block = await anext(parts)
            except StopAsyncIteration:
                return
            received_at = network.received_at if has_times else clock()
            size += len(block)
            if request_timing is not None:
                request_timing.bytes_received += len(block)
            if limit is not None and size > limit:
                _refuse("The answer", limit, "max_response_mb")
            if line_limit is not None:
                line, longest = _line_lengths(block, line, line_limit)
                if longest > line_limit:
                    _refuse("A line of the answer", line_limit, "max_line_mb")
            yield max(0.0, received_at - sent_at), block

    def _parts(self) -> AsyncIterator[bytes]:
        """The body's parts, decompressed; without the layers of httpx that do nothing to them."""
        encoding = self.headers.get("content-encoding", "").strip().lower()
        if encoding not in _ENCODINGS:
            msg = f"The answer is encoded as {encoding[:40]!r}, which was not asked for."
            raise ProviderError(msg, hint="Check the provider's base_url, and any proxy.")
        if encoding in ("", "identity"):
            return aiter(self._response.stream)  # type: ignore[arg-type]
        return self._response.aiter_bytes()

    def end_within(self, seconds: float) -> None:
        """Wait no longer than ``seconds`` for the rest."""
        deadline = time.monotonic() + seconds
        self._deadline = min(deadline, self._deadline or deadline)

    async def reply(self) -> Reply:
        """Return the rest as one `Reply`; of an error's body, as much as is needed to name it."""
        blocks: list[bytes] = []
        size = 0
        async for _, block in self._read(None, self._limits.total if self.ok else None):
            blocks.append(block)
            size += len(block)
            if not self.ok and size >= self._limits.error:
                break
        return Reply(self.status, self.headers, b"".join(blocks))


def _line_lengths(block: bytes, before: int, limit: int) -> tuple[int, int]:
    """How long the unfinished line is after ``block``, and the longest line that was seen."""
    end = block.rfind(b"\n") + 1 or block.rfind(b"\r") + 1
    if not end:
        return before + len(block), before + len(block)
    if before + len(block) <= limit:  # no line in it can be too long
        return len(block) - end, 0
    first, *others = block.replace(b"\r", b"\n").split(b"\n")
    return len(block) - end, max(before + len(first), *map(len, others))


def _refuse(what: str, limit: int, setting: str) -> NoReturn:
    msg = f"{what} is longer than {limit / 1e6:g} MB; the rest was not read."
    hint = f"If it is meant to be so long: %llm config {setting} {max(1, limit // 500_000)}"
    raise ProviderError(msg, hint=hint, code="response_too_large", retryable=False)


@dataclass
class Transport:
    """
    One service's address, and the connections to it.

    ``user:password@`` in ``base_url`` is taken out of it, and sent as basic authentication. Safe
    to use from several event loops: each has its own connections.

    Attributes:
        base_url: what the paths of requests are appended to.
        headers: sent with every request.
        key, key_header: the key, and the header that it is sent in.
        timeouts, limits: how long to wait, and how large an answer may be.
        query: appended to every address, as it is or by name and value.
    """

    base_url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    key: Secret | None = None
    timeouts: Timeouts = field(default_factory=Timeouts)
    key_header: KeyHeader = field(default_factory=KeyHeader)
    query: Mapping[str, str] | str = field(default="", repr=False)
    limits: BodyLimits = field(default_factory=BodyLimits)
    _has_answered: bool = field(default=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    _clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = field(
        default_factory=weakref.WeakKeyDictionary, repr=False
    )
    _basic: Secret | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.base_url, credentials = addresses.split_credentials(self.base_url)
        if credentials is not None:
            user_and_password = ":".join(credentials).encode()
            self._basic = Secret(base64.b64encode(user_and_password).decode())
            Hidden({"password": credentials.password})  # registered: never shown in a text

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """
        Return the whole answer to one request.

        Raises:
            ConnectionError: there is none.
        """
        async with self.stream(method, path, body, headers) as stream:
            return await stream.reply()

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        limits: BodyLimits | None = None,
    ) -> AsyncGenerator[ByteStream, None]:
        """
        Yield the answer to one request as it arrives; leaving the block ends it.

        ``body`` is sent as JSON, or as a form if it is a `Form`. ``limits`` replaces those of
        the service for this answer.
        """
        total = self.timeouts.total
        deadline = None if total is None else time.monotonic() + total
        client = self._client()
        try:
            with _translate_deadline():
                async with _until(deadline):
                    response, connection = await self._send(client, method, path, body, headers)
            self._has_answered = True
            request_timing = REQUEST_TIMING.get()
            if request_timing is not None:
                _note_start(request_timing, connection, response.request)
            try:
                yield ByteStream(
                    response.status_code,
                    response.headers,
                    response,
                    connection.sent_at,
                    limits or self.limits,
                    deadline,
                    request_timing,
                )
            finally:
                await response.aclose()
                if response.headers.get("server") in _CLOSING_SERVERS:
                    await response.extensions["network_stream"].aclose()
        except httpx.HTTPError as error:
            raise self._map_transport_error(error) from None
        except _DeadlineError:
            msg = f"{self.base_url} did not finish its answer within {total or 0:g} s."
            raise ConnectionError(msg, hint="Raise the setting total_s.") from None

    async def _send(
        self,
        client: httpx.AsyncClient,
        method: str,
        path: str,
        body: Any,
        headers: Mapping[str, str] | None,
    ) -> tuple[httpx.Response, _ConnectionTrace]:
        """
        Send the request, and return the beginning of the answer.

        The server may have closed an idle connection in the very moment. If it took no byte of
        the request, that is sent over another connection; else the server may have read it, and
        whether to send it again is for the retry policy to decide.
        """
        while True:
            trace = _ConnectionTrace()
            extensions: dict[str, Any] = {"trace": trace.note}
            content = _content(body)
            request = client.build_request(
                method, path, headers=headers, extensions=extensions, **content
            )
            if self.query:
                extensions["target"] = self._target(request.url)
                request.extensions["target"] = extensions["target"]
            try:
                response = await client.send(request, stream=True)
            except (httpx.RemoteProtocolError, httpx.NetworkError):
                if trace.is_new or not trace.nothing_sent:
                    raise
            else:
                network = response.extensions.get("network_stream")
                trace.sent_at = getattr(network, "sent_at", trace.sent_at)
                return response, trace

    def _target(self, url: httpx.URL) -> bytes:
        """
        What is asked of the server, with the query that is part of the address.

        Kept out of the request's URL, which httpx writes into its log: it may hold a key.
        """
        separator = b"&" if url.query else b"?"
        query = self.query if isinstance(self.query, str) else urlencode(self.query)
        target = url.raw_path + separator + query.encode()
        if url.scheme == "http" and addresses.proxy_for(str(url)):
            return b"http://" + url.netloc + target  # a proxy is asked for the whole address
        return target

    async def close(self) -> None:
        """Close the connections of the running loop."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()

    def _client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        with self._lock:
            client = self._clients.get(loop)
            if client is None:
                for gone in [each for each in self._clients if each.is_closed()]:
                    del self._clients[gone]
                client = self._clients[loop] = self._new_client()
        return client

    def _new_client(self) -> httpx.AsyncClient:
        connect_s = self.timeouts.connect
        if connect_s is None:
            is_local = addresses.is_local_address(self.base_url)
            connect_s = _LOCAL_CONNECT_S if is_local else _REMOTE_CONNECT_S
        try:
            return httpx.AsyncClient(
                transport=_transport(self.base_url),
                base_url=self.base_url,
                headers={"Accept-Encoding": "gzip, deflate", **self.headers},
                auth=_Authorization(self.key, self.key_header, self._basic),
                timeout=httpx.Timeout(self.timeouts.idle, connect=connect_s, pool=None),
                trust_env=False,
            )
        except (ValueError, OSError, ImportError, httpx.InvalidURL) as error:
            msg = f"No connection to {self.base_url} can be set up: {error}"
            hint = "Check the address, HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE."
            raise ConfigurationError(msg, hint=hint) from None

    def _map_transport_error(self, error: httpx.HTTPError) -> ConnectionError:
        with suppress(RuntimeError):  # an error may be inspected, and holds its request
            for name in ("Authorization", self.key_header.name):
                error.request.headers.pop(name, None)
        reason = str(error) or type(error).__name__
        code = None
        hint = "Check that the server runs and can be reached."
        if isinstance(error, httpx.LocalProtocolError):  # its words would show the header
            message = f"The request to {self.base_url} holds what cannot be sent."
            hint = "Check the key and the headers for line breaks and characters beyond ASCII."
        elif "CERTIFICATE_VERIFY_FAILED" in reason or "[SSL" in reason:
            message = f"Could not make a secure connection to {self.base_url} ({reason})."
            hint = "Check the address, and whether a proxy stands between; SSL_CERT_FILE adds its certificate."
        elif isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
            # A server that has answered before, and accepts no connection in time, has too many.
            is_busy = self._has_answered and isinstance(error, httpx.ConnectTimeout)
            code = None if is_busy else "unreachable"
            message = f"Could not connect to {self.base_url} ({reason})."
        elif isinstance(error, httpx.TimeoutException):
            message = f"{self.base_url} sent nothing for {self.timeouts.idle:g} s."
        else:
            message = f"The connection to {self.base_url} broke ({reason})."
        return ConnectionError(message, hint=hint, code=code)


class _TimestampTransport(httpx.AsyncHTTPTransport):
    """
    Sends over connections that know when bytes arrived.

    httpx has no argument for httpcore's network backend, so its pool is replaced.
    """

    def __init__(self, ssl_context: ssl.SSLContext | None) -> None:
        self._pool = JoiningConnectionPool(
            ssl_context=ssl_context,
            max_connections=_LIMITS.max_connections,
            max_keepalive_connections=_LIMITS.max_keepalive_connections,
            keepalive_expiry=_LIMITS.keepalive_expiry,
            network_backend=timing.TimestampBackend(),
        )


def _transport(url: str) -> httpx.AsyncBaseTransport:
    """Make the transport that leads to ``url``: through a proxy where the environment has one."""
    proxy = addresses.proxy_for(url)
    if proxy is not None:
        return httpx.AsyncHTTPTransport(proxy=proxy, limits=_LIMITS)
    if not timing.is_available():
        return httpx.AsyncHTTPTransport(limits=_LIMITS)
    is_secure = url.lower().startswith("https:")
    return _TimestampTransport(httpx.create_ssl_context() if is_secure else None)


class _Authorization(httpx.Auth):
    """Puts the key, and the name and password of the address, into a request's headers."""

    def __init__(self, key: Secret | None, header: KeyHeader, basic: Secret | None) -> None:
        self._key = key
        self._header = header
        self._basic = basic

    def auth_flow(self, request: httpx.Request) -> Any:
        if self._key:
            request.headers[self._header.name] = self._header.value(self._key)
        if self._basic:  # written for this very address: before a key that wants the same header
            request.headers["Authorization"] = f"Basic {self._basic.reveal()}"
        yield request


def _note_start(
    request_timing: RequestTiming, trace: _ConnectionTrace, request: httpx.Request
) -> None:
    request_timing.sent_at, request_timing.connect_s = trace.sent_at, trace.connect_s
    request_timing.headers_s = time.perf_counter() - trace.sent_at
    request_timing.bytes_sent += int(request.headers.get("content-length", 0))


def _content(body: Any) -> dict[str, Any]:
    if isinstance(body, Form):
        return {"data": dict(body.fields), "files": dict(body.files)}
    return {"json": body} if body is not None else {}


class _DeadlineError(Exception):
    """The whole answer took longer than it may."""


@contextmanager
def _translate_deadline() -> Generator[None, None, None]:
    """Tell our own deadline from one that the caller has set."""
    try:
        yield
    except TimeoutError:
        raise _DeadlineError from None


def _until(deadline: float | None) -> AbstractAsyncContextManager[Any]:
    """Return a context that ends with a TimeoutError at ``deadline``, if there is one."""
    if deadline is None:
        return nullcontext()
    return asyncio.timeout(deadline - time.monotonic())


class _ConnectionTrace:
    """
    What happened to a request, by the events that httpcore reports.

    Attributes:
        is_new: a connection was made for it.
        sent_at: when it was handed to the socket, by `time.perf_counter`; before that, when it
            was made.
        connect_s: seconds that a new connection took.
        nothing_sent: the connection took no byte of it.
    """

    def __init__(self) -> None:
        self.is_new = False
        self.sent_at = self._began_at = time.perf_counter()
        self.connect_s = 0.0
        self.nothing_sent = False

    async def note(self, event: str, info: Mapping[str, Any]) -> None:
        """Note an event; called by httpcore."""
        if event == "connection.connect_tcp.started":
            self.is_new = True
            self._began_at = time.perf_counter()
        elif event.endswith(".send_request_headers.started"):
            self.sent_at = time.perf_counter()
            if self.is_new:
                self.connect_s = self.sent_at - self._began_at
        elif event.endswith(".send_request_headers.failed"):
            self.nothing_sent = isinstance(info.get("exception"), timing.NothingSentError)
