"""Addresses: which are on this machine, which proxy leads to them, whose name is in them."""

from __future__ import annotations

import ipaddress
import re
import socket
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies

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
