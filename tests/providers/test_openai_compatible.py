"""Servers that speak OpenAI's formats: their manners as data, and names of a user's own."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import ChatMessage, ModelParameters, ModelResponse, errors
from llm_magics.providers import create_provider
from llm_magics.providers.base import BaseModelProvider, ModelInfo
from llm_magics.providers.model_lists import parse_model, parse_models
from llm_magics.providers.openai import OpenAIConfig, OpenAIProvider
from llm_magics.providers.profiles import find_profile, profiles
from llm_magics.runtime.session import Session, session
from llm_magics.settings.config import Config
from tests.support.fake_openai import FakeOpenAI
from tests.support.serving import Asked, Says, as_json, chat_stream, serving

HI = [ChatMessage("user", "hi")]
KEY = "a-key-of-the-test"
ALL = ModelParameters(
    max_tokens=5, seed=1, schema={"type": "object"}, reasoning="low", temperature=0
)


@pytest.mark.parametrize(
    ("url", "profile"),
    [
        ("https://api.openai.com/v1", "openai"),
        ("https://mine.openai.azure.com/openai/v1", "azure"),
        ("https://mine.services.ai.azure.com/openai/v1", "azure"),
        ("https://api.groq.com/openai/v1", "groq"),
        ("https://api.mistral.ai/v1", "mistral"),
        ("https://openrouter.ai/api/v1", "openrouter"),
        ("https://api.openai.com.evil.example/v1", "other"),
        ("https://evilopenrouter.ai/v1", "other"),
        ("http://127.0.0.1:8000/v1", "other"),
        ("", "other"),
    ],
)
def test_a_service_is_known_by_its_host(url: str, profile: str) -> None:
    """By the whole of it: a name that only looks like it is a stranger's."""
    assert find_profile(url) is profiles()[profile]


@pytest.mark.parametrize(
    ("profile", "there", "not_there"),
    [
        ("openai", {"max_completion_tokens", "reasoning_effort"}, {"max_tokens"}),
        ("azure", {"max_completion_tokens"}, {"max_tokens"}),
        ("mistral", {"max_tokens", "random_seed"}, {"seed", "stream_options"}),
        ("openrouter", {"reasoning"}, {"reasoning_effort"}),
        ("vllm", {"max_tokens", "seed", "stream_options"}, {"max_completion_tokens"}),
    ],
)
def test_each_is_asked_in_its_own_words(
    profile: str, there: set[str], not_there: set[str]
) -> None:
    """The same parameters under the names that the service has for them."""
    with serving(Says(chat_stream("hi"))) as server:
        settings = {"base_url": server.url, "api_key": KEY, "profile": profile}
        provider = create_provider("mine", type="openai", **settings)
        asyncio.run(provider.generate_chat(HI, "m", ALL))
        body = server.asked[0].json()
    assert there <= set(body)
    assert not not_there & set(body)


