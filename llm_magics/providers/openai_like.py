"""What every service that speaks OpenAI's formats has in common: a stream, and its errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from llm_magics.errors import (
    AuthenticationError,
    ConnectionError,
    ContextLengthError,
    ModelNotFoundError,
    ProviderError,
    RateLimitError,
    UnsupportedError,
)
from llm_magics.secrets import scrub
from llm_magics.transport import Reply, Transport
from llm_magics.types import StreamChunk
from llm_magics.wire import openai_chat
from llm_magics.wire.errors import InStreamError

_BY_TYPE: dict[str, type[ProviderError]] = {
    "authentication_error": AuthenticationError,
    "context_length_exceeded": ContextLengthError,
    "exceed_context_size_error": ContextLengthError,
    "model_not_found": ModelNotFoundError,
    "not_supported_error": UnsupportedError,
}

_BY_STATUS: dict[int, type[ProviderError]] = {
    401: AuthenticationError,
    403: AuthenticationError,
    404: ModelNotFoundError,
    429: RateLimitError,
}

_HINTS: dict[type[ProviderError], str] = {
    ContextLengthError: "Shorten the prompt, or use a model with a longer context.",
    AuthenticationError: "Check the provider's key.",
    ModelNotFoundError: "List what there is with %llm models.",
    RateLimitError: "Wait a little and run the cell again.",
}


async def stream_chunks(
    transport: Transport, path: str, body: dict[str, Any], *, provider: str, model: str
) -> AsyncGenerator[StreamChunk, None]:
    """
    ``POST body`` and yield the answer as it comes.

    Raises:
        ProviderError: of the fitting kind, where the service answers with an error,
            be it by status or inside the stream.
        ConnectionError: the stream ended before its finish marker.
    """
    decoder = openai_chat.ChunkDecoder()
    elapsed_s = 0.0
    try:
        async with transport.stream("POST", path, body) as stream:
            if not stream.ok:
                raise error_of(await stream.reply(), provider, model)
            async for elapsed_s, block in stream.blocks:
                for chunk in decoder.feed(block, elapsed_s):
                    yield chunk
            for chunk in decoder.flush(elapsed_s):
                yield chunk
    except InStreamError as error:
        raise classified(error.body, None, provider, model) from None
    except ValueError as error:  # no JSON where there should be some
        msg = f"{provider}/{model} sent what cannot be read: {error}"
        raise ProviderError(msg, provider=provider, model=model, retryable=True) from error
    except ConnectionError:
        if not decoder.finished:  # some servers drop the connection after the last word
            raise
    if not decoder.finished:
        msg = f"{provider} ended the answer without saying that it was finished."
        raise ConnectionError(msg, hint="Run the cell again.", provider=provider, model=model)


def error_of(reply: Reply, provider: str, model: str) -> ProviderError:
    """The error that a reply with an error status stands for."""
    return classified(reply.json(), reply.status, provider, model)


def classified(body: Any, status: int | None, provider: str, model: str) -> ProviderError:
    """The error that a body stands for: by its own type and code first, by its status second."""
    message, code, kind = openai_chat.error_of(body)
    made = _BY_TYPE.get(str(kind)) or _BY_TYPE.get(str(code)) or _BY_STATUS.get(status or 0)
    made = made or ProviderError
    said = f"{provider}/{model}: {scrub(message).strip().rstrip('.')[:300] or f'status {status}'}."
    return made(
        said,
        hint=_HINTS.get(made),
        provider=provider,
        model=model,
        status=status,
        code=code,
        retryable=made.retryable or (status or 0) >= 500,
        body=body,
    )
