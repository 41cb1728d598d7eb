"""The results of a run of gates."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum


class Outcome(IntEnum):
    """The outcome of a check or of a run. The values are exit codes; 2 is a usage error."""

    PASSED = 0
    FAILED = 1
    UNDECIDED = 3
    NOT_RECORDED = 4

    @property
    def words(self) -> str:
        """The outcome in words."""
        return self.name.lower().replace("_", " ")


# The outcome of a run is the first of these that a check has.
_WORST_FIRST = (Outcome.FAILED, Outcome.NOT_RECORDED, Outcome.UNDECIDED)


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """
    The result of one check: a gate file, a model and a score.

    Attributes:
        gate, label, model, score: what was checked.
        outcome: the outcome.
        reason: the outcome in one sentence.
        drop: the drop that must be found.
        items: the items that were compared.
        required: the items needed to find ``drop``.
        detectable: the drop that can be found with these items; NaN without any.
        baseline, new: the mean scores.
        p: the p-value, corrected for all checks of the run and all looks.
        looks, planned_looks: how often the scores were looked at.
        flaky: the items that are flaky, by id.
        are_flaky_left_out: whether these were not compared.
        unmatched: items that are not in the baseline, or whose inputs have changed since.
        unrecorded: items whose request is not in the recording.
        missing: items without an answer, because the request failed.
        worse: the items with the largest drops: id, mean score of the baseline, and new.
    """

    gate: str
    label: str
    model: str
    score: str
    outcome: Outcome
    reason: str
    drop: float
    items: int
    required: int
    detectable: float
    baseline: float
    new: float
    p: float
    looks: int
    planned_looks: int
    flaky: tuple[str, ...] = ()
    are_flaky_left_out: bool = True
    unmatched: tuple[str, ...] = ()
    unrecorded: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    worse: tuple[tuple[str, float, float], ...] = ()

    @property
    def name(self) -> str:
        """The name of the check in reports."""
        return f"{self.gate} · {self.label} · {self.score}"


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """
    The results of all checks of a run.

    Attributes:
        checks: the results.
        cost_usd: the cost of the run.
        elapsed_s: its duration.
        is_live: whether the answers are new, not recorded.
        notes: what else a reader should know: changed prompts, failed requests.
    """

    checks: tuple[CheckResult, ...]
    cost_usd: float = 0.0
    elapsed_s: float = 0.0
    is_live: bool = False
    notes: tuple[str, ...] = field(default=())

    @property
    def outcome(self) -> Outcome:
        """The outcome of the run: the worst of its checks."""
        found = {each.outcome for each in self.checks}
        return next((each for each in _WORST_FIRST if each in found), Outcome.PASSED)

    @property
    def exit_code(self) -> int:
        """0 if all checks passed, 1 if one failed, 3 if undecided, 4 if not recorded."""
        return int(self.outcome)
