"""Calls of tools, answers in the form of a schema, and thinking."""

from __future__ import annotations

import asyncio

import pytest

import llm_magics as lm
from llm_magics import ChatMessage, errors
from llm_magics.types import ModelResponse
from tests.support.live import WEATHER, Target, answer_of, needs, stream_of, targets_with

pytestmark = pytest.mark.live

QUESTION = ChatMessage("user", "Weather in Paris?")


@targets_with("tools")
def test_a_tool_is_called_and_its_result_is_read(target: Target) -> None:
    """Whole and streamed the call is the same; its result goes back in the next request."""
    asked = target.short(tools=(WEATHER,), max_tokens=60)

    async def use() -> None:
        async with target.create() as provider:
            whole = await answer_of(provider, [QUESTION], target.tools, asked)
            chunks = [c async for c in await stream_of(provider, [QUESTION], target.tools, asked)]
            streamed = ModelResponse.of(chunks)
            for answer in (whole, streamed):
                (call,) = answer.tool_calls
                assert call.name == "get_weather"
                assert "Paris" in call.arguments["city"]
                assert call.id
            assert whole.tool_calls[0].id != streamed.tool_calls[0].id
            turns = [
                QUESTION,
                ChatMessage(
                    "assistant",
                    whole.text,
                    tool_calls=whole.tool_calls,
                    reasoning_blocks=whole.reasoning_blocks,
                ),
                ChatMessage("tool", "12 degrees", tool_call_id=whole.tool_calls[0].id),
            ]
            after = await answer_of(provider, turns, target.tools, asked)
            assert after.text or after.tool_calls

    asyncio.run(use())


@targets_with("tools")
def test_functions_are_tools(target: Target) -> None:
    """``lm.ask`` describes a Python function, and its answer has the call."""

    def get_weather(city: str) -> str:
        """The weather of a city."""
        raise AssertionError(city)  # the model's wish is not granted here

    answer = lm.ask("Weather in Paris?", model=f"live/{target.tools}", tools=[get_weather], **{**target.parameters, "max_tokens": 60})  # fmt: skip
    (call,) = answer.tool_calls
    assert call.name == "get_weather"


@needs("OLLAMA_HOST")
@pytest.mark.parametrize("target", ["ollama", "ollama-chat", "ollama-messages"], indirect=True)
def test_a_model_without_tools_says_so(target: Target) -> None:
    """Through each of Ollama's interfaces the error is the same, and is not retried."""
    with pytest.raises(errors.UnsupportedError) as caught:
        lm.ask("Hi", model=f"live/{target.chat}", tools=[WEATHER], max_tokens=1)
    assert caught.value.retryable is False


def test_an_answer_has_the_form_of_a_schema(target: Target) -> None:
    """Where the service follows schemas; elsewhere a misfit is an error, and no answer."""
    parameters = {**target.parameters, "max_tokens": 60}
    lm.config.schema_retries = 0

    def ask() -> lm.Response:
        return lm.ask(
            "Ada is 36.", model=f"live/{target.chat}", schema="name, age int", **parameters
        )

    if not target.follows_schemas:
        with pytest.raises(errors.ParseError) as caught:
            ask()
        assert caught.value.partial.text
        return
    answer = ask()
    assert set(answer.data) == {"name", "age"}
    assert isinstance(answer.data["age"], int)


def test_a_schema_is_followed_in_each_row(ollama: Target) -> None:
    """A column of texts becomes typed columns."""
    import pandas as pd

    texts = pd.DataFrame({"text": ["Ada is 36.", "Bob is 9.", None]})
    frame = texts.llm.extract(
        "text", schema="name, age int", model=f"ollama/{ollama.chat}", max_tokens=60, temperature=0
    )
    assert str(frame.age.dtype) == "Int64"
    assert frame.age.notna().tolist() == [True, True, False]


def test_an_answer_that_is_cut_does_not_fit(ollama: Target) -> None:
    """The error has what had come."""
    with pytest.raises(errors.ParseError) as caught:
        lm.ask("Ada is 36.", model=f"ollama/{ollama.chat}", schema="name, age int", max_tokens=4)
    assert caught.value.partial.finish_reason == "length"


def test_a_schema_that_is_none_is_the_callers_fault(ollama: Target) -> None:
    """The words inside the JSON string are read, and the call is not repeated."""

    async def use() -> None:
        async with ollama.create() as provider:
            asked = ollama.short(extra_body={"format": {"type": "nonsense"}})
            with pytest.raises(errors.ProviderError, match="unrecognized type nonsense") as caught:
                await answer_of(provider, [QUESTION], ollama.chat, asked)
            assert caught.value.retryable is False

    asyncio.run(use())


@targets_with("thinking")
def test_thinking_stands_apart(target: Target) -> None:
    """An answer that is all thinking has no text, and says what to do."""
    parameters = {**target.parameters, "max_tokens": 12}
    with pytest.raises(errors.EmptyAnswerError) as caught:
        lm.ask(
            "Why is the sky blue?", model=f"live/{target.thinking}", reasoning=True, **parameters
        )
    partial = caught.value.partial
    assert partial.reasoning
    assert partial.text == ""
    assert partial.finish_reason in ("length", "stop")  # Anthropic's format adds room to think
    assert caught.value.hint


def test_a_model_answers_without_thinking(ollama: Target) -> None:
    """``reasoning=False`` is text alone; a model that cannot think refuses to."""
    model = f"ollama/{ollama.thinking}"
    answer = lm.ask("Hi", model=model, reasoning=False, **ollama.parameters)
    assert answer.text
    assert answer.reasoning == ""
    with pytest.raises(errors.UnsupportedError):
        lm.ask("Hi", model=f"ollama/{ollama.chat}", reasoning=True, **ollama.parameters)


@targets_with("thinking")
def test_thinking_is_switched_off(target: Target) -> None:
    """In the parameters of each format."""
    answer = lm.ask("Hi", model=f"live/{target.thinking}", reasoning="off", **target.parameters)
    assert answer.text
    assert answer.reasoning == ""


@targets_with("chat")
def test_off_changes_nothing_where_a_model_does_not_think(target: Target) -> None:
    """Whether or not the server knows the parameter."""
    answer = lm.ask("Hi", model=f"live/{target.chat}", reasoning="off", **target.parameters)
    assert answer.text
    assert answer.reasoning == ""
