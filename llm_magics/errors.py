"""
The error classes of llm_magics.

    LLMError                      the base class; ``hint`` says what to do
    ├── UsageError                an invalid argument, flag, subcommand or expression
    │   └── DeclinedError         the user declined the cost; nothing was sent
    ├── AttachmentError           an attached file cannot be read, or the model cannot take it
    ├── BudgetError               the call may cost more than the rest of the budget
    ├── TemplateError             a ``{{ name }}`` in a prompt cannot be rendered
    ├── ParseError                the answer is not the requested JSON or table
    ├── JobError                  a batch job cannot go on, or needs a decision
    ├── HistoryError              the history cannot be read, or has no such call
    ├── ToolServerError           an MCP server failed, hung, or broke the protocol
    ├── ReplayMissError           the recording has no answer to the call
    ├── GateError                 a gate failed, or is undecided or not recorded; see ``result``
    └── ProviderError             the provider failed; with status, code, request id …
        ├── AuthenticationError   the key is missing, wrong or not allowed
        ├── ConfigurationError    a setting is missing, misspelled or invalid
        ├── ConnectionError       no response (also a builtin ConnectionError)
        ├── ContentFilterError    the service or the model refused to answer; see ``partial``
        ├── ContextLengthError    the prompt is longer than the model's context
        ├── IncompleteAnswerError the answer is incomplete; see ``partial``
        │   └── EmptyAnswerError  the answer has no text and no tool calls; see ``partial``
        ├── ModelNotFoundError    the service has no model of that name
        ├── RateLimitError        too many requests; see ``retry_after``
        ├── ResultsGoneError      the service has deleted the results of a batch job
        ├── StreamInterrupted     the connection broke during the answer; see ``partial``
        ├── UnsupportedError      the service or the model does not support this
        └── WeightsError          a local model's file cannot be downloaded or is damaged

    Interrupted                   the user interrupted a cell (a KeyboardInterrupt); see ``partial``

In a notebook, an error is displayed as two to four lines, with the line of the user's code that
raised it. ``%llm config tracebacks full`` displays the full traceback.
"""

from __future__ import annotations

import builtins
import difflib
import reprlib
import traceback
from collections.abc import Iterable
from typing import Any

from llm_magics._util.text import (
    display_name,
    escape_controls,
    escape_invisible,
    replace_lone_surrogates,
    strip_controls,
)
from llm_magics.host import current_host, location_in
from llm_magics.secrets import redact, redact_json


def _sanitize(text: str) -> str:
    """Return ``text`` without keys, with control and invisible characters removed or escaped."""
    return escape_controls(redact(strip_controls(replace_lone_surrogates(text))))


class _ShortTraceback:
    """An exception that IPython displays as its message and hint, with `_render_traceback_`."""

    hint: str | None

    # The number of lines of a message to display. An error that needs a decision displays all.
    lines_shown: int = 3

    def _render_traceback_(self) -> list[str]:
        assert isinstance(self, BaseException)
        if current_host().shows_full_tracebacks():
            return _sanitize("".join(traceback.format_exception(self))).splitlines()
        message = str(self).splitlines() or [""]
        lines = [f"{type(self).__name__}: {message[0]}", *message[1 : self.lines_shown]]
        location = location_in(self.__traceback__)
        if location is not None:
            lines.append(_sanitize(f"  {location}"))
        if self.hint:
            lines.append(f"→ {self.hint}")
        return lines

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute with keys in its value masked, because a service may echo a key."""
        if name in ("body", "code", "request_id"):
            value = redact_json(value)
        if isinstance(value, str):
            value = _sanitize(value)
        super().__setattr__(name, value)


class LLMError(_ShortTraceback, Exception):
    """
    The base class of all errors of llm_magics, except `Interrupted`.

    ``str(error)`` says what happened and why; ``error.hint`` says what to do.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(_sanitize(message))
        self.hint = hint or None
        if self.hint:
            self.add_note(f"→ {self.hint}")  # displayed at the end of tracebacks in scripts


class UsageError(LLMError):
    """A magic or a call has an invalid argument."""


