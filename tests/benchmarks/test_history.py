"""What the history adds to a cached answer, the cheapest call there is."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import llm_magics as lm
from llm_magics.runtime.session import session
from llm_magics.settings.config import config

CALLS, ROUNDS = 25, 60


def median_seconds() -> float:
    """The median time of a cached answer."""
    taken = []
    for _ in range(CALLS):
        began = time.perf_counter()
        lm.ask("Why is the sky blue?", system="You are helpful. " * 20)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def test_the_history_adds_little_to_a_cached_answer(tmp_path: Path) -> None:
    """At most half as long again; the quickest rounds count, as other programs delay the rest."""
    config.model, config.cache = "echo/echo", True
    median_seconds()  # the first call starts the event loop and opens the cache
    without, with_history = [], []
    for _ in range(ROUNDS):
        config.history = "off"
        without.append(median_seconds())
        config.history = tmp_path / "history.sqlite"
        with_history.append(median_seconds())
    assert session.history is not None
    session.history.close()
    ratio = min(with_history) / min(without)
    print(f"with the history: {ratio:.2f} of {min(without) * 1e3:.2f} ms")
    assert ratio <= 1.5
