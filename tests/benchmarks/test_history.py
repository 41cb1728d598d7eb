"""What the history adds to a cached answer, the cheapest call there is."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import llm_magics as lm
from llm_magics.runtime.session import session
from llm_magics.settings.config import config

CALLS, ROUNDS = 25, 60


def call_seconds() -> list[float]:
    """The times of cached answers."""
    taken = []
    for _ in range(CALLS):
        began = time.perf_counter()
        lm.ask("Why is the sky blue?", system="You are helpful. " * 20)
        taken.append(time.perf_counter() - began)
    return taken


def quick(seconds: list[float]) -> float:
    """The time that a tenth of the calls take at most; other programs delay the rest."""
    return statistics.quantiles(seconds, n=10)[0]


def test_the_history_adds_little_to_a_cached_answer(tmp_path: Path) -> None:
    """At most half as long again."""
    config.model, config.cache = "echo/echo", True
    call_seconds()  # the first call starts the event loop and opens the cache
    without, with_history = list[float](), list[float]()
    for _ in range(ROUNDS):
        config.history = "off"
        without += call_seconds()
        config.history = tmp_path / "history.sqlite"
        with_history += call_seconds()
    assert session.history is not None
    session.history.close()
    ratio = quick(with_history) / quick(without)
    print(f"with the history: {ratio:.2f} of {quick(without) * 1e3:.2f} ms")
    assert ratio <= 1.5
