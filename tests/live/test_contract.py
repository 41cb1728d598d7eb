"""The methods that every provider has, against real services."""

from __future__ import annotations

import asyncio

import pytest

import llm_magics as lm
from llm_magics import ChatMessage, errors
from llm_magics.providers.ollama import OllamaProvider
from llm_magics.types import ModelResponse
from tests.support.live import Target, answer_of, stream_of

pytestmark = pytest.mark.live

MESSAGES = [ChatMessage("user", "Write a sentence about the sea.")]


def test_it_reports_its_health_and_models(target: Target) -> None:
    """Health is ok in words; the same models are listed and described."""

    async def use() -> None:
        async with target.create() as provider:
            assert await provider.initialize() is True
            health = await provider.health_check()
            assert health["status"] == "ok"
            assert health["detail"]
            models = await provider.list_models()
            assert any(name.removesuffix(":latest") == target.chat for name in models)
            described = [info.name for info in await provider.describe_models()]
            assert sorted(described) == sorted(models)  # Ollama's order changes

    asyncio.run(use())


def test_a_stream_adds_up_to_the_whole_answer(target: Target) -> None:
    """Both ways the text is cut at ``max_tokens``, says so, and counts its tokens."""

    async def use() -> None:
        async with target.create() as provider:
            short = target.short()
            whole = await answer_of(provider, MESSAGES, target.chat, short)
            chunks = [c async for c in await stream_of(provider, MESSAGES, target.chat, short)]
        streamed = ModelResponse.of(chunks)
        assert whole.text == streamed.text != ""
        assert whole.finish_reason == streamed.finish_reason == "length"
        assert whole.usage is not None
        assert streamed.usage is not None
        assert whole.usage.output_tokens == streamed.usage.output_tokens == short.max_tokens
        assert whole.usage.input_tokens
        times = [chunk.elapsed_s or 0 for chunk in chunks]
        assert times == sorted(times)

    asyncio.run(use())


def test_a_completion_continues_the_text(target: Target) -> None:
    """Whole and streamed; a provider that cannot raises an error that names others."""

    async def use() -> None:
        async with target.create() as provider:
            if "completion" not in provider.capabilities:
                with pytest.raises(errors.UnsupportedError) as caught:
                    await provider.generate_completion("Once", target.chat)
                assert "local" in str(caught.value.hint)
                return
            if target.at in ("OPENAI_API_KEY", "LMSTUDIO_BASE_URL"):
                pytest.skip("its models of today continue no text")
            whole = await answer_of(provider, "Once upon a time", target.chat, target.short())
            streamed = await provider.generate_completion(
                "Once upon a time", target.chat, target.short(stream=True)
            )
            assert ModelResponse.of([c async for c in streamed]).text == whole.text != ""  # type: ignore[union-attr]

    asyncio.run(use())


def test_a_conversation_is_sent_with_its_system_message(target: Target) -> None:
    """All roles are taken, as mappings too, and the provider's prefix before the model."""
    conversation = [
        {"role": "system", "content": "You answer in one word. \ud83d\ude00 é"},
        {"role": "user", "content": "Which colour has the sky?"},
        {"role": "assistant", "content": "Blue."},
        {"role": "user", "content": "And grass?"},
    ]

    async def use() -> None:
        async with target.create() as provider:
            answer = await answer_of(
                provider,
                [ChatMessage.of(each) for each in conversation],
                f"{provider.name}/{target.chat}",
                target.short(),
            )
            assert answer.text
            assert answer.model == target.chat
            assert answer.provider == provider.name

    asyncio.run(use())


def test_an_answer_ends_before_a_stop_sequence(target: Target) -> None:
    """It is no part of the text, and the answer counts as complete."""
    if not target.stops:
        pytest.skip("its interface has no stop sequences")
    answer = lm.ask("Count: 1, 2, 3", model=f"live/{target.chat}", stop=[" "], **target.parameters)
    assert " " not in answer.text
    assert answer.finish_reason == "stop"


