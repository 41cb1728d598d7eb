"""Answers with log probabilities: an error where a service or a model does not return any."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

from llm_magics.errors import ProviderError, UnsupportedError
from llm_magics.providers.error_bodies import error_text, is_other_error
from llm_magics.types import StreamChunk

# The providers that return log probabilities.
PROVIDERS_WITH_LOGPROBS = (
    "local, ollama, openai, azure, gemini, vllm, llamacpp, fireworks, together"
)

_WORDS = re.compile(r"log[_ ]?prob", re.IGNORECASE)
_STATUSES = frozenset({None, 400, 404, 422, 500, 501})
_HINT = "Use a model that returns log probabilities, or leave logprobs and confidence out."


def is_logprobs_refusal(error: ProviderError) -> bool:
    """Return whether the service refused a request because of its log probabilities."""
    if is_other_error(error) or error.status not in _STATUSES:
        return False
    return bool(_WORDS.search(error_text(error)))


async def require_logprobs(
    chunks: AsyncGenerator[StreamChunk, None], provider: str, model: str
) -> AsyncGenerator[StreamChunk, None]:
    """
    Yield ``chunks``.

    Raises:
        UnsupportedError: the service refused to return log probabilities, or returned none.
    """
    has_text = has_logprobs = False
    async with aclosing(chunks):
        try:
            async for chunk in chunks:
                has_text = has_text or bool(chunk.text)
                has_logprobs = has_logprobs or bool(chunk.logprobs)
                yield chunk
        except ProviderError as error:
            if has_text or not is_logprobs_refusal(error):
                raise
            raise unsupported_error(provider, model, error) from error
    if has_text and not has_logprobs:
        raise unsupported_error(provider, model)


def unsupported_error(
    provider: str, model: str, cause: ProviderError | None = None
) -> UnsupportedError:
    """Return the error for a model without log probabilities."""
    why = f": {cause}" if cause is not None else "."
    return UnsupportedError(
        f"{provider}/{model} does not return log probabilities{why}",
        hint=_HINT,
        provider=provider,
        model=model,
        status=cause.status if cause else None,
        body=cause.body if cause else None,
    )
