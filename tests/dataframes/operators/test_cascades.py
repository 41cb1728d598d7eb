"""Cascades on arrays: the guarantee of each target, whatever the proxy and the table are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llm_magics.dataframes.operators.decisions import Decisions, sum_bounds
from llm_magics.dataframes.operators.oracle import FAILED, NO, YES
from llm_magics.dataframes.operators.targets import Problem, Target, decide
from llm_magics.errors import UsageError
from tests.benchmarks.operators.simulated import simulated_table

TARGETS = {
    "accuracy": Target(accuracy=0.9),
    "precision": Target(precision=0.9, max_calls=120),
    "recall": Target(recall=0.9, max_calls=120),
    "both": Target(),
}


@dataclass
class Scores:
    """A proxy with fixed scores."""

    scores: NDArray[np.float64]
    name: str = "scores"
    learns: bool = False

    def fit(self, rows: NDArray[np.intp], labels: NDArray[np.int8]) -> None:
        """Learn nothing."""

    def predict(self) -> NDArray[np.float64]:
        """Return the scores."""
        return self.scores


@dataclass
class Trial:
    """One run over a simulated table, with what it asked."""

    decisions: Decisions
    labels: NDArray[np.int8]
    asked: list[int]

    def quality(self) -> dict[str, float]:
        """Return accuracy, precision and recall among the rows that the oracle can answer."""
        is_answered = self.labels != FAILED
        found, true = self.decisions.labels[is_answered], self.labels[is_answered]
        kept, positive = found == YES, true == YES
        return {
            "accuracy": float((found == true).mean()) if len(true) else 1.0,
            "precision": float(positive[kept].mean()) if kept.any() else 1.0,
            "recall": float(kept[positive].mean()) if positive.any() else 1.0,
        }


def run(
    labels: NDArray[np.int8],
    scores: NDArray[np.float64],
    target: Target,
    *,
    seed: int = 0,
    items: NDArray[np.int32] | None = None,
    order: NDArray[np.intp] | None = None,
) -> Trial:
    """Decide a table with fixed scores."""
    asked: list[int] = []

    def ask(rows: NDArray[np.intp]) -> NDArray[np.int8]:
        asked.extend(rows.tolist())
        return labels[rows]

    rng = np.random.default_rng([seed, 99])
    problem = Problem(
        order=rng.permutation(len(labels)) if order is None else order,
        items=np.arange(len(labels), dtype=np.int32) if items is None else items,
        ask=ask,
        may_fail=bool((labels == FAILED).any()),
        proxy=Scores(scores),
        target=target,
        seed=seed,
    )
    return Trial(decide(problem), labels, asked)


def misses(target: Target, trials: list[Trial]) -> int:
    """Return how many trials miss the target."""
    return sum(
        any(each.quality()[name] < share - 1e-9 for name, share in target.shares.items())
        for each in trials
    )


# More misses than this in so many trials have a probability below 0.1 % at δ = 0.05.
_TRIALS, _MANY = 10, 4

_HARD: dict[str, Any] = {
    "calibrated": lambda scores, labels: scores,
    "reversed": lambda scores, labels: 1 - scores,
    "constant": lambda scores, labels: np.full(len(scores), 0.7),
    "confident and wrong": lambda scores, labels: np.where(labels == YES, 0.01, 0.4),
}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("proxy", _HARD)
def test_the_target_is_met_with_any_proxy(name: str, proxy: str) -> None:
    """Misses stay at most δ if scores are useful, reversed, constant or adversarial."""
    trials = []
    for seed in range(_TRIALS):
        rng = np.random.default_rng([1, seed])
        scores, labels = simulated_table(120, 0.2, 0.8, rng)
        trials.append(run(labels, _HARD[proxy](scores, labels), TARGETS[name], seed=seed))
    assert misses(TARGETS[name], trials) <= _MANY


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("failing", ["any", "positives"])
def test_rows_that_fail_count_on_neither_side(name: str, failing: str) -> None:
    """The target holds among answered rows, also if only positive rows fail."""
    trials = []
    for seed in range(_TRIALS):
        rng = np.random.default_rng([2, seed])
        scores, labels = simulated_table(120, 0.4, 0.8, rng)
        fails = rng.random(len(labels)) < 0.08
        labels = labels.copy()
        labels[fails & ((labels == YES) | (failing == "any"))] = FAILED
        trials.append(run(labels, scores, TARGETS[name], seed=seed))
    assert misses(TARGETS[name], trials) <= _MANY


@pytest.mark.parametrize("name", TARGETS)
def test_copies_of_a_row_are_asked_once(name: str) -> None:
    """Rows with the same item have one call, and the target holds over all rows."""
    trials = []
    for seed in range(_TRIALS):
        rng = np.random.default_rng([3, seed])
        scores, labels = simulated_table(60, 0.3, 0.8, rng)
        items = rng.permutation(np.repeat(np.arange(60), rng.integers(1, 8, 60))).astype(np.int32)
        trial = run(labels[items], scores[items], TARGETS[name], seed=seed, items=items)
        assert len(set(items[trial.asked])) == len(trial.asked)
        trials.append(trial)
    assert misses(TARGETS[name], trials) <= _MANY


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("count", [0, 1, 2, 5])
@pytest.mark.parametrize("label", [NO, YES, FAILED])
def test_tiny_tables_are_decided(name: str, count: int, label: int) -> None:
    """Tables of a few rows, all alike, are decided without an error."""
    labels = np.full(count, label, np.int8)
    trial = run(labels, np.full(count, 0.5), TARGETS[name])
    assert trial.quality() == {"accuracy": 1.0, "precision": 1.0, "recall": 1.0}


def test_a_useful_proxy_saves_calls() -> None:
    """With good scores, accuracy 0.9 takes less than half of the calls; with none, most of them."""
    rng = np.random.default_rng(4)
    scores, labels = simulated_table(2000, 0.3, 0.97, rng)
    useful = run(labels, scores, TARGETS["accuracy"])
    useless = run(labels, rng.random(2000), TARGETS["accuracy"])
    assert useful.decisions.calls < 600
    assert useful.decisions.calls < useless.decisions.calls


@pytest.mark.parametrize("name", ["precision", "recall"])
def test_a_fixed_budget_is_spent_and_not_exceeded(name: str) -> None:
    """A target of precision or recall alone takes the calls that it was given."""
    rng = np.random.default_rng(5)
    scores, labels = simulated_table(1500, 0.3, 0.9, rng)
    assert run(labels, scores, TARGETS[name]).decisions.calls == 120


def test_a_tighter_target_asks_nearly_the_same_rows() -> None:
    """A tighter target asks what a looser one has asked already, and little is asked in vain."""
    wasted = paid = 0
    for seed in range(4):
        scores, labels = simulated_table(1000, 0.3, 0.9, np.random.default_rng(seed))
        loose = run(labels, scores, Target(accuracy=0.85))
        tight = run(labels, scores, Target(accuracy=0.9))
        assert tight.asked[:25] == loose.asked[:25]
        wasted += len({*loose.asked} - {*tight.asked})
        paid += len(loose.asked)
    assert wasted < 0.15 * paid


def test_the_floor_of_recall_is_the_reason_for_asking_all() -> None:
    """With one positive row among a few, everything is asked, and the reason names the floor."""
    rng = np.random.default_rng(7)
    scores, labels = simulated_table(40, 0.025, 0.8, rng)
    decisions = run(labels, scores, Target()).decisions
    assert decisions.is_asked.all()
    assert "95 %" in decisions.reason
    assert decisions.bound == {"precision": 1.0, "recall": 1.0}


@pytest.mark.parametrize("name", TARGETS)
def test_intervals_and_bounds_hold(name: str) -> None:
    """Precision and recall are within their intervals, and above what the certificate says."""
    wrong = 0
    for seed in range(_TRIALS):
        rng = np.random.default_rng([8, seed])
        scores, labels = simulated_table(300, 0.4, 0.9, rng)
        trial = run(labels, scores, TARGETS[name], seed=seed)
        quality, decisions = trial.quality(), trial.decisions
        for key, estimate in (("precision", decisions.precision), ("recall", decisions.recall)):
            assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
            wrong += not estimate.low - 1e-9 <= quality[key] <= estimate.high + 1e-9
        wrong += any(quality[key] < bound - 1e-9 for key, bound in decisions.bound.items())
    assert wrong <= _MANY


def test_bounds_of_a_sum_are_certain_when_all_is_known() -> None:
    """A complete sample leaves no interval; an empty one leaves all."""
    values = np.array([1.0, 0, 0, 1])
    assert sum_bounds(values, 4, 0.05) == (2.0, 2.0)
    assert sum_bounds(values[:0], 4, 0.05) == (0.0, 4.0)


@pytest.mark.parametrize(
    "arguments",
    [
        {"accuracy": 0.9, "recall": 0.9},
        {"accuracy": 1.5},
        {"precision": 0},
        {"recall": True},
        {"confidence": 1},
        {"confidence": None},
        {"accuracy": "0.9"},
        {"max_calls": 0, "recall": 0.9},
    ],
)
def test_targets_that_cannot_be_are_errors(arguments: dict[str, Any]) -> None:
    """Shares outside of (0, 1), and combinations without a meaning, are refused."""
    with pytest.raises(UsageError):
        Target(**arguments)


def test_no_target_means_precision_and_recall() -> None:
    """The default is 0.9 for both; either of them alone spends its calls."""
    assert Target().shares == {"precision": 0.9, "recall": 0.9}
    assert not Target().has_fixed_budget
    assert Target(recall=0.8).has_fixed_budget
