"""
What services were seen to send: each oddity of OpenAI's chat format, and what comes of it.

The oddities were counted in recorded traffic or reported by users of other clients; the
comment beside each says whose it is.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from llm_magics import ChatMessage, ModelParameters, ModelResponse, errors
from llm_magics.providers.openai import OpenAIConfig, OpenAIProvider
from llm_magics.types import Usage
from llm_magics.wire import openai_chat, openai_responses
from tests.support.fake_openai import FakeOpenAI, refusal
from tests.support.serving import Asked, Says, as_json, chat_stream, serving

HI = [ChatMessage("system", "be brief"), ChatMessage("user", "hi")]
KEY = "a-key-of-the-test"


def delta(content: Any = None, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One chunk with one choice."""
    told: dict[str, Any] = {**more}
    if content is not None:
        told["content"] = content
    return {"choices": [{"index": 0, "delta": told, "finish_reason": finish}]}


def call(**parts: Any) -> dict[str, Any]:
    """One chunk with a piece of a tool call."""
    function = {name: parts.pop(name) for name in ("name", "arguments") if name in parts}
    return delta(tool_calls=[{**parts, "function": function}])


def decoded(*chunks: dict[str, Any] | bytes, done: bool = True) -> ModelResponse:
    """The answer in a stream of ``chunks``."""
    lines = [c if isinstance(c, bytes) else json.dumps(c).encode() for c in chunks]
    stream = b"".join(b"data: " + line + b"\n\n" for line in lines)
    stream += b"data: [DONE]\n\n" if done else b""
    decoder = openai_chat.ChunkDecoder()
    found = [*decoder.feed(stream, 0.1), *decoder.flush(0.1)]
    assert decoder.finished
    return ModelResponse.of(found)


USED = {"prompt_tokens": 5, "completion_tokens": 2}


@pytest.mark.parametrize(
    ("chunks", "text", "reasoning", "finish"),
    [
        ([delta(None, role="assistant"), delta("a"), delta(finish="stop")], "a", "", "stop"),
        ([{"choices": [{"index": 0, "delta": None}]}, delta("a", "stop")], "a", "", "stop"),
        ([{"choices": [{"index": 0}]}, delta("a", "stop")], "a", "", "stop"),
        ([{"choices": [], "prompt_filter_results": []}, delta("a", "stop")], "a", "", "stop"),
        ([delta("a"), delta("b", "length")], "ab", "", "length"),
        ([delta("a", "stop"), delta(finish="stop")], "a", "", "stop"),
        ([delta("a"), delta("b")], "ab", "", None),
        ([delta("a"), {"choices": [{"index": 1, "delta": {"content": "x"}}]}, delta(finish="stop")], "a", "", "stop"),
        ([delta(reasoning_content="hm"), delta("a", "stop")], "a", "hm", "stop"),
        ([delta(reasoning="hm"), delta("a", "stop")], "a", "hm", "stop"),
        ([delta(reasoning_details=[{"type": "reasoning.text", "text": "hm"}, {"type": "reasoning.encrypted", "data": "x"}]), delta("a", "stop")], "a", "hm", "stop"),
        ([delta([{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]), delta([{"type": "text", "text": "a"}], "stop")], "a", "hm", "stop"),
        ([delta(refusal="I cannot."), delta(finish="stop")], "I cannot.", "", "refusal"),
        ([{**delta("a", "stop"), "obfuscation": "Zk3"}], "a", "", "stop"),
        ([delta("line\u2028separator", "stop")], "line\u2028separator", "", "stop"),
        ([delta("", "content_filter")], "", "", "content_filter"),
    ],
    ids=[
        "content null (95 seen)", "delta null (Azure)", "delta missing", "no choices first (Azure, 26)",
        "content on the last chunk (vLLM, Mistral)", "finish twice", "no finish reason (Snowflake)",
        "a second choice (185)", "DeepSeek, z.ai", "Groq, LM Studio", "OpenRouter", "Mistral (58)",
        "refusal", "padding (161)", "a line separator in JSON", "filtered",
    ],
)  # fmt: skip
def test_deltas(chunks: list[Any], text: str, reasoning: str, finish: str | None) -> None:
    """Text, thinking and the reason for the end, wherever a service puts them."""
    answer = decoded(*chunks)
    assert (answer.text, answer.reasoning, answer.finish_reason) == (text, reasoning, finish)


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([delta("a", "stop")], None),
        ([delta("a", "stop"), {"choices": [], "usage": USED}], Usage(5, 2)),
        ([{**delta("a", "stop"), "usage": USED}], Usage(5, 2)),
        ([{**delta("a"), "usage": {"prompt_tokens": 5, "completion_tokens": 1}}, {**delta("b", "stop"), "usage": USED}], Usage(5, 2)),
        ([{**delta("a", "stop"), "usage": None}], None),
        ([{**delta("a", "stop"), "usage": {**USED, "prompt_tokens_details": None}}], Usage(5, 2)),
        ([{**delta("a", "stop"), "usage": {**USED, "prompt_cache_hit_tokens": 3}}], Usage(5, 2, 3)),
        ([{**delta("a", "stop"), "usage": {**USED, "cached_tokens": 3}}], Usage(5, 2, 3)),
    ],
    ids=["never (128 of 245)", "after the end", "on the last chunk (Mistral, HF)",
         "on every chunk, cumulative (Databricks)", "null", "null details", "DeepSeek's cache", "Moonshot's cache"],
)  # fmt: skip
def test_usage(chunks: list[Any], expected: Usage | None) -> None:
    """The last word counts; nothing is added up."""
    assert decoded(*chunks).usage == expected


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        ([call(index=1, id="a", name="f", arguments="{}")], [("a", "f", {})]),
        ([call(id="a", name="f", arguments="{}"), call(id="b", name="g", arguments="{}")], [("a", "f", {}), ("b", "g", {})]),
        ([call(index=0, id="a", name="f", arguments=None)], [("a", "f", {})]),
        ([call(index=0, id="a", name="f")], [("a", "f", {})]),
        ([call(index=0, id="a", name="f", arguments=""), call(index=0, name="", arguments='{"x": 1}')], [("a", "f", {"x": 1})]),
        ([call(index=0, id="a", name="f", arguments='{"x"'), call(index=0, id="a", arguments=": 1}")], [("a", "f", {"x": 1})]),
    ],
    ids=["index from 1", "no index (Mistral)", "arguments null", "no arguments", "name again, empty (LM Studio)", "id again"],
)  # fmt: skip
@pytest.mark.parametrize("finish", ["tool_calls", "stop", None])
def test_tool_calls(chunks: list[Any], expected: list[Any], finish: str | None) -> None:
    """Put together however they are numbered, and whatever the reason given for the end."""
    ends = [delta(finish=finish)] if finish else []
    answer = decoded(*chunks, *ends)
    assert [(c.id, c.name, c.arguments) for c in answer.tool_calls] == expected


