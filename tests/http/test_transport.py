"""The way to a service, and all that can happen on it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpcore
import pytest

import llm_magics as lm
from llm_magics import ChatMessage, ModelParameters, ModelResponse, errors
from llm_magics.http import Form, KeyHeader, Timeouts, Transport
from llm_magics.http.connections import TimestampBackend
from llm_magics.providers import create_provider, streaming
from llm_magics.providers.openai import OpenAIConfig, OpenAIProvider
from llm_magics.secrets import Secret
from tests.support.serving import Asked, Says, as_json, chat_event, chat_stream, free_port, serving

HI = [ChatMessage("user", "hi")]


def chatted(url: str, prompt: str = "hi", **settings: object) -> ModelResponse:
    """A whole answer of the server at ``url``."""

    async def use() -> ModelResponse:
        config = OpenAIConfig(**{"base_url": url, "api_key": "a-key-of-the-test", **settings})  # type: ignore[arg-type]
        async with OpenAIProvider(config) as provider:
            answer = await provider.generate_chat(
                [ChatMessage("user", prompt)], "m", ModelParameters()
            )
            assert isinstance(answer, ModelResponse)
            await provider.close()
            return answer

    return asyncio.run(use())


def test_a_dead_host_is_given_up_soon() -> None:
    """An address that swallows everything: an answer within the two seconds, not a minute."""
    started = time.monotonic()
    with pytest.raises(errors.ConnectionError, match="Could not connect to") as caught:
        chatted("http://192.0.2.1/v1")  # reserved for documentation: nobody is there
    assert time.monotonic() - started < 10  # far from the minute that a socket would wait
    assert Timeouts().connect is None
    assert caught.value.retryable
    assert caught.value.provider == "openai"


def test_a_busy_loop_does_not_end_a_connection() -> None:
    """The time in which our own event loop was busy is not a delay of the server."""

    async def block() -> None:
        for _ in range(5):
            await asyncio.sleep(0)
            time.sleep(0.15)  # noqa: ASYNC251 - it blocks on purpose

    async def use(url: str) -> object:
        transport = Transport(url, timeouts=Timeouts(connect=0.1))
        reply, _ = await asyncio.gather(transport.send("GET", "/models"), block())
        await transport.close()
        return reply

    with serving(as_json({})) as server:
        assert asyncio.run(use(server.url)) is not None


def test_a_closed_port_is_said_at_once() -> None:
    """The hint says what to do."""
    with pytest.raises(errors.ConnectionError, match="Could not connect to") as caught:
        chatted(f"http://127.0.0.1:{free_port()}")
    assert caught.value.hint


def test_a_name_that_is_nobody() -> None:
    """A mistyped host is a ConnectionError too."""
    with pytest.raises(errors.ConnectionError, match="no-such-host"):
        chatted("http://no-such-host.invalid/v1")


@pytest.mark.parametrize("provider", ["ollama", "openai"])
def test_what_is_no_unicode_is_sent_replaced(provider: str) -> None:
    """Half of a character, in a text to continue and in one to embed, as in a message."""

    async def use(url: str) -> None:
        async with create_provider(provider, base_url=url, api_key="k") as each:
            for sending in (
                each.generate_completion("a\ud800é", "m"),
                each.generate_packed(["a\ud800é"], "m"),
                each.generate_embeddings(["a\ud83d\ude00"], "m"),
            ):
                with contextlib.suppress(errors.ProviderError):  # this server has no answer
                    await sending

    with serving(as_json({})) as server:
        asyncio.run(use(server.url))
        sent = [asked for asked in server.asked if asked.body and "show" not in asked.path]
    texts = [body.get("input") or [body["prompt"]] for body in (each.json() for each in sent)]
    assert texts == [["a\ufffdé"], ["a\ufffdé"], ["a\U0001f600"]]
    assert {each.headers["content-type"] for each in sent} == {"application/json"}


@contextmanager
def tls_server(folder: Path) -> Iterator[int]:
    """A server whose certificate nobody has signed but itself."""
    pem = folder / "self.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-keyout", pem, "-out", pem.with_suffix(".crt")],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem.with_suffix(".crt"), pem)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def accept() -> None:
            try:
                connection, _ = listening.accept()
                with connection, context.wrap_socket(connection, server_side=True):
                    pass
            except OSError:  # the client leaves, as it should
                pass

        thread = threading.Thread(target=accept)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def test_a_certificate_that_cannot_be_trusted(tmp_path: Path) -> None:
    """Said to be that, and not that nobody is there."""
    with tls_server(tmp_path) as port, pytest.raises(errors.ConnectionError) as caught:
        chatted(f"https://localhost:{port}/v1")
    assert "Could not make a secure connection" in str(caught.value)
    assert "CERTIFICATE_VERIFY_FAILED" in str(caught.value)
    assert "SSL_CERT_FILE" in str(caught.value.hint)


@pytest.mark.parametrize("status", [200, 404, 502])
def test_a_web_page_in_place_of_an_answer(status: int) -> None:
    """A proxy's page is told in words, without its markup, and never taken for an answer."""
    page = b"<html><head><title>Sign in</title></head><body><h1>Corporate proxy</h1></body></html>"
    with (
        serving(Says([page], status, "text/html; charset=utf-8")) as server,
        pytest.raises(errors.ProviderError, match="Corporate proxy") as caught,
    ):
        chatted(server.url)
    assert "<h1>" not in str(caught.value)
    if status != 502:
        assert "base_url" in str(caught.value.hint)


