"""Models fetched by an empty Ollama from a registry, and deleted again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import errors
from llm_magics.host import Progress
from llm_magics.providers.ollama import OllamaProvider
from tests.support.live import needs, variable

pytestmark = [pytest.mark.live, needs("LIVE_EMPTY_OLLAMA", "LIVE_REGISTRY")]

MODEL = f"{variable('LIVE_REGISTRY')}/all-minilm"


async def pulled(provider: OllamaProvider, until: float = 1.0) -> list[Progress]:
    """The progress of a pull that is given up when the share ``until`` is there."""
    seen: list[Progress] = []
    pulling = provider.pull_model(MODEL)
    async for progress in pulling:
        seen.append(progress)
        if until < 1 and progress.total and progress.done > until * progress.total:
            break
    await pulling.aclose()
    return [each for each in seen if each.total]


@pytest.fixture
def empty(own_settings: None) -> Iterator[dict[str, str]]:
    """The settings of a server without models, which has none afterwards either."""
    settings = {"base_url": variable("LIVE_EMPTY_OLLAMA")}
    lm.config.providers = {"ollama": settings}
    yield settings

    async def clear() -> None:
        async with OllamaProvider(settings) as provider:
            for model in await provider.list_models():
                await provider.delete_model(model)

    asyncio.run(clear())


def test_an_interrupted_pull_is_resumed(empty: dict[str, str]) -> None:
    """Progress only grows; the second pull begins where the first stopped, and ends whole."""

    async def use() -> None:
        async with OllamaProvider(empty) as provider:
            first = await pulled(provider, until=0.3)
            assert await provider.list_models() == []
            second = await pulled(provider)
            for seen in (first, second):
                done = [each.done for each in seen]
                assert done == sorted(done)
            assert second[0].done >= 0.9 * first[-1].done
            assert second[-1].done == second[-1].total
            assert await provider.list_models() == [f"{MODEL}:latest"]
            (vector,) = await provider.generate_embeddings(["a cat"], MODEL)
            assert len(vector) == 384

    asyncio.run(use())


def test_pull_and_delete_in_a_cell(empty: dict[str, str], shell: InteractiveShell) -> None:
    """``%llm pull`` fetches, ``%llm delete`` deletes, and the list follows both."""
    shell.run_line_magic("llm", f"pull ollama/{MODEL}")
    assert lm.models("ollama/*").model.tolist() == [f"ollama/{MODEL}:latest"]
    assert lm.embed(["a cat"], model=f"ollama/{MODEL}").shape == (1, 384)
    shell.run_line_magic("llm", f"delete ollama/{MODEL}")
    assert lm.models("ollama/*").empty
    with pytest.raises(errors.ModelNotFoundError):
        lm.embed(["a dog"], model=f"ollama/{MODEL}")


def test_what_is_not_there_is_neither_pulled_nor_deleted(empty: dict[str, str]) -> None:
    """Both are errors about the model, and not to be repeated."""

    async def use() -> None:
        async with OllamaProvider(empty) as provider:
            missing = f"{MODEL}-of-nobody"
            with pytest.raises(errors.ModelNotFoundError) as caught:
                async for _ in provider.pull_model(missing):
                    pass
            assert caught.value.retryable is False
            with pytest.raises(errors.ModelNotFoundError):
                await provider.delete_model(missing)

    asyncio.run(use())


def test_a_host_that_is_nobody_is_named(empty: dict[str, str]) -> None:
    """The server's words are passed on, of a registry that it cannot reach."""

    async def use() -> None:
        async with OllamaProvider(empty) as provider:
            with pytest.raises(errors.ProviderError, match=r"127\.0\.0\.1:9"):
                async for _ in provider.pull_model("127.0.0.1:9/library/m"):
                    pass

    asyncio.run(use())
