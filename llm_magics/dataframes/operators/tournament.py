"""
A tournament that ranks items until the best ones are known, by comparisons in concurrent rounds.

It is a merge sort that is evaluated on demand: each node of a binary tree merges the rankings of its
two halves, and computes only as many places as the top ``k`` may need. All nodes compare at the same
time, each one at most `_LOOKAHEAD` places ahead of its parent. So ``m`` items need about
``m + k log2(m)`` comparisons in about ``log2(m) + k`` rounds, and never more comparisons than a full
merge sort, ``m ceil(log2 m)``.

Each comparison puts one item at its next place, whatever its outcome is. So the tournament ends
without repeated comparisons, even if outcomes contradict each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum


class Outcome(IntEnum):
    """The outcome of a comparison of two items."""

    FIRST = 1  # the first one is better
    SECOND = 2
    TIE = 3  # the answers depend on the order of the two
    FAILED = 4  # an answer is missing


# Two different items; in the order of their numbers.
Pair = tuple[int, int]

# Returns the outcome of each pair. The pairs of one call are independent of each other.
Compare = Callable[[Sequence[Pair]], Sequence[Outcome]]

# The number of places that a node computes before its parent needs them: with 1, a parent would
# wait for a comparison at each level below it; more cost comparisons and save hardly any rounds.
_LOOKAHEAD = 2


class Tournament:
    """
    A ranking of the items ``0 … n-1``, of which the best are wanted.

    A tie, and a comparison that failed, goes to the item with the lower number: number the items in
    the order that they have without comparisons. The better that order is, the fewer comparisons
    are needed.

    Attributes:
        ranking: the best items so far, best first.
        outcomes: the outcome of each pair that was compared.
        rounds: the number of rounds so far.
    """

    def __init__(self, weights: Sequence[int], k: int) -> None:
        """
        Prepare the tournament.

        Args:
            weights: the number of places that each item takes, at least 1.
            k: the number of places to fill.
        """
        self.ranking: list[int] = []
        self.outcomes: dict[Pair, Outcome] = {}
        self.rounds = 0
        self._weights = weights
        self._k = self._left = k
        self._nodes: list[_Node] = []
        self._root = self._build(range(len(weights)))

    def run(self, compare: Compare) -> list[int]:
        """Send rounds of comparisons to ``compare`` until the ranking is complete; return it."""
        while pairs := self._next_pairs():
            found = compare(pairs)
            self.rounds += 1
            self.outcomes.update(zip(pairs, found, strict=True))
        return self.ranking

    def _build(self, items: Sequence[int]) -> _Node:
        """Return the node that ranks ``items``; add it and those below it, children first."""
        if len(items) < 2:
            return _Node(items)
        half = (len(items) + 1) // 2
        node = _Node(items, [self._build(items[:half]), self._build(items[half:])])
        self._nodes.append(node)
        return node

    def _next_pairs(self) -> list[Pair]:
        """Advance all nodes as far as outcomes are known; return the comparisons they wait for."""
        while self._advance():
            pass
        if self._left <= 0:
            return []
        return [node.pair for node in self._nodes if self._is_short(node) and node.is_contested]

    def _advance(self) -> bool:
        """Move items up by one place where no comparison is missing; return whether any moved."""
        has_moved = False
        for node in self._nodes:
            if self._is_short(node):
                item = node.advance(self.outcomes)
                if item is not None:
                    node.places += self._weights[item]
                    has_moved = True
        while self._root.ready and self._left > 0:
            item = self._root.take()
            self.ranking.append(item)
            self._left -= self._weights[item]
            has_moved = True
        return has_moved

    def _is_short(self, node: _Node) -> bool:
        """Whether ``node`` has fewer places ready than its parent may need soon."""
        # What it has given away precedes its next item in the whole ranking.
        is_done = node.places >= self._k or self._places(node.ready) >= self._left
        return len(node.ready) < _LOOKAHEAD and not is_done

    def _places(self, items: Iterable[int]) -> int:
        return sum(self._weights[each] for each in items)


class _Node:
    """
    A part of the tree: it merges the rankings of its children.

    Attributes:
        ready: the items that the parent can take, best first.
        places: the places of the items that were ready so far.
    """

    def __init__(self, items: Sequence[int], children: Sequence[_Node] = ()) -> None:
        """Create the node of ``items``; without children, these are ranked already."""
        self._children = children
        self._left = len(items)
        self.ready = deque(() if children else items)
        self.places = 0

    @property
    def is_contested(self) -> bool:
        """Whether both children have an item for the next place."""
        return all(each.ready for each in self._children)

    @property
    def pair(self) -> Pair:
        """The two items for the next place."""
        one, other = (each.ready[0] for each in self._children)
        return min(one, other), max(one, other)

    def take(self) -> int:
        """Take the best item that is ready."""
        self._left -= 1
        return self.ready.popleft()

    def advance(self, outcomes: Mapping[Pair, Outcome]) -> int | None:
        """Get the next item ready and return it, if it is known."""
        one, other = self._children
        if self.is_contested:
            outcome = outcomes.get(self.pair)
            if outcome is None:
                return None
            best = max(self.pair) if outcome is Outcome.SECOND else min(self.pair)
            source = one if one.ready[0] == best else other
        else:
            source, rival = (one, other) if one.ready else (other, one)
            if not source.ready or rival._left:
                return None
        self.ready.append(source.take())
        return self.ready[-1]


def max_comparisons(count: int, k: int) -> int:
    """Return the maximum number of comparisons for ``k`` places among ``count`` items."""
    return sum(min(size - 1, k) for size in _sizes(count))


def _sizes(count: int) -> Iterator[int]:
    """Yield the number of items below each node."""
    if count > 1:
        half = (count + 1) // 2
        yield count
        yield from _sizes(half)
        yield from _sizes(count - half)
