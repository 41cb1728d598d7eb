"""
Coverage and width of the intervals of the operator ``share``.

    python -m tests.benchmarks.operators.share_coverage shares.csv
    python -m tests.benchmarks.operators.share_coverage shares.csv --cell "amazon 200" --trials 2000
    python -m tests.benchmarks.operators.share_coverage shares.csv --summary

Each line of the file has the results of some trials of a cell. Trials that are in the file are not
run again, so that the measurement continues after an interrupt. Trial ``t`` of a cell draws by
``np.random.default_rng([crc32 of the cell's name, t])``.
"""

from __future__ import annotations

import argparse
import csv
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from llm_magics.dataframes.operators.cross_fitting import cross_fit, labelled_rows
from llm_magics.dataframes.operators.labelled_sample import UNKNOWN, Labels
from llm_magics.dataframes.operators.oracle import FAILED, NO, YES
from llm_magics.dataframes.operators.prediction_powered import (
    Predictions,
    Shares,
    estimate_shares,
)
from llm_magics.dataframes.operators.share_sampling import (
    Population,
    draw,
    missed_chance,
    rows_per_group,
)

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from llm_magics.dataframes.operators.proxies import Proxy

ALPHA = 0.05
CHUNK = 50  # trials in one line of the file

COLUMNS = ("cell", "first", "trials", "covered", "families", "groups", "width", "alone", "exact")


@dataclass(frozen=True, kw_only=True)
class Table:
    """
    A table with answers.

    Attributes:
        answers: the answer about each item: `YES`, `NO` or `FAILED`.
        items, groups: the item and the group of each row.
        scores: predictions by a fixed proxy; ``None`` without one.
        proxy: returns a proxy that learns.
        simultaneous: whether the intervals of all groups hold together.
    """

    answers: NDArray[np.int8]
    items: NDArray[np.intp]
    groups: NDArray[np.intp]
    scores: NDArray[np.float64] | None = None
    proxy: Callable[[], Proxy] | None = None
    simultaneous: bool = False

    @property
    def shares(self) -> NDArray[np.float64]:
        """The true share of each group, of the rows with an answer."""
        of_rows = self.answers[self.items]
        yes = np.bincount(self.groups[of_rows == YES], minlength=self.groups.max() + 1)
        no = np.bincount(self.groups[of_rows == NO], minlength=self.groups.max() + 1)
        shares: NDArray[np.float64] = yes / np.maximum(yes + no, 1)
        return shares


# Draws the table of a trial.
Draw = Callable[["Generator"], Table]


def correlated(rng: Generator, yes: NDArray[np.bool_], rho: float) -> NDArray[np.float64]:
    """Return normal scores whose correlation with ``yes`` is exactly ``rho``."""
    signal = yes - yes.mean()
    signal /= signal.std()
    noise = rng.standard_normal(len(yes))
    noise -= noise.mean()
    noise -= (noise @ signal) / (signal @ signal) * signal
    scores: NDArray[np.float64] = rho * signal + (1 - rho**2) ** 0.5 * noise / noise.std()
    return scores


def plain(rng: Generator, *, rows: int, rate: float, rho: float) -> Table:
    """Return a table without groups and copies, with a proxy of a given correlation."""
    yes = rng.permutation(np.arange(rows) < round(rows * rate))
    scores = correlated(rng, yes, rho) if rho else None
    nothing = np.zeros(rows, np.intp)
    return Table(answers=yes.astype(np.int8), items=np.arange(rows), groups=nothing, scores=scores)


def hard(rng: Generator, *, rows: int, rate: float, missed: float, wrong: float) -> Table:
    """Return a table with a proxy of hard answers; ``missed`` and ``wrong`` are shares of rows."""
    yes = rng.permutation(np.arange(rows) < round(rows * rate))
    scores = yes.astype(np.float64)
    scores[rng.permutation(np.flatnonzero(yes))[: round(missed * rows)]] = 0
    scores[rng.permutation(np.flatnonzero(~yes))[: round(wrong * rows)]] = 1
    nothing = np.zeros(rows, np.intp)
    return Table(answers=yes.astype(np.int8), items=np.arange(rows), groups=nothing, scores=scores)


def grouped(rng: Generator, *, rows: int, simultaneous: bool) -> Table:
    """Return a table of eight groups with different sizes, shares and qualities of the proxy."""
    sizes = np.array([0.3, 0.2, 0.15, 0.1, 0.1, 0.05, 0.05, 0.05])
    groups = rng.permutation(np.repeat(np.arange(8), np.round(sizes * rows).astype(int)))
    yes = rng.random(len(groups)) < np.array([0.3, 0.6, 0.1, 0.5, 0.8, 0.3, 0.5, 0.02])[groups]
    quality = np.array([0.7, 0.4, 0.6, 0.0, 0.9, 0.5, 0.8, 0.5])[groups]
    scores = quality * (yes - yes.mean()) * 2 + rng.standard_normal(len(groups)) * 0.7
    return Table(
        answers=yes.astype(np.int8),
        items=np.arange(len(groups)),
        groups=groups,
        scores=scores,
        simultaneous=simultaneous,
    )


