"""HTTP over httpx: bodies, faults, connections that are kept, and the times at which bytes came."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_magics import errors
from llm_magics.http import Timeouts, Transport, client, timing
from llm_magics.http.connections import JoiningConnectionPool, TimestampBackend
from llm_magics.http.timing import REQUEST_TIMING, RequestTiming, TimestampStream
from tests.support.serving import Asked, Says, serving

HEAD = b"HTTP/1.1 200 OK\r\n"
OK = HEAD + b"Content-Length: 2\r\n\r\nok"


def in_chunks(*pieces: bytes) -> bytes:
    """A body in chunked transfer encoding."""
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def raw_server(answer: Callable[[socket.socket], None]) -> Any:
    """A server that calls ``answer`` with each connection; its listening socket."""
    listening = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        while True:
            try:
                made, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=handle, args=(made,), daemon=True).start()

    def handle(made: socket.socket) -> None:
        with made, suppress(OSError):
            answer(made)

    threading.Thread(target=run, daemon=True).start()
    return listening


def url_of(listening: socket.socket) -> str:
    """The address of a server."""
    return f"http://127.0.0.1:{listening.getsockname()[1]}"


def read_request(made: socket.socket) -> bytes:
    """A whole request, its body by its length."""
    data = b""
    while b"\r\n\r\n" not in data:
        block = made.recv(65536)
        if not block:
            raise ConnectionResetError
        data += block
    head, _, body = data.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            while len(body) < int(line.partition(b":")[2]):
                body += made.recv(65536)
    return head + b"\r\n\r\n" + body


def answer_each(made: socket.socket) -> None:
    """Answer one request after the other."""
    while True:
        read_request(made)
        made.sendall(OK)


def silent(made: socket.socket) -> None:
    """Begin an answer, and send no more."""
    read_request(made)
    made.sendall(HEAD + b"Content-Length: 10\r\n\r\nbegun")
    made.recv(1)


async def fetch(url: str, body: Any = None, wait_s: float = 5.0) -> Any:
    """One request and its whole answer."""
    transport = Transport(url, timeouts=Timeouts(wait_s, wait_s))
    try:
        return await transport.send("POST" if body else "GET", "/", body)
    finally:
        await transport.close()


def exchanged(says: bytes, *, close: bool = True, wait_s: float = 5.0) -> bytes:
    """The body of what a server sends byte for byte."""

    def answer(made: socket.socket) -> None:
        read_request(made)
        made.sendall(says)
        if not close:
            made.recv(1)

    with raw_server(answer) as listening:
        reply = asyncio.run(fetch(url_of(listening), wait_s=wait_s))
    body: bytes = reply.body
    return body


@pytest.mark.parametrize(
    ("says", "body"),
    [
        (HEAD + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (HEAD + b"Content-Length: 0\r\n\r\n", b""),
        (HEAD + b"\r\nuntil the end", b"until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", b"old"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"Content-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK, b"ok"),
        (HEAD + b"Transfer-Encoding: Chunked\r\n\r\n" + in_chunks(b"a", b"bc"), b"abc"),
        (HEAD + b"X: " + b"y" * 60_000 + b"\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    ],
)
def test_ends_of_bodies(says: bytes, body: bytes) -> None:
    """By length, by chunks, by the end of the connection, or without a body."""
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
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n",
        HEAD + b"X: " + b"y" * 200_000,
    ],
)
def test_what_is_not_http_is_an_error(says: bytes) -> None:
    """An answer that was cut, one of two lengths, or of another protocol."""
    with pytest.raises(errors.ConnectionError, match="was lost"):
        exchanged(says)


@pytest.mark.parametrize("says", [b"", HEAD + b"Content-Length: 10\r\n\r\nshort"])
def test_silence_ends(says: bytes) -> None:
    """Before the headers and within the body, after the idle timeout."""
    with pytest.raises(errors.ConnectionError, match="idle timeout"):
        exchanged(says, close=False, wait_s=0.1)


def test_the_network_backend_is_where_httpx_and_httpcore_expect_it() -> None:
    """The pool is a private attribute of httpx: this fails if a new version moves it."""

    async def backend() -> Any:
        transport = Transport("http://127.0.0.1:9")
        made: Any = transport._client()._transport
        pool = made._pool
        await transport.close()
        return type(made).__mro__, pool

    bases, pool = asyncio.run(backend())
    assert httpx.AsyncHTTPTransport in bases
    assert type(httpx.AsyncHTTPTransport()._pool) is httpcore.AsyncConnectionPool
    assert isinstance(pool, JoiningConnectionPool)
    assert isinstance(pool._network_backend, TimestampBackend)


CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def blocks_of(says: bytes) -> tuple[list[bytes], str]:
    """The blocks that a stream hands out of ``says``, sent as one packet, and its error."""
    blocks: list[bytes] = []

    def answer(made: socket.socket) -> None:
        read_request(made)
        made.sendall(says)

    async def read(url: str) -> None:
        transport = Transport(url)
        async with transport.stream("GET", "/") as stream:
            async for _, block in stream.blocks:
                blocks.append(block)

    with raw_server(answer) as listening:
        try:
            asyncio.run(read(url_of(listening)))
        except errors.ConnectionError as error:
            return blocks, str(error)
    return blocks, ""


def test_chunks_that_arrive_together_are_handed_on_together() -> None:
    """By methods of httpcore that are private: this fails if a new version moves them."""
    chunks = [b"data: %d\n\n" % number for number in range(100)]
    assert blocks_of(CHUNKED + in_chunks(*chunks)) == ([b"".join(chunks)], "")


def test_chunks_before_a_fault_in_the_same_packet_are_handed_on() -> None:
    """The fault is an error only behind what came before it."""
    whole = in_chunks(b"one ", b"two").removesuffix(b"0\r\n\r\n")
    blocks, error = blocks_of(CHUNKED + whole + b"no size\r\n")
    assert blocks == [b"one two"]
    assert "was lost" in error


@given(
    parts=st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    cuts=st.sets(st.integers(1, 400), max_size=5),
)
def test_a_chunked_body_is_the_same_however_it_arrives(parts: list[bytes], cuts: set[int]) -> None:
    """Whether chunks are joined or cut; the connection is free for the next request."""
    says = CHUNKED + in_chunks(*parts)
    places = [0, *sorted(cut for cut in cuts if cut < len(says)), len(says)]
    packets = [says[start:end] for start, end in pairwise(places)]

    async def read() -> tuple[bytes, list[bool]]:
        backend = httpcore.AsyncMockBackend(packets)
        async with JoiningConnectionPool(network_backend=backend) as pool:
            response = await pool.request("GET", "http://server/")
            return response.content, [each.is_idle() for each in pool.connections]

    assert asyncio.run(read()) == (b"".join(parts), [True])


def test_a_connection_with_bytes_left_over_is_not_used_again() -> None:
    """What a server sends unasked is not taken for the answer to the next request."""
    connections = []
    smuggled = threading.Event()

    def answer(made: socket.socket) -> None:
        connections.append(made)
        for number in range(3):
            read_request(made)
            made.sendall(OK)
            if number == 1:
                time.sleep(0.02)
                made.sendall(b"HTTP/1.1 200 SMUGGLED\r\n\r\n")
                smuggled.set()

    async def three(url: str) -> list[bytes]:
        transport = Transport(url)
        bodies = []
        for number in range(3):
            bodies.append((await transport.send("GET", "/")).body)
            if number == 1:
                assert await asyncio.to_thread(smuggled.wait, 30)
            await asyncio.sleep(0.05)  # for the bytes to be read
        await transport.close()
        return bodies

    with raw_server(answer) as listening:
        assert asyncio.run(three(url_of(listening))) == [b"ok"] * 3
    assert len(connections) == 2


def test_leaving_early_closes() -> None:
    """The server sees it at once."""
    with serving(Says([b"data: x\n\n"], hang=True)) as server:

        async def leave() -> None:
            transport = Transport(server.url)
            async with transport.stream("GET", "/") as stream:
                async for _ in stream.blocks:
                    break
            await transport.close()

        asyncio.run(leave())
        assert server.hung_up.wait(30)


@pytest.mark.parametrize("when", ["idle", "late", "after a 1xx", "reset"])
def test_a_request_that_may_have_been_read_is_not_sent_again(when: str) -> None:
    """On a kept connection that the server closes: an error for the retry policy to count."""
    requests: list[bytes] = []

    def answer(made: socket.socket) -> None:
        requests.append(read_request(made))
        made.sendall(OK)
        requests.append(read_request(made))
        if when == "late":
            time.sleep(0.2)
        elif when == "after a 1xx":
            made.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
        elif when == "reset":
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    async def two(url: str) -> None:
        transport = Transport(url)
        await transport.send("POST", "/", {"n": 1})
        with pytest.raises(errors.ConnectionError) as caught:
            await transport.send("POST", "/", {"n": 2})
        assert caught.value.retryable
        await transport.close()

    with raw_server(answer) as listening:
        asyncio.run(two(url_of(listening)))
    bodies = [json.loads(request.partition(b"\r\n\r\n")[2]) for request in requests]
    assert bodies == [{"n": 1}, {"n": 2}]


def test_a_connection_that_was_closed_while_idle_is_replaced() -> None:
    """Without an error: no byte of the second request went over the first connection."""
    requests: list[bytes] = []
    closed = threading.Event()

    def answer(made: socket.socket) -> None:
        requests.append(read_request(made))
        made.sendall(OK)
        made.close()
        closed.set()

    async def two(url: str) -> None:
        transport = Transport(url)
        await transport.send("POST", "/", {"n": 1})
        await asyncio.to_thread(closed.wait, 2)
        assert (await transport.send("POST", "/", {"n": 2})).body == b"ok"
        await transport.close()

    with raw_server(answer) as listening:
        asyncio.run(two(url_of(listening)))
    assert len(requests) == 2


def test_a_request_of_which_no_byte_was_sent_is_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The connection is found closed only when it is written to; each time, until it is new."""
    requests: list[bytes] = []
    broken: list[TimestampStream] = []

    def answer(made: socket.socket) -> None:
        while True:
            requests.append(read_request(made))
            made.sendall(OK)

    send_now = TimestampStream._send_now

    def refuse(self: TimestampStream, buffer: bytes) -> int:
        if broken and self is not broken[-1] and len(broken) < 3:
            broken.append(self)
            raise BrokenPipeError(32, "Broken pipe")
        return send_now(self, buffer)

    async def several(url: str) -> None:
        transport = Transport(url)
        await asyncio.gather(*(transport.send("POST", "/", {"n": n}) for n in range(3)))
        before = len(requests)
        broken.append(None)  # type: ignore[arg-type]  # from now on
        assert (await transport.send("POST", "/", {"n": 9})).body == b"ok"
        assert len(broken) == 3
        assert len(requests) == before + 1
        await transport.close()

    monkeypatch.setattr(TimestampStream, "_send_now", refuse)
    with raw_server(answer) as listening:
        asyncio.run(several(url_of(listening)))


