"""Prompts that are longer than the context, and answers that reach its end."""

from __future__ import annotations

import asyncio
import re

import pytest

import llm_magics as lm
from llm_magics import ChatMessage, errors
from tests.support.live import Target, answer_of

pytestmark = pytest.mark.live

# Prompts are short and ask for a smaller context: where the model reads for seconds, Ollama
# 0.30.0 stumbles over its own keep-alive lines.
CONTEXT = 256
LONG = "The sea is wide. " * 80


def talk(turns: int) -> list[ChatMessage]:
    """A conversation, whose oldest turns the server would drop."""
    said = []
    for number in range(turns):
        said.append(ChatMessage("user", f"turn {number} " + "alpha beta gamma " * 8))
        said.append(ChatMessage("assistant", "ok " * 10))
    return [*said, ChatMessage("user", "And now?")]


def test_a_long_prompt_is_refused_with_the_numbers(ollama: Target) -> None:
    """As is the way to raise the context; with it, the prompt is read."""
    model = f"ollama/{ollama.chat}"
    with pytest.raises(errors.ContextLengthError, match=str(CONTEXT)) as caught:
        lm.ask(LONG, model=model, num_ctx=CONTEXT, **ollama.parameters)
    assert re.search(r"request \(\d{3} tokens\)", str(caught.value))
    size = re.search(r"num_ctx=(\d+)", str(caught.value.hint))
    assert size is not None
    prompt = f"{LONG} Name a colour."
    assert lm.ask(prompt, model=model, num_ctx=int(size[1]), **ollama.parameters).text


@pytest.mark.parametrize("prompt", [talk(8), LONG], ids=["conversation", "raw text"])
def test_a_cut_is_made_where_it_is_asked_for(
    ollama: Target, prompt: list[ChatMessage] | str
) -> None:
    """The oldest turns, or the end of a text, go only with ``truncate=True``."""

    async def use() -> None:
        async with ollama.create() as provider:
            small = {"num_ctx": CONTEXT}
            with pytest.raises(errors.ContextLengthError):
                await answer_of(provider, prompt, ollama.chat, ollama.short(extra_body=small))
            asked = ollama.short(extra_body={**small, "truncate": True})
            assert (await answer_of(provider, prompt, ollama.chat, asked)).finish_reason

    asyncio.run(use())


def test_an_answer_ends_with_the_context(ollama: Target) -> None:
    """Nothing that was said is dropped to go on, and the answer says that it was cut."""

    async def use() -> None:
        async with ollama.create() as provider:
            asked = ollama.short(max_tokens=None, extra_body={"num_ctx": CONTEXT})
            prompt = " ".join(map(str, range(1, 40)))
            answer = await answer_of(provider, prompt, ollama.chat, asked)
            assert answer.finish_reason == "length"
            assert answer.usage is not None
            assert (answer.usage.output_tokens or 0) < CONTEXT

    asyncio.run(use())


def test_a_prompt_beyond_the_context_is_refused(target: Target) -> None:
    """Wherever the server does not cut it in silence, with no word of the prompt sent twice."""
    if target.at == "OLLAMA_HOST" and target.name != "ollama":
        pytest.skip("Ollama's look-alikes cut a prompt that is too long without a word")
    if target.at not in ("OLLAMA_HOST", "LIVE_LLAMA_SERVER"):
        pytest.skip("a prompt beyond the context of a service in the cloud costs much")
    with pytest.raises(errors.ContextLengthError) as caught:
        lm.ask("word " * 2200, model=f"live/{target.chat}", max_tokens=1)
    assert caught.value.retryable is False
    assert lm.runs().retries.iloc[-1] == 0
