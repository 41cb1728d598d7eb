"""HTTP over sockets of our own: every body comes out as it was sent, and what is none is told of."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics import plain_http
from llm_magics.errors import ConnectionError
from llm_magics.metering import METER, Meter
from llm_magics.plain_http import PlainHTTP, ProtocolError, sockets
from llm_magics.plain_http.framing import Chunked
from llm_magics.plain_http.sockets import StampedSocket
from llm_magics.transport import Timeouts, Transport
from tests.serving import Asked, Says, serving

HEAD = b"HTTP/1.1 200 OK\r\n"


def in_chunks(pieces: list[bytes], trailer: bytes = b"") -> bytes:
    """A body as it is transferred."""
    told = b"".join(
        f"{len(each):X}".encode() + b"\r\n" + each + b"\r\n" for each in pieces if each
    )
    return told + b"0\r\n" + trailer + b"\r\n"


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """``data`` in parts, cut at ``places``."""
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[one:other] for one, other in pairwise(edges)]


def by_h11(blocks: list[bytes]) -> bytes:
    """The body as h11 reads it."""
    parser = h11.Connection(h11.CLIENT)
    parser.send(h11.Request(method="GET", target="/", headers=[("host", "x")]))
    parser.send(h11.EndOfMessage())
    parser.receive_data(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    body = b""
    for block in blocks:
        parser.receive_data(block)
        while (event := parser.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return body
    raise AssertionError("it did not end")


@given(
    st.lists(st.binary(min_size=0, max_size=40)),
    st.lists(st.integers(0, 2000)),
    st.sampled_from([b"", b"X-Sum: 1\r\n", b"A: b\r\nC: d\r\n"]),
)
def test_a_body_comes_out_however_it_is_cut(
    pieces: list[bytes], places: list[int], trailer: bytes
) -> None:
    """As h11 reads it, with trailers and without."""
    blocks = cut(in_chunks(pieces, trailer), places)
    framing = Chunked()
    assert b"".join(framing.feed(block) for block in blocks) == b"".join(pieces) == by_h11(blocks)
    assert framing.is_done
    assert framing.rest == b""


@given(st.binary(max_size=60), st.lists(st.integers(0, 80)))
def test_whatever_comes_it_ends_or_is_told_of(data: bytes, places: list[int]) -> None:
    """Any bytes are a body, or are refused in words; nothing hangs or grows without bound."""
    framing = Chunked()
    try:
        for block in cut(data, places):
            framing.feed(block)
    except ProtocolError:
        return
    assert len(framing.rest) <= len(data)


@pytest.mark.parametrize(
    "wrong",
    [b"-5\r\nhello\r\n", b"0x5\r\nhello\r\n", b"5\r\nhelloworld\r\n", b"\r\n", b"zz\r\n",
     b"1_0\r\n", b"f" * 16 + b"\r\n", b"5;" + b"x" * 20_000],
)  # fmt: skip
def test_what_is_no_transfer_is_refused(wrong: bytes) -> None:
    """Sizes that are none, pieces that are longer than they say, lines without end."""
    with pytest.raises(ProtocolError):
        Chunked().feed(wrong)


def raw_server(answer: Callable[[socket.socket], None]) -> Any:
    """A server that does with each connection what ``answer`` does; its port."""
    listening = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        while True:
            try:
                made, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=handle, args=(made,), daemon=True).start()

    def handle(made: socket.socket) -> None:
        with made:
            answer(made)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return listening


def read_request(made: socket.socket) -> None:
    """All of a request without a body."""
    data = b""
    while b"\r\n\r\n" not in data:
        block = made.recv(1000)
        if not block:
            raise ConnectionResetError
        data += block


def exchanged(says: bytes, *, close: bool = True, wait_s: float = 2.0) -> bytes:
    """The body of what a server says byte for byte."""

    def answer(made: socket.socket) -> None:
        read_request(made)
        made.sendall(says)
        if not close:
            time.sleep(0.5)

    listening = raw_server(answer)
    with listening:
        return asyncio.run(ask(listening.getsockname()[1], wait_s))


async def nothing() -> AsyncGenerator[bytes, None]:
    """No body."""
    return
    yield


async def untold(event: str) -> None:
    """Nobody listens."""


async def ask(port: int, wait_s: float = 2.0) -> bytes:
    """The body of one answer."""
    http = PlainHTTP()
    request = plain_http.Request(b"GET", b"/", [(b"Host", b"x")], nothing(), "127.0.0.1", port)
    answer = await http.send(request, plain_http.Waits(wait_s, wait_s, wait_s), untold)
    try:
        return b"".join([part async for part in answer.body])
    finally:
        await answer.body.aclose()
        http.close()


@pytest.mark.parametrize(
    ("says", "body"),
    [
        (HEAD + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (HEAD + b"Content-Length: 0\r\n\r\n", b""),
        (HEAD + b"\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", b"old"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"Content-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + HEAD + b"Content-Length: 2\r\n\r\nok", b"ok"),
        (HEAD + b"Transfer-Encoding: Chunked\r\n\r\n" + in_chunks([b"a", b"bc"]), b"abc"),
    ],
)  # fmt: skip
def test_ends_of_bodies(says: bytes, body: bytes) -> None:
    """By length, by pieces, by the end of the connection, or by there being none."""
    assert exchanged(says) == body


@pytest.mark.parametrize(
    "says",
    [
        b"",
        b"HTTP/1.1 200",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        HEAD + b"Content-Length: 10\r\n\r\nshort",
        HEAD + b"Content-Length: -1\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
        HEAD + b"X: " + b"y" * 200_000,
    ],
)
def test_what_is_no_answer_is_told_of(says: bytes) -> None:
    """Cut off, of two lengths, or no HTTP at all."""
    with pytest.raises(ProtocolError):
        exchanged(says)


def test_silence_ends() -> None:
    """Before the head and within the body, after the time to wait."""
    for says in (b"", HEAD + b"Content-Length: 10\r\n\r\nshort"):
        with pytest.raises(TimeoutError):
            exchanged(says, close=False, wait_s=0.1)


def test_nobody_there() -> None:
    """Refused at once; a name that is none, too."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(plain_http.UnreachableError) as caught:
        asyncio.run(ask(port))
    assert isinstance(caught.value.__cause__, OSError)