def test_a_redirect_loop_ends() -> None:
    """Redirects are not followed: the key must not go where a server points."""

    def answers(asked: Asked) -> Says:
        return Says([], 302, headers={"Location": "/again"})

    with serving(answers) as server:
        with pytest.raises(errors.ConfigurationError, match="/again"):
            chatted(server.url)
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    "says",
    [
        Says([]),
        Says([b"\n\n"]),
        Says([], content_type="application/json"),
        Says([b"null"], content_type="application/json"),
        Says([b"[]"], content_type="application/json"),
    ],
    ids=["empty stream", "blank lines", "empty body", "null", "a list"],
)
def test_an_empty_body_is_no_answer(says: Says) -> None:
    """Nothing, with status 200, is an error."""
    with serving(says) as server, pytest.raises(errors.ProviderError):
        chatted(server.url)


def test_half_a_character_at_the_end() -> None:
    """The text that came is kept; the half that did not come does no harm."""
    stream = chat_event("Gr") + b'data: {"choices": [{"index": 0, "delta": {"content": "\xc3'
    with serving(Says([stream])) as server, pytest.raises(errors.StreamInterrupted) as caught:
        chatted(server.url)
    assert caught.value.partial.text == "Gr"


def test_an_event_of_ten_megabytes() -> None:
    """Pictures come in one event: there is no bound that would cut it."""
    big = "x" * 10_000_000
    event = chat_event(big)
    pieces = [event[n : n + 65536] for n in range(0, len(event), 65536)]
    with serving(Says([*pieces, *chat_stream("end")])) as server:
        assert chatted(server.url).text == f"{big}end"


def test_a_comment_keeps_the_connection_alive() -> None:
    """``: PROCESSING`` means that the service is busy, not silent."""
    waiting = [b": OPENROUTER PROCESSING\n\n"] * 10
    with serving(Says([*waiting, *chat_stream("hi")], gap_s=0.03)) as server:
        assert chatted(server.url, idle_s=0.25).text == "hi"


def test_silence_is_given_up() -> None:
    """After ``idle_s`` without a byte; what had come is kept."""
    with (
        serving(Says([chat_event("a")], hang=True)) as server,
        pytest.raises(errors.StreamInterrupted, match="idle timeout") as caught,
    ):
        chatted(server.url, idle_s=0.1)
    assert caught.value.partial.text == "a"


@contextmanager
def slow_reader(pause_s: float) -> Iterator[int]:
    """A server that reads 64 KB, and pauses; it gives its port."""

    def read() -> None:
        connection, _ = listener.accept()
        with connection:
            while not ended.wait(pause_s) and connection.recv(65_536):
                pass

    ended = threading.Event()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        reader = threading.Thread(target=read)
        reader.start()
        yield listener.getsockname()[1]
        ended.set()
        reader.join()


@pytest.mark.parametrize(("pause_s", "is_sent"), [(0.04, True), (60, False)])
def test_a_timeout_is_for_each_part_of_a_large_body(pause_s: float, is_sent: bool) -> None:
    """A slow server may take longer for all of it; one that accepts nothing ends the call."""
    small = [(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)]

    async def send(port: int) -> float:
        stream = await TimestampBackend().connect_tcp("127.0.0.1", port, socket_options=small)
        started = time.monotonic()
        try:
            await stream.write(bytes(4_000_000), timeout=1)
        finally:
            await stream.aclose()
        return time.monotonic() - started

    with slow_reader(pause_s) as port:
        if is_sent:
            assert asyncio.run(send(port)) > 1
        else:
            with pytest.raises(httpcore.WriteTimeout):
                asyncio.run(send(port))