def test_a_large_body_is_sent_whole() -> None:
    """Also if the server reads it slowly; if it refuses it early, its answer is read."""
    body = {"text": "x" * 3_000_000}
    with serving(lambda asked: Says([str(len(asked.body)).encode()], content_type="text/plain")) as server:  # fmt: skip
        reply = asyncio.run(fetch(server.url, body))
    assert int(reply.body) > 3_000_000

    def refuse(made: socket.socket) -> None:
        made.recv(1000)
        made.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")

    with raw_server(refuse) as listening, suppress(errors.ConnectionError):
        # The system may reset the connection before its answer is read.
        assert asyncio.run(fetch(url_of(listening), body)).status == 413


def test_a_timing_has_what_went_over_the_network() -> None:
    """When it was sent, how long a new connection took, bytes; no time for a kept connection."""

    def answer(asked: Asked) -> Says:
        return Says([b"12345", b"678"], content_type="text/plain")

    async def two(url: str) -> list[RequestTiming]:
        transport, timings = Transport(url), []
        for _ in range(2):
            REQUEST_TIMING.set(request_timing := RequestTiming())
            await transport.send("POST", "/", {"a": 1})
            timings.append(request_timing)
        await transport.close()
        return timings

    with serving(answer) as server:
        before = time.perf_counter()
        first, second = asyncio.run(two(server.url))
    assert first.sent_at is not None
    assert second.sent_at is not None
    assert before < first.sent_at < second.sent_at < time.perf_counter()
    assert first.connect_s > 0
    assert first.bytes_received == second.bytes_received == 8
    assert first.bytes_sent == len(server.asked[0].body)
    assert first.headers_s is not None
    assert 0 < first.headers_s < 5


