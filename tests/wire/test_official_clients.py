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
import huggingface_hub
import ollama
import openai
import pytest

from llm_magics import ChatMessage, ModelParameters, ModelResponse, errors
from llm_magics.attachments import Image
from llm_magics.parameters import Tool
from llm_magics.providers import create_provider
from llm_magics.types import Embeddings, ToolCall
from tests.support import fake_anthropic, fake_huggingface, fake_ollama
from tests.support.fake_anthropic import FakeAnthropic
from tests.support.fake_huggingface import FakeHuggingFace
from tests.support.fake_media import WAV, FakeMedia
from tests.support.fake_ollama import FakeOllama
from tests.support.fake_openai import FakeOpenAI
from tests.support.serving import Asked, Says, Server, as_json, serving

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


# The headers that are a part of what a service documents; others name the client and its version.
HEADERS = ("content-type", "authorization", "x-api-key", "api-key", "anthropic-version")


def request(asked: Asked) -> dict[str, Any]:
    """All of a request: method, path with its query, headers, and its body decoded."""
    headers = {name: asked.headers[name] for name in HEADERS if name in asked.headers}
    body: Any = asked.body
    if asked.body.startswith(b"{"):
        body = asked.json()
    elif "multipart" in headers.get("content-type", ""):
        body = fields_of(asked.body)
        headers["content-type"] = headers["content-type"].partition(";")[0]
    return {"method": asked.method, "path": asked.path, "body": body, **headers}


def requests(server: Server) -> tuple[dict[str, Any], dict[str, Any]]:
    """The last two that were sent to the last address: theirs, then ours."""
    path = [asked.path for asked in server.asked if asked.body][-1]
    one, other = [request(asked) for asked in server.asked if asked.path == path][-2:]
    return one, other


def fields_of(body: bytes) -> set[bytes]:
    """The parts of a form, in whatever order."""
    boundary = body.split(b"\r\n", 1)[0]
    return {part.strip() for part in body.split(boundary)} - {b"", b"--"}


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
    one, other = requests(fake_openai)
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
    one, other = requests(fake_openai)
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
    one, other = requests(fake_openai)
    assert one == other
    assert one["body"]["encoding_format"] == "base64"
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
                        "type": "message",
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
        one, other = requests(server)
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
    for path in ("/images/generations", "/audio/transcriptions"):
        one, other = [request(asked) for asked in server.asked if asked.path == path]
        assert one == other


def as_ours(theirs: dict[str, Any]) -> dict[str, Any]:
    """
    What their client sends to Anthropic, but for two headers.

    It names a newer version of the interface (see the provider's setting ``api_version``), and
    sends the key as a bearer, which not all look-alikes take.
    """
    key = theirs.pop("authorization").removeprefix("Bearer ")
    return {**theirs, "x-api-key": key, "anthropic-version": "2023-06-01"}


