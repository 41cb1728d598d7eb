"""Send a request and read its answer as chunks, for all services and formats."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from llm_magics._util.json_text import read_json
from llm_magics.errors import (
    ConfigurationError,
    ConnectionError,
    LLMError,
    ModelNotFoundError,
    ProviderError,
)
from llm_magics.host import Progress
from llm_magics.http import ByteStream, Reply, Transport, find_request_id
from llm_magics.providers.base import ModelInfo
from llm_magics.types import StreamChunk
from llm_magics.wire.decoders import DECODING_ERRORS, InStreamError


class Decoder(Protocol):
    """
    A wire format's reader of an answer.

    Chunks are yielded one by one, so that those before an error in the same data are not lost.
    """

    finished: bool

    def feed(self, data: bytes, elapsed_s: float) -> Iterator[StreamChunk]:
        """Yield the chunks that ``data`` completes."""

    def flush(self, elapsed_s: float) -> Iterator[StreamChunk]:
        """Yield the remaining chunks at the end of the stream."""

    def decode_body(self, body: dict[str, Any], elapsed_s: float) -> list[StreamChunk]:
        """Return the chunks of an answer that is not streamed but one JSON body."""


# Creates a decoder when the response has started.
DecoderFactory = Callable[[], Decoder]

# Maps an error's body, its status (None inside a stream) and its headers to an exception.
ErrorMapper = Callable[[Any, int | None, Any], ProviderError]

# Adds the provider's knowledge to the error of a broken connection or a missing model.
ErrorExplainer = Callable[[ProviderError], Awaitable[ProviderError]]

# How long, in seconds, a connection may stay open after the finish marker.
_END_TIMEOUT_S = 2.0


async def stream_chunks(  # noqa: PLR0913 (one request, and how to read its answer)
    transport: Transport,
    path: str,
    body: dict[str, Any],
    create_decoder: DecoderFactory,
    refused: ErrorMapper,
    *,
    headers: Mapping[str, str] | None = None,
    explain: ErrorExplainer | None = None,
    idle_s: float | None = None,
) -> AsyncGenerator[StreamChunk, None]:
    """
    Send ``POST body`` and yield the answer as it arrives.

    ``idle_s`` replaces the service's longest time between two bytes.

    Raises:
        ProviderError: the result of ``refused`` for an error, by status or in the stream; for a
            broken connection or a missing model, the result of ``explain``.
        ConnectionError: the stream ended before its finish marker.
    """
    async with _map_errors(refused, explain) as answer:
        elapsed_s = 0.0
        try:
            async with transport.stream("POST", path, body, headers, idle_s=idle_s) as stream:
                answer.headers = stream.headers
                content_type = await _check_response(stream, refused)
                decoder = answer.decoder = create_decoder()
                identified = _RequestId(stream.headers)
                if content_type == "application/json":  # the server does not stream
                    said = _read_object(await stream.reply(), refused)
                    for chunk in identified.add_to(decoder.decode_body(said, stream.elapsed_s)):
                        yield chunk
                    failure = said if said.get("error") else getattr(decoder, "failure", None)
                    if failure is not None:
                        raise InStreamError(failure)
                    return
                is_hurried = False
                async with aclosing(stream.blocks) as blocks:
                    async for elapsed_s, block in blocks:
                        for chunk in identified.add_to(decoder.feed(block, elapsed_s)):
                            yield chunk
                        if decoder.finished and not is_hurried:
                            # Usage may follow. Closing before the end would reset the connection;
                            # waiting for an end that never arrives would hang.
                            stream.end_within(_END_TIMEOUT_S)
                            is_hurried = True
        except ConnectionError:
            if not answer.is_finished:  # some servers drop the connection at the end
                raise
        for chunk in identified.add_to(_last_chunks(decoder, elapsed_s)):
            yield chunk


class _RequestId:
    """Adds the service's identifier of the request to the first chunk of its answer."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._id = find_request_id(headers)

    def add_to(self, chunks: Iterable[StreamChunk]) -> Iterable[StreamChunk]:
        """Return ``chunks``, the first of all with the identifier."""
        return chunks if self._id is None else self._added(chunks)

    def _added(self, chunks: Iterable[StreamChunk]) -> Iterator[StreamChunk]:
        for chunk in chunks:
            yield chunk if self._id is None else chunk._replace(request_id=self._id)
            self._id = None


