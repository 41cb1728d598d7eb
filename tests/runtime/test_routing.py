"""Aliases, routes, retries, fallback: who is asked, how often, and who is asked instead."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import errors
from llm_magics.runtime.policies.retry import (
    CircuitBreakers,
    RetryPolicy,
    RetryState,
    may_fall_back,
)
from llm_magics.runtime.routing import Candidate, order_candidates, resolve_candidates
from tests.support.fake_openai import FakeOpenAI
from tests.support.servers import BUSY, GOOD, WRONG_KEY, once, servers
from tests.support.serving import Asked, Says, as_json, chat_event

ALIASES = {"smart": "openai/big", "dry": {"model": "smart", "temperature": 0}}
ROUTES = {"fast": ["echo/echo", "dry"], "all": {"models": ["fast", "smart"], "policy": "cheapest"}}


def test_names_lead_to_models() -> None:
    """An alias to a model and its parameters, a route to several, each through the other."""
    assert resolve_candidates("x/y", ALIASES, ROUTES) == ([Candidate("x/y")], "order")
    assert resolve_candidates("smart", ALIASES, ROUTES) == ([Candidate("openai/big")], "order")
    dry = Candidate("openai/big", {"temperature": 0})
    assert resolve_candidates("dry", ALIASES, ROUTES) == ([dry], "order")
    assert resolve_candidates("fast", ALIASES, ROUTES) == ([Candidate("echo/echo"), dry], "order")
    found, policy = resolve_candidates("all", ALIASES, ROUTES)
    assert (found, policy) == ([Candidate("echo/echo"), dry, Candidate("openai/big")], "cheapest")


@pytest.mark.parametrize("names", [{"a": "a"}, {"a": "b", "b": "a"}])
def test_a_name_that_leads_back_to_itself(names: dict[str, str]) -> None:
    """Is an error that shows the way round."""
    with pytest.raises(errors.ConfigurationError, match="a → "):
        resolve_candidates("a", names, {})
    with pytest.raises(errors.ConfigurationError, match="itself"):
        resolve_candidates("a", {}, {name: [to] for name, to in names.items()})


def test_policies_put_them_in_order() -> None:
    """By price, by speed, by turns; what is not known comes last."""
    found = [Candidate(name) for name in "abc"]

    def names(policy: Any, **how: Any) -> str:
        return "".join(each.model for each in order_candidates(found, policy, **how))

    assert names("order") == "abc"
    assert names("cheapest", price={"a": 3.0, "b": 1.0}.get) == "bac"
    assert names("fastest", speed={"b": 10.0, "c": 90.0}.get) == "cba"
    assert [names("round-robin", turn=turn) for turn in range(4)] == ["abc", "bca", "cab", "abc"]
    assert order_candidates([], "round-robin") == []


def error_of(made: type[errors.ProviderError] = errors.RateLimitError, **more: Any) -> Any:
    """An error of a provider's."""
    return made("no", **{"retryable": True, **more})


@given(st.integers(0, 5), st.floats(0, 60), st.integers())
def test_waits_are_bounded(retries: int, max_retry_delay_s: float, seed: int) -> None:
    """Each by the longest, all by the number, whatever is drawn."""
    tried = RetryState(
        RetryPolicy(retries=retries, max_delay_s=max_retry_delay_s), random.Random(seed)
    )
    waits = []
    while (wait_s := tried.delay_s(error_of())) is not None:
        waits.append(wait_s)
    assert len(waits) == tried.count == retries
    assert all(0 <= wait_s <= min(max_retry_delay_s, 0.5 * 2**n) for n, wait_s in enumerate(waits))


def test_what_the_service_says_of_the_wait_is_obeyed() -> None:
    """Up to the longest; a wait beyond it is not begun, nor one that would end after the deadline of the call."""
    assert RetryState(RetryPolicy()).delay_s(error_of(retry_after=7)) == 7
    assert RetryState(RetryPolicy()).delay_s(error_of(retry_after=0)) == 0
    assert RetryState(RetryPolicy()).delay_s(error_of(retry_after=31)) is None
    now = [0.0]
    tried = RetryState(RetryPolicy(retries=9, max_delay_s=30, timeout_s=50), clock=lambda: now[0])
    for began_s, expected in ((1, 20), (25, 20), (31, None)):
        now[0] = began_s
        assert tried.delay_s(error_of(retry_after=20)) == expected


