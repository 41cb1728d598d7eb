"""Streams the same long chat to whoever asks. A process of its own: its work is not counted."""

from __future__ import annotations

import asyncio
import re
import sys

from tests.serving import chat_stream

CHUNKS = 4000


async def serve() -> None:
    """Print the port, and answer until killed."""
    events = chat_stream(*(f" token{n % 10}" for n in range(CHUNKS)))
    body = b"".join(f"{len(event):x}\r\n".encode() + event + b"\r\n" for event in events)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
    answer = head + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", request.lower())
        await reader.readexactly(int(length[1]) if length else 0)
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
