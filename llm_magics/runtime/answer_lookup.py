"""Look up and store answers in a recording and in the cache."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_magics.errors import LLMError, ReplayMissError
from llm_magics.parameters import ModelParameters
from llm_magics.providers.configs import remove_credential_headers
from llm_magics.runtime.parsing import answer_in_thoughts
from llm_magics.runtime.response import Response, outcome
from llm_magics.runtime.routing import Route
from llm_magics.runtime.storage.answer_cache import Cache
from llm_magics.runtime.storage.recordings import Recording
from llm_magics.runtime.storage.serialization import (
    Request,
    chat_request,
    decode_answer,
    digest_request,
    encode_answer,
)
from llm_magics.secrets import scrub_json
from llm_magics.types import ChatMessage, ModelResponse, StreamChunk, settled
from llm_magics.wire.finish_reasons import Outcome


class AnswerLookup:
    """
    Looks up the stored answer to one chat, and stores a new one.

    A recording takes precedence over the cache. With ``is_fresh``, the cache is written but not
    read. The cache contains complete answers that match ``schema``. A recording also contains
    truncated and non-matching ones, which are replayed too.
    """

    def __init__(  # noqa: PLR0913 (everything that determines an answer)
        self,
        *,
        recording: Recording | None,
        cache: Cache | None,
        route: Route,
        messages: Sequence[ChatMessage],
        parameters: ModelParameters,
        is_fresh: bool,
        schema: Any = None,
    ) -> None:
        self._recording = recording
        self._cache = cache
        self._route = route
        self._request = chat_request(route.name, messages, parameters)
        self._headers = dict(parameters.extra_headers)
        self._is_fresh = is_fresh
        self._schema = schema
        self._key = b""
        self._former_key = b""

    async def find(self) -> Mapping[str, Any] | None:
        """Return the stored answer; without one, a strict recording raises `ReplayMissError`."""
        stored = self._recording.find(self._request) if self._recording else None
        if stored is not None or self._cache is None:
            return stored
        try:
            await self.find_keys()
        except LLMError:  # the model's weights are unknown: do not use the cache
            return None
        return None if self._is_fresh else self._cached(self._cache)

    async def has_answer(self) -> bool:
        """Return whether an answer is stored, also with a strict recording."""
        try:
            return await self.find() is not None
        except ReplayMissError:
            return False

    def _cached(self, cache: Cache) -> Mapping[str, Any] | None:
        found = cache.get_all([self._key, self._former_key])
        answer = self._good_answer_in(found.get(self._key))
        if answer is None:
            former = found.get(self._former_key)
            answer = self._good_answer_in(former)
            if answer is not None and former is not None:
                cache.put(self._key, former)
        return answer

    def _good_answer_in(self, found: bytes | None) -> Mapping[str, Any] | None:
        """Return the answer unless it is cut, empty or invalid, as some of earlier versions are."""
        answer = read_record(found)
        is_good = answer is not None and self._is_good(decode_answer(answer))
        return answer if is_good else None

    async def find_keys(self) -> None:
        """Compute the digests of what determines the answer, except credentials."""
        keys = await AnswerKeys.of(self._route, self._headers)
        self._key, self._former_key = keys.of_request(self._request)

    async def store(self, chunks: Sequence[StreamChunk]) -> None:
        """Store an answer in the recording and the cache, if it qualifies."""
        if self._recording and outcome(self._response(chunks)) in (Outcome.OK, Outcome.CUT):
            self._recording.keep(self._request, encode_answer(chunks))
        await self.store_in_cache(chunks)

    async def store_in_cache(self, chunks: Sequence[StreamChunk]) -> None:
        """Store an answer in the cache, if a cache is used and the answer is complete and valid."""
        if not self._cache or not self._key or not self._is_good(chunks):
            return
        record = encode_answer(chunks)
        if is_storable(record, chunks):
            # In a thread, because another kernel may be writing, and all streams share this loop.
            await asyncio.to_thread(
                self._cache.put, self._key, json.dumps(record, default=str).encode()
            )

    def _is_good(self, chunks: Iterable[StreamChunk]) -> bool:
        """Return whether an answer is complete and matches the schema, so that it can be reused."""
        return is_reusable(self._response(chunks))

    def _response(self, chunks: Iterable[StreamChunk]) -> Response:
        answer = answer_in_thoughts(ModelResponse.of(chunks), self._schema)
        return Response(
            text=answer.text,
            reasoning=answer.reasoning,
            finish_reason=answer.finish_reason,
            tool_calls=answer.tool_calls,
            schema=self._schema,
        )


@dataclass(frozen=True, slots=True)
class AnswerKeys:
    """
    What the keys of all answers of a model have in common.

    Attributes:
        identity, former: what identifies the model's weights and its service, now and in earlier
            versions of this package.
        headers: the headers of the requests.
    """

    identity: str
    former: str
    headers: Mapping[str, str]

    @classmethod
    async def of(cls, route: Route, headers: Mapping[str, str]) -> AnswerKeys:
        """
        Return those of the model of ``route``.

        Raises:
            LLMError: its weights are unknown.
        """
        provider, model = route.provider, route.model
        return cls(
            await provider.identity(model), await provider.former_identity(model), dict(headers)
        )

    def of_request(self, request: Request) -> tuple[bytes, bytes]:
        """Return the key of the answer to a request, and its key in earlier versions."""
        digest = digest_request(request)
        headers = remove_credential_headers(self.headers)
        return (
            _digest(digest, self.identity, headers),
            _digest(digest, self.former, self.headers),
        )


def _digest(request: str, identity: str, headers: Mapping[str, str]) -> bytes:
    parts = [request, identity, sorted(headers.items())]
    return hashlib.sha256(json.dumps(parts).encode()).digest()


def is_reusable(response: Response) -> bool:
    """Return whether an answer is complete and matches its schema, so that it can be cached."""
    return outcome(response) is Outcome.OK and response.misfit() is None


def is_storable(record: Mapping[str, Any], chunks: Sequence[StreamChunk]) -> bool:
    """Return whether a record contains the full answer, and no text that looks like a key."""
    return scrub_json(record) == record and _is_same_text(record, chunks)


async def describe_source(
    route: Route,
    messages: Sequence[ChatMessage],
    parameters: ModelParameters,
    response: Response,
) -> dict[str, Any]:
    """Return the source of an answer, without values that differ between runs."""
    request = chat_request(route.name, messages, parameters)
    facts = {
        "model": route.name,
        "digest": await route.provider.digest(route.model),
        "parameters": request["parameters"],
        "request": digest_request(request),
        "input_tokens": response.usage.input_tokens,
        "output_tokens": response.usage.output_tokens,
        "finish_reason": response.finish_reason,
        "source": "cached" if response.cached else "live",
    }
    return {name: value for name, value in facts.items() if value not in (None, "", {})}


def _is_same_text(record: Mapping[str, Any], chunks: Sequence[StreamChunk]) -> bool:
    """Return whether the record has the full text: a key may have been removed from it."""
    text = "".join(piece[1] for piece in record["chunks"])
    return text == "".join(chunk.text for chunk in settled(chunks))


def read_record(found: bytes | None) -> Mapping[str, Any] | None:
    """Return the answer in an entry of the cache; ``None`` for one with another format."""
    if found is None:
        return None
    try:
        record = json.loads(found)
        chunks = list(decode_answer(record))
        "".join([chunk.text + chunk.reasoning for chunk in chunks])
        sum(chunk.elapsed_s or 0.0 for chunk in chunks)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return dict(record)


async def replay(chunks: Iterable[StreamChunk], speed: float) -> AsyncGenerator[StreamChunk, None]:
    """Yield the chunks of a stored answer, immediately or at their original speed."""
    past_s = 0.0
    for chunk in chunks:
        if speed and chunk.elapsed_s:
            await asyncio.sleep((chunk.elapsed_s - past_s) / speed)
            past_s = chunk.elapsed_s
        yield chunk