@pytest.mark.parametrize(
    ("error", "again", "elsewhere"),
    [
        (error_of(), True, True),
        (error_of(errors.ConnectionError), True, True),
        (error_of(errors.ConnectionError, code="unreachable"), False, True),
        (error_of(errors.ProviderError, status=500), True, True),
        (error_of(errors.RateLimitError, retryable=False), False, True),
        (error_of(errors.ModelNotFoundError, retryable=False), False, True),
        (error_of(errors.ProviderError, status=400, retryable=False), False, False),
        (error_of(errors.AuthenticationError, retryable=False), False, False),
        (error_of(errors.ContentFilterError, retryable=False), False, False),
        (error_of(errors.StreamInterrupted), False, False),
        (error_of(errors.WeightsError), False, True),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else None,
)
def test_what_is_asked_again_and_what_elsewhere(
    error: errors.ProviderError, again: bool, elsewhere: bool
) -> None:
    """Never a bad request, a wrong key, or half an answer."""
    assert (RetryState(RetryPolicy()).delay_s(error) is not None) is again
    assert may_fall_back(error) is elsewhere


def test_who_fails_rests_and_is_tried_by_one() -> None:
    """After three failures; when it has rested one call tries it, and its success ends the rest."""
    now = [0.0]
    rests = CircuitBreakers(after=3, open_s=30, clock=lambda: now[0])
    for _ in range(2):
        rests.failed("a")
    assert rests.may_try("a")
    rests.failed("a")
    assert not rests.may_try("a")
    assert rests.may_try("b")
    now[0] = 31
    assert [rests.may_try("a"), rests.may_try("a")] == [True, False]
    rests.failed("a")
    assert not rests.may_try("a")
    now[0] = 62
    assert rests.may_try("a")
    rests.succeeded("a")
    assert [rests.may_try("a"), rests.may_try("a")] == [True, True]


def test_a_route_is_tried_in_turn() -> None:
    """The first that answers; what had failed before it is in the answer and in the log."""
    with servers(one=BUSY, two=GOOD) as running:
        lm.config.routes = {"fast": ["one/m", "two/m"]}
        answer = lm.ask("x", model="fast")
        assert (answer.text, answer.model) == ("hi", "two/m")
        assert answer.retries == 2
        assert answer.fallback_from == ("one/m (RateLimitError)",)
        assert [len(server.asked) for server in running.values()] == [3, 1]
        row = lm.runs().iloc[-1]
        assert (row.provider, row.retries, row.fallback_from) == (
            "two",
            2,
            "one/m (RateLimitError)",
        )


def test_a_call_is_repeated_where_that_helps() -> None:
    """And what the user sees is one answer."""
    with servers(one=once(BUSY, GOOD)):
        answer = lm.ask("x", model="one/m")
        assert (answer.text, answer.retries, answer.fallback_from) == ("hi", 1, ())


@pytest.mark.usefixtures("quick_retries")
@pytest.mark.parametrize("retries", [0, 1, 4])
def test_how_often_is_a_setting(retries: int) -> None:
    """Nought asks once."""
    with servers(one=BUSY) as running:
        lm.config.retries = retries
        with pytest.raises(errors.RateLimitError):
            lm.ask("x", model="one/m")
        assert len(running["one"].asked) == 1 + retries


def test_a_wrong_key_or_request_ends_the_route() -> None:
    """Another model would hide the mistake."""
    with servers(one=WRONG_KEY, two=GOOD) as running:
        lm.config.routes = {"fast": ["one/m", "two/m"]}
        with pytest.raises(errors.AuthenticationError):
            lm.ask("x", model="fast")
        assert running["two"].asked == []


def test_words_that_were_handed_out_are_not_taken_back() -> None:
    """An answer that breaks off is neither asked for again nor elsewhere."""
    with servers(one=Says([chat_event("half")], cut=True), two=GOOD) as running:
        lm.config.routes = {"fast": ["one/m", "two/m"]}
        with pytest.raises(errors.StreamInterrupted) as caught:
            lm.ask("x", model="fast")
        assert caught.value.partial.text == "half"
        assert [len(server.asked) for server in running.values()] == [1, 0]


def test_an_error_in_the_first_event_may_fall_back() -> None:
    """Nothing was handed out yet, status 200 or not."""
    inside = Says([b'data: {"error": {"message": "overloaded", "code": 529}}\n\n'])
    with servers(one=inside, two=GOOD):
        lm.config.routes, lm.config.retries = {"fast": ["one/m", "two/m"]}, 0
        assert lm.ask("x", model="fast").model == "two/m"


def test_who_keeps_failing_is_left_alone() -> None:
    """The fourth call does not even ask."""
    with servers(one=as_json({"error": {"message": "down"}}, 500), two=GOOD) as running:
        lm.config.routes, lm.config.retries = {"fast": ["one/m", "two/m"]}, 0
        for _ in range(5):
            answer = lm.ask("x", model="fast")
        assert len(running["one"].asked) == 3
        assert "skipped" in answer.fallback_from[0]


def test_a_missing_model_and_a_dead_host_fall_back_at_once() -> None:
    """Asking again would not help; the route goes on."""
    with servers(one=FakeOpenAI(), two=GOOD) as running:
        lm.config.routes = {"fast": ["one/no-such", "ollama/m", "two/m"]}
        lm.config.set("providers.ollama.base_url", "http://127.0.0.1:9")
        started = time.monotonic()
        assert lm.ask("x", model="fast").model == "two/m"
        assert time.monotonic() - started < 10
        assert len([a for a in running["one"].asked if a.body]) == 1


def test_an_alias_brings_its_parameters() -> None:
    """Over the settings, under those of the prompt."""
    with servers(one=GOOD) as running:
        lm.config.aliases = {"mine": {"model": "one/m", "temperature": 0.25, "top_k": 5}}
        lm.config.temperature = 0.9
        lm.ask("x", model="mine")
        lm.ask("x", model="mine", temperature=0.5)
        sent = [asked.json() for asked in running["one"].asked]
    assert [body["temperature"] for body in sent] == [0.25, 0.5]
    assert sent[0]["top_k"] == 5


def test_the_cheapest_and_the_turns() -> None:
    """Prices of the services' own lists; what is on this machine costs nothing."""
    dear = {"id": "m", "pricing": {"prompt": "0.00002", "completion": "0.00002"}}
    cheap = {"id": "m", "pricing": {"prompt": "0.000001", "completion": "0.000001"}}

    def priced(model: dict[str, Any]) -> Callable[[Asked], Says]:
        return lambda asked: GOOD if asked.body else as_json({"data": [model]})

    with servers(one=priced(dear), two=priced(cheap)):
        both = ["one/m", "two/m"]
        lm.config.routes = {
            "low": {"models": both, "policy": "cheapest"},
            "turns": {"models": both, "policy": "round-robin"},
        }
        assert lm.ask("x", model="low").model == "two/m"
        asked = [lm.ask("x", model="turns").model for _ in range(3)]
        assert asked == ["one/m", "two/m", "one/m"]


def taking(milliseconds: float) -> Says:
    """An answer of two tokens that the engine says took so long."""
    usage = {"prompt_tokens": 1, "completion_tokens": 2}
    last = chat_event(choices=[], usage=usage, timings={"predicted_ms": milliseconds})
    return Says([chat_event("a"), chat_event("b", finish_reason="stop"), last])


def test_the_fastest_is_known_from_runs() -> None:
    """Of what was measured in this session; who was never asked comes last."""
    with servers(one=taking(50), two=taking(10), three=taking(1)):
        models = ["three/m", "one/m", "two/m"]
        lm.config.routes = {"quick": {"models": models, "policy": "fastest"}}
        for model in models[1:]:
            lm.ask("x", model=model)
        assert lm.ask("x", model="quick").model == "two/m"


def test_embeddings_are_asked_for_again_but_not_elsewhere() -> None:
    """Another model's vectors would be another language."""
    with servers(one=once(BUSY, FakeOpenAI()(asked_for_vectors()))):
        assert lm.embed(["a"], model="one/text-embedding-test").shape == (1, 16)
        assert lm.runs().iloc[-1].retries == 1


def asked_for_vectors() -> Asked:
    """A request for one vector."""
    body = b'{"model": "text-embedding-test", "input": ["a"], "encoding_format": "float"}'
    headers = {"authorization": "Bearer a-key-of-the-test"}
    return Asked("POST", "/embeddings", headers, body)


def test_routes_and_aliases_are_checked_when_they_are_read(tmp_path: Path) -> None:
    """A policy that there is not, a route without models, an alias without one."""
    for wrong in (
        {"routes": {"fast": {"models": ["a/b"], "policy": "quickest"}}},
        {"routes": {"fast": {"models": []}}},
        {"aliases": {"x": {"temperature": 0}}},
    ):
        ((key, value),) = wrong.items()
        with pytest.raises(errors.ConfigurationError, match=key):
            lm.config.set(key, value)


def test_a_cell_tells_what_it_took(
    shell: InteractiveShell, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line under the answer, and only where there is something to tell."""
    with servers(one=BUSY, two=once(BUSY, GOOD)):
        lm.config.routes = {"fast": ["one/m", "two/m"]}
        shell.run_line_magic("llm", "use fast")
        assert "one/m, then two/m" in capsys.readouterr().out
        shell.run_cell_magic("llm", "-f text", "x")
        told = capsys.readouterr().out
        assert "answered by two/m, instead of one/m (RateLimitError), retried 3 times" in told
        shell.run_cell_magic("llm", "two/m -f text", "x")
        assert "answered by" not in capsys.readouterr().out
