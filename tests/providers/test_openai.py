"""OpenAI and its look-alikes: keys, quirks, refusals, batches."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics import ChatMessage, ModelParameters, ModelResponse, errors
from llm_magics._util.text import batches_in_order
from llm_magics.providers.error_mapping import parse_retry_after
from llm_magics.providers.openai import OpenAIConfig, OpenAIProvider
from llm_magics.providers.openai_errors import map_openai_error
from llm_magics.providers.profiles import profiles
from tests.support.fake_openai import FakeOpenAI, refusal
from tests.support.recorded import events, needs_recordings, records
from tests.support.serving import Asked, Says, as_json, chat_stream, serving

HI = [ChatMessage("user", "hi")]
KEY = "a-key-of-the-test"


def asked_once(url: str, do: Callable[[OpenAIProvider], Any], **settings: Any) -> Any:
    """What ``do`` gives, called with a provider at ``url``."""

    async def use() -> Any:
        config = OpenAIConfig(**{"base_url": url, "api_key": KEY, **settings})
        async with OpenAIProvider(config) as provider:
            return await do(provider)

    return asyncio.run(use())


async def chatted(provider: OpenAIProvider, **parameters: Any) -> ModelResponse:
    """A whole answer of the chat model."""
    answer = await provider.generate_chat(HI, "gpt-test", ModelParameters(**parameters))
    assert isinstance(answer, ModelResponse)
    return answer


def test_the_environment_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key, address, organisation and project; the key in a header only, and never shown."""
    with serving(FakeOpenAI()) as server:
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/")
        monkeypatch.setenv("OPENAI_ORG_ID", "org")
        monkeypatch.setenv("OPENAI_PROJECT_ID", "proj")
        config = OpenAIConfig()
        assert KEY not in repr(config)
        asyncio.run(OpenAIProvider(config).list_models())
    headers = server.asked[0].headers
    assert headers["authorization"] == f"Bearer {KEY}"
    assert (headers["openai-organization"], headers["openai-project"]) == ("org", "proj")


