"""
The span of a call or of a tool, from its start to its end, and its metrics.

A span is current while its call runs, so that spans of the HTTP client are inside it. No error in
here reaches a call: it is logged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token
from datetime import datetime
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec

from llm_magics.providers.base import BaseModelProvider
from llm_magics.runtime.response import Response
from llm_magics.runtime.telemetry import sdk
from llm_magics.runtime.telemetry.attributes import (
    Attributes,
    CallDetails,
    Target,
    chunk_gaps,
    clean,
    clean_text,
    error_type,
    request_attributes,
    response_attributes,
    time_to_first_chunk,
)
from llm_magics.runtime.telemetry.contents import content_attributes, to_json, tool_text
from llm_magics.secrets import redact
from llm_magics.types import ToolCall, Usage

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

_Arguments = ParamSpec("_Arguments")

# The call that runs in the current task, to which failed attempts are added.
_current: ContextVar[CallSpan | None] = ContextVar("current_call_span", default=None)


def _safe(function: Callable[_Arguments, None]) -> Callable[_Arguments, None]:
    """Return ``function``, which then logs its errors instead of raising them."""

    @wraps(function)
    def call(*arguments: _Arguments.args, **named: _Arguments.kwargs) -> None:
        try:
            function(*arguments, **named)
        except Exception:
            sdk.logger.warning("A call could not be traced.", exc_info=True)

    return call


class _RunningSpan:
    """A span that is current until it ends, or nothing if the SDK records only metrics."""

    def __init__(
        self, found: sdk.Sdk, name: str, attributes: Attributes, *, is_client: bool
    ) -> None:
        from opentelemetry import context, trace

        kind = trace.SpanKind.CLIENT if is_client else trace.SpanKind.INTERNAL
        self.sdk = found
        self.span: Span = trace.INVALID_SPAN
        self._token: Token[Context] | None = None
        self._began, self._began_ns = time.perf_counter(), time.time_ns()
        self.elapsed_s = 0.0
        if found.tracer is not None:
            self.span = found.tracer.start_span(
                name, kind=kind, attributes=attributes, start_time=self._began_ns
            )
            self._token = context.attach(trace.set_span_in_context(self.span))
        self.contents = sdk.allowed_contents()

    def fail(self, error: BaseException | str) -> None:
        """Set the status; the message of an error may quote the answer, so it counts as content."""
        from opentelemetry.trace import Status, StatusCode

        kind = error if isinstance(error, str) else type(error).__name__
        text = redact(str(error)) if "span" in self.contents else kind
        self.span.set_attribute("error.type", error_type(error))
        self.span.set_status(Status(StatusCode.ERROR, text[:1000]))

    def leave(self) -> None:
        """Stop the clock, and make the span before current again."""
        self.elapsed_s = time.perf_counter() - self._began
        if self._token is not None:
            # The garbage collector ends a stream that was not closed, in another context.
            with suppress(ValueError, RuntimeError):
                self._token.var.reset(self._token)

    def end(self) -> None:
        """End the span when its clock stopped, so that it lasts as long as the metric says."""
        self.span.end(self._began_ns + round(self.elapsed_s * 1e9))

    def context(self) -> Context:
        """Return the context with the span, for what is recorded after its end."""
        from opentelemetry.trace import set_span_in_context

        return set_span_in_context(self.span)


class CallSpan:
    """The span of one call to a model."""

    def __init__(self, found: sdk.Sdk, target: Target) -> None:
        self._kind = target.kind
        self._running = _RunningSpan(found, target.span_name, target.attributes(), is_client=True)
        self._token = _current.set(self)

    @_safe
    def add_failed_attempt(self, target: Target, error: BaseException) -> None:
        """Add an attempt that failed, and was followed by another, as an event."""
        attributes = {**target.attributes(), "error.type": error_type(error)}
        del attributes["gen_ai.operation.name"]
        self._running.span.add_event("llm_magics.failed_attempt", attributes)

    @_safe
    def end(
        self,
        provider: BaseModelProvider | None,
        model: str,
        response: Response,
        details: Callable[[], CallDetails],
        error: BaseException | None,
    ) -> None:
        """End the span and record the metrics. ``error`` is what ended the call, if anything."""
        running = self._running
        running.leave()
        with suppress(ValueError):  # as in `_RunningSpan.leave`
            _current.reset(self._token)
        target = Target(self._kind, provider, model)
        try:
            self._record(target, response, details(), error)
        finally:
            running.end()

    def _record(
        self, target: Target, response: Response, details: CallDetails, error: BaseException | None
    ) -> None:
        span, contents = self._running.span, self._running.contents
        common = target.attributes()
        attributes = {
            **common,
            **request_attributes(target.kind, details),
            **response_attributes(response, details),
        }
        is_failure = isinstance(error, Exception)  # not an interrupt, which a user wanted
        if error is not None and not is_failure:
            attributes["llm_magics.interrupted"] = True
        if span.is_recording():
            span.update_name(target.span_name)
            span.set_attributes(attributes)
            if error is not None and is_failure:
                self._running.fail(error)
        tools = details.parameters.tools if details.parameters else ()
        messages = content_attributes(response, tools) if contents else {}
        if "span" in contents and span.is_recording():
            span.set_attributes({name: to_json(value) for name, value in messages.items()})
        if "event" in contents and self._running.sdk.logger is not None:
            self._emit({**attributes, **messages})
        if self._running.sdk.instruments is not None and not response.cached:
            if "gen_ai.response.model" in attributes:
                common["gen_ai.response.model"] = attributes["gen_ai.response.model"]
            failed = {"error.type": error_type(error)} if error is not None and is_failure else {}
            self._measure(self._running.sdk.instruments, {**common, **failed}, response, details)

    def _emit(self, attributes: Attributes) -> None:
        from opentelemetry._logs import LogRecord

        assert self._running.sdk.logger is not None
        self._running.sdk.logger.emit(
            LogRecord(
                event_name="gen_ai.client.inference.operation.details",
                timestamp=time.time_ns(),
                attributes=attributes,
                context=self._running.context(),
            )
        )

    def _measure(
        self,
        instruments: sdk.Instruments,
        attributes: Attributes,
        response: Response,
        details: CallDetails,
    ) -> None:
        context = self._running.context()
        instruments.duration.record(self._running.elapsed_s, attributes, context)
        _count_tokens(instruments, attributes, response.usage, context)
        first_s = time_to_first_chunk(details)
        if first_s is not None:
            instruments.first_chunk.record(first_s, attributes, context)
        for gap_s in chunk_gaps(details.chunks):
            instruments.next_chunk.record(gap_s, attributes, context)


def _count_tokens(
    instruments: sdk.Instruments, attributes: Attributes, usage: Usage, context: Context
) -> None:
    for name, tokens in (("input", usage.input_tokens), ("output", usage.output_tokens)):
        if tokens is not None:
            instruments.tokens.record(tokens, {**attributes, "gen_ai.token.type": name}, context)


def start_call(kind: str, provider: BaseModelProvider | None, model: str) -> CallSpan | None:
    """Start the span of a call of ``kind``; ``None`` if no SDK is configured."""
    try:
        found = sdk.find_sdk()
        return None if found is None else CallSpan(found, Target(kind, provider, model))
    except Exception:
        sdk.logger.warning("A call could not be traced.", exc_info=True)
        return None


def note_failed_attempt(provider: BaseModelProvider, model: str, error: BaseException) -> None:
    """Add an attempt that is followed by another to the span of the current call, if any."""
    call = _current.get()
    if call is not None:
        call.add_failed_attempt(Target("attempt", provider, model), error)


@_safe
def record_job(  # noqa: PLR0913 (the facts of a job)
    provider: BaseModelProvider,
    model: str,
    started: datetime,
    *,
    usage: Usage,
    cost_usd: float | None,
    error: bool,
) -> None:
    """Record what a call has read from batch jobs after it has ended, with an ``error`` or well."""
    found = sdk.find_sdk()
    if found is None:
        return
    from opentelemetry import trace

    target = Target("batch", provider, model)
    common = target.attributes()
    span: Span = trace.INVALID_SPAN
    if found.tracer is not None:
        span = found.tracer.start_span(
            target.span_name,
            kind=trace.SpanKind.CLIENT,
            attributes=common,
            start_time=int(started.timestamp() * 1e9),
        )
    response = Response(
        "", finish_reason="error" if error else "stop", usage=usage, cost_usd=cost_usd
    )
    span.set_attributes(response_attributes(response, CallDetails()))
    if error:
        span.set_status(trace.Status(trace.StatusCode.ERROR))
    if found.instruments is not None:
        _count_tokens(found.instruments, common, usage, trace.set_span_in_context(span))
    span.end()


class ToolSpan:
    """The span of one call to a tool; without an SDK, it records nothing."""

    def __init__(self, call: ToolCall, kind: str) -> None:
        self._running: _RunningSpan | None = None
        self._call = call
        self._kind = kind
        self._error: BaseException | str | None = None
        self._result: str | None = None

    def fail(self, error: BaseException | str) -> None:
        """Note that the tool failed: with ``error``, or with an error of this name."""
        self._error = error

    def finish(self, result: str) -> None:
        """Note the result, which is exported as content."""
        self._result = result

    @_safe
    def start(self) -> None:
        """Start the span if an SDK is configured."""
        found = sdk.find_sdk()
        if found is not None:
            name = clean_text(f"execute_tool {self._call.name}")
            self._running = _RunningSpan(found, name, self._attributes(), is_client=False)

    def _attributes(self) -> Attributes:
        return clean(
            {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": self._call.name,
                "gen_ai.tool.type": self._kind,
                "gen_ai.tool.call.id": self._call.id or None,
            }
        )

    @_safe
    def end(self) -> None:
        """End the span and record its duration."""
        running = self._running
        if running is None:
            return
        running.leave()
        attributes = clean({"gen_ai.tool.name": self._call.name})
        if self._error is not None:
            attributes["error.type"] = error_type(self._error)
            running.fail(self._error)
        if "span" in running.contents:
            running.span.set_attribute(
                "gen_ai.tool.call.arguments", tool_text(self._call.arguments_text)
            )
            if self._result is not None:
                running.span.set_attribute("gen_ai.tool.call.result", tool_text(self._result))
        if running.sdk.instruments is not None:
            duration = running.sdk.instruments.tool_duration
            duration.record(running.elapsed_s, attributes, running.context())
        running.end()


@contextmanager
def trace_tool(call: ToolCall, kind: str) -> Generator[ToolSpan, None, None]:
    """
    Trace the call to a tool inside the block.

    ``kind`` is ``function`` for a function of the notebook, ``extension`` for a tool of a server.
    """
    span = ToolSpan(call, kind)
    span.start()
    try:
        yield span
    except Exception as error:
        span.fail(error)
        raise
    finally:
        span.end()
