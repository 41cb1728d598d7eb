"""
The user's OpenTelemetry SDK, if one is configured, and the instruments that are made with it.

Nothing is imported unless a program has configured an SDK: it has then imported OpenTelemetry's API
itself. Without one, finding that out takes three look-ups in ``sys.modules``.

The names are those that OpenTelemetry's own instrumentations use (``opentelemetry-util-genai`` 1.3,
2026-10). The conventions are in development; a later draft replaces the metrics of tokens.
Source: https://github.com/open-telemetry/semantic-conventions-genai
"""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry._logs import Logger
    from opentelemetry.metrics import Histogram, Meter, MeterProvider
    from opentelemetry.trace import Tracer

# The variable of OpenTelemetry's instrumentations that allows contents in spans and events.
CONTENT_VARIABLE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"

# The name of the instrumentation, as OpenTelemetry calls what makes the spans.
_SCOPE = "llm_magics"

# The boundaries that the conventions recommend.
_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_TOKENS = tuple(4**power for power in range(14))

logger = logging.getLogger(__name__)


class Contents(Enum):
    """Where prompts and answers are exported, by the names of the variable's values."""

    NO_CONTENT = frozenset[str]()
    SPAN_ONLY = frozenset({"span"})
    EVENT_ONLY = frozenset({"event"})
    SPAN_AND_EVENT = frozenset({"span", "event"})


def allowed_contents() -> frozenset[str]:
    """Return ``span`` and ``event`` if they may have contents; nothing for an unknown value."""
    return _parse_contents(os.environ.get(CONTENT_VARIABLE, "").strip().upper())


@cache
def _parse_contents(name: str) -> frozenset[str]:
    if not name:
        return Contents.NO_CONTENT.value
    if name not in Contents.__members__:
        known = ", ".join(Contents.__members__)
        logger.warning(
            "Unknown value of %s: contents are not recorded. Use one of %s.",
            CONTENT_VARIABLE,
            known,
        )
        return Contents.NO_CONTENT.value
    return Contents[name].value


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruments:
    """The metrics of one SDK."""

    duration: Histogram
    tokens: Histogram
    first_chunk: Histogram
    next_chunk: Histogram
    tool_duration: Histogram

    @classmethod
    def of(cls, meter: Meter) -> Instruments:
        """Create the metrics with their units and recommended boundaries."""

        def seconds(name: str, description: str) -> Histogram:
            return meter.create_histogram(
                name, "s", description, explicit_bucket_boundaries_advisory=_SECONDS
            )

        operation = "gen_ai.client.operation"
        return cls(
            duration=seconds(f"{operation}.duration", "Duration of an operation."),
            tokens=meter.create_histogram(
                "gen_ai.client.token.usage",
                "{token}",
                "Number of input and output tokens used.",
                explicit_bucket_boundaries_advisory=_TOKENS,
            ),
            first_chunk=seconds(
                f"{operation}.time_to_first_chunk", "Time from the request to the first chunk."
            ),
            next_chunk=seconds(
                f"{operation}.time_per_output_chunk", "Time between two consecutive chunks."
            ),
            tool_duration=seconds("gen_ai.execute_tool.duration", "Duration of a call of a tool."),
        )


@dataclass(frozen=True, slots=True)
class Sdk:
    """What the configured SDK records; ``None`` for what it does not."""

    tracer: Tracer | None
    instruments: Instruments | None
    logger: Logger | None


def find_sdk() -> Sdk | None:
    """Return the SDK that is configured now; ``None`` without one for spans or metrics."""
    tracers = _provider("opentelemetry.trace", "get_tracer_provider")
    meters = _provider("opentelemetry.metrics", "get_meter_provider")
    if tracers is None and meters is None:
        return None
    loggers = _provider("opentelemetry._logs", "get_logger_provider")
    return Sdk(
        None if tracers is None else tracers.get_tracer(_SCOPE),
        None if meters is None else _instruments(meters),
        None if loggers is None else loggers.get_logger(_SCOPE),
    )


def _provider(module: str, getter: str) -> Any:
    """Return the provider of an SDK from OpenTelemetry's API; ``None`` for one of the API itself."""
    api = sys.modules.get(module)
    if api is None:
        return None
    provider = getattr(api, getter)()
    # The API's own providers record nothing: a placeholder, not public for metrics, and NoOp….
    return None if type(provider).__module__.startswith(module) else provider


_created: list[tuple[MeterProvider, Instruments]] = []


def _instruments(provider: MeterProvider) -> Instruments:
    """Return the instruments of ``provider``, which are created once."""
    if not _created or _created[0][0] is not provider:
        _created[:] = [(provider, Instruments.of(provider.get_meter(_SCOPE)))]
    return _created[0][1]
