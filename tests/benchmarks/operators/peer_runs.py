"""
A filter of a peer over one table, run by the Python of the peer's environment.

    python tests/benchmarks/operators/peer_runs.py lotus TABLE.json URL

``TABLE.json`` has ``texts``, ``target``, ``delta`` and ``seed``. The last line of the output is a
JSON list with the numbers of the rows that were kept.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

STATEMENT = "The row says that it is urgent"


class Words:
    """A tokenizer whose tokens are words."""

    def encode(self, text: str, **_: Any) -> list[str]:
        """Return the words of a text."""
        return text.split()


def lotus(table: dict[str, Any], url: str) -> list[int]:
    """LOTUS's ``sem_filter`` with a cascade whose proxy is a helper model."""
    import lotus as package
    import pandas as pd
    from lotus.models import LM
    from lotus.types import CascadeArgs

    oracle, proxy = (
        LM(f"openai/{name}", api_base=url, api_key="k") for name in ("gpt-4o", "gpt-4o-mini")
    )
    package.settings.configure(lm=oracle, helper_lm=proxy)
    cascade = CascadeArgs(
        recall_target=table["target"],
        precision_target=table["target"],
        failure_probability=table["delta"],
        sampling_percentage=0.1,
        cascade_IS_random_seed=table["seed"],
    )
    frame = pd.DataFrame({"text": table["texts"]})
    kept, _ = frame.sem_filter(f"{STATEMENT}: {{text}}", cascade_args=cascade, return_stats=True)
    return [int(row) for row in kept.index]


def docetl(table: dict[str, Any], url: str) -> list[int]:
    """DocETL's filter with a cascade; its guarantee of both uses BARGAIN."""
    os.environ["OPENAI_API_KEY"] = "k"
    os.environ["OPENAI_API_BASE"] = url
    with tempfile.TemporaryDirectory() as name:
        os.environ["DOCETL_HOME_DIR"] = name
        import tiktoken
        from docetl.runner import DSLRunner

        # Its tokenizer is fetched from the net; the number of tokens affects only its rate limit.
        tiktoken.encoding_for_model = tiktoken.get_encoding = lambda *_: Words()
        source, target = Path(name, "rows.json"), Path(name, "kept.json")
        rows = [{"row": row, "text": text} for row, text in enumerate(table["texts"])]
        source.write_text(json.dumps(rows), encoding="utf-8")
        operation = {
            "name": "urgent",
            "type": "filter",
            "prompt": STATEMENT + ": {{ input.text }}",
            "model": "gpt-4o",
            "output": {"schema": {"keep": "boolean"}},
            "bypass_cache": True,
            "cascade": {
                "proxy_model": "gpt-4o-mini",
                "guarantee": "precision+recall",
                "target": table["target"],
                "delta": table["delta"],
            },
        }
        config = {
            "default_model": "gpt-4o",
            "default_lm_api_base": url,
            "bypass_cache": True,
            "datasets": {"rows": {"type": "file", "path": str(source)}},
            "operations": [operation],
            "pipeline": {
                "steps": [{"name": "step", "input": "rows", "operations": ["urgent"]}],
                "output": {"type": "file", "path": str(target)},
            },
        }
        DSLRunner(config, max_threads=16).load_run_save()
        return [row["row"] for row in json.loads(target.read_text("utf-8"))]


def main() -> None:
    """Run the peer and print the rows that it kept."""
    name, path, url = sys.argv[1:]
    table = json.loads(Path(path).read_text("utf-8"))
    kept = {"lotus": lotus, "docetl": docetl}[name](table, url)
    sys.stdout.write("\n" + json.dumps(kept) + "\n")


if __name__ == "__main__":
    main()
