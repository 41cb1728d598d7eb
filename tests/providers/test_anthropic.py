"""Anthropic: its header, its pages, its thinking, its cache, and its streams."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics import ChatMessage, ModelParameters, ModelResponse, errors
from llm_magics.attachments import Image
from llm_magics.parameters import Tool
from llm_magics.providers.anthropic import AnthropicConfig, AnthropicProvider
from llm_magics.types import ToolCall, Usage
from llm_magics.wire.anthropic_answers import ChunkDecoder
from llm_magics.wire.anthropic_messages import build_messages_request
from tests.support.fake_anthropic import CHAT, MODELS, FakeAnthropic, event, signature, wrong_turns
from tests.support.recorded import events, needs_recordings, records
from tests.support.serving import Says, serving

HI = [ChatMessage("user", "hi")]
KEY = "a-key-of-the-test"


def used(url: str, do: Callable[[AnthropicProvider], Any], **settings: Any) -> Any:
    """What ``do`` gives, called with a provider at ``url``."""

    async def use() -> Any:
        config = AnthropicConfig(**{"base_url": url, "api_key": KEY, **settings})
        async with AnthropicProvider(config) as provider:
            return await do(provider)

    return asyncio.run(use())


async def chatted(provider: AnthropicProvider, **parameters: Any) -> ModelResponse:
    """A whole answer."""
    answer = await provider.generate_chat(HI, CHAT, ModelParameters(**parameters))
    assert isinstance(answer, ModelResponse)
    return answer


def test_the_environment_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Key and address, with or without /v1; the key in its own header, and never shown."""
    with serving(FakeAnthropic()) as server:
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", f"{server.url}/v1/")
        config = AnthropicConfig()
        assert KEY not in repr(config)
        asyncio.run(AnthropicProvider(config).list_models())
    headers = server.asked[0].headers
    assert headers["x-api-key"] == KEY
    assert headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in headers
    assert KEY not in server.asked[0].path


