"""Large uploads and downloads: without a limit of time or size, and with constant memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from llm_magics._util.json_text import read_json
from llm_magics.errors import ConnectionError, ProviderError
from llm_magics.http.bodies import StreamBody
from llm_magics.providers.batches.service import BatchResult
from llm_magics.providers.remote import RemoteProvider
from llm_magics.wire.decoders import DECODING_ERRORS

P = TypeVar("P", bound=RemoteProvider)

# The code of the error for results that cannot be read.
INVALID_RESULTS = "invalid_results"

_BLOCK = 1 << 20

_PORTS = {"http": 80, "https": 443}


def without_deadline(provider: P) -> P:
    """
    Return a copy of ``provider`` whose requests may take longer than its total timeout.

    The copy shares the connections; the timeout for the next byte still applies.
    """
    transport = copy(provider._transport)
    transport.timeouts = replace(transport.timeouts, total=None)
    patient = copy(provider)
    patient._transport = transport
    return patient


def file_body(path: Path, content_type: str) -> StreamBody:
    """Return a file as the body of a request, read while it is sent."""
    return StreamBody(
        blocks=lambda: _blocks(path), length=path.stat().st_size, content_type=content_type
    )


def array_body(before: bytes, lines: Path, after: bytes) -> StreamBody:
    """Return the lines of a file as the values of a JSON array, between ``before`` and ``after``."""
    size = lines.stat().st_size
    with lines.open("rb") as file:
        file.seek(max(0, size - 1))
        if file.read(1) == b"\n":
            size -= 1

    def blocks() -> Iterator[bytes]:
        yield before
        for block in _blocks(lines, size):
            yield block.replace(b"\n", b",")  # JSON in one line contains no newline
        yield after

    return StreamBody(blocks=blocks, length=len(before) + size + len(after))


def _blocks(path: Path, size: int | None = None) -> Iterator[bytes]:
    """Yield the first ``size`` bytes of a file, by default all."""
    with path.open("rb") as file:
        rest = path.stat().st_size if size is None else size
        while rest and (block := file.read(min(_BLOCK, rest))):
            rest -= len(block)
            yield block


def own_address(provider: RemoteProvider, url: str) -> str:
    """
    Return ``url``, which a service has named, if it is at the address of ``provider``.

    Raises:
        ProviderError: it is elsewhere. The key is only sent to the provider's own address.
    """
    if _origin(url) == _origin(provider._transport.base_url) is not None:
        return url
    msg = f"{provider.name} named results at another address than its own: {url[:100]!r}."
    hint = "They were not requested, because the request would contain the key."
    raise ProviderError(msg, hint=hint, provider=provider.name, code="foreign_address")


def _origin(url: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port of a URL; ``None`` if it has none or contains credentials."""
    try:
        parts = urlsplit(url)
        port = parts.port or _PORTS[parts.scheme]
    except (ValueError, KeyError):
        return None
    if not parts.hostname or "@" in parts.netloc or any(each in url for each in "\\\r\n\t "):
        return None
    return parts.scheme, parts.hostname, port


async def download_lines(provider: RemoteProvider, path: str) -> AsyncGenerator[bytes, None]:
    """
    Yield the lines of a file of any size as they arrive, without blank ones.

    Raises:
        ProviderError: the service refuses it, or a line is longer than the provider's limit.
        ConnectionError: the connection broke.
    """
    provider._need_key()
    transport = without_deadline(provider)._transport
    limits = replace(transport.limits, total=None)
    try:
        async with transport.stream("GET", path, limits=limits) as stream:
            if not stream.ok:
                reply = await stream.reply()
                raise provider._error(reply.json(), reply.status, reply.headers, "")
            unfinished: list[bytes] = []
            async with aclosing(stream.blocks) as blocks:
                async for _, block in blocks:
                    first, *others = block.split(b"\n")
                    unfinished.append(first)
                    for following in others:
                        if line := b"".join(unfinished).strip():
                            yield line
                        unfinished = [following]
            if line := b"".join(unfinished).strip():
                yield line
    except ConnectionError as error:
        raise provider._unreachable(error) from None


async def download_results(
    provider: RemoteProvider, path: str, parse: Callable[[Any], BatchResult]
) -> AsyncGenerator[BatchResult, None]:
    """
    Yield the results in the lines of a file; ``parse`` reads the JSON value of a line.

    Raises:
        ProviderError: as `download_lines`, or, after all others, for lines that are not results.
    """
    damaged: list[str] = []
    count = 0
    async with aclosing(download_lines(provider, path)) as lines:
        async for line in lines:
            count += 1
            try:
                result = parse(read_json(line))
            except DECODING_ERRORS as error:
                damaged.append(f"line {count}: {type(error).__name__}: {error}")
                del damaged[3:]
                continue
            yield result
    if damaged:
        msg = f"{provider.name} sent lines that are not results: {'; '.join(damaged)}."
        raise ProviderError(msg, provider=provider.name, code=INVALID_RESULTS, retryable=True)
