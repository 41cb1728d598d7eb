"""
Coverage and width of the corrected scores of `lm.agreement`.

    python -m tests.benchmarks.evaluations.correction_coverage correction.csv
    python -m tests.benchmarks.evaluations.correction_coverage correction.csv --summary

The file has a line for each 100 trials of a cell; those that are in it are not run again.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llm_magics.evaluations.judge_correction import estimate_mean
from tests.benchmarks.evaluations.trials import run_missing, summary_lines

if TYPE_CHECKING:
    from numpy.random import Generator


@dataclass(frozen=True, kw_only=True)
class Shares:
    """
    Right and wrong answers, with a judge that is right with a probability, by answer.

    Attributes:
        share: the share of right answers.
        hits, alarms: the probability that the judge accepts a right or a wrong answer.
        labels, items: the items that a person labelled, and all.
        of: whose share is estimated.
    """

    share: float
    hits: float
    alarms: float
    labels: int
    items: int
    of: str

    def truth(self) -> float:
        """Return the share of future items."""
        return self.share

    def trial(self, rng: Generator, truth: float) -> tuple[bool, float]:
        """Return whether the interval contains the share, and its width."""
        right = (rng.random(self.items) < self.share).astype(np.float64)
        accepts = rng.random(self.items) < np.where(right > 0, self.hits, self.alarms)
        return _covered(rng, accepts.astype(np.float64), right, self.labels, self.of, truth)


@dataclass(frozen=True, kw_only=True)
class Ratings:
    """
    Ratings from 1 to 5 by several people, with a judge that is too kind by half a point.

    Attributes:
        people: the number of people, whose mean is the score.
        noise: the standard deviation of the judge's error.
        labels, items, of: as for `Shares`.
    """

    people: int
    noise: float
    labels: int
    items: int
    of: str

    def draw(self, rng: Generator, items: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the judge's scores and those of people."""
        quality = rng.normal(3.6, 1.0, items)
        one = quality[:, None] + rng.normal(0, 0.7, (items, self.people))
        judge = quality + 0.5 + rng.normal(0, self.noise, items)
        return np.clip(np.round(judge), 1, 5), np.clip(np.round(one), 1, 5).mean(axis=1)

    def truth(self) -> float:
        """Return the mean of many items."""
        return float(self.draw(np.random.default_rng(1), 2_000_000)[1].mean())

    def trial(self, rng: Generator, truth: float) -> tuple[bool, float]:
        """Return whether the interval contains the mean, and its width."""
        judge, people = self.draw(rng, self.items)
        return _covered(rng, judge, people, self.labels, self.of, truth)


def _covered(
    rng: Generator, judge: np.ndarray, people: np.ndarray, labels: int, of: str, truth: float
) -> tuple[bool, float]:
    if of == "table":
        truth = float(people.mean())
    known = np.full(len(people), np.nan)
    chosen = rng.permutation(len(people))[:labels]
    known[chosen] = people[chosen]
    found = estimate_mean(judge, known, items=of)
    return found.low - 1e-9 <= truth <= found.high + 1e-9, found.high - found.low


def cells() -> dict[str, Shares | Ratings]:
    """Return all cells by name."""
    found: dict[str, Shares | Ratings] = {}
    judges = {"good": (0.95, 0.1), "fair": (0.8, 0.3), "useless": (0.6, 0.6)}
    for of in ("future", "table"):
        for labels, items in ((100, 500), (100, 5000), (200, 2000), (400, 500)):
            for share in (0.05, 0.3, 0.8):
                for name, (hits, alarms) in judges.items():
                    key = f"{share:.0%} right, {name} judge | {labels} | {items} | {of}"
                    found[key] = Shares(
                        share=share, hits=hits, alarms=alarms, labels=labels, items=items, of=of
                    )
            for people in (1, 3):
                for noise in (0.5, 2.0):
                    key = f"1 to 5, {people} people, error {noise} | {labels} | {items} | {of}"
                    found[key] = Ratings(
                        people=people, noise=noise, labels=labels, items=items, of=of
                    )
    return found


def main() -> None:
    """Run the trials that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="the table of results, to which lines are added")
    parser.add_argument("--trials", type=int, default=2_000, help="of each cell")
    parser.add_argument("--cell", default="", help="run the cells whose name begins so")
    parser.add_argument("--summary", action="store_true", help="print the results and stop")
    args = parser.parse_args()
    if args.summary:
        print("\n".join(summary_lines(args.file, ("scores", "labels", "items", "mean of"))))
        return
    chosen = {name: cell for name, cell in cells().items() if name.startswith(args.cell)}
    run_missing(args.file, chosen, args.trials)


if __name__ == "__main__":
    main()
