"""
Streams answers at a steady pace, and writes into each token when it wrote it.

The clock is that of `time.perf_counter`, which on Linux is the same in all processes. The first
token also says when the request had come in. A process of its own.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import sys
import time

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(body: dict[str, object]) -> bytes:
    """One event, as a chunk of the transfer."""
    data = b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def piece(text: str, finish: str | None = None) -> bytes:
    """A piece of an answer in OpenAI's format."""
    choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
    head = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1795362392,
        "model": "paced",
    }
    return event({**head, "choices": [choice]})  # fmt: skip


def last(tokens: int) -> bytes:
    """The usage, and the end."""
    usage = {"prompt_tokens": 8, "completion_tokens": tokens, "total_tokens": 8 + tokens}
    return event({"choices": [], "usage": usage}) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


async def answer(writer: asyncio.StreamWriter, came: float, tokens: int, gap_s: float) -> None:
    """``tokens`` of them, ``gap_s`` apart; in bursts as fast as they are read with no gap."""
    writer.write(HEAD)
    due = came
    for number in range(tokens):
        due += gap_s
        if gap_s:
            await asyncio.sleep(due - time.perf_counter())
        told = f"{came:.7f}/" if not number else ""
        writer.write(piece(f"{told}{time.perf_counter():.7f} "))
        if not gap_s:
            await writer.drain()
    writer.write(piece("", "stop") + last(tokens))
    await writer.drain()


async def serve(certificate: str = "", key: str = "") -> None:
    """
    Print the port, and answer until killed; the model's name is ``TOKENS-MILLISECONDS``.

    With a certificate and its key, over TLS.
    """
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            came = time.perf_counter()
            if head.startswith(b"GET"):  # some ask first who is there
                told = b'{"object":"list","data":[{"id":"paced","object":"model"}]}'
                writer.write(
                    f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(told)}\r\n\r\n".encode()
                    + told
                )
                continue
            length = re.search(rb"content-length: *(\d+)", head.lower())
            asked = json.loads(await reader.readexactly(int(length[1]) if length else 0))
            tokens, _, gap_ms = asked["model"].partition("-")
            await answer(writer, came, int(tokens), float(gap_ms) / 1000)

    async def quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(quietly, "127.0.0.1", 0, backlog=1000, ssl=context)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
