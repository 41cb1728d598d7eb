"""
Recall of ``topk`` with oracles of different noise: ``python -m tests.benchmarks.operators.topk_recall``.

A trial draws latent values of ``n`` rows and scores of a given rank correlation with them, chooses
the candidates and runs the tournament as `topk` does, with an oracle that knows the values. Results
are appended to a file of JSON lines; a trial that it has is not run again. The table is printed as
Markdown, as in the documentation.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from llm_magics.dataframes.operators.comparisons import OUTCOMES, Answer
from llm_magics.dataframes.operators.item_scores import top_items
from llm_magics.dataframes.operators.tournament import Outcome, Pair, Tournament

SEEDS = 200


@dataclass(frozen=True, kw_only=True)
class Cell:
    """
    A kind of trial.

    Attributes:
        name: its name in the table.
        n, k: the number of rows, and of those to find.
        correlation: the rank correlation (Spearman) of the scores with the values.
        step: the distance between scores, which range from 0 to 100; 0 if they are continuous.
        flips: the probability that an answer is the opposite.
        bias: the probability that an answer is the first position, whatever the values are.
        blur: the standard deviation of the values that an answer compares, so that close values are
            confused more often.
    """

    name: str
    n: int = 1000
    k: int = 10
    correlation: float = 0.9
    step: int = 0
    flips: float = 0.0
    bias: float = 0.0
    blur: float = 0.0


CELLS = (
    Cell(name="consistent"),
    Cell(name="consistent, k = 1", k=1),
    Cell(name="consistent, k = 50", k=50),
    Cell(name="consistent, scores in steps of 5", step=5),
    Cell(name="consistent, scores in steps of 10", step=10),
    Cell(name="consistent, rank correlation 0.7", correlation=0.7),
    Cell(name="5 % of answers flipped", flips=0.05),
    Cell(name="10 % of answers flipped", flips=0.1),
    Cell(name="20 % of answers flipped", flips=0.2),
    Cell(name="first position in 20 % of answers", bias=0.2),
    Cell(name="first position in 50 % of answers", bias=0.5),
    Cell(name="first position always", bias=1.0),
    Cell(name="close values confused", blur=0.3),
)


def trial(cell: Cell, seed: int) -> dict[str, float]:
    """Return the measurements of a trial."""
    rng = np.random.default_rng([CELLS.index(cell), seed])
    values = rng.standard_normal(cell.n)
    pearson = 2 * np.sin(
        np.pi * cell.correlation / 6
    )  # of normal values with that rank correlation
    scores = pearson * values + np.sqrt(1 - pearson**2) * rng.standard_normal(cell.n)
    if cell.step:
        scores = np.clip(np.round((50 + 20 * scores) / cell.step) * cell.step, 0, 100)
    items = top_items(scores, rng.permutation(cell.n), 5 * cell.k)
    tournament = Tournament([1] * len(items), cell.k)
    found = items[tournament.run(_oracle(cell, values[items], rng))]
    best = np.argsort(-values)[: cell.k]
    outcomes = list(tournament.outcomes.values())
    return {
        "recall": len({*found.tolist()} & {*best.tolist()}) / cell.k,
        "best": float(found[0] == best[0]),
        "candidates": len({*items.tolist()} & {*best.tolist()}) / cell.k,
        "comparisons": len(outcomes),
        "rounds": tournament.rounds,
        "inconsistent": outcomes.count(Outcome.TIE) / len(outcomes),
    }


def _oracle(
    cell: Cell, values: Any, rng: np.random.Generator
) -> Callable[[Sequence[Pair]], list[Outcome]]:
    def answer(first: int, second: int) -> Answer:
        one, other = values[[first, second]] + cell.blur * rng.standard_normal(2)
        is_first = (one > other) != (rng.random() < cell.flips)
        return "A" if is_first or rng.random() < cell.bias else "B"

    return lambda pairs: [OUTCOMES[answer(i, j), answer(j, i)] for i, j in pairs]


def run(path: Path) -> None:
    """Run the trials that the file at ``path`` lacks, and print the table."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    known = {(each["cell"], each["seed"]) for each in map(json.loads, lines)}
    with path.open("a", encoding="utf-8") as file:
        for cell in CELLS:
            for seed in range(SEEDS):
                if (cell.name, seed) not in known:
                    record = {"cell": cell.name, "seed": seed, **trial(cell, seed)}
                    file.write(f"{json.dumps(record)}\n")
                    file.flush()
    print_table([json.loads(line) for line in path.read_text("utf-8").splitlines()])


def print_table(records: Sequence[dict[str, Any]]) -> None:
    """Print the mean of each measurement by cell."""
    by_cell = defaultdict(list)
    for each in records:
        by_cell[each["cell"]].append(each)
    print("| answers | recall | true best row first | comparisons | rounds | inconsistent |")
    print("|---|---|---|---|---|---|")
    for cell in CELLS:
        mean = {
            name: fmean(each[name] for each in by_cell[cell.name])
            for name in ("recall", "best", "comparisons", "rounds", "inconsistent")
        }
        print(
            f"| {cell.name} | {mean['recall']:.3f} | {mean['best']:.2f} | {mean['comparisons']:.0f} "
            f"| {mean['rounds']:.0f} | {mean['inconsistent']:.0%} |"
        )


if __name__ == "__main__":
    run(Path(sys.argv[1] if len(sys.argv) > 1 else "topk_recall.jsonl"))
