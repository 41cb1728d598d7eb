"""On what something was measured, as it is kept with the measurements."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any
from urllib.parse import urlsplit

from llm_magics.errors import LLMError
from llm_magics.runtime.session import session

# What answers are read with, and what runs models here.
_LIBRARIES = ("httpx", "pandas", "xllamacpp", "torch", "transformers")


def told(models: Iterable[str]) -> dict[str, Any]:
    """When, with what, and where: texts and numbers only, and no key."""
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "llm_magics": _version("llm-magics"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else [],
        "libraries": {name: found for name in _LIBRARIES if (found := _version(name))},
        "services": {name: _address(name) for name in sorted({*map(_provider, models)}) if name},
    }


def asked(system: str | None, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What was the same for all requests."""
    told = {name: repr(value) for name, value in parameters.items()}
    return {"system": system, "parameters": told}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _provider(model: str) -> str:
    return model.partition("/")[0] if "/" in model else ""


def _address(name: str) -> str:
    """Where a provider is, without what may be secret in an address."""
    try:
        url = getattr(session.provider(name).config, "base_url", None) or ""
    except LLMError:
        return "unknown"
    parts = urlsplit(str(url))
    return f"{parts.scheme}://{parts.hostname}:{parts.port}" if parts.port else f"{parts.scheme}://{parts.hostname}" if parts.hostname else "here"  # fmt: skip
