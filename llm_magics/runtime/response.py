"""The answer as a value, and the errors of incomplete answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from llm_magics._util.validation import attribute_error
from llm_magics.citations import Citation, Search, citations_frame
from llm_magics.errors import (
    ContentFilterError,
    EmptyAnswerError,
    IncompleteAnswerError,
    LLMError,
    ParseError,
    ProviderError,
)
from llm_magics.runtime import parsing
from llm_magics.runtime.parsing import find_fitting_json
from llm_magics.schemas import validate_answer
from llm_magics.secrets import scrub
from llm_magics.types import ChatMessage, Timing, TokenLogprob, ToolCall, Usage
from llm_magics.wire.finish_reasons import Outcome, classify_outcome, is_cut, is_transient

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, slots=True)
class Response:
    """
    A model's answer, with its measurements.

    Attributes:
        text: the answer.
        model: the model that answered, as ``provider/name``.
        finish_reason: the service's value, such as ``stop`` or ``length``, or ``interrupted``.
        usage: tokens read and written, as the service counts them.
        timing: the times; `llm_magics.runtime.storage.run_log` defines them.
        cost_usd: the price in US dollars, ``None`` if unknown.
        cached: whether it is a stored answer.
        messages: the messages that were sent.
        reasoning: the model's thinking, if it returns any.
        tool_calls: the tool calls that the model requests.
        schema: the schema that the answer must match.
        retries: how often the request was repeated.
        fallback_from: the models of a route that had failed before, each with its error.
        repairs: how often the answer was corrected because it did not match the schema.
        removed_turns: how many later turns of its thread were removed because they depended on
            the replaced answer.
        raw: the last message of the service, decoded.
        reasoning_blocks: data that must be sent back to the service with this answer.
        token_logprobs: the tokens of the answer with their log probabilities, if requested.
        reasoning_usd: the part of ``cost_usd`` that is for thinking, ``None`` if unknown.
        sources: the citations in the answer; ``citations`` has them as a table.
        searches: the web searches of the service for this answer.
        request_id: the service's identifier of the request, if it sends one.
    """

    text: str
    model: str = ""
    finish_reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    timing: Timing = field(default_factory=Timing)
    cost_usd: float | None = None
    cached: bool = False
    messages: Sequence[ChatMessage] = ()
    reasoning: str = ""
    raw: Mapping[str, Any] = field(default_factory=dict)
    tool_calls: tuple[ToolCall, ...] = ()
    schema: Any = field(default=None, repr=False)
    retries: int = 0
    fallback_from: tuple[str, ...] = ()
    repairs: int = 0
    removed_turns: int = 0
    reasoning_blocks: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)
    reasoning_usd: float | None = None
    token_logprobs: tuple[TokenLogprob, ...] = field(default=(), repr=False)
    sources: tuple[Citation, ...] = field(default=(), repr=False)
    searches: tuple[Search, ...] = field(default=(), repr=False)
    request_id: str | None = field(default=None, repr=False)

    def __getattr__(self, name: str) -> Any:
        raise attribute_error(self, name, {"mended": "repairs", "dropped": "removed_turns"})

    @property
    def data(self) -> Any:
        """
        The value in the answer, validated by the schema; an instance if the schema is a class.

        Raises:
            ParseError: the answer contains no value, or the value does not match the schema.
        """
        value = self.json()
        return value if self.schema is None else validate_answer(value, self.schema)

    def check(self) -> None:
        """
        Raise a `ParseError`, with this answer in ``partial``, if the answer does not match
        its schema.
        """
        misfit = self.misfit()
        if misfit is not None:
            raise misfit

    def misfit(self) -> ParseError | None:
        """Return the error if the answer does not match the schema; otherwise ``None``."""
        if self.schema is None or self.tool_calls:
            return None
        try:
            self.data  # noqa: B018 (evaluated for its error)
        except ParseError as misfit:
            return self._complete(misfit)
        return None

    def _complete(self, misfit: ParseError) -> ParseError:
        if is_cut(self.finish_reason):
            msg = "The answer was cut off at the length limit."
            misfit = ParseError(msg, hint="Raise max_tokens.")
        misfit.partial = self
        return misfit

    @property
    def code(self) -> str:
        """The first fenced block, or the full text if there is none."""
        return parsing.extract_code(self.text)

    @property
    def code_blocks(self) -> list[parsing.CodeBlock]:
        """All fenced blocks with their languages."""
        return parsing.code_blocks(self.text)

    def code_in(self, language: str) -> str:
        """The first fenced block that is marked as ``language``."""
        return parsing.extract_code(self.text, language)

    def json(self, *, partial: bool = False, repair: bool = False) -> Any:
        """
        Return the JSON value in the answer; raise a `ParseError` if there is none.

        If there are several, it is the last one that matches the schema; without a schema, the
        longest.

        Args:
            partial: return the value so far of an incomplete answer.
            repair: repair invalid JSON, with a warning (extra ``repair``).
        """
        if partial:
            return parsing.parse_partial_json(self.text)
        if self.schema is not None:
            found = find_fitting_json(self.text, self.schema)
            if found is not None:
                return found.value
        return parsing.parse_json(self.text, repair=repair)

    @property
    def citations(self) -> DataFrame:
        """
        The citations in the answer, one row each, in the order of the answer.

        Columns: ``number`` (of the source, from 1), ``title``, ``url``, ``cited_text`` (the passage
        of the source), ``start`` and ``end`` (the passage of ``text``, in characters), ``document``
        (the number of the attached document, from 0), ``unit`` (``character``, ``page`` or
        ``block``), ``source_start`` and ``source_end`` (the passage of the source). Unknown values
        are missing.
        """
        return citations_frame(self.sources)

    def df(self) -> DataFrame:
        """The table in the answer as a DataFrame; raises a `ParseError` if there is none."""
        return parsing.parse_table(self.text)

    @property
    def logprobs(self) -> DataFrame:
        """
        The log probabilities of the answer's tokens, one row each; empty without ``logprobs=``.

        Columns: ``token``, ``logprob`` (natural logarithm), ``top`` (the most likely tokens at
        this position with their log probabilities, as a dict).
        """
        from llm_magics._util.tables import SafeFrame, display_when_empty

        rows = [
            (each.token, each.logprob, {other.token: other.logprob for other in each.top})
            for each in self.token_logprobs
        ]
        hint = "No log probabilities. Ask for them: lm.ask(…, logprobs=5)"
        return display_when_empty(SafeFrame(rows, columns=["token", "logprob", "top"]), hint)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        text = self.text if len(self.text) <= 60 else f"{self.text[:57]}…"
        facts = [f"model={self.model!r}"]
        if self.usage.output_tokens is not None:
            facts.append(f"output_tokens={self.usage.output_tokens}")
        if self.finish_reason not in (None, "stop"):
            facts.append(f"finish_reason={self.finish_reason!r}")
        return scrub(f"Response({text!r}, {', '.join(facts)})")


INTERRUPTED = "interrupted"


_Error = TypeVar("_Error", bound=ProviderError)

_RAISE_LIMIT = "Raise max_tokens, or ask for a shorter answer."
_THINK_LESS = (
    'Raise max_tokens, or reduce thinking: reasoning="low" or "off" (in a cell: --reasoning).'
)


def outcome(response: Response) -> Outcome:
    """Return how the answer in ``response`` ended; whitespace does not count as text."""
    return classify_outcome(
        response.finish_reason,
        has_text=bool(response.text.strip()),
        has_tool_calls=bool(response.tool_calls),
    )


def completeness_error(response: Response) -> ProviderError | None:
    """
    Return the error that an incomplete answer raises, with the answer in ``partial``.

    Return ``None`` for a complete answer, and for one that was cut off at a length limit.
    """
    match outcome(response):
        case Outcome.REFUSED:
            return _refusal(response)
        case Outcome.EMPTY:
            return _empty(response)
        case Outcome.FAILED:
            return _failure(response)
    return None


def cut_error(response: Response) -> IncompleteAnswerError:
    """Return the error of a truncated answer where a complete one is required."""
    name = response.model
    msg = f"{name}: the answer was cut off at the length limit ({response.finish_reason})."
    return _with_partial(
        IncompleteAnswerError(msg, hint=_RAISE_LIMIT, **_about(response)), response
    )


def cut_warning(model: str, count: int = 1, total: int = 1) -> str:
    """Return the warning that ``count`` of ``total`` answers were truncated without a set limit."""
    which = "The answer" if total == 1 else f"{count:,} of {total:,} answers"
    were = "was" if total == 1 or count == 1 else "were"
    by = f" of {model}" if model else ""
    return f"{which}{by} {were} cut off at the length limit of the model or its service. Set max_tokens."


def search_warning(response: Response, *, is_requested: bool) -> str:
    """Return the warning that searches failed, or that a model did not search; empty otherwise."""
    errors = list(dict.fromkeys(each.error for each in response.searches if each.error))
    if not errors:
        has_searched = response.usage.searches or response.searches or response.sources
        if has_searched or not is_requested or response.cached or response.tool_calls:
            return ""
        return f"{response.model} answered without a web search."
    if errors == ["max_uses_exceeded"]:
        return f"{response.model} reached its limit of web searches, and answered with the results so far."
    return f"Web searches of {response.model} failed ({', '.join(errors)}); the answer may not be from the web."


def outcome_of_error(error: LLMError) -> Outcome:
    """Return the outcome under which a report counts a row that ended with ``error``."""
    if isinstance(error, ContentFilterError):
        return Outcome.REFUSED
    if isinstance(error, EmptyAnswerError):
        return Outcome.EMPTY
    if isinstance(error, IncompleteAnswerError):
        return Outcome.CUT if is_cut(str(error.code)) else Outcome.FAILED
    if isinstance(error, ParseError) and isinstance(error.partial, Response):
        ended = outcome(error.partial)
        return ended if ended in (Outcome.CUT, Outcome.EMPTY) else Outcome.FAILED
    return Outcome.FAILED


def _refusal(response: Response) -> ContentFilterError:
    words = " ".join(response.text.split())
    why = f": {words[:200]}" if words else f" ({response.finish_reason})"
    return _with_partial(
        ContentFilterError(
            f"{response.model} refused to answer{why}",
            hint="Rephrase the prompt, or use another model.",
            **_about(response),
        ),
        response,
    )


def _empty(response: Response) -> EmptyAnswerError:
    has_thoughts = bool(response.reasoning.strip())
    if is_cut(response.finish_reason):
        what = "it contains only thinking" if has_thoughts else "it has no text"
        msg, hint = f"the answer was cut off at the length limit, and {what}.", _THINK_LESS
    elif has_thoughts:
        msg = "the answer contains only thinking and no text."
        hint = 'Try again, or turn thinking off: reasoning="off" (in a cell: --reasoning off).'
    else:
        msg, hint = "the answer is empty.", "Try again, or use another model."
    error = EmptyAnswerError(f"{response.model}: {msg}", hint=hint, **_about(response))
    return _with_partial(error, response)


def _failure(response: Response) -> IncompleteAnswerError:
    reason = response.finish_reason
    passes = is_transient(reason)
    known = "" if passes else ", which is not a known reason for a complete answer"
    error = IncompleteAnswerError(
        f'{response.model} ended the answer with "{reason}"{known}.',
        hint="Run it again." if passes else "The partial answer is in the error's .partial.",
        retryable=passes,
        **_about(response),
    )
    return _with_partial(error, response)


def _about(response: Response) -> dict[str, Any]:
    provider, _, model = response.model.partition("/")
    return {"provider": provider or None, "model": model, "code": response.finish_reason}


def _with_partial(error: _Error, response: Response) -> _Error:
    error.partial = response
    return error