def test_anthropic_messages() -> None:
    """Pictures, tools, thinking; the text, usage and stop of the answer."""
    with serving(FakeAnthropic()) as server:
        with anthropic.Anthropic(base_url=server.url, api_key=KEY, max_retries=0) as client:
            with client.messages.stream(
                model=fake_anthropic.CHAT,
                max_tokens=4096,
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
            max_tokens=4096, stop=("X",), tools=(TOOL,), tool_choice="auto", reasoning="low"
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
        one, other = requests(server)
    assert as_ours(one) == other
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
        one, other = requests(server)
    assert as_ours(one) == other
    assert count == counted.input_tokens


AUTHORIZED = {"Authorization": f"Bearer {KEY}"}

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
    client = ollama.Client(url, headers=AUTHORIZED)
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
    one, other = requests(fake_ollama_server)
    assert one | {"body": one["body"] | REFUSING} == other
    assert last is not None
    assert (answer.text, answer.finish_reason) == (text, last.done_reason)
    assert answer.usage.input_tokens == last.prompt_eval_count
    assert answer.usage.output_tokens == last.eval_count
    client.close()


def test_ollama_generate_and_embed(fake_ollama_server: Server) -> None:
    """Raw text, and vectors."""
    url = fake_ollama_server.url
    client = ollama.Client(url, headers=AUTHORIZED)
    parts = client.generate(
        fake_ollama.CHAT, "Once", raw=True, stream=True, options={"num_predict": 4}
    )
    text = "".join(part.response for part in parts)
    parameters = ModelParameters(max_tokens=4)
    answer = ours(
        "ollama", url, lambda p: p.generate_completion("Once", fake_ollama.CHAT, parameters)
    )
    one, other = requests(fake_ollama_server)
    assert one | {"body": one["body"] | REFUSING} == other
    assert answer.text == text
    theirs = client.embed(fake_ollama.EMBED, ["a", "b"], truncate=False)
    vectors = ours("ollama", url, lambda p: p.generate_embeddings(["a", "b"], fake_ollama.EMBED))
    one, other = requests(fake_ollama_server)
    assert one == other
    assert vectors == [list(vector) for vector in theirs.embeddings]
    client.close()


def test_ollama_keeps_house(fake_ollama_server: Server) -> None:
    """Show, pull and delete send the same; lists say the same."""
    url = fake_ollama_server.url
    client = ollama.Client(url, headers=AUTHORIZED)
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


CITY = {"type": "function", "function": TOOL.as_dict()}
NO_WORDS = ToolCall("c/2", "now", "")
ROUNDS = [
    ChatMessage("system", "be brief"),
    ChatMessage("user", "hi"),
    ChatMessage("assistant", "hello"),
    ChatMessage("user", "look", images=(PICTURE,)),
    ChatMessage("assistant", "I ask", tool_calls=(CALL, NO_WORDS)),
    ChatMessage("tool", "sunny", tool_call_id="c1", images=(PICTURE,)),
    ChatMessage("tool", "noon", tool_call_id="c/2", images=(PICTURE,)),
    ChatMessage("user", "so?"),
]
CHOICES = ["auto", "none", "required", "weather"]


def drain(events: Any) -> None:
    """Read a stream to its end."""
    for _ in events:
        pass


def openai_calls() -> list[dict[str, Any]]:
    """The calls of `ROUNDS` in OpenAI's format."""
    return [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": CALL.arguments_text}},
        {"id": "c/2", "type": "function", "function": {"name": "now", "arguments": "{}"}},
    ]  # fmt: skip


@pytest.mark.parametrize("choice", CHOICES)
def test_openai_chat_rounds(fake_openai: Server, choice: str) -> None:
    """Several turns, two calls at once, results with a picture, each choice of tools."""
    named: Any = {"type": "function", "function": {"name": choice}}
    picture = {"type": "image_url", "image_url": {"url": PICTURE.as_url}}
    messages: Any = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": [{"type": "text", "text": "look"}, picture]},
        {"role": "assistant", "content": "I ask", "tool_calls": openai_calls()},
        {"role": "tool", "content": "sunny", "tool_call_id": "c1"},
        {"role": "tool", "content": "noon", "tool_call_id": "c/2"},
        {"role": "user", "content": [picture, picture]},  # a result of a tool has no pictures
        {"role": "user", "content": "so?"},
    ]
    with theirs(fake_openai) as client:
        drain(
            client.chat.completions.create(
                model="gpt-test",
                messages=messages,
                tools=[CITY],  # type: ignore[list-item]
                tool_choice=named if choice == "weather" else choice,
                stream=True,
                stream_options={"include_usage": True},
                extra_body={"top_k": 3},
            )
        )
    parameters = ModelParameters(tools=(TOOL,), tool_choice=choice, extra_body={"top_k": 3})
    ours("openai", fake_openai.url, lambda p: p.generate_chat(ROUNDS, "gpt-test", parameters))
    one, other = requests(fake_openai)
    assert one == other


