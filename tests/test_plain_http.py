"""HTTP over sockets of our own: every body comes out as it was sent, and what is none is told of."""

from __future__ import annotations

import asyncio
import gc
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
from llm_magics.plain_http import PlainHTTP, ProtocolError, exchange, sockets
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


def test_what_follows_a_transfer_is_bounded() -> None:
    """Trailers without end are refused, and what is no header."""
    framing = Chunked()
    framing.feed(b"0\r\n")
    with pytest.raises(ProtocolError):
        framing.feed(b"A: b\r\n" * 100_000)
    with pytest.raises(ProtocolError):
        Chunked().feed(b"0\r\nnot a header\r\n\r\n")


@pytest.mark.parametrize(
    "wrong",
    [b"-5\r\nhello\r\n", b"0x5\r\nhello\r\n", b"5\r\nhelloworld\r\n", b"\r\n", b"zz\r\n",
     b"1_0\r\n", b"f" * 21 + b"\r\n", b"5;" + b"x" * 70_000],
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
    request = plain_http.Request(b"GET", b"/", [(b"Host", b"x")], nothing(), (b"127.0.0.1", port))
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
                b"GET", b"/", [(b"Host", b"x")], nothing(), (b"127.0.0.1", port)
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
        made = await sockets.connected(b"127.0.0.1", listening.getsockname()[1], 1.0)
        other, _ = listening.accept()
        await asyncio.sleep(0.1)  # Linux begins to stamp a moment after it was asked to
        other.sendall(b"now")
        sent = time.perf_counter()
        time.sleep(0.2)  # noqa: ASYNC251 (the loop is busy with others)
        assert await made.read(1.0) == b"now"
        has_stamps = made._clock is not None
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
        made = await sockets.connected(b"127.0.0.1", listening.getsockname()[1], 1.0)
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
        made = await sockets.connected(b"127.0.0.1", listening.getsockname()[1], 1.0)
        other, _ = listening.accept()
        loop = asyncio.get_running_loop()
        sending = loop.run_in_executor(None, other.sendall, bytes(size))
        await asyncio.sleep(0.2)
        made.watch()
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
        made: StampedSocket = await sockets.connected(b"127.0.0.1", listening.getsockname()[1], 1)
        other, _ = listening.accept()
        told = [made.is_stale]
        other.close()
        told.append(made.is_stale)
        made.close()
        told.append(made.is_stale)
        listening.close()
        return told

    assert asyncio.run(stale()) == [False, True, True]


def watched() -> int:
    """How many sockets the running loop looks at, its own among them."""
    selector: Any = asyncio.get_running_loop()
    return len(selector._selector.get_map())


OK = HEAD + b"Content-Length: 2\r\n\r\nok"


def kept_open(made: socket.socket) -> None:
    """Answers one request after the other."""
    with suppress(OSError):
        while True:
            read_request(made)
            made.sendall(OK)


def silent(made: socket.socket) -> None:
    """Begins an answer, and says no more."""
    with suppress(OSError):
        read_request(made)
        made.sendall(HEAD + b"Content-Length: 10\r\n\r\nbegun")
        made.recv(1)


def test_an_answer_that_nobody_read_leaves_nothing_behind() -> None:
    """Left without a look, by an error, or by a cancelled task."""

    async def leave(url: str) -> int:
        transport = Transport(url)
        for _ in range(5):
            async with transport.stream("GET", "/"):
                pass
        for _ in range(5):
            with suppress(KeyError):
                async with transport.stream("GET", "/"):
                    raise KeyError
        left = watched()
        await transport.close()
        return left

    with raw_server(silent) as listening:
        assert asyncio.run(leave(f"http://127.0.0.1:{listening.getsockname()[1]}")) == 1


def test_a_transport_that_is_forgotten_lets_its_connections_go() -> None:
    """A kept one is watched by nobody, so that a loop that goes on does not hold it."""
    ended = threading.Semaphore(0)

    def until_closed(made: socket.socket) -> None:
        kept_open(made)
        ended.release()

    async def forget(url: str) -> int:
        for _ in range(10):
            await Transport(url).send("GET", "/")
        gc.collect()
        return watched()

    with raw_server(until_closed) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        assert asyncio.run(forget(url)) == 1
        assert all(ended.acquire(timeout=2) for _ in range(10))


def test_closing_ends_what_is_under_way() -> None:
    """Whoever waits is told at once; nothing is kept afterwards."""

    async def close(url: str) -> tuple[float, int]:
        transport = Transport(url)
        tasks = [asyncio.create_task(transport.send("GET", "/")) for _ in range(5)]
        await asyncio.sleep(0.2)
        began = time.perf_counter()
        await transport.close()
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(error, ConnectionError) for error in errors)
        return time.perf_counter() - began, watched()

    with raw_server(silent) as listening:
        took, left = asyncio.run(close(f"http://127.0.0.1:{listening.getsockname()[1]}"))
    assert took < 1
    assert left == 1


