"""What a chunk costs in each format, and a vector: against a bare loop over the same bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.codecs import FORMATS, MOST, MOST_VECTORS
from tests.benchmarks.conftest import Record
from tests.support.nested import plain_environment

ROOT = Path(__file__).parents[2]


def test_each_format_costs_little_more_than_reading_it(stream_url: str, record: Record) -> None:
    """Chunks at most 1.25 times a bare httpx-and-json loop, vectors in base64 at most 1.2 times."""
    command = [sys.executable, "-m", "tests.benchmarks.codecs", stream_url]
    done = subprocess.run(
        command, cwd=ROOT, env=plain_environment(), check=True, stdout=subprocess.PIPE, text=True
    )
    best = json.loads(done.stdout)
    for label, most in (*((name, MOST) for name in FORMATS), ("vectors", MOST_VECTORS)):
        ratio = best[f"{label} ours"] / best[f"{label} bare"]
        microseconds = best[f"{label} ours"] * 1e6
        record(f"{label}: ours / bare", f"{ratio:.2f}  ({microseconds:.1f} us)", f"at most {most}")
        assert ratio <= most, label
