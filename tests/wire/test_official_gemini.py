"""
Google's official client as an oracle for the Gemini API.

The same call through theirs and through ours, against the same server, sends the same request and
gives the same result.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from google import genai
from google.genai import types

from llm_magics import ChatMessage, ModelParameters, ModelResponse
from llm_magics.attachments import Image, ReasoningBlock
from llm_magics.parameters import Tool
from llm_magics.providers import create_provider
from llm_magics.types import ToolCall
from llm_magics.wire.gemini_answers import ChunkDecoder
from tests.support.fake_gemini import CHAT, EMBED, KEY, USED, FakeGemini, camel, event
from tests.support.serving import Asked, Server, serving

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
PDF, WAV = b"%PDF-1.7 text", b"RIFF\x24\x00\x00\x00WAVEfmt "
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = (Tool("weather", "how it is", CITY), Tool("now", "the time"))
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
SIGNATURE = base64.b64encode(b"a signature").decode()
HI = [ChatMessage("user", "hi")]


def ours(url: str, do: Callable[[Any], Any]) -> Any:
    """What ``do`` gives with our provider."""

    async def use() -> Any:
        async with create_provider("gemini", base_url=url, api_key=KEY) as provider:
            return await do(provider)

    return asyncio.run(use())


@contextmanager
def theirs(server: Server) -> Iterator[genai.Client]:
    """The official client without retries; since 3.0 its default is v1."""
    options = types.HttpOptions(base_url=server.url, api_version="v1beta")
    client = genai.Client(api_key=KEY, http_options=options)
    try:
        yield client
    finally:
        client.close()


def request(asked: Asked) -> tuple[Any, ...]:
    """All that counts of a request: the rest names the client and its version."""
    body = named(json.loads(asked.body or b"null"))
    return asked.method, asked.path, asked.headers.get("x-goog-api-key"), body


def named(value: Any) -> Any:
    """The same with the names that the service documents: their client also sends snake case."""
    if isinstance(value, list):
        return [named(each) for each in value]
    if isinstance(value, dict):
        return {camel(name): named(each) for name, each in value.items()}
    return value


def last_two(server: Server) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What they sent, and then we."""
    one, other = server.asked[-2:]
    return request(one), request(other)


def declared() -> types.Tool:
    """The tools as their client takes them."""
    declarations = [
        types.FunctionDeclaration(
            name=tool.name, description=tool.description, parameters_json_schema=dict(tool.parameters)
        )
        for tool in TOOLS
    ]  # fmt: skip
    return types.Tool(function_declarations=declarations)


@pytest.mark.parametrize(
    ("choice", "mode", "names"),
    [("auto", "AUTO", None), ("none", "NONE", None), ("required", "ANY", None), ("now", "ANY", ["now"])],
)  # fmt: skip
def test_a_request_with_all_of_its_fields(choice: str, mode: Any, names: Any) -> None:
    """Turns, files, parallel calls with a signature, their results, tools, and the configuration."""
    contents = [
        types.Content(
            role="user",
            parts=[
                types.Part.from_bytes(data=PNG, mime_type="image/png"),
                types.Part.from_bytes(data=PDF, mime_type="application/pdf"),
                types.Part.from_bytes(data=WAV, mime_type="audio/wav"),
                types.Part.from_uri(file_uri="https://example.org/a.jpg", mime_type="image/jpeg"),
                types.Part(text="look"),
            ],
        ),
        types.Content(
            role="model",
            parts=[
                types.Part(text="I ask"),
                types.Part(
                    function_call=types.FunctionCall(id="c1", name="weather", args={"city": "Rome"}),
                    thought_signature=b"a signature",
                ),
                types.Part(function_call=types.FunctionCall(id="c2", name="now", args={})),
            ],
        ),
        types.Content(
            role="user",
            parts=[
                types.Part(
                    function_response=types.FunctionResponse(
                        id="c1",
                        name="weather",
                        response={"output": "sunny"},
                        parts=[types.FunctionResponsePart.from_bytes(data=PNG, mime_type="image/png")],
                    )
                ),
                types.Part(
                    function_response=types.FunctionResponse(
                        id="c2", name="now", response={"output": "noon"}
                    )
                ),
            ],
        ),
    ]  # fmt: skip
    calls = (ToolCall("c1", "weather", '{"city": "Rome"}'), ToolCall("c2", "now", "{}"))
    signed = ReasoningBlock({"functionCall": {}, "thoughtSignature": SIGNATURE}, at=(5, 0))
    pictures = (Image(PNG), Image(PDF), Image(WAV), Image(url="https://example.org/a.jpg"))
    talk = [
        ChatMessage("system", "be brief"),
        ChatMessage("user", "look", images=pictures),
        ChatMessage("assistant", "I ask", tool_calls=calls, reasoning_blocks=(signed,)),
        ChatMessage("tool", "sunny", tool_call_id="c1", images=(Image(PNG),)),
        ChatMessage("tool", "noon", tool_call_id="c2"),
    ]
    fake = FakeGemini()
    fake.issued[SIGNATURE] = {"functionCall": {"name": "weather", "args": {"city": "Rome"}}}
    calling = types.FunctionCallingConfig(mode=mode, allowed_function_names=names)
    with serving(fake) as server:
        with theirs(server) as client:
            chunks = list(
                client.models.generate_content_stream(
                    model=CHAT,
                    contents=contents,
                    config=types.GenerateContentConfig(
                        system_instruction="be brief",
                        temperature=0.5,
                        top_p=0.9,
                        top_k=40,
                        max_output_tokens=400,
                        seed=3,
                        stop_sequences=["X"],
                        response_mime_type="application/json",
                        response_json_schema=SCHEMA,
                        tools=[declared()],
                        tool_config=types.ToolConfig(function_calling_config=calling),
                        thinking_config=types.ThinkingConfig(
                            include_thoughts=True, thinking_level=types.ThinkingLevel.LOW
                        ),
                        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
                    ),
                )
            )  # fmt: skip
        parameters = ModelParameters(
            temperature=0.5,
            top_p=0.9,
            max_tokens=400,
            seed=3,
            stop=("X",),
            schema=SCHEMA,
            tools=TOOLS,
            tool_choice=choice,
            reasoning="low",
            extra_body={"top_k": 40},
        )
        answer: ModelResponse = ours(server.url, lambda p: p.generate_chat(talk, CHAT, parameters))
        one, other = last_two(server)
    assert one == other
    parts = [part for chunk in chunks for part in chunk.candidates[0].content.parts]  # type: ignore[index, union-attr]
    assert answer.text == "".join(part.text or "" for part in parts if not part.thought)
    assert answer.reasoning == "".join(part.text or "" for part in parts if part.thought) != ""
    used = chunks[-1].usage_metadata
    assert used is not None
    assert answer.usage is not None
    assert answer.usage.input_tokens == used.prompt_token_count
    assert answer.usage.output_tokens == (used.candidates_token_count or 0) + (used.thoughts_token_count or 0)  # fmt: skip
    assert answer.usage.cached_tokens == used.cached_content_token_count
    assert answer.usage.reasoning_tokens == used.thoughts_token_count


