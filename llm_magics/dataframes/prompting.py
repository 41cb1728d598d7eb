"""``lm.prompt``, ``lm.extract`` and ``lm.classify``: answers on the index of what is asked about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llm_magics.dataframes.answer_columns import columns_of, error_of, fields_of
from llm_magics.dataframes.prompt_run import _OWN, OnError, Prompted, RowPrompts
from llm_magics.dataframes.reports import keep_report
from llm_magics.dataframes.rows import TEXT, frame_of
from llm_magics.errors import LLMError, UsageError
from llm_magics.user_code import warn

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from llm_magics.dataframes.reports import RowsEstimate


__all__ = ["classify", "extract", "prompt"]


def prompts(text: str, schema: Any, given: Mapping[str, Any]) -> RowPrompts:
    """What is asked by ``text``; what of ``given`` is not about rows is for the model."""
    own = {name: value for name, value in given.items() if name in _OWN}
    parameters = {name: value for name, value in given.items() if name not in _OWN}
    return RowPrompts(text, schema=schema, parameters=parameters, **own)


def extraction(schema: Any, given: Mapping[str, Any]) -> RowPrompts:
    """Have what ``schema`` asks for taken out of texts."""
    asked = f"Take this out of the text, as JSON. The text:\n\n{{{{ {TEXT} }}}}"
    return prompts(asked, schema, given)


def classification(labels: Sequence[str], into: str, given: Mapping[str, Any]) -> RowPrompts:
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
    told = ", ".join(labels).replace("{", "{{ '{' }}")  # a label is no template
    asked = f"Which of these fits the text best: {told}? The text:\n\n{{{{ {TEXT} }}}}"
    return prompts(asked, schema, given)


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
    on_error: OnError = "null",
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
        yes: do not ask, whatever it may cost (setting ``confirm_above_usd``).

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
    found = ask_rows(frame_of(texts), extraction(schema, given), as_they_are)
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
    found = ask_rows(frame_of(texts), classification(labels, "label", given), lone_column)
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


def lone_column(columns: DataFrame, _: Sequence[bool]) -> tuple[Any, str]:
    """The only one."""
    return columns.iloc[:, 0], _PARTIAL


def as_they_are(columns: DataFrame, _: Sequence[bool]) -> tuple[Any, str]:
    """All of them."""
    return columns, _PARTIAL
