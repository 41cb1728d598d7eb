"""LM Studio: its own interface in both versions, and its manners."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from llm_magics import ChatMessage, ModelParameters, ModelResponse, errors
from llm_magics.providers.base import ModelInfo
from llm_magics.providers.lmstudio import LMStudioConfig, LMStudioProvider
from tests.support.fake_lmstudio import CHAT, EMBED, FakeLMStudio
from tests.support.serving import Says, as_json, serving

HI = [ChatMessage("user", "hi")]
KEY = "a-key-of-the-test"


def used(url: str, do: Callable[[LMStudioProvider], Any], **settings: Any) -> Any:
    """What ``do`` gives, called with a provider at ``url``."""

    async def use() -> Any:
        config = LMStudioConfig(**{"base_url": url, "api_key": KEY, **settings})
        async with LMStudioProvider(config) as provider:
            return await do(provider)

    return asyncio.run(use())


async def chatted(provider: LMStudioProvider, **parameters: Any) -> ModelResponse:
    """A whole answer."""
    answer = await provider.generate_chat(HI, CHAT, ModelParameters(**parameters))
    assert isinstance(answer, ModelResponse)
    return answer


def test_the_environment_is_heeded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Address, with or without /v1, and key."""
    with serving(FakeLMStudio()) as server:
        monkeypatch.setenv("LMSTUDIO_BASE_URL", f"{server.url}/v1")
        monkeypatch.setenv("LM_API_TOKEN", KEY)
        provider = LMStudioProvider()
        assert asyncio.run(provider.list_models()) == [CHAT, EMBED]


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        (1, [
            ModelInfo(CHAT, ("chat", "completion", "tools"), 4096, 1000, True, True),
            ModelInfo(EMBED, ("embeddings",), 8192, 1000, True, False),
        ]),
        (0, [
            ModelInfo(CHAT, ("chat", "completion", "vision", "tools"), 2048, None, True, True),
            ModelInfo(EMBED, ("embeddings",), 512, None, True, False),
        ]),
        (-1, [ModelInfo(CHAT), ModelInfo(EMBED)]),
    ],
)  # fmt: skip
def test_every_version_is_listed(version: int, expected: list[ModelInfo]) -> None:
    """By ``/api/v1``, by the older ``/api/v0``, or by OpenAI's list: as much as each tells."""
    with serving(FakeLMStudio(version)) as server:
        assert used(server.url, lambda provider: provider.describe_models()) == expected


def test_health_tells_what_is_loaded() -> None:
    """And where the server is; one that is not there is said with how to start it."""
    with serving(FakeLMStudio()) as server:
        health = used(server.url, lambda provider: provider.health_check())
    assert (health["status"], health["loaded"]) == ("ok", [CHAT])
    gone = used("http://127.0.0.1:9", lambda provider: provider.health_check())
    assert gone["status"] == "unavailable"
    assert "lms server start" in gone["detail"]


def test_models_are_loaded_and_unloaded() -> None:
    """All instances of a model go; a model that is not there is named with its nearest."""
    fake = FakeLMStudio()
    with serving(fake) as server:
        loaded = used(server.url, lambda p: p.load_model(f"lmstudio/{EMBED}", context_length=512))
        assert loaded["status"] == "loaded"
        assert server.asked[-1].json() == {"model": EMBED, "context_length": 512}
        used(server.url, lambda p: p.unload_model(CHAT))
        assert fake.loaded[CHAT] == []
        with pytest.raises(errors.ModelNotFoundError) as caught:
            used(server.url, lambda p: p.unload_model("smollm2-135m-instruc"))
    assert CHAT in str(caught.value.hint)


def test_a_download_is_followed_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """By asking how far it has come; what is there already is done at once."""
    monkeypatch.setattr("llm_magics.providers.lmstudio._POLL_S", 0.01)

    async def pulled(provider: LMStudioProvider, model: str) -> list[tuple[int, int | None]]:
        return [(each.done, each.total) async for each in provider.pull_model(model)]

    with serving(FakeLMStudio()) as server:
        new = used(server.url, lambda provider: pulled(provider, "new/model"))
        assert new == [(0, 1000), (500, 1000), (1000, 1000)]
        assert used(server.url, lambda provider: pulled(provider, CHAT)) == [(0, None)]
        with pytest.raises(errors.ProviderError, match="download"):
            used(server.url, lambda provider: pulled(provider, "broken"))
        with pytest.raises(errors.ModelNotFoundError):
            used(server.url, lambda provider: pulled(provider, "no/such"))


def test_nothing_is_deleted() -> None:
    """LM Studio has no way to do it, and the error says where there is one."""
    with serving(FakeLMStudio()) as server, pytest.raises(errors.UnsupportedError) as caught:
        used(server.url, lambda provider: provider.delete_model(CHAT))
    assert "LM Studio app" in str(caught.value)


def test_its_own_measurements_become_metrics() -> None:
    """The older interface adds them; the path is its own."""
    with serving(FakeLMStudio(0)) as server:
        answer = used(server.url, lambda p: chatted(p, max_tokens=3), chat_api="v0")
        assert server.asked[-1].path == "/api/v0/chat/completions"
    assert answer.timings is not None
    assert (answer.timings.prompt_s, answer.timings.generation_s) == (0.1, 0.2)


def test_usage_that_is_always_nought_is_not_believed() -> None:
    """Embeddings say 0 tokens whatever was sent; vectors come as numbers."""
    with serving(FakeLMStudio()) as server:
        vectors = used(server.url, lambda p: p.generate_embeddings(["a"], EMBED))
    assert vectors.usage is None
    assert server.asked[-1].json()["encoding_format"] == "float"


def test_a_schema_is_sent_as_one() -> None:
    """``json_object`` is refused by LM Studio; ``json_schema`` is what it knows."""
    with serving(FakeLMStudio()) as server:
        used(server.url, lambda p: chatted(p, schema={"type": "object"}))
    assert server.asked[-1].json()["response_format"]["type"] == "json_schema"


def test_no_model_loaded_is_told_with_the_way_out() -> None:
    """Where loading on demand is off."""
    says = as_json({"error": "No models loaded. Please load a model in the developer page."}, 400)
    with serving(says) as server, pytest.raises(errors.ProviderError) as caught:
        used(server.url, chatted)
    assert "lms load" in str(caught.value.hint)


def test_another_server_at_its_port() -> None:
    """A web page is no LM Studio, and the error says so."""
    with serving(Says([b"<html>hello</html>"], content_type="text/html")) as server:
        health = used(server.url, lambda provider: provider.health_check())
    assert health["status"] == "unavailable"
    assert "is not lmstudio" in health["detail"]


def test_a_download_in_a_state_that_nobody_knows_ends() -> None:
    """It is not asked about for ever."""
    says = as_json({"job_id": "job_9", "status": "cancelled"})

    async def pulled(provider: LMStudioProvider) -> int:
        return len([each async for each in provider.pull_model("m")])

    with serving(says) as server, pytest.raises(errors.ProviderError, match="download"):
        used(server.url, pulled)