def test_a_server_that_accepts_nothing_is_named() -> None:
    """The message says that the request was not read, not that no answer came."""
    with slow_reader(60) as port, pytest.raises(errors.ConnectionError, match="accepted no data"):
        chatted(f"http://127.0.0.1:{port}", idle_s=0.2, prompt="x" * 16_000_000)


@pytest.mark.parametrize("value", [{1, 2}, float("nan"), 1j])
def test_a_value_that_json_cannot_express_is_refused(value: object) -> None:
    """Before anything is sent, and the call is not repeated."""
    with serving(as_json({})) as server:
        lab = {"type": "openai", "base_url": server.url, "api_key": "k"}
        lm.config.providers = {"lab": lab}
        with pytest.raises(errors.ConfigurationError, match="JSON cannot express"):
            lm.ask("hi", model="lab/m", extra_body={"x": value})
    assert not server.asked


def test_the_whole_answer_has_a_bound_too() -> None:
    """A service that drips for ever is left after ``total_s``, and sees it."""
    drip = [chat_event("a")] * 200
    with serving(Says(drip, gap_s=0.02)) as server:
        with pytest.raises(errors.StreamInterrupted, match=r"\d s") as caught:
            chatted(server.url, total_s=0.2)
        assert server.hung_up.wait(30)
    assert caught.value.partial.text.startswith("a")
    with (
        serving(Says([], hang=True, delay_s=5)) as server,
        pytest.raises(errors.ConnectionError, match=r"\d s"),
    ):
        chatted(server.url, total_s=0.1)


