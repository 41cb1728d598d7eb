"""The OpenAI and Anthropic interfaces of local servers, beside the official clients."""

from __future__ import annotations

import asyncio

import anthropic
import openai
import pytest

import llm_magics as lm
from llm_magics import ChatMessage
from tests.support.live import TARGETS, Target, answer_of, needs

pytestmark = pytest.mark.live

PROMPT = "Write a sentence about the sea."
MOST = 12
OLLAMA = ["ollama-chat", "ollama-responses", "ollama-messages"]
LLAMA_SERVER = ["llama-chat", "llama-responses", "llama-messages"]


def said_to_the_official_client(target: Target) -> str:
    """The text that the service's own client reads."""
    address = str(target.config["base_url"])
    if target.provider == "anthropic":
        with anthropic.Anthropic(base_url=address, api_key="none") as client:
            message = client.messages.create(
                model=target.chat,
                max_tokens=MOST,
                messages=[{"role": "user", "content": PROMPT}],
                extra_body={"temperature": 0},
            )
            return "".join(block.text for block in message.content if block.type == "text")
    with openai.OpenAI(base_url=address, api_key="none") as client:
        if target.config.get("api") == "responses":
            response = client.responses.create(
                model=target.chat, input=PROMPT, max_output_tokens=MOST, temperature=0
            )
            return str(response.output_text)
        answer = client.chat.completions.create(
            model=target.chat,
            messages=[{"role": "user", "content": PROMPT}],
            max_tokens=MOST,
            temperature=0,
        )
        return str(answer.choices[0].message.content)


@pytest.mark.parametrize("target", [*OLLAMA, *LLAMA_SERVER], indirect=True)
def test_the_official_client_reads_the_same(target: Target) -> None:
    """Text, and how it ended, as the client of OpenAI or Anthropic has it."""
    answer = lm.ask(PROMPT, model=f"live/{target.chat}", max_tokens=MOST, temperature=0)
    assert answer.text == said_to_the_official_client(target)
    assert answer.finish_reason == "length"
    assert answer.cost_usd is None or answer.cost_usd == 0


@needs("OLLAMA_HOST")
@pytest.mark.parametrize("target", OLLAMA, indirect=True)
def test_an_interface_answers_as_the_native_one(target: Target) -> None:
    """The same model, the same prompt, and the same words."""

    async def use() -> None:
        native = TARGETS["ollama"]
        async with target.create() as one, native.create() as other:
            messages = [ChatMessage("user", PROMPT)]
            first = await answer_of(one, messages, target.chat, target.short())
            second = await answer_of(other, messages, native.chat, native.short())
        assert first.text == second.text

    asyncio.run(use())


@needs("LIVE_LLAMA_SERVER")
@pytest.mark.parametrize("target", LLAMA_SERVER, indirect=True)
def test_tokens_of_a_repeated_prompt_come_from_the_cache(target: Target) -> None:
    """They are a part of the prompt's tokens, in each of the formats."""
    first = lm.ask(PROMPT, model=f"live/{target.chat}", **target.parameters)
    second = lm.ask(PROMPT, model=f"live/{target.chat}", **target.parameters)
    assert first.usage.input_tokens == second.usage.input_tokens
    assert second.usage.cached_tokens
    assert second.usage.cached_tokens <= (second.usage.input_tokens or 0)


@needs("LIVE_LLAMA_SERVER")
@pytest.mark.parametrize("target", ["llama-chat"], indirect=True)
def test_llama_server_tells_its_context(target: Target) -> None:
    """That of one slot: what it was started with, and not what the model could read."""
    table = lm.models("live/*").set_index("model")
    assert table.context["live/smollm2"] == 2048


@pytest.mark.parametrize("target", [*OLLAMA, *LLAMA_SERVER], indirect=True)
def test_a_column_is_answered(target: Target) -> None:
    """Rows at once, as many as the server likes, each with its own answer."""
    import pandas as pd

    frame = pd.DataFrame({"n": [f"number {n}" for n in range(6)]})
    frame.llm.prompt(
        "Say something of the {{ n }}, please.",
        into="answer",
        model=f"live/{target.chat}",
        **target.parameters,
    )
    assert frame.answer.notna().all()
    assert len(lm.runs()) == len(frame)
    assert lm.runs().error.isna().all()
