"""
The tools of servers that the user has allowed, with digests of their descriptions and schemas.

A server can change what a tool does after the user has allowed it. So the digest is stored when a
tool is first allowed, in any way, and a tool with another digest is asked for again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from platformdirs import user_config_path

from llm_magics._util.filesystem import atomic_write, locked


def tool_digest(tool: Mapping[str, Any]) -> str:
    """Return a digest of what a server says about a tool."""
    said = [tool.get(name) for name in ("name", "description", "parameters", "output")]
    text = json.dumps(said, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _path() -> Path:
    return user_config_path("llm_magics", appauthor=False) / "mcp_tools.json"


def allowed_digests(server: str) -> dict[str, str]:
    """Return the digests of the allowed tools of a server, by name."""
    return _load().get(server, {})


def remember(server: str, digests: Mapping[str, str]) -> None:
    """Store the digests of tools of a server that the user has allowed."""
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path):
        known = _load()
        _save({**known, server: {**known.get(server, {}), **digests}})


def forget(server: str, tools: Iterable[str] | None = None) -> None:
    """Remove the digests of some or all tools of a server."""
    known = _load()
    own = known.pop(server, {})
    left = {} if tools is None else {name: own[name] for name in own.keys() - set(tools)}
    if own != left:
        _save({**known, server: left} if left else known)


def _load() -> dict[str, dict[str, str]]:
    try:
        known = json.loads(_path().read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {server: own for server, own in known.items() if isinstance(own, dict)}


def _save(known: Mapping[str, Mapping[str, str]]) -> None:
    atomic_write(_path(), json.dumps(known, indent=1, sort_keys=True))
