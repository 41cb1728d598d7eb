"""A service with a live and a batch API for the rows of tests, and the time of both sides."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import llm_magics as lm
from llm_magics.runtime.jobs import clock
from tests.support.batch_answers import prompt_of
from tests.support.batch_fakes import Request
from tests.support.batch_files import CHAT
from tests.support.fake_openai_batches import SERVICES, FakeBatches
from tests.support.serving import Asked, Says, as_json, serving

KEY = "a-key-of-the-test"
MODEL = f"lab/{CHAT}"


class RowService:
    """
    OpenAI's batches, and live chats with the same answers.

    Attributes:
        batches: the fake of the batch API.
        live: the prompts that were answered live.
    """

    def __init__(self) -> None:
        self.batches = FakeBatches("openai")
        self.live: list[str] = []
        self.asked_live: list[dict[str, Any]] = []

    def __call__(self, asked: Asked) -> Says:
        if asked.path.endswith("/chat/completions"):
            body = {name: value for name, value in asked.json().items() if name != "stream"}
            self.asked_live.append(body)
            self.live.append(prompt_of(body))
            answer = self.batches.answer(Request("live", "/chat/completions", body))
            return as_json(answer.body, answer.status)
        return self.batches(asked)

    @property
    def submitted(self) -> list[list[str]]:
        """The prompts of each job, in the order of the rows."""
        return [
            [prompt_of(each.body) for each in job.requests] for job in self.batches.jobs.values()
        ]


class SharedClock(clock.Clock):
    """The time of a fake, which passes while a job is waited for."""

    def __init__(self, service: RowService) -> None:
        self._service = service

    def now(self) -> float:
        return self._service.batches.clock()

    async def sleep(self, seconds: float) -> None:
        self._service.batches.clock.advance(seconds)


@contextmanager
def row_service(monkeypatch: pytest.MonkeyPatch) -> Iterator[RowService]:
    """Serve it as the provider ``lab``, whose model is the default."""
    service = RowService()
    monkeypatch.setattr("llm_magics.runtime.jobs.run.Clock", lambda: SharedClock(service))
    with serving(service) as server:
        address = f"{server.url}{SERVICES['openai'].prefix}"
        lm.config.providers = {
            "lab": {"type": "openai", "profile": "openai", "base_url": address, "api_key": KEY}
        }
        lm.config.model = MODEL
        lm.config.cache_dir = "cache"
        lm.config.prices = {"lab/*": {"input_usd": 1.0, "output_usd": 4.0, "batch_share": 0.5}}
        yield service