def test_an_unknown_model_is_named_with_its_nearest(target: Target) -> None:
    """One letter is missing: the error has the model, and the hint its full name."""
    if not target.checks_models:
        pytest.skip("the server answers with its one model, whatever it is called")
    with pytest.raises(errors.ModelNotFoundError) as caught:
        lm.ask("Hi", model=f"live/{target.chat[:-1]}", max_tokens=1)
    assert caught.value.retryable is False
    assert caught.value.model == target.chat[:-1]
    assert target.chat in str(caught.value.hint)


def test_a_provider_can_be_used_in_one_loop_after_another(target: Target) -> None:
    """Closed, it is used again."""
    provider = target.create()

    async def use() -> str:
        answer = await answer_of(provider, MESSAGES, target.chat, target.short())
        await provider.close()
        return answer.text

    assert asyncio.run(use()) == asyncio.run(use())


def test_text_that_is_no_unicode_is_replaced(target: Target) -> None:
    """Half of a surrogate pair in a prompt, in a text to continue, and in one to embed."""

    async def use() -> None:
        async with target.create() as provider:
            half = [ChatMessage("user", "a \ud800 b")]
            assert await answer_of(provider, half, target.chat, target.short())
            if "completion" in provider.capabilities and target.at != "OPENAI_API_KEY":
                assert await answer_of(provider, "a \ud800 b", target.chat, target.short())
            if target.embedding:
                broken, mended = await provider.generate_embeddings(
                    ["a \ud800 b", "a \ufffd b"], target.embedding
                )
                assert broken == pytest.approx(mended, abs=1e-3)

    asyncio.run(use())


def test_a_call_is_logged_with_its_tokens(target: Target) -> None:
    """``lm.runs()`` has the model, the tokens and the times of a call."""
    answer = lm.ask("Hi", model=f"live/{target.chat}", **target.parameters)
    row = lm.runs().iloc[-1]
    assert (row.provider, row.model) == ("live", target.chat) or row.model == answer.model
    assert row.output_tokens == answer.usage.output_tokens
    assert 0 < row.ttft_s <= row.e2e_s


def test_models_are_listed_with_their_capabilities(ollama: Target) -> None:
    """What the server tells of each, and whether it is loaded."""
    lm.ask("Hi", model=f"ollama/{ollama.chat}", **ollama.parameters)
    table = lm.models("ollama/*").set_index("model")
    assert table.capabilities[f"ollama/{ollama.embedding}:latest"] == "embeddings"
    assert "chat" in table.capabilities[f"ollama/{ollama.chat}"]
    assert table.loaded[f"ollama/{ollama.chat}"]
    assert (table.size_mb > 1).all()


def test_loading_and_unloading_a_model(ollama: Target) -> None:
    """It is reported while the server loads it, and not once it is in memory."""

    async def loaded(provider: OllamaProvider) -> list[str]:
        return [each["name"] for each in await provider.running_models()]

    async def use() -> None:
        async with OllamaProvider(ollama.config) as provider:
            await provider.unload_model(ollama.chat)
            unloading = 100  # the server answers before it has unloaded the model
            while unloading and ollama.chat in await loaded(provider):
                unloading -= 1
                await asyncio.sleep(0.1)
            (notice,) = [each async for each in provider.prepare(ollama.chat, "chat")]
            assert notice.task.startswith(f"loading {ollama.chat}")
            await provider.load_model(ollama.chat)
            assert ollama.chat in await loaded(provider)
            assert [each async for each in provider.prepare(ollama.chat, "chat")] == []
            shown = await provider.show_model(ollama.chat)
            assert shown["model_info"]
            assert len(await provider.digest(ollama.chat)) == 64

    asyncio.run(use())


@pytest.mark.parametrize("target", ["openai", "anthropic", "gemini", "huggingface"], indirect=True)
def test_a_wrong_key_is_refused(target: Target) -> None:
    """The error is about authentication, is not retried, and does not show the key."""
    wrong = "sk-ant-wrong-key-of-a-test"

    async def use() -> None:
        async with type(target.create())({**target.config, "api_key": wrong}) as provider:
            with pytest.raises(errors.AuthenticationError) as caught:
                await answer_of(provider, MESSAGES, target.chat, target.short())
            assert wrong not in f"{caught.value} {caught.value.body}"
            assert caught.value.retryable is False

    asyncio.run(use())