def test_the_organisation_of_the_environment_is_for_openai_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another address learns it only where it was set for this provider."""
    monkeypatch.setenv("OPENAI_ORG_ID", "org")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "proj")
    with serving(FakeOpenAI()) as server:
        for given in ({}, {"organization": "own"}, {"project": "mine"}):
            config = OpenAIConfig(base_url=server.url, api_key=KEY, **given)
            asyncio.run(OpenAIProvider(config).list_models())
    sent = [
        (asked.headers.get("openai-organization"), asked.headers.get("openai-project"))
        for asked in server.asked
    ]
    assert sent == [(None, None), ("own", None), (None, "mine")]
    assert (OpenAIConfig().organization, OpenAIConfig().project) == ("org", "proj")
    assert OpenAIConfig(organization=None).organization is None


def test_without_a_key_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI itself needs one; a server of one's own may not."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    provider = OpenAIProvider()
    assert asyncio.run(provider.initialize()) is False
    for call in (
        provider.list_models(),
        provider.generate_embeddings(["a"], "m"),
        chatted(provider),
    ):
        with pytest.raises(errors.AuthenticationError, match="API key") as caught:
            asyncio.run(call)
        assert "OPENAI_API_KEY" in str(caught.value.hint)
    assert asyncio.run(OpenAIProvider(OpenAIConfig(base_url="http://127.0.0.1:9")).initialize())


def test_a_wrong_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """An AuthenticationError, and an unavailable health that says why."""
    with serving(FakeOpenAI(key="another-key")) as server:

        async def use(provider: OpenAIProvider) -> dict[str, Any]:
            with pytest.raises(errors.AuthenticationError):
                await chatted(provider)
            return await provider.health_check()

        assert "Incorrect API key" in asked_once(server.url, use)["detail"]


def test_a_missing_model_names_the_nearest() -> None:
    """By asking the service what it has."""

    async def use(provider: OpenAIProvider) -> None:
        await provider.generate_chat(HI, "gpt-tset", ModelParameters())

    with serving(FakeOpenAI()) as server, pytest.raises(errors.ModelNotFoundError) as caught:
        asked_once(server.url, use)
    assert caught.value.hint == "Did you mean gpt-test?"


def test_strangers_are_asked_as_strangers() -> None:
    """``max_tokens`` and numbers; OpenAI itself gets its newer names and base64."""
    assert (
        OpenAIProvider(OpenAIConfig(base_url="http://a.example/v1")).profile is profiles()["other"]
    )
    assert (
        OpenAIProvider(OpenAIConfig(base_url="https://api.openai.com/v1/")).profile
        is profiles()["openai"]
    )
    with serving(FakeOpenAI()) as server:
        asked_once(server.url, lambda provider: chatted(provider, max_tokens=3))
        asked_once(server.url, lambda p: p.generate_embeddings(["a"], "text-embedding-test"))
    sent = [asked.json() for asked in server.asked if asked.body]
    assert sent[0]["max_tokens"] == 3
    assert sent[1]["encoding_format"] == "float"


def test_a_parameter_that_a_model_refuses_is_left_out_and_told_of() -> None:
    """Once; the next call leaves it out from the start, and no other model suffers."""
    with serving(FakeOpenAI("temperature")) as server:

        async def use(provider: OpenAIProvider) -> None:
            with pytest.warns(UserWarning, match="temperature"):
                await chatted(provider, temperature=0.5)
            await chatted(provider, temperature=0.5)

        asked_once(server.url, use)
    sent = ["temperature" in asked.json() for asked in server.asked if "chat" in asked.path]
    assert sent == [True, False, False]


def test_the_longest_answer_goes_by_either_name() -> None:
    """A model that refuses one is asked by the other; of one that takes neither one is told."""
    with serving(FakeOpenAI("max_tokens")) as server:
        assert asked_once(server.url, lambda p: chatted(p, max_tokens=3)).finish_reason == "length"
    refusing = FakeOpenAI("max_tokens", "max_completion_tokens")
    with serving(refusing) as server, pytest.warns(UserWarning, match="omitted"):
        assert asked_once(server.url, lambda p: chatted(p, max_tokens=3)).finish_reason == "stop"
    assert len([asked for asked in server.asked if "chat" in asked.path]) == 3


def test_a_server_that_knows_no_stream_options() -> None:
    """Some refuse the wish for usage: asked again without, it answers."""

    def answers(asked: Asked) -> Says:
        if b"stream_options" in asked.body:
            return as_json({"detail": "Extra inputs are not permitted: stream_options"}, 422)
        return Says(chat_stream("ok"))

    with serving(answers) as server:
        assert asked_once(server.url, chatted).text == "ok"


@pytest.mark.parametrize(
    ("says", "expected", "retryable"),
    [
        (refusal("insufficient_quota", "You exceeded your current quota.", 429), errors.RateLimitError, False),
        (refusal("rate_limit_exceeded", "Slow down.", 429), errors.RateLimitError, True),
        (refusal("context_length_exceeded", "Too long.", 400), errors.ContextLengthError, False),
        (refusal("content_policy_violation", "No.", 400), errors.ContentFilterError, False),
        (refusal("model_not_found", "The requested model 'x' does not exist.", 400), errors.ModelNotFoundError, False),
        (refusal(None, "Web search options not supported.", 400), errors.ProviderError, False),
        (as_json({"error": {"message": "overloaded"}}, 503), errors.ProviderError, True),
    ],
)  # fmt: skip
def test_refusals_have_their_class(
    says: Says, expected: type[errors.ProviderError], retryable: bool
) -> None:
    """By the code first; a spent account is never asked again."""
    with serving(says) as server, pytest.raises(expected) as caught:
        asked_once(server.url, chatted)
    assert type(caught.value) is expected
    assert caught.value.retryable is retryable


@needs_recordings
def test_every_recorded_refusal_is_told() -> None:
    """Whatever its shape: a message, and a class that fits what went wrong."""
    found = [
        record
        for record in records(
            "openai_chat", "openai_responses", "openai_embeddings", "openai_images"
        )
        if record["status"] >= 400 and record["kind"] == "json"
    ]
    assert len(found) > 20
    for record in found:
        body = json.loads(record["body"])
        error = map_openai_error(body, record["status"], "openai", "m", record["headers"])
        assert str(error) != f"openai/m: status {record['status']}."
        if "does not exist" in record["body"]:
            assert isinstance(error, errors.ModelNotFoundError)
        if record["status"] == 401:
            assert isinstance(error, errors.AuthenticationError)


@needs_recordings
def test_recorded_streams_come_through_the_whole_provider() -> None:
    """The first streams of each host, served as they were, give the text that was recorded."""
    seen: dict[str, int] = {}
    for record in records("openai_chat", "openai_responses"):
        seen[record["host"]] = seen.get(record["host"], 0) + (record["kind"] == "sse")
        if record["kind"] != "sse" or record["status"] != 200 or seen[record["host"]] > 4:
            continue
        told = events(record["body"])
        if any(event.get("error") for event in told):
            continue
        api = "responses" if "responses" in record["endpoint"] else "chat"
        deltas = [
            choice.get("delta", {}).get("content")
            for e in told
            for choice in e.get("choices") or []
        ] + [e["delta"] for e in told if e.get("type") == "response.output_text.delta"]
        if any(isinstance(delta, list) for delta in deltas):
            continue
        with serving(Says([record["body"].encode()])) as server:
            answer = asked_once(server.url, chatted, api=api)
        assert answer.text == "".join(delta or "" for delta in deltas), record["path"]
    assert len(seen) >= 8


@given(st.lists(st.text(min_size=1, max_size=2000), max_size=200))
def test_batches_keep_all_texts_in_order(texts: list[str]) -> None:
    """Nothing lost, nothing moved, none over the service's bounds."""
    made = list(batches_in_order(texts * 3))
    assert [text for batch in made for text in batch] == texts * 3
    assert all(0 < len(batch) <= 2048 for batch in made)


