"""
Bounds on the positives left in a finite population, from a random sample of it.

Of ``size`` pairs, ``drawn`` were drawn without replacement in random order and ``found`` of them
are positive. If ``total`` of all are positive, the probability of that sequence of answers is
C(size - drawn, total - found) / C(size, total). The ratio of any other probability of the sequence
to it is a martingale that starts at 1, so by Ville's inequality it ever reaches 1/δ with
probability at most δ. The other probability is a mixture of two beta-binomial distributions, around
the expected number of positives and around the number to disprove: the prior-posterior ratio of
Waudby-Smith and Ramdas (arXiv 2006.04347). Without a positive in the sample it needs hardly more
than the least share of the population, 1 - δ^(1 / (m + 1)) with ``m`` positives that may be left.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, floor, lgamma, log, log1p
from typing import NamedTuple

# The first parameter of the beta distribution: small, so that an expectation that is wrong by a
# factor of several costs few draws.
_SHAPE = 0.5

# The smallest expected number of positives, also as a share of the number to disprove.
_LEAST_EXPECTED, _LEAST_SHARE = 0.1, 0.02

# The weight of the expected number in the mixture. The other part limits the loss if there are as
# many positives as the number to disprove.
_WEIGHT = 0.9


@dataclass(slots=True, kw_only=True)
class Sample:
    """
    The answers to a random sample of a population.

    Attributes:
        size: the number of pairs in the population.
        expected: the number of positives that are expected in it; affects only power.
        bound: the number of positives to disprove; affects only power.
        drawn: the number of pairs asked.
        found: the number of positives among them.
    """

    size: int
    expected: float
    bound: float
    drawn: int = 0
    found: int = 0

    def log_evidence(self, total: float, drawn: float, found: float) -> float:
        """Return the logarithm of the martingale of exactly ``total`` positives, for some answers."""
        left, missing = self.size - drawn, total - found
        if not 0 <= missing <= left:
            return float("inf")  # impossible
        chance = _log_choose(left, missing) - _log_choose(self.size, total)
        return self._log_mixture(drawn, found) - chance

    def log_evidence_of_at_least(self, total: int) -> float:
        """Return the logarithm of the smallest martingale of ``total`` positives or more."""
        return self._of_at_least(total, self.drawn, self.found)

    def _of_at_least(self, total: float, drawn: float, found: float) -> float:
        # The evidence falls up to the most probable total, and rises from there.
        if not drawn:
            return 0.0 if total <= self.size else float("inf")
        likeliest = min(floor(found * (self.size + 1) / drawn), self.size - drawn + found)
        if total <= likeliest:
            return min(0.0, self.log_evidence(likeliest, drawn, found))
        return self.log_evidence(total, drawn, found)

    def least_log_evidence(self) -> float:
        """Return the logarithm of the smallest martingale of any number of positives; at most 0."""
        if not self.drawn:
            return 0.0
        near = self.found * (self.size + 1) // self.drawn
        totals = range(max(self.found, near - 1), min(near + 2, self.most + 1))
        return min(self.log_evidence(each, self.drawn, self.found) for each in totals)

    @property
    def most(self) -> int:
        """The largest possible number of positives."""
        return self.size - self.drawn + self.found

    def upper_bound(self, nats: float) -> int:
        """Return the largest number of positives whose martingale is below e^``nats``."""
        low, high = self.found, self.most
        while low < high:
            middle = (low + high + 1) // 2
            if self.log_evidence_of_at_least(middle) >= nats:
                high = middle - 1
            else:
                low = middle
        return low

    def draws_needed(self, total: int, nats: float, mean: float = 0.0) -> int:
        """
        Return how many more draws give evidence of ``nats`` against ``total`` positives or more.

        Args:
            total, nats: as for `log_evidence_of_at_least`.
            mean: the share of positives among these draws, as expected.
        """
        low, high = 0, self.size - self.drawn
        while low < high:
            middle = (low + high) // 2
            found = self.found + mean * middle
            if self._of_at_least(total, self.drawn + middle, found) >= nats:
                high = middle
            else:
                low = middle + 1
        return low

    def expected_left(self) -> float:
        """Return the expected number of positives among the pairs that were not drawn."""
        left = self.size - self.drawn
        weights = [part.log_probability(self.drawn, self.found) for part in self._parts()]
        means = [part.mean(self.drawn, self.found) for part in self._parts()]
        odds = [exp(each - max(weights)) for each in weights]
        return left * sum(w * m for w, m in zip(odds, means, strict=True)) / sum(odds)

    def _log_mixture(self, drawn: float, found: float) -> float:
        one, other = (part.log_probability(drawn, found) for part in self._parts())
        return max(one, other) + log1p(exp(-abs(one - other)))

    def _parts(self) -> tuple[_BetaBinomial, _BetaBinomial]:
        expected = max(self.expected, _LEAST_EXPECTED, _LEAST_SHARE * self.bound)
        return (
            _BetaBinomial(_WEIGHT, min(0.5, expected / max(1, self.size))),
            _BetaBinomial(1 - _WEIGHT, min(0.5, self.bound / max(1, self.size))),
        )


class _BetaBinomial(NamedTuple):
    """A part of a mixture: its weight, and the expected share of positives."""

    weight: float
    share: float

    def log_probability(self, drawn: float, found: float) -> float:
        """Return the logarithm of the weight times the probability of a sequence of answers."""
        first, second = self._parameters()
        probability = _log_beta(first + found, second + drawn - found) - _log_beta(first, second)
        return log(self.weight) + probability

    def mean(self, drawn: float, found: float) -> float:
        """Return the expected share of positives after a sequence of answers."""
        first, second = self._parameters()
        return (first + found) / (first + second + drawn)

    def _parameters(self) -> tuple[float, float]:
        return _SHAPE, _SHAPE * (1 - self.share) / self.share


def least_share(allowed: int, delta: float) -> float:
    """
    Return the least share of a population to ask so that no more than ``allowed`` are left.

    It holds for any procedure that makes no assumption about the population.
    """
    return 1 - exp(log(delta) / (allowed + 1))


def _log_choose(count: float, chosen: float) -> float:
    return lgamma(count + 1) - lgamma(chosen + 1) - lgamma(count - chosen + 1)


def _log_beta(first: float, second: float) -> float:
    return lgamma(first) + lgamma(second) - lgamma(first + second)
