"""Parameters that models do not take: left out, told of, remembered for what was refused alone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from llm_magics import ChatMessage, ModelParameters, errors
from llm_magics.providers import create_provider
from llm_magics.providers.base import BaseModelProvider
from tests.support.fake_anthropic import CHAT, FakeAnthropic, refusal
from tests.support.fake_openai import FakeOpenAI
from tests.support.fake_openai import refusal as openai_refusal
from tests.support.serving import Asked, Says, Server, chat_stream, serving

HI = [ChatMessage("system", "be brief"), ChatMessage("user", "hi")]
KEY = "a-key-of-the-test"


def ask(provider: BaseModelProvider, model: str = "gpt-test", **parameters: Any) -> None:
    """One chat."""
    asyncio.run(provider.generate_chat(HI, model, ModelParameters(**parameters)))


def sent(server: Server, name: str) -> list[Any]:
    """What each chat sent under ``name``."""
    return [asked.json().get(name) for asked in server.asked if asked.path.endswith("completions")]


def test_a_value_that_is_refused_is_not_the_parameter() -> None:
    """``priority`` is not supported: ``auto`` is still sent, and ``priority`` never again."""

    def answers(asked: Asked) -> Says:
        if asked.json().get("service_tier") == "priority":
            return openai_refusal("unsupported_value", "Unsupported value.", 400, "service_tier")
        return Says(chat_stream("hi"))

    with serving(answers) as server:
        provider = create_provider("openai", base_url=server.url, api_key=KEY)
        priority, auto = {"service_tier": "priority"}, {"service_tier": "auto"}
        with pytest.warns(UserWarning, match="service_tier='priority'"):
            ask(provider, extra_body=priority)
        ask(provider, extra_body=auto)
        ask(provider, extra_body=priority)
        assert sent(server, "service_tier") == ["priority", None, "auto", None]


@pytest.mark.parametrize("name", ["messages", "model"])
def test_what_a_request_cannot_be_without_is_kept(name: str) -> None:
    """A server that blames it is believed to mean something else."""
    says = openai_refusal("unsupported_value", "Unsupported value.", 400, name)
    with serving(says) as server:
        provider = create_provider("openai", base_url=server.url, api_key=KEY)
        with pytest.raises(errors.ProviderError, match="Unsupported value"):
            ask(provider)
        assert len(sent(server, name)) == 1


def test_each_interface_is_learned_for_itself() -> None:
    """What chat refuses, completion may take."""
    with serving(FakeOpenAI("temperature")) as server:
        provider = create_provider("openai", base_url=server.url, api_key=KEY)
        with pytest.warns(UserWarning, match="temperature"):
            ask(provider, temperature=0.5)
        with pytest.warns(UserWarning, match="temperature"):
            asyncio.run(
                provider.generate_completion("x", "gpt-test", ModelParameters(temperature=0.5))
            )
        assert sent(server, "temperature") == [0.5, None, 0.5, None]
        assert "messages" not in server.asked[-1].json()


@pytest.mark.parametrize(
    "words",
    [
        "temperature: range: 0..1",
        "`temperature` and `top_p` cannot both be specified for this model.",
        "output_config.format.schema: For 'integer' type, property 'minLength' is not supported",
    ],
)
def test_a_wrong_value_is_the_users_to_mend(words: str) -> None:
    """Anthropic tells of it in like words; nothing is left out for it."""
    with serving(refusal("invalid_request_error", words, 400)) as server:
        provider = create_provider("anthropic", base_url=server.url, api_key=KEY)
        with pytest.raises(errors.ProviderError) as caught:
            ask(provider, CHAT, temperature=0.5, top_p=0.5, schema={"type": "object"})
        assert words[:20] in str(caught.value)
        assert len(server.asked) == 1


def test_a_picture_is_asked_for_as_was_learned() -> None:
    """The second time without what was refused, and without a second warning."""

    def answers(asked: Asked) -> Says:
        if "quality" in asked.json():
            return openai_refusal("unknown_parameter", "Unknown parameter.", 400, "quality")
        return Says([b'{"data": [{"b64_json": "aGk="}]}'], content_type="application/json")

    with serving(answers) as server:
        provider = create_provider("openai", base_url=server.url, api_key=KEY)
        with pytest.warns(UserWarning, match="quality"):
            asyncio.run(provider.generate_image("x", "m", quality="hd"))
        asyncio.run(provider.generate_image("x", "m", quality="hd"))
        assert ["quality" in asked.json() for asked in server.asked] == [True, False, False]


def test_a_list_without_end_ends() -> None:
    """A server that always says that there is more is not asked for ever."""

    class Endless(FakeAnthropic):
        def models(self, path: str) -> Says:
            body = b'{"data": [{"id": "a"}], "has_more": true, "last_id": "a"}'
            return Says([body], content_type="application/json")

    with serving(Endless()) as server:
        provider = create_provider("anthropic", base_url=server.url, api_key=KEY)
        assert asyncio.run(provider.list_models()) == ["a", "a"]


def refusing_together(count: int, *refuses: str) -> FakeOpenAI:
    """Return a server that refuses ``refuses`` when ``count`` requests have arrived."""

    class Together(FakeOpenAI):
        def __init__(self) -> None:
            super().__init__(*refuses)
            self.arrived = 0

        def __call__(self, asked: Asked) -> Says:
            self.arrived += 1
            says = super().__call__(asked)
            return replace(says, once=lambda: self.arrived >= count)

        def images(self) -> Says:
            return Says([b'{"data": [{"b64_json": "aGk="}]}'], content_type="application/json")

        def chat(self, body: dict[str, Any]) -> Says:
            return super().chat(body) if "messages" in body else self.images()

    return Together()


@pytest.mark.parametrize("count", [2, 8])
def test_concurrent_requests_are_all_sent_again(count: int) -> None:
    """Requests that were sent before the first refusal are repeated too, with one warning."""

    async def run(provider: BaseModelProvider) -> None:
        parameters = ModelParameters(temperature=0.5)
        calls = [provider.generate_chat(HI, "gpt-test", parameters) for _ in range(count)]
        assert all(answer.text for answer in await asyncio.gather(*calls))  # type: ignore[union-attr]

    with serving(refusing_together(count, "temperature")) as server:
        provider = create_provider("openai", base_url=server.url, api_key=KEY)
        with pytest.warns(UserWarning, match="temperature") as warned:
            asyncio.run(run(provider))
        assert sent(server, "temperature") == [0.5] * count + [None] * count
    assert len(warned) == 1


def test_concurrent_requests_for_images_are_all_sent_again() -> None:
    """The same holds for requests that are not streamed."""

    async def run(provider: Any) -> None:
        calls = [provider.generate_image("x", "gpt-test", quality="hd") for _ in range(3)]
        assert await asyncio.gather(*calls) == [[b"hi"]] * 3

    with serving(refusing_together(3, "quality")) as server:
        provider = create_provider("openai", base_url=server.url, api_key=KEY)
        with pytest.warns(UserWarning, match="quality") as warned:
            asyncio.run(run(provider))
        assert ["quality" in asked.json() for asked in server.asked] == [True] * 3 + [False] * 3
    assert len(warned) == 1


def test_concurrent_requests_exchange_the_names_of_a_limit_once() -> None:
    """Each request tries both names of the limit at most, if the model accepts neither."""

    async def run(provider: BaseModelProvider) -> None:
        names = ({"max_tokens": 3}, {"extra_body": {"max_completion_tokens": 3}})
        calls = [
            provider.generate_chat(HI, "gpt-test", ModelParameters(**each))  # type: ignore[arg-type]
            for each in (*names, *names)
        ]
        assert all(answer.text for answer in await asyncio.gather(*calls))  # type: ignore[union-attr]

    with serving(refusing_together(4, "max_tokens", "max_completion_tokens")) as server:
        provider = create_provider("openai", base_url=server.url, api_key=KEY)
        with pytest.warns(UserWarning, match="omitted") as warned:
            asyncio.run(run(provider))
        assert len(server.asked) <= 3 * 4
    assert len(warned) == 1


def test_a_value_refused_by_both_names_of_a_limit_ends() -> None:
    """A value that is refused by either name is not exchanged between them without end."""

    def answers(asked: Asked) -> Says:
        name = next(iter({"max_tokens", "max_completion_tokens"} & asked.json().keys()))
        return openai_refusal("unsupported_value", "Unsupported value.", 400, name)

    with serving(answers) as server:
        provider = create_provider("openai", base_url=server.url, api_key=KEY)
        for _ in range(2):
            with pytest.raises(errors.ProviderError, match="Unsupported value"):
                ask(provider, max_tokens=3)
        assert len(server.asked) <= 6
