"""Calls of functions of a DataFrame with all items, such as ``lambda df: df.llm.classify(…)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_magics.errors import BudgetError, UsageError
from llm_magics.evaluations.datasets import EvaluationSet
from llm_magics.evaluations.items import is_missing
from llm_magics.evaluations.record import frame_values
from llm_magics.evaluations.tasks import FunctionTask, Requests, question_of
from llm_magics.runtime.storage.run_log import Run, collect_runs

Position = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class FrameCall:
    """
    One call for all items, with one model.

    Attributes:
        function: the function, which gets a DataFrame.
        options: its arguments by keyword.
        data: the items.
        columns: the first columns of each row, by its position.
    """

    function: Callable[..., Any]
    options: Mapping[str, Any]
    data: EvaluationSet
    columns: Mapping[Position, dict[str, Any]]

    @property
    def positions(self) -> Sequence[Position]:
        """The positions of the rows, in the order of the items."""
        return list(self.columns)

    def rows(self) -> tuple[dict[Position, dict[str, Any]], list[Run]]:
        """
        Call the function; return a row with ``value`` and ``error`` for each item, and its calls.

        Raises:
            KeyboardInterrupt: it was interrupted before it had any answers.
            LLMError: the user declined its cost, the budget is spent, or its arguments are invalid.
        """
        frame = self.data.frame
        asked = frame.copy()
        with collect_runs() as runs:
            try:
                values, errors = frame_values(self.function(asked, **self.options), frame)
            except (UsageError, BudgetError):  # all further calls would fail as well
                raise
            except (Exception, SystemExit) as failure:  # the function's own
                text = f"{type(failure).__name__}: {failure}"
                values, errors = [None] * len(frame), dict.fromkeys(frame.index, text)
        rows = {}
        for position, label, value in zip(self.columns, frame.index, values, strict=True):
            error = errors.get(label)
            if error is None and is_missing(value):
                error = "no answer"
            rows[position] = {**self.columns[position], "value": value, "error": error}
        return rows, runs


def frame_calls(task: FunctionTask, data: EvaluationSet, requests: Requests) -> list[FrameCall]:
    """Return one call for each repeat and model."""
    return [
        FrameCall(
            function=task.function,
            options=task.options(model, requests),
            data=data,
            columns={
                (repeat, row, column): requests.columns(item, model, repeat, question_of(item))
                for row, item in enumerate(requests.items)
            },
        )
        for repeat in range(requests.repeat)
        for column, model in enumerate(requests.models)
    ]
