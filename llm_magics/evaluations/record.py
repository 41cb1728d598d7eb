"""The rows of an evaluation: answers to prompts, and the values that functions return."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from llm_magics._async.functions import call_function
from llm_magics.benchmarking.measure import Job, MeasuredCall, Record, error_text
from llm_magics.errors import BudgetError
from llm_magics.evaluations.items import canonical_json, canonical_value, is_missing
from llm_magics.evaluations.tasks import FunctionJob
from llm_magics.runtime.response import INTERRUPTED, Response
from llm_magics.runtime.storage.run_log import Run, collect_runs
from llm_magics.secrets import redact
from llm_magics.types import Usage

# Columns with details of requests, which functions do not have.
_WITHOUT = ("times_s", "kinds", "queue_s", "connect_s", "headers_s", "latency_s", "intended_s", "sent_s", "ended_s", "bytes_sent", "bytes_received", "pieces")  # fmt: skip

Row = dict[str, Any]


class EvaluationRecord(Record):
    """The rows of an evaluation so far, each of which is passed on when it is complete."""

    def __init__(self, done: Callable[[Row], None] = lambda row: None) -> None:
        """Pass each complete row to ``done``."""
        super().__init__()
        self._done = done

    async def run(self, job: Job | FunctionJob) -> None:
        """Run the job and add its row."""
        try:
            if isinstance(job, Job):
                await self.ask(job)
            else:
                await self._call(job)
        finally:
            self._pass_on(job.position)

    def _pass_on(self, position: tuple[int, ...]) -> None:
        row = self._rows.get(position)
        if row is not None:
            for name in _WITHOUT:
                row.pop(name, None)
            if row["finish_reason"] != INTERRUPTED:
                self._done(row)

    async def _call(self, job: FunctionJob) -> None:
        began = time.perf_counter()
        value: Any = None
        error: BaseException | None = None
        with collect_runs() as runs:
            try:
                value = await call_function(job.function)
            except (asyncio.CancelledError, BudgetError) as failure:
                error = failure
                raise
            except (Exception, SystemExit, KeyboardInterrupt) as failure:  # the function's own
                error = failure
            finally:
                seconds = time.perf_counter() - began
                outcome = _Outcome(value, error, model=job.model, runs=runs, seconds=seconds)
                self.add(job.position, {**job.columns, **outcome.row()})

    def add(self, position: tuple[int, ...], row: Row) -> None:
        """Add a row."""
        self._rows[position] = row
        self.failed += row["error"] is not None

    def add_frame(
        self, rows: Mapping[tuple[int, ...], Row], runs: Sequence[Run], seconds: float
    ) -> None:
        """Add the rows of one call for several items, with equal parts of its cost and time."""
        shares = _shares(runs, len(rows))
        for position, row in rows.items():
            error = row.pop("error")
            outcome = _Outcome(row.pop("value"), None, runs=runs, seconds=seconds / len(rows))
            if error is not None:
                outcome.error_text = error
            self.add(position, {**row, **outcome.row(), **shares})
            self._pass_on(position)


class _Outcome:
    """The result of a function, and the calls that it made."""

    def __init__(
        self,
        value: Any,
        error: BaseException | None,
        *,
        model: str = "",
        runs: Sequence[Run],
        seconds: float,
    ) -> None:
        self._model, self._value, self._runs, self._seconds = model, value, runs, seconds
        self._is_stopped = isinstance(error, asyncio.CancelledError)
        self.error_text: str | None = None
        if isinstance(error, Exception):
            self.error_text = error_text(error)
        elif error is not None and not self._is_stopped:
            self.error_text = redact(f"{type(error).__name__}: {error}")
        if error is None:
            try:
                self._text = text_of(value)
            except ValueError as failure:
                self._text, self.error_text = "", f"ValueError: the function's value: {failure}"

    def row(self) -> Row:
        """Return the columns of the answer."""
        response = self._response()
        call = MeasuredCall(model=self._model, response=response, chunks=())
        row = call.answer()
        row |= {"e2e_s": self._seconds, "error": self.error_text, "note": None}
        row |= {"text": response.text if self.error_text is None else None}
        if self.error_text is not None:
            row["finish_reason"] = "error"
        provider, _, name = response.model.partition("/")
        return row | {"provider": provider or None, "model": name or None}

    def _response(self) -> Response:
        own = self._value if isinstance(self._value, Response) else None
        reason = (own.finish_reason if own else None) or "stop"
        text = "" if self.error_text or self._is_stopped else self._text
        if self._is_stopped:
            reason = INTERRUPTED
        if not self._runs:
            cost = own.cost_usd if own else 0.0
            usage = own.usage if own else Usage()
            model = own.model if own else ""
            cached = own.cached if own else False
            return Response(text, model, reason, usage=usage, cost_usd=cost, cached=cached)
        last = self._runs[-1]
        shares = _shares(self._runs, 1)
        return Response(
            text,
            f"{last.provider}/{last.model}",
            reason,
            usage=Usage(shares["input_tokens"], shares["output_tokens"]),
            cost_usd=shares["cost_usd"],
            cached=all(run.cached for run in self._runs),
            retries=shares["retries"],
        )


def _shares(runs: Sequence[Run], rows: int) -> dict[str, Any]:
    """Return the cost, tokens and retries of the calls, in equal parts for ``rows``."""
    costs = [run.cost_usd for run in runs]
    known = [usd for usd in costs if usd is not None]
    read = sum(run.input_tokens or 0 for run in runs)
    written = sum(run.output_tokens or 0 for run in runs)
    return {
        "cost_usd": sum(known) / rows if len(known) == len(costs) else None,
        "input_tokens": round(read / rows),
        "output_tokens": round(written / rows),
        "retries": round(sum(run.retries for run in runs) / rows),
    }


def text_of(value: Any) -> str:
    """
    Return the value of a function as the text of an answer: a text unchanged, others as JSON.

    Raises:
        ValueError: the value has no text, or cannot be written as JSON.
    """
    if isinstance(value, Response):
        return value.text
    if isinstance(value, str):
        return value
    if is_missing(value):
        msg = "it returned nothing"
        raise ValueError(msg)
    dump = getattr(value, "model_dump", None)  # of pydantic
    return canonical_json(canonical_value(dump(mode="json") if callable(dump) else value))


def frame_values(result: Any, asked: pd.DataFrame) -> tuple[list[Any], dict[Any, str]]:
    """
    Return the value of each row of ``asked``, and the errors by the label of a row.

    Args:
        result: a column, a list with a value per row, or a DataFrame. Of a DataFrame, the value is
            its only new column, or a mapping of all new columns.

    Raises:
        ValueError: the result has no value for each row.
    """
    errors: dict[Any, str] = {}
    report = getattr(getattr(result, "llm", None), "report", None)
    if report is not None and hasattr(report, "frame"):
        details = report.frame()
        if "error" in details:
            errors = details["error"].dropna().to_dict()
    if isinstance(result, pd.DataFrame):
        new = [name for name in result.columns if name not in asked.columns]
        if not new:
            msg = "the DataFrame has no new column"
            raise ValueError(msg)
        found = result[new].reindex(asked.index)
        if len(new) == 1:
            return found[new[0]].tolist(), errors
        return [
            None if all(map(is_missing, row.values())) else row for row in found.to_dict("records")
        ], errors
    if isinstance(result, pd.Series):
        return result.reindex(asked.index).tolist(), errors
    values = list(result)
    if len(values) != len(asked):
        msg = f"it has {len(values):,} values for {len(asked):,} rows"
        raise ValueError(msg)
    return values, errors
