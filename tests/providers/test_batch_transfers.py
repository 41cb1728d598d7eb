"""Large uploads and downloads of batch jobs: whole, with constant memory, and only to the own address."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_magics.errors import ConnectionError, ProviderError, RateLimitError
from llm_magics.providers import create_provider
from llm_magics.providers.batches import transfers
from llm_magics.providers.batches.service import BatchResult
from llm_magics.wire.batch_lines import encode_line, parse_count, parse_identifier, parse_time
from tests.support.examples import examples
from tests.support.serving import Asked, Says, as_json, serving

KEY = "a-key-of-the-test"


def download(says: Says, **settings: Any) -> list[bytes]:
    """The lines of a file that a service answers with ``says``."""

    async def use(url: str) -> list[bytes]:
        async with create_provider("openai", base_url=url, api_key=KEY, **settings) as provider:
            return [line async for line in transfers.download_lines(provider, "/file")]

    with serving(says) as server:
        return asyncio.run(use(server.url))


def in_pieces(content: bytes, size: int) -> list[bytes]:
    """The content in pieces of a size."""
    return [content[at : at + size] for at in range(0, len(content), size)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_are_whole_wherever_the_network_cuts_them(size: int) -> None:
    """Pieces end anywhere, also within a character; blank lines and CRLF do not count."""
    content = b'{"a":1}\r\n\n{"b":"\xc3\xa9"}\n   \n{"c":3}'
    expected = [b'{"a":1}', b'{"b":"\xc3\xa9"}', b'{"c":3}']
    assert download(Says(in_pieces(content, size))) == expected


def test_the_total_timeout_and_the_total_size_do_not_end_a_download() -> None:
    """A download may take longer and be larger than an answer of a model may."""
    says = Says([b"a" * 600_000 + b"\n"] * 4, gap_s=0.03)
    lines = download(says, total_s=0.05, max_response_mb=1)
    assert [len(line) for line in lines] == [600_000] * 4


def test_a_line_without_an_end_is_an_error() -> None:
    """The limit of a line still holds: a service cannot fill the memory."""
    with pytest.raises(ProviderError, match="1 MB"):
        download(Says([b"a" * 400_000] * 4), max_line_mb=1)


def test_a_compressed_file_is_read() -> None:
    """A service may compress its files."""
    content = gzip.compress(b'{"a":1}\n{"b":2}\n')
    assert download(Says([content], headers={"Content-Encoding": "gzip"})) == [
        b'{"a":1}',
        b'{"b":2}',
    ]


def test_an_error_is_mapped_as_that_of_any_request() -> None:
    """A status is an error of the provider, with its retry after."""
    says = as_json({"error": {"message": "slow down"}}, 429)
    says.headers["Retry-After"] = "7"
    with pytest.raises(RateLimitError) as caught:
        download(says)
    assert caught.value.retry_after == 7


def test_a_download_that_breaks_off_is_an_error() -> None:
    """What has arrived is not taken for the whole."""
    with pytest.raises(ConnectionError):
        download(Says([b'{"a":1}\n'], cut=True))


def test_memory_does_not_grow_with_the_file() -> None:
    """Forty megabytes pass through a few of memory."""
    line = b'{"custom_id": "x", "text": "' + b"a" * 2000 + b'"}\n'
    block = line * 250

    async def use(url: str) -> tuple[int, int]:
        count = 0
        async with create_provider("openai", base_url=url, api_key=KEY) as provider:
            tracemalloc.start()
            async for _ in transfers.download_lines(provider, "/file"):
                count += 1
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return count, peak

    with serving(Says([block] * 80)) as server:
        count, peak = asyncio.run(use(server.url))
    assert count == 20_000
    assert peak < 8_000_000


def results(says: Says) -> Iterator[Any]:
    """The results of a download, then the error that it ends with."""

    def parse(line: Any) -> BatchResult:
        return BatchResult(custom_id=line["id"], body=line["body"])

    async def use(url: str) -> list[Any]:
        found: list[Any] = []
        async with create_provider("openai", base_url=url, api_key=KEY) as provider:
            try:
                async for each in transfers.download_results(provider, "/file", parse):
                    found += [each.custom_id]
            except ProviderError as error:
                found.append(error)
        return found

    with serving(says) as server:
        yield from asyncio.run(use(server.url))


def test_damaged_lines_cost_no_other_result() -> None:
    """Lines that are not results are an error after all others, which can be tried again."""
    lines = [b'{"id":"a","body":{}}', b"{half", b"[]", b'{"id":"b","body":{}}', b"null", b"1"]
    first, second, error = results(Says([b"\n".join(lines)]))
    assert (first, second) == ("a", "b")
    assert error.retryable
    assert error.code == "invalid_results"
    assert "line 2: JSONDecodeError" in str(error)
    assert "line 6" not in str(error), "a few examples are enough"


@settings(max_examples=examples(25))
@given(
    st.lists(st.dictionaries(st.text(), st.text(), max_size=2), min_size=1, max_size=5),
    st.booleans(),
)
def test_lines_become_an_array(values: list[Any], ends: bool) -> None:
    """The body is the array of all values, of exactly the announced length."""
    content = b"\n".join(map(encode_line, values)) + (b"\n" if ends else b"")
    path = Path("lines.jsonl")
    path.write_bytes(content)
    body = transfers.array_body(b'{"requests":[', path, b"]}")
    sent = b"".join(body.blocks())
    assert json.loads(sent) == {"requests": values}
    assert len(sent) == body.length
    assert b"".join(body.blocks()) == sent, "it can be sent again"


def test_a_large_file_is_sent_in_blocks(tmp_path: Path) -> None:
    """A file is read while it is sent, whole and unchanged."""
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 10_000)
    body = transfers.file_body(path, "application/jsonl")

    async def use(url: str) -> None:
        async with create_provider("openai", base_url=url, api_key=KEY) as provider:
            await transfers.without_deadline(provider)._object("POST", "/files", body)

    with serving(as_json({"id": "file-1"})) as server:
        asyncio.run(use(server.url))
    (asked,) = server.asked
    assert asked.body == path.read_bytes()
    assert asked.headers["content-length"] == "2560000"
    assert asked.headers["content-type"] == "application/jsonl"
    assert max(map(len, body.blocks())) < 2_000_000


def test_a_long_upload_is_not_ended_by_the_total_timeout() -> None:
    """Only the copy is patient; the provider keeps its timeouts, and both share connections."""

    def answer(_: Asked) -> Says:
        return Says([b"{}"], 200, "application/json", delay_s=0.1)

    async def use(url: str) -> None:
        async with create_provider("openai", base_url=url, api_key=KEY, total_s=0.05) as provider:
            patient = transfers.without_deadline(provider)
            await patient._object("POST", "/files", {})
            assert patient._transport._clients is provider._transport._clients
            with pytest.raises(ConnectionError, match="total timeout"):
                await provider._object("POST", "/files", {})

    with serving(answer) as server:
        asyncio.run(use(server.url))


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/v1/results",
        "http://api.example.com/v1/results",
        "https://api.example.com:8443/v1/results",
        "https://api.example.com@evil.example/v1",
        "https://user:key@api.example.com/v1/results",
        "https://api.example.com.evil.example/v1/results",
        "https://evil.example\\@api.example.com/v1",
        "https://api.example.com\n.evil.example/",
        "//api.example.com/v1/results",
        "/v1/results",
        "file:///etc/passwd",
        "https://[api.example.com/",
        "https://api.example.com:port/",
        "",
    ],
)
def test_addresses_elsewhere_are_not_asked(url: str) -> None:
    """The key is only sent to scheme, host and port of the provider's address."""
    provider = create_provider("openai", base_url="https://api.example.com/v1", api_key=KEY)
    with pytest.raises(ProviderError, match="another address") as caught:
        transfers.own_address(provider, url)
    assert caught.value.code == "foreign_address"


