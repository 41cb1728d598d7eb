"""The part of batch jobs in the budget."""

from __future__ import annotations

from collections.abc import Sequence

from llm_magics.runtime.session import Session


def settle(
    session: Session, job_ids: Sequence[str], *, spent_usd: float, estimate_usd: float
) -> None:
    """Count the cost of accepted results, and reserve the estimate of jobs under way."""
    budget = session.budget
    records = {each.id: each for each in session.journal.jobs() if each.id in job_ids}
    active = [name for name, each in records.items() if each.is_active]
    budget.settle([name for name in job_ids if name not in active], spent_usd)
    if active and estimate_usd:
        budget.promise(active, estimate_usd)