def test_a_connection_is_used_again_only_when_it_can_be() -> None:
    """After a whole answer; not one that the server closed, nor one with bytes left over."""
    connections = []

    def answer(made: socket.socket) -> None:
        connections.append(made)
        for number in range(3):
            try:
                read_request(made)
            except OSError:
                return
            extra = b"HTTP/1.1 200 SMUGGLED\r\n\r\n" if number == 1 else b""
            made.sendall(HEAD + b"Content-Length: 2\r\n\r\nok" + extra)

    async def three(port: int) -> list[bytes]:
        http = PlainHTTP()
        bodies = []
        for _ in range(3):
            request = plain_http.Request(
                b"GET", b"/", [(b"Host", b"x")], nothing(), "127.0.0.1", port
            )
            told = await http.send(request, plain_http.Waits(2, 2, 2), untold)
            bodies.append(b"".join([part async for part in told.body]))
            await asyncio.sleep(0.05)  # for what the server still says to come in
        http.close()
        return bodies

    with raw_server(answer) as listening:
        bodies = asyncio.run(three(listening.getsockname()[1]))
    assert bodies == [b"ok"] * 3
    assert len(connections) == 2


def test_leaving_early_closes() -> None:
    """The server sees it at once, and nothing is used again."""
    says = Says([b"data: x\n\n"], hang=True)
    with serving(says) as server:
        transport = Transport(server.url)

        async def leave() -> None:
            async with transport.stream("GET", "/") as stream:
                async for _ in stream.blocks:
                    break
            await transport.close()

        asyncio.run(leave())
        assert server.hung_up.wait(2)


def test_stamps_are_those_of_arrival() -> None:
    """Not of when a busy loop came to look at the socket."""
    if not sockets.are_possible():
        pytest.skip("sockets are not watched here")

    async def read() -> tuple[float, float, bool]:
        listening = socket.create_server(("127.0.0.1", 0))
        made = await sockets.connected("127.0.0.1", listening.getsockname()[1], 1.0)
        other, _ = listening.accept()
        other.sendall(b"now")
        sent = time.perf_counter()
        time.sleep(0.2)  # noqa: ASYNC251 (the loop is busy with others)
        assert await made.read(1.0) == b"now"
        has_stamps = made._has_stamps
        made.close()
        other.close()
        listening.close()
        return sent, made.read_at, has_stamps

    sent, read_at, has_stamps = asyncio.run(read())
    assert read_at - sent < (0.05 if has_stamps else 1.0)


