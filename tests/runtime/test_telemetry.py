"""Spans of calls: names, attributes, parents and endings, by OpenTelemetry's conventions."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv.attributes import error_attributes, server_attributes
from opentelemetry.trace import SpanKind, StatusCode

import llm_magics as lm
from llm_magics._async.sync import Operation, run_sync
from llm_magics.errors import LLMError, ProviderError
from llm_magics.notebook.tool_calls import ToolRounds
from llm_magics.runtime.media_calls import MediaCall, image_call, transcription_call
from llm_magics.runtime.response import Response
from llm_magics.runtime.session import session
from llm_magics.runtime.telemetry import attributes, sdk
from llm_magics.secrets import register_secret
from llm_magics.types import ToolCall
from tests.support import fake_anthropic, fake_gemini, fake_ollama
from tests.support.fake_anthropic import FakeAnthropic
from tests.support.fake_gemini import FakeGemini
from tests.support.fake_media import WAV, FakeMedia
from tests.support.fake_ollama import FakeOllama
from tests.support.fake_openai import FakeOpenAI
from tests.support.fake_responses import FakeResponses
from tests.support.servers import BUSY, GOOD, WRONG_KEY, once, servers
from tests.support.serving import Asked, Says, chat_event, serving
from tests.support.telemetry import Telemetry, configure

KEY = "a-key-of-the-test"

# The attributes of the conventions, from OpenTelemetry's own package.
CONVENTIONS = {
    value
    for module in (gen_ai_attributes, server_attributes, error_attributes)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str)
}
# What the package does not have yet, or has under an earlier name (gen_ai.usage.cache_creation…).
CONVENTIONS |= {
    "gen_ai.prompt.version",
    "gen_ai.request.reasoning.level",
    "gen_ai.usage.cache_write.input_tokens",
}
TYPES = {
    "gen_ai.request.temperature": float,
    "gen_ai.request.top_p": float,
    "gen_ai.request.max_tokens": int,
    "gen_ai.request.seed": int,
    "gen_ai.request.stop_sequences": tuple,
    "gen_ai.request.stream": bool,
    "gen_ai.response.finish_reasons": tuple,
    "gen_ai.response.id": str,
    "gen_ai.response.model": str,
    "gen_ai.response.time_to_first_chunk": float,
    "gen_ai.usage.input_tokens": int,
    "gen_ai.usage.output_tokens": int,
    "server.port": int,
}


@pytest.fixture
def telemetry(monkeypatch: pytest.MonkeyPatch) -> Telemetry:
    """The configured SDK."""
    return configure(monkeypatch)


def check_names(span: ReadableSpan) -> None:
    """Each attribute is one of the conventions with the type that they say, or one of our own."""
    for name, value in (span.attributes or {}).items():
        assert name in CONVENTIONS or name.startswith("llm_magics."), name
        assert type(value) is TYPES.get(name, type(value)), (name, value)


WIRES: dict[str, tuple[dict[str, str], Callable[[Asked], Says], str, str, str]] = {
    "openai": ({"type": "openai"}, FakeOpenAI(), "gpt-test", "wire", "chat"),
    "responses": (
        {"type": "openai", "api": "responses"},
        FakeResponses(),
        "gpt-5-test",
        "wire",
        "chat",
    ),
    "anthropic": ({"type": "anthropic"}, FakeAnthropic(), fake_anthropic.CHAT, "wire", "chat"),
    "gemini": ({"type": "gemini"}, FakeGemini(), fake_gemini.CHAT, "wire", "generate_content"),
    "ollama": ({"type": "ollama"}, FakeOllama(), fake_ollama.CHAT, "wire", "chat"),
}


@pytest.mark.parametrize("wire", WIRES)
def test_a_chat_of_each_wire_format(telemetry: Telemetry, wire: str) -> None:
    """The same attributes with the same meaning, whatever the service sends."""
    settings, fake, model, provider, operation = WIRES[wire]
    with serving(fake) as server:
        lm.config.providers = {"wire": {**settings, "base_url": server.url, "api_key": KEY}}
        answer = lm.ask("Hello", model=f"wire/{model}", max_tokens=20)
    (span,) = [each for each in telemetry.spans if each.name.startswith(operation)]
    check_names(span)
    found = dict(span.attributes or {})
    assert span.name == f"{operation} {model}"
    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is StatusCode.UNSET
    assert found["gen_ai.operation.name"] == operation
    assert found["gen_ai.provider.name"] == provider
    assert found["gen_ai.request.model"] == model
    assert found["gen_ai.request.max_tokens"] == 20
    assert found["server.address"] == "127.0.0.1"
    assert found["server.port"] == int(server.url.rsplit(":", 1)[1].partition("/")[0])
    assert found["gen_ai.response.finish_reasons"] == (answer.finish_reason,)
    assert found.get("gen_ai.usage.input_tokens") == answer.usage.input_tokens
    assert found["gen_ai.usage.output_tokens"] == answer.usage.output_tokens
    assert found["gen_ai.response.time_to_first_chunk"] > 0
    assert found["llm_magics.cached"] is False
    assert KEY not in span.to_json()


@pytest.mark.parametrize("wire", ["anthropic", "gemini", "openai", "responses"])
def test_the_answer_is_identified_as_the_service_does(telemetry: Telemetry, wire: str) -> None:
    """Its identifier and the model that wrote it, where the service names them."""
    settings, fake, model, *_ = WIRES[wire]
    with serving(fake) as server:
        lm.config.providers = {"wire": {**settings, "base_url": server.url, "api_key": KEY}}
        lm.ask("Hello", model=f"wire/{model}", max_tokens=20)
    found = dict(telemetry.spans[-1].attributes or {})
    sent = b"".join(fake(server.asked[-1]).pieces).decode()
    for name in ("gen_ai.response.id", "gen_ai.response.model"):
        if name in found:
            assert f'"{found[name]}"' in sent
    assert wire == "openai" or {"gen_ai.response.id"} <= set(found)


def test_parameters_of_the_request(telemetry: Telemetry) -> None:
    """Those that were set, with their types; no others."""
    lm.ask(
        "a b c", model="echo/echo", temperature=1, top_p=0.5, seed=7, stop=["x", "y"],
        max_tokens=9, top_k=40, frequency_penalty=1, n=1, thread="main",
    )  # fmt: skip
    check_names(telemetry.span)
    found = telemetry.attributes
    assert {each: found[each] for each in found if ".request." in each} == {
        "gen_ai.request.model": "echo",
        "gen_ai.request.temperature": 1.0,
        "gen_ai.request.top_p": 0.5,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": ("x", "y"),
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.top_k": 40,
        "gen_ai.request.frequency_penalty": 1.0,
        "gen_ai.request.stream": True,
    }
    assert found["gen_ai.conversation.id"] == "main"
    assert "gen_ai.output.type" not in found
    assert "server.address" not in found


def test_a_schema_is_a_request_for_json(telemetry: Telemetry) -> None:
    """It is the type of the output."""
    lm.ask('{"a": 1}', model="echo/echo", schema="a int")
    assert telemetry.attributes["gen_ai.output.type"] == "json"


@pytest.mark.parametrize(
    ("address", "name", "expected"),
    [
        ("https://api.openai.com/v1", "openai", "openai"),
        ("https://api.openai.com/v1", "work", "openai"),
        ("https://api.groq.com/openai/v1", "groq", "groq"),
        ("https://api.mistral.ai/v1", "mine", "mistral_ai"),
        ("https://api.x.ai/v1", "x", "x_ai"),
        ("https://api.deepseek.com/v1", "d", "deepseek"),
        ("https://api.perplexity.ai", "p", "perplexity"),
        ("https://lab.openai.azure.com/openai/v1", "a", "azure.ai.openai"),
        ("https://bedrock-runtime.eu-west-1.amazonaws.com/openai/v1", "b", "aws.bedrock"),
        ("http://127.0.0.1:8000/v1", "lab", "lab"),
    ],
)
def test_names_of_providers(address: str, name: str, expected: str) -> None:
    """A known host has the conventions' name; a server of the user's own the name in the settings."""
    lm.config.providers = {name: {"type": "openai", "base_url": address, "api_key": KEY}}
    assert attributes.provider_name(session.provider(name)) == expected


def test_well_known_names_are_those_of_the_conventions() -> None:
    """But for Moonshot AI, which the package does not have yet."""
    known = {each.value for each in gen_ai_attributes.GenAiProviderNameValues}
    assert set(attributes._WELL_KNOWN.values()) <= known | {"moonshot_ai"}
    operations = {each.value for each in gen_ai_attributes.GenAiOperationNameValues}
    assert set(attributes._OPERATIONS.values()) <= operations


def test_the_users_span_is_the_parent(telemetry: Telemetry) -> None:
    """Of one prompt, of a stream, of each row of a column and of embeddings, in one trace."""
    frame = pd.DataFrame({"text": ["a", "b", "c"]})
    with telemetry.user_span() as parent:
        lm.ask("one", model="echo/echo")
        with closing(lm.stream("two", model="echo/echo")) as stream:
            for _ in stream:
                pass
        frame.llm.prompt("Say {{ text }}", model="echo/echo")
        lm.embed(["x"], model="echo/echo")
    *ours, user = telemetry.spans
    names = [each.name for each in ours]
    assert names.count("chat echo") == 5
    assert names.count("embeddings echo") == 1
    assert {each.parent.span_id for each in ours if each.parent} == {parent}
    assert all(each.context.trace_id == user.context.trace_id for each in ours)


def test_the_parent_of_asynchronous_calls(telemetry: Telemetry) -> None:
    """The span that is current in each task."""

    async def ask(name: str) -> tuple[str, int]:
        with telemetry.user_span(name) as parent:
            await lm.aask(name, model="echo/echo", thread=name)
            return name, parent

    async def both() -> list[tuple[str, int]]:
        return await asyncio.gather(ask("a"), ask("b"))

    parents = dict(asyncio.run(both()))
    for span in telemetry.spans:
        if span.name == "chat echo":
            assert span.attributes
            assert span.parent
            assert span.parent.span_id == parents[str(span.attributes["gen_ai.conversation.id"])]


def test_no_span_is_current_after_a_call(telemetry: Telemetry) -> None:
    """The next call is not inside the one before."""
    for _ in range(2):
        lm.ask("hello", model="echo/echo")
    assert [each.parent for each in telemetry.spans] == [None, None]


def test_requests_of_an_instrumented_client_are_inside(telemetry: Telemetry) -> None:
    """The span is current while the request is sent, as instrumentations of HTTP clients expect."""
    from opentelemetry import trace

    inside: list[int] = []

    def answer(asked: Asked) -> Says:
        return GOOD

    with servers(lab=answer):
        provider = session.provider("lab")
        generate = provider.generate_chat

        async def watched(*arguments: Any) -> Any:
            inside.append(trace.get_current_span().get_span_context().span_id)
            return await generate(*arguments)

        provider.generate_chat = watched  # type: ignore[method-assign]
        lm.ask("hello", model="lab/any")
    assert inside == [telemetry.span.context.span_id]


def test_a_stream_that_is_closed_early(telemetry: Telemetry) -> None:
    """Its span ends when the stream does, and says so; that is no failure."""
    events = [chat_event(f" word{n}") for n in range(500)]
    says = Says([*events, chat_event(finish_reason="stop")], gap_s=0.002)
    with servers(lab=says), closing(lm.stream("hello", model="lab/any")) as stream:
        next(stream)
        assert telemetry.spans == []
    assert telemetry.span.status.status_code is StatusCode.UNSET
    assert telemetry.attributes["llm_magics.interrupted"] is True
    assert telemetry.attributes["gen_ai.response.finish_reasons"] == ("error",)


def test_a_stream_that_nobody_closes(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    """Its span ends when the stream is collected, and nothing is logged."""
    events = [chat_event(f" word{n}") for n in range(500)]
    with servers(lab=Says([*events, chat_event(finish_reason="stop")], gap_s=0.002)):
        stream = lm.stream("hello", model="lab/any")
        next(stream)
        del stream
        gc.collect()
    assert telemetry.attributes["llm_magics.interrupted"] is True
    assert [each for each in caplog.records if "opentelemetry" in each.name] == []


@pytest.mark.parametrize(("kind", "output"), [("image", "image"), ("transcription", "text")])
def test_images_and_transcriptions(telemetry: Telemetry, kind: str, output: str) -> None:
    """They are contents that a model generates, of a type of their own."""
    with servers(lab=FakeMedia()):
        call: MediaCall[Any] = (
            image_call(session, "a cat", "lab/gpt-image-1", {})
            if kind == "image"
            else transcription_call(session, WAV, "lab/whisper-1", {})
        )
        run_sync(Operation(call, lambda: call.result))
    check_names(telemetry.span)
    assert telemetry.attributes["gen_ai.operation.name"] == "generate_content"
    assert telemetry.attributes["gen_ai.output.type"] == output
    assert telemetry.span.name.startswith("generate_content ")


def test_a_refused_call(telemetry: Telemetry) -> None:
    """The status is an error, of the type of the HTTP status."""
    with servers(lab=WRONG_KEY), pytest.raises(ProviderError):
        lm.ask("hello", model="lab/any")
    assert telemetry.span.status.status_code is StatusCode.ERROR
    assert telemetry.span.status.description == "AuthenticationError"
    assert telemetry.attributes["error.type"] == "401"
    check_names(telemetry.span)


def test_a_call_that_fails_without_a_status(telemetry: Telemetry) -> None:
    """The type is the name of the error's class."""
    lm.config.retries = 0
    with servers(lab=Says(drop=True)), pytest.raises(LLMError):
        lm.ask("hello", model="lab/any")
    assert telemetry.attributes["error.type"] == "llm_magics.errors.ConnectionError"


