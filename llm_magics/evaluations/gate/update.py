"""Write the baselines of gates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from llm_magics._util.filesystem import display_path
from llm_magics._util.text import pluralize
from llm_magics.evaluations.gate.answers import AnswerFile
from llm_magics.evaluations.gate.checks import build_checks
from llm_magics.evaluations.gate.requests import GateRequests, build_requests
from llm_magics.evaluations.gate.results import Outcome, RunResult
from llm_magics.evaluations.gate.runner import ALPHA, Mode, Options, conclude_all_at_once
from llm_magics.evaluations.gate.sources import Live, Recorded, Source, cost_cap, partial_of
from llm_magics.evaluations.gate.specification import Gate


@dataclass(frozen=True, kw_only=True)
class Update:
    """
    The result of writing a baseline.

    Attributes:
        path: the file of the baseline.
        outcome: passed if it was written, failed if the new answers are worse than those of the
            old baseline, and not recorded if the recording has too few answers.
        message: what was done, and the samples that the checks need.
        comparison: the comparison with the old baseline, if there was one.
    """

    path: Path
    outcome: Outcome
    message: str
    comparison: RunResult | None = None


def update_baseline(gate: Gate, options: Options, *, is_accepted: bool = False) -> Update:
    """
    Ask for repeated answers and write them to the file of the baseline.

    If the new answers are worse than those of the old baseline, the old one stays. After an
    interrupt, or at the limit of the cost, the next call continues: the answers so far are in the
    file ``….partial``.

    Args:
        gate: the gate.
        options: where the answers come from: models, or with `Mode.REPLAY` the recording.
        is_accepted: whether to write worse answers too.

    Raises:
        BudgetError: the limit of the cost is reached.
        UsageError: the file exists and is not a baseline.
    """
    built = build_requests(gate)
    path = gate.baseline
    before = AnswerFile.load_if_exists(path)
    shown, partial = display_path(path), partial_of(path)
    source: Source = Live(record=partial, known=AnswerFile.load_if_exists(partial))
    if options.mode is Mode.REPLAY:
        source = options.source(gate)
    limit = gate.rules.max_cost_usd if options.max_cost_usd is None else options.max_cost_usd
    repeats = gate.rules.baseline.repeats
    new = AnswerFile({**built.about, "repeats": repeats})
    with cost_cap(limit):
        for requests in built.requests.values():
            found = source.ask(list(requests.values()), repeats, gate.rules.concurrency)
            new.add(found.values())
    if problem := _incomplete(source, new, built, repeats):
        return Update(
            path=path, outcome=problem[0], message=f"{shown} was not written: {problem[1]}."
        )
    comparison = conclude_all_at_once(_with_repeats(built, repeats), before, new)
    if comparison is not None and comparison.outcome is Outcome.FAILED and not is_accepted:
        message = (
            f"{shown} was not written: the new answers are worse. Use --accept to write them."
        )
        return Update(path=path, outcome=Outcome.FAILED, message=message, comparison=comparison)
    new.save(path)
    partial.unlink(missing_ok=True)
    count = pluralize(sum(len(each.texts) for each in new.answers.values()), "answer")
    items = pluralize(len(next(iter(built.requests.values()))), "item")
    message = "\n".join([f"{shown} was written: {count} to {items}.", *_samples(built, new)])
    return Update(path=path, outcome=Outcome.PASSED, message=message, comparison=comparison)


def _samples(built: GateRequests, new: AnswerFile) -> list[str]:
    """Return a line for each check: the items that it needs, and the drop that it can find."""
    checks, _ = build_checks(built, new)
    lines = []
    for check in checks:
        plan = check.plan(ALPHA / len(checks))
        drop = built.gate.rules.scores[check.score].drop
        items = int(check.is_compared.sum())
        lines.append(
            f"{check.label} · {check.score}: a drop of {drop:.3g} needs {plan.required_items(drop):,} items; "
            f"with the {items:,} compared, {plan.detectable_drop(max(1, items)):.3g} can be seen."
        )
    return lines


def _incomplete(
    source: Source, new: AnswerFile, built: GateRequests, repeats: int
) -> tuple[Outcome, str] | None:
    """Return why the baseline cannot be written, if answers are missing."""
    if isinstance(source, Recorded) and source.unrecorded:
        missing = sum(map(len, source.unrecorded.values()))
        return Outcome.NOT_RECORDED, f"the recording lacks {pluralize(missing, 'item')}"
    complete = sum(len(each.texts) == repeats for each in new.answers.values())
    missing = sum(map(len, built.requests.values())) - complete
    if not missing:
        return None
    failures = source.failures if isinstance(source, Live) else {}
    why = f" ({next(iter(failures))})" if failures else ""
    return Outcome.UNDECIDED, f"requests of {pluralize(missing, 'item')} failed{why}; run it again"


def _with_repeats(built: GateRequests, repeats: int) -> GateRequests:
    gate = built.gate
    rules = gate.rules.model_copy(update={"repeats": repeats})
    return replace(built, gate=Gate(gate.path, rules))
