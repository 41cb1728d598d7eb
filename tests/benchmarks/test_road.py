"""What the road costs over the provider it leads to, and what a kept answer costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.conftest import Record
from tests.benchmarks.road import OVER_ALONE
from tests.support.nested import plain_environment

ROOT = Path(__file__).parents[2]


def test_the_road_costs_little(stream_url: str, record: Record) -> None:
    """Per chunk less than twice the provider alone; among a million answers as among thousand."""
    command = [sys.executable, "-m", "tests.benchmarks.road", stream_url]
    done = subprocess.run(
        command, cwd=ROOT, env=plain_environment(), check=True, stdout=subprocess.PIPE, text=True
    )
    told = json.loads(done.stdout)
    added = (told["road"] - told["alone"]) * 1e6
    record("the road over its provider, CPU per chunk", f"{added:.1f} us", "at most 25 us")
    added = (told["ttft_road"] - told["ttft_alone"]) * 1e3
    record("the same for the first token", f"{added:.1f} ms", "at most 3 ms")
    record("a cached answer of 200 pieces", f"{told['hit'] * 1e3:.2f} ms", "at most 2 ms")
    for kind in ("cache", "recording"):
        few, many = told["few"][kind], told["many"][kind]
        figure = f"{many * 1e6:.1f} / {few * 1e6:.1f} us"
        record(f"a look-up among 1,000,000 / 1,000 ({kind})", figure, "no slower")
    assert OVER_ALONE.is_met(OVER_ALONE.ratio(told))
    # The pages of a large file come from the disk's cache, and not from SQLite's own.
    assert told["many"]["cache"] <= 4 * told["few"]["cache"]
    assert told["many"]["recording"] <= 2 * told["few"]["recording"]
    assert told["many"]["cache"] <= told["hit"] / 10  # a look-up is little of a hit