def test_without_a_key_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the variable."""
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    monkeypatch.delenv("ANTHROPIC_BASE_URL", raising=False)
    provider = AnthropicProvider()
    assert asyncio.run(provider.initialize()) is False
    with pytest.raises(errors.AuthenticationError, match="API key") as caught:
        asyncio.run(chatted(provider))
    assert "ANTHROPIC_API_KEY" in str(caught.value.hint)


def test_the_list_is_read_to_its_last_page() -> None:
    """However short the pages are."""
    with serving(FakeAnthropic(page=2)) as server:
        assert used(server.url, lambda provider: provider.list_models()) == MODELS
        assert len(server.asked) == 3


def test_tokens_are_counted_without_asking_for_an_answer() -> None:
    """By the service, tools included, and without the fields that it refuses there."""
    with serving(FakeAnthropic()) as server:
        count = used(server.url, lambda p: p.count_tokens(HI, f"anthropic/{CHAT}"))
    assert count > 0


def test_usage_counts_what_was_read_from_the_cache() -> None:
    """The service leaves it out of input_tokens; a bill does not."""
    with serving(FakeAnthropic()) as server:
        answer = used(server.url, lambda provider: chatted(provider, max_tokens=5))
    assert answer.usage == Usage(10, 5, 3)
    assert answer.finish_reason == "length"


def test_prompts_are_cached_where_wanted() -> None:
    """Marks on the system message and the last turn; none unless asked for."""
    talk = [ChatMessage("system", "be brief"), *HI]

    async def ask(provider: AnthropicProvider) -> None:
        await provider.generate_chat(talk, CHAT, ModelParameters())

    with serving(FakeAnthropic()) as server:
        used(server.url, ask)
        used(server.url, ask, cache_prompts=True)
    assert b"cache_control" not in server.asked[0].body
    assert server.asked[1].body.count(b"ephemeral") == 2


def test_thinking_has_room_and_its_own_temperature() -> None:
    """The bound is raised by the budget, and a temperature that would be refused is not sent."""
    fake = FakeAnthropic()
    with serving(lambda asked: replace(fake(asked), gap_s=0)) as server:
        used(server.url, lambda p: chatted(p, reasoning="low", max_tokens=100, temperature=0.2))
    body = server.asked[0].json()
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 1024}
    assert body["max_tokens"] == 1124
    assert "temperature" not in body


def test_newer_models_think_as_they_like() -> None:
    """One that refuses a budget is asked by effort, once and for all, and without a warning."""
    with serving(FakeAnthropic("thinking")) as server:

        async def twice(provider: AnthropicProvider) -> None:
            await chatted(provider, reasoning="high")
            await chatted(provider, reasoning="high")

        used(server.url, twice)
    bodies = [asked.json() for asked in server.asked]
    assert [body["thinking"]["type"] for body in bodies] == ["enabled", "adaptive", "adaptive"]
    assert bodies[1]["output_config"] == {"effort": "high"}


def test_a_parameter_that_a_model_refuses_is_left_out_and_told_of() -> None:
    """The newest models take no temperature."""
    with serving(FakeAnthropic("temperature")) as server:

        async def twice(provider: AnthropicProvider) -> None:
            with pytest.warns(UserWarning, match="temperature"):
                await chatted(provider, temperature=0.5)
            await chatted(provider, temperature=0.5)

        used(server.url, twice)
    assert ["temperature" in asked.json() for asked in server.asked] == [True, False, False]


def test_the_newer_interface_takes_no_temperature() -> None:
    """By its own words for it; the older one, which takes it, is asked unless one says otherwise."""
    with serving(FakeAnthropic()) as server:
        used(server.url, lambda p: chatted(p, temperature=0.5))
        with pytest.warns(UserWarning, match="temperature"):
            used(server.url, lambda p: chatted(p, temperature=0.5), api_version="2026-10-21")
    assert ["temperature" in asked.json() for asked in server.asked] == [True, True, False]
    versions = [asked.headers["anthropic-version"] for asked in server.asked]
    assert versions == ["2023-06-01", "2026-10-21", "2026-10-21"]


def test_thinking_tools_and_pictures_go_there_and_back() -> None:
    """What the service wants back with an answer is sent back as it was."""
    block = {"type": "thinking", "thinking": "hm", "signature": "c2ln"}
    stream = [
        event("message_start", message={"usage": {"input_tokens": 1}}),
        event("content_block_start", index=0, content_block={"type": "thinking", "thinking": ""}),
        event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": "hm"}),
        event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "c2ln"}),
        event("content_block_stop", index=0),
        *tool_use(1, "t1", "weather", ['{"city": ', '"Paris"}']),
        *tool_use(2, "t2", "time", [""]),
        event("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 9}),
        event("message_stop"),
    ]  # fmt: skip
    tool = Tool("weather", "how it is", {"type": "object", "properties": {}})
    with serving(Says(stream)) as server:

        async def turns(provider: AnthropicProvider) -> ModelResponse:
            asked = ChatMessage("user", "look", images=(Image(b"\x89PNG\r\n\x1a\n1"),))
            parameters = ModelParameters(tools=(tool,))
            answer = await provider.generate_chat([asked], CHAT, parameters)
            assert isinstance(answer, ModelResponse)
            said = ChatMessage(
                "assistant",
                answer.text,
                tool_calls=answer.tool_calls,
                reasoning_blocks=answer.reasoning_blocks,
            )
            results = [ChatMessage("tool", "ok", tool_call_id=c.id) for c in answer.tool_calls]
            await provider.generate_chat([asked, said, *results], CHAT, parameters)
            return answer

        answer = used(server.url, turns)
    assert [(c.id, c.name, c.arguments) for c in answer.tool_calls] == [
        ("t1", "weather", {"city": "Paris"}),
        ("t2", "time", {}),
    ]
    assert (answer.reasoning, answer.text) == ("hm", "")
    assert answer.finish_reason == "tool_calls"
    _, said, results = server.asked[1].json()["messages"]
    assert said["content"][0] == block
    assert [each["type"] for each in said["content"]] == ["thinking", "tool_use", "tool_use"]
    assert [each["tool_use_id"] for each in results["content"]] == ["t1", "t2"]


def tool_use(index: int, call: str, name: str, pieces: list[str]) -> list[bytes]:
    """A tool call as it is streamed."""
    block = {"type": "tool_use", "id": call, "name": name, "input": {}}
    deltas = [
        event(
            "content_block_delta",
            index=index,
            delta={"type": "input_json_delta", "partial_json": piece},
        )
        for piece in pieces
    ]
    return [
        event("content_block_start", index=index, content_block=block),
        *deltas,
        event("content_block_stop", index=index),
    ]


def test_oddities_of_the_stream() -> None:
    """Pings anywhere, unknown events and blocks, a second message_start, restated usage."""
    start = event("message_start", message={"usage": {"input_tokens": 43, "output_tokens": 1}})
    stream = [
        start,
        event("ping"),
        start,
        event("something_new", data=[1]),
        event("content_block_start", index=0, content_block={"type": "server_tool_use", "id": "s"}),
        event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": "{}"}),
        event("content_block_stop", index=0),
        event("content_block_start", index=1, content_block={"type": "text", "text": ""}),
        event("content_block_delta", index=1, delta={"type": "citations_delta", "citation": {}}),
        event("content_block_delta", index=1, delta={"type": "text_delta", "text": "a"}),
        event("ping"),
        event("content_block_delta", index=1, delta={"type": "text_delta", "text": "b"}),
        event("content_block_stop", index=1),
        event("message_delta", delta={"stop_reason": "pause_turn"}, usage={"input_tokens": 61, "output_tokens": 2}),
        event("message_stop"),
    ]  # fmt: skip
    with serving(Says(stream)) as server:
        answer = used(server.url, chatted)
    assert (answer.text, answer.finish_reason) == ("ab", "pause_turn")
    assert answer.usage == Usage(61, 2, 0)


@pytest.mark.parametrize(
    ("kind", "made", "retryable"),
    [
        ("overloaded_error", errors.RateLimitError, True),
        ("rate_limit_error", errors.RateLimitError, True),
        ("api_error", errors.ProviderError, True),
        ("timeout_error", errors.ProviderError, True),
        ("invalid_request_error", errors.ProviderError, False),
        ("billing_error", errors.RateLimitError, False),
    ],
)
def test_an_error_inside_the_stream(
    kind: str, made: type[errors.ProviderError], retryable: bool
) -> None:
    """By its type; after the first words it interrupts the answer, with what came."""
    failure = event("error", error={"type": kind, "message": "Sorry"})
    with serving(Says([failure])) as server, pytest.raises(made, match="Sorry") as caught:
        used(server.url, chatted)
    assert type(caught.value) is made
    assert caught.value.retryable is retryable
    begun = event("content_block_delta", index=0, delta={"type": "text_delta", "text": "half"})
    with (
        serving(Says([begun, failure])) as server,
        pytest.raises(errors.StreamInterrupted, match="Sorry") as late,
    ):
        used(server.url, chatted)
    assert late.value.partial.text == "half"


@needs_recordings
def test_recorded_streams_come_through_the_whole_provider() -> None:
    """A dozen recorded streams, served as they were, give the text that was recorded."""
    found = [r for r in records("anthropic_messages") if r["kind"] == "sse" and r["status"] == 200]
    assert len(found) > 12
    for record in found[:12]:
        told = events(record["body"])
        deltas = [e["delta"] for e in told if e["type"] == "content_block_delta"]
        with serving(Says([record["body"].encode()])) as server:
            answer = used(server.url, chatted)
        assert answer.text == "".join(d["text"] for d in deltas if d["type"] == "text_delta")


@needs_recordings
def test_every_recorded_refusal_is_told() -> None:
    """In Anthropic's shape: a message, a class, a request id."""
    found = [
        r for r in records("anthropic_messages") if r["status"] >= 400 and r["kind"] == "json"
    ]
    assert found
    for record in found:
        error = AnthropicProvider(AnthropicConfig(api_key=None))._refused(
            json.loads(record["body"]), record["status"], record["headers"], "m"
        )
        assert str(error) != f"anthropic/m: status {record['status']}."
        if record["status"] == 404:
            assert isinstance(error, errors.ModelNotFoundError)


