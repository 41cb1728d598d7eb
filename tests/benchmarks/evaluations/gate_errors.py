"""
False alarms and detections of the gate, by simulation.

    python -m tests.benchmarks.evaluations.gate_errors gates.jsonl
    python -m tests.benchmarks.evaluations.gate_errors gates.jsonl --cell "null 200 mixed 0.8"
    python -m tests.benchmarks.evaluations.gate_errors gates.jsonl --summary

Each line of the file has the results of some gates of a cell. Gates that are in the file are not
run again, so that the measurement continues after an interrupt. Gate ``t`` of a cell draws by
``np.random.default_rng([crc32 of the cell's name, t])``; of the cells by baseline, gate ``t`` uses
the stored baseline ``t % baselines``.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from llm_magics.evaluations.gate.flaky import deciding_repeats, flaky_items
from llm_magics.evaluations.gate.statistics import (
    Looks,
    Plan,
    count_looks,
    holm_rejects,
    look,
    wave_ends,
)

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

GATES, CHUNK, ALPHA = 2000, 100, 0.05
# Bounds of 2,000 gates: 5 % and 80 %, each with 2.35 standard deviations.
MOST_ALARMS, FEWEST_DETECTIONS = 123, 1558


@dataclass(frozen=True, kw_only=True)
class Cell:
    """
    A simulated gate.

    Attributes:
        items: the number of items.
        kind: how the items differ: ``coin`` (all alike), ``mixed`` (a beta distribution), ``fixed``
            (always right or always wrong), ``some`` (a fifth are coins, the others fixed), and
            ``graded`` (mixed, with scores between 0 and 1).
        base: the mean score of the baseline.
        stored: repeats of the baseline.
        repeats: new answers per item.
        drop: the drop of the mean.
        pattern: where the drop is: ``even`` or in as ``few`` items as possible; without a drop,
            ``churn`` exchanges the chances of a fifth of the items.
        flaky: whether flaky items are left out.
        checks: checks with independent answers; the drop is in the first.
        baselines: stored baselines that are used for all gates; 0 for one per gate.
    """

    items: int
    kind: str = "mixed"
    base: float = 0.8
    stored: int = 8
    repeats: int = 1
    drop: float = 0.0
    pattern: str = "even"
    flaky: bool = True
    checks: int = 1
    baselines: int = 0


def chances(rng: Generator, cell: Cell) -> NDArray[np.float64]:
    """Return the chance of a right answer of each item."""
    n, base = cell.items, cell.base
    always = rng.permutation(np.arange(n) < round(n * base)).astype(np.float64)
    if cell.kind == "coin":
        return np.full(n, base)
    if cell.kind == "fixed":
        return always
    if cell.kind == "some":
        return np.where(rng.random(n) < 0.2, 0.5, always)
    return rng.beta(2 * base, 2 * (1 - base), n)


def changed(rng: Generator, before: NDArray[np.float64], cell: Cell) -> NDArray[np.float64]:
    """Return the chances of the new model."""
    after = before.copy()
    order = rng.permutation(len(before))
    if cell.pattern == "churn":
        some = order[: len(order) // 5]
        after[some] = before[rng.permutation(some)]
    elif cell.drop and cell.pattern == "few":
        left = cell.drop * len(before)
        for item in order:
            lost = min(left, before[item])
            after[item] -= lost
            left -= lost
    else:
        after *= 1 - cell.drop / before.mean()
    return after


def answer(rng: Generator, chance: NDArray[np.float64], repeats: int, kind: str) -> NDArray:
    """Return scores (items, repeats)."""
    if kind == "graded":
        middle = chance[:, None]
        return rng.beta(4 * middle + 1e-6, 4 * (1 - middle) + 1e-6, (len(chance), repeats)).round(
            2
        )
    return (rng.random((len(chance), repeats)) < chance[:, None]).astype(np.float64)


def compared(stored: NDArray, new: NDArray, *, flaky: bool) -> tuple[NDArray, NDArray]:
    """Return the answers that the gate compares: without flaky items and what decides about them."""
    deciding = deciding_repeats(stored.shape[1]) if flaky else 0
    if not deciding:
        return stored, new
    keys = [f"{item:06}" for item in range(len(stored))]
    kept = ~flaky_items(stored[:, :deciding], keys)
    return stored[kept, deciding:], new[kept]


def observe(stored: NDArray, new: NDArray, *, flaky: bool) -> Looks:
    """Return the looks at one check, as the gate does."""
    stored, new = compared(stored, new, flaky=flaky)
    n = len(stored)
    return look(stored, new, wave_ends(n, count_looks(n)), n)


def alarm(name: str, cell: Cell, trial: int) -> bool:
    """Whether the gate fails."""
    rng = np.random.default_rng([crc32(name.encode()), trial])
    looks = []
    for check in range(cell.checks):
        own = rng
        if cell.baselines:
            seed = [crc32(name.encode()), trial % cell.baselines, 10**6 + check]
            own = np.random.default_rng(seed)
        before = chances(own, cell)
        stored = answer(own, before, cell.stored, cell.kind)
        after = changed(own, before, cell) if check == 0 else before
        looks.append(
            observe(stored, answer(rng, after, cell.repeats, cell.kind), flaky=cell.flaky)
        )
    return any(holm_rejects(looks, ALPHA))


def planned(cell: Cell) -> Cell:
    """Return the cell with the number of items that the gate states for its drop."""
    rng = np.random.default_rng(1)
    many = Cell(**{**cell.__dict__, "items": 20_000})
    variance = float((p := chances(rng, many)).dot(1 - p) / len(p))
    if cell.kind == "graded":
        variance /= 5
    compared = cell.stored - (deciding_repeats(cell.stored) if cell.flaky else 0)
    plan = Plan(
        variance=variance, stored=compared, repeats=cell.repeats, alpha=ALPHA / cell.checks
    )
    items = plan.required_items(cell.drop)
    share = 0.95 if cell.flaky else 1.0  # flaky items are left out of the plan
    return Cell(**{**cell.__dict__, "items": int(np.ceil(items / share))})


@cache
def cells() -> dict[str, Cell]:
    """Return all cells by their names."""
    found: dict[str, Cell] = {}
    for items in (20, 50, 200, 740):
        for base in (0.6, 0.8, 0.95):
            for kind in ("mixed", "coin", "some"):
                found[f"null {items} {kind} {base}"] = Cell(items=items, kind=kind, base=base)
    for stored in (3, 5, 10):
        cell = Cell(items=200, stored=stored, flaky=False)
        found[f"null 200 mixed 0.8 stored {stored} all compared"] = cell
    for items in (20, 50, 200, 740):
        found[f"null {items} mixed churn"] = Cell(items=items, pattern="churn")
        found[f"null {items} graded"] = Cell(items=items, kind="graded")
    found["null 50 coin 0.1"] = Cell(items=50, kind="coin", base=0.1)
    found["null 200 coin 0.1"] = Cell(items=200, kind="coin", base=0.1)
    found["null 200 mixed 3 repeats"] = Cell(items=200, repeats=3)
    found["null 200 mixed 5 checks"] = Cell(items=200, checks=5)
    found |= _drops()
    for stored in (1, 3, 5, 10, 20):
        cell = Cell(items=200, kind="coin", stored=stored, flaky=False, baselines=100)
        found[f"baselines 200 coin 0.8 stored {stored}"] = cell
    found["baselines 200 coin 0.8 stored 8 flaky"] = Cell(items=200, kind="coin", baselines=100)
    return found


def _drops() -> dict[str, Cell]:
    """Return the cells with a drop, each with the number of items that the gate states."""
    found: dict[str, Cell] = {}
    kinds = [
        ("mixed", 0.6), ("mixed", 0.8), ("mixed", 0.95), ("coin", 0.8), ("some", 0.8),
        ("fixed", 0.8), ("graded", 0.8),
    ]  # fmt: skip
    for drop, pattern, (kind, base) in product((0.05, 0.1), ("even", "few"), kinds):
        if (kind, pattern) != ("fixed", "even"):
            cell = Cell(items=0, kind=kind, base=base, drop=drop, pattern=pattern)
            found[f"drop {drop} {pattern} {kind} {base}"] = planned(cell)
    found["drop 0.1 even mixed 3 repeats"] = planned(Cell(items=0, drop=0.1, repeats=3))
    found["drop 0.1 even mixed 5 checks"] = planned(Cell(items=0, drop=0.1, checks=5))
    return found


def read(path: Path) -> dict[str, dict[int, list[bool]]]:
    """Return the alarms by cell and first gate."""
    found: dict[str, dict[int, list[bool]]] = defaultdict(dict)
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            record = json.loads(line)
            found[record["cell"]][record["first"]] = [each == "1" for each in record["alarms"]]
    return found


def measure(path: Path, only: str | None) -> None:
    """Run the gates that are missing in the file."""
    known = read(path)
    for name, cell in cells().items():
        if only and only not in name:
            continue
        for first in range(0, 10_000 if cell.baselines else GATES, CHUNK):
            if first in known[name]:
                continue
            alarms = [alarm(name, cell, first + each) for each in range(CHUNK)]
            text = "".join("01"[each] for each in alarms)
            record = {"cell": name, "items": cell.items, "first": first, "alarms": text}
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{json.dumps(record)}\n")


def summarize(path: Path) -> str:
    """Return a table in Markdown."""
    lines = ["| cell | items | gates | alarms | share | |", "|---|---|---|---|---|---|"]
    all_cells = cells()
    for name, chunks in read(path).items():
        alarms = np.array([each for first in sorted(chunks) for each in chunks[first]])
        cell = all_cells[name]
        note = ""
        if cell.baselines:
            rates = [alarms[each :: cell.baselines].mean() for each in range(cell.baselines)]
            note = f"a tenth of baselines above {np.quantile(rates, 0.9):.1%}, highest {max(rates):.1%}"
        elif len(alarms) == GATES:
            is_met = (
                alarms.sum() >= FEWEST_DETECTIONS if cell.drop else alarms.sum() <= MOST_ALARMS
            )
            note = "ok" if is_met else "MISSED"
        lines.append(
            f"| {name} | {cell.items} | {len(alarms)} | {alarms.sum()} | {alarms.mean():.1%} | {note} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, or print what is in the file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--cell")
    parser.add_argument("--summary", action="store_true")
    arguments = parser.parse_args()
    if not arguments.summary:
        measure(arguments.file, arguments.cell)
    print(summarize(arguments.file))


if __name__ == "__main__":
    main()
