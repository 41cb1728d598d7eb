"""OpenAI's embeddings, live and in batch jobs, with a time that passes only while a job is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

import llm_magics as lm
from llm_magics.providers.openai import OpenAIProvider
from llm_magics.runtime.jobs import clock
from tests.support.batch_answers import openai_answer, tokens_in
from tests.support.batch_fakes import Request
from tests.support.fake_openai_batches import FakeBatches
from tests.support.serving import Asked, Says, as_json, serving

MODEL = "openai/embedding-model"


@dataclass
class World:
    """
    The service.

    Attributes:
        fake: its batch jobs.
        live: the live requests.
    """

    fake: FakeBatches
    live: list[Asked]

    def sent(self) -> list[str]:
        """The texts in all jobs, in their order."""
        jobs = self.fake.jobs.values()
        return [request.body["input"][0] for job in jobs for request in job.requests]


@contextmanager
def embedding_world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Serve the service, as the provider ``openai`` with a price."""
    fake = FakeBatches("openai")
    world = World(fake, [])

    async def sleep(self: clock.Clock, seconds: float) -> None:
        fake.clock.advance(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr(clock.Clock, "now", lambda self: fake.clock())
    monkeypatch.setattr(clock.Clock, "sleep", sleep)
    monkeypatch.setattr(OpenAIProvider, "price_list", "openai")

    def answer(asked: Asked) -> Says:
        if asked.path == "/v1/embeddings":
            world.live.append(asked)
            return as_json(openai_answer(Request("live", "/v1/embeddings", asked.json())).body)
        return fake(asked)

    with serving(answer) as server:
        settings = {
            "base_url": f"{server.url}/v1",
            "api_key": "a-key-of-the-test",
            "profile": "openai",
        }
        lm.config.providers = {"openai": settings}
        lm.config.prices = {MODEL: {"input_usd": 0.02}}
        yield world


def batch_price(texts: Sequence[str]) -> float:
    """The cost of texts in a job, in US dollars: half of two cents for a million tokens."""
    return sum(tokens_in([text]) for text in texts) * 0.01 / 1e6
