"""Where an Ollama server is, from all that ``OLLAMA_HOST`` may say."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from llm_magics.secrets import stripped

_PORT = 11434

# The paths of Ollama's own interface and of its look-alike of OpenAI's, which requests add.
_INTERFACE = re.compile(
    r"(?:/(?:api|v1)(?:/(?:chat(?:/completions)?|completions|embed(?:dings)?|generate|models|tags))?)$"
)


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

    What an address for another client ends with is left out, and credentials stay:

    >>> parse_host("http://localhost:11434/v1/")
    'http://localhost:11434'
    >>> parse_host("https://ada:secret@example.com/ollama/api")
    'https://ada:secret@example.com:443/ollama'

    Raises:
        ValueError: it is not an address.
    """
    host = stripped(host)
    scheme, separator, _ = host.partition("://")
    parts = urlsplit(host if separator else f"http://{host}")
    ports = {"http": 80, "https": 443} if separator else {}
    port = parts.port or ports.get(scheme, _PORT)
    name = parts.hostname or "127.0.0.1"
    if name in ("0.0.0.0", "::"):  # noqa: S104 (where a server listens is not where one asks)
        name = "127.0.0.1"
    shown = f"[{name}]" if ":" in name else name
    user, at, _ = parts.netloc.rpartition("@")
    path = _INTERFACE.sub("", parts.path.rstrip("/"))
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{user}{at}{shown}:{port}{path}{query}"
