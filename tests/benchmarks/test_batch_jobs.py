"""Batch jobs over a million rows: the requests, the memory, and the speed of reading results."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.conftest import Record
from tests.support.nested import plain_environment


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process from /proc")
def test_a_million_rows_cost_their_different_prompts_and_little_memory(record: Record) -> None:
    """Each different row is submitted once, and the peak is half of the frame and the column."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.batch_million"],
        cwd=Path(__file__).parents[2],
        env=plain_environment(),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    told = json.loads(done.stdout)
    submitted = f"{told['billed']:,}"
    record("requests for 1,000,000 rows, 100,000 of them different", submitted, "100,000")
    record(
        "peak memory over the column, as a share of the frame",
        f"{told['share']:.2f}",
        "at most 0.5",
    )
    record("results read and validated a minute", f"{told['results_per_min']:,.0f}", "")
    record("  CPU of reading over json and sqlite3 alone", f"{told['ratio']:.0f}", "at most 40")
    assert told["billed"] == told["different"] == 100_000
    assert told["share"] <= 0.5
    assert told["ratio"] <= 40
