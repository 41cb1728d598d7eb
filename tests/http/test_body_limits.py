"""Answers without end, lines without end, and what inflates: read so far, and ended by an error."""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import sys
import zlib
from collections.abc import AsyncGenerator, Callable
from functools import cache
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llm_magics as lm
from llm_magics import ChatMessage, ModelParameters, errors
from llm_magics._util.json_text import read_json
from llm_magics.http import BodyLimits, Transport, client
from llm_magics.http.responses import _measure_lines
from llm_magics.providers import create_provider
from llm_magics.providers.base import BaseModelProvider
from llm_magics.runtime.session import session
from llm_magics.wire.decoders import LineSplitter, NewlineSplitter
from tests.support.serving import Asked, Says, as_json, chat_event, chat_stream, serving

HI = [ChatMessage("user", "hi")]
MB = 1_000_000


class Body(httpx.AsyncByteStream):
    """A body of ``head``, then ``piece`` for ever; it counts what was taken."""

    def __init__(self, head: bytes, piece: bytes) -> None:
        self.head, self.piece, self.sent = head, piece, 0

    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        yield self.head
        while True:
            self.sent += len(self.piece)
            yield self.piece


def endless(
    monkeypatch: pytest.MonkeyPatch,
    head: bytes,
    piece: bytes,
    status: int = 200,
    **headers: str,
) -> Body:
    """Have every request answered without end."""
    body = Body(head, piece)
    names = {name.replace("_", "-"): value for name, value in headers.items()}

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, headers=names, stream=body)

    monkeypatch.setattr(client, "_create_transport", lambda url: httpx.MockTransport(answer))
    return body


def asked(use: Callable[[Any], Any], provider: str = "openai", **settings: Any) -> Any:
    """What a provider gives back."""

    async def ask() -> Any:
        made = create_provider(provider, base_url="http://127.0.0.1:9", api_key="k", **settings)
        try:
            return await use(made)
        finally:
            await made.close()

    return asyncio.run(ask())


def chat(provider: BaseModelProvider) -> Any:
    """A whole chat answer."""
    return provider.generate_chat(HI, "m", ModelParameters())


SSE, NDJSON, JSON = "text/event-stream", "application/x-ndjson", "application/json"


@pytest.mark.parametrize(
    ("provider", "head", "piece", "content_type"),
    [
        ("openai", b'data: {"choices": [{"delta": {"content": "', b"x" * 65536, SSE),
        ("openai", b": a comment ", b"x" * 65536, SSE),
        ("anthropic", b'event: x\ndata: {"type": "', b"x" * 65536, SSE),
        ("gemini", b'data: {"candidates": [{"content": {"parts": [{"text": "', b"x" * 65536, SSE),
        ("ollama", b'{"message": {"content": "', b"x" * 65536, NDJSON),
        ("lmstudio", b"data: ", b"\0" * 65536, SSE),
        ("huggingface", b"", b"x" * 300, SSE),
    ],
)
def test_a_line_without_end_is_not_read_for_ever(
    provider: str, head: bytes, piece: bytes, content_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 MB of it, and no more."""
    body = endless(monkeypatch, head, piece, content_type=content_type)
    with pytest.raises(errors.ProviderError, match="16 MB") as caught:
        asked(chat, provider)
    assert body.sent < 17 * MB
    assert "max_line_mb" in str(caught.value.hint)
    assert not caught.value.retryable


def test_what_came_before_a_line_without_end_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for every answer that breaks off."""
    endless(monkeypatch, chat_event("before"), b"x" * 65536, content_type=SSE)
    with pytest.raises(errors.StreamInterrupted) as caught:
        asked(chat, max_line_mb=1)
    assert caught.value.partial.text == "before"


def test_a_stream_without_end_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """However short its lines are: comments, empty events, words."""
    for piece in (b": ping\n\n" * 1000, b"data: {}\n\n" * 1000, chat_event("x") * 1000):
        body = endless(monkeypatch, b"", piece, content_type=SSE)
        with pytest.raises(errors.ProviderError, match=r"0\.4 MB"):
            asked(chat, max_response_mb=0.4)
        assert body.sent < MB


ASKED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "chat": ("openai", chat),
    "messages": ("anthropic", chat),
    "gemini's chat": ("gemini", chat),
    "gemini's models": ("gemini", lambda made: made.list_models()),
    "gemini's vectors": ("gemini", lambda made: made.generate_packed(["a"], "m")),
    "ollama's chat": ("ollama", chat),
    "models": ("openai", lambda made: made.list_models()),
    "ollama's models": ("ollama", lambda made: made.list_models()),
    "vectors": ("openai", lambda made: made.generate_embeddings(["a"], "m")),
    "packed vectors": ("openai", lambda made: made.generate_packed(["a"], "m")),
    "pooled vectors": ("huggingface", lambda made: made.generate_embeddings(["a"], "m")),
    "a picture": ("openai", lambda made: made.generate_image("a", "m")),
    "a transcript": ("openai", lambda made: made.transcribe(b"RIFF\0\0\0\0WAVE", "m")),
    "loaded models": ("lmstudio", lambda made: made.describe_models()),
    "a model's page": ("ollama", lambda made: made.show_model("m")),
}


