"""
The share of labels that `filter` takes on 3,708 Amazon sentences, with people as the oracle.

    python -m tests.benchmarks.operators.amazon_filter results.json --cache FOLDER [--seeds 100]

The oracle is the mean rating of twenty people, above or below 0; the proxy a logistic regression
on MiniLM vectors, whose training labels count. Resumable: seeds in ``results.json`` are not run
again. The embedding model is the extra ``local``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from llm_magics.dataframes.operators.classifiers import VectorClassifier
from llm_magics.dataframes.operators.oracle import YES
from llm_magics.dataframes.operators.targets import Problem, Target, decide
from tests.benchmarks.operators.amazon import sentences, vectors

QUESTIONS = ("above", "below")


def run(column: pd.Series[Any], labels: Any, seed: int) -> dict[str, Any]:
    """Return the share of labels, and the accuracy, of a run."""
    rows = np.arange(len(labels))
    problem = Problem(
        order=np.random.default_rng(seed).permutation(len(labels)),
        items=rows.astype(np.int32),
        ask=labels.__getitem__,
        may_fail=False,
        proxy=VectorClassifier(column, "vector", rows),
        target=Target(accuracy=0.9, confidence=0.95),
        seed=seed,
    )
    decisions = decide(problem)
    accuracy = float(((decisions.labels == YES) == (labels == YES)).mean())
    return {"seed": seed, "share": decisions.calls / len(labels), "accuracy": accuracy}


def main() -> None:
    """Run the seeds that are missing, and print the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=100)
    args = parser.parse_args()
    found = json.loads(args.results.read_text("utf-8")) if args.results.exists() else []
    done = {(row["question"], row["seed"]) for row in found}
    _, ratings = sentences(args.cache)
    column = pd.Series(list(vectors(args.cache)))
    for seed in range(args.seeds):
        for question in QUESTIONS:
            if (question, seed) not in done:
                labels = (ratings > 0 if question == "above" else ratings < 0).astype(np.int8)
                found.append({"question": question, **run(column, labels, seed)})
                args.results.write_text(json.dumps(found, indent=1), encoding="utf-8")
    for question in QUESTIONS:
        rows = [row for row in found if row["question"] == question]
        share = float(np.mean([row["share"] for row in rows]))
        misses = sum(row["accuracy"] < 0.9 for row in rows)
        print(f"{question} 0: {share:.1%} of the rows, {misses} misses in {len(rows)} seeds")


if __name__ == "__main__":
    main()
