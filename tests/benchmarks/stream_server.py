"""
Streams the same long answer to whoever asks, in the format of the address asked for.

A process of its own: its work is not counted.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
import struct
import sys
from typing import Any

from tests.support.serving import chat_stream

CHUNKS = 4000
# Who asks for this gets one token, and then a silence.
SLOWLY, PAUSE_S = "slowly", 0.03
VECTORS, DIMENSIONS = 1000, 768

TOKENS = [f" token{n % 10}" for n in range(CHUNKS)]


def events(*told: dict[str, Any]) -> list[bytes]:
    """Named events, as OpenAI's Responses and Anthropic's Messages have them."""
    return [
        f"event: {each['type']}\ndata: {json.dumps(each, separators=(',', ':'))}\n\n".encode()
        for each in told
    ]


def messages() -> list[bytes]:
    """An answer in Anthropic's format."""
    usage = {"input_tokens": 32, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0, "output_tokens": 1}  # fmt: skip
    deltas = [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": token}}
        for token in TOKENS
    ]
    return events(
        {"type": "message_start", "message": {"id": "msg_1", "usage": usage, "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *deltas,
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": CHUNKS}},
        {"type": "message_stop"},
    )  # fmt: skip


def responses() -> list[bytes]:
    """An answer in the format of OpenAI's Responses."""
    deltas = [
        {"type": "response.output_text.delta", "content_index": 0, "delta": token, "item_id": "msg_68b1d0f5", "logprobs": [], "obfuscation": "Zk3aQ9x", "output_index": 0, "sequence_number": n}
        for n, token in enumerate(TOKENS)
    ]  # fmt: skip
    last = {"status": "completed", "output": [], "usage": {"input_tokens": 32, "output_tokens": CHUNKS}}  # fmt: skip
    return events(*deltas, {"type": "response.completed", "response": last})


def lines() -> list[bytes]:
    """An answer in Ollama's format."""
    head = {"model": "smollm2:135m", "created_at": "2026-11-20T10:11:12.123456789Z"}
    told = [
        {**head, "message": {"role": "assistant", "content": token}, "done": False}
        for token in TOKENS
    ]
    last = {**head, "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop", "eval_count": CHUNKS, "prompt_eval_count": 32}  # fmt: skip
    return [json.dumps(each, separators=(",", ":")).encode() + b"\n" for each in (*told, last)]


def vectors() -> list[bytes]:
    """A thousand vectors in base64."""
    draw = random.Random(1)
    packed = [
        base64.b64encode(struct.pack(f"<{DIMENSIONS}f", *(draw.random() for _ in range(DIMENSIONS)))).decode()
        for _ in range(VECTORS)
    ]  # fmt: skip
    data = [{"object": "embedding", "index": n, "embedding": row} for n, row in enumerate(packed)]
    return [json.dumps({"data": data, "usage": {"prompt_tokens": 5000}}).encode()]


ANSWERS = {
    b"/v1/messages": ("text/event-stream", messages),
    b"/v1/responses": ("text/event-stream", responses),
    b"/api/chat": ("application/x-ndjson", lines),
    b"/v1/embeddings": ("application/json", vectors),
}


def answer(kind: str, pieces: list[bytes]) -> bytes:
    """All bytes of an answer, each piece a chunk of the transfer."""
    body = b"".join(f"{len(piece):x}\r\n".encode() + piece + b"\r\n" for piece in pieces)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nConnection: close\r\n".encode()
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"


async def serve() -> None:
    """Print the port, and answer until killed."""
    usual = answer("text/event-stream", chat_stream(*TOKENS))
    answers = {path: answer(kind, made()) for path, (kind, made) in ANSWERS.items()}

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: *(\d+)", request.lower())
        asked = await reader.readexactly(int(length[1]) if length else 0)
        if SLOWLY.encode() in asked:
            writer.write(usual[: usual.index(b"token1")])
            await asyncio.sleep(PAUSE_S)
            writer.close()
            return
        writer.write(answers.get(request.split(b" ", 2)[1], usual))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve())
