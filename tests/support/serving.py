"""A server that says exactly what a test wants, byte by byte, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Asked:
    """One request that came in."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body decoded."""
        return json.loads(self.body)


@dataclass
class Says:
    """
    One answer.

    ``pieces`` are written one by one, ``gap_s`` apart. With ``cut`` the connection ends
    without the end of the body; with ``hang`` it stays open and silent. With ``drop`` it
    ends before a byte was sent, and with ``delay_s`` the first byte comes late. With
    ``once`` it comes when that returns true. With ``times_s`` each piece is written at
    its time.
    """

    pieces: Sequence[bytes] = ()
    status: int = 200
    content_type: str = "text/event-stream"
    gap_s: float = 0.0
    cut: bool = False
    hang: bool = False
    drop: bool = False
    delay_s: float = 0.0
    once: Callable[[], bool] | None = None
    times_s: Sequence[float] = ()
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Server:
    """
    Where it listens, what it was asked, and whether the client hung up on it.

    ``most_at_once``: of requests that it answered at one time.
    """

    url: str
    asked: list[Asked] = field(default_factory=list)
    running: int = 0
    most_at_once: int = 0
    hung_up: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving(
    answer: Callable[[Asked], Says] | Says, tls: ssl.SSLContext | None = None
) -> Iterator[Server]:
    """Serve ``answer`` on a loopback port while the block runs; with ``tls`` over https."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = Server("")

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = await _read(reader)
            if asked is not None:
                server.asked.append(asked)
                server.running += 1
                server.most_at_once = max(server.most_at_once, server.running)
                says = answer if isinstance(answer, Says) else answer(asked)
                try:
                    await _write(reader, writer, says, server.hung_up)
                finally:
                    server.running -= 1
        except (ConnectionError, asyncio.IncompleteReadError):
            server.hung_up.set()
        except asyncio.CancelledError:  # the server stops, whoever still reads
            writer.transport.abort()
        finally:
            writer.close()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(handle, "127.0.0.1", 0, backlog=1000, ssl=tls)

    listening = asyncio.run_coroutine_threadsafe(start(), loop).result()
    host, port = listening.sockets[0].getsockname()[:2]
    server.url = f"http://{host}:{port}" if tls is None else f"https://localhost:{port}"
    try:
        yield server
    finally:

        async def stop() -> None:
            for each in listening.sockets:  # a server that is closed cannot attach a connection
                loop.remove_reader(each.fileno())
            for _ in range(3):  # a connection accepted just now gets its task first
                await asyncio.sleep(0)
            listening.close()
            tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(stop(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    start = await reader.readline()
    if not start:
        return None
    method, path, _ = start.decode().split(" ", 2)
    headers: dict[str, str] = {}
    while (line := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(method, path, headers, body)


async def _write(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    says: Says,
    hung_up: threading.Event,
) -> None:
    if says.drop:
        return
    await asyncio.sleep(says.delay_s)
    while says.once is not None and not says.once():  # noqa: ASYNC110 - any state may decide
        await asyncio.sleep(0.002)
    head = f"HTTP/1.1 {says.status} OK\r\nContent-Type: {says.content_type}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in says.headers.items())
    head += "Connection: close\r\n"  # so that no test leaves an idle connection behind
    writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
    started = asyncio.get_running_loop().time()
    for n, piece in enumerate(says.pieces):
        if says.times_s:
            await asyncio.sleep(started + says.times_s[n] - asyncio.get_running_loop().time())
        writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        await writer.drain()
        if says.gap_s:
            await asyncio.sleep(says.gap_s)
    if says.hang:
        await reader.read(1)  # nothing more is sent: this returns when the client hangs up
        hung_up.set()
    elif not says.cut:
        writer.write(b"0\r\n\r\n")
        await writer.drain()


def as_json(value: Any, status: int = 200) -> Says:
    """A JSON answer."""
    return Says([json.dumps(value).encode()], status, "application/json")


def chat_event(text: str | None = None, **more: Any) -> bytes:
    """One event of a streamed chat as llama.cpp writes it."""
    finish = more.pop("finish_reason", None)
    delta = {} if text is None else {"content": text}
    choices = [{"finish_reason": finish, "index": 0, "delta": delta}]
    event = {
        "choices": more.pop("choices", choices),
        "created": 1795362392,
        "id": "chatcmpl-YE0bou5OkbzI5WtNgEFjqxoeWc2fBynu",
        "model": "smollm2-135m.gguf",
        "system_fingerprint": "b0-unknown",
        "object": "chat.completion.chunk",
        **more,
    }
    return b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


def chat_stream(*tokens: str) -> list[bytes]:
    """A whole streamed chat as llama.cpp writes it: role, tokens, finish, usage, the end."""
    usage = {
        "completion_tokens": len(tokens),
        "prompt_tokens": 32,
        "total_tokens": 32 + len(tokens),
        "prompt_tokens_details": {"cached_tokens": 24},
    }
    timings = {"prompt_ms": 70.0, "predicted_ms": 15.0 * len(tokens), "predicted_n": len(tokens)}
    return [
        chat_event(choices=[{"finish_reason": None, "index": 0, "delta": {"role": "assistant", "content": None}}]),
        *(chat_event(token) for token in tokens),
        chat_event(finish_reason="stop"),
        chat_event(choices=[], usage=usage, timings=timings),
        b"data: [DONE]\n\n",
    ]  # fmt: skip


def free_port() -> int:
    """Return a port that is not in use."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
