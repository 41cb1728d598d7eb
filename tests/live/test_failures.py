"""The process of a model is killed while it answers, and is started again."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

import llm_magics as lm
from llm_magics import errors
from llm_magics.runtime.session import session
from tests.conftest import eventually
from tests.support.live import Target, model_processes, needs, slots, variable

pytestmark = [pytest.mark.live, needs("OLLAMA_HOST", "LIVE_OLLAMA_PIDS")]

LONG = "Count from 1 to 1000, with a comma after each number: 1, 2, 3, 4, 5, 6, 7, 8,"


def kill() -> None:
    """Kill every process that runs a model."""
    processes = model_processes()
    assert processes
    for process in processes:
        process.kill()
    for process in processes:
        process.wait(30)


def is_writing(target: Target) -> bool:
    """Whether an answer is under way, so that a kill hits a request and no pause."""
    return any(
        slot["is_processing"] and slot["next_token"][0]["n_decoded"] > 0 for slot in slots(target)
    )


@contextmanager
def killed_after(calls: int, target: Target | None = None) -> Iterator[None]:
    """Kill the models once so many calls have ended; what that breaks is not warned of."""

    def wait_and_kill() -> None:
        assert eventually(lambda: len(session.runs.frame()) >= calls, 120)
        assert target is None or eventually(lambda: is_writing(target), 120)
        kill()

    thread = threading.Thread(target=wait_and_kill)
    thread.start()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    thread.join()


@pytest.mark.parametrize("target", ["ollama", "ollama-chat", "ollama-messages"], indirect=True)
def test_a_stream_breaks_off_with_what_had_come(target: Target) -> None:
    """The error has it, is not repeated by itself, and the next call is answered."""
    asked = {**target.parameters, "max_tokens": 1500}
    stream = lm.stream(LONG, f"live/{target.chat}", **asked)
    next(chunk for chunk in stream if chunk.text)
    kill()
    with pytest.raises(errors.StreamInterrupted) as caught:
        list(stream)
    assert caught.value.partial.text
    assert caught.value.retryable
    assert len(lm.runs()) == 1
    assert lm.runs().error.notna().all()
    assert lm.ask("Hi", model=f"live/{target.chat}", **target.parameters).text


def test_answers_of_a_column_outlive_the_model(ollama: Target, tmp_path: Path) -> None:
    """What had begun is reported, the rest is answered, and later only the reported is sent."""
    lm.config.cache_dir = tmp_path
    lm.config.cache = True
    frame = pd.DataFrame({"n": [f"number {n}" for n in range(12)]})
    asked = {**ollama.parameters, "max_tokens": 60, "stop": ["."], "concurrency": 2}
    model = f"ollama/{ollama.chat}"
    lm.ask("Hi", model=model, **ollama.parameters)
    session.runs.clear()
    with killed_after(3, ollama):
        frame.llm.prompt("Say something of {{ n }}.", into="first", model=model, **asked)
    answered = frame["first"].notna()
    assert answered.sum() >= 3
    runs = lm.runs()
    assert runs.retries.any() or runs.error.notna().any()  # the kill hit a request
    assert (~answered).sum() <= asked["concurrency"]
    assert runs.error.notna().sum() == (~answered).sum()
    assert (frame.llm.report.frame().outcome != "ok").sum() == (~answered).sum()
    session.runs.clear()
    frame.llm.prompt("Say something of {{ n }}.", into="second", model=model, **asked)
    assert frame.second.notna().all()
    assert (frame.second[answered] == frame["first"][answered]).all()
    assert (~lm.runs().cached).sum() == (~answered).sum()


def test_vectors_outlive_the_model(ollama: Target) -> None:
    """What was embedded before the kill is not sent again."""
    texts = [f"text {n} of many " + "word " * (n % 7) for n in range(1200)]
    frame = pd.DataFrame({"text": texts})
    model = f"ollama/{ollama.embedding}"
    lm.embed(["warm"], model=model)
    session.runs.clear()
    with killed_after(1):
        first = frame.llm.embed("text", model=model, concurrency=1).vector.notna()
    assert first.any()
    session.runs.clear()
    frame.llm.embed("text", model=model)
    assert frame.vector.notna().all()
    assert frame.llm.report.sent == (~first).sum()


def test_a_dead_server_is_told_of(ollama: Target) -> None:
    """Where nobody listens the error names the address and how to start the server."""
    lm.config.providers = {"ollama": {"base_url": "http://127.0.0.1:9"}}
    lm.config.retries = 0
    with pytest.raises(errors.ConnectionError) as caught:
        lm.ask("Hi", model=f"ollama/{ollama.chat}")
    assert "127.0.0.1:9" in str(caught.value)
    assert "ollama serve" in str(caught.value.hint)
    assert variable("OLLAMA_HOST") not in str(caught.value)
