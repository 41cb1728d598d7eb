"""``reasoning``: every provider applies it, or says why its model cannot."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import ChatMessage, ModelParameters, errors
from llm_magics.providers import create_provider
from llm_magics.providers.base import StreamingProvider
from llm_magics.providers.profiles import _thinking_dialect
from llm_magics.providers.thinking import is_thinking_refusal
from llm_magics.types import StreamChunk
from llm_magics.wire.thinking import NO_THINKING, ThinkingRules
from tests.support.servers import servers
from tests.support.serving import Asked, Says, as_json, chat_event, chat_stream, serving

HI = [ChatMessage("user", "hi")]
KEY = "a-key-of-the-test"
DONE = b"data: [DONE]\n\n"

_UNKNOWN = "Unrecognized request argument supplied: reasoning_effort"
_VALUE = (
    "Unsupported value: '{}' is not supported with the 'm' model. Supported values are: 'low'."
)


def refusing(words: str, accepted: tuple[str | None, ...] = (None,)) -> Callable[[Asked], Says]:
    """A server of OpenAI's format that refuses all levels but these."""

    def answer(asked: Asked) -> Says:
        effort = asked.json().get("reasoning_effort")
        if effort in accepted:
            return Says(chat_stream("hi"))
        error: dict[str, Any] = {"message": words.format(effort), "type": "invalid_request_error"}
        if words == _VALUE:
            error |= {"code": "unsupported_value", "param": "reasoning_effort"}
        return as_json({"error": error}, 400)

    return answer


def ask(url: str, **parameters: Any) -> str:
    """One chat."""
    provider = create_provider("openai", base_url=url, api_key=KEY)
    return asyncio.run(provider.generate_chat(HI, "m", ModelParameters(**parameters))).text


def test_off_is_left_out_where_a_model_does_not_think() -> None:
    """The service refuses the parameter once; it is not sent to that model again."""
    with serving(refusing(_UNKNOWN)) as server:
        provider = create_provider("openai", base_url=server.url, api_key=KEY)

        async def use() -> list[str]:
            off = ModelParameters(reasoning="off")
            return [(await provider.generate_chat(HI, "m", off)).text for _ in range(2)]

        assert asyncio.run(use()) == ["hi", "hi"]
        sent = [asked.json().get("reasoning_effort") for asked in server.asked]
    assert sent == ["none", None, None]


@pytest.mark.parametrize(
    ("words", "level", "message"),
    [
        (_UNKNOWN, "low", "openai/m cannot think"),
        (_VALUE, "high", "does not support reasoning=high"),
        (_VALUE, "off", "cannot answer without thinking"),
        (
            "Reasoning is mandatory for this endpoint and cannot be disabled.",
            "off",
            "cannot answer without thinking",
        ),
    ],
)
def test_a_level_that_a_model_refuses_is_a_clear_error(
    words: str, level: str, message: str
) -> None:
    """Nothing is omitted; the hint has the service's own words."""
    with serving(refusing(words)) as server, pytest.raises(errors.UnsupportedError) as caught:
        ask(server.url, reasoning=level)
    assert message in str(caught.value)
    assert words.split("{", maxsplit=1)[0] in str(caught.value.hint)
    assert is_thinking_refusal(caught.value)
    assert len(server.asked) == 1


def test_other_errors_are_left_as_they_are() -> None:
    """A failure of the service is not a refusal, even if it mentions thinking."""
    says = as_json({"error": {"message": "reasoning is not available now"}}, 503)
    with serving(says) as server, pytest.raises(errors.ProviderError) as caught:
        ask(server.url, reasoning="low")
    assert not is_thinking_refusal(caught.value)


@pytest.mark.parametrize(
    ("model", "level", "message"),
    [
        ("gpt-4o", "low", "cannot think"),
        ("gpt-5-pro", "low", "Use one of: high"),
        ("o3", "off", "cannot answer without thinking"),
        ("gpt-5", "off", "cannot answer without thinking"),
    ],
)
def test_known_models_of_openai_are_refused_without_a_request(
    model: str, level: str, message: str
) -> None:
    """By the facts in the data file and in the model catalogue."""
    provider = create_provider("openai", api_key=KEY)
    with pytest.raises(errors.UnsupportedError) as caught:
        asyncio.run(provider.generate_chat(HI, model, ModelParameters(reasoning=level)))
    assert message in f"{caught.value} {caught.value.hint}"


def test_a_service_with_fewer_levels_gets_the_next_higher_one() -> None:
    """And ``off`` where it has it."""
    dialect = _thinking_dialect({"efforts": ["none", "high"]}, ())
    assert [dialect.fields(level) for level in ("low", "high", False)] == [
        {"reasoning_effort": "high"},
        {"reasoning_effort": "high"},
        {"reasoning_effort": "none"},
    ]
    assert _thinking_dialect({"efforts": ["minimal", "low"]}, ()).fields("high") == {
        "reasoning_effort": "low"
    }


