"""
Has one client drive a server, and prints the CPU of a short and of a long run, in seconds.

    python -m tests.benchmarks.driving ours|openai|guidellm URL

The long run less the short one is what its tokens took, without imports and reports. All threads
and child processes of the client are counted, and the server is not.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

AT_ONCE = 16
# Of requests; guidellm takes seconds of CPU to begin with, not the same each time.
SIZES = {"ours": (16, 240), "openai": (16, 80), "guidellm": (16, 640)}
TOKENS = 500
MODEL = f"{TOKENS}-0"


def ours(url: str, requests: int) -> None:
    """``lm.bench``."""
    import llm_magics as lm

    lm.config.providers = {"lab": {"type": "openai", "base_url": f"{url}/v1", "api_key": "k"}}
    runs = lm.bench(models=f"lab/{MODEL}", concurrency=AT_ONCE, requests=requests, warmup=0)
    assert runs.error.isna().all()
    assert (runs.output_tokens == TOKENS).all()


def openai(url: str, requests: int) -> None:
    """The official client, asynchronous, with a stamp for each token."""
    import time

    from openai import AsyncOpenAI

    async def drive() -> None:
        gate = asyncio.Semaphore(AT_ONCE)
        async with AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:

            async def ask() -> None:
                async with gate:
                    stream = await client.chat.completions.create(
                        model=MODEL,
                        messages=[{"role": "user", "content": "hi"}],
                        stream=True,
                        stream_options={"include_usage": True},
                    )
                    stamps = [time.perf_counter() async for event in stream if event.choices]
                    assert len(stamps) == TOKENS + 1

            await asyncio.gather(*(ask() for _ in range(requests)))

    asyncio.run(drive())


def guidellm(url: str, requests: int) -> None:
    """The command of guidellm."""
    with tempfile.TemporaryDirectory() as folder:
        prompts = Path(folder) / "prompts.csv"
        prompts.write_text("prompt\n" + "hi there\n" * requests, "utf-8")
        report = Path(folder) / "report.json"
        command = [
            "guidellm",
            "run",
            "--backend",
            f"kind=openai_http,target={url},model={MODEL}",
            "--profile",
            f"kind=concurrent,streams={AT_ONCE}",
            "--constraint",
            f"kind=max_requests,count={requests}",
            "--data",
            f"kind=csv_file,path={prompts}",
            "--output",
            f"kind=json,path={report}",
            "--disable-console",
        ]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        told = json.loads(report.read_text("utf-8"))["benchmarks"][0]["metrics"]
        assert told["request_totals"]["successful"] == requests


DRIVERS = {"ours": ours, "openai": openai, "guidellm": guidellm}


def is_there(name: str) -> bool:
    """Whether a client can be had here."""
    return name != "guidellm" or shutil.which("guidellm") is not None


def cpu_s() -> float:
    """That of this process and of its children that have ended."""
    used = (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def main(name: str, url: str) -> None:
    """Print what a short run took, and a long one."""
    drive = DRIVERS[name]
    took = []
    for requests in SIZES[name]:
        before = cpu_s()
        drive(url, requests)
        took.append(cpu_s() - before)
    sys.stdout.write(json.dumps({name: took}) + "\n")


def of_a_token(name: str, runs: Sequence[Sequence[float]]) -> float:
    """The CPU of a token in seconds; other work on the machine only ever adds to a run."""
    short, long = SIZES[name]
    least_short_s, least_long_s = map(min, zip(*runs, strict=True))
    return (least_long_s - least_short_s) / ((long - short) * TOKENS)


def cost_of_tokens(runs: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, list[float]]:
    """Return the CPU of a token in each of the runs, as rounds for `Bound.is_clear`."""
    return {name: [of_a_token(name, [run]) for run in each] for name, each in runs.items()}


if __name__ == "__main__":
    main(*sys.argv[1:])
