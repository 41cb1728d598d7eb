"""What a streamed chunk costs: against a bare loop over the same bytes, and the openai client."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.conftest import Record
from tests.benchmarks.streaming import OVER_BARE, UNDER_OPENAI
from tests.support.nested import plain_environment

ROOT = Path(__file__).parents[2]


def test_a_chunk_costs_little_more_than_reading_it(stream_url: str, record: Record) -> None:
    """At most 1.25 times a bare loop, and at least 4 times less than the openai client."""
    command = [sys.executable, "-m", "tests.benchmarks.streaming", stream_url]
    done = subprocess.run(
        command, cwd=ROOT, env=plain_environment(), check=True, stdout=subprocess.PIPE, text=True
    )
    best = json.loads(done.stdout)
    for name, seconds in best.items():
        record(f"CPU per streamed chunk: {name}", f"{seconds * 1e6:.1f} us", "")
    over_bare, under_openai = OVER_BARE.ratio(best), UNDER_OPENAI.ratio(best)
    record("  ours / bare httpx + json", f"{over_bare:.2f}", "at most 1.25")
    record("  openai client / ours", f"{under_openai:.2f}", "at least 4")
    assert OVER_BARE.is_met(over_bare)
    assert UNDER_OPENAI.is_met(under_openai)
