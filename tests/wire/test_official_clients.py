"""
The official clients as oracles.

The same call through theirs and through ours, against the same server, sends the same body —
up to the differences that each test names — and gives the same result.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import anthropic
import ollama
import openai
import pytest

from llm_magics import ChatMessage, ModelParameters, ModelResponse
from llm_magics.attachments import Image
from llm_magics.parameters import Tool
from llm_magics.providers import create_provider
from llm_magics.types import Embeddings, ToolCall
from tests.support import fake_anthropic, fake_ollama
from tests.support.fake_anthropic import FakeAnthropic
from tests.support.fake_media import WAV, FakeMedia
from tests.support.fake_ollama import FakeOllama
from tests.support.fake_openai import FakeOpenAI
from tests.support.serving import Says, Server, serving

KEY = "a-key-of-the-test"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)
PICTURE = Image(PNG)
TOOL = Tool("weather", "how it is", {"type": "object", "properties": {"city": {"type": "string"}}})
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}  # fmt: skip
CALL = ToolCall("c1", "weather", '{"city": "Paris"}')
TALK = [
    ChatMessage("system", "be brief"),
    ChatMessage("user", "look", images=(PICTURE,)),
    ChatMessage("assistant", "", tool_calls=(CALL,)),
    ChatMessage("tool", "sunny", tool_call_id="c1"),
]
THOUGHT = {"type": "thinking", "thinking": "hm", "signature": fake_anthropic.signature("hm")}
TEXT_TALK = [ChatMessage("system", "be brief"), ChatMessage("user", "hi")]


def ours(name: str, url: str, do: Callable[[Any], Any], **settings: Any) -> Any:
    """What ``do`` gives with our provider."""

    async def use() -> Any:
        async with create_provider(name, base_url=url, api_key=KEY, **settings) as provider:
            return await do(provider)

    return asyncio.run(use())


@pytest.fixture
def fake_openai() -> Iterator[Server]:
    """A server of OpenAI's formats."""
    with serving(FakeOpenAI()) as server:
        yield server


def theirs(server: Server) -> openai.OpenAI:
    """The official client, asking once."""
    return openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0)


def bodies(server: Server) -> tuple[dict[str, Any], dict[str, Any]]:
    """The last two that were sent to the last address: theirs, then ours."""
    path = [asked.path for asked in server.asked if asked.body][-1]
    one, other = [asked.json() for asked in server.asked if asked.path == path][-2:]
    return one, other


def test_openai_chat(fake_openai: Server) -> None:
    """Pictures, tools, schema, every parameter; the text, usage and finish of the answer."""
    with theirs(fake_openai) as client:
        stream = client.chat.completions.create(
            model="gpt-test",
            messages=[
                {"role": "system", "content": "be brief"},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "look"},
                        {"type": "image_url", "image_url": {"url": PICTURE.as_url}},
                    ],
                },
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [
                        {
                            "id": "c1",
                            "type": "function",
                            "function": {"name": "weather", "arguments": '{"city": "Paris"}'},
                        }
                    ],
                },
                {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
            ],
            tools=[{"type": "function", "function": TOOL.as_dict()}],  # type: ignore[list-item, typeddict-item]
            tool_choice="auto",
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
            },
            temperature=0.5,
            top_p=0.9,
            max_tokens=5,
            seed=3,
            stop=["X"],
            reasoning_effort="low",
            stream=True,
            stream_options={"include_usage": True},
        )
        text, usage, finish = "", None, None
        for event in stream:
            usage = event.usage or usage
            for choice in event.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
    parameters = ModelParameters(
        temperature=0.5,
        top_p=0.9,
        max_tokens=5,
        seed=3,
        stop=("X",),
        tools=(TOOL,),
        tool_choice="auto",
        schema=SCHEMA,
        reasoning="low",
    )
    answer = ours(
        "openai", fake_openai.url, lambda p: p.generate_chat(TALK, "gpt-test", parameters)
    )
    one, other = bodies(fake_openai)
    assert one == other
    assert (answer.text, answer.finish_reason) == (text, finish)
    assert usage is not None
    assert answer.usage.output_tokens == usage.completion_tokens == 5


