"""One check of a gate: the new scores of a model and those of the baseline, item by item."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from llm_magics._util.filesystem import display_path
from llm_magics.benchmarking.evaluation import is_missing
from llm_magics.benchmarking.scorers import SCORERS, Scorer
from llm_magics.errors import LLMError, UsageError
from llm_magics.evaluations.gate.answers import AnswerFile, ItemAnswers
from llm_magics.evaluations.gate.flaky import deciding_repeats, flaky_items
from llm_magics.evaluations.gate.requests import GateRequests, Request
from llm_magics.evaluations.gate.specification import Gate
from llm_magics.evaluations.gate.statistics import (
    Looks,
    Plan,
    count_looks,
    look,
    mean_variance,
    wave_ends,
)

Matrix = NDArray[np.float64]


@dataclass(eq=False, kw_only=True)
class Check:
    """
    A gate file, a model and a score.

    Attributes:
        gate: the gate file.
        label: the label of the model.
        score: the name of the score.
        stored: the answers of the baseline by item, in the order of the waves.
        requests: the requests by item.
        ends: how many of the items each planned look has.
        new: the new answers by item so far.
    """

    gate: Gate
    label: str
    score: str
    stored: Mapping[str, ItemAnswers]
    requests: Mapping[str, Request]
    ends: Sequence[int]
    new: dict[str, ItemAnswers] = field(default_factory=dict)

    @cached_property
    def items(self) -> list[str]:
        """The ids of all items of the baseline, in the order of the waves."""
        return list(self.stored)

    @cached_property
    def scorer(self) -> Scorer:
        """The scorer."""
        options = self.gate.rules.scores[self.score].options
        try:
            return SCORERS[self.score](**options)
        except (TypeError, LLMError) as error:
            reason = str(error).rstrip(".")
            msg = f"{display_path(self.gate.path)}: scores.{self.score}.options: {reason}."
            raise UsageError(msg, hint="Pass the arguments of the scorer.") from None

    @cached_property
    def baseline_scores(self) -> Matrix:
        """The scores of the baseline (items, repeats); NaN is a missing answer."""
        return self._scores(self.stored)

    @cached_property
    def deciding(self) -> int:
        """How many repeats of the baseline decide about flaky items, and are not compared."""
        if self.gate.rules.flaky == "list":
            return 0
        return deciding_repeats(self.baseline_scores.shape[1])

    @cached_property
    def is_flaky(self) -> NDArray[np.bool_]:
        """Which items are flaky. It depends on the baseline alone."""
        scores = self.baseline_scores
        return flaky_items(scores[:, : self.deciding] if self.deciding else scores, self.items)

    @cached_property
    def is_compared(self) -> NDArray[np.bool_]:
        """Which items are compared."""
        scored = ~np.isnan(self.baseline_scores[:, self.deciding :]).all(axis=1)
        return np.asarray(scored & ~self.is_flaky if self.deciding else scored, np.bool_)

    def plan(self, alpha: float) -> Plan:
        """Return the plan of the sample, at an error rate of ``alpha`` for this check."""
        scores = self.baseline_scores[self.is_compared][:, self.deciding :]
        known = scores[~np.isnan(scores)]
        variance = mean_variance(scores)
        span = max(1.0, float(np.ptp(known))) if len(known) else 1.0
        if math.isnan(variance):
            variance = span / 4  # one answer per item: the largest possible variance
        counts = (~np.isnan(scores)).sum(axis=1)
        return Plan(
            variance=variance,
            stored=max(1, round(float(counts.mean()))) if len(counts) else 1,
            repeats=self.gate.rules.repeats,
            alpha=alpha,
            span=span,
        )

    def new_scores(self) -> Matrix:
        """Return the new scores (items, repeats) of all items; NaN is a missing answer."""
        return self._scores(self.new, self.gate.rules.repeats)

    def look(self, waves: int) -> Looks:
        """Return the statistics of the first ``waves`` looks."""
        kept = self.is_compared
        counts = np.concatenate([[0], kept.cumsum()])
        ends = [int(counts[each]) for each in self.ends]
        last = self.ends[waves - 1]
        rows = np.flatnonzero(kept[:last])
        baseline = self.baseline_scores[rows][:, self.deciding :]
        return look(baseline, self.new_scores()[rows], ends[:waves], max(1, ends[-1]))

    def means(self, scores: Matrix) -> Matrix:
        """Return the mean of each row; NaN without any score."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # rows without a score
            found: Matrix = np.nanmean(scores, axis=1)
        return found

    def _scores(self, answers: Mapping[str, ItemAnswers], width: int = 0) -> Matrix:
        width = max([width, 1, *(len(each.texts) for each in answers.values())])
        found = np.full((len(self.items), width), np.nan)
        for row, item in enumerate(self.items):
            if item in answers:
                texts = answers[item].texts
                known = {text: self._score(item, text) for text in dict.fromkeys(texts)}
                found[row, : len(texts)] = [known[text] for text in texts]
        return found

    def _score(self, item: str, text: str | None) -> float:
        expected = self.requests[item].expected
        if self.scorer.needs_expected and is_missing(expected):
            return math.nan
        if text is None:
            return 0.0
        try:
            return float(self.scorer.score(text, expected))
        except (ValueError, LLMError) as error:
            msg = f"The score {self.score} failed for item {item}: {error}."
            raise UsageError(msg, hint="Correct the expected answer of the item.") from None


def build_checks(
    built: GateRequests, baseline: AnswerFile
) -> tuple[list[Check], dict[str, list[str]]]:
    """
    Return the checks of a gate, and by label the items that the baseline does not have.

    Args:
        built: the requests.
        baseline: the stored answers.

    Raises:
        UsageError: a scorer has invalid options, or no item has an expected answer.
    """
    checks: list[Check] = []
    unmatched: dict[str, list[str]] = {}
    for label, requests in built.requests.items():
        stored = stored_answers(requests, baseline)
        unmatched[label] = [item for item in requests if item not in stored]
        waves = wave_ends(len(stored), count_looks(len(stored)))
        checks += [
            Check(
                gate=built.gate,
                label=label,
                score=score,
                stored=stored,
                requests=requests,
                ends=waves,
            )
            for score in built.gate.rules.scores
        ]
    for each in checks:
        if each.items and np.isnan(each.baseline_scores).all():
            msg = f"{display_path(built.gate.path)}: no item has an expected answer for the score {each.score}."
            raise UsageError(msg, hint='Add "expected" to the items of the data.')
    return checks, unmatched


def stored_answers(
    requests: Mapping[str, Request], baseline: AnswerFile
) -> dict[str, ItemAnswers]:
    """Return the answers of the baseline to items whose inputs have not changed, by item."""
    found = {}
    for item, request in requests.items():
        known = baseline.answers.get((request.label, item))
        if known is not None and known.digest == request.digest and known.texts:
            found[item] = known
    return found
