"""Errors, their attributes, and what they are caught as."""

from typing import Any, assert_type

import llm_magics as lm
from llm_magics import errors


def ask(prompt: str) -> str:
    """Every error has a message and a hint; a provider's says more."""
    try:
        return lm.ask(prompt).text
    except errors.RateLimitError as error:
        assert_type(error.retry_after, float | None)
        assert_type(error.retryable, bool)
        raise
    except errors.ProviderError as error:
        assert_type(error.provider, str | None)
        assert_type(error.status, int | None)
        assert_type(error.code, str | int | None)
        assert_type(error.partial, Any)
        raise
    except errors.LLMError as error:
        assert_type(error.hint, str | None)
        raise
    except errors.Interrupted as stopped:
        assert_type(stopped.partial, Any)
        return str(stopped.partial)


def is_offline(error: Exception) -> bool:
    """A failed connection is Python's own too."""
    return isinstance(error, ConnectionError)


def refuse(model: str) -> errors.ModelNotFoundError:
    """A provider creates errors with these arguments."""
    hint = errors.nearest(model, ["echo"])
    assert_type(hint, str)
    return errors.ModelNotFoundError(
        f"There is no model {model}.", hint=hint, provider="own", model=model, status=404
    )
