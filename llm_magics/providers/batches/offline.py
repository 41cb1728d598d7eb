"""
Requests without sending them, and answers without receiving them.

A job contains the very request that a live call would send, and its results are read exactly as
live answers are: parameters that a model refuses, schemas, thinking and errors are handled by the
provider, which here only has its connection replaced.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any, cast

from llm_magics.errors import ProviderError, StreamInterrupted
from llm_magics.parameters import ModelParameters
from llm_magics.providers.remote import RemoteProvider
from llm_magics.providers.streaming import DecoderFactory
from llm_magics.types import ChatMessage, StreamChunk
from llm_magics.wire.decoders import DECODING_ERRORS, InStreamError


@dataclass(frozen=True, slots=True)
class LiveRequest:
    """The path and the body of a live request."""

    path: str
    body: dict[str, Any]


class _CapturedError(Exception):
    def __init__(self, request: LiveRequest) -> None:
        super().__init__()
        self.request = request


async def chat_request_of(
    provider: RemoteProvider,
    messages: Sequence[ChatMessage],
    model: str,
    parameters: ModelParameters,
) -> LiveRequest:
    """Return the request that the provider would send for a chat."""

    def capture(path: str, body: dict[str, Any], *_: Any) -> AsyncGenerator[StreamChunk, None]:
        raise _CapturedError(LiveRequest(path, body))

    offline = _with_chunks(provider, capture)
    parameters = replace(parameters, stream=False)
    try:
        await offline.generate_chat(messages, model, parameters)
    except _CapturedError as captured:
        return captured.request
    msg = f"{provider.name} sent no request."
    raise ProviderError(msg, provider=provider.name)


async def chat_chunks_of(
    provider: RemoteProvider,
    messages: Sequence[ChatMessage],
    model: str,
    parameters: ModelParameters,
    body: Mapping[str, Any],
) -> list[StreamChunk]:
    """
    Return the chunks of the answer in ``body``, the body of a response.

    Raises:
        ProviderError: it contains an error, is not an answer, or has no finish reason.
    """
    is_read = False

    async def answer(
        path: str, request: dict[str, Any], model: str, create_decoder: DecoderFactory, *_: Any
    ) -> AsyncGenerator[StreamChunk, None]:
        nonlocal is_read
        if is_read:  # the service has paused the answer, and a live call would continue it
            msg = f"{provider.name} paused this answer, which a batch job cannot continue."
            raise ProviderError(msg, hint="Send it without batch=True.", provider=provider.name)
        decoder = create_decoder()
        try:
            chunks = decoder.decode_body(dict(body), 0.0)
            failure = body if body.get("error") else getattr(decoder, "failure", None)
            if failure is not None:
                raise InStreamError(failure)
        except InStreamError as error:
            raise provider._error(error.body, None, {}, model) from None
        except DECODING_ERRORS as error:
            msg = f"{provider.name} sent an invalid result: {type(error).__name__}: {error}"
            raise ProviderError(msg, provider=provider.name, body=body) from error
        if not any(chunk.finish_reason for chunk in chunks):  # the answer may be incomplete
            msg = f"{provider.name} sent a result without a finish reason."
            raise ProviderError(msg, provider=provider.name, body=body)
        is_read = True
        for chunk in chunks:
            yield chunk

    offline = _with_chunks(provider, answer)
    stream = await offline.generate_chat(messages, model, replace(parameters, stream=True))
    try:
        return [chunk async for chunk in cast("AsyncGenerator[StreamChunk, None]", stream)]
    except StreamInterrupted as error:  # no connection was interrupted
        cause = error.__cause__ if isinstance(error.__cause__, ProviderError) else error
        cause.partial = error.partial
        raise cause from None


def _with_chunks(provider: RemoteProvider, chunks: Any) -> RemoteProvider:
    """Return a copy of ``provider`` whose requests are answered by ``chunks``."""
    offline = copy(provider)
    vars(offline)["_chunks"] = chunks
    return offline
