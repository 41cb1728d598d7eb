"""Prices of batch jobs and of tiers, to the cent."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

import llm_magics as lm
from llm_magics.errors import ConfigurationError
from llm_magics.parameters import ModelParameters
from llm_magics.providers.openai import OpenAIProvider
from llm_magics.runtime import pricing
from llm_magics.runtime.pricing import PriceSource, listed_cost_usd
from llm_magics.runtime.session import session
from llm_magics.runtime.tier_prices import Share, find_share, in_tier
from llm_magics.types import Usage

# A million tokens of each kind: 1M plain, 1M cached and 1M written ones in the prompt, 1M of
# thinking and 1M others in the answer.
EACH = Usage(3_000_000, 2_000_000, 1_000_000, 1_000_000, 1_000_000, service_tier="batch")
SHORT = Usage(1000, 500, 200, 100, 300, service_tier="batch")


def listed(price_list: str, model: str, usage: Usage) -> float | None:
    """The cost by the list of genai-prices."""
    return listed_cost_usd(PriceSource(price_list), model, usage)


@pytest.mark.parametrize(
    ("price_list", "model", "prices"),
    [
        ("openai", "gpt-5", (0.625, 0.0625, None, 5.0)),
        ("openai", "gpt-6.1-sol", (1.0, 0.05, 1.25, 5.0)),
        ("openai", "gpt-4.1", (1.0, 1.0, None, 4.0)),  # no discount for cached tokens
        ("openai", "o4-mini", (0.55, 0.55, None, 2.2)),
        ("anthropic", "claude-sonnet-5-5", (1.0, 0.05, 1.25, 5.0)),
        ("google", "gemini-2.5-flash", (0.15, 0.03, None, 1.25)),  # cached: the usual price
        ("groq", "openai/gpt-oss-120b", (0.075, 0.075, None, 0.3)),
        ("mistral", "mistral-small-2603", (0.075, 0.0075, None, 0.3)),
        ("openrouter", "openai/gpt-5.2", (0.875, 0.0875, None, 7.0)),
    ],
)
def test_the_list_has_the_price_of_batch_jobs(
    price_list: str, model: str, prices: tuple[float, float, float | None, float]
) -> None:
    """Plain, cached and written tokens of the prompt and tokens of the answer have their own."""
    plain, cached, written, output = prices
    expected = (700 * plain + 200 * cached + 100 * (written or plain) + 500 * output) / 1e6
    assert listed(price_list, model, SHORT) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("price_list", "model", "share"),
    [
        ("azure", "text-embedding-3-small", 0.5),
        ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo", 0.5),
        ("together", "Qwen/Qwen3.8-2.4T-A95B", 1.0),
        ("groq", "llama-3.3-70b-versatile", 0.5),
        ("anthropic", "claude-opus-4-1", 0.5),
        ("openrouter", "anthropic/claude-3-haiku", None),
        ("perplexity", "sonar", None),
    ],
)
def test_a_model_without_a_listed_batch_price(
    price_list: str, model: str, share: float | None
) -> None:
    """The share of its service applies; without one the price is unknown, never the usual one."""
    usage = Usage(1000, 0)
    usual = listed(price_list, model, usage)
    assert usual is not None
    cost = listed(price_list, model, replace(usage, service_tier="batch"))
    assert cost == (None if share is None else pytest.approx(usual * share))


PRICE = {"input_usd": 2.0, "output_usd": 8.0, "cached_usd": 0.5, "written_usd": 2.5, "reasoning_usd": 6.0}  # fmt: skip


@pytest.mark.parametrize(
    ("price_list", "model", "cost"),
    [
        ("openai", "gpt-5", 9.5),
        ("openai", "gpt-4o", 10.25),
        ("azure", "gpt-5", 9.5),
        ("azure", "gpt-4.1-batch", 10.25),
        ("anthropic", "claude", 9.5),
        ("google", "gemini", 9.75),
        ("groq", "llama", 10.25),
        ("mistral", "m", 9.5),
        ("together", "Qwen/Qwen2.5-7B-Instruct-Turbo", 9.5),
        ("together", "other", 19.0),
        ("openrouter", "openai/gpt-5", None),
        ("", "m", None),
    ],
)
def test_the_batch_price_of_a_price_in_the_settings(
    price_list: str, model: str, cost: float | None
) -> None:
    """The share of the service applies to each kind of token."""
    price = pricing.Price(**PRICE)
    assert price.in_tier(EACH, find_share(price_list, model, "batch")) == cost
    assert (
        price.in_tier(replace(EACH, service_tier=None), find_share(price_list, model, None)) == 19
    )


def test_a_share_in_the_settings_has_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    """It applies to batch jobs alone."""
    provider = session.provider("echo")
    lm.config.prices = {"echo/echo": PRICE}
    assert pricing.cost_usd(session.config, provider, "echo", EACH) is None
    lm.config.prices = {"echo/echo": {**PRICE, "batch_share": 0.25}}
    assert pricing.cost_usd(session.config, provider, "echo", EACH) == 4.75
    flex = replace(EACH, service_tier="flex")
    assert pricing.cost_usd(session.config, provider, "echo", flex) == 19
    monkeypatch.setattr(OpenAIProvider, "price_list", "openai")
    lm.config.prices = {"openai/m": PRICE}
    assert pricing.cost_usd(session.config, session.provider("openai"), "m", flex) == 9.5


@pytest.mark.parametrize("share", [-0.1, 1.5, "half"])
def test_an_invalid_share(share: Any) -> None:
    """A batch is never dearer than separate calls."""
    with pytest.raises(ConfigurationError):
        lm.config.prices = {"echo/*": {"input_usd": 1, "batch_share": share}}


def test_a_free_model_is_free_in_a_batch() -> None:
    """Whatever its service; and an unknown price stays unknown."""
    assert in_tier(lambda usage: 0.0, EACH, None) == 0.0
    assert in_tier(lambda usage: None, EACH, Share(0.5, 0.5)) is None
    provider = session.provider("echo")
    assert pricing.cost_usd(session.config, provider, "echo", EACH) == 0.0


def test_cached_tokens_are_priced_in_their_own_band() -> None:
    """A long prompt has higher prices, also for the part that was cached."""

    def usual(usage: Usage) -> float:
        factor = 2 if (usage.input_tokens or 0) > 100 else 1
        cached = usage.cached_tokens or 0
        return factor * ((usage.input_tokens or 0) - cached + cached * 0.1)

    assert Share(0.5, 1.0).of(usual, Usage(200, 0, 80)) == pytest.approx(2 * (120 / 2 + 8))
    assert Share(0.5, 1.0).of(usual, Usage(80, 0, 80)) == pytest.approx(8)
    assert Share(0.5, None).of(usual, Usage(80, 0, 80)) == 40


def test_estimates_in_a_tier() -> None:
    """A budget counts the price of batch jobs; a search costs its full fee."""
    provider = session.provider("anthropic")
    parameters = ModelParameters(max_tokens=1000, search=True)

    def cost(**how: Any) -> float:
        estimate = pricing.chat_estimate(
            session.config,
            session.runs,
            provider,
            "claude-sonnet-5-5",
            messages=[],
            parameters=parameters,
            **how,
        )
        assert estimate.cost_usd is not None
        fee = 0.010 * estimate.searches
        return estimate.cost_usd - fee

    assert cost(tier="batch") == pytest.approx(cost() / 2)
    texts = ["some words"] * 10
    openai = session.provider("openai")
    halves = [
        pricing.embedding_estimate(session.config, openai, "text-embedding-3-small", texts, tier=each).cost_usd
        for each in (None, "batch")
    ]  # fmt: skip
    assert halves[0] == pytest.approx(2 * (halves[1] or 0))
