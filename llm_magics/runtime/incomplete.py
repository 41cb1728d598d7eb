"""The errors of answers that came to an end and are not complete, and the warning of a cut."""

from __future__ import annotations

from typing import Any, TypeVar

from llm_magics.completeness import Outcome, is_cut, may_pass, outcome_of
from llm_magics.errors import (
    ContentFilterError,
    EmptyAnswerError,
    IncompleteAnswerError,
    LLMError,
    ParseError,
    ProviderError,
)
from llm_magics.runtime.response import Response

_Error = TypeVar("_Error", bound=ProviderError)

_RAISE_LIMIT = "Raise max_tokens, or ask for a shorter answer."
_THINK_LESS = "Raise max_tokens, or let it think less: reasoning=False."


def outcome(response: Response) -> Outcome:
    """Return how the answer in ``response`` ended; white space alone is no text."""
    return outcome_of(
        response.finish_reason,
        has_text=bool(response.text.strip()),
        has_tool_calls=bool(response.tool_calls),
    )


def error_of(response: Response) -> ProviderError | None:
    """
    Return the error that an incomplete answer raises, with the answer in ``partial``.

    A complete answer raises none, nor does one that was cut at a limit of length.
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
    """Return the error of a cut answer where a whole one was needed."""
    name = response.model
    msg = f"{name}: the answer was cut at its longest ({response.finish_reason})."
    return _with_partial(
        IncompleteAnswerError(msg, hint=_RAISE_LIMIT, **_about(response)), response
    )


def cut_warning(model: str, count: int = 1, total: int = 1) -> str:
    """Return the warning that ``count`` of ``total`` answers were cut at no limit of the user's."""
    which = "The answer" if total == 1 else f"{count:,} of {total:,} answers"
    were = "was" if total == 1 or count == 1 else "were"
    by = f" of {model}" if model else ""
    return f"{which}{by} {were} cut at the longest that the model or its service gives. Set max_tokens."


def outcome_of_error(error: LLMError) -> Outcome:
    """Return under which name a report has a row that ended in ``error``."""
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
            f"{response.model} refuses to answer{why}",
            hint="Word it differently, or ask another model.",
            **_about(response),
        ),
        response,
    )


def _empty(response: Response) -> EmptyAnswerError:
    has_thoughts = bool(response.reasoning.strip())
    if is_cut(response.finish_reason):
        what = "all of it was thinking" if has_thoughts else "it had no text yet"
        msg, hint = f"the answer was cut at its longest, and {what}.", _THINK_LESS
    elif has_thoughts:
        msg = "the answer has no text: all of it is thinking."
        hint = "Ask again, or without thinking: reasoning=False."
    else:
        msg, hint = "the answer is empty.", "Ask again, or ask another model."
    error = EmptyAnswerError(f"{response.model}: {msg}", hint=hint, **_about(response))
    return _with_partial(error, response)


def _failure(response: Response) -> IncompleteAnswerError:
    reason = response.finish_reason
    passes = may_pass(reason)
    known = "" if passes else ", which is not known to mean that it is whole"
    error = IncompleteAnswerError(
        f'{response.model} ended the answer with "{reason}"{known}.',
        hint="Run it again." if passes else "What came of it is in the error's .partial.",
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