@pytest.mark.parametrize("what", ASKED)
def test_a_whole_answer_without_end_is_not_read_for_ever(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of every kind."""
    provider, use = ASKED[what]
    body = endless(monkeypatch, b'{"data": "', b"x" * 65536, content_type=JSON)
    with pytest.raises(errors.ProviderError, match="3 MB"):
        asked(use, provider, max_response_mb=3)
    assert body.sent < 4 * MB


def test_a_picture_fetched_by_address_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever keeps it."""
    body = Body(b"\x89PNG", b"x" * 65536)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "pictures.test":
            return httpx.Response(200, stream=body)
        return httpx.Response(
            200, json={"data": [{"url": "https://pictures.test/a.png?sig=a%2Fb"}]}
        )

    monkeypatch.setattr(client, "_create_transport", lambda url: httpx.MockTransport(answer))
    with pytest.raises(errors.ProviderError, match="3 MB"):
        asked(ASKED["a picture"][1], max_response_mb=3)
    assert body.sent < 4 * MB


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
def test_an_errors_text_without_end_is_cut(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status says what it is; a megabyte of the text is enough."""
    for use in (chat, ASKED["models"][1]):
        body = endless(monkeypatch, b"Sorry! ", b"x" * 65536, status, content_type="text/plain")
        with pytest.raises(errors.ProviderError) as caught:
            asked(use)
        assert caught.value.status == status
        assert body.sent < 3 * MB
        assert len(str(caught.value)) < 10_000


def test_a_large_answer_is_an_answer() -> None:
    """Embeddings of a large batch stand on one line, which is longer than a line of a stream."""
    vector = [0.123456789] * 3000
    says = as_json({"data": [{"index": n, "embedding": vector} for n in range(60)]})
    assert len(says.pieces[0]) > 2 * MB
    with serving(says) as server:

        async def embed() -> list[list[float]]:
            made = create_provider("openai", base_url=server.url, api_key="k", max_line_mb=1)
            found = await made.generate_embeddings(["a"] * 60, "m")
            await made.close()
            return found

        assert len(asyncio.run(embed())) == 60


@cache
def gigabyte() -> bytes:
    """
    A gigabyte of zeros, as gzip sends it, without the checksum at its end.

    After a full flush nothing refers to what came before, so that one megabyte can be repeated.
    """
    made = zlib.compressobj(9, zlib.DEFLATED, 31)
    head = made.compress(b"") + made.flush(zlib.Z_FULL_FLUSH)
    piece = made.compress(bytes(MB)) + made.flush(zlib.Z_FULL_FLUSH)
    return head + piece * 1000


@pytest.mark.skipif(sys.platform == "win32", reason="there is no measure of memory here")
@pytest.mark.parametrize("content_type", [JSON, SSE, "text/html"])
def test_what_inflates_is_bounded(content_type: str) -> None:
    """A gigabyte that comes as one: neither read nor held."""
    assert len(gigabyte()) < 2 * MB
    says = Says([gigabyte()], content_type=content_type, headers={"Content-Encoding": "gzip"})
    with serving(says) as server:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        async def use() -> None:
            made = create_provider("openai", base_url=server.url, api_key="k", max_response_mb=10)
            try:
                await chat(made)
            finally:
                await made.close()

        with pytest.raises(errors.ProviderError, match="larger than"):
            asyncio.run(use())
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 500_000  # kB


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "GZIP", "identity"])
def test_usual_encodings_are_read(encoding: str) -> None:
    """In lower case and upper case; streams too."""
    body = b"".join(chat_stream("hi"))
    packed = {"deflate": zlib.compress, "identity": bytes}.get(encoding, gzip.compress)(body)
    with serving(Says([packed], headers={"Content-Encoding": encoding})) as server:

        async def use() -> Any:
            made = create_provider("openai", base_url=server.url, api_key="k")
            try:
                return await chat(made)
            finally:
                await made.close()

        assert asyncio.run(use()).text == "hi"
    assert server.asked[0].headers["accept-encoding"] == "gzip, deflate"


@pytest.mark.parametrize(
    "encoding", ["br", "zstd", "x-gzip", "gzip, gzip", "gzip,deflate", "x" * 900]
)
def test_encodings_that_nobody_asked_for_are_refused(encoding: str) -> None:
    """These may inflate without limit."""
    with serving(Says([b"x"], headers={"Content-Encoding": encoding})) as server:

        async def use() -> None:
            transport = Transport(server.url)
            try:
                await transport.send("GET", "/")
            finally:
                await transport.close()

        with pytest.raises(errors.ProviderError, match="encoding"):
            asyncio.run(use())


def test_what_is_not_gzip_is_an_error() -> None:
    """And one that is cut."""
    for body in (b"not gzip", gzip.compress(b'{"data": []}')[:5] + b"xxx"):
        says = Says([body], content_type=JSON, headers={"Content-Encoding": "gzip"})
        with serving(says) as server:

            async def use(url: str = server.url) -> Any:
                made = create_provider("openai", base_url=url, api_key="k")
                try:
                    return await made.list_models()
                finally:
                    await made.close()

            with pytest.raises(errors.ProviderError):
                asyncio.run(use())


def test_the_settings_say_how_long() -> None:
    """For all providers, and for one."""

    def limits(name: str) -> BodyLimits:
        provider: Any = session.providers.get(name)
        found: BodyLimits = provider._transport.limits
        return found

    assert limits("ollama") == BodyLimits(16 * MB, 512 * MB)
    lm.config.max_line_mb, lm.config.max_response_mb = 2, 3.5
    lm.config.providers = {"lmstudio": {"max_line_mb": 1}}
    assert limits("ollama") == BodyLimits(2 * MB, 3_500_000)
    assert limits("lmstudio") == BodyLimits(1 * MB, 3_500_000)
    with pytest.raises(errors.ConfigurationError):
        lm.config.max_line_mb = 0


def test_a_line_within_the_limit_is_a_line() -> None:
    """Pictures come in one event."""

    def answer(asked: Asked) -> Says:
        return Says([chat_event("x" * 3 * MB), *chat_stream("end")])

    with serving(answer) as server:
        lab = {"type": "openai", "base_url": server.url, "api_key": "k"}
        lm.config.providers = {"lab": lab}
        assert len(lm.ask("hi", model="lab/m").text) == 3 * MB + 3
        lm.config.max_line_mb = 2
        with pytest.raises(errors.ProviderError, match="2 MB"):
            lm.ask("hello", model="lab/m")


@given(st.lists(st.binary(max_size=30)), st.integers(0, 40))
def test_no_line_is_longer_than_the_limit(blocks: list[bytes], limit: int) -> None:
    r"""The count of bytes between ``\n`` (or ``\r``) is that of the lines themselves."""
    line = longest = 0
    for block in blocks:
        line, seen = _measure_lines(block, line, limit)
        longest = max(longest, seen)
    *ended, rest = b"".join(blocks).replace(b"\r", b"\n").split(b"\n")
    assert (longest > limit or line > limit) == any(len(each) > limit for each in [*ended, rest])


@pytest.mark.parametrize("splitter", [LineSplitter, NewlineSplitter])
def test_a_long_line_takes_linear_time(splitter: type[LineSplitter | NewlineSplitter]) -> None:
    """16 MB in 160,000 pieces: to join them each time would copy more than a terabyte."""
    lines = splitter()
    for _ in range(160_000):
        assert lines.feed(b"x" * 100) == []
    (line,) = lines.feed(b"\n")
    assert len(line) == 16 * MB
    assert lines.flush() == []


DEEP = [b"[" * 100_000, b'{"a":' * 100_000, b"[" * 500 + b"]" * 500, b"\xef\xbb\xbf" + b"[" * 500 + b"]" * 500]  # fmt: skip


@pytest.mark.parametrize("body", DEEP)
def test_json_that_is_nested_too_deeply_is_not_json(body: bytes) -> None:
    """Neither in a whole answer nor in a stream."""
    with pytest.raises(ValueError, match=r"recursion|deep|expected"):
        read_json(body)


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False) | st.text(st.characters()), lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner), max_leaves=20))  # fmt: skip
def test_json_is_read_as_it_was_written(value: Any) -> None:
    """With halves of characters replaced, or kept for the next piece of a stream."""
    text = json.dumps(value).encode()
    assert read_json(text, replace_surrogates=False) == json.loads(text)
    json.dumps(read_json(text), ensure_ascii=False).encode()
