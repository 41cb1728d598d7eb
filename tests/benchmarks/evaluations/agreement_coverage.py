"""
Coverage of the intervals of `lm.agreement`.

    python -m tests.benchmarks.evaluations.agreement_coverage agreement.csv
    python -m tests.benchmarks.evaluations.agreement_coverage agreement.csv --cell "Fleiss" --trials 4000
    python -m tests.benchmarks.evaluations.agreement_coverage agreement.csv --summary

The file has a line for each 100 trials of a cell; those that are in it are not run again. Each
annotator gives the true label with a probability (the quality), and otherwise a label at random;
for ordered labels, a neighbour. The true coefficient is that of 600,000 items.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from llm_magics.evaluations.coefficients import (
    Coefficient,
    cohen_kappa,
    fleiss_kappa,
    krippendorff_alpha,
)
from llm_magics.evaluations.judge_bias import mean_difference, rank_correlation
from tests.benchmarks.evaluations.trials import run_missing, summary_lines

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

_MANY = 600_000

# How labels are distributed.
LABELS = {
    "2 labels": (0.5, 0.5),
    "2 labels, one 10 %": (0.9, 0.1),
    "3 labels": (0.5, 0.3, 0.2),
    "5 labels": (0.1, 0.2, 0.3, 0.25, 0.15),
}


def labels(
    rng: Generator, n: int, people: int, shares: tuple[float, ...], quality: float, *, near: bool
) -> NDArray[np.intp]:
    """Return the labels of each item by each annotator."""
    count = len(shares)
    true = np.repeat(rng.choice(count, n, p=shares)[:, None], people, axis=1)
    other = rng.choice(count, true.shape, p=shares)
    if near:
        other = np.clip(true + rng.choice((-1, 1), true.shape), 0, count - 1)
    return np.where(rng.random(true.shape) < quality, true, other)


def cohen(table: NDArray[np.intp], count: int, weights: str | None = None) -> Coefficient:
    """Return Cohen's kappa of the first two annotators."""
    return cohen_kappa(table[:, 0], table[:, 1], count, weights)


def fleiss(table: NDArray[np.intp], count: int) -> Coefficient:
    """Return Fleiss' kappa."""
    return fleiss_kappa((table[:, :, None] == np.arange(count)).sum(axis=1))


def alpha(table: NDArray[np.intp], count: int, level: str, missing: float = 0.0) -> Coefficient:
    """Return Krippendorff's alpha; the labels that are missing are drawn by the table itself."""
    values = table.astype(np.float64) + (level == "ratio")
    if missing:
        rng = np.random.default_rng(crc32(table.tobytes()[:4096]))
        values[rng.random(values.shape) < missing] = np.nan
    return krippendorff_alpha(values, level)


# The coefficient, and whether labels are ordered.
STATISTICS: dict[str, tuple[Callable[..., Coefficient], bool]] = {
    "Cohen's kappa": (cohen, False),
    "Cohen's kappa, linear weights": (partial(cohen, weights="linear"), True),
    "Cohen's kappa, quadratic weights": (partial(cohen, weights="quadratic"), True),
    "Fleiss' kappa": (fleiss, False),
    "alpha, nominal": (partial(alpha, level="nominal"), False),
    "alpha, nominal, 30 % missing": (partial(alpha, level="nominal", missing=0.3), False),
    "alpha, ordinal": (partial(alpha, level="ordinal"), True),
    "alpha, interval": (partial(alpha, level="interval"), True),
    "alpha, ratio": (partial(alpha, level="ratio"), True),
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A statistic of labels, and its true value."""

    statistic: str
    shares: tuple[float, ...]
    quality: float
    n: int

    def compute(self, rng: Generator, n: int) -> Coefficient:
        """Return the coefficient of ``n`` items."""
        function, near = STATISTICS[self.statistic]
        people = 2 if self.statistic.startswith("Cohen") else 3
        table = labels(rng, n, people, self.shares, self.quality, near=near)
        return function(table, len(self.shares))

    def truth(self) -> float:
        """Return the coefficient of many items."""
        return self.compute(np.random.default_rng(1), _MANY).value

    def trial(self, rng: Generator, truth: float) -> tuple[bool, float] | None:
        """Return whether the interval contains the true value, and its width."""
        found = self.compute(rng, self.n)
        if not np.isfinite(found.low):
            return None
        return found.low <= truth <= found.high, found.high - found.low


@dataclass(frozen=True, kw_only=True)
class Correlation:
    """The rank correlation of errors with lengths: errors of -1, 0 or 1 that depend on them."""

    n: int
    strength: float

    def draw(self, rng: Generator, n: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return errors, most of them 0, and lengths."""
        lengths = rng.lognormal(size=n)
        latent = self.strength * np.log(lengths) + rng.standard_normal(n)
        return np.sign(latent) * (np.abs(latent) > 1.2), lengths

    def truth(self) -> float:
        """Return the correlation of many items."""
        return rank_correlation(*self.draw(np.random.default_rng(1), _MANY), 0.95).value

    def trial(self, rng: Generator, truth: float) -> tuple[bool, float]:
        """Return whether the interval contains the true value, and its width."""
        found = rank_correlation(*self.draw(rng, self.n), 0.95)
        return found.low <= truth <= found.high, found.high - found.low


@dataclass(frozen=True, kw_only=True)
class Preference:
    """How much more often a judge chooses the first answer than people do."""

    n: int
    bias: float

    def truth(self) -> float:
        """Return the bias."""
        return self.bias / 2

    def trial(self, rng: Generator, truth: float) -> tuple[bool, float]:
        """Return whether the interval contains the true value, and its width."""
        people = rng.random(self.n) < 0.5
        judge = np.where(rng.random(self.n) < 0.75, people, ~people)
        judge |= rng.random(self.n) < self.bias
        found = mean_difference(judge.astype(np.float64) - people, 0.95)
        return found.low <= truth <= found.high, found.high - found.low


def cells() -> dict[str, Cell | Correlation | Preference]:
    """Return all cells by name."""
    found: dict[str, Cell | Correlation | Preference] = {
        f"{statistic} | {name} | {quality} | {n}": Cell(
            statistic=statistic, shares=shares, quality=quality, n=n
        )
        for statistic, (_, near) in STATISTICS.items()
        for name, shares in LABELS.items()
        for quality in (0.5, 0.8, 0.95)
        for n in (30, 100, 300)
        if not near or len(shares) > 2
    }
    for n in (30, 100, 300):
        for strength in (0.0, 0.5):
            name = f"rank correlation with length | errors of -1, 0, 1 | {strength} | {n}"
            found[name] = Correlation(n=n, strength=strength)
        for bias in (0.0, 0.2):
            name = f"bias by position | two answers | {bias} | {n}"
            found[name] = Preference(n=n, bias=bias)
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
        heads = ("statistic", "labels", "quality", "items")
        print("\n".join(summary_lines(args.file, heads)))
        return
    chosen = {name: cell for name, cell in cells().items() if name.startswith(args.cell)}
    run_missing(args.file, chosen, args.trials)


if __name__ == "__main__":
    main()
