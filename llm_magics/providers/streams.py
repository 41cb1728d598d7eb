"""A request sent and its answer read as chunks: the same for every service and format."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any, Protocol

from llm_magics.errors import ConnectionError, ProviderError
from llm_magics.transport import ByteStream, Reply, Transport
from llm_magics.types import StreamChunk
from llm_magics.wire.errors import InStreamError


class Decoder(Protocol):
    """
    What a wire format offers for reading an answer.

    Chunks come one by one, so that those before an error in the same bytes are not lost.
    """

    finished: bool

    def feed(self, data: bytes, elapsed_s: float) -> Iterator[StreamChunk]:
        """The chunks that ``data`` completes."""

    def flush(self, elapsed_s: float) -> Iterator[StreamChunk]:
        """What is left when the stream has ended."""

    def whole(self, body: dict[str, Any], elapsed_s: float) -> list[StreamChunk]:
        """The chunks of an answer that came as one JSON body."""


# Makes an error's body, its status (None inside a stream) and its headers into an error.
Refusal = Callable[[Any, int | None, Any], ProviderError]


async def stream_chunks(
    transport: Transport, path: str, body: dict[str, Any], decoder: Decoder, refused: Refusal
) -> AsyncGenerator[StreamChunk, None]:
    """
    ``POST body`` and yield the answer as it comes.

    Raises:
        ProviderError: what ``refused`` makes of an error, be it by status or in the stream.
        ConnectionError: the stream ended before its finish marker.
    """
    try:
        async with transport.stream("POST", path, body) as stream:
            if not stream.ok:
                reply = await stream.reply()
                raise refused(reply.json(), reply.status, reply.headers)
            async for chunk in _decoded(stream, decoder, refused):
                yield chunk
    except InStreamError as error:
        raise refused(error.body, None, {}) from None
    except ConnectionError:
        if not decoder.finished:  # some servers drop the connection after the last word
            raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        msg = f"The service sent what cannot be read: {type(error).__name__}: {error}"
        raise ProviderError(msg, hint="Run the cell again.", retryable=True) from error
    if not decoder.finished:
        msg = "The service ended the answer without saying that it was finished."
        raise ConnectionError(msg, hint="Run the cell again.")


async def _decoded(
    stream: ByteStream, decoder: Decoder, refused: Refusal
) -> AsyncGenerator[StreamChunk, None]:
    elapsed_s = 0.0
    if _is_whole(stream.headers.get("content-type", "")):
        started = time.perf_counter()
        body = _object(await stream.reply(), refused)
        for chunk in decoder.whole(body, time.perf_counter() - started):
            yield chunk
        return
    async for elapsed_s, block in stream.blocks:
        for chunk in decoder.feed(block, elapsed_s):
            yield chunk
    for chunk in decoder.flush(elapsed_s):
        yield chunk


def _is_whole(content_type: str) -> bool:
    """Whether a service that was asked to stream answers in one piece all the same."""
    return content_type.partition(";")[0].strip() == "application/json"


def _object(reply: Reply, refused: Refusal) -> dict[str, Any]:
    body = json.loads(reply.body)
    if not isinstance(body, dict) or body.get("error"):  # status 200 does not make it an answer
        raise refused(body, None, reply.headers)
    return body
