"""Log probabilities of real servers."""

from __future__ import annotations

import math

import pytest

import llm_magics as lm
from llm_magics import errors
from tests.support.live import TARGETS, Target

pytestmark = pytest.mark.live

_WITH_LOGPROBS = ("ollama", "ollama-chat", "llama-chat", "openai", "openai-responses", "gemini")


def test_tokens_have_log_probabilities_or_an_error_says_that_there_are_none(
    target: Target,
) -> None:
    """The tokens are those of the answer, each with its alternatives, or the error is clear."""
    options = {**target.parameters, "max_tokens": 16}
    if target.name not in _WITH_LOGPROBS:
        with pytest.raises(errors.UnsupportedError, match="log probabilities"):
            lm.ask("Name a colour.", f"live/{target.chat}", logprobs=3, **options)
        return
    answer = lm.ask("Name a colour.", f"live/{target.chat}", logprobs=3, **options)
    tokens = answer.token_logprobs
    said = b"".join(each.as_bytes for each in tokens).decode("utf-8", "replace")
    assert answer.text.strip() in said
    for each in tokens:
        assert -9999 <= each.logprob <= 0
        assert 1 <= len(each.top) <= 3
        assert sum(math.exp(other.logprob) for other in each.top) < 1.001


@pytest.mark.parametrize("name", ["ollama", "llama-chat"])
def test_labels_of_a_real_server_have_a_confidence(name: str, own_settings: None) -> None:
    """The schema constrains the answer, and its tokens are matched with the label."""
    chosen = TARGETS[name]
    if not chosen.is_there:
        pytest.skip(f"{chosen.at} is not set")
    settings = {key: value for key, value in chosen.config.items() if value is not None}
    lm.config.providers = {"live": {"type": chosen.provider, **settings}}
    found = lm.classify(
        ["I love this camera.", "It broke at once."],
        ["positive", "negative"],
        confidence=True,
        model=f"live/{chosen.chat}",
        seed=1,
    )
    assert found["label"].isin(["positive", "negative"]).all()  # type: ignore[union-attr]
    assert found["label_confidence"].between(0, 1).all()  # type: ignore[union-attr]
