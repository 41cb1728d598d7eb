"""A model that a server of one's own must load first: told while its answer is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from llm_magics.providers import streaming
from llm_magics.providers.base import ModelInfo
from llm_magics.providers.ollama import OllamaConfig, OllamaProvider
from llm_magics.providers.streaming import loading_message
from tests.support.fake_ollama import CHAT, FakeOllama
from tests.support.kernels import Kernel
from tests.support.serving import Asked, Says, Server, serving


@pytest.fixture
def fake() -> FakeOllama:
    """A server with models, none of them in memory."""
    return FakeOllama()


@pytest.fixture
def server(fake: FakeOllama) -> Iterator[Server]:
    """Where it listens."""
    with serving(fake) as running:
        yield running


def said(url: str, model: str, times: int = 1) -> list[str]:
    """What is shown before ``model`` is asked, ``times`` times by one provider."""

    async def prepared() -> list[str]:
        async with OllamaProvider(OllamaConfig(base_url=url)) as provider:
            return [
                str(progress)
                for _ in range(times)
                async for progress in provider.prepare(model, "chat")
            ]

    return asyncio.run(prepared())


def test_a_model_on_disk_is_said_to_be_loading(server: Server, fake: FakeOllama) -> None:
    """With its size; of one in memory, or asked a moment ago, nothing is said."""
    assert said(server.url, CHAT) == [f"loading {CHAT}, 98 MB"]
    assert said(server.url, f"ollama/{CHAT}", times=3) == [f"loading {CHAT}, 98 MB"]
    fake.loaded.add(CHAT)
    assert said(server.url, CHAT) == []
    assert said(server.url, "missing:1b") == []


def test_a_server_that_is_slow_or_wrong_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The call itself says what is wrong."""
    monkeypatch.setattr(streaming, "_LOOKUP_TIMEOUT_S", 0.1)
    wrong, lost, slow = Says([b"no"], 500, "text/plain"), Says(drop=True), Says(delay_s=60)
    for says, right in (
        (wrong, ("/api/version",)),
        (lost, ("/api/version",)),
        (slow, ("/api/version", "/api/ps")),  # they are asked before, and waited for
    ):
        with serving(lambda asked, says=says, right=right: _answer(asked, says, right)) as server:  # type: ignore[misc]
            assert said(server.url, CHAT) == []


def _answer(asked: Asked, says: Says, right: tuple[str, ...]) -> Says:
    return FakeOllama()(asked) if asked.path in right else says


def test_sizes_are_in_the_unit_that_fits() -> None:
    """Gigabytes from one on."""
    assert loading_message(ModelInfo("m", size_bytes=4_900_000_000)) == "loading m, 4.9 GB"
    assert loading_message(ModelInfo("m", size_bytes=98_000_000)) == "loading m, 98 MB"
    assert loading_message(ModelInfo("m")) == "loading m"


def test_the_cell_shows_it(server: Server, watched_kernel: Kernel) -> None:
    """Where somebody watches, until the answer takes its place."""
    watched_kernel.run(f"%llm config providers.ollama.base_url {server.url}")
    done = watched_kernel.run(f"%%llm ollama/{CHAT}\nhi")
    shown = [message["content"]["data"].get("text/html", "") for message in done.messages if "data" in message["content"]]  # fmt: skip
    assert "98 MB" in shown[0]
    assert "loading" not in done.shown
