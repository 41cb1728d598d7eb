"""The part of batch jobs in the budget and in the log of calls."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Protocol

from llm_magics.host import Progress, current_host
from llm_magics.runtime.history.entries import Details
from llm_magics.runtime.jobs.run import JobRun
from llm_magics.runtime.response import Response
from llm_magics.runtime.routing import Route
from llm_magics.runtime.session import Session
from llm_magics.runtime.storage.run_log import Run
from llm_magics.runtime.telemetry.calls import record_job
from llm_magics.usage import Usage


class Spending(Protocol):
    """Counts what the accepted results have cost."""

    def take_spent(self) -> float:
        """Return the known cost since the last call of this method, in US dollars."""


async def run_in_budget(
    session: Session,
    run: JobRun,
    spending: Spending,
    *,
    estimate_usd: float | None,
    job_ids: list[str],
) -> AsyncGenerator[Progress, None]:
    """
    Run the jobs if their estimate fits into the budget, and yield the progress.

    The identifiers of the jobs are added to ``job_ids``.

    Raises:
        BudgetError: the estimate exceeds the remaining budget, or is unknown.
    """
    with session.budget.held(run.model, estimate_usd) as hold:
        try:
            async with aclosing(run.events()) as steps:
                async for progress in steps:
                    yield progress
        finally:
            hold.spent_usd = 0.0
            job_ids += [name for name in run.job_ids if name not in job_ids]
            _settle(session, job_ids, spending.take_spent(), estimate_usd or 0.0)


def log_jobs(  # noqa: PLR0913 (the facts of a run)
    session: Session,
    route: Route,
    started: datetime,
    *,
    usage: Usage,
    cost_usd: float | None,
    error: str,
) -> None:
    """Log what a call has read from batch jobs as one run; ``error`` is empty if it has ended well."""
    session.log(
        Run(
            time=started,
            provider=route.provider.name,
            model=route.model,
            kind="batch",
            ttft_s=None,
            itl_ms=None,
            e2e_s=(datetime.now(UTC) - started).total_seconds(),
            load_s=0.0,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            tokens_per_s=None,
            cost_usd=cost_usd,
            cached=False,
            retries=0,
            fallback_from=None,
            finish_reason="error" if error else "stop",
            error=error or None,
            cell=current_host().current_cell.number,
        ),
        Response("", route.name),
        Details(cell_id=current_host().current_cell.key),
    )
    record_job(
        route.provider, route.model, started, usage=usage, cost_usd=cost_usd, error=bool(error)
    )


def _settle(
    session: Session, job_ids: Sequence[str], spent_usd: float, estimate_usd: float
) -> None:
    """Count the cost of accepted results, and reserve the estimate of jobs under way."""
    budget = session.budget
    records = {each.id: each for each in session.journal.jobs() if each.id in job_ids}
    active = [name for name, each in records.items() if each.is_active]
    budget.settle([name for name in job_ids if name not in active], spent_usd)
    if active and estimate_usd:
        budget.promise(active, estimate_usd)
