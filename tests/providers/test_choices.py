"""Answers that ``local`` scores instead of generating them."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_magics as lm
from llm_magics import ChatMessage, ModelParameters, errors
from llm_magics.providers import create_provider
from llm_magics.providers.local.choices import find_branches, score_choices
from llm_magics.types import ModelResponse

HI = [ChatMessage("user", "hi")]
SEQUENCES = st.lists(
    st.lists(st.integers(0, 3), min_size=1, max_size=5).map(lambda each: (*each, 9)),
    min_size=2, max_size=8, unique=True,
)  # fmt: skip


class FakeEngine:
    """Three endpoints of llama.cpp's server: a token is a character, and its weight its code."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def __call__(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append((path, body))
        match path:
            case "/tokenize":
                return {"tokens": [*map(ord, body["content"])]}
            case "/apply-template":
                return {"prompt": f"<user>{body['messages'][-1]['content']}<assistant>"}
            case "/completion":
                weights = {token: float(token) for token, _ in body["logit_bias"]}
                assert {bias for _, bias in body["logit_bias"]} == {100.0}
                assert body["n_probs"] == len(weights)
                total = sum(weights.values())
                top = [{"id": token, "prob": w / total} for token, w in weights.items()]
                return {"completion_probabilities": [{"top_probs": top}], "tokens_evaluated": 5}
        raise AssertionError(path)


def score(engine: FakeEngine, choices: Sequence[str]) -> ModelResponse:
    """What ``engine`` answers."""

    async def collect() -> ModelResponse:
        return ModelResponse.of([e async for e in score_choices(engine, HI, choices, "m")])

    return asyncio.run(collect())


def test_choices_that_differ_in_their_first_token_need_one_request() -> None:
    """The choice whose token has the highest probability is the answer."""
    engine = FakeEngine()
    answer = score(engine, ["a", "c", "b"])
    assert answer.text == "c"
    assert answer.finish_reason == "stop"
    (scored,) = answer.logprobs
    assert [each.token for each in scored.top] == ["c", "b", "a"]
    total = sum(map(ord, "abc"))
    expected = [math.log(ord(each) / total) for each in "cba"]
    assert [each.logprob for each in scored.top] == pytest.approx(expected, abs=1e-4)
    sent = [body for path, body in engine.asked if path == "/completion"]
    assert [body["prompt"] for body in sent] == ['<user>hi<assistant>"']


def test_a_common_beginning_is_sent_as_tokens() -> None:
    """Each branch after it needs one more request; the logarithms are added."""
    engine = FakeEngine()
    answer = score(engine, ["good", "good value", "bad"])
    sent = [body["prompt"] for path, body in engine.asked if path == "/completion"]
    assert sent == ['<user>hi<assistant>"', ['<user>hi<assistant>"', *map(ord, "good")]]
    found = {each.token: math.exp(each.logprob) for each in answer.logprobs[0].top}
    good, ends = ord("g") / (ord("g") + ord("b")), ord('"') / (ord('"') + ord(" "))
    expected = {"good": good * ends, "good value": good * (1 - ends), "bad": 1 - good}
    assert found == pytest.approx(expected, abs=1e-3)


def test_a_quotation_mark_in_a_choice_is_escaped() -> None:
    """Each choice is scored as a JSON string."""
    engine = FakeEngine()
    score(engine, ['a "b"', "c"])
    texts = [body["content"] for path, body in engine.asked if path == "/tokenize"]
    assert texts == ['a \\"b\\""', 'c"']


@given(SEQUENCES)
def test_branches_separate_all_sequences(sequences: list[tuple[int, ...]]) -> None:
    """Each two differ at exactly one branch, where both have the same prefix."""
    branches = find_branches(sequences)
    assert branches is not None
    assert len(branches) <= len(sequences) - 1
    for first in range(len(sequences)):
        for second in range(first):
            apart = [
                branch
                for branch in branches
                if any(first in e and second not in e for e in branch.answers.values())
                and any(second in e for e in branch.answers.values())
            ]
            assert len(apart) == 1
            depth = len(apart[0].prefix)
            assert sequences[first][:depth] == sequences[second][:depth] == apart[0].prefix


def test_choices_with_the_same_tokens_are_an_error() -> None:
    """They cannot be distinguished."""
    engine = FakeEngine()
    with pytest.raises(errors.UnsupportedError, match="same tokens"):
        score(engine, ["a", "a"])


def test_an_invalid_reply_is_an_error_of_the_provider() -> None:
    """It names the model, and not only a missing key."""

    class Broken(FakeEngine):
        async def __call__(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
            return {} if path == "/completion" else await super().__call__(path, body)

    with pytest.raises(errors.ProviderError, match="local/m"):
        score(Broken(), ["a", "b"])


@pytest.mark.parametrize("wrong", ["yes", ["yes"], ["a", "a"], ["a", ""], ["a", 1], 5])
def test_wrong_choices_are_an_error(wrong: Any) -> None:
    """At least two different texts."""
    with pytest.raises(errors.ConfigurationError, match="choices"):
        ModelParameters(choices=wrong)
    assert ModelParameters(choices=["a", "b"]).choices == ("a", "b")  # type: ignore[arg-type]


def test_a_provider_that_cannot_score_says_so(own_settings: None) -> None:
    """Only ``local`` can."""
    with pytest.raises(errors.UnsupportedError, match="choices"):
        lm.ask("hi", "echo/echo", choices=["a", "b"])


@pytest.mark.weights
def test_a_real_engine_scores_all_choices(own_settings: None) -> None:
    """The probabilities sum to 1, and the answer is the most probable choice."""
    choices = ["positive", "negative", "good", "good value"]

    async def ask() -> ModelResponse:
        async with create_provider("local") as provider:
            parameters = ModelParameters(choices=tuple(choices))
            answer = await provider.generate_chat(HI, "smollm2-135m", parameters)
            assert isinstance(answer, ModelResponse)
            return answer

    answer = asyncio.run(ask())
    (scored,) = answer.logprobs
    assert sorted(each.token for each in scored.top) == sorted(choices)
    assert sum(math.exp(each.logprob) for each in scored.top) == pytest.approx(1, abs=1e-3)
    assert answer.text == scored.token == scored.top[0].token
    assert json.loads(json.dumps(answer.raw))["choices"][answer.text] == scored.logprob
