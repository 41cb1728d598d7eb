"""
A real llama.cpp speaks OpenAI's chat, completions, responses and embeddings, and Anthropic's
messages: our providers for these all talk to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest

import llm_magics as lm
from llm_magics import ChatMessage, ModelParameters, ModelResponse, errors
from llm_magics.providers import create_provider
from llm_magics.providers.local import LocalProvider
from llm_magics.providers.local.process import Engine
from llm_magics.runtime.response import Response
from llm_magics.runtime.session import session

pytestmark = pytest.mark.weights

TALK = [ChatMessage("system", "Be brief."), ChatMessage("user", "Name a colour.")]
SHORT = ModelParameters(max_tokens=5, temperature=0)
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"], "additionalProperties": False}  # fmt: skip


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, Engine]]:
    """Two real engines: one that chats, one that embeds."""
    provider = LocalProvider()

    async def started() -> dict[str, Engine]:
        chat, *_ = await provider._clients_of("smollm2-135m", "chat")
        embed, *_ = await provider._clients_of("minilm-l6-v2", "embeddings")
        return {"chat": chat.engine, "embed": embed.engine}

    yield asyncio.run(started())
    asyncio.run(provider.close())


def used(name: str, engine: Engine, do: Callable[[Any], Any], **settings: Any) -> Any:
    """What ``do`` gives, called with a provider that talks to ``engine``."""
    base_url = f"{engine.addresses[0]}/v1" if name == "openai" else engine.addresses[0]

    async def use() -> Any:
        made = create_provider(name, base_url=base_url, api_key=engine.key, **settings)
        async with made:
            return await do(made)

    return asyncio.run(use())


@pytest.mark.parametrize("name", ["openai", "anthropic", "lmstudio"])
def test_they_all_chat(name: str, servers: dict[str, Engine]) -> None:
    """Streamed and whole, with usage and finish; the same words whichever way it is asked."""

    async def both(provider: Any) -> tuple[ModelResponse, ModelResponse]:
        streamed = await provider.generate_chat(TALK, "m", SHORT.with_stream())
        whole = ModelResponse.of([chunk async for chunk in streamed])
        return whole, await provider.generate_chat(TALK, "m", SHORT)

    streamed, whole = used(name, servers["chat"], both)
    assert streamed.text == whole.text != ""
    assert whole.finish_reason == streamed.finish_reason == "length"
    assert whole.usage.output_tokens == 5
    assert whole.text == used("openai", servers["chat"], lambda p: p.generate_chat(TALK, "m", SHORT)).text  # fmt: skip


@pytest.mark.parametrize("name", ["openai", "anthropic", "lmstudio"])
def test_many_in_a_row(name: str, servers: dict[str, Engine]) -> None:
    """Its server drops kept connections after a stream: none of twenty calls fails for it."""

    async def many(provider: Any) -> int:
        tiny = ModelParameters(max_tokens=1, temperature=0)
        answers = [await provider.generate_chat(TALK, "m", tiny) for _ in range(20)]
        return len(answers)

    assert used(name, servers["chat"], many) == 20


def test_the_same_by_the_official_clients(servers: dict[str, Engine]) -> None:
    """Theirs and ours hear the same from the same server."""
    engine = servers["chat"]
    key = engine.key.reveal()
    with openai.OpenAI(base_url=f"{engine.addresses[0]}/v1", api_key=key, max_retries=3) as client:
        theirs = client.chat.completions.create(
            model="m",
            messages=[
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Name a colour."},
            ],
            max_tokens=5,
            temperature=0,
        )
    ours = used("openai", servers["chat"], lambda p: p.generate_chat(TALK, "m", SHORT))
    assert ours.text == theirs.choices[0].message.content
    assert theirs.usage is not None
    assert ours.usage.input_tokens == theirs.usage.prompt_tokens
    with anthropic.Anthropic(base_url=engine.addresses[0], api_key=key, max_retries=3) as client:
        message = client.messages.create(
            model="m",
            max_tokens=5,
            system="Be brief.",
            messages=[{"role": "user", "content": "Name a colour."}],
            extra_body={"temperature": 0},
        )
        counted = client.messages.count_tokens(
            model="m",
            system="Be brief.",
            messages=[{"role": "user", "content": "Name a colour."}],
        )
    ours = used("anthropic", servers["chat"], lambda p: p.generate_chat(TALK, "m", SHORT))
    assert ours.text == getattr(message.content[0], "text", None)
    count = used("anthropic", servers["chat"], lambda p: p.count_tokens(TALK, "m"))
    assert count == counted.input_tokens


def test_responses_completions_and_lists(servers: dict[str, Engine]) -> None:
    """OpenAI's other interfaces; the list tells the context that it was started with."""
    engine = servers["chat"]
    response = used("openai", engine, lambda p: p.generate_chat(TALK, "m", SHORT), api="responses")
    assert response.text
    assert response.usage.output_tokens == 5
    completed = used("openai", engine, lambda p: p.generate_completion("Once upon", "m", SHORT))
    assert completed.text
    assert completed.timings.generation_s > 0
    (info,) = used("openai", engine, lambda p: p.describe_models())
    assert info.context == 8192


