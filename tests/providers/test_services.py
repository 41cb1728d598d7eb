"""Services by name: the data file, and one contract that all of them keep."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import anthropic
import openai
import pydantic
import pytest
from genai_prices.data import providers as price_lists
from IPython.core.interactiveshell import InteractiveShell

import llm_magics as lm
from llm_magics import ChatMessage, ModelParameters, ModelResponse, errors
from llm_magics.parameters import Tool
from llm_magics.providers import built_in_providers, create_provider, service_names
from llm_magics.providers.base import CAPABILITIES
from llm_magics.providers.model_lists import FORMATS
from llm_magics.providers.openai import OpenAIProvider
from llm_magics.providers.openai_errors import MEANINGS, map_openai_error
from llm_magics.providers.profiles import find_profile, profiles
from llm_magics.providers.services import Service, _host_patterns, read_file, services
from llm_magics.runtime.session import Session, session
from llm_magics.settings.config import Config
from llm_magics.settings.credentials import ADDRESS_PARTS
from llm_magics.wire.thinking import DIALECTS
from tests.support.fake_services import (
    CHAT,
    EMBEDDING,
    KEY,
    SERVICES,
    SETTINGS,
    VARIABLES,
    FakeService,
    path_of,
)
from tests.support.serving import Says, Server, chat_stream, serving

HI = [ChatMessage("user", "hi")]
BY_NAME = sorted(SERVICES)


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True)


class _Part(_Strict):
    kind: Literal["label", "account", "host"] = "label"
    variables: list[str] = []
    meaning: str
    default: str = ""
    addresses: dict[str, str] = {}


class _Thinking(_Strict):
    dialect: str
    efforts: list[str] = []


class _ThinkingModels(_Strict):
    names: list[str]
    efforts: list[str] = []
    thinks: bool = True
    can_be_off: bool = True


class _Lists(_Strict):
    path: str = "/models"
    format: str = "openai"


class _Header(_Strict):
    name: str
    scheme: str


class _Responses(_Strict):
    path: str = pydantic.Field("/responses", pattern="^/")
    refuses: list[str] = []
    model_prefix: str = ""


class _Facts(_Strict):
    """All fields that a service can have in the data file."""

    title: str
    address: str
    hosts: list[str] | None = None
    type: Literal["openai", "anthropic"] = "openai"
    key_variables: list[str] = []
    shares_key: bool = False
    token_provider: str = ""
    key_header: _Header | None = None
    parts: dict[str, _Part] = {}
    capabilities: list[str]
    names: dict[str, str] = {}
    refuses: list[str] = []
    embedding_batch_size: int = pydantic.Field(0, ge=0)
    encoding_format: Literal["float", "base64"] = "float"
    schema_: Literal["json_schema", "json_object"] = pydantic.Field("json_schema", alias="schema")
    dialect: Literal["openai", "plain", "cerebras", "json_object", "grammar", "unknown"] = "plain"
    strict_models: list[str] = []
    thinking: _Thinking | None = None
    thinking_models: list[_ThinkingModels] = []
    models: _Lists = _Lists()
    errors: dict[str, str] = {}
    price_list: str = ""
    tiers: list[Literal["flex"]] = []
    max_logprobs: int = 20
    logprobs_format: Literal["openai", "integer"] = "openai"
    search: Literal["", "chat", "responses"] = ""
    responses: _Responses = _Responses()
    batches: str = pydantic.Field("", pattern="^[a-z]*$")
    sources: list[str] = pydantic.Field(min_length=1)
    checked: str = pydantic.Field(pattern=r"^20\d\d-[01]\d$")
    unchecked: list[str] = []
    notes: str = ""


FACTS = read_file()


@pytest.mark.parametrize("name", sorted(FACTS))
def test_the_facts_of_a_service_are_valid(name: str) -> None:
    """Each field is known, has its type, and refers to something that exists."""
    facts = _Facts.model_validate(FACTS[name])
    assert re.fullmatch(r"[a-z][a-z-]*", name)
    assert re.match(r"https://|http://127\.0\.0\.1:", facts.address)
    assert not facts.address.endswith("/")
    assert set(re.findall(r"\{(\w+)\}", facts.address)) == set(facts.parts)
    assert facts.key_variables or facts.token_provider
    assert list(facts.capabilities) == [
        each for each in CAPABILITIES if each in facts.capabilities
    ]
    assert facts.thinking is None or facts.thinking.dialect in DIALECTS
    assert facts.models.format in FORMATS
    assert set(facts.errors.values()) <= set(MEANINGS)
    assert ("tools" in facts.refuses) != ("tools" in facts.capabilities)
    assert not set(facts.names) & set(facts.refuses)
    known = {each.id for each in price_lists}
    assert facts.price_list in known | {""}
    assert not facts.batches or find_spec(f"llm_magics.providers.batches.{facts.batches}")
    variables = [
        *facts.key_variables,
        *(v for part in facts.parts.values() for v in part.variables),
    ]
    assert all(re.fullmatch(r"[A-Z][A-Z0-9_]+", variable) for variable in variables)


def test_parts_of_addresses_need_trust() -> None:
    """The list of settings that need it has all parts in the data file, and no others."""
    assert {part.name for each in services().values() for part in each.parts} == {*ADDRESS_PARTS}


def test_services_have_no_name_of_another_provider() -> None:
    """Except those whose module uses the profile."""
    assert set(services()) - set(service_names()) <= {"openai", "gemini"}
    assert set(SERVICES) | {"openai", "vertex", "bedrock-anthropic"} == set(services())


@pytest.fixture(autouse=True)
def parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parts of all addresses are set."""
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


