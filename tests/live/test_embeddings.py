"""Vectors of real models: their order, their length, and what becomes of long and odd texts."""

from __future__ import annotations

import asyncio

import numpy as np
import pandas as pd
import pytest

import llm_magics as lm
from llm_magics import errors
from tests.support.live import Target, needs, targets_with

pytestmark = pytest.mark.live

LONG_TEXT = "river " * 700


@targets_with("embedding")
def test_vectors_are_of_length_one_and_in_order(target: Target) -> None:
    """One a text, packed or not; the same text has the same vector, and no text none."""

    async def use() -> None:
        async with target.create() as provider:
            texts = ["cat", "dog", "cat", "eine Katze \U0001f600"]
            vectors = np.array(await provider.generate_embeddings(texts, target.embedding))
            packed = await provider.generate_packed(texts, target.embedding)
            assert await provider.generate_embeddings([], target.embedding) == []
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
        np.testing.assert_allclose(vectors[0], vectors[2], atol=1e-3)
        assert vectors[0] @ vectors[1] < 0.99
        stored = np.frombuffer(packed.data, np.float32).reshape(len(texts), packed.dimensions)
        np.testing.assert_allclose(stored, vectors, atol=1e-3)

    asyncio.run(use())


@targets_with("embedding")
def test_a_column_is_embedded_once(target: Target) -> None:
    """Two hundred rows: missing ones stay missing, and known texts are not sent again."""
    texts = [f"text number {n % 40}" for n in range(200)]
    frame = pd.DataFrame({"text": [*texts, None, ""]})
    model = f"live/{target.embedding}"
    embedded = frame.llm.embed("text", model=model)
    assert embedded.vector.notna().tolist() == [True] * 200 + [False] * 2
    sent = len(lm.runs())
    again = frame.llm.embed("text", model=model, into="again")
    assert len(lm.runs()) == sent or lm.runs().iloc[sent:].cached.all()
    np.testing.assert_array_equal(lm.matrix(again.again[:200]), lm.matrix(embedded.vector[:200]))


@targets_with("embedding")
def test_the_nearest_is_found(target: Target) -> None:
    """A question is embedded by the model of the column."""
    frame = pd.DataFrame({"text": ["The cat sleeps.", "Stocks fell today.", "Rain is coming."]})
    frame.llm.embed("text", model=f"live/{target.embedding}")
    assert frame.llm.nearest("a kitten", k=1).text.tolist() == ["The cat sleeps."]


def test_a_long_text_is_treated_as_asked(ollama: Target) -> None:
    """Refused, cut by the server, or the mean of its parts; short texts land all the same."""
    texts = pd.DataFrame({"text": ["a cat", LONG_TEXT, "a dog"]})
    model = f"ollama/{ollama.embedding}"
    with pytest.raises(errors.ContextLengthError) as caught:
        lm.embed(texts.text, model=model, too_long="error")
    assert "chunk-mean" in str(caught.value.hint)
    cut = lm.embed(texts.text, model=model, too_long="truncate")
    mean = lm.embed(texts.text, model=model, too_long="chunk-mean")
    np.testing.assert_allclose(cut[[0, 2]], mean[[0, 2]], atol=1e-3)
    assert not np.allclose(cut[1], mean[1], atol=1e-3)
    alone = lm.embed(["river " * 500], model=model, too_long="error")
    assert cut[1] @ alone[0] > 0.99
    assert np.linalg.norm(mean[1]) == pytest.approx(1, abs=1e-3)
    with pytest.warns(UserWarning, match="1 failed"):
        frame = texts.llm.embed("text", model=model, too_long="error")
    assert frame.vector.isna().tolist() == [False, True, False]


@needs("OLLAMA_HOST")
@pytest.mark.parametrize("target", ["ollama"], indirect=True)
def test_vectors_are_shortened_by_the_server(target: Target) -> None:
    """To a size that it has; a larger one is refused."""
    model = f"live/{target.embedding}"
    assert lm.embed(["a"], model=model, dimensions=100).shape == (1, 100)
    with pytest.raises(errors.UnsupportedError):
        lm.embed(["a"], model=model, dimensions=100_000)


@needs("OLLAMA_HOST")
@pytest.mark.parametrize("target", ["ollama", "ollama-chat", "ollama-messages"], indirect=True)
def test_an_embedding_model_does_not_chat(target: Target) -> None:
    """Through each of Ollama's interfaces."""
    model = target.embedding or "all-minilm"
    with pytest.raises(errors.UnsupportedError) as caught:
        lm.ask("Hi", model=f"live/{model}", max_tokens=1)
    assert caught.value.retryable is False


@needs("LIVE_LLAMA_SERVER")
@pytest.mark.parametrize("target", ["llama-chat"], indirect=True)
def test_a_server_for_chats_does_not_embed(target: Target) -> None:
    """It says what it was not started with."""
    with pytest.raises(errors.UnsupportedError):
        lm.embed(["a"], model=f"live/{target.chat}")