@pytest.mark.parametrize(
    "end",
    [b"", b"data: [DONE]\n\n", b"data: [DONE]", b": bye\n\n", b"data: [DONE] \r\n\r\n"],
    ids=["no [DONE] (HF router)", "usual", "no blank line", "a comment", "CRLF and a space"],
)
def test_ends(end: bytes) -> None:
    """A finish reason is an end, with or without what should follow it."""
    stream = b"data: " + json.dumps(delta("a", "stop")).encode() + b"\n\n" + end
    decoder = openai_chat.ChunkDecoder()
    chunks = [*decoder.feed(stream, 0.1), *decoder.flush(0.1)]
    assert decoder.finished
    assert ModelResponse.of(chunks).text == "a"


def used(url: str, **parameters: Any) -> ModelResponse:
    """A whole answer of the server at ``url``."""
    config = OpenAIConfig(base_url=url, api_key=KEY)  # type: ignore[arg-type]

    async def use() -> ModelResponse:
        async with OpenAIProvider(config) as provider:
            asked = ModelParameters(**parameters)
            answer = await provider.generate_chat(HI, "gpt-test", asked)
            assert isinstance(answer, ModelResponse)
            return answer

    return asyncio.run(use())


def test_a_connection_cut_after_the_end() -> None:
    """An incomplete body after the finish reason is success (openai-python#2356)."""
    with serving(Says(chat_stream("hi"), cut=True)) as server:
        assert used(server.url).text == "hi"


def test_a_model_that_knows_no_system_message() -> None:
    """Its words become the user's (o1-mini refuses the role), once and without a warning."""

    def answers(asked: Asked) -> Says:
        if any(message["role"] == "system" for message in asked.json()["messages"]):
            msg = (
                "Unsupported value: 'messages[0].role' does not support 'system' with this model."
            )
            return refusal("unsupported_value", msg, 400, "messages[0].role")
        return Says(chat_stream("hi"))

    with serving(answers) as server:
        assert used(server.url).text == "hi"
        roles = [message["role"] for message in server.asked[-1].json()["messages"]]
    assert roles == ["user", "user"]


@pytest.mark.parametrize("name", ["temperature", "top_p", "seed"])
def test_what_a_reasoning_model_refuses(name: str) -> None:
    """Sampling is not its user's to choose: left out, and told of."""
    parameters = {"temperature": 0.1, "top_p": 0.5, "seed": 1}
    with serving(FakeOpenAI(name)) as server, pytest.warns(UserWarning, match=name):
        assert used(server.url, **parameters).text


