"""
HTTP connections to a service: its address, key and timeouts, with httpx.

This is the only module that imports httpx.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext, suppress
from dataclasses import KW_ONLY, dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx

from llm_magics._util.text import reason_of, replace_lone_surrogates
from llm_magics.errors import ConfigurationError, ConnectionError
from llm_magics.http import connections, timing
from llm_magics.http.bodies import Form, StreamBody, open_body
from llm_magics.http.connections import JoiningConnectionPool, TimestampBackend
from llm_magics.http.responses import (
    BodyLimits,
    ByteStream,
    DeadlineError,
    Reply,
    await_until,
)
from llm_magics.http.timing import REQUEST_TIMING, RequestTiming
from llm_magics.http.tokens import RENEWALS, TokenSource
from llm_magics.secrets import Secret, register_headers

# httpx would by default send only a hundred requests at the same time, and silently queue the rest.
# Here the rate limiter decides how many to send. Servers (uvicorn, llama.cpp) close a connection
# after 5 s of idle time. A shorter expiry here avoids that they close it when a request is sent.
_POOL_LIMITS = httpx.Limits(
    max_connections=None, max_keepalive_connections=100, keepalive_expiry=4.0
)


_LOCAL_CONNECT_S, _REMOTE_CONNECT_S = 2.0, 10.0

# llama.cpp's server closes a connection after a stream without announcing it in a header.
_CLOSING_SERVERS = {"llama.cpp"}


@dataclass(frozen=True, slots=True)
class Timeouts:
    """
    Timeouts in seconds: for a connection, for the next byte, and for the complete answer.

    The default of ``connect`` is 2 s for a server on this machine and 10 s for any other.
    """

    connect: float | None = None
    idle: float = 300.0
    total: float | None = None


@dataclass(frozen=True, slots=True)
class KeyHeader:
    """The header in which a service expects its key, and the scheme before the key."""

    name: str = "Authorization"
    scheme: str = "Bearer"

    def value(self, key: Secret) -> str:
        """Return the header's value. This is the only place that reveals the key."""
        return f"{self.scheme} {key.reveal()}".lstrip()