@pytest.mark.parametrize("has_ids", [True, False])
def test_rounds_with_a_tool(has_ids: bool) -> None:
    """Their chat sends a batch of calls back with its signature, the text before it and the results."""
    with serving(FakeGemini(cities=("Paris", "Rome"), has_ids=has_ids)) as server:
        with theirs(server) as client:
            chat = client.chats.create(
                model=CHAT,
                config=types.GenerateContentConfig(
                    tools=[declared()],
                    automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
                ),
            )
            said = chat.send_message("how is it?")
            results: Any = [
                types.Part(
                    function_response=types.FunctionResponse(
                        id=call.id, name=call.name, response={"output": "sunny"}
                    )
                )
                for call in said.function_calls or ()
            ]
            told = chat.send_message(results)
            signed = named(json.loads(server.asked[-1].body))

        async def rounds(provider: Any) -> ModelResponse:
            parameters = ModelParameters(tools=TOOLS)
            question = ChatMessage("user", "how is it?")
            first = await provider.generate_chat([question], CHAT, parameters)
            called = ChatMessage("assistant", first.text, tool_calls=first.tool_calls, reasoning_blocks=first.reasoning_blocks)  # fmt: skip
            results = [ChatMessage("tool", "sunny", tool_call_id=c.id) for c in first.tool_calls]
            answer: ModelResponse = await provider.generate_chat(
                [question, called, *results], CHAT, parameters
            )
            return answer

        answer = ours(server.url, rounds)
        body = server.asked[-1].json()
    for content in (*signed["contents"], *body["contents"]):
        for part in content["parts"]:
            part.pop("thoughtSignature", None)  # each conversation has other signatures
            for call in ("functionCall", "functionResponse"):
                part.get(call, {}).pop("id", None)
    assert body == {name: value for name, value in signed.items() if value}
    assert told.text
    assert answer.finish_reason == "stop"


def test_a_conversation_is_continued_with_the_signature_of_its_text() -> None:
    """The last part of the answer has it: a piece of the text, or an empty one."""
    for signs_text in (True, False):
        with serving(FakeGemini(signs_text=signs_text)) as server:

            async def twice(provider: Any) -> ModelResponse:
                first = await provider.generate_chat(HI, CHAT, None)
                said = ChatMessage(
                    "assistant", first.text, reasoning_blocks=first.reasoning_blocks
                )
                answer: ModelResponse = await provider.generate_chat([*HI, said, *HI], CHAT, None)
                return answer

            assert ours(server.url, twice).text
            first, second = server.asked
            signed = second.json()["contents"][1]["parts"]
        assert [set(part) for part in signed] == [{"text"}, {"text", "thoughtSignature"}]
        assert bool(signed[1]["text"]) == signs_text
        assert len(first.json()["contents"]) == 1


