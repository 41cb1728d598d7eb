"""A million rows in batch jobs: the requests, the memory, and the speed of reading. Prints JSON."""

from __future__ import annotations

import functools
import gc
import json
import re
import sqlite3
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

import llm_magics as lm
from llm_magics.runtime.jobs.clock import Clock
from llm_magics.runtime.jobs.driver import Driver
from tests.support.batch_fakes import BatchFake
from tests.support.batch_files import CHAT
from tests.support.batch_process import FakeProcess, serving_apart
from tests.support.batch_services import KEY
from tests.support.kills import SharedClock, SharedTime, create_fake

ROWS, UNIQUE = 1_000_000, 100_000

# Transactions of the same size as those of the product.
_RESULTS = 256

WORDS = [
    "the",
    "battery",
    "lasts",
    "two",
    "days",
    "but",
    "screen",
    "is",
    "too",
    "dark",
    "outside",
    "and",
    "I",
    "would",
    "buy",
    "it",
    "again",
]


def reviews() -> pd.DataFrame:
    """Return a million reviews of about 300 characters, of which 100,000 are different."""
    draw = np.random.default_rng(1)
    drawn = np.array(WORDS)[draw.integers(0, len(WORDS), (UNIQUE, 60))].tolist()
    texts = [f"{number}: {' '.join(words)}" for number, words in enumerate(drawn)]
    return pd.DataFrame({"text": [texts[number % UNIQUE] for number in range(ROWS)]})


def resident_bytes(name: str) -> int:
    """Return ``VmRSS``, or ``VmHWM`` for its peak."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text("ascii"))
    assert found is not None
    return int(found[1]) * 1024


def reset_peak() -> None:
    """Let the peak start at the present level."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


class ReadMeter:
    """CPU and wall time while the results of any job are read."""

    def __init__(self) -> None:
        self.cpu_s = self.wall_s = 0.0
        self._reading = 0
        read, meter = Driver.read, self

        async def timed(self: Driver) -> None:
            meter._count(1)
            await read(self)
            meter._count(-1)

        Driver.read = timed  # type: ignore[method-assign]

    def _count(self, change: int) -> None:
        """Add the time before the first reader begins, and subtract it after the last one ends."""
        self._reading += change
        if self._reading == max(0, change):
            self.cpu_s -= change * time.process_time()
            self.wall_s -= change * time.perf_counter()


def bare_cpu_s(lines: list[bytes]) -> float:
    """Return the CPU time of json and sqlite3 alone for the same results."""
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder) / "bare.sqlite", isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE answers (key BLOB PRIMARY KEY, value BLOB)")
        began = time.process_time()
        for start in range(0, len(lines), _RESULTS):
            rows = []
            for line in lines[start : start + _RESULTS]:
                result = json.loads(line)
                answer = json.loads(result["response"]["body"]["choices"][0]["message"]["content"])
                rows.append((result["custom_id"].encode(), json.dumps(answer).encode()))
            connection.execute("BEGIN")
            connection.executemany("INSERT INTO answers VALUES (?, ?)", rows)
            connection.execute("COMMIT")
        cpu_s = time.process_time() - began
        connection.close()
    return cpu_s


def result_lines(fake: BatchFake) -> list[bytes]:
    """Return the lines of the results, as the service sends them."""
    lines = []
    for job in fake.jobs.values():
        for request, answer in fake.results(job):
            assert answer is not None
            response = {"status_code": 200, "request_id": "req", "body": answer.body}
            line = {"id": "b", "custom_id": request.custom_id, "response": response, "error": None}
            lines.append(json.dumps(line).encode())
    return lines


def count_billed(fake: BatchFake) -> tuple[int, int]:
    """Return the number of billed requests, and of different ones."""
    texts = [json.dumps(request.body) for request in fake.billed()]
    return len(texts), len(set(texts))


def main(fake: FakeProcess, clock: SharedClock) -> None:
    """Classify the reviews in batch jobs."""
    shared_time = SharedTime(clock)
    cast("Any", Clock).now = lambda _: shared_time.now()
    cast("Any", Clock).sleep = lambda _, seconds: shared_time.sleep(seconds)
    lm.config.cache_dir = Path(tempfile.mkdtemp())
    lm.config.providers = {
        "lab": {
            "type": "openai",
            "profile": "openai",
            "base_url": f"{fake.url}/v1",
            "api_key": KEY,
        }
    }
    labels = ["positive", "negative"]
    options: dict[str, Any] = {"model": f"lab/{CHAT}", "batch": True, "yes": True}
    small = pd.DataFrame({"text": ["first", "second"]})
    small["label"] = small.text.llm.classify(labels, **options)  # imports, connections
    fake.do(BatchFake.reset)
    frame = reviews()
    frame_bytes = int(frame.memory_usage(deep=True).sum())
    gc.collect()
    meter = ReadMeter()
    threads = threading.active_count()
    before = resident_bytes("VmRSS")
    reset_peak()
    began = time.perf_counter()
    column = lm.classify(frame.text, labels, **options)
    seconds = time.perf_counter() - began
    peak = resident_bytes("VmHWM") - before
    assert isinstance(column, pd.Series)
    column_bytes = int(column.memory_usage(deep=True, index=False))
    assert column.notna().all()
    billed, different = fake.do(count_billed)
    lines = fake.do(result_lines)
    bare_s = bare_cpu_s(lines)
    told = {
        "billed": billed,
        "different": different,
        "frame_mb": frame_bytes / 1e6,
        "column_mb": column_bytes / 1e6,
        "peak_mb": peak / 1e6,
        "share": (peak - column_bytes) / frame_bytes,
        "seconds": seconds,
        "results_per_min": UNIQUE / meter.wall_s * 60,
        "read_cpu_s": meter.cpu_s,
        "bare_cpu_s": bare_s,
        "ratio": meter.cpu_s / bare_s,
        "threads": threads,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    path = Path(tempfile.mkdtemp()) / "clock"
    shared = SharedClock(path)
    with serving_apart(functools.partial(create_fake, "openai", path)) as served:
        main(served, shared)
        sys.stdout.flush()
