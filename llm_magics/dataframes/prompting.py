"""
``lm.prompt``, ``lm.extract`` and ``lm.classify``: answers as columns on the index of the rows.

The dtypes of the columns are described in `llm_magics.dataframes.answer_columns`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics.dataframes.answer_columns import build_columns, schema_fields
from llm_magics.dataframes.batch_job import BatchJob
from llm_magics.dataframes.classify import classification_prompts, extraction_prompts
from llm_magics.dataframes.prompt_run import RowPromptRun
from llm_magics.dataframes.reports import announce, store_report
from llm_magics.dataframes.row_attachments import RowAttachments
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.dataframes.rows import OnError, to_frame
from llm_magics.errors import Interrupted, LLMError
from llm_magics.runtime.jobs.control import stopped_waiting
from llm_magics.runtime.session import session

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame, Series

    from llm_magics.dataframes.reports import RowsEstimate


__all__ = ["classify", "extract", "prompt"]


def final_error(
    run: RowPromptRun, ended_by: BaseException | None, partial: Any, where: str
) -> BaseException | None:
    """Return the error to raise: the one that ended the run; otherwise, if required, the first."""
    if isinstance(ended_by, KeyboardInterrupt):
        done = int(run.is_answered.sum())
        rows = f"{done:,} of {len(run.codes):,} rows are answered"
        if run.call.job_ids:
            return stopped_waiting(session, rows, run.call.job_ids, partial)
        msg = f"Stopped: {rows}."
        hint = f"Their answers are in {where} and will not be requested again." if done else None
        return Interrupted(msg, hint=hint, partial=partial)
    counts = run.counts()
    is_lost = counts["failed"] + counts["refused"] + counts["empty"] > 0 and not any(
        counts[each] for each in ("ok", "cut")
    )
    return ended_by or (run.first_error if run.raises or is_lost else None)


# Stores the columns of answers. Arguments: the columns, and whether each row is without an answer.
# Returns the result, and a text that says where it is.
WriteColumns = Callable[["DataFrame", "NDArray[np.bool_]"], tuple[Any, str]]

_PARTIAL_ATTRIBUTE = "the exception's .partial"


def prompt(  # noqa: PLR0913 (as for lm.ask)
    rows: Any,
    prompt: str,
    *,
    schema: Any = None,
    attachments: str | Sequence[str] | None = None,
    attachments_root: str | Path | None = None,
    allow_urls: bool = False,
    model: str | None = None,
    system: str | None = None,
    concurrency: int | None = None,
    on_error: OnError = "null",
    fresh: bool = False,
    dry_run: bool = False,
    yes: bool = False,
    batch: bool = False,
    wait: bool = True,
    **parameters: Any,
) -> Series[Any] | DataFrame | RowsEstimate | BatchJob:
    """
    Return the answer to a prompt for each row.

    Equal prompts are sent once, and prompts with a cached answer are not sent again: after
    an interrupt or a crash the same call continues where it stopped.

    Args:
        rows: a DataFrame; or a list, array, or column of pandas, polars or pyarrow.
        prompt: a template with ``{{ column }}``, or ``{{ row["a column"] }}`` for a name with
            spaces; ``{{ text }}`` for a single column. Rows in which all of these columns are
            missing are skipped.
        schema: the structure of an answer, as for `llm_magics.ask`.
        attachments: the column with files to attach, or several: paths, the bytes of files, or
            lists of these. Rows without a file are skipped.
        attachments_root: the folder in which the paths must be; by default the working folder.
        allow_urls: attach addresses too, which the service fetches.
        model, system, parameters: as for `llm_magics.ask`, the same for all rows.
        concurrency: number of concurrent requests.
        on_error: ``null`` leaves the answer of a failed row empty and warns; ``raise`` raises
            the error.
        fresh: send prompts even if their answers are cached.
        dry_run: return an estimate of tokens, cost and time, and send nothing.
        yes: do not ask for confirmation of the cost (setting ``confirm_above_usd``).
        batch: send the missing prompts in batch jobs of the service, at its lower price. The call
            waits until they have ended (setting ``batch_timeout``). Jobs go on after an interrupt;
            the same call, also in another kernel, finds them.
        wait: with ``False``, submit the jobs and return a `BatchJob`.

    Returns:
        the answers on the index of ``rows``; with a schema, a DataFrame with a column per
        field.

    Raises:
        UsageError: the prompt names a column that does not exist, or the cost needs
            confirmation.
        Interrupted: ``partial`` has the answers so far.
        LLMError: an error that affects all rows.
    """
    prompt_spec = RowPrompts(
        text=prompt,
        model=model,
        system=system,
        schema=schema,
        parameters=parameters,
        concurrency=concurrency,
        on_error=on_error,
        fresh=fresh,
        dry_run=dry_run,
        yes=yes,
        batch=batch,
        wait=wait,
        attachments=RowAttachments.of(attachments, attachments_root, allow_urls),
    )
    answers: Series[Any] | DataFrame | RowsEstimate | BatchJob
    answers = run_prompts(
        to_frame(rows), prompt_spec, all_columns if schema_fields(schema) else single_column
    )
    return answers


def extract(
    texts: Any, schema: Any, *, confidence: bool = False, **options: Any
) -> DataFrame | RowsEstimate | BatchJob:
    """
    Extract the fields of ``schema`` from each text; return a DataFrame with a column per field.

    Args:
        texts: a list, array, or column.
        schema: a pydantic class, a JSON schema, or fields in short: ``"name, age int"``.
        confidence: add the probability of each value as the column ``FIELD_confidence``.
        options: as for `prompt`.

    Raises:
        UnsupportedError: ``confidence``, and the model returns no log probabilities.
    """
    found: DataFrame | RowsEstimate | BatchJob
    options = {**options, "confidence": confidence}
    found = run_prompts(to_frame(texts), extraction_prompts(schema, options), all_columns)
    return found


def classify(
    texts: Any, labels: Sequence[str], *, confidence: bool = False, **options: Any
) -> Series[Any] | DataFrame | RowsEstimate | BatchJob:
    """
    Assign one of ``labels`` to each text; return them as a categorical column.

    Args:
        texts: a list, array, or column.
        labels: at least two different labels.
        confidence: return a DataFrame with the columns ``label`` and ``label_confidence``, the
            probability of the label among ``labels``.
        options: as for `prompt`.

    Raises:
        UnsupportedError: ``confidence``, and the model returns no log probabilities.
    """
    found: Series[Any] | DataFrame | RowsEstimate | BatchJob
    options = {**options, "confidence": confidence}
    found = run_prompts(
        to_frame(texts),
        classification_prompts(labels, "label", options),
        all_columns if confidence else single_column,
    )
    return found


def run_prompts(view: DataFrame, prompt_spec: RowPrompts, write: WriteColumns) -> Any:
    """
    Send the prompts of the rows of ``view`` and ``write`` the answers.

    Return what was written; an estimate for a dry run; a `BatchJob` without waiting for it.
    """
    run = RowPromptRun(view, prompt_spec)
    if prompt_spec.dry_run:
        return run.estimate()
    run.obtain_consent()
    ended_by = run.ask()
    if prompt_spec.wait:
        return write_answers(run, ended_by, write)
    if isinstance(ended_by, KeyboardInterrupt):
        raise final_error(run, ended_by, None, "") or ended_by
    if ended_by is not None:
        raise ended_by
    return BatchJob(run, partial(write_answers, run, write=write))


def write_answers(run: RowPromptRun, ended_by: BaseException | None, write: WriteColumns) -> Any:
    """
    ``write`` the answers of a run, and return the result.

    Raises:
        Interrupted: ``ended_by`` is an interrupt; ``partial`` has the answers so far.
        LLMError: all rows have failed, or those that failed raise errors.
    """
    if isinstance(ended_by, LLMError) and not run.is_answered.any():
        raise ended_by  # existing answers are not changed
    result, where = write(build_columns(run), run.is_open)
    report = run.report()
    store_report(result, report)
    error = final_error(run, ended_by, result, where)
    if error is not None:
        raise error
    is_written = where != _PARTIAL_ATTRIBUTE
    announce(report, where if is_written else "", has_failed=run.has_failed)
    return result


def single_column(columns: DataFrame, _: NDArray[np.bool_]) -> tuple[Any, str]:
    """Return the only column as a Series."""
    return columns.iloc[:, 0], _PARTIAL_ATTRIBUTE


def all_columns(columns: DataFrame, _: NDArray[np.bool_]) -> tuple[Any, str]:
    """Return all columns as a DataFrame."""
    return columns, _PARTIAL_ATTRIBUTE
