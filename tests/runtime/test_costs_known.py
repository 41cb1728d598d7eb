"""Unknown costs are never nothing; the tier of an answer and the schema of a prompt decide prices."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_magics as lm
from llm_magics.errors import AuthenticationError, BudgetError, LLMError
from llm_magics.parameters import ModelParameters
from llm_magics.providers.openai import OpenAIProvider
from llm_magics.runtime import pricing
from llm_magics.runtime.pricing import PriceSource
from llm_magics.runtime.session import session
from llm_magics.types import Usage
from llm_magics.wire import anthropic_answers, openai_chat, openai_responses
from tests.support.serving import Says, as_json, serving

MILLION = Usage(1_000_000, 1_000_000)
OPENAI = PriceSource("openai")


def in_tier(tier: str | None) -> Usage:
    """A million tokens read and written in a tier."""
    return Usage(1_000_000, 1_000_000, service_tier=tier)


@pytest.mark.parametrize("tier", [None, "default", "auto", "on_demand", "standard"])
def test_usual_tiers_have_the_usual_price(tier: str | None) -> None:
    """Whatever a service calls them."""
    usual = pricing.listed_cost_usd(OPENAI, "gpt-5", MILLION)
    assert usual == pricing.listed_cost_usd(OPENAI, "gpt-5", in_tier(tier)) == 11.25


def test_flex_is_half_the_price_and_priority_more() -> None:
    """Also of a model that the list has no price of that tier for, where one rule holds for all."""
    assert pricing.listed_cost_usd(OPENAI, "gpt-5", in_tier("flex")) == 5.625
    assert pricing.listed_cost_usd(OPENAI, "gpt-5", in_tier("priority")) == 22.5
    assert pricing.listed_cost_usd(OPENAI, "gpt-4.1", in_tier("flex")) == 5.0


@pytest.mark.parametrize("tier", ["scale", "provisioned", "nonsense"])
def test_an_unknown_tier_has_an_unknown_price(tier: str) -> None:
    """The list would give the usual one."""
    assert pricing.listed_cost_usd(OPENAI, "gpt-5", in_tier(tier)) is None


def chat_event(**more: Any) -> dict[str, Any]:
    """The last event of a chat."""
    usage = {"prompt_tokens": 10, "completion_tokens": 5}
    choice = {"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}
    return {"choices": [choice], "usage": usage, **more}


def test_the_tier_is_read_in_every_format() -> None:
    """Of whole and streamed answers; what is no text is no tier."""
    whole = openai_chat.ChunkDecoder().decode_body(chat_event(service_tier="flex"), 0.1)
    assert whole[0].usage is not None
    assert whole[0].usage.service_tier == "flex"
    assert Usage(1, 1, service_tier={"a": 1}).service_tier is None  # type: ignore[arg-type]
    used = openai_responses.parse_usage({"input_tokens": 1, "output_tokens": 1}, "priority")
    assert used.service_tier == "priority"
    body = {
        "content": [{"type": "text", "text": "hi"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 1, "output_tokens": 1, "service_tier": "priority"},
    }
    answer = anthropic_answers.ChunkDecoder().decode_body(body, 0.1)
    assert [chunk.usage.service_tier for chunk in answer if chunk.usage] == ["priority"]


def test_a_tier_in_an_earlier_event_counts() -> None:
    """Some services name it in the first event, and the tokens in the last."""
    decoder = openai_chat.ChunkDecoder()
    first = (
        'data: {"service_tier": "flex", "choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'
    )
    last = 'data: {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}\n\n'
    chunks = [*decoder.feed(first.encode(), 0.1), *decoder.feed(last.encode(), 0.2)]
    assert [chunk.usage.service_tier for chunk in chunks if chunk.usage] == ["flex"]


@pytest.mark.parametrize(("tier", "share"), [("default", 1.0), ("flex", 0.5), ("scale", None)])
def test_an_answer_is_billed_by_its_tier(
    tier: str, share: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the service's answer to the cost of the response."""
    monkeypatch.setattr(OpenAIProvider, "price_list", "openai")
    with serving(as_json(chat_event(service_tier=tier))) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        answer = lm.ask("hi", "lab/gpt-5")
    assert answer.usage == Usage(10, 5, service_tier=tier)
    usual = (10 * 1.25 + 5 * 10) / 1e6
    assert answer.cost_usd == (None if share is None else pytest.approx(usual * share))