def test_openai_completion(fake_openai: Server) -> None:
    """Raw text in, its continuation out."""
    with theirs(fake_openai) as client:
        stream = client.completions.create(
            model="gpt-test",
            prompt="Once",
            max_tokens=4,
            stream=True,
            stream_options={"include_usage": True},
        )
        text = "".join(event.choices[0].text or "" for event in stream if event.choices)
    parameters = ModelParameters(max_tokens=4)
    answer = ours(
        "openai",
        fake_openai.url,
        lambda p: p.generate_completion("Once", "gpt-test", parameters),
    )
    one, other = bodies(fake_openai)
    assert one == other
    assert answer.text == text


def test_openai_embeddings(fake_openai: Server) -> None:
    """In base64, the same float32 numbers; theirs come as sent, ours in the order of the texts."""
    with theirs(fake_openai) as client:
        reply = client.embeddings.create(model="text-embedding-test", input=["a", "b"])
    vectors = ours(
        "openai",
        fake_openai.url,
        lambda p: p.generate_embeddings(["a", "b"], "text-embedding-test"),
        profile="openai",
    )
    one, other = bodies(fake_openai)
    assert one == other
    assert one["encoding_format"] == "base64"
    assert vectors == [row.embedding for row in sorted(reply.data, key=lambda row: row.index)]
    assert isinstance(vectors, Embeddings)
    assert vectors.usage is not None
    assert vectors.usage.input_tokens == reply.usage.prompt_tokens


def test_openai_list(fake_openai: Server) -> None:
    """The same models."""
    with theirs(fake_openai) as client:
        names = [model.id for model in client.models.list()]
    assert ours("openai", fake_openai.url, lambda p: p.list_models()) == sorted(names)


