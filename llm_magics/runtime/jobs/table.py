"""The table of all batch jobs: ``lm.jobs()``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llm_magics._async.sync import CoroutineCall, Operation, run_async, run_sync
from llm_magics.runtime.jobs.control import Look, look_at_jobs
from llm_magics.runtime.session import session

if TYPE_CHECKING:
    from pandas import DataFrame

_TYPES = {
    "id": "object",
    "service": "object",
    "model": "object",
    "kind": "object",
    "rows": "int64",
    "done": "int64",
    "failed": "int64",
    "cost_usd": "float64",
    "submitted": "datetime64[us, UTC]",
    "expires": "datetime64[us, UTC]",
    "state": "object",
    "note": "object",
    "service_id": "object",
}
_DISPLAYED = ("id", "service", "model", "state", "rows", "done", "failed", "cost_usd")
_DISPLAYED_WITH_NOTES = ("id", "model", "state", "rows", "done", "failed", "cost_usd", "note")

# Parts of the services' words for the end of a job in which all requests were processed.
_USUAL_ENDS = ("complete", "succe", "ended", "processed")


def jobs() -> DataFrame:
    """
    Return the batch jobs of all notebooks of this user, one row each, the latest first.

    The services are asked about the jobs that run; if one does not answer, its jobs have the last
    known state, and the reason as ``note``.

    Columns: ``id``, ``service``, ``model``, ``kind`` (``chat`` or ``embedding``), ``rows``,
    ``done`` and ``failed`` (as the service counts them), ``cost_usd`` (of the results that were
    read), ``submitted`` and ``expires`` (UTC), ``state`` (``prepared``, ``creating``, ``uncertain``,
    ``running``, ``ended`` or ``dropped``), ``note``, ``service_id`` (the service's own identifier).
    """
    return run_sync(_operation())


async def ajobs() -> DataFrame:
    """
    Return the batch jobs of all notebooks of this user, one row each, the latest first.

    The services are asked about the jobs that run; if one does not answer, its jobs have the last
    known state, and the reason as ``note``.

    Columns: ``id``, ``service``, ``model``, ``kind`` (``chat`` or ``embedding``), ``rows``,
    ``done`` and ``failed`` (as the service counts them), ``cost_usd`` (of the results that were
    read), ``submitted`` and ``expires`` (UTC), ``state`` (``prepared``, ``creating``, ``uncertain``,
    ``running``, ``ended`` or ``dropped``), ``note``, ``service_id`` (the service's own identifier).
    """
    return await run_async(_operation())


def _operation() -> Operation[DataFrame]:
    call = CoroutineCall(lambda: look_at_jobs(session))
    return Operation(call, lambda: job_table(call.result()))


def job_table(looks: Sequence[Look]) -> DataFrame:
    """Return a table of jobs, one row each."""
    import pandas as pd

    from llm_magics._util.tables import display_columns, display_when_empty

    frame = pd.DataFrame([_row(each) for each in looks], columns=list(_TYPES))
    for name in ("submitted", "expires"):
        # From whole numbers, because pandas rounds fractions of seconds in other ways.
        frame[name] = pd.to_datetime(frame[name].astype("Int64"), unit="us", utc=True)
    has_notes = bool(frame["note"].notna().any())
    displayed = _DISPLAYED_WITH_NOTES if has_notes else _DISPLAYED
    compact = display_columns(frame.astype(_TYPES), *displayed)
    hint = 'No batch jobs yet. Submit one with: df.llm.prompt("…", batch=True)'
    return display_when_empty(compact, hint)


def _row(look: Look) -> dict[str, Any]:
    record = look.record
    return {
        "id": record.id,
        "service": record.provider,
        "model": record.model,
        "kind": record.kind,
        "rows": record.rows,
        "done": record.done,
        "failed": record.failed,
        "cost_usd": record.cost_usd,
        "submitted": _microseconds(record.creating),
        "expires": _microseconds(record.expires),
        "state": record.state,
        "note": look.note or _unusual_end(record.outcome) or None,
        "service_id": record.service_id,
    }


def _microseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1e6)


def _unusual_end(outcome: str) -> str:
    """Return the service's word for the end of a job, if not all requests were processed."""
    return "" if any(each in outcome.lower() for each in _USUAL_ENDS) else outcome