def test_the_error_of_a_format_is_left_as_it_is() -> None:
    """Gemini's format knows the levels of its models."""
    provider = create_provider("gemini", api_key=KEY)
    with pytest.raises(errors.UnsupportedError) as caught:
        asyncio.run(
            provider.generate_chat(HI, "gemini-3-pro-preview", ModelParameters(reasoning="medium"))
        )
    assert "does not support reasoning=medium" in str(caught.value)
    assert caught.value.hint == "Use one of: low, high."


class Local(StreamingProvider):
    """A provider that keeps the parameters it gets."""

    name = "local-test"
    rules = ThinkingRules()

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[ModelParameters] = []

    async def initialize(self) -> bool:
        return True

    async def list_models(self) -> list[str]:
        return ["m"]

    async def health_check(self) -> dict[str, Any]:
        return {"status": "ok"}

    async def generate_embeddings(self, texts: Any, model: str) -> list[list[float]]:
        raise NotImplementedError

    async def thinking_rules(self, model: str) -> ThinkingRules:
        return self.rules

    async def stream_chat(self, messages: Any, model: str, parameters: ModelParameters) -> Any:
        self.seen.append(parameters)
        yield StreamChunk("hi", finish_reason="stop")

    def stream_completion(self, prompt: str, model: str, parameters: ModelParameters) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("rules", "level", "expected"),
    [
        (NO_THINKING, "off", None),
        (NO_THINKING, "low", "cannot think"),
        (ThinkingRules(thinks=True, is_optional=False), "off", "without thinking"),
        (ThinkingRules(thinks=True, is_optional=True), "off", False),
        (ThinkingRules(levels=("high",)), "low", "Use one of: high."),
        (ThinkingRules(levels=("high",)), "high", "high"),
        (ThinkingRules(levels=("high",)), "xhigh", "xhigh"),
        (ThinkingRules(), "low", "low"),
    ],
)
def test_what_is_known_is_refused_without_a_request(
    rules: ThinkingRules, level: str, expected: Any
) -> None:
    """And what is unknown is sent."""
    provider = Local()
    provider.rules = rules
    call = provider.generate_chat(HI, "m", ModelParameters(reasoning=level))
    if isinstance(expected, str) and expected not in (level, "high"):
        with pytest.raises(errors.UnsupportedError) as caught:
            asyncio.run(call)
        assert expected in f"{caught.value} {caught.value.hint}"
        assert provider.seen == []
    else:
        asyncio.run(call)
        assert [each.reasoning for each in provider.seen] == [expected]


def test_the_rest_of_the_parameters_stays() -> None:
    """Only the level is removed."""
    provider = Local()
    provider.rules = NO_THINKING
    sent = ModelParameters(reasoning=False, temperature=0.5, stop=("x",))
    asyncio.run(provider.generate_chat(HI, "m", sent))
    assert provider.seen == [replace(sent, reasoning=None)]


def test_echo_does_not_think(shell: InteractiveShell) -> None:
    """``off`` changes nothing, and any other level is an error."""
    assert lm.ask("hi", model="echo/echo", reasoning="off").text == "hi"
    with pytest.raises(errors.UnsupportedError, match="think"):
        lm.ask("hi", model="echo/echo", reasoning="low")


def test_the_flag_of_a_cell_reaches_the_service(shell: InteractiveShell) -> None:
    """With the tokens of thinking in the answer, in ``lm.runs()`` and in ``%llm cost``."""
    usage = {
        "prompt_tokens": 5,
        "completion_tokens": 100,
        "completion_tokens_details": {"reasoning_tokens": 80},
    }
    events = [*chat_stream("hi")[:-1], chat_event(choices=[], usage=usage), DONE]
    with servers(lab=Says(events)) as running:
        lm.config.prices = {"lab/m": {"input_usd": 0, "output_usd": 10}}
        shell.run_cell_magic("llm", "lab/m --reasoning low -o answer", "hi")
        asked = running["lab"].asked[-1].json()
        answer = shell.user_ns["answer"]
        cost = shell.run_line_magic("llm", "cost")
    assert asked["reasoning_effort"] == "low"
    assert answer.usage.reasoning_tokens == 80
    assert answer.reasoning_usd == pytest.approx(80 * 10 / 1e6)
    assert answer.cost_usd == pytest.approx(100 * 10 / 1e6)
    last = lm.runs().iloc[-1]
    assert (last.reasoning_tokens, last.reasoning_usd) == (80, answer.reasoning_usd)
    assert getattr(cost, "frame", cost)["reasoning_tokens"].sum() == 80


def test_a_wrong_level_in_a_cell_names_the_right_ones(shell: InteractiveShell) -> None:
    """Before anything is sent."""
    with pytest.raises(errors.UsageError, match=r"low.*medium.*high"):
        shell.run_cell_magic("llm", "echo/echo --reasoning lots", "hi")