@pytest.mark.usefixtures("quick_retries")
def test_retries_are_events(telemetry: Telemetry) -> None:
    """One for each attempt that was followed by another; the call itself succeeds."""
    with servers(lab=once(BUSY, GOOD)):
        lm.ask("hello", model="lab/any")
    (event,) = telemetry.span.events
    assert event.name == "llm_magics.failed_attempt"
    assert dict(event.attributes or {}) == {
        "error.type": "429",
        "gen_ai.provider.name": "lab",
        "gen_ai.request.model": "any",
        "server.address": "127.0.0.1",
        "server.port": telemetry.attributes["server.port"],
    }
    assert telemetry.span.status.status_code is StatusCode.UNSET
    assert telemetry.attributes["llm_magics.retries"] == 1


def test_fallbacks_are_events(telemetry: Telemetry) -> None:
    """The span has the name of the model that answered."""
    lm.config.retries = 0
    with servers(first=Says(drop=True), second=GOOD):
        lm.config.routes = {"both": ["first/a", "second/b"]}
        lm.ask("hello", model="both")
    assert telemetry.span.name == "chat b"
    (event,) = telemetry.span.events
    assert event.attributes
    assert event.attributes["gen_ai.provider.name"] == "first"
    assert telemetry.attributes["gen_ai.provider.name"] == "second"
    assert len(telemetry.attributes["llm_magics.fallback_from"]) == 1


