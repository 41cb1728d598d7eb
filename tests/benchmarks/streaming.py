"""
Reads one long stream in three ways and prints what each chunk cost, in seconds, as JSON.

A process of its own, so that neither a test runner nor a coverage tracer is measured too.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import httpx
import openai

import llm_magics as lm
from llm_magics.providers.local import LocalProvider
from llm_magics.providers.local.client import EngineClient
from llm_magics.runtime.session import session
from llm_magics.secrets import Secret
from tests.benchmarks.rounds import Bound, best_of
from tests.benchmarks.stream_server import CHUNKS
from tests.support.engines import ServedEngine

OVER_BARE = Bound("ours", "bare", 1.25)
UNDER_OPENAI = Bound("openai", "ours", 4, is_minimum=True)


def bare(url: str) -> str:
    """Only httpx and json."""

    async def read() -> str:
        text = []
        async with (
            httpx.AsyncClient() as client,
            client.stream("POST", f"{url}/v1/chat/completions", json={}) as response,
        ):
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    event = json.loads(line[6:])
                    if event["choices"]:
                        text.append(event["choices"][0]["delta"].get("content") or "")
        return "".join(text)

    return asyncio.run(read())


def ours(url: str) -> str:
    """The whole road: bridge, engine, provider, codec, transport."""
    return "".join(chunk.text for chunk in lm.stream("hi", model="local/smollm2-135m"))


def openai_client(url: str) -> str:
    """The official client, in its faster, synchronous form."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        return "".join(event.choices[0].delta.content or "" for event in stream if event.choices)


def ask_the_server(url: str) -> None:
    """Have the local provider talk to the server at ``url`` in place of an engine."""
    provider: Any = session.provider("local")
    assert isinstance(provider, LocalProvider)
    client = EngineClient(ServedEngine(url, Secret("k")), url, "m", max_tokens=1024)

    async def clients_of(model: str, capability: str) -> list[EngineClient]:
        return [client]

    async def prepare(model: str, capability: str) -> Any:
        return
        yield

    provider._clients_of = clients_of
    provider.prepare = prepare


def main(url: str) -> None:
    """Print what each reader needs for a chunk."""
    ask_the_server(url)

    def reader(read: Callable[[str], str]) -> Callable[[], None]:
        def checked() -> None:
            assert read(url).count("token") == CHUNKS

        return checked

    readers = {"bare": reader(bare), "ours": reader(ours), "openai": reader(openai_client)}
    best = best_of(readers, [OVER_BARE, UNDER_OPENAI])
    told = {name: seconds / CHUNKS for name, seconds in best.items()}
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
