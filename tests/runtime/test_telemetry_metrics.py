"""Metrics of calls, beside those of OpenTelemetry's own instrumentations; and nothing without an SDK."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import opentelemetry.metrics
import opentelemetry.trace
import pytest
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import NoOpTracerProvider
from opentelemetry.util.genai.handler import TelemetryHandler
from opentelemetry.util.genai.types import InputMessage, OutputMessage, TextPart

import llm_magics as lm
from llm_magics.errors import ProviderError
from llm_magics.runtime.jobs.spending import log_jobs
from llm_magics.runtime.routing import Route
from llm_magics.runtime.telemetry import calls, sdk
from llm_magics.types import Usage
from tests.support.fake_openai import FakeOpenAI
from tests.support.servers import GOOD, WRONG_KEY, servers
from tests.support.telemetry import Telemetry, configure

# What the events of `chat_event` have, which are those of a llama.cpp server.
RESPONSE_ID = "chatcmpl-YE0bou5OkbzI5WtNgEFjqxoeWc2fBynu"
RESPONSE_MODEL = "smollm2-135m.gguf"


@pytest.fixture
def telemetry(monkeypatch: pytest.MonkeyPatch) -> Telemetry:
    """The configured SDK."""
    return configure(monkeypatch)


def test_metrics_of_a_chat(telemetry: Telemetry) -> None:
    """The duration of its span, its tokens by type, and the times of its chunks."""
    with servers(lab=GOOD):
        answer = lm.ask("hello", model="lab/any")
    (duration,) = telemetry.points("gen_ai.client.operation.duration")
    span = telemetry.span
    assert span.end_time
    assert span.start_time
    assert duration.sum == pytest.approx((span.end_time - span.start_time) / 1e9, rel=1e-3)
    assert duration.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "lab",
        "gen_ai.request.model": "any",
        "gen_ai.response.model": RESPONSE_MODEL,
        "server.address": "127.0.0.1",
        "server.port": telemetry.attributes["server.port"],
    }
    counted = {
        str((each.attributes or {})["gen_ai.token.type"]): each.sum
        for each in telemetry.points("gen_ai.client.token.usage")
    }
    assert counted == {"input": answer.usage.input_tokens, "output": answer.usage.output_tokens}
    (first,) = telemetry.points("gen_ai.client.operation.time_to_first_chunk")
    assert first.sum == telemetry.attributes["gen_ai.response.time_to_first_chunk"]
    (gaps,) = telemetry.points("gen_ai.client.operation.time_per_output_chunk")
    assert gaps.count >= 1
    assert gaps.min >= 0


def test_metrics_of_a_failure(telemetry: Telemetry) -> None:
    """The duration has the type of the error; no tokens are counted."""
    with servers(lab=WRONG_KEY), pytest.raises(ProviderError):
        lm.ask("hello", model="lab/any")
    (duration,) = telemetry.points("gen_ai.client.operation.duration")
    assert duration.attributes
    assert duration.attributes["error.type"] == "401"
    assert telemetry.points("gen_ai.client.token.usage") == []


def test_tokens_of_embeddings(telemetry: Telemetry) -> None:
    """Those that were sent; vectors from the cache are not counted again."""
    with servers(lab=FakeOpenAI()):
        for _ in range(2):
            lm.embed(["a", "b"], model="lab/text-embedding-test")
    (tokens,) = telemetry.points("gen_ai.client.token.usage")
    (duration,) = telemetry.points("gen_ai.client.operation.duration")
    assert tokens.count == 1
    assert duration.count == 1


@pytest.mark.parametrize("error", ["", "JobError: lost"])
def test_batch_jobs(telemetry: Telemetry, error: str) -> None:
    """What was read from jobs is a span from its start to its end, and counts as tokens."""
    from llm_magics.runtime.session import session

    began = datetime.now(UTC) - timedelta(minutes=5)
    route = Route(provider=session.provider("echo"), model="echo")
    log_jobs(session, route, began, usage=Usage(30, 4), cost_usd=0.5, error=error)
    span = telemetry.span
    assert span.name == "batch echo"
    assert span.start_time == pytest.approx(began.timestamp() * 1e9)
    assert span.status.is_ok is not bool(error)
    assert telemetry.attributes["gen_ai.usage.input_tokens"] == 30
    assert telemetry.attributes["llm_magics.cost_usd"] == 0.5
    assert sum(each.sum for each in telemetry.points("gen_ai.client.token.usage")) == 34
    assert telemetry.points("gen_ai.client.operation.duration") == []


def test_metrics_without_spans(telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may record only metrics."""
    monkeypatch.setattr(opentelemetry.trace, "get_tracer_provider", NoOpTracerProvider)
    lm.ask("hello", model="echo/echo")
    assert telemetry.spans == []
    (duration,) = telemetry.points("gen_ai.client.operation.duration")
    assert duration.count == 1