@pytest.mark.parametrize(
    "url", ["https://api.example.com/v1/results?a=b", "https://API.example.com:443/elsewhere"]
)
def test_the_own_address_is_asked(url: str) -> None:
    """Case and the usual port do not matter."""
    provider = create_provider("openai", base_url="https://api.example.com/v1", api_key=KEY)
    assert transfers.own_address(provider, url) == url


@pytest.mark.parametrize("value", [None, "", "soon", True, [], float("nan"), 1e300, "2026-99-01"])
def test_an_invalid_time_is_none(value: Any) -> None:
    """A service may write anything."""
    assert parse_time(value) is None


def test_a_time_without_a_zone_is_utc() -> None:
    """Times can be compared with each other."""
    assert parse_time("2026-08-20T20:08:31") == parse_time("2026-08-20T20:08:31Z")


@pytest.mark.parametrize(
    ("value", "count"),
    [
        *[(3, 3), ("9", 9), (-1, 0), (True, 0), ("٣", 0), ("9" * 5000, 0), (None, 0), (1.5, 0)],
        (10**30, 0),
    ],
)
def test_counts_are_read_from_numbers_and_text(value: Any, count: int) -> None:
    """Google writes counts as text."""
    assert parse_count(value) == count


@pytest.mark.parametrize("value", [None, "", 5, ".", "..", "a b", "a\x1b[31m", "é", "a" * 501])
def test_an_identifier_that_leads_elsewhere_is_invalid(value: Any) -> None:
    """It is a part of addresses, and is displayed."""
    with pytest.raises(TypeError, match="identifier"):
        parse_identifier(value)


def test_an_identifier_is_unchanged() -> None:
    """It may contain any visible characters of ASCII."""
    assert parse_identifier("batch_1/a:b~") == "batch_1/a:b~"
