"""A program with OpenTelemetry's exporter, a collector, and a receiver behind it: each a process."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
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
def receiver() -> Iterator[tuple[str, SimpleQueue[str]]]:
    """A strict receiver as a process: its address, and the lines that it prints of what arrives."""
    command = [sys.executable, "-m", "tests.support.otlp_receiver"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        port = int(process.stdout.readline())
        lines = SimpleQueue[str]()

        def read() -> None:
            for line in process.stdout or ():
                lines.put(line)

        reader = Thread(target=read)
        reader.start()
        yield f"http://127.0.0.1:{port}", lines
        process.kill()
        reader.join()


@contextmanager
def collector(receiver: str, log: Path) -> Iterator[str]:
    """Run a collector that sends on to ``receiver``; where it does not run, give the receiver itself."""
    found = find_spec("rotel")
    if found is None or not found.origin:
        yield receiver
        return
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        http, grpc = one.getsockname()[1], other.getsockname()[1]
    command = [
        str(Path(found.origin).parent / "rotel-agent"), "start",
        "--otlp-http-endpoint", f"127.0.0.1:{http}", "--otlp-grpc-endpoint", f"127.0.0.1:{grpc}",
        "--exporter", "otlp", "--otlp-exporter-protocol", "http", "--otlp-exporter-endpoint", receiver,
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if "ROTEL" not in name}
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output, env=environment) as process,
    ):
        yield f"http://127.0.0.1:{http}" if is_listening(http) else receiver
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


def exported(lines: SimpleQueue[str], within_s: float) -> dict[str, Any]:
    """The messages by path, as soon as spans and metrics have arrived; fewer after ``within_s``."""
    received: dict[str, Any] = {}
    deadline = time.monotonic() + within_s
    with suppress(Empty):
        while len(received) < 2:
            said = json.loads(lines.get(timeout=max(0.0, deadline - time.monotonic())))
            received[said["path"]] = said["message"]
    return received


def test_spans_and_metrics_arrive_behind_a_collector(
    receiver: tuple[str, SimpleQueue[str]], tmp_path: Path
) -> None:
    """The exporter, the collector and the receiver agree on all of it."""
    address, lines = receiver
    received: dict[str, Any] = {}
    log = tmp_path / "log"
    # Another program may take the collector's port before it does, and an exporter gives up after
    # ten seconds: on a busy machine the first pair may lose what it sends.
    for _ in range(3):
        with collector(address, log) as url:
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", PROGRAM, url],
                capture_output=True, text=True, timeout=120, check=True,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            received = exported(lines, within_s=60)
        if len(received) == 2:
            break
    assert len(received) == 2, f"{done.stderr}\n{log.read_text() if log.exists() else ''}"
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