def test_openai_responses() -> None:
    """The same input items, instructions, tools and format; ours streams, and stores nothing."""
    response = {
        "type": "response.completed",
        "sequence_number": 1,
        "response": {
            "id": "r",
            "object": "response",
            "created_at": 1,
            "model": "m",
            "output": [],
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "status": "completed",
            "usage": {
                "input_tokens": 1,
                "output_tokens": 2,
                "total_tokens": 3,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens_details": {"reasoning_tokens": 0},
            },
        },
    }
    delta = {"type": "response.output_text.delta", "delta": "hi", "sequence_number": 0, "item_id": "i", "output_index": 0, "content_index": 0, "logprobs": []}  # fmt: skip
    stream = [
        f"event: {each['type']}\ndata: {json.dumps(each)}\n\n".encode()
        for each in (delta, response)
    ]
    with serving(Says(stream)) as server:
        with theirs(server) as client:
            events = client.responses.create(
                model="m",
                instructions="be brief",
                input=[
                    {
                        "role": "user",
                        "content": [
                            {"type": "input_text", "text": "look"},
                            {"type": "input_image", "image_url": PICTURE.as_url},  # type: ignore[list-item, typeddict-item]
                        ],
                    },
                    {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Paris"}'},
                    {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
                ],
                tools=[{"type": "function", **TOOL.as_dict()}],  # type: ignore[list-item, typeddict-item]
                text={"format": {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}},
                max_output_tokens=9,
                stream=True,
                store=False,
                include=["reasoning.encrypted_content"],
            )  # fmt: skip
            text = "".join(
                event.delta for event in events if event.type == "response.output_text.delta"
            )
        parameters = ModelParameters(max_tokens=9, tools=(TOOL,), schema=SCHEMA)
        answer = ours(
            "openai",
            server.url,
            lambda p: p.generate_chat(TALK, "m", parameters),
            api="responses",
        )
        one, other = bodies(server)
    assert one == other
    assert answer.text == text == "hi"
    assert answer.usage.output_tokens == 2


def test_openai_media() -> None:
    """Pictures and speech: the same request, the same bytes and words."""
    with serving(FakeMedia()) as server:
        with theirs(server) as client:
            made = client.images.generate(model="gpt-image-1", prompt="a cat", size="1024x1024")
            said = client.audio.transcriptions.create(
                model="whisper-1",
                file=("audio.wav", WAV, "audio/wav"),
                response_format="json",
                language="en",
            )
        assert made.data is not None
        picture = base64.b64decode(made.data[0].b64_json or "")
        assert [picture] == ours(
            "openai",
            server.url,
            lambda p: p.generate_image("a cat", "gpt-image-1", size="1024x1024"),
        )
        assert said.text == ours(
            "openai", server.url, lambda p: p.transcribe(WAV, "whisper-1", language="en")
        )
    images = [asked.json() for asked in server.asked if "images" in asked.path]
    assert images[0] == images[1]
    forms = [fields_of(asked.body) for asked in server.asked if "audio" in asked.path]
    assert forms[0] == forms[1]


def fields_of(body: bytes) -> set[bytes]:
    """The parts of a form, in whatever order."""
    boundary = body.split(b"\r\n", 1)[0]
    return {part.strip() for part in body.split(boundary)} - {b"", b"--"}


def test_anthropic_messages() -> None:
    """
    Pictures, tools, thinking; the text, usage and stop of the answer.

    Theirs asks a newer version of the interface, in another header: see the provider's setting.
    """
    with serving(FakeAnthropic()) as server:
        with anthropic.Anthropic(base_url=server.url, api_key=KEY, max_retries=0) as client:
            with client.messages.stream(
                model=fake_anthropic.CHAT,
                max_tokens=2000,
                system=[{"type": "text", "text": "be brief"}],
                messages=[
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "image",
                                "source": {
                                    "type": "base64",
                                    "media_type": "image/png",
                                    "data": PICTURE.base64,
                                },
                            },
                            {"type": "text", "text": "look"},
                        ],
                    },
                    {
                        "role": "assistant",
                        "content": [
                            THOUGHT,  # type: ignore[list-item]
                            {
                                "type": "tool_use",
                                "id": "c1",
                                "name": "weather",
                                "input": {"city": "Paris"},
                            },
                        ],
                    },
                    {
                        "role": "user",
                        "content": [
                            {"type": "tool_result", "tool_use_id": "c1", "content": "sunny"}
                        ],
                    },
                ],
                tools=[
                    {
                        "name": "weather",
                        "description": "how it is",
                        "input_schema": dict(TOOL.parameters),
                    }
                ],
                tool_choice={"type": "auto"},
                thinking={"type": "enabled", "budget_tokens": 1024},
                stop_sequences=["X"],
            ) as stream:
                message = stream.get_final_message()
            names = [model.id for model in client.models.list()]
        parameters = ModelParameters(
            max_tokens=2000, stop=("X",), tools=(TOOL,), tool_choice="auto", reasoning="low"
        )
        talk = [
            replace(each, reasoning_blocks=(THOUGHT,)) if each.tool_calls else each
            for each in TALK
        ]
        answer = ours(
            "anthropic",
            server.url,
            lambda p: p.generate_chat(talk, fake_anthropic.CHAT, parameters),
        )
        assert ours("anthropic", server.url, lambda p: p.list_models()) == names
        one, other = bodies(server)
    assert one == other
    (block,) = message.content
    assert answer.text == getattr(block, "text", None)
    read = message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (
        read,
        message.usage.output_tokens,
    )


