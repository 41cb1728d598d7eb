"""The target of a filter, and the decisions that meet it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics._util.validation import check_integer
from llm_magics.dataframes.operators.cascade import AccuracyCascade, Cascade
from llm_magics.dataframes.operators.decisions import Decisions
from llm_magics.dataframes.operators.fixed_budget import PrecisionBudget, RecallBudget
from llm_magics.dataframes.operators.labelling import AskRows, LabelledRows
from llm_magics.dataframes.operators.planning import CascadePlan
from llm_magics.dataframes.operators.precision_recall import PrecisionRecallCascade
from llm_magics.dataframes.operators.training import ScoreModel
from llm_magics.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The precision and recall of a filter without a target.
_DEFAULT = 0.9

# The calls of a target of precision or recall alone.
MAX_CALLS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """
    What a filter guarantees.

    Attributes:
        accuracy: the share of the answered rows whose decision equals the oracle's.
        precision: the share of the kept rows for which the oracle says yes; 1 if none is kept.
        recall: the share of the rows with yes that are kept; 1 if there are none.
        confidence: the probability with which the guarantee holds.
        max_calls: the number of calls, for precision or recall alone.
    """

    accuracy: float | None = None
    precision: float | None = None
    recall: float | None = None
    confidence: float = 0.95
    max_calls: int = MAX_CALLS

    def __post_init__(self) -> None:
        for name in ("accuracy", "precision", "recall", "confidence"):
            _check_share(name, getattr(self, name))
        check_integer("max_calls", self.max_calls)
        if self.accuracy is not None and (self.precision, self.recall) != (None, None):
            msg = "accuracy cannot be combined with precision or recall."
            raise UsageError(msg, hint="Pass accuracy=0.9, or precision=0.9, recall=0.9.")
        if self.accuracy is self.precision is self.recall is None:
            object.__setattr__(self, "precision", _DEFAULT)
            object.__setattr__(self, "recall", _DEFAULT)
        if self.max_calls != MAX_CALLS and not self.has_fixed_budget:
            msg = "max_calls has an effect only with precision or recall alone."
            hint = "Set a budget instead: lm.config.budget = 5 (US dollars)."
            raise UsageError(msg, hint=hint)

    @property
    def shares(self) -> dict[str, float]:
        """The targets by name."""
        names = ("accuracy", "precision", "recall")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @property
    def has_fixed_budget(self) -> bool:
        """Whether ``max_calls`` are spent."""
        return self.accuracy is None and (self.precision is None or self.recall is None)

    def __str__(self) -> str:
        shares = ", ".join(f"{name} {value:g}" for name, value in self.shares.items())
        return f"{shares} at confidence {self.confidence:g}"


_EXAMPLES = {"accuracy": 0.9, "precision": 0.9, "recall": 0.9, "confidence": 0.95}


def _check_share(name: str, value: Any) -> None:
    if value is None and name != "confidence":
        return
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not is_number or not 0 < value < 1:
        msg = f"Invalid value for {name}: {value!r:.60}."
        hint = f"Use a number between 0 and 1, such as {name}={_EXAMPLES[name]}."
        if value == 1:
            hint += " To ask about every row, pass proxy=None."
        raise UsageError(msg, hint=hint)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """
    Rows to decide.

    Attributes:
        order: the rows in the order of sampling: a random permutation.
        items: the item of each row; rows with the same item share one answer.
        ask: asks the oracle about rows.
        may_fail: whether it can fail.
        proxy: predicts its answers.
        target: what to guarantee.
        seed: breaks ties of scores.
        confirm: called with the plan after the pilot, and with later ones; raises an error to stop.
    """

    order: NDArray[np.intp]
    items: NDArray[np.int32]
    ask: AskRows
    may_fail: bool
    proxy: ScoreModel
    target: Target
    seed: int = 0
    confirm: Callable[[CascadePlan], None] | None = None


def decide(problem: Problem) -> Decisions:
    """Return the decision about each row, such that the target is met."""
    return create_cascade(problem).run()


def create_cascade(problem: Problem) -> Cascade:
    """Return the cascade for the target of ``problem``."""
    target = problem.target
    table = LabelledRows(problem.order, problem.items, problem.ask)
    options: dict[str, Any] = {
        "delta": 1 - target.confidence,
        "may_fail": problem.may_fail,
        "rng": np.random.default_rng(abs(problem.seed)),
    }
    if problem.confirm is not None:
        options["confirm"] = problem.confirm
    if target.accuracy is not None:
        return AccuracyCascade(table, problem.proxy, accuracy=target.accuracy, **options)
    precision, recall = target.precision, target.recall
    if precision is not None and recall is not None:
        options |= {"precision": precision, "recall": recall}
        return PrecisionRecallCascade(table, problem.proxy, **options)
    options["max_calls"] = target.max_calls
    if precision is not None:
        return PrecisionBudget(table, problem.proxy, target=precision, **options)
    assert recall is not None
    return RecallBudget(table, problem.proxy, target=recall, **options)
