"""
Capabilities, limits and prices of models, for services that do not report them.

The table in ``models.json`` has a date and a source. Values that a service reports take precedence.
To update the table, run ``pip download --no-deps litellm`` (MIT licence), then
``python -m llm_magics.providers.model_catalog WHEEL YYYY-MM-DD``.
"""

from __future__ import annotations

import json
import re
import sys
import zipfile
from dataclasses import replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from llm_magics.providers.base import ModelInfo

_MEMBER = "litellm/model_prices_and_context_window_backup.json"
_PROVIDERS = ("anthropic", "openai")

_MODES = {
    "audio_transcription": ("transcription",),
    "chat": ("chat",),
    "completion": ("completion",),
    "embedding": ("embeddings",),
    "image_generation": ("images",),
    "responses": ("chat",),
}
_FLAGS = {
    "supports_vision": "vision",
    "supports_function_calling": "tools",
    "supports_response_schema": "schema",
    "supports_reasoning": "reasoning",
}


def build_table(entries: dict[str, Any], source: str, day: str) -> dict[str, Any]:
    """Return the table for services that do not report these facts, from litellm's ``entries``."""
    models: dict[str, dict[str, Any]] = {provider: {} for provider in _PROVIDERS}
    for name, entry in sorted(entries.items()):
        provider = entry.get("litellm_provider")
        if provider in models and entry.get("mode") in _MODES and not set("/:") & set(name):
            models[provider][name] = _row(entry)
    return {"as_of": day, "source": source, "licence": "MIT", "models": models}


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    capabilities = [
        *_MODES[entry["mode"]],
        *(word for flag, word in _FLAGS.items() if entry.get(flag)),
    ]
    row = {
        "capabilities": capabilities,
        "context": entry.get("max_input_tokens"),
        "max_output_tokens": entry.get("max_output_tokens"),
        "input_usd": _per_million(entry.get("input_cost_per_token")),
        "output_usd": _per_million(entry.get("output_cost_per_token")),
        "cached_usd": _per_million(entry.get("cache_read_input_token_cost")),
        "written_usd": _per_million(entry.get("cache_creation_input_token_cost")),
    }
    return {name: value for name, value in row.items() if value}


def _per_million(usd_per_token: float | None) -> float | None:
    return round(usd_per_token * 1e6, 6) if usd_per_token else None


def update_table(wheel: str, day: str) -> None:
    """Write the table from a wheel of litellm."""
    with zipfile.ZipFile(wheel) as archive:
        entries = json.loads(archive.read(_MEMBER))
    table = build_table(entries, Path(wheel).name.split("-cp")[0], day)
    text = json.dumps(table, indent=0, ensure_ascii=False)
    Path(__file__).with_name("models.json").write_text(f"{text}\n", "utf-8")


# The date that services append to the name of a model's version.
_DATE = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8}|latest)$")


@cache
def _table() -> dict[str, Any]:
    text = files(__package__).joinpath("models.json").read_text("utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


def table_date() -> str:
    """Return the date of the table, as ``YYYY-MM-DD``."""
    return str(_table()["as_of"])


def find_providers(model: str) -> list[str]:
    """
    Return the cloud providers in the table that have ``model``, or models of the same family.

    A model that is newer than the table is recognised by the prefix of its name (``gpt-``).
    """
    tables: dict[str, dict[str, Any]] = _table()["models"]
    bare = _DATE.sub("", model)
    having = [name for name, known in tables.items() if model in known or bare in known]
    family = re.match(r"(?:[a-z]{3,}|o\d)(?=-)", model)
    if having or family is None:
        return having
    return [
        name
        for name, known in tables.items()
        if any(each.startswith(f"{family[0]}-") for each in known)
    ]


def complete_info(provider: str, info: ModelInfo) -> ModelInfo:
    """Return ``info`` with the facts that the service did not report taken from the table."""
    known = _table()["models"].get(provider, {})
    row = known.get(info.name) or known.get(_DATE.sub("", info.name)) or {}
    missing: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in row.items()
        if not getattr(info, name)
    }
    return replace(info, **missing)


if __name__ == "__main__":
    update_table(*sys.argv[1:3])
