"""A million rows: what is asked for, what memory it takes, and how fast it comes back. As JSON."""

from __future__ import annotations

import gc
import json
import resource
import sys
import tempfile
import time

import numpy as np

import llm_magics as lm
from llm_magics.http import Transport
from llm_magics.runtime.storage.vector_store import hash_texts

ROWS, UNIQUE, BATCH, WIDTH = 1_000_000, 100_000, 256, 384


def requests_for_duplicates() -> int:
    """How many requests a million rows take of which nine in ten say what others say."""
    count = 0
    real = Transport.send

    async def counting(self: Transport, *arguments: object, **given: object) -> object:
        nonlocal count
        count += 1
        return await real(self, *arguments, **given)  # type: ignore[arg-type]

    Transport.send = counting  # type: ignore[method-assign, assignment]
    texts = [f"a short text, and its number is {number % UNIQUE}" for number in range(ROWS)]
    assert lm.embed(texts, model="lab/m", batch_size=BATCH).shape == (ROWS, WIDTH)
    Transport.send = real  # type: ignore[method-assign]
    return count


def memory_over_result() -> float:
    """The peak that a million different rows add, as a multiple of their array."""
    texts = [f"another short text, and its number is {number}" for number in range(ROWS)]
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = lm.embed(texts, model="lab/m")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return (after - before) * 1024 / result.nbytes


def kept_rows_per_s() -> float:
    """Rows a second that come back where all million were paid for before."""
    from pathlib import Path

    from llm_magics.runtime.session import session

    texts = [f"a third text, and its number is {number}" for number in range(ROWS)]
    with tempfile.TemporaryDirectory() as folder:
        lm.config.vectors = Path(folder)
        lm.embed(texts[:1], model="lab/m")
        (path,) = Path(folder).glob("*/space.json")
        store = session.vectors(json.loads(path.read_text()))
        assert store is not None
        for start in range(1, ROWS, 50_000):
            part = texts[start : start + 50_000]
            store.put(hash_texts(part), np.ones((len(part), WIDTH), np.float32))
        best = 0.0
        for _ in range(2):
            began = time.perf_counter()
            assert lm.embed(texts, model="lab/m").shape == (ROWS, WIDTH)
            best = max(best, ROWS / (time.perf_counter() - began))
        lm.config.vectors = "off"
    return best


def main(url: str) -> None:
    """Measure all of it; memory first, for a peak that was is not left again."""
    lm.config.vectors = "off"
    lm.config.providers = {"lab": {"type": "openai", "base_url": f"{url}/v1", "api_key": "none"}}
    lm.embed(["warm"], model="lab/m")
    told = {
        "memory": memory_over_result(),
        "requests": requests_for_duplicates(),
        "needed": -(-UNIQUE // BATCH),
        "kept": kept_rows_per_s(),
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
