"""
Which pairs to ask so that a join contains most of the true pairs, with few calls.

Pairs are asked in the order of their rank, as long as this is cheaper than the evidence that the
rest has few positives. That evidence is a random sample of the rest, see `positives_left`. All
positives that are found are returned, so the precision is 1. When too many positives are in the
sample, more ranks are asked and a new sample is drawn from the others. The evidence against an
earlier sample is multiplied into the new one, so the probability of a wrong promise stays below δ
in total: the product of the martingales is one too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from math import floor, log
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from llm_magics.dataframes.operators.oracle import YES
from llm_magics.dataframes.operators.positives_left import Sample
from llm_magics.dataframes.operators.rank_density import (
    expected_positives,
    known_decay,
    rank_bounds,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llm_magics.dataframes.operators.sampling import PairOrder

# Where an answer came from.
PILOT, RANK, SAMPLE, REST = range(4)
SOURCES = ("pilot", "candidate", "sample", "rest")

# Calls of the pilot. Fewer pairs than these are all asked.
PILOT_CALLS = 200

# Below this saving, all pairs are asked.
_LEAST_SAVING = 0.05

# Pairs of the first wave of a sample, and ranks of the first step; later ones are larger.
_FIRST_WAVE, _FIRST_STEP = 1_000, 256

# Shares computed from floating-point numbers may be this much off.
_ROUNDING = 1e-9

# Before many ranks are asked only because of what was drawn, so many pairs are drawn: a share of the
# expected calls. A single positive in a small sample is often chance.
_EXPLORED = 0.1

# If so much more is expected than was confirmed, it is confirmed again.
_GROWTH = 1.5


class Expectation(NamedTuple):
    """What is expected: calls in total, positives, and the pairs asked so far."""

    calls: int
    positives: float
    asked: int


@dataclass(kw_only=True)
class PairProblem:
    """
    A join to decide.

    Attributes:
        size: the number of pairs.
        ranking: the most likely pairs, best first; may end before all are ranked.
        order, pilot_order: independent random orders of all pairs.
        ask: returns the answers to pairs: `YES`, `NO` or `FAILED`.
        recall: the share of positives to find.
        delta: the probability with which fewer may be found.
        confirm: called after the pilot, before more is asked, and again if much more is expected
            than before; may raise an error.
    """

    size: int
    ranking: NDArray[np.int64]
    order: PairOrder
    pilot_order: PairOrder
    ask: Callable[[NDArray[np.int64]], NDArray[np.int8]]
    recall: float
    delta: float
    confirm: Callable[[Expectation], None] = lambda _: None


@dataclass(kw_only=True)
class PairDecisions:
    """
    The answers that were obtained.

    Attributes:
        pairs, answers, sources: the pairs asked in this order, their answers and `SOURCES`.
        drawn, found, rest: the pairs drawn in the last sample, the positives among them, and the
            pairs it was drawn from; all 0 if every pair was asked.
        most_left: the upper bound of the positives that were not found, with the confidence.
        expectation: what the pilot made expect; ``None`` if all pairs were asked without one.
        is_decided: whether the promise holds; false while pairs are asked, and after an interrupt.
    """

    pairs: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    answers: NDArray[np.int8] = field(default_factory=lambda: np.empty(0, np.int8))
    sources: NDArray[np.int8] = field(default_factory=lambda: np.empty(0, np.int8))
    drawn: int = 0
    found: int = 0
    rest: int = 0
    most_left: int = 0
    expectation: Expectation | None = None
    is_decided: bool = False

    @property
    def positives(self) -> int:
        """The number of positives found."""
        return int((self.answers == YES).sum())

    @property
    def expected_left(self) -> float:
        """The estimated number of positives that were not found."""
        return self.found / self.drawn * (self.rest - self.drawn) if self.drawn else 0.0


class _Plan(NamedTuple):
    """Ask the ranks below ``depth``, then draw a sample; ``calls`` more are expected in total."""

    depth: int
    calls: float


class PairDecider:
    """
    Decides a `PairProblem`.

    Attributes:
        decisions: the answers so far, also after an error.
        source: why the pairs of the last wave were asked, also if an error ended it.
    """

    def __init__(self, problem: PairProblem) -> None:
        self.decisions = PairDecisions()
        self.source = PILOT
        self._problem = problem
        ranked = len(problem.ranking)
        self._bounds = rank_bounds(problem.size)
        if ranked < problem.size:
            self._bounds = np.append(self._bounds[self._bounds < ranked], [ranked, problem.size])
        # All ranks below it were asked.
        self._depth = 0
        self._by_pair = np.argsort(problem.ranking)
        self._is_positive_rank = np.zeros(ranked, np.bool_)
        self._asked = np.empty(0, np.int64)  # sorted
        # Pairs before this place in the random order were asked.
        self._place = 0
        self._sample: Sample | None = None
        self._nats = log(1 / problem.delta)
        # The ranks of the pairs drawn at random, and whether they are positive.
        self._drawn = np.empty(0, np.int64), np.empty(0, np.bool_)

    def run(self) -> PairDecisions:
        """Ask until the promise holds."""
        problem, decisions = self._problem, self.decisions
        if problem.size <= PILOT_CALLS:
            self._ask(np.arange(problem.size), REST)
            decisions.is_decided = True
            return decisions
        self._ask_pilot()
        plan, confirmed = self._best_plan(), 0
        while not self._is_certified():
            expectation = self._expectation(plan)
            if expectation.calls > confirmed * _GROWTH:
                decisions.expectation = decisions.expectation or expectation
                problem.confirm(expectation)
                confirmed = expectation.calls
            if plan.depth > self._depth and not self._should_explore(plan):
                self._ask_ranks(plan.depth)
            else:
                self._draw()
            plan = self._best_plan()
        self._conclude()
        return decisions

    def _expectation(self, plan: _Plan) -> Expectation:
        asked = len(self._asked)
        found = self.decisions.positives + float(self._expected()[1].sum())
        return Expectation(min(self._problem.size, round(asked + plan.calls)), found, asked)

    def _ask(self, pairs: NDArray[np.int64], source: int) -> NDArray[np.int8]:
        """Return the answers to pairs that were not asked before."""
        self.source = source
        answers = self._problem.ask(pairs)
        seen = self.decisions
        seen.pairs = np.append(seen.pairs, pairs)
        seen.answers = np.append(seen.answers, answers)
        seen.sources = np.append(seen.sources, np.full(len(pairs), source, np.int8))
        self._asked = np.sort(seen.pairs)
        if source == REST:
            return answers
        ranks = self._ranks(pairs)
        is_ranked = ranks < len(self._by_pair)
        self._is_positive_rank[ranks[is_ranked]] = answers[is_ranked] == YES
        if source in (PILOT, SAMPLE):
            drawn, positive = self._drawn
            self._drawn = np.append(drawn, ranks), np.append(positive, answers == YES)
        return answers

    def _is_new(self, pairs: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return whether each of ``pairs`` was not asked."""
        if not len(self._asked):
            return np.ones(len(pairs), np.bool_)
        near = np.minimum(np.searchsorted(self._asked, pairs), len(self._asked) - 1)
        is_new: NDArray[np.bool_] = self._asked[near] != pairs
        return is_new

    def _ranks(self, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rank of each of ``pairs``; that of pairs without one is the number of ranks."""
        ranking = self._problem.ranking
        near = np.searchsorted(ranking, pairs, sorter=self._by_pair)
        ranks = self._by_pair[np.minimum(near, len(ranking) - 1)]
        is_ranked = np.asarray(ranking[ranks] == pairs)
        found: NDArray[np.int64] = np.where(is_ranked, ranks, np.int64(len(ranking)))
        return found

    def _ask_pilot(self) -> None:
        """Ask the first pairs, in a random order, of each stratum of ranks."""
        problem = self._problem
        each = PILOT_CALLS // (len(self._bounds) - 1)
        chosen = []
        for start, stop in pairwise(self._bounds):
            pairs = problem.ranking[start:stop]
            if not len(pairs):
                pairs = self._unranked(each)
            places = problem.pilot_order.places(pairs)
            chosen.append(pairs[np.argsort(places, kind="stable")[:each]])
        self._ask(np.concatenate(chosen), PILOT)

    def _unranked(self, count: int) -> NDArray[np.int64]:
        """Return the first pairs without a rank in the order of the pilot."""
        ranked, size = len(self._by_pair), self._problem.size
        wanted = int(count / (1 - ranked / size)) + 1
        while True:
            first = self._problem.pilot_order.first(wanted)
            found: NDArray[np.int64] = first[self._ranks(first) == ranked]
            if len(found) >= count or len(first) == size:
                return found[:count]
            wanted = 2 * wanted

    def _ask_ranks(self, depth: int) -> None:
        """Ask all pairs whose rank is below ``depth``; the sample, if there is one, ends."""
        if self._sample is not None:
            self._nats -= self._sample.least_log_evidence()
            self._sample = None
        if depth > len(self._by_pair):
            pairs = np.arange(self._problem.size)
        else:
            pairs = self._problem.ranking[self._depth : depth]
        self._ask(pairs[self._is_new(pairs)], RANK if depth < self._problem.size else REST)
        self._depth = depth

    def _draw(self) -> None:
        """Ask the next pairs of the sample; begin one if there is none."""
        if self._sample is None:
            expected = float(self._expected()[1].sum())
            left = self._problem.size - len(self._asked)
            self._sample = Sample(size=left, expected=expected, bound=self._too_many())
        sample = self._sample
        needed = sample.draws_needed(self._too_many(), self._nats)
        pairs = self._next_pairs(min(needed, max(_FIRST_WAVE, sample.drawn)))
        answers = self._ask(pairs, SAMPLE)
        sample.drawn += len(pairs)
        sample.found += int((answers == YES).sum())

    def _next_pairs(self, count: int) -> NDArray[np.int64]:
        """Return the next pairs in the random order that were not asked."""
        wanted = self._place + 2 * count
        while True:
            first = self._problem.order.first(wanted)
            rest = first[self._place :]
            places = np.flatnonzero(self._is_new(rest))[:count]
            if len(places) == count or len(first) == self._problem.size:
                if len(places):
                    self._place += int(places[-1]) + 1
                return rest[places]
            wanted *= 2

    def _too_many(self) -> int:
        """Return the least number of positives in the sampled population that breaks the promise."""
        found = self.decisions.positives
        before = found - (self._sample.found if self._sample else 0)
        return floor(found / self._problem.recall - before + _ROUNDING) + 1

    def _is_certified(self) -> bool:
        left = self._problem.size - len(self._asked)
        sample = self._sample or Sample(size=left, expected=0, bound=1)
        return not left or sample.log_evidence_of_at_least(self._too_many()) >= self._nats

    def _expected(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the number of pairs that were not asked in each stratum, and of positives in it."""
        bounds = np.append(self._depth, self._bounds[self._bounds > self._depth])
        ranks, is_positive = self._drawn
        below = ranks >= self._depth
        density, decay = known_decay(self._is_positive_rank[: self._depth])
        drawn, expected = expected_positives(
            bounds, density, decay, ranks[below], is_positive[below]
        )
        if self._sample is not None and self._sample.drawn and expected.any():
            # A few positives in the sample make the estimates of single strata too large.
            expected *= min(1.0, self._sample.expected_left() / expected.sum())
        return np.diff(bounds) - drawn, expected

    def _best_plan(self) -> _Plan:
        """Return the plan with the fewest expected calls; its ``depth`` is only the next step."""
        size, ranked = self._problem.size, len(self._by_pair)
        sizes, expected = self._expected()
        left = int(sizes.sum())
        found = float(self.decisions.positives)
        best = _Plan(self._depth, self._calls_to_certify(float(expected.sum()), left))
        nats = self._nats - (self._sample.least_log_evidence() if self._sample else 0.0)
        depths = self._bounds[self._bounds > self._depth]
        calls, missed = np.cumsum(sizes), expected.sum() - np.cumsum(expected)
        for depth, asked, more, fewer in zip(
            depths, calls, np.cumsum(expected), missed, strict=True
        ):
            too_many = self._allowed(found + float(more)) + 1
            rest = left - int(asked)
            total = float(asked) + _draws(rest, too_many, max(0.0, fewer), nats)
            if total < best.calls - 1:
                best = _Plan(int(depth), total)
        if best.calls > (1 - _LEAST_SAVING) * left:
            best = _Plan(size, float(left))
        if best.depth <= self._depth:
            return best
        # One step at a time, because the answers change the expectation.
        end = best.depth if best.depth <= ranked or self._depth >= ranked else ranked
        return best._replace(depth=min(end, max(_FIRST_STEP, 2 * self._depth)))

    def _should_explore(self, plan: _Plan) -> bool:
        """Return whether to draw more pairs before the ranks of ``plan`` are asked."""
        drawn = int((self._drawn[0] >= self._depth).sum())
        return drawn < _EXPLORED * plan.calls and not self._pays_off(plan.depth)

    def _pays_off(self, depth: int) -> bool:
        """Return whether asking the ranks below ``depth`` saves calls, judged by the ranks before."""
        bounds = np.append(self._depth, self._bounds[self._bounds > self._depth])
        density, decay = known_decay(self._is_positive_rank[: self._depth])
        none = np.empty(0, np.int64), np.empty(0, np.bool_)
        expected = expected_positives(bounds, density, decay, *none)[1]
        total = float(expected.sum())
        more = float(np.interp(depth, bounds, np.append(0.0, np.cumsum(expected))))
        left, asked = self._problem.size - len(self._asked), depth - self._depth
        found = self.decisions.positives
        now, later = (
            _draws(left - step, self._allowed(found + gain) + 1, total - gain, self._nats)
            for step, gain in ((0, 0.0), (min(left, asked), more))
        )
        return asked + later <= now

    def _allowed(self, found: float) -> int:
        """Return how many positives may be left if ``found`` are found."""
        return floor(found * (1 / self._problem.recall - 1) + _ROUNDING)

    def _calls_to_certify(self, expected: float, left: int) -> float:
        """Return the expected calls until the promise holds, if no further rank is asked."""
        if self._sample is None:
            return _draws(left, self._too_many(), expected, self._nats)
        mean = min(0.5, expected / max(1, left))
        return float(self._sample.draws_needed(self._too_many(), self._nats, mean))

    def _conclude(self) -> None:
        """Fill in what the sample shows."""
        seen, sample = self.decisions, self._sample
        seen.is_decided = True
        left = self._problem.size - len(self._asked)
        if sample is not None:
            seen.drawn, seen.found, seen.rest = sample.drawn, sample.found, sample.size
            seen.most_left = sample.upper_bound(self._nats) - sample.found
        else:
            seen.most_left = left


def _draws(size: int, too_many: int, expected: float, nats: float) -> float:
    """Return the expected number of draws of a new sample."""
    mean = min(0.5, expected / max(1, size))
    return float(
        Sample(size=size, expected=expected, bound=too_many).draws_needed(too_many, nats, mean)
    )
