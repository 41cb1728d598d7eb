"""Where a model of Transformers lies, and whether there is what it takes to run it."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from llm_magics.providers.huggingface import hub_cache


def missing() -> list[str]:
    """The packages that are not there."""
    return [name for name in ("torch", "transformers") if find_spec(name) is None]


def is_path(model: str) -> bool:
    """Whether ``model`` is a path, and no name on the hub."""
    return model.startswith((".", "/", "~")) or Path(model).is_absolute()


def on_disk(model: str) -> Path | None:
    """The folder or file of ``model``, if it is on this machine."""
    if is_path(model):
        path = Path(model).expanduser()
        return path if path.exists() else None
    return hub_cache.cached_folder(model)


def config_of(folder: Path | None) -> dict[str, Any]:
    """What a model's folder says of it; nothing where there is none."""
    try:
        told = json.loads((folder or Path()).joinpath("config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
