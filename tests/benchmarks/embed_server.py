"""A server of embeddings in OpenAI's format, as fast as can be, or as slow as it is told to be."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
import struct
import sys

# What a request takes the slow one, which answers one after the other: seconds, and a row.
BASE_S, ROW_S = 0.005, 0.0002


def row_of(dimensions: int) -> bytes:
    """One vector as it stands in an answer, without its number."""
    draw = random.Random(1)
    packed = struct.pack(f"<{dimensions}f", *(draw.random() for _ in range(dimensions)))
    return b'"object":"embedding","embedding":"' + base64.b64encode(packed) + b'"'


async def serve(dimensions: int) -> None:
    """Print the port, and answer until killed; under ``/slow`` at its own pace."""
    row = row_of(dimensions)
    turn = asyncio.Lock()

    def answer(count: int) -> bytes:
        rows = b",".join(b'{"index":%d,%s}' % (number, row) for number in range(count))
        body = b'{"object":"list","data":[%s],"usage":{"prompt_tokens":%d}}' % (rows, count)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        return head % len(body) + body

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                request = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            length = re.search(rb"content-length: *(\d+)", request.lower())
            asked = await reader.readexactly(int(length[1]) if length else 0)
            count = len(json.loads(asked)["input"])
            if request.startswith(b"POST /slow"):
                async with turn:
                    await asyncio.sleep(BASE_S + ROW_S * count)
            writer.write(answer(count))
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0, limit=2**24)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