def test_openai_chat_on_azure(fake_openai: Server) -> None:
    """An address for each deployment, the version of the interface, and the key in its own header."""
    server = fake_openai
    with (
        openai.AzureOpenAI(
            azure_endpoint=server.url, api_version="2024-10-21", api_key=KEY, max_retries=0
        ) as client,
        pytest.raises(openai.AuthenticationError),  # the fake wants a bearer
    ):
        client.chat.completions.create(
            model="gpt-test",
            messages=[{"role": "user", "content": "hi"}],
            max_completion_tokens=4,
            stream=True,
            stream_options={"include_usage": True},
        )
    settings = {"profile": "azure", "api_version": "2024-10-21"}
    hi = [ChatMessage("user", "hi")]
    with pytest.raises(errors.AuthenticationError):
        ours(
            "openai",
            server.url,
            lambda p: p.generate_chat(hi, "gpt-test", ModelParameters(max_tokens=4)),
            **settings,
        )
    one, other = requests(server)
    assert one == other


@pytest.mark.parametrize("dimensions", [None, 8])
def test_openai_shortened_embeddings(fake_openai: Server, dimensions: int | None) -> None:
    """With and without a number of dimensions."""
    texts = ["a", "b"]
    shorter = {} if dimensions is None else {"dimensions": dimensions}
    with theirs(fake_openai) as client:
        client.embeddings.create(model="text-embedding-test", input=texts, **shorter)  # type: ignore[arg-type]

    async def embedded(provider: Any) -> Any:
        if dimensions is None:
            return await provider.generate_packed(texts, "text-embedding-test")
        return await provider.generate_shortened(texts, "text-embedding-test", dimensions)

    ours("openai", fake_openai.url, embedded, profile="openai")
    one, other = requests(fake_openai)
    assert one == other


@pytest.mark.parametrize("choice", CHOICES)
def test_openai_responses_rounds(choice: str) -> None:
    """The same talk in items: calls and results by their ids, reasoning, every parameter."""
    image = {"type": "input_image", "image_url": PICTURE.as_url}
    items: Any = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hello"}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "look"}, image]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I ask"}]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": CALL.arguments_text},
        {"type": "function_call", "call_id": "c/2", "name": "now", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "sunny"}, image]},
        {"type": "function_call_output", "call_id": "c/2", "output": [{"type": "input_text", "text": "noon"}, image]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "so?"}]},
    ]  # fmt: skip
    named: Any = {"type": "function", "name": choice}
    with serving(as_json({"error": {"message": "no"}}, 400)) as server:
        with theirs(server) as client, pytest.raises(openai.BadRequestError):
            client.responses.create(
                model="m",
                instructions="be brief",
                input=items,
                tools=[{"type": "function", **TOOL.as_dict()}],  # type: ignore[list-item, typeddict-item]
                tool_choice=named if choice == "weather" else choice,
                temperature=0.5,
                top_p=0.9,
                reasoning={"effort": "low", "summary": "auto"},
                stream=True,
                store=False,
                include=["reasoning.encrypted_content"],
            )
        parameters = ModelParameters(
            temperature=0.5, top_p=0.9, tools=(TOOL,), tool_choice=choice, reasoning="low"
        )
        with pytest.raises(errors.ProviderError):
            ours(
                "openai",
                server.url,
                lambda p: p.generate_chat(ROUNDS, "m", parameters),
                api="responses",
            )
        one, other = requests(server)
    assert one == other


