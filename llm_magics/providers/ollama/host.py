"""Where an Ollama server is, from all that ``OLLAMA_HOST`` may say."""

from __future__ import annotations

from urllib.parse import urlsplit

_PORT = 11434


def parse_host(host: str) -> str:
    """
    The address that a value of ``OLLAMA_HOST`` stands for.

    >>> parse_host("")
    'http://127.0.0.1:11434'
    >>> parse_host("example.com:8000")
    'http://example.com:8000'
    >>> parse_host("https://ollama.com")
    'https://ollama.com:443'
    >>> parse_host("0.0.0.0")
    'http://127.0.0.1:11434'
    >>> parse_host(":8000")
    'http://127.0.0.1:8000'
    >>> parse_host("[::1]")
    'http://[::1]:11434'
    >>> parse_host("http://example.com/path/")
    'http://example.com:80/path'
    """
    host = host.strip()
    scheme, separator, _ = host.partition("://")
    parts = urlsplit(host if separator else f"http://{host}")
    ports = {"http": 80, "https": 443} if separator else {}
    port = parts.port or ports.get(scheme, _PORT)
    name = parts.hostname or "127.0.0.1"
    if name in ("0.0.0.0", "::"):  # noqa: S104 (where a server listens is not where one asks)
        name = "127.0.0.1"
    shown = f"[{name}]" if ":" in name else name
    return f"{parts.scheme}://{shown}:{port}{parts.path.rstrip('/')}"