def test_leaving_while_another_reads() -> None:
    """The other is told that the connection broke."""

    async def leave(url: str) -> BaseException | None:
        transport = Transport(url)

        async def read(stream: Any) -> None:
            async for _ in stream.blocks:
                pass

        async with transport.stream("GET", "/") as stream:
            task = asyncio.create_task(read(stream))
            await asyncio.sleep(0.2)
        await asyncio.wait([task], timeout=2)
        await transport.close()
        return task.exception()

    with raw_server(silent) as listening:
        error = asyncio.run(leave(f"http://127.0.0.1:{listening.getsockname()[1]}"))
    assert error is not None


def test_connections_of_a_burst_are_let_go() -> None:
    """Also while one of them goes on being used."""

    async def burst(url: str, monkeypatch: pytest.MonkeyPatch) -> int:
        transport = Transport(url)
        await asyncio.gather(*(transport.send("GET", "/") for _ in range(20)))
        monkeypatch.setattr(exchange, "_KEPT_S", 0.2)
        for _ in range(4):
            await asyncio.sleep(0.1)
            await transport.send("GET", "/")
        (client,) = transport._clients.values()
        plain: Any = client._transport
        kept = len(plain._http._kept)
        await transport.close()
        return kept

    with raw_server(kept_open) as listening, pytest.MonkeyPatch.context() as patch:
        assert asyncio.run(burst(f"http://127.0.0.1:{listening.getsockname()[1]}", patch)) == 1


def resolving(**addresses: list[str]) -> Any:
    """A resolver that knows these names only."""
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        return [each for address in addresses.get(name.replace(".", "_").replace("-", "_"), [name])
                 for each in real(address, port, *args, **more)]  # fmt: skip

    return resolve


