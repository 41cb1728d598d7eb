"""
Connections to servers: opened to the first address that accepts, pooled, and read in blocks.

Which addresses are on this machine, and which proxy leads to the others, is decided here too.

A model server sends each token as an HTTP chunk, and a busy client finds many of them in one
read. httpcore passes each chunk through several nested generators of its own and of httpx, which
costs more than parsing it. Here all chunks of one read, which have the same time of arrival, are
passed on as one. h11 parses them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies

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


# What systems write into /etc/hosts for the loopback interface.
_LOOPBACK_NAMES = {
    "localhost",
    "localhost.localdomain",
    "localhost6",
    "ip6-localhost",
    "ip6-loopback",
}


class Credentials(NamedTuple):
    """A user's name and password, as they stand before the host of an address."""

    user: str
    password: str


def split_credentials(url: str) -> tuple[str, Credentials | None]:
    """
    Return the address without ``user:password@``, and these by themselves.

    >>> split_credentials("http://ada:l%40ce@host:11434/api")
    ('http://host:11434/api', Credentials(user='ada', password='l@ce'))
    """
    parts = urlsplit(url)
    before, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, None
    user, _, password = before.partition(":")
    clean = parts._replace(netloc=host).geturl()
    return clean, Credentials(unquote(user), unquote(password)) if before else None


def is_loopback(host: str) -> bool:
    """
    Return whether ``host`` is this machine: 127.0.0.0/8, ::1, localhost, and names below it.

    (RFC 6761, section 6.3, for the names.)
    """
    name = host.strip("[]").rstrip(".").lower()
    if name in _LOOPBACK_NAMES or name.endswith(".localhost"):
        return True
    address = _ip_address(name)
    return address is not None and (address.is_loopback or address.is_unspecified)


def is_local_address(url: str) -> bool:
    """Return whether ``url`` is served on this machine."""
    with suppress(ValueError):
        return is_loopback(urlsplit(url).hostname or "")
    return False


def find_proxy(url: str) -> str | None:
    """
    Return the proxy that the environment names for ``url``, or ``None``.

    ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``ALL_PROXY`` name one (on Windows and macOS the system's
    settings do too), ``NO_PROXY`` names the hosts that are reached without. What is on this
    machine is never reached through a proxy, which has no access to it.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_loopback(host):
        return None
    proxies = {name: value.strip() for name, value in getproxies().items()}
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or _is_excluded(parts, proxies.get("no", "")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _is_excluded(parts: SplitResult, no_proxy: str) -> bool:
    """Whether an entry of ``NO_PROXY``, in any of the forms in use, covers an address."""
    host = (parts.hostname or "").rstrip(".").lower()
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    address = _ip_address(host)
    for entry in re.split(r"[\s,;]+", no_proxy.lower()):
        name, entry_port = _parse_entry(entry)
        if name == "*":
            return True
        if not name or (entry_port and entry_port != port):
            continue
        if address is not None:
            if _covers(name, address):
                return True
        elif host == name or host.endswith(f".{name}"):
            return True
    return False


def _parse_entry(entry: str) -> tuple[str, int | None]:
    """The host, network or domain of an entry, and its port where it has one."""
    entry = entry.rpartition("://")[2]
    found = re.fullmatch(r"\[([^\]]*)\](?::(\d+))?|([^:\[\]]*)(?::(\d+))?", entry)
    if found is None:  # an IPv6 address without brackets
        return entry, None
    name = found[1] or found[3] or ""
    port = found[2] or found[4]
    if name != "*":
        name = name.removeprefix("*").strip(".")
    return name, int(port) if port else None


def _ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    with suppress(ValueError):
        address = ipaddress.ip_address(host.partition("%")[0])
        return getattr(address, "ipv4_mapped", None) or address
    if re.fullmatch(r"[0-9a-fx.]+", host):
        with suppress(OSError):  # 127.1 and 0x7f000001 are addresses to every resolver
            return ipaddress.ip_address(socket.inet_aton(host))
    return None


def _covers(entry: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address or network written in ``NO_PROXY`` holds ``address``."""
    with suppress(ValueError):
        return address in ipaddress.ip_network(entry, strict=False)
    return False
