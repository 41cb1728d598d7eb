"""
What a vector costs: sent and read, against a bare loop and the openai client; kept and found
again; how near the server's own limit many come; how much memory they take. As JSON.

A process of its own, so that neither a test runner nor a coverage tracer is measured too.
"""

from __future__ import annotations

import base64
import gc
import json
import resource
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import openai

import llm_magics as lm
from llm_magics.runtime.session import session
from llm_magics.runtime.storage.vector_store import hash_texts
from tests.benchmarks.embed_server import BASE_S, ROW_S
from tests.benchmarks.rounds import Bound, best_of

ROWS, BATCH = 4096, 512
MANY, WIDTH = 200_000, 384

OVER_BARE = Bound("ours", "bare", 1.1)
UNDER_OPENAI = Bound("openai", "ours", 3, is_minimum=True)


def texts(count: int) -> list[str]:
    """Short texts, each another."""
    return [f"a short text, and its number is {number}" for number in range(count)]


def bare(url: str) -> None:
    """Only httpx, json and base64, into one array."""
    rows = texts(ROWS)
    parts = []
    with httpx.Client() as client:
        for start in range(0, ROWS, BATCH):
            body = {
                "model": "m",
                "input": rows[start : start + BATCH],
                "encoding_format": "base64",
            }
            reply = json.loads(client.post(f"{url}/v1/embeddings", json=body).content)
            parts += [
                np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in reply["data"]
            ]
    assert np.stack(parts).shape[0] == ROWS


def ours() -> None:
    """The whole road, nothing kept."""
    assert lm.embed(texts(ROWS), model="fast/m", batch_size=BATCH).shape[0] == ROWS


def openai_client(url: str) -> None:
    """The official client at its best, into one array."""
    rows = texts(ROWS)
    parts = []
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        for start in range(0, ROWS, BATCH):
            reply = client.embeddings.create(model="m", input=rows[start : start + BATCH])
            parts += [row.embedding for row in reply.data]
    assert np.asarray(parts, np.float32).shape[0] == ROWS


def of_limit() -> float:
    """The share of the server's own limit that many rows reach, by its batches of 256."""
    rows = texts(8192)
    limit = 256 / (BASE_S + ROW_S * 256)
    best = 0.0
    for _ in range(3):
        began = time.perf_counter()
        lm.embed(rows, model="slow/m")
        best = max(best, len(rows) / (time.perf_counter() - began) / limit)
    return best


def cached_rows_per_s(folder: Path) -> float:
    """Rows a second that come back where all were paid for before."""
    lm.config.vectors = folder
    rows = texts(MANY)
    lm.embed(rows[:1], model="echo/echo")
    (path,) = folder.glob("*/space.json")
    store = session.vectors(json.loads(path.read_text()))
    assert store is not None
    for start in range(1, MANY, 10_000):
        part = rows[start : start + 10_000]
        store.put(hash_texts(part), np.ones((len(part), 64), np.float32))
    best = 0.0
    for _ in range(3):
        began = time.perf_counter()
        assert len(lm.embed(rows, model="echo/echo")) == MANY
        best = max(best, MANY / (time.perf_counter() - began))
    lm.config.vectors = "off"
    return best


def memory_over_result(url: str) -> float:
    """The peak of memory that many rows add, as a multiple of their array's."""
    rows = texts(MANY)
    lm.config.set("providers.wide.type", "openai")
    lm.config.set("providers.wide.base_url", f"{url}/v1")
    lm.config.set("providers.wide.api_key", "none")
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = lm.embed(rows, model="wide/m")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (after - before) * 1024 / result.nbytes


def main(url: str, wide_url: str) -> None:
    """Measure all of it."""
    lm.config.vectors = "off"
    lm.config.providers = {
        "fast": {"type": "openai", "base_url": f"{url}/v1", "api_key": "none"},
        "slow": {"type": "openai", "base_url": f"{wide_url}/slow/v1", "api_key": "none"},
    }
    told = {"memory": memory_over_result(wide_url)}  # first: a peak that was is not left again
    readers = {"bare": lambda: bare(url), "ours": ours, "openai": lambda: openai_client(url)}
    best = best_of(readers, [OVER_BARE, UNDER_OPENAI])
    told |= {name: seconds / ROWS for name, seconds in best.items()}
    told["limit"] = of_limit()
    with tempfile.TemporaryDirectory() as folder:
        told["cached"] = cached_rows_per_s(Path(folder))
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
