"""Run gates: ask in waves, look at the scores after each, and decide about every check."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from llm_magics._util.filesystem import display_path
from llm_magics._util.statistics import holm
from llm_magics._util.text import pluralize
from llm_magics.errors import BudgetError, UsageError
from llm_magics.evaluations.gate.answers import AnswerFile
from llm_magics.evaluations.gate.checks import Check, build_checks
from llm_magics.evaluations.gate.requests import GateRequests, build_requests
from llm_magics.evaluations.gate.results import CheckResult, Outcome, RunResult
from llm_magics.evaluations.gate.sources import Live, Recorded, Source, cost_cap
from llm_magics.evaluations.gate.specification import Gate
from llm_magics.evaluations.gate.statistics import Looks, holm_rejects

# The error rate of a run, over all its checks.
ALPHA = 0.05
# With more items that could not be answered, a check cannot pass.
_MOST_MISSING = 0.01
_WORST_ITEMS = 10
# The fields with the files of a gate.
_FIELDS = {"baseline": "baseline: {file: FILE}", "recording": "recording: FILE"}


class Mode(Enum):
    """Where answers come from."""

    AUTO = "auto"
    """From the recording, if the gate file names one or it exists; otherwise from models."""
    LIVE = "live"
    RECORD = "record"
    """From models; they are written to the recording."""
    REPLAY = "replay"


@dataclass(frozen=True, kw_only=True)
class Options:
    """
    How answers are obtained.

    Attributes:
        mode: where they come from.
        recording: the file of recorded answers of the only gate; by default that of its file.
        max_cost_usd: overrides the limits in the gate files.
    """

    mode: Mode = Mode.AUTO
    recording: Path | None = None
    max_cost_usd: float | None = None

    def source(self, gate: Gate) -> Source:
        """Return where the answers of a gate come from."""
        path = self.recording or gate.recording
        is_named = self.recording is not None or gate.rules.recording is not None
        if self.mode is Mode.RECORD:
            if path.is_file():  # no other file is overwritten
                AnswerFile.load(path)
            return Live.recording_to(path)
        is_live = self.mode is Mode.AUTO and not is_named and not path.is_file()
        if self.mode is Mode.LIVE or is_live:
            return Live()
        return Recorded(AnswerFile.load(path) if path.is_file() else AnswerFile())


@dataclass(kw_only=True)
class GateRun:
    """
    A gate file during a run.

    Attributes:
        built: its requests.
        checks: its checks.
        source: where new answers come from.
        unmatched: by label, the items that are not in the baseline.
        about: how the answers of the baseline were made.
        waves: how many waves are answered.
        stop: why no further answers are asked for, or ``""``.
    """

    built: GateRequests
    checks: list[Check]
    source: Source
    unmatched: Mapping[str, list[str]]
    about: Mapping[str, Any]
    waves: int = 0
    stop: str = ""

    @property
    def planned(self) -> int:
        """The number of waves of the model with the most items."""
        return max((len(each.ends) for each in self.checks), default=0)

    def ask_wave(self) -> None:
        """Ask for the answers of the next wave; at the limit of the cost, stop."""
        rules = self.built.gate.rules
        for label in self.built.requests:
            own = [each for each in self.checks if each.label == label]
            ends = [0, *own[0].ends]
            if self.waves + 1 >= len(ends):
                continue
            rows = range(ends[self.waves], ends[self.waves + 1])
            needed = np.any([each.is_compared for each in own], axis=0)
            requests = [own[0].requests[own[0].items[row]] for row in rows if needed[row]]
            try:
                found = self.source.ask(requests, rules.repeats, rules.concurrency)
            except BudgetError as error:
                self.stop = f"the limit of the cost is reached: {str(error).rstrip('.')}"
                return
            for each in own:
                each.new |= found
        self.waves += 1

    def looks(self) -> list[tuple[Check, Looks]]:
        """Return the statistics of the checks so far."""
        return [
            (each, each.look(min(self.waves, len(each.ends))))
            for each in self.checks
            if self.waves and each.items
        ]


def run_gates(gates: Sequence[Gate], options: Options) -> RunResult:
    """
    Run gates and return the results of all their checks.

    The error rate of 5 % is for all checks of the run together. A live run that writes no recording
    stops as soon as one check fails.

    Raises:
        UsageError: a file is missing or invalid, for example a gate has no baseline.
        LLMError: no request can succeed, for example without a key.
        Interrupted: the user interrupted; the answers that are recorded are in their file.
    """
    began = time.perf_counter()
    check_gates(gates, options)
    runs = [_prepare(gate, options) for gate in gates]
    with cost_cap(_limit(gates, options)) as spent:
        _ask_all(runs)
        cost_usd = next(spent)
    for each in runs:
        if isinstance(each.source, Live) and not each.stop:
            each.source.write_recording()
    return RunResult(
        checks=tuple(_conclude(runs)),
        cost_usd=cost_usd,
        elapsed_s=time.perf_counter() - began,
        is_live=any(each.source.is_live for each in runs),
        notes=tuple(chain.from_iterable(map(_notes, runs))),
    )


def check_gates(gates: Sequence[Gate], options: Options) -> None:
    """
    Check that the gates have different names, and write to different files.

    Raises:
        UsageError: two have the same name, or a file of answers has two uses.
    """
    paths: dict[str, Path] = {}
    uses: dict[Path, tuple[str, Path]] = {}
    for gate in gates:
        other = paths.setdefault(gate.name, gate.path)
        if other is not gate.path:
            shown = f"{display_path(other)} and {display_path(gate.path)}"
            msg = f'{shown} are both called "{gate.name}".'
            raise UsageError(msg, hint="Give one of them another name: name: NAME")
        recording = options.recording or gate.recording
        for use, path in (("baseline", gate.baseline), ("recording", recording)):
            first, user = uses.setdefault(path.resolve(), (use, gate.path))
            if (first, user) != (use, gate.path):
                msg = (
                    f"{display_path(path)} is the {first} of {display_path(user)} "
                    f"and the {use} of {display_path(gate.path)}."
                )
                raise UsageError(msg, hint=f"Name another file in one of them: {_FIELDS[use]}")


def conclude_all_at_once(
    built: GateRequests, baseline: AnswerFile, new: AnswerFile
) -> RunResult | None:
    """Compare all answers in ``new`` with a baseline; ``None`` if they have no item in common."""
    checks, unmatched = build_checks(built, baseline)
    run = GateRun(
        built=built,
        checks=checks,
        source=Recorded(new),
        unmatched=unmatched,
        about=baseline.about,
    )
    if not any(each.items for each in checks):
        return None
    _ask_all([run])
    return RunResult(checks=tuple(_conclude([run])), notes=tuple(_notes(run)))


def _limit(gates: Iterable[Gate], options: Options) -> float:
    if options.max_cost_usd is not None:
        return options.max_cost_usd
    return sum(gate.rules.max_cost_usd for gate in gates)


def _prepare(gate: Gate, options: Options) -> GateRun:
    if not gate.baseline.is_file():
        msg = f"{display_path(gate.path)} has no baseline at {display_path(gate.baseline)}."
        hint = (
            f"Write it with: python -m llm_magics gate --update-baseline {display_path(gate.path)}"
        )
        raise UsageError(msg, hint=hint)
    baseline = AnswerFile.load(gate.baseline)
    built = build_requests(gate)
    checks, unmatched = build_checks(built, baseline)
    return GateRun(
        built=built,
        checks=checks,
        source=options.source(gate),
        unmatched=unmatched,
        about=baseline.about,
    )


def _ask_all(runs: Sequence[GateRun]) -> None:
    """Ask wave by wave, until all are answered or, in live runs without a recording, a check fails."""
    for wave in range(max(each.planned for each in runs)):
        for each in runs:
            if not each.stop and wave < each.planned:
                each.ask_wave()
        is_last = wave + 1 == max(each.planned for each in runs)
        if is_last or not any(each.source.stops_early for each in runs):
            continue
        looks = [found for each in runs for _, found in each.looks()]
        if any(holm_rejects(looks, ALPHA)):
            for each in runs:
                if each.source.stops_early and each.waves < each.planned:
                    each.stop = each.stop or "a check failed before all items were asked"


def _conclude(runs: Sequence[GateRun]) -> list[CheckResult]:
    known = [pair for each in runs for pair in each.looks()]
    rejected = holm_rejects([looks for _, looks in known], ALPHA)
    corrected = holm([looks.p_value() for _, looks in known])
    facts = {
        id(check): (is_rejected, p)
        for (check, _), is_rejected, p in zip(known, rejected, corrected, strict=True)
    }
    count = sum(len(each.checks) for each in runs)
    return [
        _result(each, check, *facts.get(id(check), (False, math.nan)), ALPHA / count)
        for each in runs
        for check in each.checks
    ]


@dataclass(kw_only=True)
class _Scores:
    """The mean scores of the items of a check that were compared."""

    check: Check
    waves: int
    baseline: dict[str, float] = field(default_factory=dict)
    new: dict[str, float] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check = self.check
        stored = check.means(check.baseline_scores[:, check.deciding :])
        fresh = check.means(check.new_scores())
        end = check.ends[self.waves - 1] if self.waves else 0
        for row, item in enumerate(check.items[:end]):
            if not check.is_compared[row]:
                continue
            if math.isnan(fresh[row]):
                self.missing.append(item)
            else:
                self.baseline[item], self.new[item] = float(stored[row]), float(fresh[row])

    def worst(self) -> tuple[tuple[str, float, float], ...]:
        """Return the items with the largest drops."""
        drops = {item: self.baseline[item] - self.new[item] for item in self.new}
        order = sorted((item for item in drops if drops[item] > 0), key=lambda item: -drops[item])
        return tuple((item, self.baseline[item], self.new[item]) for item in order[:_WORST_ITEMS])


def _result(run: GateRun, check: Check, is_rejected: bool, p: float, alpha: float) -> CheckResult:
    waves = min(run.waves, len(check.ends))
    scores = _Scores(check=check, waves=waves)
    plan = check.plan(alpha)
    drop = check.gate.rules.scores[check.score].drop
    items = len(scores.new)
    source = run.source
    unrecorded = source.unrecorded.get(check.label, []) if isinstance(source, Recorded) else []
    unrecorded = [each for each in unrecorded if each in scores.missing]
    missing = [] if unrecorded else scores.missing
    required = plan.required_items(drop)
    detectable = plan.detectable_drop(items) if items else math.nan
    base, now = (
        (float(np.mean(list(each.values()))) if each else math.nan)
        for each in (scores.baseline, scores.new)
    )
    outcome, reason = (
        Outcome.PASSED,
        f"no drop was found; a drop of {drop:.3g} would be, in 80 % of runs",
    )
    if unrecorded:
        outcome = Outcome.NOT_RECORDED
        count = pluralize(len(unrecorded), "request")
        reason = f"{count} not in the recording; write them with --record"
    elif is_rejected:
        outcome, reason = Outcome.FAILED, f"the mean score dropped by {base - now:.3f}"
    elif run.stop:
        outcome, reason = Outcome.UNDECIDED, run.stop
    elif len(missing) > _MOST_MISSING * max(1, items):
        outcome = Outcome.UNDECIDED
        reason = f"{pluralize(len(missing), 'item')} without an answer, because requests failed"
    elif not check.items:
        outcome = Outcome.UNDECIDED
        reason = "the baseline has no item with its current inputs; update the baseline"
    elif items < required:
        outcome = Outcome.UNDECIDED
        seen = f"; with {items:,} a drop of {detectable:.3g} can be seen" if items else ""
        reason = f"a drop of {drop:.3g} needs {required:,} items{seen}"
    return CheckResult(
        gate=check.gate.name,
        label=check.label,
        model=check.gate.rules.models[check.label],
        score=check.score,
        outcome=outcome,
        reason=reason,
        drop=drop,
        items=items,
        required=required,
        detectable=detectable,
        baseline=base,
        new=now,
        p=p,
        looks=waves,
        planned_looks=len(check.ends),
        flaky=tuple(
            item for item, flaky in zip(check.items, check.is_flaky, strict=True) if flaky
        ),
        are_flaky_left_out=check.deciding > 0,
        unmatched=tuple(run.unmatched[check.label]),
        unrecorded=tuple(unrecorded),
        missing=tuple(missing),
        worse=scores.worst(),
    )


_PARTS = {"data": "data", "prompt": "prompt", "parameters": "parameters", "models": "models"}


def _notes(run: GateRun) -> Iterable[str]:
    gate = run.built.gate
    changed = [
        name
        for part, name in _PARTS.items()
        if part in run.about and run.about[part] != run.built.about[part]
    ]
    if changed:
        yield f"{gate.name}: changed since the baseline: {', '.join(changed)}."
    if isinstance(run.source, Live):
        for error, count in sorted(run.source.failures.items())[:5]:
            yield f"{gate.name}: {pluralize(count, 'request')} failed: {error}"
        if run.source.recording is not None and (run.stop or run.source.failures):
            yield f"{gate.name}: the recording was not written, because answers are missing; --record continues."
    if run.stop:
        yield f"{gate.name}: {run.stop}."
