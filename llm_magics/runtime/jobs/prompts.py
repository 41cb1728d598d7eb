"""
The prompts of rows as the work of batch jobs.

A prompt has the key, the request and the checks of a live call, so answers of both are found by
both. Answers are stored as they are read, and are not held in memory.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from llm_magics.errors import JobError, LLMError, ParseError, ReplayMissError
from llm_magics.host import warn
from llm_magics.providers.batches.offline import LiveRequest, chat_chunks_of, chat_request_of
from llm_magics.providers.batches.service import BatchResult
from llm_magics.providers.remote import RemoteProvider
from llm_magics.runtime import pricing
from llm_magics.runtime.answer_lookup import AnswerKeys, is_reusable, is_storable, read_record
from llm_magics.runtime.delivery import Deliveries
from llm_magics.runtime.jobs.work import Accepted, Kind
from llm_magics.runtime.parsing import answer_in_thoughts
from llm_magics.runtime.prompts.prompt import (
    Prompt,
    PromptParameters,
    build_messages,
    has_foreign_system,
)
from llm_magics.runtime.response import (
    Response,
    completeness_error,
    cut_error,
    outcome,
    search_warning,
)
from llm_magics.runtime.routing import Route
from llm_magics.runtime.session import Session
from llm_magics.runtime.storage.recordings import Recording
from llm_magics.runtime.storage.serialization import (
    Request,
    chat_request,
    decode_answer,
    encode_answer,
)
from llm_magics.types import ChatMessage, ModelResponse, StreamChunk, Usage
from llm_magics.usage import add_usage
from llm_magics.wire.finish_reasons import Outcome, has_limit

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KEY_BYTES = 32

# How long to wait for another kernel's write, in seconds: a missed answer would be paid again.
_CACHE_S = 10.0

# The prompt does not matter for reading its answer: it continues no earlier answer.
_ANY_MESSAGES = (ChatMessage("user", "prompt"),)

# Where the answer to a prompt is: nowhere; in the cache, since before or from a result; in the
# recording; in memory, because the cache does not take it; from a live call.
PENDING, CACHED, STORED, RECORDED, HELD, LIVE = range(6)


class PromptWork:
    """
    Prompts with the same model, parameters and schema, and where their answers are.

    Attributes:
        places: where the answer to each prompt is: ``PENDING``, ``CACHED`` and so on.
        errors: why prompts have no answer.
        invalid: answers that do not match the schema, at most ``max_invalid`` of them.
        misrecorded: the prompts whose recorded answer does not match the schema.
        gaps: the pages of documents that the model did not get, in words.
        warnings: what to warn of after the jobs, in words.
        accepted, results: the number of accepted answers, and of all results that were read.
        cost_usd: the cost of the results in US dollars; ``None`` if a part of it is unknown.
    """

    kind: Kind = "chat"

    def __init__(
        self, session: Session, prompts: Sequence[Prompt], *, route: Route, keys: AnswerKeys
    ) -> None:
        config = session.config
        self.route = route
        self._prompts = prompts
        self._config = config
        self._cache = session.answer_cache
        self._recording: Recording | None = session.recording
        # Those at the beginning, because a cell may change the settings while a job runs.
        self._system = config.system
        self._is_foreign = has_foreign_system(prompts[0], config)
        self._schema = prompts[0].schema
        self._is_fresh = prompts[0].is_fresh
        parameters = PromptParameters(prompts[0], config).merge(route.parameters)
        self.parameters = parameters.without_tier()  # of an alias; jobs have another price
        self._answer_keys = keys
        self._keys = bytearray(_KEY_BYTES * len(prompts))
        self.places = np.zeros(len(prompts), np.int8)
        self.errors: dict[int, LLMError] = {}
        self.invalid: dict[int, Sequence[StreamChunk]] = {}
        self.max_invalid = max(1, len(prompts) // 100)
        self.misrecorded: list[int] = []
        self.gaps: dict[str, None] = {}
        self.warnings: dict[str, None] = {}
        self.cost_usd: float | None = 0.0
        self.accepted = 0
        self.results = 0
        self._held: dict[int, bytes] = {}
        self._unlogged: tuple[Usage, float | None] = (Usage(), 0.0)
        self._spent_usd = 0.0
        self._has_warned = False

    # The work of a job.

    def distinct(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of ``numbers`` with different keys."""
        keys = np.frombuffer(self._keys, f"V{_KEY_BYTES}")[numbers]
        return numbers[np.sort(np.unique(keys, return_index=True)[1])]

    def key(self, number: int) -> bytes:
        """Return the key of the live answer; `look_up` has computed it."""
        start = int(number) * _KEY_BYTES
        return bytes(self._keys[start : start + _KEY_BYTES])

    async def request(self, number: int) -> LiveRequest:
        """Return the request that a live call would send."""
        deliveries = Deliveries(self.messages(number))
        await deliveries.prepare(self.route)
        self.gaps |= dict.fromkeys(deliveries.gaps())
        provider = cast("RemoteProvider", self.route.provider)
        messages = deliveries.messages(self.route)
        return await chat_request_of(provider, messages, self.route.model, self.parameters)

    async def accept(self, results: Sequence[tuple[int, BatchResult]]) -> list[Accepted]:
        """
        Store the answers in the recording and the cache.

        Raises:
            JobError: the cache could not be written.
        """
        values: list[tuple[bytes, bytes]] = []
        recorded: list[tuple[Request, Mapping[str, Any]]] = []
        accepted: list[Accepted] = []
        for number, result in results:
            accepted.append(await self._accept(number, result, values, recorded))
        await asyncio.to_thread(self._store, values)
        if self._recording is not None and recorded:
            await asyncio.to_thread(self._recording.keep_all, recorded)
        for (number, _), each in zip(results, accepted, strict=True):
            if each.error is None:
                self.places[number] = HELD if number in self._held else STORED
                self.errors.pop(number, None)
            self._count(each)
        return accepted

    async def _accept(
        self,
        number: int,
        result: BatchResult,
        values: list[tuple[bytes, bytes]],
        recorded: list[tuple[Request, Mapping[str, Any]]],
    ) -> Accepted:
        """Check one result, and add it to those that are stored and recorded."""
        if result.body is None:
            return Accepted(error=result.error)
        try:
            chunks: Sequence[StreamChunk] = await chat_chunks_of(
                cast("RemoteProvider", self.route.provider),
                _ANY_MESSAGES,
                self.route.model,
                self.parameters,
                result.body,
            )
        except LLMError as failure:
            # An error is free; an answer that cannot be read is not.
            return Accepted(error=failure, cost_usd=0.0 if result.body.get("error") else None)
        chunks = [_in_batch_tier(each) for each in chunks]
        response = self._response(chunks, is_sent=True)
        warning = search_warning(response, is_requested=self.parameters.search)
        self.warnings |= dict.fromkeys([warning] if warning else [])
        record = encode_answer(chunks)
        is_recorded = self._recording is not None and self._recording.records
        if is_recorded and outcome(response) in (Outcome.OK, Outcome.CUT):
            recorded.append((self._request(number), record))
        error = self._problem(response)
        if isinstance(error, ParseError) and len(self.invalid) < self.max_invalid:
            self.invalid[number] = chunks
        if error is None:
            value = json.dumps(record, default=str).encode()
            if outcome(response) is Outcome.OK and is_storable(record, chunks):
                values.append((self.key(number), value))
            else:
                self._held[number] = value
        return Accepted(error=error, cost_usd=response.cost_usd, usage=response.usage)

    def _problem(self, response: Response) -> LLMError | None:
        """Return the error that a live call for a row would raise for this answer, if any."""
        error: LLMError | None = completeness_error(response) or response.misfit()
        if error is None and outcome(response) is Outcome.CUT:
            has_own_limit = has_limit(self.parameters.max_tokens, self.parameters.extra_body)
            error = None if has_own_limit else cut_error(response)
        return error

    def _store(self, values: Sequence[tuple[bytes, bytes]]) -> None:
        # The second attempt is for a damaged file, which the first one replaces.
        if values and not self._cache.put_all(values) and not self._cache.put_all(values):
            msg = f"Could not store the answers in {self._cache.path}: {self._cache.problem}."
            hint = "Free some space or set cache_dir, and run the cell again to read them again."
            raise JobError(msg, hint=hint)

    def _count(self, accepted: Accepted) -> None:
        self.accepted += accepted.error is None
        self.results += 1
        self._spent_usd += accepted.cost_usd or 0.0
        self.cost_usd = _sum_usd(self.cost_usd, accepted.cost_usd)
        usage, cost_usd = self._unlogged
        self._unlogged = add_usage(usage, accepted.usage), _sum_usd(cost_usd, accepted.cost_usd)

    def take_spent(self) -> float:
        """Return the known cost since the last call of this method."""
        spent_usd, self._spent_usd = self._spent_usd, 0.0
        return spent_usd

    def take_usage(self) -> tuple[Usage, float | None]:
        """Return the tokens and the cost since the last call of this method."""
        unlogged, self._unlogged = self._unlogged, (Usage(), 0.0)
        return unlogged

    # Stored answers.

    def look_up(self, numbers: Iterable[int], *, is_new: bool = False) -> None:
        """
        Find stored answers to prompts: first in the recording, then in the cache.

        ``is_new`` means that the cache has new answers, also if older ones must not be used.
        """
        numbers_of: dict[bytes, list[int]] = {}  # several, if prompts differ only in bad Unicode
        former: dict[bytes, bytes] = {}
        for number in numbers:
            try:
                request = self._request(number)
                if self._is_recorded(number, request):
                    continue
            except LLMError as error:  # a file cannot be read, or a strict recording lacks it
                self.errors[number] = error
                continue
            key, former_key = self._answer_keys.of_request(request)
            start = number * _KEY_BYTES
            self._keys[start : start + _KEY_BYTES] = key
            numbers_of.setdefault(key, []).append(number)
            former[former_key] = key
        if self._is_fresh and not is_new:
            return
        found = self._reusable_in_cache(numbers_of)
        lost = {old: key for old, key in former.items() if key not in found}
        moved = {lost[old]: value for old, value in self._reusable_in_cache(lost).items()}
        if moved and not self._cache.put_all(moved.items()):
            moved = {}
        for key in (*found, *moved):
            self.places[numbers_of[key]] = CACHED

    def _is_recorded(self, number: int, request: Request) -> bool:
        """
        Return whether the recording decides about a prompt.

        Raises:
            ReplayMissError: the recording is strict, and does not contain the answer.
        """
        found = self._recording.find(request) if self._recording is not None else None
        if found is None:
            return False
        response = self._response(list(decode_answer(found)), is_sent=False)
        error = self._problem(response)
        if error is None:
            self.places[number] = RECORDED
        elif isinstance(error, ParseError):
            self.misrecorded.append(number)
        else:
            self.errors[number] = error
        return True

    def _reusable_in_cache(self, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        found = self._cache.get_all(keys, _CACHE_S)
        return {key: value for key, value in found.items() if self._is_reusable(value)}

    def _is_reusable(self, value: bytes) -> bool:
        record = read_record(value)
        return record is not None and is_reusable(
            self._response(list(decode_answer(record)), is_sent=False)
        )

    def read(self, numbers: Sequence[int]) -> dict[int, Response]:
        """Return the stored answers to prompts; one that was deleted meanwhile is open again."""
        cached = [number for number in numbers if self.places[number] in (CACHED, STORED)]
        keys = [self.key(number) for number in cached]
        values = self._cache.get_all(dict.fromkeys(keys), _CACHE_S) if keys else {}
        records = {
            number: read_record(values.get(key)) for number, key in zip(cached, keys, strict=True)
        }
        for number in numbers:
            if self.places[number] == HELD:
                records[number] = json.loads(self._held[number])
            elif self.places[number] == RECORDED and self._recording is not None:
                records[number] = self._found_again(number)
        lost = [number for number in cached if records[number] is None]
        if lost:
            self.places[lost] = PENDING
            self._warn_of_lost()
        return {
            number: self._response(list(decode_answer(record)), is_sent=False)
            for number, record in records.items()
            if record is not None
        }

    def _warn_of_lost(self) -> None:
        if not self._has_warned:
            self._has_warned = True
            warn(
                f"Some answers are no longer in {self._cache.path}. Run the cell again to get them; "
                "if the cache is too small for all, raise cache_mb."
            )

    def _found_again(self, number: int) -> Mapping[str, Any] | None:
        assert self._recording is not None
        try:
            return self._recording.find(self._request(number))
        except ReplayMissError:
            return None

    # Prompts and responses.

    def messages(self, number: int) -> tuple[ChatMessage, ...]:
        """
        Return the messages of a prompt, with its attachments as they are.

        Raises:
            AttachmentError: one of them cannot be read.
        """
        return build_messages(
            self._prompts[int(number)], self._system, is_default_foreign=self._is_foreign
        )

    def _request(self, number: int) -> Request:
        return chat_request(self.route.name, self.messages(number), self.parameters)

    def _response(self, chunks: Sequence[StreamChunk], *, is_sent: bool) -> Response:
        """Return the answer in ``chunks``; one that was not sent in this run is free."""
        answer = answer_in_thoughts(ModelResponse.of(chunks), self._schema)
        cost = pricing.Cost(0.0, 0.0)
        if is_sent:
            provider, model = self.route.provider, self.route.model
            cost = pricing.answer_cost(self._config, provider, model, answer, is_sent=True)
        return Response(
            text=answer.text,
            model=self.route.name,
            finish_reason=answer.finish_reason,
            usage=answer.usage or Usage(),
            cost_usd=cost.usd,
            reasoning_usd=cost.reasoning_usd,
            cached=not is_sent,
            reasoning=answer.reasoning,
            tool_calls=answer.tool_calls,
            reasoning_blocks=answer.reasoning_blocks,
            token_logprobs=answer.logprobs,
            sources=answer.citations,
            searches=answer.searches,
            schema=self._schema,
        )


def _sum_usd(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _in_batch_tier(chunk: StreamChunk) -> StreamChunk:
    """
    Return ``chunk`` with the tier that is billed; services do not name it in results.

    The body of the result is not stored, and masking the keys in it would take longest.
    """
    usage = None if chunk.usage is None else replace(chunk.usage, service_tier="batch")
    return chunk._replace(usage=usage, raw=None)
