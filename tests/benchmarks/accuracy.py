"""
How far ``lm.bench`` is off, against a server that says when it wrote each token.

    python -m tests.benchmarks.accuracy URL

Prints for each number of requests at once the errors of TTFT and of gaps between tokens, in
milliseconds: the median and the 99th percentile, and how busy this process was.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np

import llm_magics as lm

# So many at once, of so many tokens with so much between them.
LOADS = {1: "60-20", 8: "60-20", 64: "60-40"}
ANSWERS = 3


def errors_of(runs: Any) -> tuple[list[float], list[float]]:
    """Of each first token, and of each gap, in milliseconds."""
    firsts, gaps = [], []
    for row in runs.itertuples():
        came, _, rest = row.text.partition("/")
        wrote = np.array(rest.split(), float)
        read = np.array(
            [at for at, kind in zip(row.times_s, row.kinds, strict=True) if kind == "a"]
        )
        assert len(read) == len(wrote) == row.output_tokens
        firsts.append((row.ttft_s - (wrote[0] - float(came))) * 1000)
        gaps += list((np.diff(read) - np.diff(wrote)) * 1000)
    return firsts, gaps


def main(url: str) -> None:
    """Print the errors."""
    lm.config.providers = {"lab": {"type": "openai", "base_url": f"{url}/v1", "api_key": "k"}}
    told = {}
    for at_once, model in LOADS.items():
        runs = lm.bench(
            models=f"lab/{model}", concurrency=at_once, requests=max(8, ANSWERS * at_once)
        )
        assert runs.error.isna().all()
        firsts, gaps = errors_of(runs)
        told[at_once] = {
            "ttft": [float(np.percentile(np.abs(firsts), p)) for p in (50, 99)],
            "itl": [float(np.percentile(np.abs(gaps), p)) for p in (50, 99)],
            "client_cpu": float(runs.client_cpu.max()),
        }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