def test_a_schema_beyond_a_service_becomes_json() -> None:
    """DeepSeek knows only that it shall be JSON; whether it fits is checked on this side."""
    with serving(Says(chat_stream("{}"))) as server:
        config = OpenAIConfig(base_url=server.url, api_key=KEY, profile="deepseek")  # type: ignore[arg-type]
        asyncio.run(OpenAIProvider(config).generate_chat(HI, "m", ALL))
    assert server.asked[0].json()["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize("api_version", [None, "2024-10-21"])
def test_azure(api_version: str | None) -> None:
    """Its key in a header of its own; the older interface has an address a deployment."""
    with serving(Says(chat_stream("hi"))) as server:
        provider = create_provider(
            "work",
            type="openai",
            profile="azure",
            base_url=server.url,
            api_key=KEY,
            api_version=api_version,
        )
        asyncio.run(provider.generate_chat(HI, "work/my-gpt", ModelParameters()))
    (asked,) = server.asked
    assert asked.headers["api-key"] == KEY
    assert "authorization" not in asked.headers
    older = "/openai/deployments/my-gpt/chat/completions?api-version=2024-10-21"
    assert asked.path == (older if api_version else "/chat/completions")


def test_azures_first_chunk_and_missing_deployment() -> None:
    """A chunk without choices comes first; a missing deployment is a missing model."""
    filtered = b'data: {"choices": [], "prompt_filter_results": [{"prompt_index": 0}]}\n\n'
    empty = b'data: {"choices": [{"index": 0, "delta": null}]}\n\n'
    gone = {"error": {"code": "DeploymentNotFound", "message": "The API deployment is not there."}}

    def answers(asked: Asked) -> Says:
        if b"gone" in asked.body:
            return as_json(gone, 404)
        return Says([filtered, empty, *chat_stream("hi")])

    with serving(answers) as server:
        provider = create_provider("openai", base_url=server.url, api_key=KEY, profile="azure")
        answer = asyncio.run(provider.generate_chat(HI, "m", ModelParameters()))
        assert isinstance(answer, ModelResponse)
        assert answer.text == "hi"
        with pytest.raises(errors.ModelNotFoundError):
            asyncio.run(provider.generate_chat(HI, "gone", ModelParameters()))


def test_a_known_service_needs_only_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its address and its users' variable are known; OpenAI's key is not for it."""
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-for-openai-alone")
    monkeypatch.setenv("GROQ_API_KEY", "a-key-for-groq")
    groq = create_provider("groq", type="openai")
    assert groq.name == "groq"
    config: Any = groq.config
    assert config.base_url == "https://api.groq.com/openai/v1"
    assert config.api_key.reveal() == "a-key-for-groq"
    monkeypatch.delenv("GROQ_API_KEY")
    unknown: Any = create_provider("groq", type="openai").config
    assert unknown.api_key is None
    with pytest.raises(errors.ConfigurationError, match="base_url") as caught:
        create_provider("mine", type="openai")
    assert "providers.mine.base_url" in str(caught.value.hint)
    with pytest.raises(errors.ConfigurationError) as wrong:
        create_provider("mine", type="openai", base_url="http://x", profile="gorq")
    assert "groq" in str(wrong.value.hint)


@pytest.mark.parametrize("kind", ["anthropic", "gemini", "lmstudio", "ollama"])
def test_a_second_server_of_any_kind(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under its own name and address, without what the environment says of the first."""
    variables = {
        "anthropic": "ANTHROPIC",
        "gemini": "GEMINI",
        "ollama": "OLLAMA",
        "lmstudio": "LM",
    }
    monkeypatch.setenv(f"{variables[kind]}_API_KEY", "not-for-the-second")
    monkeypatch.setenv("LM_API_TOKEN", "not-for-the-second")
    second = create_provider("second", type=kind, base_url="http://127.0.0.1:9")
    config: Any = second.config
    assert (second.name, config.api_key) == ("second", None)
    assert second.bare("second/a/b") == "a/b"
    with pytest.raises(errors.ConfigurationError, match="base_url"):
        create_provider("second", type=kind)


def test_it_is_used_like_any_other(tmp_path: Path) -> None:
    """Named in a settings file: listed, asked, and logged by its name."""
    with serving(FakeOpenAI()) as server:
        for key, value in {"type": "openai", "base_url": server.url, "api_key": KEY}.items():
            lm.config.set(f"providers.mine.{key}", value)
        try:
            answer = lm.ask("hi", model="mine/gpt-test", max_tokens=3)
            assert answer.model == "mine/gpt-test"
            assert "mine/gpt-test" in set(lm.models("mine/")["model"])
            assert "mine" in session.providers.names()
            assert lm.runs()["provider"].iloc[-1] == "mine"
        finally:
            lm.config.reset()


def test_a_profile_brings_no_key_to_another_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groq's manners at a server of one's own: Groq's key is not for it, its own is."""
    monkeypatch.setenv("GROQ_API_KEY", "a-key-for-groq")
    settings = (
        "providers: {mine: {type: openai, profile: groq, base_url: 'http://evil.example/v1'}}"
    )
    (tmp_path / "llm_magics.yaml").write_text(settings)
    own = Session(Config(tmp_path, {}))
    assert own.provider("mine").config.api_key is None  # type: ignore[attr-defined]
    monkeypatch.setenv("MINE_API_KEY", "a-key-of-mine")
    with pytest.raises(errors.ConfigurationError, match=r"evil\.example"):
        own.provider("mine")


def test_a_project_cannot_send_a_services_key_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name brings a key with it; a project's address must not get it."""
    monkeypatch.setenv("GROQ_API_KEY", "a-key-for-groq")
    settings = "providers: {groq: {type: openai, base_url: 'http://evil.example/v1'}}"
    (tmp_path / "llm_magics.yaml").write_text(settings)
    own = Session(Config(tmp_path, {}))
    name = "groq"
    with pytest.raises(errors.ConfigurationError, match=r"evil\.example") as caught:
        own.provider(name)
    assert "a-key-for-groq" not in str(caught.value)
    monkeypatch.delenv("GROQ_API_KEY")
    assert isinstance(own.provider(name), BaseModelProvider)


def test_the_hubs_token_does_not_go_to_a_projects_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it lies in a file, and in no variable."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "token"))
    (tmp_path / "token").write_text("a-token-of-the-hub")
    (tmp_path / "llm_magics.yaml").write_text(
        "providers: {huggingface: {base_url: 'http://evil.example'}}"
    )
    with pytest.raises(errors.ConfigurationError, match="API key"):
        Session(Config(tmp_path, {})).provider("huggingface")


def test_a_name_without_a_type_is_refused(tmp_path: Path) -> None:
    """With the nearest right one, and the way to add one."""
    (tmp_path / "llm_magics.yaml").write_text("providers: {olama: {base_url: 'http://x'}}")
    with pytest.raises(errors.ConfigurationError, match="olama") as caught:
        Session(Config(tmp_path, {})).provider("echo")
    assert "ollama" in str(caught.value.hint)
    assert "providers.olama.type" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"id": "a"}, ModelInfo("a")),
        ({"id": "a", "max_model_len": 4096}, ModelInfo("a", context=4096)),
        ({"id": "a", "context_window": 8192, "max_completion_tokens": 99}, ModelInfo("a", context=8192, max_output_tokens=99)),
        ({"id": "a", "meta": {"n_ctx": 2048, "n_ctx_train": 8192}}, ModelInfo("a", context=2048)),
        ({"id": "a", "max_context_length": 32768, "capabilities": {"completion_chat": True, "vision": True, "function_calling": False}}, ModelInfo("a", ("chat", "vision"), 32768)),
        (
            {"id": "a", "context_length": 9, "pricing": {"prompt": "0.0000025", "completion": "-1"}, "supported_parameters": ["tools", "structured_outputs"], "architecture": {"input_modalities": ["text", "image"]}},
            ModelInfo("a", ("chat", "tools", "schema", "vision"), 9, input_usd=2.5),
        ),
        ({"id": "a", "capabilities": ["completion"], "pricing": None, "meta": None}, ModelInfo("a")),
    ],
    ids=["nothing", "vllm", "groq", "llama.cpp", "mistral", "openrouter", "odd"],
)  # fmt: skip
def test_lists_tell_what_they_tell(told: dict[str, Any], expected: ModelInfo) -> None:
    """Each in its own words; what is not told is not guessed."""
    assert parse_model(told) == expected