@pytest.mark.parametrize("choice", CHOICES)
def test_anthropic_rounds(choice: str) -> None:
    """Results in one turn of the user with their ids, pictures by address, every parameter."""
    kinds: Any = {"auto": "auto", "none": "none", "required": "any"}
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PICTURE.base64}}  # fmt: skip
    far = Image(url="https://example.org/a.png")
    messages: Any = [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "hello"}]},
        {"role": "user", "content": [image, {"type": "text", "text": "look"}]},
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "I ask"},
                {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Paris"}},
                {"type": "tool_use", "id": "c_2", "name": "now", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "c1",
                    "content": [{"type": "text", "text": "sunny"}, image],
                },
                {
                    "type": "tool_result",
                    "tool_use_id": "c_2",
                    "content": [{"type": "text", "text": "noon"}, image],
                },
                {"type": "image", "source": {"type": "url", "url": far.url}},
                {"type": "text", "text": "so?"},
            ],
        },
    ]
    chosen: Any = {"type": "tool", "name": choice}
    with serving(
        as_json({"type": "error", "error": {"type": "x", "message": "no"}}, 400)
    ) as server:
        with (
            anthropic.Anthropic(base_url=server.url, api_key=KEY, max_retries=0) as client,
            pytest.raises(anthropic.BadRequestError),
        ):
            client.messages.create(
                model="m",
                max_tokens=4096,
                system=[{"type": "text", "text": "be brief"}],
                messages=messages,
                tools=[{"name": "weather", "description": "how it is", "input_schema": dict(TOOL.parameters)}],
                tool_choice=chosen if choice == "weather" else {"type": kinds[choice]},
                stream=True,
                extra_body={"temperature": 0.5, "top_p": 0.9, "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            )  # fmt: skip
        parameters = ModelParameters(
            temperature=0.5, top_p=0.9, tools=(TOOL,), tool_choice=choice, schema=SCHEMA
        )
        rounds = [*ROUNDS[:-1], replace(ROUNDS[-1], images=(far,))]
        with pytest.raises(errors.ProviderError):
            ours("anthropic", server.url, lambda p: p.generate_chat(rounds, "m", parameters))
        one, other = requests(server)
    assert as_ours(one) == other


def test_anthropic_marks_what_is_cached() -> None:
    """The tools, the system message and the last turn, as their client sends the marks."""
    mark: Any = {"cache_control": {"type": "ephemeral"}}
    with serving(
        as_json({"type": "error", "error": {"type": "x", "message": "no"}}, 400)
    ) as server:
        with (
            anthropic.Anthropic(base_url=server.url, api_key=KEY, max_retries=0) as client,
            pytest.raises(anthropic.BadRequestError),
        ):
            client.messages.create(
                model="m",
                max_tokens=9,
                system=[{"type": "text", "text": "be brief", **mark}],
                messages=[{"role": "user", "content": [{"type": "text", "text": "hi", **mark}]}],
                tools=[{"name": "weather", "description": "how it is", "input_schema": dict(TOOL.parameters), **mark}],
                thinking={"type": "disabled"},
                stream=True,
            )  # fmt: skip
        parameters = ModelParameters(max_tokens=9, tools=(TOOL,), reasoning=False)
        with pytest.raises(errors.ProviderError):
            ours(
                "anthropic",
                server.url,
                lambda p: p.generate_chat(TEXT_TALK, "m", parameters),
                cache_prompts=True,
            )
        one, other = requests(server)
    assert as_ours(one) == other


def test_ollama_rounds() -> None:
    """Pictures, calls and results by the tool's name; thinking."""
    calls: Any = [
        {"function": {"name": "weather", "arguments": {"city": "Paris"}}},
        {"function": {"name": "now", "arguments": {}}},
    ]
    messages: Any = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "look", "images": [PICTURE.base64]},
        {"role": "assistant", "content": "I ask", "tool_calls": calls},
        {"role": "tool", "content": "sunny", "tool_name": "weather", "images": [PICTURE.base64]},
        {"role": "tool", "content": "noon", "tool_name": "now", "images": [PICTURE.base64]},
        {"role": "user", "content": "so?"},
    ]

    def answer(asked: Asked) -> Says:
        able = ["completion", "tools", "vision", "thinking"]
        known: dict[str, Any] = {
            "/api/version": {"version": "0.24.0"},
            "/api/tags": {"models": [{"name": "m", "model": "m", "digest": "m", "details": {}}]},
            "/api/ps": {"models": []},
            "/api/show": {"capabilities": able, "model_info": {}, "details": {}},
        }
        return as_json(known.get(asked.path, {"error": "no"}), 200 if asked.path in known else 400)

    with serving(answer) as server:
        client = ollama.Client(server.url, headers=AUTHORIZED)
        with pytest.raises(ollama.ResponseError):
            drain(client.chat("m", messages=messages, tools=[CITY], think="low", stream=True))  # type: ignore[list-item]
        client.close()
        parameters = ModelParameters(tools=(TOOL,), reasoning="low")
        with pytest.raises(errors.ProviderError):
            ours("ollama", server.url, lambda p: p.generate_chat(ROUNDS, "m", parameters))
        one, other = [request(asked) for asked in server.asked if asked.path == "/api/chat"]
    assert one | {"body": one["body"] | REFUSING} == other


