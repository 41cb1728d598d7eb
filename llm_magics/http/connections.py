"""
Connections to servers: open them to the first address that accepts, pool them, and read in blocks.

This module also decides which addresses are on this machine, and which need a proxy.

A model server sends each token as an HTTP chunk, and a busy client receives many of them in one
read. httpcore and httpx pass each chunk through several nested generators, which takes longer than
parsing it. Here, all chunks of one read, which have the same arrival time, are joined to one block.
h11 parses them.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import re
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies

import h11
import httpcore

from llm_magics._util.text import reason_of
from llm_magics.http.deadlines import ConnectionTimeout
from llm_magics.http.timing import TimestampStream

# The delay before trying the next address of a host (RFC 8305), in seconds.
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
    """Opens a `_JoiningConnection` for the first request, and sends requests over it."""

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
        """Yield the body, with all chunks of one read joined."""
        timeout = request.extensions.get("timeout", {}).get("read")
        event: h11.Event | type = await self._receive_event(timeout)
        while isinstance(event, h11.Data):
            parts: list[bytes] = []
            try:
                while isinstance(event, h11.Data):
                    parts.append(event.data)
                    event = self._h11_state.next_event()
            except h11.RemoteProtocolError as error:
                yield b"".join(parts)  # the data before the error is part of the answer
                raise httpcore.RemoteProtocolError(error) from error
            yield b"".join(parts)
            if event is h11.NEED_DATA:
                event = await self._receive_event(timeout)


class TimestampBackend(httpcore.AsyncNetworkBackend):
    """Opens connections whose streams record when the bytes of each read arrived."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> TimestampStream:
        try:
            async with ConnectionTimeout(timeout):
                connection = await _connect(host, port)
        except TimeoutError as error:
            msg = f"no connection within {timeout:g} s" if timeout else str(error)
            raise httpcore.ConnectTimeout(msg) from error
        except OSError as error:
            raise httpcore.ConnectError(reason_of(error)) from error
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for option in socket_options or ():
            connection.setsockopt(*option)
        return TimestampStream(connection)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def _connect(host: str, port: int) -> socket.socket:
    """
    Connect to the first address of ``host`` that accepts.

    The next address is tried after a short delay or when the previous one has failed, so that an
    address that drops packets does not delay the others (RFC 8305).
    """
    try:
        # As bytes: the name is already ASCII; Python would encode a string by another IDNA
        # standard.
        found = await _resolve(host.encode("ascii"), port)
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


async def _resolve(host: bytes, port: int) -> list[Any]:
    """Return the addresses of ``host``; only a name needs a thread, and those may all be busy."""
    kind = socket.SOCK_STREAM
    with suppress(socket.gaierror):
        return socket.getaddrinfo(host, port, type=kind, flags=socket.AI_NUMERICHOST)
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=kind)


def _as_os_error(error: BaseException) -> OSError:
    return error if isinstance(error, OSError) else OSError(str(error))


async def _connect_to(address_info: Any) -> socket.socket:
    family, kind, protocol, _, address = address_info
    connection = socket.socket(family, kind, protocol)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, address)
    except OSError as error:  # asyncio's text is "Connect call failed", with the address
        connection.close()
        raise OSError(error.errno, os.strerror(error.errno or 0)) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _close_connected(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


# Names for the loopback interface in the /etc/hosts of common systems.
_LOOPBACK_NAMES = {
    "localhost",
    "localhost.localdomain",
    "localhost6",
    "ip6-localhost",
    "ip6-loopback",
}


class Credentials(NamedTuple):
    """A user and password in an address."""

    user: str
    password: str


def split_credentials(url: str) -> tuple[str, Credentials | None]:
    """
    Return the address without ``user:password@``, and the credentials separately.

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
    Return whether ``host`` is this machine: 127.0.0.0/8, ::1, localhost or a subdomain of it.

    Source for the names: RFC 6761, section 6.3.
    """
    name = host.strip("[]").rstrip(".").lower()
    if name in _LOOPBACK_NAMES or name.endswith(".localhost"):
        return True
    address = _ip_address(name)
    return address is not None and (address.is_loopback or address.is_unspecified)


def is_local_address(url: str) -> bool:
    """Return whether the host of ``url`` is this machine."""
    with suppress(ValueError):
        return is_loopback(urlsplit(url).hostname or "")
    return False


def find_proxy(url: str) -> str | None:
    """
    Return the proxy for ``url`` from the environment, or ``None``.

    ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``ALL_PROXY`` set a proxy (on Windows and macOS, so do the
    system's settings); ``NO_PROXY`` lists the hosts to connect to directly. A proxy is never used
    for this machine, because it has no access to it.
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
    """Return whether an entry of ``NO_PROXY``, in any common form, matches an address."""
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
    """Return the host, network or domain of an entry, and its port if it has one."""
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
        with suppress(OSError):  # resolvers accept 127.1 and 0x7f000001 as addresses
            return ipaddress.ip_address(socket.inet_aton(host))
    return None


def _covers(entry: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Return whether an address or network in ``NO_PROXY`` contains ``address``."""
    with suppress(ValueError):
        return address in ipaddress.ip_network(entry, strict=False)
    return False
