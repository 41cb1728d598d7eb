"""``lm.prompt``, ``lm.extract`` and ``lm.classify``: answers on the index of what is asked about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from llm_magics.errors import LLMError
from llm_magics.frames.asking import wanted as asking
from llm_magics.frames.asking.answers import columns_of, error_of
from llm_magics.frames.asking.columns import fields_of
from llm_magics.frames.asking.prompted import Prompted
from llm_magics.frames.asking.wanted import TEXT, RowPrompts
from llm_magics.frames.reporting import keep_report
from llm_magics.frames.rows import frame_of_columns, values_of
from llm_magics.user_code import warn

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from llm_magics.frames.asking.report import RowsEstimate

# Puts the columns of answers where they belong, told which rows are still open: the result, and
# where it is, in words.
Put = Callable[["DataFrame", Sequence[bool]], tuple[Any, str]]

_PARTIAL = "the exception's .partial"


def prompt(  # noqa: PLR0913 (as for lm.ask)
    rows: Any,
    prompt: str,
    *,
    schema: Any = None,
    model: str | None = None,
    system: str | None = None,
    concurrency: int | None = None,
    on_error: asking.OnError = "null",
    fresh: bool = False,
    dry_run: bool = False,
    yes: bool = False,
    **parameters: Any,
) -> Series[Any] | DataFrame | RowsEstimate:
    """
    The answer to a prompt for each row.

    Rows that ask the same are asked once, and what was asked before is not asked again: after
    an interrupt or a crash the same call goes on where it was.

    Args:
        rows: a frame; or a list, array, or column of pandas, polars or pyarrow.
        prompt: with ``{{ column }}`` in it, or ``{{ row["a column"] }}`` for a name with spaces;
            of a lone column, ``{{ text }}``. Rows in which all of these are missing are not
            asked.
        schema: what an answer must look like, as for `llm_magics.ask`.
        model, system, parameters: as for `llm_magics.ask`, the same for all rows.
        concurrency: prompts at once.
        on_error: ``null`` leaves a row that fails without an answer, and warns; ``raise`` raises.
        fresh: ask anew what was asked before.
        dry_run: give what it may take, in tokens, dollars and time, and send nothing.
        yes: do not ask, whatever it may cost (setting ``ask_above_usd``).

    Returns:
        The answers on the index of ``rows``; with a schema a frame with a column for each field.

    Raises:
        UsageError: the prompt names what is no column; or it may cost much, and that was not
            allowed.
        Interrupted: with the answers that had come in ``partial``.
        LLMError: what is wrong with all rows.
    """
    given = RowPrompts(
        prompt, model, system, schema, parameters, concurrency, on_error, fresh, dry_run, yes
    )
    answers: Series[Any] | DataFrame | RowsEstimate
    answers = ask_rows(frame_of(rows), given, as_they_are if fields_of(schema) else lone_column)
    return answers


def extract(texts: Any, schema: Any, **given: Any) -> DataFrame | RowsEstimate:
    """
    What ``schema`` asks for, taken out of each text: a frame with a column for each field.

    Args:
        texts: a list, array, or column.
        schema: a pydantic class, a JSON schema, or fields in short: ``"name, age int"``.
        given: as for `prompt`.
    """
    found: DataFrame | RowsEstimate
    found = ask_rows(frame_of(texts), asking.extraction(schema, given), as_they_are)
    return found


def classify(texts: Any, labels: Sequence[str], **given: Any) -> Series[Any] | RowsEstimate:
    """
    The one of ``labels`` that fits each text best, as a categorical column.

    Args:
        texts: a list, array, or column.
        labels: at least two.
        given: as for `prompt`.
    """
    found: Series[Any] | RowsEstimate
    found = ask_rows(frame_of(texts), asking.classification(labels, "label", given), lone_column)
    return found


def ask_rows(view: DataFrame, given: RowPrompts, put: Put) -> Any:
    """What ``put`` makes of the answers to what is asked of the rows of ``view``; its estimate, if dry."""
    prompted = Prompted(view, given)
    if given.dry_run:
        return prompted.estimate()
    prompted.obtain_consent()
    ended_by = prompted.ask()
    if isinstance(ended_by, LLMError) and not any(prompted.answered):
        raise ended_by  # and whatever was there stays as it was
    result, where = put(columns_of(prompted), prompted.is_open)
    report = prompted.report()
    keep_report(result, report)
    error = error_of(prompted, ended_by, result, where)
    if error is not None:
        raise error
    if prompted.has_failed:
        warn(f"{report}: see .llm.report.frame()")
    return result


def frame_of(rows: Any) -> DataFrame:
    """Return rows as a frame of pandas; a lone column is called ``text``."""
    if isinstance(rows, pd.DataFrame):
        return rows
    if isinstance(rows, pd.Series):
        return rows.to_frame(TEXT)
    if hasattr(rows, "to_pandas") and hasattr(
        rows, "columns"
    ):  # of polars or pyarrow: integers with nulls stay integers
        return frame_of_columns(rows)
    return pd.DataFrame({TEXT: pd.Series(values_of(rows), dtype=object)})


def lone_column(columns: DataFrame, _: Sequence[bool]) -> tuple[Any, str]:
    """The only one."""
    return columns.iloc[:, 0], _PARTIAL


def as_they_are(columns: DataFrame, _: Sequence[bool]) -> tuple[Any, str]:
    """All of them."""
    return columns, _PARTIAL
