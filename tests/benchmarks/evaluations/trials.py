"""Trials of intervals whose results are lines of a file, so that an interrupt loses little."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from zlib import crc32

import numpy as np

if TYPE_CHECKING:
    from numpy.random import Generator

CHUNK = 100  # trials in one line of the file
COLUMNS = ("cell", "truth", "first", "trials", "intervals", "covered", "width")


class Interval(Protocol):
    """Something with a true value, and trials of an interval for it."""

    def truth(self) -> float:
        """Return the true value; NaN if each trial has its own."""

    def trial(self, rng: Generator, truth: float) -> tuple[bool, float] | None:
        """Return whether the interval contains the true value, and its width; ``None`` without."""


def run(name: str, cell: Interval, truth: float, first: int, trials: int) -> dict[str, Any]:
    """Return the line of some trials of a cell."""
    intervals = covered = 0
    width = 0.0
    for number in range(first, first + trials):
        result = cell.trial(np.random.default_rng([crc32(name.encode()), number]), truth)
        if result is not None:
            intervals += 1
            covered += bool(result[0])
            width += result[1]
    values = (name, truth, first, trials, intervals, covered, width)
    return dict(zip(COLUMNS, values, strict=True))


def run_missing(path: Path, cells: Mapping[str, Any], trials: int) -> None:
    """Add the lines of trials that are not in the file."""
    done = {(line["cell"], int(line["first"])) for line in read(path)}
    for name, cell in cells.items():
        starts = [first for first in range(0, trials, CHUNK) if (name, first) not in done]
        truth = cell.truth() if starts else 0.0
        for first in starts:
            line = run(name, cell, truth, first, min(CHUNK, trials - first))
            is_new = not path.exists()
            with path.open("a", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS)
                if is_new:
                    writer.writeheader()
                writer.writerow(line)


def read(path: Path) -> list[dict[str, str]]:
    """Return the lines of the file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def summary_lines(path: Path, heads: Sequence[str]) -> Iterator[str]:
    """Yield a table of the coverage and mean width of each cell, whose name has these parts."""
    totals: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for line in read(path):
        for column in COLUMNS[3:]:
            totals[line["cell"]][column] += float(line[column])
        totals[line["cell"]]["truth"] = float(line["truth"])
    yield f"| {' | '.join(heads)} | true value | trials | coverage | mean width |"
    yield f"|{'---|' * (len(heads) + 4)}"
    for name, each in totals.items():
        count = max(each["intervals"], 1)
        yield (
            f"| {name} | {each['truth']:.2f} | {each['intervals']:,.0f} "
            f"| {each['covered'] / count:.1%} | {each['width'] / count:.3f} |"
        )