def _last_chunks(decoder: Decoder, elapsed_s: float) -> Iterator[StreamChunk]:
    """Yield the chunks left at the end of a stream, which may be in the middle of an event."""
    # An unfinished event is not JSON. Its error would hide that the connection was lost.
    with suppress(ValueError):
        yield from decoder.flush(elapsed_s)


@dataclass(slots=True)
class _Answer:
    """The headers of a response, and the decoder that reads it."""

    headers: Mapping[str, str] = field(default_factory=dict)
    decoder: Decoder | None = None

    @property
    def is_finished(self) -> bool:
        """Whether the finish marker has been read."""
        return self.decoder is not None and self.decoder.finished


@asynccontextmanager
async def _map_errors(
    refused: ErrorMapper, explain: ErrorExplainer | None
) -> AsyncGenerator[_Answer, None]:
    """Raise errors inside the block, and a missing finish marker, as the provider's exceptions."""
    answer = _Answer()
    try:
        try:
            yield answer
        except InStreamError as error:
            raise refused(error.body, None, answer.headers) from None
        except DECODING_ERRORS as error:
            msg = f"The service sent an invalid response: {type(error).__name__}: {error}"
            hint = "Run the cell again."
            raise ProviderError(msg, hint=hint, retryable=True, may_be_billed=True) from error
        if not answer.is_finished:
            msg = "The service ended the stream before the answer was finished."
            raise ConnectionError(msg, hint="Run the cell again.", may_be_billed=True)
    except (ConnectionError, ModelNotFoundError) as error:
        if explain is None:
            raise
        raise await explain(error) from None


async def _check_response(stream: ByteStream, refused: ErrorMapper) -> str:
    """Return the content type of a response; raise the error for a refusal or a web page."""
    if not stream.ok:
        reply = await stream.reply()
        raise refused(reply.json(), reply.status, reply.headers)
    content_type = stream.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == "text/html":
        raise _web_page_error(await stream.reply())
    return content_type


def _web_page_error(reply: Reply) -> ConfigurationError:
    text = re.sub(r"<[^>]*>", " ", reply.body[:4000].decode("utf-8", "replace"))
    msg = f"Received a web page instead of an answer: {' '.join(text.split())[:80]!r}"
    hint = "Check the provider's base_url; a proxy may have answered instead."
    return ConfigurationError(msg, hint=hint, status=reply.status, retryable=True)


def _read_object(reply: Reply, refused: ErrorMapper) -> dict[str, Any]:
    body = read_json(reply.body)
    # Errors may have status 200. Chunks that precede the error are yielded first.
    if not isinstance(body, dict) or (body.get("error") and not body.get("choices")):
        raise refused(body, None, reply.headers)
    return body


# Servers keep a model loaded for minutes after a call, so it is not checked again before this time.
_LOADED_TTL_S = 60.0

# A message about loading does not justify a long delay.
_LOOKUP_TIMEOUT_S = 1.0


class LoadingNotice:
    """Reports that the server is loading a model that it has on disk but not in memory."""

    def __init__(self, find: Callable[[str], Awaitable[ModelInfo | None]]) -> None:
        """``find`` returns whether a model is loaded, and its size; ``None`` if it is unknown."""
        self._find = find
        self._checked_at: dict[str, float] = {}

    async def of(self, model: str) -> Progress | None:
        """Return the progress to show while ``model`` loads; ``None`` if it is in memory."""
        now = time.monotonic()
        checked_at, self._checked_at[model] = self._checked_at.get(model), now
        if checked_at is not None and now - checked_at < _LOADED_TTL_S:
            return None
        try:
            async with asyncio.timeout(_LOOKUP_TIMEOUT_S):
                info = await self._find(model)
        except (LLMError, TimeoutError):  # the call itself will report the error
            return None
        return (
            None if info is None or info.loaded is not False else Progress(loading_message(info))
        )


def loading_message(info: ModelInfo) -> str:
    """Return a message that a model is being loaded, with its size if known."""
    size = info.size_bytes
    if not size:
        return f"loading {info.name}"
    return (
        f"loading {info.name}, {f'{size / 1e9:.1f} GB' if size >= 1e9 else f'{size / 1e6:.0f} MB'}"
    )