@dataclass
class Transport:
    """
    A service's address, and the connections to it.

    ``user:password@`` in ``base_url`` is removed from it, and sent as basic authentication. It can
    be used from several event loops: each has separate connections.

    Attributes:
        base_url: the address to which the paths of requests are appended.
        headers: the headers of every request.
        key, key_header: the key, and its header.
        tokens: the source of tokens that are sent in place of a key, as ``Authorization: Bearer``.
        timeouts, limits: the maximum times and sizes of an answer.
        query: the query of every request, as a string or by name and value.
    """

    base_url: str
    _: KW_ONLY
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    key: Secret | None = None
    tokens: TokenSource | None = None
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
        self.base_url, credentials = connections.split_credentials(self.base_url)
        if credentials is not None:
            user_and_password = ":".join(credentials).encode()
            self._basic = Secret(base64.b64encode(user_and_password).decode())
            register_headers({"password": credentials.password})  # masked in messages and logs

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """
        Send one request and return the complete response.

        Raises:
            ConnectionError: no complete response was received.
        """
        async with self.stream(method, path, body, headers) as stream:
            return await stream.reply()

    @asynccontextmanager
    async def stream(  # noqa: PLR0913 (one request)
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        limits: BodyLimits | None = None,
        *,
        idle_s: float | None = None,
    ) -> AsyncGenerator[ByteStream, None]:
        """
        Send one request and yield its response, to be read as it arrives; leaving the block closes
        it.

        ``body`` is sent as JSON, unless it is a `Form` or a `StreamBody`. ``limits`` and
        ``idle_s`` replace the limits and the idle timeout of the service for this response.
        """
        total = self.timeouts.total
        deadline = None if total is None else time.monotonic() + total
        request = _Request(method=method, path=path, body=body, headers=headers, idle_s=idle_s)
        try:
            sending = self._send(self._client(), request)
            response = await (sending if deadline is None else await_until(deadline, sending))
            self._has_answered = True
            request_timing = REQUEST_TIMING.get()
            if request_timing is not None:
                _record_start(request_timing, request.trace, response.request)
            try:
                yield ByteStream(
                    response,
                    sent_at=request.trace.sent_at,
                    limits=limits or self.limits,
                    deadline=deadline,
                    timing=request_timing,
                )
            finally:
                await response.aclose()
                if response.headers.get("server") in _CLOSING_SERVERS:
                    await response.extensions["network_stream"].aclose()
        except httpx.HTTPError as error:
            raise self._map_transport_error(error, request) from None
        except DeadlineError:
            msg = f"No complete response from {self.base_url} within {total or 0:g} s (total timeout)."
            hint = "Raise the setting total_s of the provider."
            raise ConnectionError(msg, hint=hint, may_be_billed=request.may_be_billed) from None

    async def _send(self, client: httpx.AsyncClient, request: _Request) -> httpx.Response:
        """
        Send the request with the key or a token, and return the response to it.

        A request whose token the service rejects is sent again once, with another token. It was
        not processed before, so nothing is paid twice.
        """
        if self.tokens is None:
            auth = _Authorization(self.key, self.key_header, self._basic)
            return await self._exchange(client, request, auth)
        token = await self.tokens.token()
        auth = _Authorization(token.value, KeyHeader(), self._basic)
        response = await self._exchange(client, request, auth)
        if response.status_code not in self.tokens.rejections:
            return response
        try:
            replacement = await self.tokens.replacement(token)
        except BaseException:
            await response.aclose()
            raise
        if replacement is None:
            return response
        await response.aclose()
        if (renewals := RENEWALS.get()) is not None:
            renewals.count += 1
        auth = _Authorization(replacement.value, KeyHeader(), self._basic)
        return await self._exchange(client, request, auth)

    async def _exchange(
        self, client: httpx.AsyncClient, request: _Request, auth: httpx.Auth
    ) -> httpx.Response:
        """
        Send the request, and return the response when its headers have arrived.

        The server may have just closed an idle connection. If no byte of the request was sent, it
        is sent again over another connection. Otherwise the server may have received it, so the
        retry policy decides whether to send it again.
        """
        while True:
            trace = request.trace = _ConnectionTrace()
            extensions: dict[str, Any] = {"trace": trace.note}
            try:
                with _encode_body(request.body, request.headers) as content:
                    built = client.build_request(
                        request.method, request.path, extensions=extensions, **content
                    )
                    if request.idle_s is not None:
                        built.extensions["timeout"]["read"] = request.idle_s
                    if self.query:
                        extensions["target"] = self._target(built.url)
                        built.extensions["target"] = extensions["target"]
                    response = await client.send(built, stream=True, auth=auth)
            except (httpx.RemoteProtocolError, httpx.NetworkError):
                if trace.is_new or not trace.nothing_sent:
                    raise
            else:
                network = response.extensions.get("network_stream")
                trace.sent_at = getattr(network, "sent_at", trace.sent_at)
                return response

    def _target(self, url: httpx.URL) -> bytes:
        """
        Return the request's target, including the query of the address.

        The query is not in the request's URL, which httpx logs, because it may contain a key.
        """
        separator = b"&" if url.query else b"?"
        query = self.query if isinstance(self.query, str) else urlencode(self.query)
        target = url.raw_path + separator + query.encode()
        if url.scheme == "http" and connections.find_proxy(str(url)):
            return b"http://" + url.netloc + target  # a proxy expects the full address
        return target

    async def close(self) -> None:
        """Close the connections of the running event loop."""
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
            is_local = connections.is_local_address(self.base_url)
            connect_s = _LOCAL_CONNECT_S if is_local else _REMOTE_CONNECT_S
        try:
            return httpx.AsyncClient(
                transport=_create_transport(self.base_url),
                base_url=self.base_url,
                headers={"Accept-Encoding": "gzip, deflate", **self.headers},
                timeout=httpx.Timeout(self.timeouts.idle, connect=connect_s, pool=None),
                trust_env=False,
            )
        except (ValueError, OSError, ImportError, httpx.InvalidURL) as error:
            msg = f"Could not set up a connection to {self.base_url}: {reason_of(error)}."
            hint = "Check the address, HTTPS_PROXY, ALL_PROXY and SSL_CERT_FILE."
            raise ConfigurationError(msg, hint=hint) from None

    def _map_transport_error(self, error: httpx.HTTPError, request: _Request) -> ConnectionError:
        with suppress(RuntimeError):  # an error refers to its request, which may be displayed
            for name in ("Authorization", self.key_header.name):
                error.request.headers.pop(name, None)
        reason = str(error) or type(error).__name__
        code = None
        hint = "Check that the server is running and reachable."
        if isinstance(error, httpx.LocalProtocolError):  # its message contains the header
            message = f"The request to {self.base_url} contains characters that cannot be sent."
            hint = "Check the key and the headers for line breaks and non-ASCII characters."
        elif "CERTIFICATE_VERIFY_FAILED" in reason or "[SSL" in reason:
            message = f"Could not make a secure connection to {self.base_url} ({reason})."
            hint = "Check the address. For a proxy with its own certificate, set SSL_CERT_FILE."
        elif isinstance(error, httpx.ConnectError | httpx.ConnectTimeout | httpx.ProxyError):
            # A server that has answered before is not down: it has too many connections.
            is_busy = self._has_answered and isinstance(error, httpx.ConnectTimeout)
            code = None if is_busy else "unreachable"
            message = f"Could not connect to {self.base_url} ({reason[0].lower()}{reason[1:]})."
        elif isinstance(error, httpx.WriteTimeout):
            message = (
                f"{self.base_url} accepted no data for {self.timeouts.idle:g} s (idle timeout)."
            )
        elif isinstance(error, httpx.TimeoutException):
            idle_s = request.idle_s or self.timeouts.idle
            message = f"No data from {self.base_url} for {idle_s:g} s (idle timeout)."
        else:
            message = f"The connection to {self.base_url} was lost ({reason})."
        return ConnectionError(message, hint=hint, code=code, may_be_billed=request.may_be_billed)