def test_many_texts_go_in_portions() -> None:
    """More than the service takes at once: several requests, one list of vectors."""
    texts = [f"text {n}" for n in range(2100)]
    with serving(FakeOpenAI()) as server:
        vectors = asked_once(
            server.url, lambda p: p.generate_embeddings(texts, "text-embedding-test")
        )
    assert len(vectors) == 2100
    assert vectors.usage.input_tokens == 2100
    assert [len(asked.json()["input"]) for asked in server.asked if asked.body] == [2048, 52]


NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": format_datetime(NOW + timedelta(seconds=30), usegmt=True)}, 30.0),
        ({"retry-after": format_datetime(NOW - timedelta(seconds=30), usegmt=True)}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "inf"}, None),
        ({}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s"}, 1.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-tokens": "9", "x-ratelimit-reset-tokens": "6m0s"}, None),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "7.66s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "1m2s",
            },
            62.0,
        ),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "10"}, 10.0),
        (
            {
                "x-ratelimit-remaining": "0",
                "x-ratelimit-reset": f"{(NOW + timedelta(seconds=30)).timestamp() * 1000:.0f}",
            },
            30.0,
        ),
        (
            {
                "retry-after": "3",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "60s",
            },
            3.0,
        ),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "soon"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s!"}, None),
        ({"x-ratelimit-reset-requests": "1s"}, None),
    ],
)
def test_how_long_to_wait(headers: dict[str, str], expected: float | None) -> None:
    """Milliseconds, seconds, a date, or the reset of a used-up limit; nonsense is nothing."""
    assert parse_retry_after(headers, NOW) == expected


@given(st.text())
def test_no_header_breaks_the_clock(value: str) -> None:
    """Servers may send what they like."""
    used_up = {"x-ratelimit-remaining": "0", "x-ratelimit-reset": value}
    for headers in ({"retry-after": value}, {"retry-after-ms": value}, used_up):
        waited = parse_retry_after(headers, NOW)
        assert waited is None or waited >= 0
