"""
Which rows of each group are drawn for a share, and how likely it was that an item is asked.

The rows of a group are drawn without replacement: the first ones in the sampling order. How many
is decided before any answer is known, from the sizes of the groups and the number of copies of
each item only, so that the rows drawn of a group are a simple random sample of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The part of the labels that is spread evenly over the groups; the rest is in proportion to rows.
_EVEN = 0.5


@dataclass(frozen=True, eq=False, kw_only=True)
class Population:
    """
    The rows that have an item, and the group of each.

    Attributes:
        items: the item of each row, from 0 on.
        groups: the group of each row, from 0 on.
        sizes: the number of rows of each group.
        pair_items, pair_groups, pair_rows: the distinct pairs of an item and a group, and the
            number of rows of each.
    """

    items: NDArray[np.intp]
    groups: NDArray[np.intp]
    sizes: NDArray[np.intp]
    pair_items: NDArray[np.intp]
    pair_groups: NDArray[np.intp]
    pair_rows: NDArray[np.intp]

    @classmethod
    def of(cls, items: NDArray[np.intp], groups: NDArray[np.intp], count: int) -> Population:
        """Return the population of rows with these items, in ``count`` groups."""
        pairs, rows = np.unique(items * count + groups, return_counts=True)
        return cls(
            items=items,
            groups=groups,
            sizes=np.bincount(groups, minlength=count),
            pair_items=pairs // count,
            pair_groups=pairs % count,
            pair_rows=rows,
        )

    @property
    def item_count(self) -> int:
        """One more than the largest item."""
        return int(self.pair_items[-1]) + 1 if len(self.pair_items) else 0


def allocate(sizes: NDArray[np.intp], total: int) -> NDArray[np.intp]:
    """
    Return how many rows to draw from each group: ``total`` altogether, or all rows.

    Half of them are spread evenly, half in proportion to the rows. Places are given one by one
    (Webster's method), so that a larger total draws at least as many rows from each group.
    """
    groups = np.flatnonzero(sizes)
    total = min(total, int(sizes.sum()))
    if not total:
        return np.zeros(len(sizes), np.intp)
    weights = _EVEN / len(groups) + (1 - _EVEN) * sizes[groups] / sizes.sum()
    most = np.minimum(sizes[groups], total)
    place = np.arange(most.sum()) - np.repeat(np.cumsum(most) - most, most)
    priority = np.repeat(weights, most) / (place + 0.5)
    first = np.argsort(-priority, kind="stable")[:total]
    return np.bincount(np.repeat(groups, most)[first], minlength=len(sizes)).astype(np.intp)


def missed_chance(population: Population, drawn: NDArray[np.intp]) -> NDArray[np.float64]:
    """
    Return the probability that none of an item's rows is drawn, for each item.

    ``drawn`` is the number of rows that are drawn from each group. It is 0 for an item that must
    be drawn.
    """
    sizes, rows = population.sizes[population.pair_groups], population.pair_rows
    taken = drawn[population.pair_groups]
    is_sure = taken > sizes - rows
    chance = np.zeros(population.item_count)
    # Of a row without copies, by a formula without rounding errors.
    single = (rows == 1) & ~is_sure
    logs = np.zeros(len(rows))
    logs[single] = np.log1p(-taken[single] / sizes[single])
    several = ~single & ~is_sure
    if several.any():
        factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, sizes.max() + 1)))])
        size, row, take = sizes[several], rows[several], taken[several]
        logs[several] = (
            factorial[size - row]
            - factorial[size - row - take]
            - factorial[size]
            + factorial[size - take]
        )
    logs[is_sure] = -np.inf
    np.add.at(chance, population.pair_items, logs)
    return np.exp(chance)


def rows_per_group(population: Population, labels: int) -> NDArray[np.intp]:
    """
    Return how many rows to draw from each group, so that about ``labels`` items are asked.

    Without duplicates it is exact. Otherwise it is the largest number of rows whose expected number
    of distinct items is at most ``labels``: to stop at the last label would favour some rows.
    """
    distinct = len(np.unique(population.pair_items))
    rows = len(population.items)
    if labels >= distinct:
        return population.sizes.copy()
    if distinct == rows:
        return allocate(population.sizes, labels)
    known = np.zeros(population.item_count, np.bool_)
    known[population.pair_items] = True
    low, high = min(labels, rows), rows  # low is always possible: a row has at most one item
    while high - low > 1:
        middle = (low + high) // 2
        chances = missed_chance(population, allocate(population.sizes, middle))
        if (1 - chances[known]).sum() <= labels:
            low = middle
        else:
            high = middle
    return allocate(population.sizes, low)


def draw(
    population: Population, order: NDArray[np.intp], per_group: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Return the first rows of each group in ``order``, as many as ``per_group`` says."""
    groups = population.groups[order]
    by_group = np.argsort(groups, kind="stable")
    starts = np.cumsum(population.sizes) - population.sizes
    place = np.empty(len(order), np.intp)
    place[by_group] = np.arange(len(order)) - starts[groups[by_group]]
    return order[place < per_group[groups]]