def test_ollama_shortened_embeddings(fake_ollama_server: Server) -> None:
    """With a number of dimensions, of a text that may be cut."""
    client = ollama.Client(fake_ollama_server.url, headers=AUTHORIZED)
    client.embed(fake_ollama.EMBED, ["a"], truncate=True, dimensions=8)
    client.close()
    ours(
        "ollama",
        fake_ollama_server.url,
        lambda p: p.generate_truncated(["a"], fake_ollama.EMBED, 8),
    )
    one, other = requests(fake_ollama_server)
    assert one == other


def test_huggingface() -> None:
    """Chat as OpenAI's, and feature extraction; their client leaves out what is a default."""
    with serving(FakeHuggingFace()) as server:
        client = huggingface_hub.InferenceClient(base_url=f"{server.url}/v1", api_key=KEY)
        drain(
            client.chat_completion(
                [{"role": "user", "content": "hi"}],
                model=fake_huggingface.CHAT,
                max_tokens=4,
                stream=True,
                stream_options={"include_usage": True},  # type: ignore[arg-type]
            )
        )
        hi = [ChatMessage("user", "hi")]
        parameters = ModelParameters(max_tokens=4)
        ours(
            "huggingface",
            server.url,
            lambda p: p.generate_chat(hi, fake_huggingface.CHAT, parameters),
        )
        one, other = [request(asked) for asked in server.asked if asked.path.endswith("/chat/completions")]  # fmt: skip
        assert one == other
        path = f"/hf-inference/models/{fake_huggingface.EMBED}/pipeline/feature-extraction"
        their_client = huggingface_hub.InferenceClient(model=f"{server.url}{path}", api_key=KEY)
        their_client.feature_extraction(["a", "b"], normalize=True)  # type: ignore[arg-type]
        ours(
            "huggingface",
            server.url,
            lambda p: p.generate_embeddings(["a", "b"], fake_huggingface.EMBED),
        )
        one, other = requests(server)
    assert one == other


@pytest.mark.parametrize(
    "options",
    [{"n": 2, "quality": "low"}, {"background": "transparent", "output_format": "webp"}],
)
def test_openai_image_options(options: dict[str, Any]) -> None:
    """The service's own options go to it as they are."""
    with serving(FakeMedia()) as server:
        with theirs(server) as client:
            client.images.generate(model="gpt-image-1", prompt="a cat", **options)
        ours("openai", server.url, lambda p: p.generate_image("a cat", "gpt-image-1", **options))
        one, other = requests(server)
    assert one == other


def test_openai_transcription_options() -> None:
    """Lists, numbers and truths as fields of the form."""
    options: dict[str, Any] = {"temperature": 0.2, "timestamp_granularities": ["word", "segment"], "prompt": "hm"}  # fmt: skip
    with serving(FakeMedia()) as server:
        with theirs(server) as client:
            client.audio.transcriptions.create(
                model="whisper-1",
                file=("audio.wav", WAV, "audio/wav"),
                response_format="verbose_json",
                **options,
            )
        ours(
            "openai",
            server.url,
            lambda p: p.transcribe(WAV, "whisper-1", format="verbose_json", **options),
        )
        one, other = requests(server)
    assert one == other


def test_the_answers_are_responses() -> None:
    """What the oracles were compared with is the public value."""
    with serving(FakeOpenAI()) as server:
        answer = ours(
            "openai",
            server.url,
            lambda p: p.generate_chat(TEXT_TALK, "gpt-test", ModelParameters()),
        )
    assert isinstance(answer, ModelResponse)