def forget_addresses() -> None:
    """Forget what was derived from the addresses of services."""
    for cached in (profiles, find_profile, _host_patterns):
        cached.cache_clear()


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The fake of the service ``name``, at its own address as far as the package knows."""
    name = request.node.callspec.params["name"]
    before = services()[name]
    with serving(FakeService(name)) as running:
        path = path_of(before.address)
        address = running.url + (path if path != "/" else "")
        services()[name] = replace(before, address=address, hosts=("127.0.0.1",))
        forget_addresses()
        yield running
    services()[name] = before
    forget_addresses()


def create(name: str, key: str | None = KEY) -> OpenAIProvider:
    """Create the provider of a service, with this key or the one in its variable."""
    settings: dict[str, Any] = {**SETTINGS.get(name, {}), **({"api_key": key} if key else {})}
    if name in built_in_providers():
        provider = create_provider("mine", type="openai", profile=name, **settings)
    else:
        provider = create_provider(name, **settings)
    assert isinstance(provider, OpenAIProvider)
    return provider


def ask(provider: OpenAIProvider, parameters: ModelParameters, model: str = CHAT) -> ModelResponse:
    """Return the answer of a provider."""
    answer = asyncio.run(provider.generate_chat(HI, model, parameters))
    assert isinstance(answer, ModelResponse)
    return answer


@pytest.mark.parametrize("name", BY_NAME)
def test_its_address_is_the_documented_one(name: str) -> None:
    """With the parts from variables and settings; the service is recognised by its host."""
    provider = create(name)
    assert f"{provider.address}/chat/completions" == SERVICES[name].chat
    if services()[name].hosts:
        assert find_profile(provider.address).base_url == services()[name].address
        assert provider.is_set_up


@pytest.mark.parametrize("name", BY_NAME)
def test_it_answers_by_its_name(
    name: str, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With its key variable alone; streamed and whole, with usage and all usual parameters."""
    service = services()[name]
    monkeypatch.setenv(service.key_variables[-1], KEY)
    provider = create(name, key=None) if name in built_in_providers() else None
    own = Session(Config(tmp_path, {}))
    for key, value in SETTINGS.get(name, {}).items():
        own.config.set(f"providers.{name}.{key}", value)
    made = provider or own.provider(name)
    assert isinstance(made, OpenAIProvider)
    assert made.config.api_key is not None
    parameters = ModelParameters(max_tokens=50, temperature=0, top_p=0.9, seed=1, stop=("END",))
    refused = made.profile.refuses & {"seed", "stop"}
    if refused:
        with pytest.warns(UserWarning, match=f"{made.name} does not support"):
            whole = ask(made, parameters)
    else:
        whole = ask(made, parameters)
    assert whole.text == "one two three"
    assert whole.usage is not None
    assert (whole.usage.input_tokens, whole.usage.output_tokens) == (7, 3)

    async def stream() -> str:
        answer = await made.generate_chat(HI, CHAT, parameters.with_stream())
        assert not isinstance(answer, ModelResponse)
        return "".join([chunk.text async for chunk in answer])

    assert asyncio.run(stream()) == whole.text
    assert len(server.asked) == 2  # nothing was refused and sent again


