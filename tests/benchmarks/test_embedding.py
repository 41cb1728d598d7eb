"""What vectors cost: CPU, memory, and the time to have them again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.conftest import Record, server_of
from tests.benchmarks.embedding import OVER_BARE, UNDER_OPENAI
from tests.support.nested import plain_environment

ROOT = Path(__file__).parents[2]


def test_vectors_cost_little_more_than_reading_them(record: Record) -> None:
    """CPU a row of 1,536 numbers, the share of a server's limit, kept rows, and memory."""
    with server_of("embed_server", "1536") as url, server_of("embed_server", "384") as wide_url:
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.embedding", url, wide_url],
            cwd=ROOT,
            env=plain_environment(),
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    told = json.loads(done.stdout)
    for name in ("bare", "ours", "openai"):
        record(f"CPU per vector of 1,536: {name}", f"{told[name] * 1e6:.0f} us", "")
    over_bare, under_openai = OVER_BARE.ratio(told), UNDER_OPENAI.ratio(told)
    record("  ours / bare httpx + json + base64", f"{over_bare:.2f}", "at most 1.1")
    record("  openai client / ours", f"{under_openai:.2f}", "at least 3")
    record(
        "share of a server's limit (5 ms + 0.2 ms a row)", f"{told['limit']:.0%}", "at least 90 %"
    )
    record("200,000 kept rows come back, rows/s", f"{told['cached']:,.0f}", "at least 200,000")
    record("peak memory of 200,000 x 384 over the result", f"{told['memory']:.2f}", "at most 1.5")
    assert OVER_BARE.is_met(over_bare)
    assert UNDER_OPENAI.is_met(under_openai)
    assert told["limit"] >= 0.9
    assert told["memory"] <= 1.5
