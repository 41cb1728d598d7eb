"""What ``%load_ext llm_magics`` adds to the start of IPython."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from tests.benchmarks.conftest import Record
from tests.support.nested import plain_environment

ROUNDS = 7
IPYTHON = [sys.executable, "-m", "IPython", "--no-banner", "--quick", "-c"]


def start(code: str) -> float:
    """Seconds for IPython to start, run ``code`` and end."""
    started = time.perf_counter()
    subprocess.run([*IPYTHON, code], check=True, capture_output=True, env=plain_environment())
    return time.perf_counter() - started


def test_loading_adds_little_to_a_start(record: Record) -> None:
    """A quarter of a bare start at the most; the milliseconds are printed, not asserted."""
    start("%load_ext llm_magics")  # compiles the bytecode
    pairs = [(start("pass"), start("%load_ext llm_magics")) for _ in range(ROUNDS)]
    bare = statistics.median(bare for bare, _ in pairs)
    added = statistics.median(loaded - bare for bare, loaded in pairs)
    record("%load_ext added to a start of IPython", f"{added * 1000:.0f} ms", "")
    record("  bare start", f"{bare * 1000:.0f} ms", "")
    record("  added / bare", f"{added / bare:.2f}", "at most 0.25")
    assert added / bare <= 0.25
