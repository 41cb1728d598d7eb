"""
The history with 1,000,000 runs: ``python -m tests.benchmarks.history_million FOLDER``.

It fills a file once (1 GB, 10 to 30 minutes), and prints the seconds of the queries that must take less
than a second, of storing a call on the caller's path, and the size of the file.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from llm_magics.runtime.history import queries
from llm_magics.runtime.history.database import insert_entries, open_history
from llm_magics.runtime.history.entries import Details
from llm_magics.runtime.history.retention import Limits
from llm_magics.runtime.history.writer import History
from llm_magics.runtime.response import Response
from llm_magics.types import ChatMessage
from tests.support.runs import run_at

RUNS = 1_000_000
STEP = 10_000
MODELS = [f"openai/model-{number}" for number in range(20)]
WORDS = [f"word{number}" for number in range(20_000)]


def entries(first: int, count: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Yield entries of two years, with prompts of 20 and answers of 40 words."""
    start = datetime(2025, 1, 1, tzinfo=UTC)
    for number in range(first, first + count):
        moment = start + timedelta(minutes=number)
        words = rng.choices(WORDS, k=60)
        if rng.random() < 0.01:
            words[5] = "refund"
        yield {
            "id": f"{number:021x}",
            "time": f"{moment:%Y-%m-%d %H:%M:%S.%f}",
            "provider": "openai",
            "model": rng.choice(MODELS),
            "kind": "chat",
            "input_tokens": 30,
            "output_tokens": 60,
            "cost_usd": 0.001,
            "cached": False,
            "retries": 0,
            "finish_reason": "stop",
            "notebook": "reviews.ipynb",
            "parameters": {"temperature": 0},
            "messages": [
                {"role": "system", "content": "You are helpful. " * 20},
                {"role": "user", "content": " ".join(words[:20])},
            ],
            "answer": {"chunks": [[0.0, " ".join(words[20:])]]},
        }


def fill(path: Path) -> int:
    """Store the runs that the file does not have, and return their number."""
    with closing(open_history(path)) as connection:
        known = connection.execute("SELECT count(*) FROM run").fetchone()[0]
        for first in range(known, RUNS, STEP):
            insert_entries(connection, entries(first, STEP, random.Random(first)))
    return max(0, RUNS - known)


def add_seconds(path: Path) -> list[float]:
    """Return the seconds that storing a call takes, for 1,000 calls."""
    history = History(path, Limits(max_bytes=20_000_000_000, max_days=100_000))
    taken = []
    for number in range(1_000):
        messages = (
            ChatMessage("system", "You are helpful. " * 20),
            ChatMessage("user", f"{number}"),
        )
        answer = Response("word " * 40, model="openai/new", messages=messages)
        run = run_at(datetime.now(UTC))
        began = time.perf_counter()
        history.add(run, answer, Details())
        taken.append(time.perf_counter() - began)
        time.sleep(0.002)
    history.flush()
    history.close()
    return sorted(taken)


def main() -> None:
    """Fill the file and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "history.sqlite"
    began = time.perf_counter()
    if added := fill(path):
        print(f"filling: {time.perf_counter() - began:,.0f} s ({added:,} runs)")
    month = "SELECT substr(day, 1, 7) AS month, model, sum(cost_usd) FROM days GROUP BY 1, 2"
    scan = "SELECT substr(time, 1, 7) AS month, model, sum(cost_usd) FROM runs GROUP BY 1, 2"
    cases: dict[str, Callable[[], Any]] = {
        "the last 50 of a model": lambda: queries.find_runs(
            path, f"WHERE model = '{MODELS[3]}'", None, 50
        ),
        "the last 50 of a provider": lambda: queries.find_runs(
            path, "WHERE model LIKE 'openai/%'", None, 50
        ),
        "the last 1,000 of a provider": lambda: queries.find_runs(
            path, "WHERE model LIKE 'openai/%'", None, 1_000
        ),
        "the last 50 of a provider that was never called": lambda: queries.find_runs(
            path, "WHERE model LIKE 'other/%'", None, 50
        ),
        "cost by month and model": lambda: queries.query(path, month),
        "cost by month and model, from all runs": lambda: queries.query(path, scan),
        "full-text search (1 % match)": lambda: queries.find_runs(path, "", "refund", 50),
        "full-text search (a rare word)": lambda: queries.find_runs(path, "", "word77 word99", 50),
        "one run by its id": lambda: queries.load_run(path, f"{RUNS // 2:021x}"),
        **{
            f"%llm cost {period}": partial(queries.cost, path, period)
            for period in queries.PERIODS
        },
    }
    for name, work in cases.items():
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            found = work()
            seconds.append(time.perf_counter() - began)
        longest = max(seconds)
        print(
            f"{name}: {statistics.median(seconds):.3f} s, at most {longest:.3f} ({len(found):,})"
        )
    taken = add_seconds(path)
    print(f"storing a call: median {taken[500] * 1e3:.3f} ms, 99 % {taken[990] * 1e3:.3f} ms")
    print(f"load: {', '.join(f'{each:.1f}' for each in os.getloadavg())} ({os.cpu_count()} cores)")
    print(f"size: {path.stat().st_size / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