def test_the_usage_shows_what_is_known_of_it() -> None:
    """And not a row of what is not."""
    assert repr(Usage(1, 2)) == "Usage(input_tokens=1, output_tokens=2)"
    assert repr(Usage(1, 2, service_tier="flex")).endswith(", service_tier='flex')")


@pytest.fixture
def failing() -> Any:
    """A service whose requests all fail, and that no price is known of."""
    with serving(Says([b'{"error": {"message": "no"}}'], 400, "application/json")) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        yield server


def test_failures_of_a_model_without_a_price_cost_an_unknown_sum(failing: Any) -> None:
    """In runs, in summaries of comparisons and in the picture of quality against cost."""
    with pytest.raises(LLMError):
        lm.ask("hi", "lab/m")
    assert math.isnan(lm.runs()["cost_usd"].iloc[-1])
    runs = lm.compare(["a", "b"], ["lab/m", "echo/echo"], expected=["a", "b"], score="exact")
    cost = runs.summary()["cost_usd"]
    assert math.isnan(cost["lab/m"])
    assert cost["echo/echo"] == 0
    told = runs.differences("cost_usd")
    assert told["n"].tolist() == [0]
    assert "better" not in told["verdict"].iloc[0]


def test_failures_of_a_model_with_a_price_cost_nothing(failing: Any) -> None:
    """Nobody bills a refusal."""
    lm.config.prices = {"lab/*": {"input_usd": 1.0, "output_usd": 2.0}}
    with pytest.raises(LLMError):
        lm.ask("hi", "lab/m")
    assert lm.runs()["cost_usd"].iloc[-1] == 0.0
    with pytest.raises(LLMError):
        lm.embed(["a"], "lab/e")
    assert lm.runs()["cost_usd"].iloc[-1] == 0.0


def test_embeddings_that_fail_have_no_known_cost(failing: Any) -> None:
    """Where no price is known."""
    with pytest.raises(LLMError):
        lm.embed(["a"], "lab/e")
    assert math.isnan(lm.runs()["cost_usd"].iloc[-1])


def test_a_sum_with_an_unknown_part_is_unknown() -> None:
    """One call of several without a cost makes the sum of a summary unknown."""
    runs = lm.compare(["a", "b"], ["echo/echo", "echo/lorem"])
    runs.loc[runs["asked"] == "echo/echo", "cost_usd"] = [1.0, math.nan]
    cost = runs.summary()["cost_usd"]
    assert math.isnan(cost["echo/echo"])
    assert cost["echo/lorem"] == 0


def test_the_estimate_of_labels_is_that_of_a_label() -> None:
    """Not of a thousand tokens a row."""
    lm.config.prices = {"echo/*": {"input_usd": 1.0, "output_usd": 1.0}}
    frame = pd.DataFrame({"text": ["good", "bad", "fine"]})
    labels = ["positive", "negative"]
    told = frame.llm.classify("text", labels, model="echo/echo", dry_run=True)
    assert told.prompts == 3
    assert told.output_tokens <= 3 * 25
    told = frame.llm.extract("text", "name, age int", model="echo/echo", dry_run=True)
    assert told.output_tokens <= 3 * 200
    free = frame.llm.prompt("About {{ text }}", model="echo/echo", dry_run=True)
    assert free.output_tokens >= 3 * 1000


@pytest.mark.parametrize(
    ("schema", "most"),
    [
        ({"enum": ["a", "positively"]}, 4),
        ({"type": "boolean"}, 2),
        ({"type": ["integer", "null"]}, 8),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"const": "xyz"}}}, 2),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 2}, 20),
        ({"type": "string", "maxLength": 5}, 5),
        ({"type": "object", "properties": {"a": {"type": "boolean"}}}, 7),
        ({"anyOf": [{"type": "null"}, {"type": "string"}]}, 120),
        ({"type": "object"}, None),
        ({}, None),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}, None),
    ],
)
def test_the_most_tokens_of_a_schema(schema: dict[str, Any], most: int | None) -> None:
    """What may be anything has no bound."""
    assert pricing.schema_tokens(schema) == most