@pytest.mark.parametrize(
    "odd", [{"context_length": "many"}, {"pricing": "free"}, {"meta": 3}, {"architecture": ["x"]}]
)
def test_a_fact_of_an_unexpected_form_hides_no_model(odd: dict[str, Any]) -> None:
    """The model is listed by its name, and the others with their facts."""
    models = [{"id": "b", **odd}, {"id": "a", "context_length": "8192"}]
    assert parse_models({"data": models}) == [ModelInfo("a", context=8192), ModelInfo("b")]
    with pytest.raises(KeyError):
        parse_models({"data": [odd]})


def test_a_bare_list_of_models() -> None:
    """Together sends one without anything around it."""
    with serving(as_json([{"id": "b"}, {"id": "a"}])) as server:
        provider = create_provider("openai", base_url=server.url, api_key=KEY)
        assert asyncio.run(provider.list_models()) == ["a", "b"]
    with serving(as_json({"models": 3})) as server:
        provider = create_provider("openai", base_url=server.url, api_key=KEY)
        with pytest.raises(errors.ConfigurationError, match="is not openai"):
            asyncio.run(provider.list_models())


def test_a_server_can_be_added_line_by_line(shell: InteractiveShell) -> None:
    """What is missing after the first line may come with the next; a slip is refused at once."""
    with serving(FakeOpenAI()) as server:
        shell.run_line_magic("llm", "config providers.lab.type openai")
        shell.run_line_magic("llm", f"config providers.lab.base_url {server.url}")
        shell.run_line_magic("llm", f"config providers.lab.api_key {KEY}")
        assert lm.ask("hi", model="lab/gpt-test").text
    with pytest.raises(errors.ConfigurationError, match="baseurl") as caught:
        shell.run_line_magic("llm", "config providers.lab.baseurl http://x")
    assert "base_url" in str(caught.value.hint)