class _TimestampTransport(httpx.AsyncHTTPTransport):
    """
    Uses connections that record when bytes arrived.

    httpx has no argument for httpcore's network backend, so this class creates its connection pool.
    """

    def __init__(self, ssl_context: ssl.SSLContext | None) -> None:
        self._pool = JoiningConnectionPool(
            ssl_context=ssl_context,
            max_connections=_POOL_LIMITS.max_connections,
            max_keepalive_connections=_POOL_LIMITS.max_keepalive_connections,
            keepalive_expiry=_POOL_LIMITS.keepalive_expiry,
            network_backend=TimestampBackend(),
        )


def _create_transport(url: str) -> httpx.AsyncBaseTransport:
    """Return the transport for ``url``, which uses the proxy that the environment sets, if any."""
    proxy = connections.find_proxy(url)
    if proxy is not None:
        return httpx.AsyncHTTPTransport(proxy=proxy, limits=_POOL_LIMITS)
    if not timing.is_available():
        return httpx.AsyncHTTPTransport(limits=_POOL_LIMITS)
    is_secure = url.lower().startswith("https:")
    return _TimestampTransport(httpx.create_ssl_context() if is_secure else None)


class _Authorization(httpx.Auth):
    """Adds the key, and the user and password from the address, to the headers of a request."""

    def __init__(self, key: Secret | None, header: KeyHeader, basic: Secret | None) -> None:
        self._key = key
        self._header = header
        self._basic = basic

    def auth_flow(self, request: httpx.Request) -> Any:
        if self._key:
            request.headers[self._header.name] = self._header.value(self._key)
        if self._basic:  # set for this address, so it overrides a key for the same header
            request.headers["Authorization"] = f"Basic {self._basic.reveal()}"
        yield request


def _record_start(
    request_timing: RequestTiming, trace: _ConnectionTrace, request: httpx.Request
) -> None:
    request_timing.sent_at, request_timing.connect_s = trace.sent_at, trace.connect_s
    request_timing.headers_s = time.perf_counter() - trace.sent_at
    request_timing.bytes_sent += int(request.headers.get("content-length", 0))


def _encode_body(
    body: Any, headers: Mapping[str, str] | None
) -> AbstractContextManager[dict[str, Any]]:
    """Return the arguments of httpx for ``body``; files that it names are open in the block."""
    if body is None:
        return nullcontext({"headers": headers})
    if isinstance(body, Form | StreamBody):
        return open_body(body, headers)
    try:
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        msg = f"The request contains a value that JSON cannot express ({reason_of(error)})."
        hint = "Check extra_body, and the other parameters of the call."
        raise ConfigurationError(msg, hint=hint) from None
    try:
        content = text.encode()
    except UnicodeEncodeError:
        content = replace_lone_surrogates(text).encode()
    headers = {"Content-Type": "application/json", **(headers or {})}
    return nullcontext({"content": content, "headers": headers})


class _ConnectionTrace:
    """
    What happened to a request, from the events that httpcore reports.

    Attributes:
        is_new: whether a connection was opened for it.
        sent_at: when it was passed to the socket, by `time.perf_counter`; before that, when this
            trace was created.
        connect_s: the time to open a new connection, in seconds.
        nothing_sent: whether no byte of it was sent.
        is_sent: whether all of it was sent.
    """

    def __init__(self) -> None:
        self.is_new = False
        self.sent_at = self._began_at = time.perf_counter()
        self.connect_s = 0.0
        self.nothing_sent = False
        self.is_sent = False

    async def note(self, event: str, info: Mapping[str, Any]) -> None:
        """Record an event; httpcore calls this."""
        if event == "connection.connect_tcp.started":
            self.is_new = True
            self._began_at = time.perf_counter()
        elif event.endswith(".send_request_headers.started"):
            self.sent_at = time.perf_counter()
            self.is_sent = False  # before, the request to a proxy for a connection may have been
            if self.is_new:
                self.connect_s = self.sent_at - self._began_at
        elif event.endswith(".send_request_headers.failed"):
            self.nothing_sent = isinstance(info.get("exception"), timing.NothingSentError)
        elif event.endswith(".send_request_body.complete"):
            self.is_sent = True


@dataclass(slots=True, kw_only=True)
class _Request:
    """One request, and what has happened to it when it was last sent."""

    method: str
    path: str
    body: Any
    headers: Mapping[str, str] | None
    idle_s: float | None
    trace: _ConnectionTrace = field(default_factory=_ConnectionTrace)

    @property
    def may_be_billed(self) -> bool:
        """Whether the service may have processed the request."""
        return self.method == "POST" and self.trace.is_sent
