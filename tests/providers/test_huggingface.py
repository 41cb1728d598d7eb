"""Hugging Face's router: its list, its tokens, its vectors."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm_magics import ChatMessage, ModelParameters, errors
from llm_magics.providers.base import ModelInfo
from llm_magics.providers.hf_hub import find_token
from llm_magics.providers.huggingface import HuggingFaceConfig, HuggingFaceProvider, pool_vector
from tests.support.fake_huggingface import CHAT, EMBED, FakeHuggingFace
from tests.support.fake_openai import unit
from tests.support.serving import Says, as_json, serving

HI = [ChatMessage("user", "hi")]
KEY = "a-key-of-the-test"


def used(url: str, do: Callable[[HuggingFaceProvider], Any]) -> Any:
    """What ``do`` gives, called with a provider at ``url``."""

    async def use() -> Any:
        config = HuggingFaceConfig(base_url=f"{url}/v1/", api_key=KEY)  # type: ignore[arg-type]
        async with HuggingFaceProvider(config) as provider:
            return await do(provider)

    return asyncio.run(use())


def test_the_token_is_found_where_the_hub_keeps_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The environment first, then the file of ``hf auth login``; it is never shown."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert find_token() == ("", "")
    assert HuggingFaceConfig().api_key is None
    assert asyncio.run(HuggingFaceProvider().initialize()) is False
    (tmp_path / "token").write_text(f"{KEY}\n")
    assert find_token() == (KEY, f"file {tmp_path / 'token'}")
    assert KEY not in repr(HuggingFaceConfig())
    monkeypatch.setenv("HF_TOKEN", "another-key-here")
    assert find_token() == ("another-key-here", "HF_TOKEN")
    assert HuggingFaceProvider.own_key_source() == "HF_TOKEN"


def test_the_list_tells_prices_and_abilities() -> None:
    """Over those who serve a model now: the longest context, the lowest price, any capability."""
    with serving(FakeHuggingFace()) as server:
        infos = used(server.url, lambda provider: provider.describe_models())
    assert infos == [
        ModelInfo(
            CHAT, ("chat", "vision", "tools"), 16384, input_usd=0.2, output_usd=0.4
        ),
        ModelInfo(EMBED, ("chat",)),
    ]  # fmt: skip


@pytest.mark.parametrize("tokens", [False, True])
def test_vectors_come_by_feature_extraction(tokens: bool) -> None:
    """In portions of 32; where a service gives one vector a token, their mean is taken."""
    texts = [f"text {n}" for n in range(70)]
    with serving(FakeHuggingFace(tokens=tokens)) as server:
        vectors = used(server.url, lambda p: p.generate_embeddings(texts, EMBED))
    assert [len(asked.json()["inputs"]) for asked in server.asked] == [32, 32, 6]
    assert vectors[69] == pytest.approx(unit("text 69"))


def test_pooling() -> None:
    """A vector is left as it is; vectors of tokens become their normalised mean."""
    assert pool_vector([1.0, 2.0]) == [1.0, 2.0]
    assert pool_vector([[[3.0, 0.0], [0.0, 4.0]]]) == pytest.approx([0.6, 0.8])
    assert pool_vector([]) == []


def test_who_shall_serve_it_is_part_of_the_name() -> None:
    """``OWNER/NAME:PROVIDER`` goes to the router as it is."""
    with serving(FakeHuggingFace()) as server:

        async def ask(provider: HuggingFaceProvider) -> None:
            await provider.generate_chat(HI, f"huggingface/{CHAT}:groq", ModelParameters())

        with pytest.raises(errors.ModelNotFoundError) as caught:
            used(server.url, ask)
    assert server.asked[0].json()["model"] == f"{CHAT}:groq"
    assert CHAT in str(caught.value.hint)


def test_spent_credits_are_not_asked_for_again() -> None:
    """402: the month's credits are gone, and waiting a little does not help."""
    says = as_json({"error": "You have exceeded your monthly included credits"}, 402)
    with serving(says) as server, pytest.raises(errors.RateLimitError) as caught:
        used(server.url, lambda p: p.generate_embeddings(["a"], EMBED))
    assert not caught.value.retryable
    assert "Add credit" in str(caught.value.hint)


def test_a_vector_short() -> None:
    """Fewer vectors than texts is an error, never a shift."""
    with (
        serving(Says([b"[[1.0]]"], content_type="application/json")) as server,
        pytest.raises(errors.ProviderError, match="2"),
    ):
        used(server.url, lambda p: p.generate_embeddings(["a", "b"], EMBED))


def test_streams_end_without_done() -> None:
    """The router truly ends without [DONE]: a finish reason is enough."""
    event = b'data: {"choices": [{"index": 0, "delta": {"content": "hi"}, "finish_reason": "stop"}]}\n\n'
    with serving(Says([event])) as server:
        answer = used(server.url, lambda p: p.generate_chat(HI, CHAT, ModelParameters()))
    assert answer.text == "hi"