def test_many_at_once_are_not_held_up() -> None:
    """By default httpx lets a hundred through."""
    patience = time.monotonic() + 10

    def are_all_there() -> bool:
        return server.most_at_once == 150 or time.monotonic() > patience

    with serving(Says([b"x"], content_type="text/plain", once=are_all_there)) as server:

        async def many() -> None:
            transport = Transport(server.url, timeouts=Timeouts(connect=20))
            await asyncio.gather(*(transport.send("GET", "/") for _ in range(150)))
            await transport.close()

        asyncio.run(many())
    assert server.most_at_once == 150


async def connected() -> tuple[TimestampStream, socket.socket]:
    """Both ends of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        stream = await TimestampBackend().connect_tcp("127.0.0.1", listening.getsockname()[1], 2)
        return stream, listening.accept()[0]


def test_times_are_those_of_arrival() -> None:
    """Not those at which a busy loop read the socket."""

    async def read() -> tuple[float, bool]:
        stream, other = await connected()
        await asyncio.sleep(0.1)  # Linux begins to stamp a moment after it was asked to
        other.sendall(b"now")
        sent = time.perf_counter()
        time.sleep(0.6)  # noqa: ASYNC251 (the loop is busy with others)
        assert await stream.read(100, 1.0) == b"now"
        has_stamps = stream._clock is not None
        await stream.aclose()
        other.close()
        return stream.received_at - sent, has_stamps

    late, has_stamps = asyncio.run(read())
    assert late < (0.3 if has_stamps else 10)


def test_a_clock_that_was_set_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A packet from the future, or from long ago, came when it was read; time goes forward."""
    real = time.time_ns

    async def read() -> list[float]:
        stream, other = await connected()
        stamps = [time.perf_counter()]
        for shift_s in (0, 3600, -3600, 0):
            monkeypatch.setattr(time, "time_ns", lambda shift_s=shift_s: real() + shift_s * 10**9)
            other.sendall(b"x")
            await stream.read(100, 1.0)
            stamps.append(stream.received_at)
        stamps.append(time.perf_counter())
        await stream.aclose()
        other.close()
        return stamps

    stamps = asyncio.run(read())
    assert stamps == sorted(stamps)


