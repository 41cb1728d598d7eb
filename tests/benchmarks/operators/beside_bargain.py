"""
`filter` beside BARGAIN on the same simulated tables: calls, or what a fixed number of calls gives.

    python -m tests.benchmarks.operators.beside_bargain ours.json --baseline results.json

``results.json`` is that of `tests.benchmarks.operators.bargain_baseline`. Resumable: cells that are
in ``ours.json`` are not run again. The tables are printed as Markdown.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from llm_magics.dataframes.operators.oracle import YES
from llm_magics.dataframes.operators.targets import Problem, Target, decide
from tests.benchmarks.operators.guarantees import GOALS, FixedScores
from tests.benchmarks.operators.simulated import cell_table

# For a fixed number of calls, what is compared is the quality that has no guarantee.
OTHER = {"precision": "mean_recall", "recall": "mean_precision"}


def run_cell(row: dict[str, Any], trials: int) -> dict[str, Any]:
    """Return the means of our trials on the tables of a row of the baseline."""
    shares = dict.fromkeys(GOALS[row["goal"]], row["target"])
    target = Target(confidence=1 - row["delta"], max_calls=row["budget"], **shares)
    results = []
    for trial in range(trials):
        scores, labels = cell_table(row["cell"], trial)
        order = np.random.default_rng([row["cell"], trial, 1]).permutation(len(labels))
        problem = Problem(
            order=order,
            items=np.arange(len(labels), dtype=np.int32),
            ask=labels.__getitem__,
            may_fail=False,
            proxy=FixedScores(scores),
            target=target,
            seed=trial,
        )
        decisions = decide(problem)
        kept, positive = decisions.labels == YES, labels == YES
        quality = {
            "accuracy": float((kept == positive).mean()),
            "precision": float(positive[kept].mean()) if kept.any() else 1.0,
            "recall": float(kept[positive].mean()) if positive.any() else 1.0,
        }
        results.append({"calls": decisions.calls, **quality})
    means = {f"mean_{name}": float(np.mean([r[name] for r in results])) for name in results[0]}
    misses = sum(any(r[name] < shares[name] - 1e-9 for name in shares) for r in results)
    key = {name: row[name] for name in ("cell", "goal", "target", "delta")}
    return {**key, **means, "misses": misses, "trials": trials}


def table(baseline: list[dict[str, Any]], ours: list[dict[str, Any]]) -> str:
    """Return the comparison as Markdown."""
    found = {_key(row): row for row in ours}
    ratios: dict[tuple[str, int], list[float]] = defaultdict(list)
    others: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for row in baseline:
        mine = found.get(_key(row))
        if mine is None:
            continue
        group = (row["goal"], row["n"])
        ratios[group].append(mine["mean_calls"] / row["mean_calls"])
        if row["goal"] in OTHER:
            name = OTHER[row["goal"]]
            others[group].append((mine[name], row[name]))
    lines = [
        "| target | rows | calls, ratio to BARGAIN | the other quality: ours | BARGAIN | lower in |",
        "|---|---|---|---|---|---|",
    ]
    for group, values in ratios.items():
        ratio = float(np.exp(np.mean(np.log(values))))
        pairs = others.get(group)
        end = "| | | |"
        if pairs:
            mean = np.mean(pairs, axis=0)
            lower = sum(one < other - 0.005 for one, other in pairs)
            end = f"| {mean[0]:.3f} | {mean[1]:.3f} | {lower} of {len(pairs)} cells |"
        lines.append(f"| {group[0]} | {group[1]:,} | {ratio:.2f} {end}")
    for goal in ("accuracy", "both"):
        values = [value for (name, _), part in ratios.items() if name == goal for value in part]
        if values:
            lines.append(f"\n{goal}: {np.exp(np.mean(np.log(values))):.2f} (geometric mean)")
    return "\n".join(lines)


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["cell"], row["goal"], row["target"], row["delta"])


def main() -> None:
    """Run the cells that are missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--baseline", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=100)
    args = parser.parse_args()
    baseline = json.loads(args.baseline.read_text("utf-8"))
    ours = json.loads(args.results.read_text("utf-8")) if args.results.exists() else []
    done = {_key(row) for row in ours}
    for row in baseline:
        if _key(row) not in done:
            ours.append(run_cell(row, min(args.trials, row["trials"])))
            args.results.write_text(json.dumps(ours, indent=1), encoding="utf-8")
    print(table(baseline, ours))


if __name__ == "__main__":
    main()