def test_a_connection_left_open_after_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is whole: whoever never closes is not waited for."""
    assert streaming._END_TIMEOUT_S < 5
    monkeypatch.setattr(streaming, "_END_TIMEOUT_S", 0.05)
    started = time.monotonic()
    with serving(Says(chat_stream("hi"), hang=True)) as server:
        assert chatted(server.url).text == "hi"
    assert time.monotonic() - started < 20


CALL = {"index": 0, "id": "1", "function": {"name": "look", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("delta", "expected"),
    [
        ({"tool_calls": [CALL]}, {"tool_calls": 1}),
        ({"refusal": "No."}, {"text": "No.", "finish_reason": "refusal"}),
        (
            {
                "content": "a",
                "annotations": [{"type": "url_citation", "url": "https://a.example"}],
            },
            {"text": "a", "citations": 1},
        ),
        (
            {"content": "a", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
            {"text": "a", "reasoning": "hm", "reasoning_blocks": 1},
        ),
    ],
    ids=["calls", "refusal", "citations", "reasoning"],
)
@pytest.mark.parametrize("rest", [b"", b'data: {"usage": {"prompt_'], ids=["whole", "partial"])
@pytest.mark.parametrize("end", [{}, {"hang": True}, {"cut": True}], ids=["end", "open", "broken"])
def test_the_last_parts_are_kept_whatever_ends_the_connection(
    monkeypatch: pytest.MonkeyPatch,
    delta: dict[str, Any],
    expected: dict[str, Any],
    rest: bytes,
    end: dict[str, bool],
) -> None:
    """What only the end of an answer completes is the same if the connection stays open or breaks."""
    monkeypatch.setattr(streaming, "_END_TIMEOUT_S", 0.05)
    choices = [{"index": 0, "delta": delta}]
    pieces = [chat_event(choices=choices), b"data: [DONE]\n\n" + rest]
    with serving(Says(pieces, **end)) as server:  # type: ignore[arg-type]
        answer = chatted(server.url)
    for name, value in expected.items():
        found = getattr(answer, name)
        assert (len(found) if isinstance(found, tuple) else found) == value


def test_what_somebody_may_have_read_is_not_sent_twice() -> None:
    """A new connection that dies without an answer: the work may be done, and paid for."""
    with serving(Says([], drop=True)) as server:
        with pytest.raises(errors.ConnectionError):
            chatted(server.url)
        assert len(server.asked) == 1


def test_headers_of_ones_own() -> None:
    """From the settings with each request, from the parameters with this one."""

    async def use(url: str) -> None:
        config = OpenAIConfig(base_url=url, api_key=Secret("k"), extra_headers={"X-Team": "a"})
        provider = OpenAIProvider(config)
        once = ModelParameters(extra_headers={"X-Once": "b"})
        await provider.generate_chat(HI, "m", once)
        await provider.generate_chat(HI, "m", ModelParameters())
        await provider.close()

    with serving(Says(chat_stream("hi"))) as server:
        asyncio.run(use(server.url))
    assert [asked.headers.get("x-team") for asked in server.asked] == ["a", "a"]
    assert [asked.headers.get("x-once") for asked in server.asked] == ["b", None]


def test_the_key_goes_where_the_service_wants_it() -> None:
    """Into one header, in its own form, and into nothing that is shown."""

    async def use(url: str) -> None:
        transport = Transport(
            url, key=Secret("a-key-of-the-test"), key_header=KeyHeader("api-key", "")
        )
        form = Form({"model": "m"}, {"file": ("a.wav", b"RIFF", "audio/wav")})
        await transport.send("POST", "/x", form)
        assert "a-key-of-the-test" not in repr(transport)
        await transport.close()

    with serving(as_json({})) as server:
        asyncio.run(use(server.url))
    (asked,) = server.asked
    assert asked.headers["api-key"] == "a-key-of-the-test"
    assert "authorization" not in asked.headers
    assert asked.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert b'filename="a.wav"' in asked.body


def test_an_answer_in_one_piece_is_stamped_from_the_sending() -> None:
    """Its first token is not there before the server has sent it."""

    async def use(url: str) -> float | None:
        provider = OpenAIProvider(OpenAIConfig(base_url=url, api_key="a-key-of-the-test"))  # type: ignore[arg-type]
        answer = await provider.generate_chat(HI, "m", ModelParameters(stream=True))
        assert isinstance(answer, AsyncGenerator)
        stamps = [chunk.elapsed_s async for chunk in answer]
        return stamps[0]

    body = {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}
    says = as_json(body)
    with serving(Says(says.pieces, content_type="Application/JSON", delay_s=0.1)) as server:
        elapsed_s = asyncio.run(use(server.url))
    assert elapsed_s is not None
    assert elapsed_s >= 0.09


@pytest.mark.parametrize(
    "body", [{"detail": "Not Found"}, {"message": "quota exceeded"}, {"data": []}, {"choices": 5}]
)
@pytest.mark.parametrize("provider", ["anthropic", "gemini", "lmstudio", "openai"])
def test_json_that_holds_no_answer_is_no_answer(provider: str, body: dict[str, object]) -> None:
    """Status 200 or not."""
    with serving(as_json(body)) as server:
        made = create_provider(provider, base_url=server.url, api_key="a-key-of-the-test")
        with pytest.raises(errors.ProviderError):
            asyncio.run(made.generate_chat(HI, "m", ModelParameters()))


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8000/v1", "http://x:99999", "http://[::1", "http://x\n/", "ftp://x", ""]
)
def test_what_is_no_address_is_refused_when_it_is_set(address: str) -> None:
    """With how one begins."""
    with pytest.raises(errors.ConfigurationError) as caught:
        create_provider("lmstudio", base_url=address)
    assert "http" in str(caught.value.hint)


def test_a_query_in_an_address_goes_with_every_request() -> None:
    """And the path comes before it."""
    with serving(Says(chat_stream("hi"))) as server:
        assert chatted(f"{server.url}/v1?api-version=1").text == "hi"
        assert server.asked[-1].path == "/v1/chat/completions?api-version=1"


def test_loops_that_are_gone_hold_no_connections() -> None:
    """A notebook's cells may each bring a loop of their own."""
    with serving(as_json({"data": []})) as server:
        provider = OpenAIProvider(OpenAIConfig(base_url=server.url, api_key="a-key-of-the-test"))  # type: ignore[arg-type]
        for _ in range(4):
            asyncio.run(provider.list_models())
        assert len(provider._transport._clients) <= 1


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_refused_connection_is_named_in_words(scheme: str) -> None:
    """Not ``[Errno 111] Connect call failed ('127.0.0.1', 9)``."""
    lm.config.providers = {
        "gone": {
            "type": "openai",
            "base_url": f"{scheme}://127.0.0.1:{free_port()}",
            "api_key": "k",
        }
    }
    lm.config.retries = 0
    with pytest.raises(errors.ConnectionError, match=r"\(connection refused\)"):
        lm.ask("hi", model="gone/m")