@pytest.mark.parametrize("name", BY_NAME)
def test_its_models_are_listed(name: str, server: Server) -> None:
    """From its own address and in its own form; without a list, health needs no request."""
    provider = create(name)
    models = asyncio.run(provider.list_models())
    assert [info.name for info in asyncio.run(provider.describe_models())] == models
    health = asyncio.run(provider.health_check())
    assert health["status"] == "ok"
    facts = SERVICES[name]
    if not facts.models:
        assert models == []
        assert "no list of models" in health["detail"]
        assert server.asked == []
        return
    assert CHAT in models
    assert (EMBEDDING in models) == facts.has_embeddings
    assert set(models) <= {CHAT, EMBEDDING}
    if name in ("cloudflare", "cohere", "databricks", "github"):
        found = {info.name: info.capabilities for info in asyncio.run(provider.describe_models())}
        assert found == {CHAT: ("chat",), EMBEDDING: ("embeddings",)}
    if name in ("cloudflare", "cohere", "github"):
        assert {info.context for info in asyncio.run(provider.describe_models())} == {4096}


@pytest.mark.parametrize("name", BY_NAME)
def test_it_embeds_if_it_can(name: str, server: Server) -> None:
    """One vector a text; a service without embeddings is an error, before a request."""
    provider = create(name)
    assert ("embeddings" in provider.capabilities) == SERVICES[name].has_embeddings
    texts = ["a", "b"]
    if not SERVICES[name].has_embeddings:
        with pytest.raises(errors.UnsupportedError, match="embed"):
            asyncio.run(provider.generate_embeddings(texts, EMBEDDING))
        assert server.asked == []
        return
    vectors = asyncio.run(provider.generate_embeddings(texts, EMBEDDING))
    assert [len(vector) for vector in vectors] == [16, 16]
    packed = asyncio.run(provider.generate_packed(texts, EMBEDDING))
    assert packed.dimensions == 16
    many = [f"text {number}" for number in range(300)]
    assert len(asyncio.run(provider.generate_embeddings(many, EMBEDDING))) == 300
    assert provider.embedding_batch_size <= SERVICES[name].max_texts


@pytest.mark.parametrize("name", BY_NAME)
def test_it_answers_with_a_schema(name: str, server: Server) -> None:
    """The answer is the JSON text, also of a service that sends the value itself."""
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    answer = ask(create(name), ModelParameters(schema=schema))
    assert set(pydantic.TypeAdapter(dict[str, str]).validate_json(answer.text)) == {"city"}
    assert len(server.asked) == 1


@pytest.mark.parametrize("name", BY_NAME)
def test_it_calls_tools_if_it_can(name: str, server: Server) -> None:
    """With a choice of tool, unless the service lacks it; without tools it is an error."""
    provider, facts = create(name), SERVICES[name]
    parameters = ModelParameters(tools=(Tool("weather", "how it is"),), tool_choice="auto")
    if not facts.has_tools:
        with pytest.raises(errors.UnsupportedError, match="tools"):
            ask(provider, parameters)
        return
    if "tool_choice" in facts.without:
        with pytest.warns(UserWarning, match="tool_choice"):
            answer = ask(provider, parameters)
    else:
        answer = ask(provider, parameters)
    assert [(call.name, call.arguments) for call in answer.tool_calls] == [
        ("weather", {"city": "Rome"})
    ]
    assert len(server.asked) == 1


@pytest.mark.parametrize("name", BY_NAME)
def test_its_errors_are_mapped(name: str, server: Server) -> None:
    """A wrong key, a missing model and a refused parameter, each in the service's own form."""
    provider = create(name)
    with pytest.raises(errors.ModelNotFoundError):
        ask(provider, ModelParameters(), "no-such-model")
    with pytest.raises(errors.AuthenticationError) as caught:
        ask(create(name, key="a-wrong-key"), ModelParameters())
    assert services()[name].key_variables[0] in str(caught.value.hint)
    with pytest.raises(errors.ProviderError, match="Unrecognized request argument: unheard_of"):
        ask(provider, ModelParameters(extra_body={"unheard_of": 1}))


