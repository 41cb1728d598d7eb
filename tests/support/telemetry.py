"""OpenTelemetry's real SDK with exporters in memory, configured for one test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import opentelemetry._logs
import opentelemetry.metrics
import opentelemetry.trace
import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, Metric
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


@dataclass
class Telemetry:
    """The SDK of a test, and what was exported."""

    tracers: TracerProvider
    exporter: InMemorySpanExporter
    reader: InMemoryMetricReader
    log_exporter: InMemoryLogRecordExporter

    @property
    def spans(self) -> list[ReadableSpan]:
        """The spans that have ended, in the order of their ends."""
        return list(self.exporter.get_finished_spans())

    @property
    def span(self) -> ReadableSpan:
        """The only span."""
        (span,) = self.spans
        return span

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of the only span."""
        return dict(self.span.attributes or {})

    def metrics(self) -> dict[str, Metric]:
        """The metrics so far, by name."""
        data = self.reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def points(self, name: str) -> list[HistogramDataPoint]:
        """The points of one metric; none if it was not recorded."""
        metric = self.metrics().get(name)
        points = () if metric is None else metric.data.data_points
        return [each for each in points if isinstance(each, HistogramDataPoint)]

    @property
    def events(self) -> list[Any]:
        """The log records that were exported."""
        return [each.log_record for each in self.log_exporter.get_finished_logs()]

    @contextmanager
    def user_span(self, name: str = "cell") -> Iterator[int]:
        """A span of the user's own around a block; yields its identifier."""
        with self.tracers.get_tracer("user").start_as_current_span(name) as span:
            yield span.get_span_context().span_id


def configure(patch: pytest.MonkeyPatch) -> Telemetry:
    """Configure the SDK for this test; OpenTelemetry itself can be configured once per process."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    log_exporter = InMemoryLogRecordExporter()
    tracers, meters = TracerProvider(), MeterProvider([reader])
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    loggers = LoggerProvider()
    loggers.add_log_record_processor(SimpleLogRecordProcessor(log_exporter))
    patch.setattr(opentelemetry.trace, "get_tracer_provider", lambda: tracers)
    patch.setattr(opentelemetry.metrics, "get_meter_provider", lambda: meters)
    patch.setattr(opentelemetry._logs, "get_logger_provider", lambda: loggers)
    return Telemetry(tracers, exporter, reader, log_exporter)