def test_a_key_goes_to_the_host_that_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name in ASCII is looked up as it is, and not as another encoding of names would have it."""
    asked: list[Any] = []

    def resolve(host: Any, *_: Any, **__: Any) -> Any:
        asked.append(host)
        raise OSError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)

    async def send(url: str) -> None:
        with pytest.raises(ConnectionError):
            await Transport(url).send("GET", "/")

    for url in ("http://xn--strae-oqa.test:1", "http://straße.test:1"):
        asyncio.run(send(url))
    assert asked == [b"xn--strae-oqa.test"] * 2


def test_a_name_that_is_none_is_told_of() -> None:
    """As a host that cannot be reached."""
    for host in ("a" * 64 + ".test", "a..b.test"):
        with pytest.raises(ConnectionError):
            asyncio.run(Transport(f"http://{host}").send("GET", "/"))


def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the first is refused, is of a kind that the system has not, or swallows all."""
    full = socket.create_server(("127.0.0.2", 0), backlog=0)
    port = full.getsockname()[1]
    fillers = []
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex(("127.0.0.2", port))
        fillers.append(filler)
    listening = socket.create_server(("127.0.0.1", port))

    def answer() -> None:
        with listening.accept()[0] as made:
            kept_open(made)

    answering = threading.Thread(target=answer, daemon=True)
    answering.start()
    monkeypatch.setattr(socket, "getaddrinfo", resolving(two_test=["127.0.0.2", "127.0.0.1"]))

    async def send(url: str) -> int:
        transport = Transport(url, timeouts=Timeouts(2, 5))
        reply = await transport.send("GET", "/")
        await transport.close()
        return reply.status

    assert asyncio.run(send(f"http://two.test:{port}")) == 200
    answering.join(2)
    for each in (*fillers, full, listening):
        each.close()

    real = socket.socket

    class NoSix(real):  # type: ignore[misc, valid-type]
        def __init__(self, family: Any = -1, *args: Any, **more: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(97, "Address family not supported by protocol")
            super().__init__(family, *args, **more)

    with raw_server(kept_open) as other:
        port = other.getsockname()[1]
        found = [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        monkeypatch.setattr(socket, "socket", NoSix)
        assert asyncio.run(send(f"http://six.test:{port}")) == 200


def test_long_heads_are_read_however_they_are_cut() -> None:
    """Up to what httpx reads."""
    head = HEAD + b"X: " + b"y" * 60_000 + b"\r\nContent-Length: 2\r\n\r\nok"

    def answer(made: socket.socket) -> None:
        read_request(made)
        for part in (head[:30_000], head[30_000:]):
            made.sendall(part)
            time.sleep(0.05)

    with raw_server(answer) as listening:
        assert asyncio.run(ask(listening.getsockname()[1])) == b"ok"


def test_nothing_of_tls_goes_in_plain_text() -> None:
    """Whatever path asks for it."""
    asked = []
    with raw_server(asked.append) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(ConnectionError):
            asyncio.run(
                Transport(f"http://127.0.0.1:{port}").send("GET", f"https://127.0.0.1:{port}/x")
            )
    assert not asked


def test_a_request_that_may_have_been_read_is_not_sent_again() -> None:
    """On a kept connection that closes late, or after it has said something."""
    requests: list[int] = []

    def crash(made: socket.socket, before: bytes, wait_s: float) -> None:
        read_request(made)
        requests.append(1)
        made.sendall(OK)
        read_request(made)
        requests.append(2)
        made.sendall(before)
        time.sleep(wait_s)

    async def two(url: str) -> None:
        transport = Transport(url)
        await transport.send("POST", "/")
        with pytest.raises(ConnectionError):
            await transport.send("POST", "/")
        await transport.close()

    for before, wait_s in ((b"", 0.8), (b"HTTP/1.1 102 Processing\r\n\r\n", 0.0)):
        requests.clear()
        with raw_server(lambda made, b=before, w=wait_s: crash(made, b, w)) as listening:  # type: ignore[misc]
            asyncio.run(two(f"http://127.0.0.1:{listening.getsockname()[1]}"))
        assert requests == [1, 2]


def test_the_time_of_whoever_reads_is_his_own() -> None:
    """A deadline of his, in the block, is not told as the service's."""

    async def late(url: str) -> None:
        transport = Transport(url)
        try:
            async with transport.stream("GET", "/") as stream:
                await stream.reply()
                async with asyncio.timeout(0.05):
                    await asyncio.sleep(1)
        finally:
            await transport.close()

    with raw_server(kept_open) as listening, pytest.raises(TimeoutError):
        asyncio.run(late(f"http://127.0.0.1:{listening.getsockname()[1]}"))


def test_what_goes_wrong_in_a_reader_reaches_whoever_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is no silence."""

    def wrong(self: Any) -> Any:
        raise ValueError("odd")

    with raw_server(kept_open) as listening:
        monkeypatch.setattr(StampedSocket, "_received", wrong)
        with pytest.raises(ValueError, match="odd"):
            asyncio.run(ask(listening.getsockname()[1]))


def test_a_packet_waits_for_a_busy_loop_and_keeps_its_time() -> None:
    """However long that is busy."""

    async def read() -> tuple[float, float]:
        listening = socket.create_server(("127.0.0.1", 0))
        made = await sockets.connected(b"127.0.0.1", listening.getsockname()[1], 1.0)
        other, _ = listening.accept()
        await asyncio.sleep(0.1)  # Linux begins to stamp a moment after it was asked to
        other.sendall(b"now")
        sent = time.perf_counter()
        time.sleep(1.3)  # noqa: ASYNC251 (the loop is busy with others)
        await made.read(1.0)
        has_stamps = made._clock is not None
        made.close()
        other.close()
        listening.close()
        return made.read_at - sent, 0.05 if has_stamps else 2.0

    late, most = asyncio.run(read())
    assert late < most


def test_systems_without_stamps_read_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a block came when it was read."""
    monkeypatch.setattr(sockets, "_asks_for_stamps", lambda made: False)
    before = time.perf_counter()
    with serving(Says([b"one", b"two"], gap_s=0.1)) as server:

        async def read() -> list[float]:
            transport = Transport(server.url)
            async with transport.stream("GET", "/") as stream:
                times = [at async for at, _ in stream.blocks]
            await transport.close()
            return times

        first, second = asyncio.run(read())
    assert 0 <= first < second - 0.05 < time.perf_counter() - before