@pytest.mark.parametrize("name", BY_NAME)
def test_what_it_refuses_would_be_refused(name: str, server: Server) -> None:
    """What the data file says it refuses is an error there; else leaving it out has no reason."""
    provider = create(name)
    for parameter in provider.profile.refuses - {"dimensions", "tools"}:
        with pytest.raises(errors.ProviderError, match=f"argument: {parameter}"):
            # Parameters in extra_body are renamed and left out like all others: send it directly.
            asyncio.run(
                provider._object(
                    "POST",
                    "/chat/completions",
                    {"model": CHAT, "messages": [], parameter: {}},
                    CHAT,
                )
            )


@pytest.mark.parametrize("name", sorted({*BY_NAME} - {"vllm", "llamacpp"}))
def test_nothing_is_sent_without_a_key(name: str, server: Server) -> None:
    """The error names the variable, and the service counts as not set up."""
    provider = create(name, key=None)
    assert not provider.is_set_up
    with pytest.raises(errors.AuthenticationError) as caught:
        ask(provider, ModelParameters())
    assert services()[name].key_variables[0] in str(caught.value.hint)
    assert server.asked == []


@pytest.mark.parametrize("name", BY_NAME)
def test_the_official_client_is_served_too(name: str, server: Server) -> None:
    """The fake accepts what the service does: OpenAI's client gets the same answer."""
    header, value = SERVICES[name].header
    client = openai.OpenAI(
        base_url=server.url + path_of(SERVICES[name].chat).removesuffix("/chat/completions"),
        api_key=KEY,
        default_headers={header: value},
        max_retries=0,
    )
    stream = client.chat.completions.create(
        model=CHAT, messages=[{"role": "user", "content": "hi"}], stream=True
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert text == "one two three"
    client.close()


def test_bedrock_is_addressed_as_by_the_official_client() -> None:
    """Anthropic's client for Bedrock has the same address and the same header for a key."""
    client = anthropic.AnthropicBedrockMantle(aws_region="eu-central-1", api_key=KEY)
    provider = create_provider("bedrock-anthropic", api_key=KEY)
    assert str(client.base_url).rstrip("/") == provider.address
    assert client.auth_headers == {"Authorization": f"Bearer {KEY}"}
    client.close()


def test_anthropics_api_at_another_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bedrock takes its key as a bearer token, and has no list of models."""
    before = services()["bedrock-anthropic"]
    events = (
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"m","usage":'
        b'{"input_tokens":7,"output_tokens":1}}}\n\n'
        b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":'
        b'{"type":"text_delta","text":"hello"}}\n\n'
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},'
        b'"usage":{"output_tokens":3}}\n\n'
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
    )
    with serving(Says([events])) as server:
        address = f"{server.url}/anthropic"
        services()["bedrock-anthropic"] = replace(before, address=address, hosts=("127.0.0.1",))
        forget_addresses()
        try:
            provider = create_provider("bedrock-anthropic", api_key=KEY)
            answer = asyncio.run(provider.generate_chat(HI, "anthropic.claude", {"max_tokens": 9}))
            assert isinstance(answer, ModelResponse)
            assert answer.text == "hello"
            assert server.asked[0].path == "/anthropic/v1/messages"
            assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
            assert "x-api-key" not in server.asked[0].headers
            assert asyncio.run(provider.list_models()) == []
            assert not create_provider("bedrock-anthropic").is_set_up
        finally:
            services()["bedrock-anthropic"] = before
            forget_addresses()


HOSTILE = [
    "evil.com/x",
    "evil.com#",
    "me@evil.com",
    "..",
    "a b",
    "evil.com?x",
    "é",
    "a\nb",
    "x" * 300,
]


@pytest.mark.parametrize(
    ("service", "part"),
    [(each, part) for each in services().values() for part in each.parts],
    ids=lambda each: each.name,
)
def test_a_part_cannot_change_the_rest_of_the_address(service: Service, part: Any) -> None:
    """A value with other characters is refused, and the error names its setting."""
    values = [*HOSTILE, "http://evil.com" if part.kind == "host" else "https://evil.com"]
    for value in values:
        with pytest.raises(errors.ConfigurationError) as caught:
            service.base_url(service.name, {"project": "mine", part.name: value})
        assert f"providers.{service.name}.{part.name}" in str(caught.value)


@pytest.mark.parametrize("name", [each.name for each in services().values() if each.parts])
def test_a_missing_part_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its setting and its variables."""
    service = services()[name]
    for variable in service.variables:
        monkeypatch.delenv(variable, raising=False)
    for part in service.parts:
        if part.default:
            continue
        with pytest.raises(errors.ConfigurationError, match=f"{name} needs its") as caught:
            create_provider(name, api_key=KEY)
        assert f"providers.{name}.{part.name}" in str(caught.value.hint)
        assert all(variable in str(caught.value.hint) for variable in part.variables)


def test_a_changed_part_creates_the_provider_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """From the next call on, requests go to the new region."""
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", KEY)
    own = Session(Config(tmp_path, {}))
    first = own.provider("bedrock")
    assert own.provider("bedrock") is first
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    assert "us-west-2" in own.provider("bedrock").address
    own.config.set("providers.bedrock.region", "ap-south-1")
    assert "ap-south-1" in own.provider("bedrock").address
    assert "eu-central-1" in first.address


@pytest.mark.parametrize(
    ("name", "part"),
    [(each.name, part) for each in services().values() for part in each.parts],
)
def test_a_part_in_a_project_needs_trust(
    name: str, part: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a base URL does, because the user's key goes where it says."""
    service = services()[name]
    for variable in service.key_variables:
        monkeypatch.setenv(variable, "a-key-of-the-user")
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "mine")
    value = "evil.example.com" if part.kind == "host" else "evil"
    rest = "".join(
        f", {other.name}: b.example.com" if other.kind == "host" else f", {other.name}: b"
        for other in service.parts
        if other.name != part.name
    )
    project = f"providers: {{{name}: {{{part.name}: {value}{rest}}}}}"
    (tmp_path / "llm_magics.yaml").write_text(project)
    own = Session(Config(tmp_path, {}))
    with pytest.raises(errors.ConfigurationError) as caught:
        own.provider(name)
    assert "a-key-of-the-user" not in f"{caught.value} {caught.value.hint}"


def test_a_profile_with_a_part_in_a_project_needs_trust(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The key of a service does not follow its profile to a host of the project."""
    monkeypatch.setenv("DATABRICKS_TOKEN", "a-key-of-the-user")
    project = "providers: {lab: {type: openai, profile: databricks, host: evil.example.com}}"
    (tmp_path / "llm_magics.yaml").write_text(project)
    own = Session(Config(tmp_path, {}))
    with pytest.raises(errors.ConfigurationError, match=r"evil\.example\.com"):
        own.provider("lab")


def test_services_that_are_not_set_up_are_not_contacted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Lists contain those with a key and address, or named in the settings; no variable of others."""
    own = Session(Config(tmp_path, {}))
    listed = own.providers.listed_names()
    assert set(listed) == set(built_in_providers())
    monkeypatch.setenv("XAI_API_KEY", KEY)
    monkeypatch.setenv("GITHUB_TOKEN", KEY)  # often set for other purposes
    monkeypatch.setenv("SNOWFLAKE_TOKEN", KEY)
    monkeypatch.delenv("SNOWFLAKE_ACCOUNT")
    own.config.set("aliases", {"fast": {"model": "groq/gpt-oss-20b"}})
    own.config.set("providers.perplexity.idle_s", 5)
    found = set(own.providers.listed_names()) - set(listed)
    assert found == {"xai", "groq", "perplexity"}
    assert "snowflake" in own.providers.unlisted_names()
    own.provider("xai")
    assert set(own.providers._created) == {"xai"}


def test_a_service_can_be_used_under_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service is the type, or the profile; its key and its address come with it."""
    monkeypatch.setenv("XAI_API_KEY", KEY)
    for settings in ({"type": "xai"}, {"type": "openai", "profile": "xai"}):
        provider = create_provider("mine", **settings)
        assert provider.address == "https://api.x.ai/v1"
        assert provider.key_variable == "XAI_API_KEY"
        assert provider.name == "mine"
    provider = create_provider("mine", type="bedrock", region="us-west-2")
    assert provider.address.startswith("https://bedrock-runtime.us-west-2.")
    with pytest.raises(errors.ConfigurationError, match="regoin"):
        create_provider("bedrock", regoin="eu-central-1")
    with pytest.raises(errors.ConfigurationError, match="region"):
        create_provider("xai", region="eu-central-1")


def test_prices_are_found_under_the_right_list(tmp_path: Path) -> None:
    """Each service with a list has at least one price there."""
    from llm_magics.runtime import pricing

    for name, profile in profiles().items():
        if not profile.price_list:
            continue
        known = next(each for each in price_lists if each.id == profile.price_list)
        source = pricing.PriceSource(profile.price_list, "")
        costs = (
            pricing.listed_cost_usd(source, f"{prefix}{model.id}", pricing.A_MILLION_EACH)
            for model in known.models
            for prefix in ("", "accounts/fireworks/models/")
        )
        assert any(costs), name


@pytest.mark.parametrize(
    ("name", "status", "body", "kind", "retryable"),
    [
        ("cloudflare", 429, {"success": False, "errors": [{"code": 3036, "message": "you have used up your daily free allocation"}]}, errors.RateLimitError, False),
        ("dashscope", 400, {"error": {"message": "Input data may contain inappropriate content.", "code": "data_inspection_failed"}}, errors.ContentFilterError, False),
        ("databricks", 429, {"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "Exceeded workspace input tokens per minute"}, errors.RateLimitError, True),
        ("gemini", 429, [{"error": {"code": 429, "message": "You exceeded your current quota", "status": "RESOURCE_EXHAUSTED"}}], errors.RateLimitError, True),
        ("moonshot", 429, {"error": {"message": "Your account is suspended", "type": "exceeded_current_quota_error"}}, errors.RateLimitError, False),
        ("zai", 429, {"error": {"code": "1113", "message": "Insufficient balance or no resource package."}}, errors.RateLimitError, False),
        ("zai", 400, {"error": {"code": "1301", "message": "System detected potentially unsafe content."}}, errors.ContentFilterError, False),
        ("bedrock", 400, {"message": "The provided model identifier is invalid."}, errors.ModelNotFoundError, False),
        ("bedrock", 403, {"Message": "Authentication failed: Please make sure your API Key is valid."}, errors.AuthenticationError, False),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)  # fmt: skip
def test_the_codes_of_a_service_have_a_meaning(
    name: str, status: int, body: Any, kind: type[errors.ProviderError], retryable: bool
) -> None:
    """Whether a retry can help, and what to do, depends on it."""
    error = map_openai_error(body, status, name, "m", codes=profiles()[name].errors)
    assert type(error) is kind
    assert error.retryable is retryable
    assert error.code is not None or "Message" in body or "message" in body
    assert "{" not in str(error)


def test_a_cell_uses_a_service_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """``lm.ask(model="xai/…")`` with the variable alone."""
    before = services()["xai"]
    monkeypatch.setenv("XAI_API_KEY", KEY)
    with serving(Says(chat_stream("hello"))) as server:
        services()["xai"] = replace(before, address=server.url, hosts=("127.0.0.1",))
        forget_addresses()
        try:
            assert lm.ask("hi", model="xai/grok-4").text == "hello"
            assert lm.runs()["provider"].iloc[-1] == "xai"
        finally:
            services()["xai"] = before
            forget_addresses()


def test_a_service_without_a_list_is_selected_by_name(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``%llm use`` cannot check the model; ``%llm models`` says that none are listed."""
    monkeypatch.setenv("PERPLEXITY_API_KEY", KEY)
    shell.run_line_magic("llm", "use perplexity/sonar")
    assert lm.config.model == "perplexity/sonar"
    assert shell.run_line_magic("llm", "models perplexity").empty
    assert "lists no models. Use one as: perplexity/MODEL" in capsys.readouterr().out


def test_a_service_without_a_model_is_named_as_a_provider(shell: InteractiveShell) -> None:
    """Also one that is not set up, and therefore not in the lists of models."""
    with pytest.raises(errors.ModelNotFoundError) as caught:
        lm.ask("hi", model="groq")
    assert "groq/NAME" in str(caught.value.hint)


def test_those_that_are_not_set_up_are_named(
    shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, by health; the table of providers has what each needs."""
    monkeypatch.setattr(session.providers, "listed_names", lambda: ["echo"])
    assert shell.run_line_magic("llm", "health").provider.tolist() == ["echo"]
    line = capsys.readouterr().out
    assert line.startswith("Not set up: azure, ")
    assert "%llm providers" in line
    monkeypatch.undo()
    monkeypatch.delenv("DATABRICKS_HOST", raising=False)
    table = shell.run_line_magic("llm", "providers").set_index("provider")
    assert table.start["databricks"] == "set DATABRICKS_HOST"
    assert table.key["xai"] == "XAI_API_KEY"
    assert not table.set_up["xai"]