def read(value: Any) -> Any:
    """An attribute; messages decoded, without the names of participants, which are empty."""
    if not (isinstance(value, str) and value.startswith("[")):
        return value
    return [{name: each[name] for name in each if name != "name"} for each in json.loads(value)]


def test_the_same_as_opentelemetrys_instrumentation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The names, units, boundaries and attributes that opentelemetry-util-genai has for such a call."""
    monkeypatch.setenv(sdk.CONTENT_VARIABLE, "SPAN_ONLY")
    with monkeypatch.context() as patch:
        ours = configure(patch)
        with servers(lab=GOOD):
            lm.ask("hello", model="lab/any", temperature=0.5, max_tokens=9, seed=1, stop=["x"])
    theirs = configure(monkeypatch)
    handler = TelemetryHandler(
        opentelemetry.trace.get_tracer_provider(), opentelemetry.metrics.get_meter_provider()
    )
    with handler.inference("lab", request_model="any", server_address="h", server_port=1) as call:
        call.input_messages = [InputMessage("user", [TextPart("hello")])]
        call.output_messages = [OutputMessage("assistant", [TextPart("hi")], "stop")]
        call.temperature, call.max_tokens, call.seed, call.stop_sequences = 0.5, 9, 1, ["x"]
        call.finish_reasons, call.input_tokens, call.output_tokens = ["stop"], 32, 1
        call.cache_read_input_tokens = 24
        call.response_id, call.response_model_name = RESPONSE_ID, RESPONSE_MODEL
    assert ours.span.name == theirs.span.name
    assert ours.span.kind == theirs.span.kind
    own, other = ours.attributes, theirs.attributes
    for name in set(other) - {"server.address", "server.port"}:
        assert read(own[name]) == read(other[name]), name
    own_metrics = ours.metrics()
    assert set(theirs.metrics()) <= set(own_metrics)
    for name, metric in theirs.metrics().items():
        assert metric.unit == own_metrics[name].unit
        assert type(metric.data) is type(own_metrics[name].data)
        for mine, their in zip(ours.points(name), theirs.points(name), strict=True):
            assert list(mine.explicit_bounds) == list(their.explicit_bounds)
            assert set(mine.attributes or ()) == set(their.attributes or ())


NOTHING = """
import json, sys
import llm_magics as lm
lm.ask("hello", model="echo/echo")
print(json.dumps([name for name in sys.modules if name.startswith("opentelemetry")]))
"""


def test_nothing_is_imported_without_an_sdk() -> None:
    """A call in a program that does not use OpenTelemetry leaves it where it is."""
    done = subprocess.run(
        [sys.executable, "-c", NOTHING], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []


def count_calls(function: Any) -> int:
    """The number of Python functions that are called, with ``function`` itself."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


@pytest.mark.parametrize("is_imported", [True, False])
def test_without_an_sdk_a_call_costs_a_few_look_ups(
    monkeypatch: pytest.MonkeyPatch, is_imported: bool
) -> None:
    """No span is made, also if another package has imported OpenTelemetry's API."""
    for module, getter, provider in (
        ("trace", "get_tracer_provider", NoOpTracerProvider()),
        ("metrics", "get_meter_provider", NoOpMeterProvider()),
    ):
        if is_imported:
            monkeypatch.setattr(f"opentelemetry.{module}.{getter}", lambda each=provider: each)
        else:
            monkeypatch.delitem(sys.modules, f"opentelemetry.{module}")
    assert calls.start_call("chat", None, "") is None
    assert count_calls(lambda: calls.start_call("chat", None, "")) <= 8


def test_the_placeholders_of_the_api_are_no_sdk() -> None:
    """They stand for an SDK until one is configured; here none is."""
    assert isinstance(
        opentelemetry.trace.get_tracer_provider(), opentelemetry.trace.ProxyTracerProvider
    )
    assert sdk.find_sdk() is None
