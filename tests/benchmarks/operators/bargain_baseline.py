"""
BARGAIN's calls and misses on simulated tables: what the operator ``filter`` is compared with.

    python -m tests.benchmarks.operators.bargain_baseline results.json \
        --peer /path/to/environment/bin/python

Resumable: cells that are in ``results.json`` are not run again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.operators.simulated import CELLS, cell_table

SCRIPT = Path(__file__).with_name("peers_bargain.py")
METHODS = {"accuracy": "A", "precision": "P", "recall": "R", "both": "PR"}
TRIALS = {200: 100, 1_000: 100, 10_000: 50}
BUDGET = 400


def run_peer(python: str, arguments: list[str], tables: tuple[Any, Any]) -> list[dict[str, Any]]:
    """Run BARGAIN on tables of scores and labels, and return the results of the trials."""
    with tempfile.TemporaryDirectory() as name:
        source, target = Path(name, "tables.npz"), Path(name, "results.json")
        np.savez(source, scores=np.array(tables[0]), labels=np.array(tables[1]))
        subprocess.run([python, str(SCRIPT), str(source), str(target), *arguments], check=True)
        trials: list[dict[str, Any]] = json.loads(target.read_text(encoding="utf-8"))["trials"]
    return trials


def missed(trial: dict[str, Any], goal: str, target: float) -> bool:
    """Return whether a trial missed its target."""
    names = ("precision", "recall") if goal == "both" else (goal,)
    return any(trial[name] < target - 1e-12 for name in names)


def summary(trials: list[dict[str, Any]], goal: str, target: float) -> dict[str, Any]:
    """Return the means over trials, the calls of each, and the number of misses."""
    means = {
        f"mean_{name}": float(np.mean([trial[name] for trial in trials]))
        for name in ("calls", "accuracy", "precision", "recall", "kept")
    }
    misses = sum(missed(trial, goal, target) for trial in trials)
    calls = [trial["calls"] for trial in trials]
    return {**means, "trials": len(trials), "misses": misses, "calls": calls}


def main() -> None:
    """Run the cells that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--peer", required=True, help="the Python of bargain's environment")
    parser.add_argument("--target", type=float, default=0.9)
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if args.results.exists():
        rows = json.loads(args.results.read_text(encoding="utf-8"))
    done = {(row["cell"], row["goal"], row["target"], row["delta"]) for row in rows}
    for number, cell in enumerate(CELLS):
        tables = [cell_table(number, trial) for trial in range(TRIALS[cell.n])]
        scores, labels = zip(*tables, strict=True)
        for delta, (goal, method) in product((0.05, 0.1), METHODS.items()):
            if (number, goal, args.target, delta) in done:
                continue
            options = {"method": method, "target": args.target, "delta": delta, "budget": BUDGET}
            arguments = [
                part for name, value in options.items() for part in (f"--{name}", f"{value}")
            ]
            trials = run_peer(args.peer, arguments, (scores, labels))
            key = {"cell": number, **cell._asdict(), "goal": goal, **options}
            rows.append({**key, **summary(trials, goal, args.target)})
            args.results.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