def test_a_stored_answer(telemetry: Telemetry, tmp_path: Path) -> None:
    """It has a span, marked as cached and without tokens, which were counted before."""
    lm.config.cache = True
    for _ in range(2):
        lm.ask("hello", model="echo/lorem", seed=1)
    sent, stored = telemetry.spans
    assert sent.attributes
    assert stored.attributes
    assert sent.attributes["gen_ai.usage.output_tokens"]
    assert stored.attributes["llm_magics.cached"] is True
    assert not [name for name in stored.attributes if "usage" in name or "time_to" in name]
    for kind in ("input", "output"):
        (point,) = [
            each
            for each in telemetry.points("gen_ai.client.token.usage")
            if each.attributes and each.attributes["gen_ai.token.type"] == kind
        ]
        assert point.count == 1
    (duration,) = telemetry.points("gen_ai.client.operation.duration")
    assert duration.count == 1


def test_embeddings(telemetry: Telemetry) -> None:
    """One span for all texts of a call, with the dimensions and the tokens."""
    with servers(lab=FakeOpenAI()):
        lm.embed([f"text {n}" for n in range(5)], model="lab/text-embedding-test")
    (span,) = [each for each in telemetry.spans if each.name.startswith("embeddings")]
    check_names(span)
    assert span.attributes
    assert span.attributes["gen_ai.operation.name"] == "embeddings"
    assert span.attributes["gen_ai.embeddings.dimension.count"] == 16
    assert span.attributes["gen_ai.usage.input_tokens"] == 5


