"""The names of the tools of servers: as they are displayed, and as they are sent to a model."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Sequence

# The characters and the length that every service accepts in the name of a tool: OpenAI, Anthropic
# and Gemini document [a-zA-Z0-9_-], OpenAI and Gemini at most 64 characters (2026-11).
_REFUSED = re.compile(r"[^a-zA-Z0-9_-]")
MAX_NAME = 64
_DIGEST = 8


def shown_name(server: str, tool: str) -> str:
    """Return the name of a tool for the user: ``server.tool``."""
    return f"{server}.{tool}"


def sent_names(tools: Sequence[tuple[str, str]], taken: Collection[str] = ()) -> list[str]:
    """
    Return a name for each ``(server, tool)`` that every service accepts: ``server__tool``.

    Refused characters become underscores. A name that is too long, that another tool has too, or
    that is ``taken`` by a function, ends with a digest, which does not depend on the other tools.
    """
    cleaned = [_REFUSED.sub("_", f"{server}__{tool}") for server, tool in tools]
    counts = Counter([*cleaned, *taken])
    return [
        name if len(name) <= MAX_NAME and counts[name] == 1 else _with_digest(name, *tool)
        for name, tool in zip(cleaned, tools, strict=True)
    ]


def _with_digest(name: str, server: str, tool: str) -> str:
    digest = hashlib.sha256(f"{server}\0{tool}".encode("utf-8", "surrogatepass")).hexdigest()
    return f"{name[: MAX_NAME - _DIGEST - 1]}_{digest[:_DIGEST]}"