@pytest.mark.parametrize("dimensions", [None, 4])
def test_embeddings(dimensions: int | None) -> None:
    """The same request, and the same vectors: shortened ones with a length of 1."""
    texts = ["one", "two"]
    config = None if dimensions is None else types.EmbedContentConfig(output_dimensionality=dimensions)  # fmt: skip

    async def embedded(provider: Any) -> Any:
        if dimensions is None:
            return await provider.generate_packed(texts, EMBED)
        return await provider.generate_shortened(texts, EMBED, dimensions)

    with serving(FakeGemini()) as server:
        with theirs(server) as client:
            contents: Any = texts
            found = client.models.embed_content(model=EMBED, contents=contents, config=config)
        packed = ours(server.url, embedded)
        one, other = last_two(server)
    assert one == other
    vectors = memoryview(packed.data).cast("f", (2, packed.dimensions)).tolist()
    for vector, embedding in zip(vectors, found.embeddings or (), strict=True):
        values = embedding.values or []
        length = sum(value * value for value in values) ** 0.5
        assert vector == pytest.approx([value / length for value in values], abs=1e-6)


def test_the_list_of_models() -> None:
    """All pages, with the limits, and without the models of other APIs."""
    with serving(FakeGemini(page=4)) as server:
        with theirs(server) as client:
            listed = {each.name: each for each in client.models.list(config={"page_size": 1000})}
        asked = [request(each) for each in server.asked]
        infos = ours(server.url, lambda p: p.describe_models())
    assert [request(each) for each in server.asked[len(asked) :]] == [
        (method, path.replace("&filter=", ""), key, body) for method, path, key, body in asked
    ]
    assert [info.name for info in infos] == USED
    for info in infos:
        same = listed[f"models/{info.name}"]
        assert (info.context, info.max_output_tokens) == (same.input_token_limit, same.output_token_limit)  # fmt: skip
        assert ("reasoning" in info.capabilities) == bool(same.thinking)


def test_counted_tokens() -> None:
    """The same count; their client sends the turns alone, ours the whole request."""
    with serving(FakeGemini()) as server:
        with theirs(server) as client:
            counted = client.models.count_tokens(
                model=CHAT, contents=types.Content(role="user", parts=[types.Part(text="hi")])
            )
        count = ours(server.url, lambda p: p.count_tokens(HI, CHAT))
        one, other = last_two(server)
    assert count == counted.total_tokens
    assert other[:3] == one[:3]
    assert other[3]["generateContentRequest"]["contents"] == one[3]["contents"]


# Answers in the shapes that https://ai.google.dev/gemini-api/docs shows, November 2026.
DOCUMENTED = [
    {
        "candidates": [
            {
                "content": {"parts": [{"text": "AI "}, {"text": "works."}], "role": "model"},
                "finishReason": "STOP",
                "index": 0,
                "avgLogprobs": -0.1,
            }
        ],
        "usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": 3, "totalTokenCount": 7},
        "modelVersion": "gemini-2.0-flash",
    },
    {
        "candidates": [
            {
                "content": {
                    "parts": [
                        {"text": "**Thinking**\n", "thought": True},
                        {
                            "functionCall": {"name": "check_flight", "args": {"flight": "AA100"}},
                            "thoughtSignature": SIGNATURE,
                        },
                        {"functionCall": {"name": "book", "args": {}}},
                    ],
                    "role": "model",
                },
                "finishReason": "STOP",
                "finishMessage": "Model generated function call(s).",
                "index": 0,
            }
        ],
        "usageMetadata": {
            "promptTokenCount": 70,
            "candidatesTokenCount": 20,
            "thoughtsTokenCount": 51,
            "toolUsePromptTokenCount": 9,
            "cachedContentTokenCount": 30,
            "totalTokenCount": 150,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 70}],
        },
        "modelVersion": "gemini-3-pro-preview",
        "responseId": "x",
    },
]  # fmt: skip


@pytest.mark.parametrize("body", DOCUMENTED)
def test_documented_answers(body: dict[str, Any]) -> None:
    """Text, thoughts, calls, signatures and usage as their client has them, streamed and whole."""
    parsed = types.GenerateContentResponse.model_validate(body)
    decoder = ChunkDecoder()
    streamed = ModelResponse.of([*decoder.feed(event(body), 0.1), *decoder.flush(0.2)])
    whole = ModelResponse.of(ChunkDecoder().decode_body(body, 0.1))
    assert streamed == replace(whole, raw=streamed.raw)
    assert decoder.finished
    parts = parsed.candidates[0].content.parts  # type: ignore[index, union-attr]
    assert whole.text == "".join(part.text or "" for part in parts or () if not part.thought)
    assert whole.reasoning == "".join(part.text or "" for part in parts or () if part.thought)
    calls = parsed.function_calls or []
    assert [(call.name, call.arguments) for call in whole.tool_calls] == [
        (call.name, call.args) for call in calls
    ]
    signatures = [part.thought_signature for part in parts or () if part.thought_signature]
    assert [base64.b64decode(b["thoughtSignature"]) for b in whole.reasoning_blocks] == signatures
    used = parsed.usage_metadata
    assert used is not None
    assert whole.usage is not None
    assert whole.usage.total_tokens == used.total_token_count
