"""Ask, stream and their asynchronous forms."""

from collections.abc import Mapping
from typing import Any, assert_type

import pandas as pd

import llm_magics as lm


def ask() -> None:
    """An answer is a `Response` with typed attributes."""
    answer = lm.ask(
        "Name {{ n }} cities.",
        "echo/echo",
        system="Be brief.",
        variables={"n": 3},
        images=["map.png"],
        schema={"type": "object", "properties": {"cities": {"type": "array"}}},
        temperature=0,
        max_tokens=50,
        fresh=True,
    )
    assert_type(answer, lm.Response)
    assert_type(answer.text, str)
    assert_type(answer.model, str)
    assert_type(answer.cached, bool)
    assert_type(answer.data, Any)
    for call in answer.tool_calls:
        assert_type(call.name, str)
        assert_type(call.arguments, dict[str, Any])
    if answer.usage is not None:
        assert_type(answer.usage.input_tokens, int | None)
    assert_type(answer.timing.ttft_s, float | None)
    assert_type(answer.timing.tokens_per_s, float | None)


def stream() -> str:
    """A stream yields chunks and holds the answer in the end."""
    text = ""
    with lm.stream("Count to three.", model="echo/echo") as chunks:
        for chunk in chunks:
            assert_type(chunk, lm.StreamChunk)
            assert_type(chunk.text, str)
            assert_type(chunk.elapsed_s, float | None)
            text += chunk.text
    assert_type(chunks.response, lm.Response)
    return text


async def ask_and_stream() -> None:
    """The asynchronous forms take the same arguments."""
    assert_type(await lm.aask("Hello.", model="echo/echo", schema="name, age int"), lm.Response)
    async with lm.astream("Hello.", model="echo/echo") as chunks:
        async for chunk in chunks:
            assert_type(chunk, lm.StreamChunk)
    assert_type(chunks.response, lm.Response)


def tables() -> None:
    """Models and runs are DataFrames."""
    assert_type(lm.models(), pd.DataFrame)
    assert_type(lm.models("gpt"), pd.DataFrame)
    assert_type(lm.runs(), pd.DataFrame)


def settings() -> None:
    """Settings are attributes of any type; their sources are texts."""
    lm.config.temperature = 0.2
    lm.config.set("providers.local.threads", 2)
    assert_type(lm.config.source("temperature"), str)
    assert_type(lm.config.frame(), pd.DataFrame)


def values() -> None:
    """Messages and parameters are written as classes or as mappings."""
    assert_type(lm.ChatMessage("user", "Hello."), lm.ChatMessage)
    written: Mapping[str, Any] = {"role": "user", "content": "Hello."}
    assert_type(lm.ChatMessage.of(written), lm.ChatMessage)
    assert_type(lm.ModelParameters(temperature=0, stop=("\n",)).with_stream(), lm.ModelParameters)
