"""What finding rows that say the same costs, against the product of matrices that it takes."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

import llm_magics as lm
from llm_magics.runtime.session import session
from tests.benchmarks.conftest import Record

ROWS, WIDTH, BLOCK = 20_000, 384, 2_000


def best_s(work: Callable[[], object]) -> float:
    """The shortest of three runs."""
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


def test_dedupe_takes_no_longer_than_one_product(record: Record) -> None:
    """At most 1.5 times the cosines of all rows with all rows, block by block."""
    vectors = np.random.default_rng(0).normal(size=(ROWS, WIDTH)).astype(np.float32)
    normed = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def product() -> None:
        for start in range(0, ROWS, BLOCK):
            _ = normed[start : start + BLOCK] @ normed.T >= 0.95

    product_s, dedupe_s = best_s(product), best_s(lambda: lm.dedupe(vectors))
    ratio = dedupe_s / product_s
    record("dedupe of 20,000 rows / one blocked product", f"{ratio:.2f}", "at most 1.5")
    assert ratio <= 1.5


def test_an_estimate_does_not_grow_with_the_log(record: Record) -> None:
    """A dry run after 16,000 calls takes at most twice what it takes after a few."""
    import pandas as pd

    frame = pd.DataFrame({"text": [f"row {number}" for number in range(200)]})

    def dry_run() -> None:
        frame.llm.prompt("{{ text }}", model="echo/echo", dry_run=True)

    lm.ask("hi", "echo/echo")
    few_s = best_s(dry_run)
    run = session.runs[-1]
    for _ in range(16_000):
        session.runs.add(run)
    many_s = best_s(dry_run)
    record("a dry run after 16,000 calls / after one", f"{many_s / few_s:.2f}", "at most 2")
    assert many_s <= 2 * few_s
