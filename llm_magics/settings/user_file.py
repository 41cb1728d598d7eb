"""Write the user's settings file: the MCP servers in it, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from platformdirs import user_config_path

from llm_magics._util.filesystem import atomic_write, load_yaml, locked
from llm_magics._util.text import reason_of
from llm_magics.errors import ConfigurationError
from llm_magics.settings.files import find_settings_files, is_project_file

# The block of the key mcp in a YAML file: its line, and the lines that belong to it.
_BLOCK = re.compile(r"^mcp[ \t]*:.*\n?(?:^(?:[ \t].*|#.*|[ \t]*)(?:\n|\Z))*", re.MULTILINE)

Servers = dict[str, dict[str, Any]]


def user_servers() -> Servers:
    """Return the MCP servers in the user's settings file, by name."""
    return _read()[1]


def change_servers(change: Callable[[Servers], Servers]) -> Path:
    """
    Replace the MCP servers in the user's settings file; the rest of the file stays unchanged.

    Raises:
        ConfigurationError: the file cannot be changed without changing other settings.
    """
    folder = user_config_path("llm_magics", appauthor=False)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / "llm_magics.yaml"):
        path, servers = _read()
        servers = change(servers)
        try:
            text = path.read_text("utf-8-sig") if path.is_file() else ""
            atomic_write(path, _replaced(path, text, servers))
        except (OSError, ValueError) as error:
            msg = f"Could not write {path}: {reason_of(error)}."
            raise ConfigurationError(msg, hint="Edit the file: mcp: {NAME: {…}}") from None
    return path


def _read() -> tuple[Path, Servers]:
    """Return the path of the user's settings file, and the servers in it."""
    folder = user_config_path("llm_magics", appauthor=False)
    for path, settings in find_settings_files(folder):
        if not is_project_file(f"file {path}"):
            servers = settings.get("mcp")
            return path, dict(servers) if isinstance(servers, dict) else {}
    return folder / "llm_magics.yaml", {}


def _replaced(path: Path, text: str, servers: Mapping[str, Any]) -> str:
    """Return the text of a settings file with other servers."""
    if path.suffix == ".json":
        settings = json.loads(text or "{}")
        settings.pop("mcp", None)
        return json.dumps({**settings, **({"mcp": servers} if servers else {})}, indent=2) + "\n"
    if path.suffix == ".toml":
        msg = "it is a TOML file"
        raise ValueError(msg)
    import yaml

    before = load_yaml(text) or {}
    rest = _BLOCK.sub("", text, count=1)
    rest = f"{rest.rstrip()}\n" if rest.strip() else ""
    if servers:
        rest += yaml.safe_dump(
            {"mcp": dict(servers)}, sort_keys=False, allow_unicode=True, default_flow_style=None
        )
    expected = {name: value for name, value in before.items() if name != "mcp"}
    if (load_yaml(rest) or {}) != {**expected, **({"mcp": dict(servers)} if servers else {})}:
        msg = "the key mcp is not a separate block in it"
        raise ValueError(msg)
    return rest