BLANK = ["", " ", "\n\t "]


@pytest.mark.parametrize("blank", BLANK)
def test_blank_turns_are_left_out(blank: str) -> None:
    """Of assistant, user and system; calls keep no blank text, and roles stay in turn."""
    call = ToolCall("t1", "f", "{}")
    thought = {"type": "thinking", "thinking": "hm", "signature": signature("hm")}

    def said(role: Any, text: str, **more: Any) -> ChatMessage:
        return ChatMessage(role, text, **more)

    talks = [
        [said("user", "a"), said("assistant", blank), said("user", "b")],
        [said("system", blank), said("user", "a"), said("assistant", f"b{blank}")],
        [said("user", "a"), said("user", blank), said("assistant", "b"), said("user", "c")],
        [said("user", blank), said("assistant", "a"), said("user", "b")],
        [said("user", "a"), said("assistant", blank, reasoning_blocks=(thought,)), said("user", "b")],
        [said("user", "a"), said("assistant", blank, tool_calls=(call,)), said("tool", blank, tool_call_id="t1")],
        [said("user", "a"), said("assistant", blank, tool_calls=(call,)), said("tool", "x", tool_call_id="t1"), said("user", "c")],
    ]  # fmt: skip
    with serving(FakeAnthropic()) as server:
        for talk in talks:
            used(server.url, lambda p, talk=talk: p.generate_chat(talk, CHAT, ModelParameters()))
        bodies = [asked.json() for asked in server.asked]
    assert len(bodies) == len(talks)
    assert [[turn["role"] for turn in body["messages"]] for body in bodies] == [
        ["user"],
        ["user", "assistant"],
        ["user", "assistant", "user"],
        ["user", "assistant", "user"],
        ["user"],
        ["user", "assistant", "user"],
        ["user", "assistant", "user"],
    ]
    assert all("system" not in body for body in bodies)
    assert [block["type"] for block in bodies[6]["messages"][1]["content"]] == ["tool_use"]
    assert [block["type"] for block in bodies[6]["messages"][2]["content"]] == [
        "tool_result",
        "text",
    ]


