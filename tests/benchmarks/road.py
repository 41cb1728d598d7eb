"""
What the road costs over the provider it leads to, and what a kept answer costs; as JSON.

A process of its own, so that neither a test runner nor a coverage tracer is measured too.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import llm_magics as lm
from llm_magics import ChatMessage, ModelParameters
from llm_magics._async.bridge import bridge
from llm_magics.errors import StreamInterrupted
from llm_magics.runtime.session import session
from llm_magics.runtime.storage.answer_cache import Cache, _seal
from llm_magics.runtime.storage.recordings import Recording
from llm_magics.runtime.storage.serialization import chat_request, digest_request
from tests.benchmarks.rounds import Bound, best_of
from tests.benchmarks.stream_server import CHUNKS, SLOWLY
from tests.benchmarks.streaming import ask_the_server

CALLS = 60
MODEL = "local/smollm2-135m"
OVER_ALONE = Bound("road", "alone", 2)


async def provider_alone(watch: Callable[[], None] | None = None) -> str:
    """The same answer from the provider itself, on the same loop."""
    provider = session.provider("local")
    asked = [ChatMessage("user", SLOWLY if watch else "hi")]
    answer: Any = await provider.generate_chat(asked, "smollm2-135m", ModelParameters(stream=True))
    text = []
    async for chunk in answer:
        if watch and chunk.text:
            watch()
            watch = None
        text.append(chunk.text)
    return "".join(text)


def by_provider() -> str:
    """Wait for it."""
    return bridge.run(provider_alone())


def by_road() -> str:
    """The road, up to the cell's own thread."""
    return "".join(chunk.text for chunk in lm.stream("hi", model=MODEL))


def checked(read: Callable[[], str]) -> Callable[[], None]:
    """A reader that must have read all of it."""

    def run() -> None:
        assert read().count("token") == CHUNKS

    return run


def first_token_s() -> tuple[float, float]:
    """
    From the call to the first piece: by the provider alone, and by the road; medians.

    Of a server that is silent after it: one that goes on at full speed would keep the reading
    thread so busy that the other one waits for its turn.
    """
    alone, road = [], []
    for _ in range(CALLS):
        started = time.perf_counter()
        seen: list[float] = []
        with suppress(StreamInterrupted):
            bridge.run(provider_alone(lambda seen=seen: seen.append(time.perf_counter())))  # type: ignore[misc]
        alone.append(seen[0] - started)
        started = time.perf_counter()
        stream = lm.stream(SLOWLY, model=MODEL)
        next(chunk for chunk in stream if chunk.text)
        road.append(time.perf_counter() - started)
        with suppress(StreamInterrupted):
            list(stream)
    return statistics.median(alone), statistics.median(road)


def hit_s(folder: Path) -> float:
    """A cached answer of 200 pieces, from the call to the value; the median."""
    lm.config.cache_dir, lm.config.cache = folder, True
    prompt = "word " * 200
    lm.ask(prompt, model="echo/echo")
    taken = []
    for _ in range(300):
        started = time.perf_counter()
        assert lm.ask(prompt, model="echo/echo").cached
        taken.append(time.perf_counter() - started)
    lm.config.cache = False
    return statistics.median(taken)


def look_up_s(entries: int, folder: Path) -> dict[str, float]:
    """A look-up among ``entries`` answers: in the cache, and in a recording; medians."""
    cache = Cache(folder / f"{entries}.sqlite", 10**12)
    cache.put(b"first", b"")
    connection = cache._opened(5.0)
    draw, now = random.Random(0), time.time()
    drawn = ((draw.randbytes(32), draw.randbytes(600)) for _ in range(entries))
    connection.executemany(
        "INSERT INTO kept VALUES (?, ?, 720, ?)",
        ((key, now, _seal(key, value)) for key, value in drawn),
    )
    keys = [row[0] for row in connection.execute(
        "SELECT key FROM kept WHERE rowid % ? = 0 LIMIT 1000", (max(1, entries // 1000),)
    )]  # fmt: skip
    requests = [chat_request("m", [ChatMessage("user", str(n))], ModelParameters()) for n in range(1000)]  # fmt: skip
    tape = Recording(path=folder / f"{entries}.jsonl", records=True)
    answer = {"answer": {"chunks": [[0.1, "hi"]]}}
    tape._entries = {f"{number:024x}": answer for number in range(entries)}
    tape._entries |= {digest_request(request): answer for request in requests}
    return {
        "cache": _median(keys, cache.get),
        "recording": _median(requests, tape.find),
    }


def _median(asked: list[Any], find: Callable[[Any], Any]) -> float:
    taken = []
    for _ in range(3):
        for each in asked:
            started = time.perf_counter()
            assert find(each) is not None
            taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def main(url: str) -> None:
    """Measure all of it."""
    ask_the_server(url)
    best = best_of({"alone": checked(by_provider), "road": checked(by_road)}, [OVER_ALONE])
    told: dict[str, Any] = {name: seconds / CHUNKS for name, seconds in best.items()}
    told["ttft_alone"], told["ttft_road"] = first_token_s()
    with tempfile.TemporaryDirectory() as folder:
        told["hit"] = hit_s(Path(folder))
        few, many = (look_up_s(entries, Path(folder)) for entries in (1000, 1_000_000))
        session.answer_cache.close()
    told["few"], told["many"] = few, many
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
