"""
Tests against real servers: they run with ``-m live``, against what the environment names.

``OLLAMA_HOST``, ``LIVE_LLAMA_SERVER``, ``OPENAI_API_KEY``, ``ANTHROPIC_API_KEY``,
``GEMINI_API_KEY``, ``HF_TOKEN`` and ``LMSTUDIO_BASE_URL`` each name one; ``LIVE_*_MODEL`` names its models. What is not named is skipped.
"""

from __future__ import annotations

from typing import Any

import pytest
from _pytest.mark.expression import Expression

import llm_magics as lm
from tests.support.live import TARGETS, Target


def _matches_live(name: str, /, **_: Any) -> bool:
    return name == "live"


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Import no test here unless ``-m`` asks for live tests."""
    expression = config.option.markexpr or "not live"
    return None if Expression.compile(expression).evaluate(_matches_live) else True


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest, own_settings: None) -> Target:
    """Each service, which the provider ``live`` of the settings asks."""
    chosen = TARGETS[request.param]
    if not chosen.is_there:
        pytest.skip(f"{chosen.at} is not set")
    settings = {name: value for name, value in chosen.config.items() if value is not None}
    lm.config.providers = {"live": {"type": chosen.provider, **settings}}
    return chosen


@pytest.fixture
def ollama(own_settings: None) -> Target:
    """Ollama, which the provider of that name asks."""
    chosen = TARGETS["ollama"]
    if not chosen.is_there:
        pytest.skip(f"{chosen.at} is not set")
    lm.config.set("providers.ollama.base_url", chosen.config["base_url"])
    return chosen
