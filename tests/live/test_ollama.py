"""What a real Ollama does with prompts and texts that are longer than its context."""

from __future__ import annotations

import asyncio
import re

import numpy as np
import pandas as pd
import pytest

import llm_magics as lm
from llm_magics import ChatMessage, ModelParameters, ModelResponse, errors
from llm_magics.providers.ollama import OllamaConfig, OllamaProvider
from tests.live.conftest import OLLAMA_HOST

pytestmark = pytest.mark.live

# Contexts of 2,048 and 512 tokens. Prompts are short and ask for a smaller context: where the
# model reads for seconds, this release stumbles over its own keep-alive lines.
CHAT, EMBED = "smollm2:135m", "all-minilm"
CONTEXT = 256
LONG = "word " * 400
LONG_TEXT = "river " * 700


@pytest.fixture(autouse=True)
def at_the_live_server(own_settings: None) -> None:
    """Ask the server of the environment."""
    lm.config.set("providers.ollama.base_url", OLLAMA_HOST)


def talk(turns: int) -> list[ChatMessage]:
    """A conversation, whose oldest turns the server would drop."""
    said = []
    for number in range(turns):
        said.append(ChatMessage("user", f"turn {number} " + "alpha beta gamma " * 8))
        said.append(ChatMessage("assistant", "ok " * 10))
    return [*said, ChatMessage("user", "And now?")]


def answered(messages: list[ChatMessage] | str, **parameters: object) -> ModelResponse:
    """The answer of the provider itself to a conversation, or to a raw text."""

    async def use() -> ModelResponse:
        asked = ModelParameters(max_tokens=3, extra_body={"num_ctx": CONTEXT, **parameters})
        async with OllamaProvider(OllamaConfig(base_url=OLLAMA_HOST)) as provider:
            if isinstance(messages, str):
                answer = await provider.generate_completion(messages, CHAT, asked)
            else:
                answer = await provider.generate_chat(messages, CHAT, asked)
        assert isinstance(answer, ModelResponse)
        return answer

    return asyncio.run(use())


def test_a_long_prompt_is_refused_with_the_numbers() -> None:
    """As is the way to raise the context; with it, the prompt is read."""
    model = f"ollama/{CHAT}"
    with pytest.raises(errors.ContextLengthError, match=str(CONTEXT)) as caught:
        lm.ask(LONG, model=model, max_tokens=3, num_ctx=CONTEXT)
    assert re.search(r"request \(4\d\d tokens\)", str(caught.value))
    size = re.search(r"num_ctx=(\d+)", str(caught.value.hint))
    assert size is not None
    lm.ask(LONG, model=model, max_tokens=3, num_ctx=int(size[1]))


@pytest.mark.parametrize("prompt", [talk(8), LONG], ids=["conversation", "raw text"])
def test_a_cut_is_made_where_it_is_asked_for(prompt: list[ChatMessage] | str) -> None:
    """The oldest turns, or the end of a text, go only with ``truncate=True``."""
    with pytest.raises(errors.ContextLengthError):
        answered(prompt)
    assert answered(prompt, truncate=True).finish_reason


def test_a_long_text_is_treated_as_asked() -> None:
    """Refused, cut by the server, or the mean of its parts; short texts land all the same."""
    texts = pd.DataFrame({"text": ["a cat", LONG_TEXT, "a dog"]})
    model = f"ollama/{EMBED}"
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


def test_an_embedding_model_is_listed_as_one() -> None:
    """Whatever the server's list of models calls it."""
    table = lm.models("ollama/*").set_index("model")
    assert table.capabilities[f"ollama/{EMBED}:latest"] == "embeddings"
    assert "chat" in table.capabilities[f"ollama/{CHAT}"]


def test_a_schema_that_is_none_is_the_callers_fault() -> None:
    """The words inside the JSON string are read, and the call is not repeated."""
    with pytest.raises(errors.ProviderError, match="unrecognized type nonsense") as caught:
        answered(talk(0), format={"type": "nonsense"})
    assert caught.value.retryable is False