@given(st.recursive(st.none() | st.booleans() | st.text(max_size=4) | st.integers(), lambda each: st.lists(each, max_size=3) | st.dictionaries(st.sampled_from(["type", "enum", "anyOf", "properties", "items", "$ref", "allOf", "const"]), each, max_size=3), max_leaves=8))  # fmt: skip
def test_any_schema_has_a_bound_or_none(schema: Any) -> None:
    """However wrong it is."""
    if isinstance(schema, dict):
        most = pricing.schema_tokens(schema)
        assert most is None or most >= 0


def test_a_limit_that_the_user_set_counts_where_it_is_lower() -> None:
    """And the thinking of a model that thinks is added."""
    provider = session.provider("echo")
    schema = {"type": "string"}

    def written(**how: Any) -> int:
        parameters = ModelParameters(schema=schema, **how)
        return pricing.chat_estimate(
            session.config, session.runs, provider, "echo", messages=[], parameters=parameters
        ).output_tokens

    assert written() == 120
    assert written(max_tokens=7) == 7
    assert written(reasoning="high") == 1120
    assert written(extra_body={"n": 3}) == 360


@pytest.mark.parametrize(("tier", "share"), [("auto", 1.0), ("flex", 0.5), ("scale", None)])
def test_an_estimate_is_of_the_tier_that_is_asked_for(
    tier: str, share: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A budget is kept by the price of that tier; where it is not known, nothing is sent."""
    monkeypatch.setattr(OpenAIProvider, "price_list", "openai")
    with serving(as_json(chat_event())) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        frame = pd.DataFrame({"text": ["good", "bad"]})
        usual = frame.llm.prompt("{{ text }}", model="lab/gpt-5", dry_run=True).cost_usd
        told = frame.llm.prompt("{{ text }}", model="lab/gpt-5", dry_run=True, service_tier=tier)
        assert usual > 0
        assert told.cost_usd == (None if share is None else pytest.approx(usual * share))
        if share is None:
            lm.config.budget = 1
            with pytest.raises(BudgetError, match="is unknown"):
                lm.ask("hi", "lab/gpt-5", service_tier=tier)
        assert not server.asked


def test_the_estimate_of_a_route_with_an_unknown_price_is_unknown() -> None:
    """A free model before it does not make it free."""
    with serving(as_json(chat_event())) as server:
        lm.config.providers = {"lab": {"type": "openai", "base_url": server.url, "api_key": "k"}}
        lm.config.routes = {"both": ["echo/echo", "lab/m"]}
        frame = pd.DataFrame({"text": ["good"]})
        told = frame.llm.prompt("{{ text }}", model="both", dry_run=True)
        assert told.cost_usd is None
        told = frame.llm.prompt("{{ text }}", model="echo/echo", dry_run=True)
        assert told.cost_usd == 0


@pytest.mark.parametrize("reasoning", [None, False, True, "low", "high"])
@pytest.mark.parametrize("max_tokens", [100, 30_000])
@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("anthropic", "claude-sonnet-4-5"),
        ("gemini", "gemini-2.5-flash"),
        ("gemini", "gemini-2.5-flash-lite"),
        ("gemini", "gemini-3-flash"),
    ],
)
def test_the_estimate_counts_the_limit_that_is_sent(
    kind: str, model: str, max_tokens: int, reasoning: Any
) -> None:
    """A budget for thinking that is added to the limit of an answer may be used, and is paid."""
    parameters = ModelParameters(max_tokens=max_tokens, reasoning=reasoning)
    with serving(as_json({"error": {"message": "no"}}, 401)) as server:
        lm.config.retries = 0
        lm.config.providers = {"lab": {"type": kind, "base_url": server.url, "api_key": "k"}}
        with pytest.raises(AuthenticationError):
            lm.ask("hi", model=f"lab/{model}", max_tokens=max_tokens, reasoning=reasoning)
        body = [asked.json() for asked in server.asked if asked.body][-1]
    sent = (
        body["max_tokens"] if kind == "anthropic" else body["generationConfig"]["maxOutputTokens"]
    )
    estimate = pricing.chat_estimate(
        session.config,
        session.runs,
        session.provider("lab"),
        model,
        messages=[],
        parameters=parameters,
    )
    assert estimate.output_tokens == sent
    if reasoning == "high" and max_tokens == 100 and "2.5" in model:
        assert sent == 24_676