def test_without_kernel_timestamps_the_time_of_reading_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on systems other than Linux."""
    monkeypatch.setattr(timing, "_enable_timestamps", lambda connection: False)
    with serving(Says([b"one", b"two"], gap_s=0.3)) as server:

        async def read() -> list[float]:
            transport = Transport(server.url)
            async with transport.stream("GET", "/") as stream:
                times = [at async for at, _ in stream.blocks]
            await transport.close()
            return times

        first, second = asyncio.run(read())
    assert 0 <= first < second - 0.025


def test_where_sockets_cannot_be_watched_httpx_connects(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows; blocks have the time at which they were read."""
    monkeypatch.setattr(timing, "is_available", lambda: False)
    with serving(Says([b"one", b"two"], gap_s=0.05)) as server:

        async def read() -> list[float]:
            transport = Transport(server.url)
            async with transport.stream("GET", "/") as stream:
                times = [at async for at, _ in stream.blocks]
            await transport.close()
            return times

        first, second = asyncio.run(read())
    assert 0 <= first < second - 0.025


def test_the_sender_waits_for_a_slow_consumer() -> None:
    """Only so much is read ahead, and all of it comes in the end."""
    size = 20_000_000

    async def read() -> tuple[int, int]:
        stream, other = await connected()
        sending = asyncio.get_running_loop().run_in_executor(None, other.sendall, bytes(size))
        await asyncio.sleep(0.1)
        ahead, came = stream._ahead, 0
        while came < size:
            came += len(await stream.read(1000 if came < 5000 else 65536, 5.0))
        await sending
        await stream.aclose()
        other.close()
        return ahead, came

    ahead, came = asyncio.run(read())
    assert came == size
    assert ahead <= timing._MAX_READ_AHEAD + timing._BLOCK_SIZE


def test_a_stream_knows_when_it_is_stale() -> None:
    """If the other side has closed it or sent something unasked, or it was closed here."""

    async def stale() -> list[bool]:
        stream, other = await connected()
        told = [stream.get_extra_info("is_readable")]
        other.close()
        told.append(stream.get_extra_info("is_readable"))
        await stream.aclose()
        told.append(stream.get_extra_info("is_readable"))
        return told

    assert asyncio.run(stale()) == [False, True, True]


def watched() -> int:
    """How many sockets the running loop watches, its own among them."""
    selector: Any = asyncio.get_running_loop()
    return len(selector._selector.get_map())


