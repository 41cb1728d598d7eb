"""A program with OpenTelemetry's exporter, a collector, and a receiver behind it: each a process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

PROGRAM = """
import sys
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

import llm_magics as lm

tracers = TracerProvider()
tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(f"{sys.argv[1]}/v1/traces")))
trace.set_tracer_provider(tracers)
meters = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter(f"{sys.argv[1]}/v1/metrics"))])
metrics.set_meter_provider(meters)
with trace.get_tracer("cell").start_as_current_span("cell"):
    answer = lm.ask("hello there", model="echo/echo", seed=1)
print(answer.usage.output_tokens)
tracers.shutdown()
meters.shutdown()
"""


@pytest.fixture
def receiver() -> Iterator[subprocess.Popen[str]]:
    """A strict receiver as a process; its first line is its port."""
    command = [sys.executable, "-m", "tests.support.otlp_receiver"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        yield process
        process.kill()


def port_of(process: subprocess.Popen[str]) -> int:
    """The port that a receiver prints first."""
    assert process.stdout
    return int(process.stdout.readline())


@pytest.fixture
def collector(
    receiver: subprocess.Popen[str], tmp_path: Path
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A collector that sends on to the receiver; where it cannot be had, the receiver itself."""
    url = f"http://127.0.0.1:{port_of(receiver)}"
    found = find_spec("rotel")
    if found is None or not found.origin:
        yield url, receiver
        return
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        http, grpc = one.getsockname()[1], other.getsockname()[1]
    command = [
        str(Path(found.origin).parent / "rotel-agent"), "start",
        "--otlp-http-endpoint", f"127.0.0.1:{http}", "--otlp-grpc-endpoint", f"127.0.0.1:{grpc}",
        "--exporter", "otlp", "--otlp-exporter-protocol", "http", "--otlp-exporter-endpoint", url,
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if "ROTEL" not in name}
    with (
        (tmp_path / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=environment) as process,
    ):
        # Where its binary does not run, the exporter sends to the receiver itself.
        yield (f"http://127.0.0.1:{http}" if is_listening(http) else url), receiver
        process.terminate()


def is_listening(port: int) -> bool:
    """Wait until a process listens on ``port``; return whether one does."""
    for _ in range(400):  # a busy machine starts it late
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return True
        time.sleep(0.05)
    return False


def attributes_of(value: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a span or a point, with their values as the protocol writes them."""
    return {each["key"]: next(iter(each["value"].values())) for each in value["attributes"]}


def test_spans_and_metrics_arrive_behind_a_collector(
    collector: tuple[str, subprocess.Popen[str]],
) -> None:
    """The exporter, the collector and the receiver agree on all of it."""
    url, receiver = collector
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, url],
        capture_output=True, text=True, timeout=120, env=environment, check=True,
    )  # fmt: skip
    assert receiver.stdout
    received: dict[str, Any] = {}
    while len(received) < 2:
        said = json.loads(receiver.stdout.readline())
        received[said["path"]] = said["message"]
    spans = {
        span["name"]: span
        for resource in received["/v1/traces"]["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    }
    ours, user = spans["chat echo"], spans["cell"]
    assert ours["parentSpanId"] == user["spanId"]
    assert ours["traceId"] == user["traceId"]
    assert ours["kind"] == "SPAN_KIND_CLIENT"
    found = attributes_of(ours)
    assert found["gen_ai.operation.name"] == "chat"
    assert found["gen_ai.usage.output_tokens"] == done.stdout.strip()
    (resource,) = received["/v1/metrics"]["resourceMetrics"]
    (scope,) = resource["scopeMetrics"]
    assert scope["scope"]["name"] == "llm_magics"
    tokens = next(each for each in scope["metrics"] if each["name"] == "gen_ai.client.token.usage")
    sums = {
        attributes_of(each)["gen_ai.token.type"]: each["sum"]
        for each in tokens["histogram"]["dataPoints"]
    }
    assert sums["output"] == float(done.stdout)
