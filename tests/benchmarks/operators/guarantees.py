"""
Misses of `filter`'s targets: ``python -m tests.benchmarks.operators.guarantees FILE``.

A trial decides a simulated table and compares its accuracy, precision and recall with the target.
Results are appended to FILE, one JSON line for a block of trials; a block that it has is not run
again. At the end, the lines of a cell are joined. The table is printed as Markdown, with the cells whose misses are significantly more than δ:
an exact binomial test at 1 % divided by the number of cells.

    --only main|hard     a part of the cells
    --trials N           trials of a cell (1,000; 300 where n is 10,000)
    --processes N        the number of processes (1)
    --table              print the table of FILE, with one line for each cell, and run nothing

``guarantees.jsonl`` beside this script has the trials run so far; give it as FILE to continue.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from multiprocessing import Pool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from llm_magics._util.filesystem import atomic_write
from llm_magics.dataframes.operators.oracle import FAILED, YES
from llm_magics.dataframes.operators.targets import Problem, Target, decide
from tests.benchmarks.operators.simulated import simulated_table

Floats = NDArray[np.float64]
Labels = NDArray[np.int8]

GOALS: dict[str, tuple[str, ...]] = {
    "accuracy": ("accuracy",),
    "precision": ("precision",),
    "recall": ("recall",),
    "both": ("precision", "recall"),
}
BLOCK = 50


class Cell(NamedTuple):
    """What is decided: the target, the table, and what is special about it."""

    goal: str
    level: float
    delta: float
    n: int
    base_rate: float
    auc: float
    kind: str = "plain"

    def target(self) -> Target:
        """Return the target of the filter."""
        shares = dict.fromkeys(GOALS[self.goal], self.level)
        return Target(confidence=1 - self.delta, **shares)  # type: ignore[arg-type]


def _main_cells() -> Iterator[Cell]:
    for values in product(
        GOALS, (0.9, 0.95), (0.05, 0.1), (200, 1_000, 10_000), (0.01, 0.1, 0.5), (0.5, 0.8, 0.95)
    ):
        yield Cell(*values)


class FixedScores:
    """A proxy with fixed scores."""

    name = "scores"
    learns = False

    def __init__(self, scores: Floats) -> None:
        self._scores = scores

    def fit(self, rows: NDArray[np.intp], labels: Labels) -> None:
        """Learn nothing."""

    def predict(self) -> Floats:
        """Return the scores."""
        return self._scores


class Retrained:
    """A proxy that learns: a ridge regression on noisy features of the score, refitted each time."""

    name = "retrained"
    learns = True

    def __init__(self, scores: Floats, rng: np.random.Generator) -> None:
        latent = np.log(scores / (1 - scores))
        latent = (latent - latent.mean()) / max(float(latent.std()), 1e-9)
        noise = rng.standard_normal((len(scores), 8))
        self._features = np.column_stack([latent[:, None] + noise, np.ones(len(scores))])
        self._scores = np.full(len(scores), 0.5)

    def fit(self, rows: NDArray[np.intp], labels: Labels) -> None:
        """Fit the regression, whose values are taken as probabilities."""
        x = self._features[rows]
        weights = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ labels)
        self._scores = np.clip(self._features @ weights, 0.001, 0.999)

    def predict(self) -> Floats:
        """Return the predictions, which are too certain on the rows learned from."""
        return self._scores


def _by_label(first: int, scores: Floats, labels: Labels) -> tuple[Floats, Labels]:
    order = np.argsort(labels != first, kind="stable")
    return scores[order], labels[order]


# What is special about a table: it returns scores and labels anew.
HARD: dict[str, Callable[[Floats, Labels], tuple[Floats, Labels]]] = {
    "positives first": partial(_by_label, 1),
    "negatives first": partial(_by_label, 0),
    "reversed": lambda scores, labels: (1 - scores, labels),
    "constant": lambda scores, labels: (np.full(len(scores), 0.6), labels),
    "adversarial": lambda scores, labels: (np.where(labels == YES, 0.02, 0.3), labels),
    "duplicates": lambda scores, labels: (scores, labels),
    "retrained": lambda scores, labels: (scores, labels),
    "5 % fail": lambda scores, labels: (scores, labels),
    "positives fail": lambda scores, labels: (scores, labels),
}


def _hard_cells() -> Iterator[Cell]:
    for goal, base_rate, kind in product(GOALS, (0.1, 0.5), HARD):
        yield Cell(goal, 0.9, 0.05, 1_000, base_rate, 0.8, kind)


def run_trial(cell: Cell, trial: int) -> tuple[bool, int]:
    """Return whether a trial misses its target, and the calls of its oracle."""
    key = [trial, cell.n, round(1000 * cell.base_rate), round(1000 * cell.auc)]
    rng = np.random.default_rng(key)
    scores, labels = simulated_table(cell.n, cell.base_rate, cell.auc, rng)
    items = np.arange(cell.n, dtype=np.int32)
    if cell.kind != "plain":
        scores, labels = HARD[cell.kind](scores, labels)
    if cell.kind == "duplicates":  # half of the rows are copies of a few
        items[: cell.n // 2] = rng.integers(0, cell.n // 50, cell.n // 2)
        items = np.unique(items, return_inverse=True)[1].astype(np.int32)
        first = np.unique(items, return_index=True)[1]
        scores, labels = scores[first][items], labels[first][items]
    labels = labels.astype(np.int8)
    if cell.kind == "5 % fail":
        labels[rng.random(cell.n) < 0.05] = FAILED
    if cell.kind == "positives fail":
        labels[(rng.random(cell.n) < 0.3) & (labels == YES)] = FAILED
    learns = cell.kind == "retrained"
    problem = Problem(
        order=rng.permutation(cell.n),
        items=items,
        ask=lambda rows: labels[rows],
        may_fail=cell.kind.endswith("fail"),
        proxy=Retrained(scores, rng) if learns else FixedScores(scores),
        target=cell.target(),
        seed=trial,
    )
    decisions = decide(problem)
    return _misses(cell, decisions.labels, labels), decisions.calls


def _misses(cell: Cell, decided: Labels, labels: Labels) -> bool:
    is_answered = labels != FAILED
    kept, positive = decided[is_answered] == YES, labels[is_answered] == YES
    quality = {
        "accuracy": float((kept == positive).mean()),
        "precision": float(positive[kept].mean()) if kept.any() else 1.0,
        "recall": float(kept[positive].mean()) if positive.any() else 1.0,
    }
    return any(quality[name] < cell.level - 1e-9 for name in GOALS[cell.goal])


class Total(NamedTuple):
    """The results of a cell: the blocks of trials that were run, the misses and the calls."""

    blocks: list[int]
    misses: int
    calls: int

    @property
    def trials(self) -> int:
        """The number of trials."""
        return BLOCK * len(self.blocks)


def run_block(task: tuple[Cell, int]) -> tuple[Cell, Total]:
    """Return the result of a block of trials of a cell."""
    cell, block = task
    trials = [run_trial(cell, block * BLOCK + number) for number in range(BLOCK)]
    misses, calls = (sum(each) for each in zip(*trials, strict=True))
    return cell, Total([block], misses, calls)


def as_line(cell: Cell, total: Total) -> str:
    """Return a line of the file of results."""
    return json.dumps({"cell": list(cell), **total._asdict()}) + "\n"


def read(path: Path) -> dict[Cell, Total]:
    """Return the results in a file; a block that is in it twice counts once."""
    totals: dict[Cell, Total] = {}
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    for line in lines:
        if not line.endswith("}"):  # it was interrupted
            continue
        record = json.loads(line)
        cell = Cell(*record["cell"])
        blocks, misses, calls = totals.get(cell, Total([], 0, 0))
        if not set(blocks) & set(record["blocks"]):
            totals[cell] = Total(
                sorted([*blocks, *record["blocks"]]),
                misses + record["misses"],
                calls + record["calls"],
            )
    return totals


def table(totals: dict[Cell, Total]) -> str:
    """Return the results as Markdown: a row for each target, kind and number of rows."""
    from scipy.stats import binomtest

    level = 0.01 / max(len(totals), 1)
    bad = [
        cell
        for cell, total in totals.items()
        if binomtest(total.misses, total.trials, cell.delta, alternative="greater").pvalue < level
    ]
    groups: dict[tuple[Any, ...], list[tuple[Cell, Total]]] = defaultdict(list)
    for cell, total in sorted(totals.items()):
        groups[cell.kind, cell.goal, cell.delta, cell.n].append((cell, total))
    lines = [
        "| tables | target | δ | rows | cells | trials | misses, mean | misses, worst cell | calls |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (kind, goal, delta, n), cells in groups.items():
        trials = sum(total.trials for _, total in cells)
        misses = sum(total.misses for _, total in cells)
        worst = max(total.misses / total.trials for _, total in cells)
        calls = sum(total.calls for _, total in cells) / (trials * n)
        lines.append(
            f"| {kind} | {goal} | {delta} | {n:,} | {len(cells)} | {trials:,} "
            f"| {misses / trials:.1%} | {worst:.1%} | {calls:.0%} |"
        )
    fewest = min((total.trials for total in totals.values()), default=0)
    all_trials = sum(total.trials for total in totals.values())
    lines.append(f"\n{len(totals)} cells, {all_trials:,} trials, at least {fewest} of each cell;")
    lines.append(f"significantly more misses than δ: {bad or 'none'}")
    return "\n".join(lines)


def main() -> None:
    """Run the blocks that FILE does not have, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", choices=["main", "hard"])
    parser.add_argument("--trials", type=int)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    cells = [
        *(_main_cells() if options.only != "hard" else ()),
        *(_hard_cells() if options.only != "main" else ()),
    ]
    done = read(options.file)
    tasks = [
        (cell, block)
        # All cells first, so that an interrupted run has a part of each.
        for block in range(1000 // BLOCK)
        for cell in cells
        if block * BLOCK < (options.trials or (300 if cell.n == 10_000 else 1000))
        and (cell not in done or block not in done[cell].blocks)
    ]
    if not options.table:
        with Pool(options.processes) as pool, options.file.open("a", encoding="utf-8") as file:
            for result in pool.imap_unordered(run_block, tasks):
                file.write(as_line(*result))
                file.flush()
    totals = read(options.file)
    atomic_write(options.file, "".join(as_line(*each) for each in sorted(totals.items())))
    print(table(totals))


if __name__ == "__main__":
    main()
