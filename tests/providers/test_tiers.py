"""The tier ``flex``: its parameter at each service, its errors, its time and its place in caches."""

from __future__ import annotations

import asyncio
from typing import Any

import pandas as pd
import pytest

import llm_magics as lm
from llm_magics import errors
from llm_magics.notebook.parsers import collect_parameters, llm_cell_parser
from llm_magics.parameters import ModelParameters
from llm_magics.providers import create_provider, remote
from llm_magics.providers.batches.offline import chat_request_of
from llm_magics.providers.openai import OpenAIProvider
from llm_magics.providers.remote import RemoteProvider
from llm_magics.providers.tiers import FLEX_IDLE_S, providers_with_tier
from llm_magics.runtime.session import session
from llm_magics.runtime.storage.serialization import chat_request, digest_request
from llm_magics.types import ChatMessage
from tests.support.fake_openai import refusal
from tests.support.serving import Asked, Says, as_json, chat_stream, serving

HI = (ChatMessage("user", "hi"),)
FLEX = ModelParameters(tier="flex")
ANSWER = {
    "choices": [{"index": 0, "message": {"content": "yes"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 10, "completion_tokens": 5},
    "service_tier": "flex",
}


def lab(server: Any, **settings: Any) -> None:
    """A provider ``lab`` at ``server``, with the parameters of OpenAI."""
    own = {"type": "openai", "base_url": server.url, "api_key": "k", "profile": "openai"}
    lm.config.providers = {"lab": {**own, **settings}}


@pytest.mark.parametrize(
    ("name", "settings", "field"),
    [
        ("openai", {}, "service_tier"),
        ("openai", {"api": "responses"}, "service_tier"),
        ("groq", {}, "service_tier"),
        ("azure", {"endpoint": "lab.openai.azure.com"}, "service_tier"),
        ("gemini", {}, "serviceTier"),
    ],
)
def test_the_parameter_of_each_service(name: str, settings: dict[str, Any], field: str) -> None:
    """The usual tier is not sent; a parameter of the service has precedence."""
    lm.config.providers = {name: settings}
    provider = session.provider(name)
    assert isinstance(provider, RemoteProvider)

    def sent(**parameters: Any) -> Any:
        request = chat_request_of(provider, HI, "m", ModelParameters(**parameters))
        return asyncio.run(request).body.get(field)

    assert sent(tier="flex") == "flex"
    assert sent() is None
    assert sent(tier="standard") is None
    assert sent(tier="flex", extra_body={"service_tier": "auto"}) == "auto"


def test_providers_without_tiers_name_those_that_have_them() -> None:
    """Before anything is sent, also in a dry run; servers that are not known have none."""
    assert providers_with_tier("flex") == ["azure", "gemini", "groq", "openai"]
    with serving(Says(chat_stream("hi"))) as server:
        lab(server, profile="vllm")
        for model in ("echo/echo", "lab/m", "ollama/m", "anthropic/m"):
            with pytest.raises(errors.UnsupportedError, match="flex") as caught:
                lm.ask("hi", model, tier="flex")
            assert "azure, gemini, groq, openai" in (caught.value.hint or "")
        assert not server.asked
    with pytest.raises(errors.UnsupportedError):
        asyncio.run(session.provider("gemini").generate_completion("hi", "m", FLEX))
    with pytest.raises(errors.UnsupportedError, match="chats"):
        asyncio.run(create_provider("openai", api_key="k").generate_completion("hi", "m", FLEX))


@pytest.mark.parametrize("tier", ["Flex", "fast", "", 1, True, ["flex"]])
def test_an_invalid_tier(tier: Any) -> None:
    """The error names the tiers."""
    with pytest.raises(errors.ConfigurationError) as caught:
        lm.ask("hi", "echo/echo", tier=tier)
    assert caught.value.hint == "Use one of: standard, flex."


def test_answers_of_all_tiers_are_one() -> None:
    """A prompt finds the answer that another tier has paid for, streamed or not."""
    with serving(lambda asked: as_json(ANSWER)) as server:
        lab(server)
        lm.config.cache = True
        assert lm.ask("good?", "lab/m", tier="flex").text == "yes"
        for parameters in ({}, {"tier": "standard"}, {"service_tier": "flex"}):
            assert lm.ask("good?", "lab/m", **parameters).cached
            streamed = lm.stream("good?", "lab/m", **parameters)
            assert "".join(chunk.text for chunk in streamed) == "yes"
        assert len(server.asked) == 1
        lm.prompt(["good?", "bad?"], "{{ text }}", model="lab/m", service_tier="flex")
        assert len(server.asked) == 2
        frame = pd.DataFrame({"text": ["bad?"]})
        prompted = frame.llm.prompt("{{ text }}", model="lab/m", tier="flex")
        assert prompted["answer"].tolist() == ["yes"]
        assert len(server.asked) == 2
        assert [asked.json().get("service_tier") for asked in server.asked] == ["flex", "flex"]


def test_keys_do_not_depend_on_the_tier() -> None:
    """Of caches and of recordings."""
    parameters = [
        ModelParameters(),
        FLEX,
        ModelParameters(stream=True),
        ModelParameters(extra_body={"service_tier": "flex"}),
        ModelParameters(extra_body={"serviceTier": "flex"}),
    ]
    keys = {digest_request(chat_request("m", HI, each)) for each in parameters}
    assert len(keys) == 1
    other = ModelParameters(extra_body={"service_tier": "flex", "top_k": 1})
    assert digest_request(chat_request("m", HI, other)) not in keys


def test_a_dry_run_is_at_the_price_of_the_tier(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is the budget."""
    monkeypatch.setattr(OpenAIProvider, "price_list", "openai")
    with serving(as_json(ANSWER)) as server:
        lab(server)
        frame = pd.DataFrame({"text": ["good", "bad"]})
        usual = frame.llm.prompt("{{ text }}", model="lab/gpt-5", dry_run=True).cost_usd
        flex = frame.llm.prompt("{{ text }}", model="lab/gpt-5", dry_run=True, tier="flex")
        assert flex.cost_usd == pytest.approx(usual / 2)
        lm.config.budget = usual * 0.6 / 2
        with pytest.raises(errors.BudgetError):
            lm.ask("good", "lab/gpt-5")
        assert lm.ask("good", "lab/gpt-5", tier="flex").text == "yes"


@pytest.mark.parametrize(
    "full",
    [
        as_json(
            {"error": {"message": "Resource unavailable", "code": "resource_unavailable"}}, 429
        ),
        as_json({"error": {"message": "Flex is full", "code": "capacity_exceeded"}}, 498),
        as_json({"error": {"message": "Overloaded", "status": "UNAVAILABLE"}}, 503),
    ],
    ids=["OpenAI", "Groq", "Gemini"],
)
def test_a_full_tier_is_tried_again(full: Says) -> None:
    """As the retry policy says; an error that stays says what else to do."""
    full.headers["retry-after-ms"] = "1"
    answers = [full, full, Says(chat_stream("hi"))]

    def answer(asked: Asked) -> Says:
        return answers[min(len(server.asked), 3) - 1]

    with serving(answer) as server:
        lab(server)
        assert lm.ask("hi", "lab/m", tier="flex").text == "hi"
        assert len(server.asked) == 3
    with serving(full) as server:
        lab(server)
        lm.config.retries = 1
        with pytest.raises(errors.ProviderError) as caught:
            lm.ask("hi", "lab/m", tier="flex")
        assert 'leave out tier="flex"' in (caught.value.hint or "")
        with pytest.raises(errors.ProviderError) as caught:
            lm.ask("hi", "lab/m")
        assert "flex" not in (caught.value.hint or "")


def test_an_account_without_credit_is_not_a_full_tier() -> None:
    """Its own hint remains."""
    spent = as_json({"error": {"message": "No credit", "code": "insufficient_quota"}}, 429)
    with serving(spent) as server:
        lab(server)
        with pytest.raises(errors.RateLimitError, match="No credit") as caught:
            lm.ask("hi", "lab/m", tier="flex")
    assert "Add credit" in (caught.value.hint or "")


def test_a_model_without_the_tier_is_not_paid_at_the_full_price() -> None:
    """The parameter is never omitted, unlike others that a model refuses."""
    refused = refusal("unsupported_value", "Invalid service_tier argument", 400, "service_tier")
    with serving(refused) as server:
        lab(server)
        with pytest.raises(errors.UnsupportedError, match="Invalid service_tier") as caught:
            lm.ask("hi", "lab/m", tier="flex")
        assert len(server.asked) == 1
    assert "use another model" in (caught.value.hint or "")
    assert caught.value.status == 400


def test_an_answer_may_take_fifteen_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the provider has its own idle timeout; other requests keep the usual one."""
    assert FLEX_IDLE_S == 900
    monkeypatch.setattr(remote, "FLEX_IDLE_S", 0.05)
    with serving(Says([], hang=True, delay_s=5)) as server:
        lm.config.retries = 0
        lab(server)
        with pytest.raises(errors.ConnectionError, match=r"for 0\.05 s \(idle timeout\)"):
            lm.ask("hi", "lab/m", tier="flex")
        lab(server, idle_s=0.1)
        for parameters in ({"tier": "flex"}, {}):
            with pytest.raises(errors.ConnectionError, match=r"for 0\.1 s \(idle timeout\)"):
                lm.ask("hi", "lab/m", **parameters)


def test_the_flag_of_a_cell_and_an_alias() -> None:
    """Both become the parameter; the flag has precedence."""
    options = llm_cell_parser().parse("openai/m --tier flex")
    assert collect_parameters(options) == {"tier": "flex"}
    with pytest.raises(errors.UsageError, match="--tier"):
        llm_cell_parser().parse("--tier slow")
    with serving(Says(chat_stream("hi"))) as server:
        lab(server)
        lm.config.aliases = {"cheap": {"model": "lab/m", "tier": "flex"}}
        lm.ask("hi", "cheap")
        lm.ask("ho", "cheap", tier="standard")
        assert [each.json().get("service_tier") for each in server.asked] == ["flex", None]
