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
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from llm_magics._util.text import count_or_none, replace_lone_surrogates
from llm_magics._util.validation import attribute_error
from llm_magics.secrets import scrub
from llm_magics.types import model_name

_MEMBER = "litellm/model_prices_and_context_window_backup.json"
_PROVIDERS = ("anthropic", "gemini", "openai")
# Kinds of models that a provider here does not use, although the service has them.
_UNUSED_MODES = {"gemini": ("audio_transcription", "image_generation")}

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
    "supports_pdf_input": "documents",
    "supports_audio_input": "audio",
    "supports_web_search": "search",
}


# Former names of facts, with the current ones.
_RENAMED_FACTS = {"abilities": "capabilities", "longest_answer": "max_output_tokens"}


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """
    Known facts about a model; ``None`` for unknown ones.

    Attributes:
        name: without the provider.
        capabilities: of ``chat``, ``completion``, ``embeddings``, ``vision``, ``tools`` …
        context: the limit of prompt plus answer, in tokens.
        size_bytes: the size of its weights on disk.
        pulled: whether it can be used without a download.
        loaded: whether it is in memory now.
        input_usd, output_usd: its price in US dollars per million tokens.
        cached_usd, written_usd: the same for prompt tokens read from and written to the service's
            cache.
        max_output_tokens: the maximum length of an answer, in tokens.
    """

    name: str
    capabilities: tuple[str, ...] = ()
    context: int | None = None
    size_bytes: int | None = None
    pulled: bool | None = None
    loaded: bool | None = None
    input_usd: float | None = None
    output_usd: float | None = None
    max_output_tokens: int | None = None
    cached_usd: float | None = None
    written_usd: float | None = None

    def __getattr__(self, name: str) -> Any:
        raise attribute_error(self, name, _RENAMED_FACTS)

    def __post_init__(self) -> None:
        """Replace invalid numbers with ``None``, because a service may send anything."""
        for name in ("context", "size_bytes", "max_output_tokens"):
            object.__setattr__(self, name, count_or_none(getattr(self, name)))
        for name in ("input_usd", "output_usd", "cached_usd", "written_usd"):
            value = getattr(self, name)
            is_price = type(value) in (int, float) and 0 <= value < 2**63
            object.__setattr__(self, name, float(value) if is_price else None)
        object.__setattr__(self, "name", scrub(model_name(self.name)))
        names = [each for each in self.capabilities if isinstance(each, str)]
        object.__setattr__(self, "capabilities", tuple(map(replace_lone_surrogates, names)))


def build_table(entries: dict[str, Any], source: str, day: str) -> dict[str, Any]:
    """Return the table for services that do not report these facts, from litellm's ``entries``."""
    models: dict[str, dict[str, Any]] = {provider: {} for provider in _PROVIDERS}
    for name, entry in sorted(entries.items()):
        provider, mode = entry.get("litellm_provider"), entry.get("mode")
        if provider not in models or mode not in _MODES:
            continue
        bare = name.removeprefix("gemini/")
        if mode not in _UNUSED_MODES.get(provider, ()) and not set("/:") & set(bare):
            models[provider][bare] = _row(entry)
    return {"as_of": day, "source": source, "licence": "MIT", "models": models}


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    capabilities = [
        *_MODES[entry["mode"]],
        *(word for flag, word in _FLAGS.items() if entry.get(flag)),
    ]
    # Some names of a model have the price of a search, but not the flag.
    if "search_context_cost_per_query" in entry and entry.get("supports_web_search") is None:
        capabilities.append("search")
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