def test_anthropic_counts_tokens() -> None:
    """The same body, the same count."""
    with serving(FakeAnthropic()) as server:
        with anthropic.Anthropic(base_url=server.url, api_key=KEY, max_retries=0) as client:
            counted = client.messages.count_tokens(
                model=fake_anthropic.CHAT,
                system=[{"type": "text", "text": "be brief"}],
                messages=[{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
            )
        count = ours(
            "anthropic", server.url, lambda p: p.count_tokens(TEXT_TALK, fake_anthropic.CHAT)
        )
        one, other = bodies(server)
    assert one == other
    assert count == counted.input_tokens


# The official client cannot say that a long prompt is to be refused.
REFUSING = {"truncate": False, "shift": False}


@pytest.fixture
def fake_ollama_server() -> Iterator[Server]:
    """A server of Ollama's own API."""
    with serving(FakeOllama()) as server:
        yield server


def test_ollama_chat(fake_ollama_server: Server) -> None:
    """Tools and options; the text, counts and finish. Ours leaves out what is empty."""
    url = fake_ollama_server.url
    client = ollama.Client(url)
    text, last = "", None
    for part in client.chat(
        fake_ollama.CHAT,
        messages=[{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}],
        tools=[{"type": "function", "function": TOOL.as_dict()}],
        options={"temperature": 0.5, "num_predict": 5, "seed": 3, "stop": ["X"], "top_p": 0.9},
        format=SCHEMA,
        think=False,
        stream=True,
    ):
        text, last = text + (part.message.content or ""), part
    parameters = ModelParameters(
        temperature=0.5,
        max_tokens=5,
        seed=3,
        stop=("X",),
        top_p=0.9,
        tools=(TOOL,),
        schema=SCHEMA,
        reasoning=False,
    )
    answer = ours(
        "ollama", url, lambda p: p.generate_chat(TEXT_TALK, fake_ollama.CHAT, parameters)
    )
    one, other = bodies(fake_ollama_server)
    assert one | REFUSING == other
    assert last is not None
    assert (answer.text, answer.finish_reason) == (text, last.done_reason)
    assert answer.usage.input_tokens == last.prompt_eval_count
    assert answer.usage.output_tokens == last.eval_count
    client.close()


def test_ollama_generate_and_embed(fake_ollama_server: Server) -> None:
    """Raw text, and vectors."""
    url = fake_ollama_server.url
    client = ollama.Client(url)
    parts = client.generate(
        fake_ollama.CHAT, "Once", raw=True, stream=True, options={"num_predict": 4}
    )
    text = "".join(part.response for part in parts)
    parameters = ModelParameters(max_tokens=4)
    answer = ours(
        "ollama", url, lambda p: p.generate_completion("Once", fake_ollama.CHAT, parameters)
    )
    one, other = bodies(fake_ollama_server)
    assert one | REFUSING == other
    assert answer.text == text
    theirs = client.embed(fake_ollama.EMBED, ["a", "b"], truncate=False)
    vectors = ours("ollama", url, lambda p: p.generate_embeddings(["a", "b"], fake_ollama.EMBED))
    one, other = bodies(fake_ollama_server)
    assert one == other
    assert vectors == [list(vector) for vector in theirs.embeddings]
    client.close()


def test_ollama_keeps_house(fake_ollama_server: Server) -> None:
    """Show, pull and delete send the same; lists say the same."""
    url = fake_ollama_server.url
    client = ollama.Client(url)
    for do, our_own in (
        (lambda: client.show(fake_ollama.CHAT), lambda p: p.show_model(fake_ollama.CHAT)),
        (lambda: list(client.pull("new:1b", stream=True)), lambda p: all_of(p.pull_model("new:1b"))),
        (lambda: client.delete(fake_ollama.EMBED), None),
    ):  # fmt: skip
        do()
        sent = fake_ollama_server.asked[-1]
        if our_own is None:
            list(client.pull(fake_ollama.EMBED, stream=True))
            ours("ollama", url, lambda p: p.delete_model(fake_ollama.EMBED))
        else:
            ours("ollama", url, our_own)
        own = fake_ollama_server.asked[-1]
        same = {**sent.json()}
        for name in ("stream", "insecure"):  # a pull streams, and is never insecure, anyway
            same.pop(name, None)
        assert (own.method, own.path) == (sent.method, sent.path)
        assert {key: value for key, value in own.json().items() if key != "stream"} == same
    names = [model.model for model in client.list().models]
    assert ours("ollama", url, lambda p: p.list_models()) == names
    client.close()


async def all_of(progress: Any) -> list[Any]:
    """All that a generator yields."""
    return [each async for each in progress]


def test_the_answers_are_responses() -> None:
    """What the oracles were compared with is the public value."""
    with serving(FakeOpenAI()) as server:
        answer = ours(
            "openai",
            server.url,
            lambda p: p.generate_chat(TEXT_TALK, "gpt-test", ModelParameters()),
        )
    assert isinstance(answer, ModelResponse)
