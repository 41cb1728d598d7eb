"""Responses, either streamed with arrival times, size limits and a deadline, or complete."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol, TypeVar

from llm_magics._util.json_text import read_json
from llm_magics.errors import ProviderError
from llm_magics.http.timing import RequestTiming
from llm_magics.secrets import scrub

_T = TypeVar("_T")

# The headers with the service's identifier of a request: at most services, Anthropic, AWS and Azure.
_REQUEST_IDS = ("x-request-id", "request-id", "x-amzn-requestid", "apim-request-id")
_MAX_ID_LENGTH = 200

# In these encodings, a block expands to at most a thousand times its size. Brotli, zstd and nested
# encodings have no such limit, so they are not requested.
_ENCODINGS = {"", "identity", "gzip", "deflate"}


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """
    The maximum sizes of a response, in bytes after decompression; ``None`` for no limit.

    Attributes:
        line: the maximum size of one line of a stream.
        total: the maximum size of the whole response.
        error: the number of bytes to read of an error's body; the rest is ignored.
    """

    line: int | None = 16_000_000
    total: int | None = 512_000_000
    error: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete response: its status, headers and body."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)  # may contain the key, if a service repeats it

    @property
    def ok(self) -> bool:
        """Whether the status is a success."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """Return the body as JSON, or as text if it is not JSON: proxies send HTML."""
        try:
            return read_json(self.body)
        except ValueError:
            return self.body.decode("utf-8", "replace")


def find_request_id(headers: Mapping[str, str]) -> str | None:
    """Return the service's identifier of the request in the headers of its response, if any."""
    found = next(filter(None, map(headers.get, _REQUEST_IDS)), None)
    return scrub(found)[:_MAX_ID_LENGTH] if found else None


class HTTPResponse(Protocol):
    """The attributes of ``httpx.Response`` that are used here."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def extensions(self) -> Mapping[str, Any]: ...
    @property
    def stream(self) -> Any: ...
    def aiter_bytes(self) -> AsyncIterator[bytes]: ...


class ByteStream:
    """
    A response that is still arriving.

    Attributes:
        status, headers: the response's status and headers.
    """

    def __init__(
        self,
        response: HTTPResponse,
        *,
        sent_at: float,
        limits: BodyLimits,
        deadline: float | None = None,
        timing: RequestTiming | None = None,
    ) -> None:
        """
        Read the body of ``response``.

        Args:
            response: a response of which only the headers have been read.
            sent_at: when the request was sent, by `time.perf_counter`.
            limits: the maximum sizes.
            deadline: the time by which it must end, by `time.monotonic`.
            timing: the object in which received bytes are counted.
        """
        self.status = response.status_code
        self.headers = response.headers
        self._response = response
        self._sent_at = sent_at
        self._limits = limits
        self._deadline = deadline
        self._timing = timing

    @property
    def ok(self) -> bool:
        """Whether the status is a success."""
        return 200 <= self.status < 300

    @property
    def elapsed_s(self) -> float:
        """Seconds since the request was sent."""
        return time.perf_counter() - self._sent_at

    @property
    def blocks(self) -> AsyncGenerator[tuple[float, bytes], None]:
        """
        ``(seconds since the request was sent, bytes)`` for each block as it arrives.

        Raises (during the iteration):
            ProviderError: a line or the whole response exceeds its limit.
        """
        return self._read(self._limits.line, self._limits.total)

    async def _read(
        self, line_limit: int | None, limit: int | None
    ) -> AsyncGenerator[tuple[float, bytes], None]:
        clock, sent_at, request_timing = time.perf_counter, self._sent_at, self._timing
        network: Any = self._response.extensions.get("network_stream")
        has_times = hasattr(network, "received_at")
        parts = self._parts()
        size = line = 0
        while True:
            try:
                if self._deadline is None:  # a timeout context adds 10 % to the time of a block
                    block = await anext(parts)
                else:
                    block = await await_until(self._deadline, anext(parts))
            except StopAsyncIteration:
                return
            received_at = network.received_at if has_times else clock()
            size += len(block)
            if request_timing is not None:
                request_timing.bytes_received += len(block)
            if limit is not None and size > limit:
                _raise_too_large("The answer", limit, "max_response_mb")
            if line_limit is not None:
                line, longest = _measure_lines(block, line, line_limit)
                if longest > line_limit:
                    _raise_too_large("A line of the answer", line_limit, "max_line_mb")
            yield max(0.0, received_at - sent_at), block

    def _parts(self) -> AsyncIterator[bytes]:
        """Return the decompressed parts of the body; without an encoding, those from httpcore."""
        encoding = self.headers.get("content-encoding", "").strip().lower()
        if encoding not in _ENCODINGS:
            msg = f"The response has the unexpected encoding {encoding[:40]!r}."
            raise ProviderError(msg, hint="Check the provider's base_url, and any proxy.")
        if encoding in ("", "identity"):
            return aiter(self._response.stream)
        return self._response.aiter_bytes()

    def end_within(self, seconds: float) -> None:
        """Wait at most ``seconds`` for the rest of the response."""
        deadline = time.monotonic() + seconds
        self._deadline = min(deadline, self._deadline or deadline)

    async def reply(self) -> Reply:
        """Return the rest as a `Reply`; of an error, only about ``limits.error`` bytes."""
        blocks: list[bytes] = []
        size = 0
        async for _, block in self._read(None, self._limits.total if self.ok else None):
            blocks.append(block)
            size += len(block)
            if not self.ok and size >= self._limits.error:
                break
        return Reply(self.status, self.headers, b"".join(blocks))


def _measure_lines(block: bytes, before: int, limit: int) -> tuple[int, int]:
    """Return the length of the unfinished line after ``block``, and of the longest line in it."""
    end = block.rfind(b"\n") + 1 or block.rfind(b"\r") + 1
    if not end:
        return before + len(block), before + len(block)
    if before + len(block) <= limit:  # no line in it can be too long
        return len(block) - end, 0
    first, *others = block.replace(b"\r", b"\n").split(b"\n")
    return len(block) - end, max(before + len(first), *map(len, others))


def _raise_too_large(what: str, limit: int, setting: str) -> NoReturn:
    msg = f"{what} is larger than {limit / 1e6:g} MB; the rest was not read."
    hint = f"To allow more: %llm config {setting} {max(1, limit // 500_000)}"
    raise ProviderError(msg, hint=hint, code="response_too_large", retryable=False)


class DeadlineError(Exception):
    """The response took longer than its total timeout."""


async def await_until(deadline: float, work: Awaitable[_T]) -> _T:
    """
    Return the result of ``work``.

    Raises:
        DeadlineError: it is not complete at ``deadline``, by `time.monotonic`. A TimeoutError could
            also be from a timeout that the caller has set.
    """
    try:
        async with asyncio.timeout(deadline - time.monotonic()):
            return await work
    except TimeoutError:
        raise DeadlineError from None
