"""
Reads one long answer in every format, barely and by the provider for it, and prints what each
chunk cost, in seconds of processor time, as JSON; then the same for vectors in base64.

A process of its own, so that neither a test runner nor a coverage tracer is measured too.
"""

from __future__ import annotations

import array
import asyncio
import base64
import json
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

import httpx

from llm_magics import ChatMessage, ModelParameters
from llm_magics.providers import create_provider
from tests.benchmarks.rounds import Bound, best_of
from tests.benchmarks.stream_server import CHUNKS, VECTORS

# How many times as much as reading it barely a chunk, and a vector, may cost.
MOST, MOST_VECTORS = 1.25, 1.2

HI = [ChatMessage("user", "hi")]
STREAMED = ModelParameters(stream=True)


def chat_text(event: dict[str, Any]) -> str:
    """The text in an event of OpenAI's chat."""
    choices = event["choices"]
    return (choices[0]["delta"].get("content") or "") if choices else ""


def response_text(event: dict[str, Any]) -> str:
    """The same of its Responses."""
    return event["delta"] if event["type"] == "response.output_text.delta" else ""


def message_text(event: dict[str, Any]) -> str:
    """The same of Anthropic's Messages."""
    return event["delta"]["text"] if event["type"] == "content_block_delta" else ""


def line_text(event: dict[str, Any]) -> str:
    """The same of Ollama's lines."""
    return event["message"]["content"]


# By format: the provider, what sets it up, the path, and the text of an event read plainly.
FORMATS: dict[str, tuple[str, dict[str, str], str, Callable[[dict[str, Any]], str]]] = {
    "OpenAI chat": ("openai", {"end": "/v1"}, "/v1/chat/completions", chat_text),
    "OpenAI responses": ("openai", {"end": "/v1", "api": "responses"}, "/v1/responses", response_text),
    "Anthropic": ("anthropic", {}, "/v1/messages", message_text),
    "Ollama": ("ollama", {}, "/api/chat", line_text),
}  # fmt: skip


async def bare(url: str, path: str, text_of: Callable[[dict[str, Any]], str]) -> int:
    """Only httpx and json; the number of tokens in the text."""
    text = []
    async with (
        httpx.AsyncClient() as client,
        client.stream("POST", f"{url}{path}", json={}) as response,
    ):
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                text.append(text_of(json.loads(line[6:])))
            elif line.startswith("{"):
                text.append(text_of(json.loads(line)))
    return "".join(text).count("token")


async def ours(url: str, name: str, settings: dict[str, str]) -> int:
    """The provider: transport, codec, and the guard over both."""
    given = {key: value for key, value in settings.items() if key != "end"}
    provider = create_provider(name, base_url=url + settings.get("end", ""), api_key="k", **given)
    answer = await provider.generate_chat(HI, "m", STREAMED)
    assert isinstance(answer, AsyncGenerator)
    text = "".join([chunk.text async for chunk in answer])
    await provider.close()
    return text.count("token")


async def bare_vectors(url: str) -> int:
    """Only httpx, json and base64."""
    async with httpx.AsyncClient() as client:
        reply = await client.post(f"{url}/v1/embeddings", json={"input": ["text"] * VECTORS})
    rows = json.loads(reply.content)["data"]
    return len([array.array("f", base64.b64decode(row["embedding"])).tolist() for row in rows])


async def our_vectors(url: str) -> int:
    """The provider."""
    provider = create_provider("openai", base_url=f"{url}/v1", api_key="k", profile="openai")
    vectors = await provider.generate_embeddings(["text"] * VECTORS, "m")
    await provider.close()
    return len(vectors)


def main(url: str) -> None:
    """Print what each reader needs for a chunk, or for a vector; format by format."""
    told = {}
    for label, (name, settings, path, text_of) in FORMATS.items():
        readers = {
            f"{label} bare": checked(lambda: bare(url, path, text_of), CHUNKS),  # noqa: B023
            f"{label} ours": checked(lambda: ours(url, name, settings), CHUNKS),  # noqa: B023
        }
        bounds = [Bound(f"{label} ours", f"{label} bare", MOST)]
        best = best_of(readers, bounds)
        told |= {each: seconds / CHUNKS for each, seconds in best.items()}
    readers = {
        "vectors bare": checked(lambda: bare_vectors(url), VECTORS),
        "vectors ours": checked(lambda: our_vectors(url), VECTORS),
    }
    best = best_of(readers, [Bound("vectors ours", "vectors bare", MOST_VECTORS)])
    told |= {each: seconds / VECTORS for each, seconds in best.items()}
    sys.stdout.write(json.dumps(told) + "\n")


def checked(read: Callable[[], Coroutine[Any, Any, int]], pieces: int) -> Callable[[], None]:
    """A reader that must have read ``pieces``."""

    def run() -> None:
        assert asyncio.run(read()) == pieces

    return run


if __name__ == "__main__":
    main(sys.argv[1])