def test_an_answer_that_is_not_read_leaves_nothing_behind() -> None:
    """Left without reading, or by an error."""

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
        assert asyncio.run(leave(url_of(listening))) == 1


def test_a_transport_that_is_dropped_closes_its_connections() -> None:
    """Also while its loop goes on."""
    ended = threading.Semaphore(0)

    def until_closed(made: socket.socket) -> None:
        with suppress(OSError):
            answer_each(made)
        ended.release()

    async def drop(url: str) -> int:
        for _ in range(10):
            await Transport(url).send("GET", "/")
        gc.collect()
        await asyncio.sleep(0.05)
        return watched()

    with raw_server(until_closed) as listening:
        assert asyncio.run(drop(url_of(listening))) == 1
        assert all(ended.acquire(timeout=30) for _ in range(10))


def test_closing_ends_requests_in_progress() -> None:
    """Each gets an error at once; nothing is kept afterwards."""

    async def close(url: str) -> int:
        transport = Transport(url)
        tasks = [asyncio.create_task(transport.send("GET", "/")) for _ in range(5)]
        await asyncio.sleep(0.1)
        await transport.close()
        failed = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, errors.ConnectionError) for each in failed)
        return watched()

    with raw_server(silent) as listening:
        assert asyncio.run(close(url_of(listening))) == 1


def test_leaving_while_another_task_reads() -> None:
    """The other one gets an error."""

    async def leave(url: str) -> BaseException | None:
        transport = Transport(url)

        async def read(stream: Any) -> None:
            async for _ in stream.blocks:
                pass

        async with transport.stream("GET", "/") as stream:
            task = asyncio.create_task(read(stream))
            await asyncio.sleep(0.1)
        await asyncio.wait([task], timeout=5)
        await transport.close()
        return task.exception()

    with raw_server(silent) as listening:
        assert asyncio.run(leave(url_of(listening))) is not None


def test_connections_of_a_burst_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while one of them continues to be used."""
    limits = httpx.Limits(
        max_connections=None, max_keepalive_connections=100, keepalive_expiry=0.05
    )
    monkeypatch.setattr(client, "_POOL_LIMITS", limits)

    async def burst(url: str) -> int:
        transport = Transport(url)
        await asyncio.gather(*(transport.send("GET", "/") for _ in range(20)))
        for _ in range(4):
            await asyncio.sleep(0.03)
            await transport.send("GET", "/")
        (made,) = transport._clients.values()
        pool: Any = made._transport
        kept = len(pool._pool.connections)
        await transport.close()
        return kept

    with raw_server(answer_each) as listening:
        assert asyncio.run(burst(url_of(listening))) == 1


def test_a_kept_connection_is_closed_before_the_server_closes_it() -> None:
    """Uvicorn and llama.cpp close one after five seconds: used just then, a request is lost."""
    assert client._POOL_LIMITS.keepalive_expiry is not None
    assert client._POOL_LIMITS.keepalive_expiry < 5


def test_a_key_goes_to_the_host_that_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name in ASCII is looked up as it is, not encoded again by another standard."""
    asked: list[Any] = []

    def resolve(host: Any, *_: Any, **__: Any) -> Any:
        asked.append(host)
        raise OSError("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    for url in ("http://xn--strae-oqa.test:1", "http://straße.test:1"):
        with pytest.raises(errors.ConnectionError):
            asyncio.run(fetch(url))
    assert asked == [b"xn--strae-oqa.test"] * 2


@pytest.mark.parametrize("host", ["a" * 64 + ".test", "a..b.test"])
def test_a_host_that_is_not_a_name_cannot_be_reached(host: str) -> None:
    """As any that is not there."""
    with pytest.raises(errors.LLMError):
        asyncio.run(fetch(f"http://{host}"))


def resolving(**addresses: list[str]) -> Any:
    """A resolver that knows these names only."""
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, **more: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        return [each for address in addresses.get(name.replace(".", "_"), [name])
                for each in real(address, port, *args, **more)]  # fmt: skip

    return resolve


def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the first drops packets, or is of a family that the system does not have."""
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
        with listening.accept()[0] as made, suppress(OSError):
            answer_each(made)

    answering = threading.Thread(target=answer, daemon=True)
    answering.start()
    monkeypatch.setattr(socket, "getaddrinfo", resolving(two_test=["127.0.0.2", "127.0.0.1"]))
    assert asyncio.run(fetch(f"http://two.test:{port}")).status == 200
    answering.join(5)
    for each in (*fillers, full, listening):
        each.close()

    real = socket.socket

    class NoSix(real):  # type: ignore[misc, valid-type]
        def __init__(self, family: Any = -1, *args: Any, **more: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(97, "Address family not supported by protocol")
            super().__init__(family, *args, **more)

    with raw_server(answer_each) as other:
        port = other.getsockname()[1]
        found = [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("::1", port, 0, 0)),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        monkeypatch.setattr(socket, "socket", NoSix)
        assert asyncio.run(fetch(f"http://six.test:{port}")).status == 200


def test_the_callers_deadline_is_not_the_services() -> None:
    """A timeout within the block is not reported as that of the service."""

    async def late(url: str) -> None:
        transport = Transport(url)
        try:
            async with transport.stream("GET", "/") as stream:
                await stream.reply()
                async with asyncio.timeout(0.05):
                    await asyncio.sleep(1)
        finally:
            await transport.close()

    with raw_server(answer_each) as listening, pytest.raises(TimeoutError):
        asyncio.run(late(url_of(listening)))


def test_an_error_while_reading_reaches_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not taken for silence."""

    def wrong(self: Any) -> Any:
        raise OSError("odd")

    with raw_server(answer_each) as listening:
        monkeypatch.setattr(TimestampStream, "_receive", wrong)
        with pytest.raises(errors.ConnectionError, match="odd"):
            asyncio.run(fetch(url_of(listening)))


@contextmanager
def tls_server(folder: Path) -> Iterator[tuple[str, str, list[int]]]:
    """A server over TLS: its address, the file that certifies it, and its connections."""
    pem, key = folder / "server.pem", folder / "server.key"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", pem],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem, key)
    connections: list[int] = []

    def answer(made: socket.socket) -> None:
        with context.wrap_socket(made, server_side=True) as secure:
            connections.append(1)
            while True:
                size = len(read_request(secure))
                body = b"%d " % size + b"x" * 300_000
                secure.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % len(body))
                secure.sendall(body)

    with raw_server(answer) as listening:
        yield f"https://localhost:{listening.getsockname()[1]}", str(pem), connections


