"""
A filter over one table by LOTUS, DocETL or llm_magics, run by the Python of its environment.

    python tests/benchmarks/operators/peer_runs.py lotus TABLE.json URL

``TABLE.json`` has ``texts``, ``target``, ``delta`` and ``seed``. The last line of the output is a
JSON object: the numbers of the rows that were ``kept``, and the ``seconds`` and ``cpu_seconds`` of
the filter alone.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

STATEMENT = "The row says that it is urgent"
ORACLE, PROXY = "gpt-4o", "gpt-4o-mini"  # as in peer_service

# Filters the table; returns the numbers of the rows that were kept.
Run = Callable[[], list[int]]


class Words:
    """A tokenizer whose tokens are words."""

    def encode(self, text: str, **_: Any) -> list[str]:
        """Return the words of a text."""
        return text.split()


def lotus(table: dict[str, Any], url: str, _: str) -> Run:
    """LOTUS's ``sem_filter`` with a cascade whose proxy is a helper model."""
    import lotus as package
    import pandas as pd
    from lotus.models import LM
    from lotus.types import CascadeArgs

    oracle, proxy = (LM(f"openai/{name}", api_base=url, api_key="k") for name in (ORACLE, PROXY))
    package.settings.configure(lm=oracle, helper_lm=proxy)
    cascade = CascadeArgs(
        recall_target=table["target"],
        precision_target=table["target"],
        failure_probability=table["delta"],
        sampling_percentage=0.1,
        cascade_IS_random_seed=table["seed"],
    )
    frame = pd.DataFrame({"text": table["texts"]})

    def run() -> list[int]:
        kept, _ = frame.sem_filter(
            f"{STATEMENT}: {{text}}", cascade_args=cascade, return_stats=True
        )
        return [int(row) for row in kept.index]

    return run


def docetl(table: dict[str, Any], url: str, folder: str) -> Run:
    """DocETL's filter with a cascade; its guarantee of both uses BARGAIN."""
    os.environ["OPENAI_API_KEY"] = "k"
    os.environ["OPENAI_API_BASE"] = url
    os.environ["DOCETL_HOME_DIR"] = folder
    import tiktoken
    from docetl.runner import DSLRunner

    # Its tokenizer is fetched from the net; the number of tokens affects only its rate limit.
    tiktoken.encoding_for_model = tiktoken.get_encoding = lambda *_: Words()
    source, target = Path(folder, "rows.json"), Path(folder, "kept.json")
    rows = [{"row": row, "text": text} for row, text in enumerate(table["texts"])]
    source.write_text(json.dumps(rows), encoding="utf-8")
    operation = {
        "name": "urgent",
        "type": "filter",
        "prompt": STATEMENT + ": {{ input.text }}",
        "model": ORACLE,
        "output": {"schema": {"keep": "boolean"}},
        "bypass_cache": True,
        "cascade": {
            "proxy_model": PROXY,
            "guarantee": "precision+recall",
            "target": table["target"],
            "delta": table["delta"],
        },
    }
    config = {
        "default_model": ORACLE,
        "default_lm_api_base": url,
        "bypass_cache": True,
        "datasets": {"rows": {"type": "file", "path": str(source)}},
        "operations": [operation],
        "pipeline": {
            "steps": [{"name": "step", "input": "rows", "operations": ["urgent"]}],
            "output": {"type": "file", "path": str(target)},
        },
    }
    runner = DSLRunner(config, max_threads=16)

    def run() -> list[int]:
        runner.load_run_save()
        return [row["row"] for row in json.loads(target.read_text("utf-8"))]

    return run


def llm_magics(table: dict[str, Any], url: str, folder: str) -> Run:
    """Our filter, whose proxy is the cheap model."""
    import pandas as pd

    import llm_magics as lm

    lm.config.providers = {"lab": {"type": "openai", "base_url": url, "api_key": "k"}}
    lm.config.prices = {f"lab/{name}": prices for name, prices in table["prices"].items()}
    lm.config.cache_dir = folder
    frame = pd.DataFrame({"text": table["texts"]})

    def run() -> list[int]:
        kept = lm.filter(
            frame,
            f"{STATEMENT}: {{{{ text }}}}",
            precision=table["target"],
            recall=table["target"],
            confidence=1 - table["delta"],
            oracle=f"lab/{ORACLE}",
            proxy=f"lab/{PROXY}",
            seed=table["seed"],
            yes=True,
        )
        return [int(row) for row in kept.index]

    return run


RUNS = {"lotus": lotus, "docetl": docetl, "llm_magics": llm_magics}


def main() -> None:
    """Run the filter, and print the rows that it kept and the time."""
    name, path, url = sys.argv[1:]
    table = json.loads(Path(path).read_text("utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        run = RUNS[name](table, url, folder)
        began = time.perf_counter(), time.process_time()
        kept = run()
        times = time.perf_counter() - began[0], time.process_time() - began[1]
    done = {"kept": kept, "seconds": times[0], "cpu_seconds": times[1]}
    sys.stdout.write("\n" + json.dumps(done) + "\n")


if __name__ == "__main__":
    main()