def double(number: int) -> int:
    """Double a number."""
    if number < 0:
        msg = "a secret of the function"
        raise ValueError(msg)
    return 2 * number


def test_functions_that_a_model_calls(shell: InteractiveShell, telemetry: Telemetry) -> None:
    """Each has a span of its own; an error that the model gets is an error there too."""
    calls = (ToolCall("c1", "double", '{"number": 4}'), ToolCall("c2", "double", '{"number": -4}'))
    rounds = ToolRounds(shell, [double], is_allowed=True)
    with telemetry.user_span() as parent:
        rounds.messages(Response("", tool_calls=calls))
    good, bad, _ = telemetry.spans
    assert good.name == bad.name == "execute_tool double"
    assert good.kind is SpanKind.INTERNAL
    assert good.parent
    assert good.parent.span_id == parent
    assert dict(good.attributes or {}) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "double",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": "c1",
    }
    assert bad.attributes
    assert bad.attributes["error.type"] == "ValueError"
    assert "secret" not in bad.to_json()
    assert sum(each.count for each in telemetry.points("gen_ai.execute_tool.duration")) == 2


def test_names_of_spans_have_no_keys(shell: InteractiveShell, telemetry: Telemetry) -> None:
    """Although they have the names of models and tools, which a user or a model writes."""
    register_secret(KEY)
    with pytest.raises(LLMError):
        lm.ask("x", model=f"echo/{KEY}-{'x' * 2000}")
    call = ToolCall("c", KEY + "x" * 2000, "{}")
    ToolRounds(shell, [double], is_allowed=True).messages(Response("", tool_calls=(call,)))
    assert len(telemetry.spans) > 0
    for span in telemetry.spans:
        assert KEY not in span.to_json()
        assert len(span.name) <= 1000


def test_a_failing_exporter_does_not_fail_a_call(
    telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever raises at the start, at a retry or at the end of a span is logged."""

    def broken(*_: object, **__: object) -> None:
        msg = "broken"
        raise RuntimeError(msg)

    for name in ("request_attributes", "Target"):
        with monkeypatch.context() as patch:
            patch.setattr(f"llm_magics.runtime.telemetry.calls.{name}", broken)
            assert lm.ask("hello", model="echo/echo").text == "hello"
    with monkeypatch.context() as patch:
        patch.setattr(telemetry.tracers, "get_tracer", broken)
        assert lm.ask("hello", model="echo/echo").text == "hello"
    logged = [each for each in caplog.records if each.name == sdk.logger.name]
    assert len(logged) >= 3
    assert all(each.levelno == logging.WARNING for each in logged)