TEXTS = st.sampled_from(["", " ", "a", "b \n"])
TALK = st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), TEXTS), max_size=8)


@given(TALK)
def test_every_conversation_has_a_form_that_is_taken(talk: list[tuple[Any, str]]) -> None:
    """Whatever is blank in it, the turns are such as the service takes."""
    messages = [ChatMessage(role, text) for role, text in [*talk, ("user", "x")]]
    body = build_messages_request(messages, CHAT, ModelParameters())
    assert wrong_turns(body["messages"]) is None
    roles = [turn["role"] for turn in body["messages"]]
    assert all(one != other for one, other in pairwise(roles))
    kept = "".join(text for role, text in talk if role != "system" and text.strip())
    sent = "".join(b["text"] for turn in body["messages"] for b in turn["content"])
    assert sent.removeprefix("(blank)") == f"{kept}x"


def test_results_stand_first_in_their_turn() -> None:
    """Also where the user wrote something before they were there."""
    call = ToolCall("c1", "weather", "{}")
    body = build_messages_request(
        [
            ChatMessage("user", "look"),
            ChatMessage("assistant", "", tool_calls=(call,)),
            ChatMessage("user", "by the way"),
            ChatMessage("tool", "sunny", tool_call_id="c1"),
        ],
        "m",
        ModelParameters(),
    )
    assert [block["type"] for block in body["messages"][-1]["content"]] == ["tool_result", "text"]


def test_a_signature_in_pieces_goes_back_whole() -> None:
    """Of thinking that is streamed, and of the thinking itself."""
    delta = "content_block_delta"
    events = [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "signature": ""}},
        {"type": delta, "index": 0, "delta": {"type": "thinking_delta", "thinking": "h"}},
        {"type": delta, "index": 0, "delta": {"type": "thinking_delta", "thinking": "m"}},
        {"type": delta, "index": 0, "delta": {"type": "signature_delta", "signature": "ab"}},
        {"type": delta, "index": 0, "delta": {"type": "signature_delta", "signature": "cd"}},
        {"type": "content_block_stop", "index": 0},
    ]  # fmt: skip
    decoder = ChunkDecoder()
    data = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in events)
    blocks = [block for chunk in decoder.feed(data, 0.0) for block in chunk.reasoning_blocks]
    assert [dict(block) for block in blocks] == [{"type": "thinking", "thinking": "hm", "signature": "abcd"}]  # fmt: skip