def test_a_clock_that_was_set_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A packet from the future, or from long ago, came when it was read; and time goes on."""
    real = time.time_ns

    async def read() -> list[float]:
        listening = socket.create_server(("127.0.0.1", 0))
        made = await sockets.connected("127.0.0.1", listening.getsockname()[1], 1.0)
        other, _ = listening.accept()
        stamps = [time.perf_counter()]
        for shift_s in (0, 3600, -3600, 0):
            monkeypatch.setattr(time, "time_ns", lambda shift_s=shift_s: real() + shift_s * 10**9)
            other.sendall(b"x")
            await made.read(1.0)
            stamps.append(made.read_at)
        stamps.append(time.perf_counter())
        made.close()
        other.close()
        listening.close()
        return stamps

    stamps = asyncio.run(read())
    assert stamps == sorted(stamps)


def test_the_sender_waits_where_nobody_reads() -> None:
    """No more is read ahead than a bound, and all of it comes in the end."""
    size = 20_000_000

    async def read() -> tuple[int, int]:
        listening = socket.create_server(("127.0.0.1", 0))
        made = await sockets.connected("127.0.0.1", listening.getsockname()[1], 1.0)
        other, _ = listening.accept()
        loop = asyncio.get_running_loop()
        sending = loop.run_in_executor(None, other.sendall, bytes(size))
        await asyncio.sleep(0.2)
        ahead, came = made._ahead, 0
        while came < size:
            came += len(await made.read(1.0))
        await sending
        made.close()
        other.close()
        listening.close()
        return ahead, came

    ahead, came = asyncio.run(read())
    assert came == size
    assert ahead <= sockets._AHEAD + sockets._BLOCK


def test_a_large_body_is_sent_whole() -> None:
    """Also where the server takes it slowly; one that it refuses early is answered all the same."""
    body = {"text": "x" * 3_000_000}
    with serving(lambda asked: Says([str(len(asked.body)).encode()], content_type="text/plain")) as server:  # fmt: skip
        reply = asyncio.run(send(server.url, body))
    assert int(reply.body) > 3_000_000

    def refuse(made: socket.socket) -> None:
        read_request(made)
        made.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")

    with raw_server(refuse) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with suppress(ConnectionError):  # it may reset the connection before its answer is read
            assert asyncio.run(send(url, body)).status == 413


async def send(url: str, body: Any) -> Any:
    """One request with a body."""
    transport = Transport(url, timeouts=Timeouts(2, 5))
    try:
        return await transport.send("POST", "/", body)
    finally:
        await transport.close()


def test_a_meter_tells_what_went_over_the_wire() -> None:
    """When it was sent, what a new connection took, bytes; of a kept connection no time."""

    def answer(asked: Asked) -> Says:
        return Says([b"12345", b"678"], content_type="text/plain")

    async def two(url: str) -> list[Meter]:
        transport, meters = Transport(url), []
        for _ in range(2):
            METER.set(meter := Meter())
            await transport.send("POST", "/", {"a": 1})
            meters.append(meter)
        await transport.close()
        return meters

    with serving(answer) as server:
        before = time.perf_counter()
        first, second = asyncio.run(two(server.url))
    assert before < first.sent_at < second.sent_at < time.perf_counter()
    assert first.connect_s > 0
    assert first.bytes_received == second.bytes_received == 8
    assert first.bytes_sent == len(server.asked[0].body)
    assert 0 < first.headers_s < 1


def test_many_at_once_are_not_held_up() -> None:
    """Httpx by itself would let a hundred through."""
    with serving(Says([b"x"], content_type="text/plain", delay_s=0.5)) as server:

        async def many() -> None:
            transport = Transport(server.url)
            await asyncio.gather(*(transport.send("GET", "/") for _ in range(150)))
            await transport.close()

        asyncio.run(many())
    assert server.most_at_once == 150


def test_a_stamped_socket_says_when_it_is_stale() -> None:
    """When the other side has closed it, or it was closed here."""

    async def stale() -> list[bool]:
        listening = socket.create_server(("127.0.0.1", 0))
        made: StampedSocket = await sockets.connected("127.0.0.1", listening.getsockname()[1], 1)
        other, _ = listening.accept()
        told = [made.is_stale]
        other.close()
        told.append(made.is_stale)
        made.close()
        told.append(made.is_stale)
        listening.close()
        return told

    assert asyncio.run(stale()) == [False, True, True]
