"""Every recorded answer through its codec, cut anew, against a plain reading of it."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest

from llm_magics import ChatMessage, ModelParameters, ModelResponse
from llm_magics.attachments import Image
from llm_magics.errors import ConfigurationError, ParseError
from llm_magics.parameters import Tool
from llm_magics.types import ToolCall, Usage
from llm_magics.wire import (
    anthropic_answers,
    anthropic_messages,
    ollama,
    openai_chat,
    openai_responses,
)
from llm_magics.wire.decoders import InStreamError
from llm_magics.wire.openai_media import parse_embeddings
from llm_magics.wire.tool_calls import ToolCallAssembler
from tests.support.recorded import events, needs_recordings
from tests.support.wire_answers import PNG, good, holds_error


def pieces_of(body: str, seed: int) -> list[bytes]:
    """``body`` cut at random, often to single bytes."""
    draw = random.Random(seed)
    data, pieces = body.encode(), []
    while data:
        size = draw.choice([1, 1, 2, 7, 60, 900])
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def answer(codec: Any, record: dict[str, Any], seed: int) -> ModelResponse:
    """What the codec makes of a recorded answer; it must know that it is whole."""
    decoder = codec.ChunkDecoder()
    if record["kind"] == "json":
        chunks = decoder.decode_body(json.loads(record["body"]), 1.0)
    else:
        chunks = [c for p in pieces_of(record["body"], seed) for c in decoder.feed(p, 1.0)]
        chunks += decoder.flush(1.0)
    assert decoder.finished
    return ModelResponse.of(chunks)


def ids(record: dict[str, Any]) -> str:
    """A name for a record: where it was recorded."""
    return record.get("name") or f"{record['host']} {record['kind']}"


def plain_chat(record: dict[str, Any]) -> tuple[str, set[str]]:
    """The text and the names of the tools called, read plainly."""
    text, names = "", set()
    bodies = [json.loads(record["body"])] if record["kind"] == "json" else events(record["body"])
    for body in bodies:
        for choice in body.get("choices") or []:
            if choice.get("index"):
                continue
            delta = choice.get("delta") or choice.get("message") or choice
            content = delta.get("content") or delta.get("text") or delta.get("refusal") or ""
            if isinstance(content, list):
                content = "".join(p["text"] for p in content if p["type"] == "text")
            text += content
            for call in delta.get("tool_calls") or []:
                names |= {call.get("function", {}).get("name") or ""} - {""}
            names |= {(delta.get("function_call") or {}).get("name") or ""} - {""}
    return text, names


@needs_recordings
@pytest.mark.parametrize("seed", range(2))
def test_every_recorded_chat(seed: int) -> None:
    """OpenAI and nine look-alikes, streamed and whole: text, tools, usage, errors inside."""
    found = good("openai_chat", "openai_completions")
    found += good("ollama_server", endpoint="/v1/chat") + good(
        "ollama_server", endpoint="/v1/comp"
    )
    assert len(found) > 500
    for record in found:
        if holds_error(record):
            with pytest.raises(InStreamError):
                answer(openai_chat, record, seed)
            continue
        text, names = plain_chat(record)
        response = answer(openai_chat, record, seed)
        assert response.text == text, record["path"]
        assert {call.name for call in response.tool_calls} == names, record["path"]
        for call in response.tool_calls:
            assert isinstance(call.arguments, dict)


@needs_recordings
@pytest.mark.parametrize("seed", range(2))
def test_every_recorded_message(seed: int) -> None:
    """Anthropic's and Ollama's look-alike: text, thinking, tools, and usage that is the last."""
    found = good("anthropic_messages") + good("ollama_server", endpoint="/v1/messages")
    assert len(found) > 90
    for record in found:
        response = answer(anthropic_answers, record, seed)
        if record["kind"] == "json":
            body = json.loads(record["body"])
            text = "".join(b["text"] for b in body["content"] if b["type"] == "text")
            tools = [b["name"] for b in body["content"] if b["type"] == "tool_use"]
            written, stop = body["usage"]["output_tokens"], body["stop_reason"]
        else:
            told = events(record["body"])
            deltas = [e["delta"] for e in told if e["type"] == "content_block_delta"]
            text = "".join(d["text"] for d in deltas if d["type"] == "text_delta")
            starts = [e["content_block"] for e in told if e["type"] == "content_block_start"]
            tools = [block["name"] for block in starts if block["type"] == "tool_use"]
            (last,) = [event for event in told if event["type"] == "message_delta"]
            written, stop = last["usage"]["output_tokens"], last["delta"]["stop_reason"]
        assert response.text == text
        assert [call.name for call in response.tool_calls] == tools
        assert all(isinstance(call.arguments, dict) for call in response.tool_calls)
        assert response.usage is not None
        assert response.usage.output_tokens == written
        words = {
            "end_turn": "stop",
            "stop_sequence": "stop",
            "max_tokens": "length",
            "tool_use": "tool_calls",
        }
        assert response.finish_reason == words.get(stop, stop)


@needs_recordings
@pytest.mark.parametrize("seed", range(2))
def test_every_recorded_response(seed: int) -> None:
    """The Responses API, streamed and whole: text, tools, usage of the last event."""
    found = good("openai_responses") + good("ollama_server", endpoint="/v1/responses")
    assert len(found) > 140
    for record in found:
        body = json.loads(record["body"]) if record["kind"] == "json" else None
        if record["kind"] == "sse":
            told = events(record["body"])
            body = next(e["response"] for e in reversed(told) if "response" in e)
            text = "".join(e["delta"] for e in told if e["type"] == "response.output_text.delta")
        else:
            assert body is not None
            messages = [item for item in body["output"] if item["type"] == "message"]
            text = "".join(p.get("text", "") for item in messages for p in item["content"])
        assert body is not None
        if body.get("status") in ("queued", "in_progress"):
            continue
        response = answer(openai_responses, record, seed)
        tools = [item["name"] for item in body["output"] if item["type"] == "function_call"]
        assert response.text == text, record["path"]
        assert {call.name for call in response.tool_calls} >= set(tools)
        if body.get("usage"):
            assert response.usage is not None
            assert response.usage.output_tokens == body["usage"]["output_tokens"]


@needs_recordings
@pytest.mark.parametrize("seed", range(2))
def test_every_recorded_line_of_ollama(seed: int) -> None:
    """Chat and generate of real servers: text, thinking, tools, counts, and errors inside."""
    found = good("ollama", "ollama_server", endpoint="/api/chat")
    found += good("ollama", "ollama_server", endpoint="/api/generate")
    assert len(found) > 50
    for record in found:
        lines = [json.loads(line) for line in record["body"].splitlines() if line.strip()]
        if any("error" in line for line in lines):
            with pytest.raises(InStreamError):
                answer(ollama, record, seed)
            continue
        if record["name" if "name" in record else "path"] == "chat abandoned":
            continue
        response = answer(ollama, record, seed)
        messages = [line.get("message") or line for line in lines]
        text = "".join(m.get("content") or m.get("response") or "" for m in messages)
        thinking = "".join(m.get("thinking") or "" for m in messages)
        calls = [c["function"]["name"] for m in messages for c in m.get("tool_calls") or []]
        assert (response.text, response.reasoning) == (text, thinking)
        assert [call.name for call in response.tool_calls] == calls
        assert response.finish_reason == lines[-1].get("done_reason", "stop")
        assert response.usage == Usage(
            lines[-1].get("prompt_eval_count"), lines[-1].get("eval_count")
        )
        if lines[-1].get("eval_duration"):
            assert response.timings is not None
            assert response.timings.generation_s == lines[-1]["eval_duration"] / 1e9


@needs_recordings
def test_every_recorded_vector() -> None:
    """As numbers or in base64, of OpenAI, Azure and Ollama: one a row, in order, with the count."""
    found = good("openai_embeddings") + good("ollama_server", endpoint="/v1/embeddings")
    found = [record for record in found if "data" in json.loads(record["body"])]
    assert len(found) > 30
    for record in found:
        body = json.loads(record["body"])
        vectors = parse_embeddings(body)
        rows = sorted(body["data"], key=lambda row: row["index"])
        for vector, row in zip(vectors, rows, strict=True):
            told = row["embedding"]
            packed = len(base64.b64decode(told)) // 4 if isinstance(told, str) else len(told)
            assert len(vector) == packed
            assert all(type(value) in (float, int) for value in vector)
        assert vectors.usage is not None
        read = body["usage"].get("prompt_tokens", body["usage"]["total_tokens"])
        assert vectors.usage.input_tokens == read
    lines = good("ollama", "ollama_server", endpoint="/api/embed")
    lines = [record for record in lines if "embeddings" in json.loads(record["body"])]
    assert len(lines) > 5
    for record in lines:
        body = json.loads(record["body"])
        assert ollama.parse_embeddings(body) == body["embeddings"]


CALL = ToolCall("c1", "weather", '{"city": "Paris"}')
TOOL = Tool("weather", "how it is", {"type": "object", "properties": {"city": {"type": "string"}}})
TALK = [
    ChatMessage("system", "be brief"),
    ChatMessage("user", "look", images=(Image(PNG),)),
    ChatMessage("assistant", "", tool_calls=(CALL,), reasoning_blocks=({"type": "thinking"},)),
    ChatMessage("tool", "sunny", tool_call_id="c1"),
]
ASKED = ModelParameters(
    max_tokens=9, stop=("X",), tools=(TOOL,), tool_choice="weather", schema={"type": "object"}
)


def test_chat_requests_hold_pictures_tools_and_schema() -> None:
    """As OpenAI's chat completions want them."""
    body = openai_chat.build_chat_request(TALK, "m", ASKED)
    assert body["messages"][1]["content"][1]["image_url"]["url"].startswith(
        "data:image/png;base64,"
    )
    assert body["messages"][2]["tool_calls"][0]["function"]["arguments"] == '{"city": "Paris"}'
    assert body["messages"][3] == {"role": "tool", "content": "sunny", "tool_call_id": "c1"}
    assert body["tools"][0]["function"]["name"] == "weather"
    assert body["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}


def test_responses_requests_hold_pictures_tools_and_schema() -> None:
    """As the Responses API wants them; nothing is stored there."""
    body = openai_responses.build_responses_request(TALK, "m", ASKED)
    assert body["instructions"] == "be brief"
    assert [item["type"] for item in body["input"]] == [
        "message",
        "function_call",
        "function_call_output",
    ]
    assert body["tool_choice"] == {"type": "function", "name": "weather"}
    assert body["text"]["format"]["schema"] == {"type": "object"}
    assert (body["max_output_tokens"], body["store"]) == (9, False)


def test_messages_requests_hold_pictures_tools_and_schema() -> None:
    """As Anthropic wants them: turns in turn, a bound always, thinking sent back as it came."""
    body = anthropic_messages.build_messages_request(TALK, "m", ASKED, cache=True)
    assert body["system"][0]["text"] == "be brief"
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert body["messages"][0]["content"][0]["source"]["media_type"] == "image/png"
    assert [b["type"] for b in body["messages"][1]["content"]] == ["thinking", "tool_use"]
    assert body["messages"][2]["content"][0]["tool_use_id"] == "c1"
    assert body["tool_choice"] == {"type": "tool", "name": "weather"}
    assert body["output_config"]["format"]["schema"] == {"type": "object"}
    assert json.dumps(body).count('"ephemeral"') == 3
    plain = anthropic_messages.build_messages_request(
        [ChatMessage("user", "x")], "m", ModelParameters()
    )
    assert plain["max_tokens"] == 4096
    thinking = ModelParameters(reasoning="high", max_tokens=100)
    body = anthropic_messages.build_messages_request([ChatMessage("user", "x")], "m", thinking)
    assert body["max_tokens"] > body["thinking"]["budget_tokens"] == 16384


def test_ollama_requests_hold_pictures_tools_and_schema() -> None:
    """As Ollama wants them: options, bare base64, arguments as an object, results by name."""
    body = ollama.build_chat_request(TALK, "m", ASKED)
    assert body["options"] == {"num_predict": 9, "stop": ["X"]}
    assert body["messages"][1]["images"] == [Image(PNG).base64]
    assert body["messages"][2]["tool_calls"][0]["function"]["arguments"] == {"city": "Paris"}
    assert body["messages"][3]["tool_name"] == "weather"
    assert body["format"] == {"type": "object"}
    extra = ModelParameters(
        reasoning=False, extra_body={"keep_alive": 0, "options": {"num_ctx": 8}}
    )
    body = ollama.build_chat_request([ChatMessage("user", "x")], "m", extra)
    assert (body["think"], body["keep_alive"], body["options"]) == (False, 0, {"num_ctx": 8})


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([(0, "a", "f", '{"x"'), (0, None, None, ": 1}")], [("a", "f", '{"x": 1}')]),
        ([(0, "a", "f", "{}"), (0, "b", "g", "{}")], [("a", "f", "{}"), ("b", "g", "{}")]),
        ([(None, "a", "f", None), (None, None, None, "{}")], [("a", "f", "{}")]),
        ([(0, "a", "f", ""), (0, "a", "", "{}")], [("a", "f", "{}")]),
        ([(1, "a", "f", {"x": 1})], [("a", "f", '{"x": 1}')]),
        ([(0, "a", "f", "1"), (1, "b", "g", "2"), (0, None, None, "3")], [("a", "f", "13"), ("b", "g", "2")]),
    ],
    ids=["in pieces", "new id, same index", "no index", "id and empty name again", "whole", "mixed"],
)  # fmt: skip
def test_tool_calls_are_put_together(pieces: list[Any], expected: list[Any]) -> None:
    """However a service numbers, repeats or leaves out their parts."""
    assembler = ToolCallAssembler()
    for piece in pieces:
        assembler.add(*piece)
    assert [(c.id, c.name, c.arguments_text) for c in assembler.take()] == expected
    assert assembler.take() == ()


def test_arguments_that_are_no_object_are_said_so() -> None:
    """Nothing means nothing given; broken text can still be read."""
    assert ToolCall("a", "f", "").arguments == {}
    with pytest.raises(ParseError):
        ToolCall("a", "f", "[1]").arguments  # noqa: B018


def test_a_picture_is_known_by_its_first_bytes() -> None:
    """The services want its type; what is no picture is refused here."""
    assert Image(PNG).media_type == "image/png"
    assert Image(b"RIFF0000WEBPxx").media_type == "image/webp"
    assert Image(url="https://a.example/x").as_url == "https://a.example/x"
    for wrong in ({}, {"data": b"x", "url": "y"}):
        with pytest.raises(ConfigurationError):
            Image(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="image format"):
        Image(b"text").media_type  # noqa: B018