def test_https_goes_over_the_same_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large bodies both ways, on one connection, with its times; a stranger is not trusted."""

    async def use(url: str) -> list[tuple[int, float, float]]:
        transport, seen = Transport(url), []
        for _ in range(3):
            REQUEST_TIMING.set(request_timing := RequestTiming())
            async with transport.stream("POST", "/", {"text": "x" * 1_000_000}) as stream:
                blocks = [(at, block) async for at, block in stream.blocks]
            network: Any = stream._response.extensions["network_stream"]
            assert isinstance(network, timing.TLSTimestampStream)
            assert network.get_extra_info("ssl_object").version() >= "TLSv1.2"
            stamps = [at for at, _ in blocks]
            assert stamps == sorted(stamps)
            body = b"".join(block for _, block in blocks)
            assert int(body.split()[0]) > 1_000_000
            seen.append((len(body), stamps[0], request_timing.connect_s))
        await transport.close()
        return seen

    with tls_server(tmp_path) as (url, certificate, connections):
        with pytest.raises(errors.ConnectionError, match="CERTIFICATE_VERIFY_FAILED"):
            asyncio.run(fetch(url))
        monkeypatch.setenv("SSL_CERT_FILE", certificate)
        seen = asyncio.run(use(url))
    assert len(connections) == 1
    assert all(size > 300_000 and at >= 0 for size, at, _ in seen)
    assert seen[0][2] > 0
    assert seen[1][2] == seen[2][2] == 0


def test_a_handshake_that_does_not_end_is_given_up() -> None:
    """After the time for a connection; one that ends halfway is an error at once."""
    with raw_server(lambda made: made.recv(1) and time.sleep(2)) as listening:  # type: ignore[func-returns-value]
        url = url_of(listening).replace("http:", "https:")
        with pytest.raises(errors.ConnectionError, match="TLS handshake"):
            asyncio.run(fetch(url, wait_s=0.1))
    with raw_server(lambda made: made.close()) as listening:
        url = url_of(listening).replace("http:", "https:")
        with pytest.raises(errors.ConnectionError):
            asyncio.run(fetch(url))
