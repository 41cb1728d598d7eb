"""The hint after the first answer of the starter model."""

from __future__ import annotations

import time

import pytest

import llm_magics as lm
from llm_magics.notebook.next_step import NextStep
from llm_magics.runtime.session import session
from tests.support.fake_ollama import FakeOllama
from tests.support.kernels import Kernel
from tests.support.serving import serving


def hint_of(step: NextStep) -> str:
    """The hint, once it has been found."""
    step.begin()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        hint = step.take()
        if hint is not None:
            return hint
        time.sleep(0.01)
    msg = "no hint was found"
    raise AssertionError(msg)


@pytest.fixture
def no_servers() -> None:
    """No local server listens: port 9 discards."""
    lm.config.providers = {
        name: {"base_url": "http://127.0.0.1:9"} for name in ("ollama", "lmstudio")
    }


def test_a_running_server_is_named_with_its_best_chat_model() -> None:
    """The line selects the model; embedding models are no candidates."""
    with serving(FakeOllama()) as server:
        lm.config.providers = {
            "ollama": {"base_url": server.url},
            "lmstudio": {"base_url": "http://127.0.0.1:9"},
        }
        hint = hint_of(NextStep(session))
    assert hint.startswith("Ollama is running with ")
    assert "all-minilm" not in hint
    assert "%llm use ollama/" in hint


def test_a_key_that_is_set_is_named(no_servers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its variable and its provider, not its value; nothing is sent to the service."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-secret-value")
    hint = hint_of(NextStep(session))
    assert "ANTHROPIC_API_KEY is set" in hint
    assert "%llm use anthropic/" in hint
    assert "secret" not in hint


def test_without_either_the_ways_to_better_models_are_named(no_servers: None) -> None:
    """A local server, or a key; and only once."""
    step = NextStep(session)
    assert step.take() is None
    assert "%llm key openai" in hint_of(step)
    assert step.take() is None


def test_only_a_watched_notebook_shows_it_once(watched_kernel: Kernel, kernel: Kernel) -> None:
    """After an answer of the starter model; not of others, and not with ``footer = never``."""
    cell = "%%llm --max-tokens 2 --temperature 0\nhi"
    assert "llm_magics_transient" not in str(kernel.run(cell).outputs)
    hints = []
    for run in (
        "%%llm echo/echo\nhi",
        "%llm config footer never",
        cell,
        "%llm config footer auto",
        cell,
        cell,
        cell,
    ):
        outputs = watched_kernel.run(run).outputs
        hints.append(
            sum(each.get("metadata", {}).get("llm_magics_transient") == "hint" for each in outputs)
        )
    assert hints[:4] == [0, 0, 0, 0]
    assert sum(hints) == 1