def copied(rng: Generator, *, rows: int, rho: float) -> Table:
    """Return a table in which half of the rows are copies: a few texts are very frequent."""
    frequent = np.repeat(np.arange(60), np.maximum(2, (rows / 8 / np.arange(1, 61)).astype(int)))
    frequent = frequent[: rows // 2]
    items = np.concatenate([frequent, np.arange(60, 60 + rows - len(frequent))])
    yes = rng.random(items.max() + 1) < 0.35
    scores = correlated(rng, yes[items], rho)
    by_item = np.zeros(len(yes))
    by_item[items] = scores  # copies have the same score
    nothing = np.zeros(rows, np.intp)
    return Table(answers=yes.astype(np.int8), items=items, groups=nothing, scores=by_item[items])


def failing(rng: Generator, *, rows: int, rate: float, only_yes: bool) -> Table:
    """Return a table whose oracle fails on 5 % of the rows: of all, or of the positive ones."""
    table = plain(rng, rows=rows, rate=rate, rho=0.6)
    can_fail = np.flatnonzero(table.answers == YES) if only_yes else np.arange(rows)
    table.answers[rng.permutation(can_fail)[: rows // 20]] = FAILED
    return table


def amazon(folder: Path, *, negative: bool, groups: int, simultaneous: bool = False) -> Table:
    """Return the Amazon sentences, by their vectors; groups are of quite different sizes."""
    texts, _, ratings = read_amazon(folder)
    # Equal texts have ratings of their own, so that each row is an item.
    answers = ((ratings < 0) if negative else (ratings > 0)).astype(np.int8)
    group = np.array([crc32(text.encode()) for text in texts]) % 2**groups
    return Table(
        answers=answers,
        items=np.arange(len(texts)),
        groups=np.floor(np.log2(group + 1)).astype(np.intp),
        proxy=partial(vector_classifier, folder),
        simultaneous=simultaneous,
    )


@cache
def read_amazon(folder: Path) -> tuple[list[str], NDArray[np.float32], NDArray[np.float32]]:
    """Return the Amazon sentences, their vectors and ratings."""
    from tests.benchmarks.operators.amazon import sentences, vectors

    texts, ratings = sentences(folder)
    return texts, vectors(folder), ratings


def vector_classifier(folder: Path) -> Proxy:
    """Return the logistic regression on the vectors of the Amazon sentences."""
    from llm_magics.dataframes.operators.classifiers import VectorClassifier

    vectors = read_amazon(folder)[1]
    return VectorClassifier(list(vectors), "vector", np.arange(len(vectors)))


def cells(folder: Path) -> dict[str, tuple[Draw, int]]:
    """Return the table and the number of labels of each cell, by its name."""
    found: dict[str, tuple[Draw, int]] = {}
    for labels in (100, 200, 400):
        of_amazon = partial(amazon, folder, negative=False, groups=0)
        found[f"amazon {labels}"] = (lambda rng, t=of_amazon: t()), labels
    negative = partial(amazon, folder, negative=True, groups=0)
    found["amazon negative 200"] = (lambda rng: negative()), 200
    by_group = partial(amazon, folder, negative=False, groups=3, simultaneous=False)
    found["amazon 4 groups 300"] = (lambda rng: by_group()), 300
    for rho in (0.0, 0.4, 0.7, 0.9):
        for rows, labels, rate in (
            *((2_000, 100, rate) for rate in (0.02, 0.05, 0.1, 0.14, 0.15, 0.2, 0.3, 0.5, 0.85)),
            *((4_000, 400, rate) for rate in (0.005, 0.02, 0.035, 0.0375, 0.05, 0.2, 0.5)),
            *((1_000, 400, rate) for rate in (0.02, 0.05, 0.2, 0.5)),
            *((200, 100, rate) for rate in (0.05, 0.2, 0.5)),
            (1_000, 40, 0.5),
            (60, 20, 0.3),
            (100_000, 200, 0.3),
        ):
            name = f"rho {rho} rows {rows} labels {labels} rate {rate}"
            found[name] = partial(plain, rows=rows, rate=rate, rho=rho), labels
    for labels in (100, 400):
        for missed, wrong in ((0.005, 0), (0.01, 0), (0.02, 0.02), (0.03, 0), (0, 0.1), (0.05, 0)):
            name = f"hard proxy labels {labels} missed {missed} wrong {wrong}"
            found[name] = partial(hard, rows=5_000, rate=0.4, missed=missed, wrong=wrong), labels
    for labels in (200, 500):
        found[f"8 groups {labels}"] = partial(grouped, rows=4_000, simultaneous=False), labels
        name = f"8 groups simultaneous {labels}"
        found[name] = partial(grouped, rows=4_000, simultaneous=True), labels
        found[f"copies {labels}"] = partial(copied, rows=4_000, rho=0.6), labels
        for only_yes in (False, True):
            name = f"failing{' positives' if only_yes else ''} {labels}"
            found[name] = partial(failing, rows=2_000, rate=0.3, only_yes=only_yes), labels
    return found


def trial(table: Table, labels: int, rng: Generator) -> tuple[Shares, Shares]:
    """Draw and ask about rows; return the estimates with and without predictions."""
    count = int(table.groups.max()) + 1
    population = Population.of(table.items, table.groups, count)
    per_group = rows_per_group(population, labels)
    rows = draw(population, rng.permutation(len(table.items)), per_group)
    answers = np.full(population.item_count, UNKNOWN, np.int8)
    answers[table.items[rows]] = table.answers[table.items[rows]]
    known = Labels(drawn=rows, answers=answers, missed=missed_chance(population, per_group))
    predictions = None
    if table.scores is not None:
        folds = np.zeros(population.item_count, np.intp)
        predictions = Predictions(values=table.scores[None], folds=folds)
    elif table.proxy is not None:
        learned = labelled_rows(table.items, rows, answers)
        predictions = cross_fit(table.proxy(), table.items, learned, answers)
    alpha = ALPHA / count if table.simultaneous else ALPHA
    alone = estimate_shares(population, known, None, alpha)
    if predictions is None:
        return alone, alone
    return estimate_shares(population, known, predictions, alpha), alone


def run(name: str, cell: tuple[Draw, int], first: int, trials: int) -> dict[str, Any]:
    """Return a line of the file: the results of ``trials`` trials of a cell."""
    covered = families = groups = 0
    exact = width = width_alone = 0.0
    for number in range(first, first + trials):
        rng = np.random.default_rng([crc32(name.encode()), number])
        table = cell[0](rng)
        shares, alone = trial(table, cell[1], rng)
        inside = (shares.low - 1e-9 <= table.shares) & (table.shares <= shares.high + 1e-9)
        covered += int(inside.sum())
        families += bool(inside.all())
        groups += len(inside)
        width += float(shares.width.mean())
        width_alone += float(alone.width.mean())
        exact += float(shares.is_exact.mean())
    figures = (covered, families, groups, width, width_alone, exact)
    return dict(zip(COLUMNS, (name, first, trials, *figures), strict=True))


def read(path: Path) -> list[dict[str, str]]:
    """Return the lines of the file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def summary(lines: list[dict[str, str]]) -> Iterator[str]:
    """Return the table of the documentation."""
    totals: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for line in lines:
        for name in COLUMNS[2:]:
            totals[line["cell"]][name] += float(line[name])
    yield "| cell | trials | coverage | of all groups | width | labels alone | ratio | exact |"
    yield "|---|---|---|---|---|---|---|---|"
    for cell, each in totals.items():
        trials = each["trials"]
        yield (
            f"| {cell} | {trials:,.0f} | {each['covered'] / each['groups']:.1%} "
            f"| {each['families'] / trials:.1%} | {each['width'] / trials:.4f} "
            f"| {each['alone'] / trials:.4f} | {each['width'] / max(each['alone'], 1e-12):.3f} "
            f"| {each['exact'] / trials:.0%} |"
        )


def main() -> None:
    """Run the trials that are missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="the table of results, to which lines are added")
    parser.add_argument("--trials", type=int, default=2_000, help="of each cell")
    parser.add_argument("--cell", help="run the cells whose name begins so")
    parser.add_argument("--data", type=Path, default=Path(), help="the folder of the sentences")
    parser.add_argument("--summary", action="store_true", help="print the results and stop")
    args = parser.parse_args()
    if args.summary:
        print("\n".join(summary(read(args.file))))
        return
    for name, cell in cells(args.data).items():
        if not name.startswith(args.cell or ""):
            continue
        done = {int(line["first"]) for line in read(args.file) if line["cell"] == name}
        for first in range(0, args.trials, CHUNK):
            if first in done:
                continue
            line = run(name, cell, first, min(CHUNK, args.trials - first))
            is_new = not args.file.exists()
            with args.file.open("a", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                if is_new:
                    writer.writeheader()
                writer.writerow(line)


if __name__ == "__main__":
    main()
