"""Find and read the settings files: the user's, and the nearest one of the project."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from platformdirs import user_config_path

from llm_magics._util.filesystem import load_yaml
from llm_magics._util.text import reason_of
from llm_magics.errors import ConfigurationError
from llm_magics.secrets import redact

_TABLE = "[tool.llm_magics"
_NAMES = ("llm_magics.yaml", "llm_magics.yml", "llm_magics.json", "pyproject.toml")


def find_settings_files(start: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """
    Yield the settings files with their contents: the user's, then the project's.

    The project's file is the nearest ``llm_magics.yaml``, ``.yml``, ``.json`` or ``pyproject.toml``
    with ``[tool.llm_magics]``, in ``start`` or a folder above it.
    """
    user = user_config_path("llm_magics", appauthor=False)
    for folders in ([user], [start, *start.parents]):
        found = next(_find_in(folders), None)
        if found is not None:
            yield found


def user_settings_file() -> Path:
    """Return the path of the user's settings file, whether or not it exists."""
    user = user_config_path("llm_magics", appauthor=False)
    return next((path for path, _ in _find_in([user])), user / _NAMES[0])


def is_project_file(source: str) -> bool:
    """Return whether a setting's ``source`` is a project's file rather than the user's."""
    user = user_config_path("llm_magics", appauthor=False)
    return source.startswith("file ") and Path(source.removeprefix("file ")).parent != user


def _find_in(folders: list[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    for folder in folders:
        for name in _NAMES:
            path = folder / name
            if path.is_file() and (settings := _parse_file(path)) is not None:
                yield path, settings


def _parse_file(path: Path) -> dict[str, Any] | None:
    """Return the settings in ``path``; ``None`` for a pyproject.toml without our table."""
    try:
        text = path.read_text("utf-8-sig")
    except (ValueError, OSError) as error:
        raise _unreadable_error(path, error) from None
    if path.name == "pyproject.toml" and _TABLE not in text:
        return None  # not parsed, so that errors in it do not matter
    try:
        settings = _PARSERS[path.suffix](text)
    except (ValueError, RecursionError) as error:
        raise _unreadable_error(path, error) from None
    if path.name == "pyproject.toml":
        settings = settings.get("tool", {}).get("llm_magics")
    elif settings is None:  # an empty file
        settings = {}
    if settings is not None and not isinstance(settings, dict):
        msg = f"{path} must contain a mapping of settings, got {type(settings).__name__}."
        raise ConfigurationError(msg, hint="Example:  model: local/smollm2-135m")
    return settings


def _unreadable_error(path: Path, error: Exception) -> ConfigurationError:
    why = " ".join(redact(reason_of(error)).replace("^", "").split())[:200].rstrip(".")
    msg = f"Could not read {path}: {why}"
    return ConfigurationError(msg, hint="Fix or remove the file.")


_PARSERS: dict[str, Callable[[str], Any]] = {
    ".yaml": load_yaml,
    ".yml": load_yaml,
    ".json": json.loads,
    ".toml": tomllib.loads,
}