class DeclinedError(UsageError):
    """The user declined the cost of a call; nothing was sent. A notebook displays only its message."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class AttachmentError(LLMError):
    """An attached file cannot be read or converted, or the model cannot take it; nothing was sent."""


class BudgetError(LLMError):
    """A call may cost more than the rest of the budget; it was not sent."""


class TemplateError(LLMError):
    """A ``{{ … }}`` in a prompt cannot be rendered."""


class ParseError(LLMError):
    """
    An answer does not contain the requested JSON, table or value.

    Attributes:
        partial: the answer, if there is one.
    """

    partial: Any = None


class JobError(LLMError):
    """A batch job cannot go on, or it is uncertain whether the service has it."""


class HistoryError(LLMError):
    """The history of calls cannot be read, or has no such run."""


class ToolServerError(LLMError):
    """An MCP server could not be started, did not respond in time, ended or broke the protocol."""


class ReplayMissError(LLMError):
    """
    A recording has no answer to a call; the message names the difference from the closest
    recorded call.
    """


class GateError(LLMError):
    """
    A gate of evaluations did not pass: it failed, is undecided, or is not recorded.

    Attributes:
        result: the results of its checks.
    """

    result: Any = None


class ProviderError(LLMError):
    """
    A provider could not complete a request.

    Attributes:
        provider, model: the provider and the model, if known.
        status: the HTTP status, if there was one.
        code: the service's own error code.
        request_id: the service's identifier of the request.
        retry_after: seconds until a retry may succeed, if the service sent them.
        retryable: whether the same request may succeed later.
        may_be_billed: whether the service may bill the request: it was sent completely, but no
            usable response was received.
        body: the response of the service, decoded if it was JSON.
        partial: the part of the answer that was received: a `Response` from ``lm.ask`` and
            similar functions, a `ModelResponse` from a provider.
    """

    retryable: bool = False
    partial: Any = None

    def __init__(  # noqa: PLR0913 (each is an attribute)
        self,
        message: str,
        *,
        hint: str | None = None,
        provider: str | None = None,
        model: str | None = None,
        status: int | None = None,
        code: str | int | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        retryable: bool | None = None,
        may_be_billed: bool = False,
        body: Any = None,
    ) -> None:
        if (
            model and (spelled := escape_invisible(model)) != model
        ):  # a name must not start a new line in the message
            message, hint = message.replace(model, spelled), hint and hint.replace(model, spelled)
        super().__init__(message, hint=hint)
        self.provider = provider
        self.model = model
        self.status = status
        # A service may send values of any type.
        self.code = code if code is None or type(code) is int else _as_text(code)
        self.request_id = None if request_id is None else _as_text(request_id)
        self.retry_after = retry_after
        self.may_be_billed = may_be_billed
        self.body = body
        if retryable is not None:
            self.retryable = retryable

    def details(self) -> dict[str, Any]:
        """Return the attributes except ``hint`` and ``partial``, as arguments for another error."""
        return {
            "provider": self.provider,
            "model": self.model,
            "status": self.status,
            "code": self.code,
            "request_id": self.request_id,
            "retry_after": self.retry_after,
            "retryable": self.retryable,
            "may_be_billed": self.may_be_billed,
            "body": self.body,
        }


def _as_text(value: object) -> str:
    return replace_lone_surrogates(str(value))


class AuthenticationError(ProviderError):
    """The key is missing, wrong, or not allowed to do this."""


class ConfigurationError(ProviderError):
    """A setting is missing, misspelled or invalid."""


class ConnectionError(ProviderError, builtins.ConnectionError):  # noqa: A001 (a fixed name)
    """The server did not respond, or the connection broke before an answer began."""

    retryable = True


class ContentFilterError(ProviderError):
    """The service or the model refused to answer; ``partial`` has the text received before."""


class ContextLengthError(ProviderError):
    """The prompt is longer than the model's context."""


class IncompleteAnswerError(ProviderError):
    """
    The answer is incomplete: a failure, an unknown finish reason, or a length limit.

    ``partial`` has the text received so far; ``code`` is the finish reason of the service.
    """


class EmptyAnswerError(IncompleteAnswerError):
    """The answer has no text and no tool calls; ``partial`` has the thinking, if any."""


class ModelNotFoundError(ProviderError):
    """The service has no model of that name."""


class RateLimitError(ProviderError):
    """Too many requests; ``retry_after`` is the delay in seconds, if known."""

    retryable = True


class ResultsGoneError(ProviderError):
    """The service has deleted the results of a batch job, or never had them."""


class StreamInterrupted(ProviderError):  # noqa: N818 (a fixed name)
    """
    The connection broke after the answer began.

    Attributes:
        partial: the part of the answer that was received, a `ModelResponse`.
    """

    retryable = True

    def __init__(self, message: str, *, partial: Any = None, **details: Any) -> None:
        super().__init__(message, **details)
        self.partial = partial


class UnsupportedError(ProviderError):
    """The service or the model does not support this; the message names alternatives."""


class WeightsError(ProviderError):
    """The file of a local model cannot be downloaded or is damaged."""


class Interrupted(_ShortTraceback, KeyboardInterrupt):
    """
    The user interrupted the cell.

    Attributes:
        partial: the answer so far, a `Response`.
    """

    def __init__(self, message: str, *, hint: str | None = None, partial: Any = None) -> None:
        super().__init__(_sanitize(message))
        self.hint = hint
        self.partial = partial


def abbreviate(value: object) -> str:
    """Return the repr of ``value`` for an error message, on one line and shortened."""
    return _sanitize(" ".join(_REPR.repr(value).splitlines()))


_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxother = 2, 60, 60


def _similarity(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, other, one).ratio()


def nearest(name: str, names: Iterable[str], *, listed: bool = True) -> str:
    """
    Return a hint with the candidates nearest to a misspelled ``name``.

    If none is near, the hint lists the first few candidates, or is empty without ``listed``.
    """
    known = sorted(set(names))
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if close:
        best = _similarity(name, close[0])
        close = [each for each in close if _similarity(name, each) > best - 0.1]
        return f"Did you mean {' or '.join(map(display_name, close))}?"
    if not listed:
        return ""
    if not known:
        return "None are available."
    listing = ", ".join(map(display_name, known[:8]))
    return f"Available: {listing}{' …' if len(known) > 8 else ''}."