@pytest.mark.parametrize("name", ["openai", "lmstudio"])
def test_they_all_embed(name: str, servers: dict[str, Engine]) -> None:
    """As numbers and in base64; MiniLM's own published likenesses."""
    texts = ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]  # fmt: skip
    ways: list[dict[str, str]] = [{}, {"profile": "openai"}] if name == "openai" else [{}]
    for settings in ways:
        a, *others = used(
            name, servers["embed"], lambda p: p.generate_embeddings(texts, "m"), **settings
        )
        likeness = [sum(x * y for x, y in zip(a, other, strict=True)) for other in others]
        assert likeness == pytest.approx([0.695, 0.943, 0.257], abs=5e-3)


@pytest.mark.parametrize("name", ["openai", "lmstudio"])
def test_a_schema_binds_it(name: str, servers: dict[str, Engine]) -> None:
    """llama.cpp writes nothing that does not fit; the value comes out checked."""
    asked = [ChatMessage("user", "How old is Bob? Bob is 30.")]
    parameters = ModelParameters(max_tokens=60, temperature=0, schema=SCHEMA)
    answer = used(name, servers["chat"], lambda p: p.generate_chat(asked, "m", parameters))
    assert isinstance(Response(answer.text, schema=SCHEMA).data["age"], int)


def test_a_schema_by_the_shared_road() -> None:
    """``lm.ask`` with fields in short: native where the engine has it, checked in any case."""
    answer = lm.ask("Bob is 30 years old.", schema="age int", temperature=0, max_tokens=60)
    assert isinstance(answer.data["age"], int)
    lm.config.schema_retries = 0
    with pytest.raises(errors.ParseError) as caught:
        lm.ask("no JSON here", model="echo/echo", schema="age int")
    assert caught.value.partial.text == "no JSON here"
    with pytest.raises(errors.ParseError, match=r"answer\.age"):
        lm.ask('{"age": "old"}', model="echo/echo", schema="age int")
    assert session.runs.frame()["kind"].tolist()[-3:] == ["chat"] * 3


@pytest.mark.parametrize("name", ["openai", "anthropic", "lmstudio"])
def test_its_refusals_have_their_class(name: str, servers: dict[str, Engine]) -> None:
    """Too long a prompt and a wrong key, in OpenAI's shape on every path."""
    long = [ChatMessage("user", "hi " * 10_000)]
    with pytest.raises(errors.ContextLengthError, match="8192"):
        used(name, servers["chat"], lambda p: p.generate_chat(long, "m", SHORT))
    engine = servers["chat"]
    stranger = create_provider(name, base_url=f"{engine.addresses[0]}{'/v1' if name == 'openai' else ''}", api_key="wrong")  # fmt: skip
    with pytest.raises(errors.AuthenticationError):
        asyncio.run(stranger.generate_chat(TALK, "m", SHORT))


def test_what_an_engine_cannot_do(servers: dict[str, Engine]) -> None:
    """A chat model embeds nothing: 501, which asking again does not change."""
    with pytest.raises(errors.ProviderError) as caught:
        used("openai", servers["chat"], lambda p: p.generate_embeddings(["a"], "m"))
    assert not caught.value.retryable


@pytest.mark.parametrize("name", ["openai", "anthropic", "lmstudio"])
def test_leaving_frees_the_engine(name: str, servers: dict[str, Engine]) -> None:
    """A stream that is left stops the model: the next answer does not wait for its end."""

    async def leave(provider: Any) -> float:
        long = ModelParameters(max_tokens=2000, stream=True, temperature=0)
        clock = asyncio.get_running_loop().time
        async with provider:
            answer = await provider.generate_chat(TALK, "m", long)
            await anext(answer)
            await answer.aclose()
            started = clock()
            await provider.generate_chat(TALK, "m", ModelParameters(max_tokens=1))
            return clock() - started

    assert used(name, servers["chat"], leave) < 10  # 2,000 tokens would take half a minute