def test_stream_options_refused_by_one_server_are_remembered() -> None:
    """Mistral 422, Groq and Databricks 400: asked again without, and from then on."""
    config = OpenAIConfig(base_url="http://x", api_key=KEY)  # type: ignore[arg-type]

    def answers(asked: Asked) -> Says:
        if "stream_options" in asked.json():
            return as_json({"error_code": "BAD_REQUEST", "message": 'json: unknown field "stream_options"'}, 400)  # fmt: skip
        return Says(chat_stream("hi"))

    with serving(answers) as server:
        provider = OpenAIProvider(config.model_copy(update={"base_url": server.url}))
        for _ in range(2):
            asyncio.run(provider.generate_chat(HI, "m", ModelParameters()))
        assert ["stream_options" in asked.json() for asked in server.asked] == [True, False, False]


def responses(*told: dict[str, Any]) -> ModelResponse:
    """The answer in a stream of the Responses API."""
    decoder = openai_responses.ChunkDecoder()
    stream = b"".join(
        f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode() for each in told
    )
    chunks = [*decoder.feed(stream, 0.1), *decoder.flush(0.1)]
    assert decoder.finished
    return ModelResponse.of(chunks)


COMPLETED = {"type": "response.completed", "response": {"status": "completed", "output": []}}


def test_responses_keep_alive_and_tell_new_things() -> None:
    """Unknown events are passed over; ids of items may change from event to event."""
    answer = responses(
        {"type": "response.created", "response": {}},
        {"type": "keepalive", "sequence_number": 1},
        {"type": "response.output_text.delta", "delta": "a", "item_id": "one"},
        {"type": "response.something.new", "data": [1]},
        {"type": "response.output_text.delta", "delta": "b", "item_id": "two"},
        COMPLETED,
    )
    assert (answer.text, answer.finish_reason) == ("ab", "stop")


def test_a_response_that_is_cut_short_says_why() -> None:
    """Incomplete is an end, with its reason."""
    cut = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    assert responses({"type": "response.incomplete", "response": cut}).finish_reason == "length"


@pytest.mark.parametrize(("written", "finish"), [(8, "length"), (7, "stop")])
def test_a_cut_that_is_called_complete_is_noticed(written: int, finish: str) -> None:
    """llama.cpp says ``completed`` of every answer, and does not repeat the limit."""
    usage = {"input_tokens": 3, "output_tokens": written}
    done = {"status": "completed", "output": [], "usage": usage}

    async def use(url: str) -> ModelResponse:
        async with OpenAIProvider({"base_url": url, "api_key": KEY, "api": "responses"}) as each:
            answer = await each.generate_chat(HI, "m", ModelParameters(max_tokens=8))
        assert isinstance(answer, ModelResponse)
        return answer

    event = {"type": "response.completed", "response": done}
    with serving(Says([f"data: {json.dumps(event)}\n\n".encode()])) as server:
        assert asyncio.run(use(server.url)).finish_reason == finish


def test_messages_of_a_response_have_their_type() -> None:
    """llama.cpp refuses a message of the assistant that does not say what it is."""
    turns = [ChatMessage("user", "hi"), ChatMessage("assistant", "yes"), ChatMessage("user", "?")]
    body = openai_responses.build_responses_request(turns, "m", ModelParameters())
    assert [item["type"] for item in body["input"]] == ["message"] * 3


@pytest.mark.parametrize(
    "told",
    [
        {"type": "error", "error": {"code": "insufficient_quota", "message": "no money"}},
        {"type": "error", "code": "insufficient_quota", "message": "no money"},
        {"type": "response.failed", "response": {"status": "failed", "error": {"code": "insufficient_quota", "message": "no money"}}},
    ],
    ids=["error event", "flat error event", "failed response"],
)  # fmt: skip
def test_a_response_that_fails_inside_a_200(told: dict[str, Any]) -> None:
    """A spent account, told in the stream: not to be asked again."""
    stream = f"event: {told['type']}\ndata: {json.dumps(told)}\n\n".encode()
    config = OpenAIConfig(base_url="http://x", api_key=KEY, api="responses")  # type: ignore[arg-type]
    with serving(Says([stream])) as server:
        provider = OpenAIProvider(config.model_copy(update={"base_url": server.url}))
        with pytest.raises(errors.RateLimitError, match="no money") as caught:
            asyncio.run(provider.generate_chat(HI, "m", ModelParameters()))
    assert not caught.value.retryable
    assert "Add credit" in str(caught.value.hint)


def test_a_picture_to_a_model_without_eyes() -> None:
    """llama.cpp calls it a server error; asking again would not help."""
    said = "image input is not supported - hint: if this is unexpected, you may need to provide the mmproj"
    with (
        serving(as_json({"error": {"code": 500, "message": said, "type": "server_error"}}, 500)) as server,
        pytest.raises(errors.UnsupportedError) as caught,
    ):  # fmt: skip
        used(server.url)
    assert not caught.value.retryable


def test_a_server_that_still_loads_its_model() -> None:
    """llama.cpp's 503 means: wait."""
    body = {"error": {"code": 503, "message": "Loading model", "type": "unavailable_error"}}
    with serving(as_json(body, 503)) as server, pytest.raises(errors.ProviderError) as caught:
        used(server.url)
    assert caught.value.retryable
