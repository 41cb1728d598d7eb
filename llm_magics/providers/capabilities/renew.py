"""
Makes ``models.json`` anew, from the table that the project litellm keeps (MIT licence).

``pip download --no-deps litellm``, then
``python -m llm_magics.providers.capabilities.renew WHEEL YYYY-MM-DD``.
"""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

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


def table_of(entries: dict[str, Any], source: str, day: str) -> dict[str, Any]:
    """The table for the providers whose services do not tell, from litellm's ``entries``."""
    models: dict[str, dict[str, Any]] = {provider: {} for provider in _PROVIDERS}
    for name, entry in sorted(entries.items()):
        provider = entry.get("litellm_provider")
        if provider in models and entry.get("mode") in _MODES and not set("/:") & set(name):
            models[provider][name] = _row(entry)
    return {"as_of": day, "source": source, "licence": "MIT", "models": models}


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    abilities = [
        *_MODES[entry["mode"]],
        *(word for flag, word in _FLAGS.items() if entry.get(flag)),
    ]
    row = {
        "abilities": abilities,
        "context": entry.get("max_input_tokens"),
        "longest_answer": entry.get("max_output_tokens"),
        "input_usd": _per_million(entry.get("input_cost_per_token")),
        "output_usd": _per_million(entry.get("output_cost_per_token")),
        "cached_usd": _per_million(entry.get("cache_read_input_token_cost")),
        "written_usd": _per_million(entry.get("cache_creation_input_token_cost")),
    }
    return {name: value for name, value in row.items() if value}


def _per_million(usd_per_token: float | None) -> float | None:
    return round(usd_per_token * 1e6, 6) if usd_per_token else None


def main(wheel: str, day: str) -> None:
    """Write the table from a wheel of litellm."""
    with zipfile.ZipFile(wheel) as archive:
        entries = json.loads(archive.read(_MEMBER))
    table = table_of(entries, Path(wheel).name.split("-cp")[0], day)
    text = json.dumps(table, indent=0, ensure_ascii=False)
    Path(__file__).with_name("models.json").write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:3])
