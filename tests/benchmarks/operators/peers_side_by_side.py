"""
Filters of LOTUS, DocETL and llm_magics against one fake service: calls, tokens, time and misses.

    python -m tests.benchmarks.operators.peers_side_by_side RESULTS.jsonl \
        --lotus /path/to/python --docetl /path/to/python --trials 10

LOTUS 1.2.4 (Python below 3.13, NumPy below 2) and DocETL 0.3 run in environments of their own. All
have the targets precision and recall 0.9 with δ = 0.1, the same oracle, and the same cheap model as
the proxy; each trial is another simulated table, in random order or, with ``--sorted``, positives
first. Two lines are ours: ``llm_magics`` uses the log probabilities of the cheap model, one row in a
prompt, and ``llm_magics, packed`` a cheap model without them, several rows in a prompt.

Resumable: trials that are in the results are not run again. The means are printed as Markdown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.operators.peer_service import ORACLE, PRICES, PROXY, Service, serve
from tests.benchmarks.operators.simulated import simulated_table

SCRIPT = Path(__file__).with_name("peer_runs.py")
N, BASE_RATE, AUC = 1_000, 0.3, 0.95
TARGET, DELTA = 0.9, 0.1

PACKED = "llm_magics, packed"
TOOLS = ("lotus", "docetl", "llm_magics", PACKED)
ORDERS = ("random", "sorted")

COLUMNS = {
    f"{ORACLE} calls": "oracle calls",
    f"{PROXY} calls": "proxy calls",
    "tokens": "tokens",
    "usd": "cost, $",
    "seconds": "seconds",
    "cpu_seconds": "CPU seconds",
}


def measure(tool: str, python: str, order: str, trial: int) -> dict[str, Any]:
    """Return the result of one trial against a new service."""
    scores, labels = simulated_table(N, BASE_RATE, AUC, np.random.default_rng([99, trial]))
    if order == "sorted":
        first = np.argsort(-labels, kind="stable")
        scores, labels = scores[first], labels[first]
    service = Service(scores.tolist(), labels.tolist(), has_logprobs=tool != PACKED)
    table = {
        "texts": [f"This is row number {row} of the table." for row in range(N)],
        "target": TARGET,
        "delta": DELTA,
        "seed": trial,
        "prices": PRICES,
    }
    server, url = serve(service)
    try:
        done = run(tool.partition(",")[0], python, table, url)
    finally:
        server.shutdown()
        server.server_close()
    found = int(labels[done["kept"]].sum())
    precision = found / len(done["kept"]) if done["kept"] else 1.0
    recall = found / int(labels.sum())
    return {
        "tool": tool,
        "order": order,
        "trial": trial,
        **service.log,
        "seconds": done["seconds"],
        "cpu_seconds": done["cpu_seconds"],
        "precision": precision,
        "recall": recall,
        "missed": min(precision, recall) < TARGET - 1e-9,
    }


def run(name: str, python: str, table: dict[str, Any], url: str) -> dict[str, Any]:
    """Return the rows that a tool keeps, and its time."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.json")
        path.write_text(json.dumps(table), encoding="utf-8")
        command = [python, str(SCRIPT), name, str(path), url]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise RuntimeError(ended.stderr[-2000:])
    done: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    return done


def summary(trials: list[dict[str, Any]]) -> str:
    """Return the means of each tool as a table in Markdown."""
    lines = [["tool", "order", "trials", *COLUMNS.values(), "misses"]]
    for order in ORDERS:
        for tool in TOOLS:
            own = [each for each in trials if (each["tool"], each["order"]) == (tool, order)]
            if not own:
                continue
            means = [f"{np.mean([_value(each, name) for each in own]):,.4g}" for name in COLUMNS]
            misses = sum(each["missed"] for each in own)
            lines.append([tool, order, str(len(own)), *means, f"{misses} of {len(own)}"])
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _value(trial: dict[str, Any], name: str) -> float:
    """Return a value of a trial; that of ``tokens`` and ``usd`` is a sum over both models."""
    kinds = {"prompt_tokens": "input_usd", "completion_tokens": "output_usd"}
    tokens = {(m, k): trial.get(f"{m} {k}", 0) for m in PRICES for k in kinds}
    if name == "tokens":
        return float(sum(tokens.values()))
    if name == "usd":
        return sum(PRICES[m][kinds[k]] * count for (m, k), count in tokens.items()) / 1e6
    return float(trial.get(name, 0))


def main() -> None:
    """Run the trials that are missing, and print the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--lotus", help="the Python of LOTUS's environment")
    parser.add_argument("--docetl", help="the Python of DocETL's environment")
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--sorted", action="store_true", help="positives first in the table")
    args = parser.parse_args()
    pythons = dict.fromkeys(TOOLS, sys.executable) | {"lotus": args.lotus, "docetl": args.docetl}
    order = "sorted" if args.sorted else "random"
    trials: list[dict[str, Any]] = []
    if args.results.exists():
        lines = args.results.read_text("utf-8").splitlines()
        trials = [json.loads(line) for line in lines]
    done = {(each["tool"], each["order"], each["trial"]) for each in trials}
    for trial in range(args.trials):
        for tool, python in pythons.items():
            if python is None or (tool, order, trial) in done:
                continue
            trials.append(measure(tool, python, order, trial))
            with args.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(trials[-1]) + "\n")
    print(summary(trials))


if __name__ == "__main__":
    main()
