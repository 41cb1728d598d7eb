"""The table of what the cloud's models can do."""

from __future__ import annotations

import asyncio
import json
from datetime import date
from importlib.resources import files
from typing import Any

import pytest

from llm_magics.providers import create_provider, model_catalog
from llm_magics.providers.base import ModelInfo
from llm_magics.providers.model_catalog import build_table
from tests.support.fake_anthropic import FakeAnthropic
from tests.support.serving import Asked, Says, as_json, serving


def test_the_table_bears_its_date_and_source() -> None:
    """And knows the models that people ask for, with capabilities that the project has words for."""
    assert date.fromisoformat(model_catalog.table_date()) >= date(2026, 11, 1)
    text = files("llm_magics.providers").joinpath("models.json").read_text("utf-8")
    table = json.loads(text)
    assert table["source"].startswith("litellm")
    assert table["licence"] == "MIT"
    words = {"chat", "completion", "embeddings", "images", "transcription", "vision", "tools", "schema", "reasoning", "documents", "audio", "search"}  # fmt: skip
    for models in table["models"].values():
        assert len(models) > 15
        for row in models.values():
            assert set(row["capabilities"]) <= words


def test_what_the_service_tells_counts_more() -> None:
    """The table fills in only what was left open; a dated name has its family's row."""
    mini = model_catalog.complete_info("openai", ModelInfo("gpt-4o-mini"))
    assert {"chat", "vision", "tools", "schema"} <= set(mini.capabilities)
    assert mini.context == 128_000
    assert mini.input_usd == 0.15
    assert model_catalog.complete_info("openai", ModelInfo("gpt-4o-mini", context=5)).context == 5
    small = model_catalog.complete_info("openai", ModelInfo("text-embedding-3-small"))
    assert small.capabilities == ("embeddings",)
    dated = model_catalog.complete_info("anthropic", ModelInfo("claude-haiku-4-5-20991231"))
    assert dated.context == 200_000
    assert model_catalog.complete_info("openai", ModelInfo("nobody")) == ModelInfo("nobody")
    assert model_catalog.complete_info("nobody", ModelInfo("x")) == ModelInfo("x")


def test_the_providers_use_it() -> None:
    """Anthropic's list tells names; the table tells the rest."""

    class Real(FakeAnthropic):
        def models(self, path: str) -> Says:
            told = {"id": "claude-haiku-4-5", "max_input_tokens": 123}
            return as_json({"data": [told], "has_more": False})

    with serving(Real()) as server:
        provider = create_provider("anthropic", base_url=server.url, api_key="a-key-of-the-test")
        (info,) = asyncio.run(provider.describe_models())
    assert info.context == 123
    assert "tools" in info.capabilities
    assert info.output_usd == 5.0


def test_it_is_made_from_the_published_table() -> None:
    """Only the providers whose services do not tell; no price is no price, and never nought."""
    entries: dict[str, Any] = {
        "gpt-x": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 1e-6, "supports_vision": True, "max_input_tokens": 9},
        "256-x-256/dall-e-2": {"litellm_provider": "openai", "mode": "image_generation"},
        "ft:gpt-x": {"litellm_provider": "openai", "mode": "chat"},
        "free": {"litellm_provider": "openai", "mode": "embedding", "input_cost_per_token": 0.0},
        "other": {"litellm_provider": "bedrock", "mode": "chat"},
        "odd": {"litellm_provider": "openai", "mode": "rerank"},
        "gemini/gemini-x": {"litellm_provider": "gemini", "mode": "chat"},
        "gemini/gemini-x-image": {"litellm_provider": "gemini", "mode": "image_generation"},
    }  # fmt: skip
    table = build_table(entries, "litellm-1", "2026-01-02")
    assert table["as_of"] == "2026-01-02"
    assert table["models"] == {
        "anthropic": {},
        "gemini": {"gemini-x": {"capabilities": ["chat"]}},
        "openai": {
            "free": {"capabilities": ["embeddings"]},
            "gpt-x": {"capabilities": ["chat", "vision"], "context": 9, "input_usd": 1.0},
        },
    }


@pytest.mark.parametrize("name", ["openai", "anthropic", "gemini"])
def test_no_table_for_look_alikes(name: str) -> None:
    """A model of the same name on another server is another model."""

    def answers(asked: Asked) -> Says:
        gemini = {
            "name": "models/gemini-2.5-pro",
            "supportedGenerationMethods": ["generateContent"],
        }
        return as_json({"data": [{"id": "gpt-4o-mini"}], "has_more": False, "models": [gemini]})

    with serving(answers) as server:
        provider = create_provider(name, base_url=server.url, api_key="a-key-of-the-test")
        (info,) = asyncio.run(provider.describe_models())
    assert info.context is None
