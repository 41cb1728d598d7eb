"""``lm.prompt``, ``lm.extract`` and ``lm.classify``: answers on the index of their rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llm_magics.dataframes.answer_columns import build_columns, final_error, schema_fields
from llm_magics.dataframes.prompt_run import ROW_ARGUMENTS, RowPromptRun, RowPrompts
from llm_magics.dataframes.reports import store_report
from llm_magics.dataframes.rows import TEXT, OnError, to_frame
from llm_magics.errors import LLMError, UsageError
from llm_magics.host import warn

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from llm_magics.dataframes.reports import RowsEstimate


__all__ = ["classify", "extract", "prompt"]


def row_prompts(text: str, schema: Any, options: Mapping[str, Any]) -> RowPrompts:
    """Return the prompts of ``text``; options that are not about rows go to the model."""
    own = {name: value for name, value in options.items() if name in ROW_ARGUMENTS}
    parameters = {name: value for name, value in options.items() if name not in ROW_ARGUMENTS}
    return RowPrompts(text=text, schema=schema, parameters=parameters, **own)


def extraction_prompts(schema: Any, options: Mapping[str, Any]) -> RowPrompts:
    """Have what ``schema`` asks for taken out of texts."""
    instruction = f"Take this out of the text, as JSON. The text:\n\n{{{{ {TEXT} }}}}"
    return row_prompts(instruction, schema, options)


def classification_prompts(
    labels: Sequence[str], into: str, options: Mapping[str, Any]
) -> RowPrompts:
    """Have texts put under one of ``labels`` each, in the field ``into``."""
    is_list = isinstance(labels, Iterable) and not isinstance(labels, str | bytes | Mapping)
    labels = list(dict.fromkeys(labels)) if is_list else []
    if len(labels) < 2 or not all(isinstance(each, str) for each in labels):
        msg = "To classify takes a list of at least two different labels, all of them texts."
        raise UsageError(msg, hint='Write labels=["praise", "complaint"].')
    schema = {
        "type": "object",
        "properties": {into: {"type": "string", "enum": labels}},
        "required": [into],
        "additionalProperties": False,
    }
    choices = ", ".join(labels).replace("{", "{{ '{' }}")  # a label is no template
    instruction = f"Which of these fits the text best: {choices}? The text:\n\n{{{{ {TEXT} }}}}"
    return row_prompts(instruction, schema, options)


# Takes the columns of answers and which rows are still open, and writes them where they belong:
# returns the result, and where it is, in words.
WriteColumns = Callable[["DataFrame", Sequence[bool]], tuple[Any, str]]

_PARTIAL_ATTRIBUTE = "the exception's .partial"


def prompt(  # noqa: PLR0913 (as for lm.ask)
    rows: Any,
    prompt: str,
    *,
    schema: Any = None,
    model: str | None = None,
    system: str | None = None,
    concurrency: int | None = None,
    on_error: OnError = "null",
    fresh: bool = False,
    dry_run: bool = False,
    yes: bool = False,
    **parameters: Any,
) -> Series[Any] | DataFrame | RowsEstimate:
    """
    The answer to a prompt for each row.

    Equal prompts are sent once, and prompts answered before are not sent again: after
    an interrupt or a crash the same call continues where it stopped.

    Args:
        rows: a frame; or a list, array, or column of pandas, polars or pyarrow.
        prompt: with ``{{ column }}`` in it, or ``{{ row["a column"] }}`` for a name with spaces;
            of a lone column, ``{{ text }}``. Rows in which all of these are missing are
            skipped.
        schema: what an answer must look like, as for `llm_magics.ask`.
        model, system, parameters: as for `llm_magics.ask`, the same for all rows.
        concurrency: prompts at once.
        on_error: ``null`` leaves a row that fails without an answer, and warns; ``raise`` raises.
        fresh: send prompts again that were answered before.
        dry_run: give what it may take, in tokens, dollars and time, and send nothing.
        yes: do not ask, whatever it may cost (setting ``confirm_above_usd``).

    Returns:
        The answers on the index of ``rows``; with a schema a frame with a column for each field.

    Raises:
        UsageError: the prompt names what is no column; or it may cost much, and that was not
            allowed.
        Interrupted: with the answers that had come in ``partial``.
        LLMError: what is wrong with all rows.
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
    )
    answers: Series[Any] | DataFrame | RowsEstimate
    answers = run_prompts(
        to_frame(rows), prompt_spec, all_columns if schema_fields(schema) else single_column
    )
    return answers


def extract(texts: Any, schema: Any, **options: Any) -> DataFrame | RowsEstimate:
    """
    What ``schema`` asks for, taken out of each text: a frame with a column for each field.

    Args:
        texts: a list, array, or column.
        schema: a pydantic class, a JSON schema, or fields in short: ``"name, age int"``.
        options: as for `prompt`.
    """
    found: DataFrame | RowsEstimate
    found = run_prompts(to_frame(texts), extraction_prompts(schema, options), all_columns)
    return found


def classify(texts: Any, labels: Sequence[str], **options: Any) -> Series[Any] | RowsEstimate:
    """
    The one of ``labels`` that fits each text best, as a categorical column.

    Args:
        texts: a list, array, or column.
        labels: at least two.
        options: as for `prompt`.
    """
    found: Series[Any] | RowsEstimate
    found = run_prompts(
        to_frame(texts), classification_prompts(labels, "label", options), single_column
    )
    return found


def run_prompts(view: DataFrame, prompt_spec: RowPrompts, write: WriteColumns) -> Any:
    """Send the prompts of the rows of ``view`` and ``write`` their answers; a dry run estimates."""
    run = RowPromptRun(view, prompt_spec)
    if prompt_spec.dry_run:
        return run.estimate()
    run.obtain_consent()
    ended_by = run.ask()
    if isinstance(ended_by, LLMError) and not any(run.answered):
        raise ended_by  # and whatever was there stays as it was
    result, where = write(build_columns(run), run.is_open)
    report = run.report()
    store_report(result, report)
    error = final_error(run, ended_by, result, where)
    if error is not None:
        raise error
    if run.has_failed:
        warn(f"{report}: see .llm.report.frame()")
    return result


def single_column(columns: DataFrame, _: Sequence[bool]) -> tuple[Any, str]:
    """The only one."""
    return columns.iloc[:, 0], _PARTIAL_ATTRIBUTE


def all_columns(columns: DataFrame, _: Sequence[bool]) -> tuple[Any, str]:
    """All of them."""
    return columns, _PARTIAL_ATTRIBUTE
