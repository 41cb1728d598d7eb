"""
``lm.prompt``, ``lm.extract`` and ``lm.classify``: answers as columns on the index of the rows.

The dtype of a column depends on the schema, not on the values.

| JSON schema | dtype |
|---|---|
| ``integer`` | ``Int64`` |
| ``number`` | ``Float64`` |
| ``string`` | ``string`` |
| ``boolean`` | ``boolean`` |
| ``string`` of the format ``date`` | ``datetime64[ns]`` |
| ``string`` of the format ``date-time`` | ``datetime64[ns, UTC]``; a time without an offset counts as UTC |
| ``enum`` of strings | ``category`` |
| all others: lists, objects, unions of several types | ``object`` |

Nullable fields and columns without values have the same dtypes. If the dtype cannot represent a
value exactly (an integer of more than 64 bits, a year after 2262), the column has the dtype
``object``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from llm_magics.dataframes.classify import classification_prompts, extraction_prompts
from llm_magics.dataframes.confidence import confidence_name, records_of, scored_records
from llm_magics.dataframes.prompt_run import RowPromptRun, RowPrompts
from llm_magics.dataframes.reports import announce, store_report
from llm_magics.dataframes.row_attachments import RowAttachments
from llm_magics.dataframes.rows import OnError, to_frame
from llm_magics.errors import Interrupted, LLMError, UsageError
from llm_magics.schemas import parse_schema
from llm_magics.wire.schema_forms import InexpressibleSchemaError, flatten_schema

if TYPE_CHECKING:
    from pandas import DataFrame, Series

    from llm_magics.dataframes.reports import RowsEstimate


__all__ = ["classify", "extract", "prompt"]

_PLAIN = {"integer": "Int64", "number": "Float64", "boolean": "boolean", "string": "string"}
_DATE, _DATE_TIME = "datetime64[ns]", "datetime64[ns, UTC]"
_FORMATS = {"date": _DATE, "date-time": _DATE_TIME}


def schema_fields(schema: Any) -> dict[str, Any]:
    """
    Return the schema of each field of ``schema`` by name; an empty dict if it has no fields.

    References, ``allOf`` and similar keywords are resolved.
    """
    if schema is None:
        return {}
    plain = parse_schema(schema)
    try:
        flat = flatten_schema(plain)
    except InexpressibleSchemaError:
        return dict(plain.get("properties", {}))
    root = flat.schema
    name = str(root.get("$ref", "")).removeprefix("#/$defs/")
    return dict(flat.definitions.get(name, root).get("properties", {}))


def field_dtype(field: Any) -> Any:
    """Return the dtype of a field's column."""
    field = _without_null(field)
    labels = field.get("enum")
    if labels is not None:
        return _values_dtype([each for each in labels if each is not None])
    branches = field.get("anyOf")
    if branches:
        kinds = {str(field_dtype(each)): field_dtype(each) for each in branches}
        if len(kinds) == 1:
            return next(iter(kinds.values()))
        return "Float64" if set(kinds) == {"Int64", "Float64"} else "object"
    kind = field.get("type")
    if kind == "string" and field.get("format") in _FORMATS:
        return _FORMATS[field["format"]]
    return _PLAIN.get(kind, "object") if isinstance(kind, str) else "object"


def _without_null(field: Any) -> Mapping[str, Any]:
    """Return the schema of a field without ``null`` as an alternative."""
    if not isinstance(field, Mapping):
        return {}
    branches = [each for each in field.get("anyOf", ()) if each.get("type") != "null"]
    if "anyOf" not in field:
        return field
    return _without_null(branches[0]) if len(branches) == 1 else {"anyOf": branches}


def _values_dtype(values: Sequence[Any]) -> Any:
    kinds = {type(each) for each in values}
    if kinds == {str}:
        return pd.CategoricalDtype(list(dict.fromkeys(values)))
    names = {
        frozenset([bool]): "boolean",
        frozenset([int]): "Int64",
        frozenset([float]): "Float64",
    }
    return names.get(frozenset(kinds), "Float64" if kinds == {int, float} else "object")


def field_dtypes(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dtype of each field's column."""
    return {name: field_dtype(field) for name, field in fields.items()}


def to_typed_column(values: Iterable[Any], dtype: Any, index: pd.Index[Any]) -> pd.Series[Any]:
    """
    Return ``values`` as a column of ``dtype``, or of ``object`` if it cannot hold them exactly.

    ``None`` is a missing value.
    """
    values = list(values)
    convert = _CONVERT.get(str(dtype), _unchanged)
    try:
        converted = [None if each is None else convert(each) for each in values]
        return pd.Series(_to_array(converted, dtype), index=index)
    except (TypeError, ValueError, OverflowError):
        return pd.Series(values, index=index, dtype=object)


def _to_array(values: list[Any], dtype: Any) -> Any:
    if str(dtype) in (_DATE, _DATE_TIME):
        return pd.DatetimeIndex(values, dtype=dtype)
    if isinstance(dtype, pd.CategoricalDtype):
        if not {*values} - {None} <= {*dtype.categories}:
            raise ValueError
        return pd.Categorical(values, dtype=dtype)
    if dtype == "object":
        return pd.Series(values, dtype=object).array
    return pd.array(values, dtype=dtype)


def _unchanged(value: Any) -> Any:
    return value


def _integer(value: Any) -> int:
    """Convert a JSON integer, which may be written as ``3.0``, or a string that a class accepts."""
    number = int(value)
    if isinstance(value, float) and number != value:
        raise ValueError(value)
    return number


def _number(value: Any) -> float:
    number = float(value)
    if isinstance(value, int) and int(number) != value:
        raise ValueError(value)  # more digits than a float has
    return number


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _date(value: Any) -> pd.Timestamp:
    return _to_nanoseconds(pd.Timestamp(dt.date.fromisoformat(str(value)[:10])))


def _moment(value: Any) -> pd.Timestamp:
    moment = pd.Timestamp(str(value))
    return _to_nanoseconds(
        moment.tz_localize("UTC") if moment.tz is None else moment.tz_convert("UTC")
    )


def _to_nanoseconds(moment: pd.Timestamp) -> pd.Timestamp:
    return moment.as_unit("ns")  # raises an error if the year is out of range


_CONVERT: dict[str, Callable[[Any], Any]] = {
    "Int64": _integer,
    "Float64": _number,
    "string": _text,
    _DATE: _date,
    _DATE_TIME: _moment,
}


ANSWER = "answer"


def answer_fields(prompt_spec: RowPrompts) -> list[str]:
    """Return the names of the columns with fields of an answer, and of those with confidences."""
    fields = list(schema_fields(prompt_spec.schema))
    confidences = [confidence_name(each) for each in fields if prompt_spec.confidence]
    if taken := sorted({*fields} & {*confidences}):
        msg = f"The schema has a field {taken[0]}, which is the name of a column of confidences."
        raise UsageError(msg, hint="Rename the field.")
    return fields + confidences


def answer_dtypes(prompt_spec: RowPrompts) -> dict[str, Any]:
    """Return the dtype of each of the `answer_fields`."""
    dtypes = field_dtypes(schema_fields(prompt_spec.schema))
    return {name: dtypes.get(name, "Float64") for name in answer_fields(prompt_spec)}


def build_columns(run: RowPromptRun) -> pd.DataFrame:
    """
    Return the answers on the index of the rows: a column ``answer``, or one column per field.

    Their dtypes depend on the schema: see `llm_magics.dataframes.prompting`.
    """
    fields, answered, index = schema_fields(run.schema), run.answered, run.index
    if not fields:
        texts = [None if each is None else each.text for each in answered]
        return pd.DataFrame({ANSWER: pd.Series(texts, index=index, dtype="object")})
    records = (
        scored_records(run, next(iter(fields))) if run.spec.choices else records_of(run, fields)
    )
    columns = {
        name: to_typed_column([each.get(name) for each in records], dtype, index)
        for name, dtype in answer_dtypes(run.spec).items()
    }
    return pd.DataFrame(columns, index=index, columns=list(columns))


_ANSWERS_KEY = "llm_magics_answers"


def tag_answer_columns(frame: pd.DataFrame, names: Iterable[str]) -> None:
    """Record that these columns are answers, which a later run may overwrite."""
    frame.attrs[_ANSWERS_KEY] = sorted({*_answer_columns(frame), *names})


def _answer_columns(frame: pd.DataFrame) -> list[str]:
    """Return the recorded answer columns. In a DataFrame from a file, the record may be invalid."""
    note = frame.attrs.get(_ANSWERS_KEY)
    return [str(name) for name in note] if isinstance(note, list) else []


def check_columns_free(
    frame: pd.DataFrame, fields: Sequence[str], what: str = "The schema's field"
) -> None:
    """
    Refuse to overwrite existing columns that are not answers.

    Raises:
        UsageError: one of ``fields`` is such a column.
    """
    taken = [name for name in fields if name in frame.columns]
    foreign = sorted({*taken} - {*_answer_columns(frame)})
    if foreign:
        msg = f"{what} {foreign[0]} would overwrite an existing column."
        hint = f"Use another name, or drop the column: df.pop({foreign[0]!r})"
        raise UsageError(msg, hint=hint)


def merge_answers(
    new: pd.Series[Any], old: pd.Series[Any], is_open: Sequence[bool]
) -> pd.Series[Any]:
    """Return ``new``, with the old values in rows that have no new answer (``is_open``)."""
    mask = pd.Series(list(is_open), index=new.index)
    if not mask.any() or old[mask.to_numpy()].isna().all():
        return new
    mixed = new.astype(object)
    mixed[mask.to_numpy()] = old[mask.to_numpy()].astype(object)
    is_fitting = not isinstance(new.dtype, pd.CategoricalDtype) or set(mixed.dropna()) <= set(
        new.dtype.categories
    )
    try:
        return mixed.astype(new.dtype) if is_fitting else mixed
    except (TypeError, ValueError):
        return mixed


def final_error(
    run: RowPromptRun, ended_by: BaseException | None, partial: Any, where: str
) -> BaseException | None:
    """Return the error to raise: the one that ended the run; otherwise, if required, the first."""
    if isinstance(ended_by, KeyboardInterrupt):
        done = sum(each is not None for each in run.answered)
        msg = f"Stopped: {done:,} of {len(run.codes):,} rows are answered."
        hint = f"Their answers are in {where} and will not be requested again." if done else None
        return Interrupted(msg, hint=hint, partial=partial)
    counts = run.counts()
    is_lost = counts["failed"] + counts["refused"] + counts["empty"] > 0 and not any(
        counts[each] for each in ("ok", "cut")
    )
    return ended_by or (run.first_error if run.raises or is_lost else None)


# Stores the columns of answers. Arguments: the columns, and whether each row is without an answer.
# Returns the result, and a text that says where it is.
WriteColumns = Callable[["DataFrame", Sequence[bool]], tuple[Any, str]]

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
    **parameters: Any,
) -> Series[Any] | DataFrame | RowsEstimate:
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
        attachments=RowAttachments.of(attachments, attachments_root, allow_urls),
    )
    answers: Series[Any] | DataFrame | RowsEstimate
    answers = run_prompts(
        to_frame(rows), prompt_spec, all_columns if schema_fields(schema) else single_column
    )
    return answers


def extract(
    texts: Any, schema: Any, *, confidence: bool = False, **options: Any
) -> DataFrame | RowsEstimate:
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
    found: DataFrame | RowsEstimate
    options = {**options, "confidence": confidence}
    found = run_prompts(to_frame(texts), extraction_prompts(schema, options), all_columns)
    return found


def classify(
    texts: Any, labels: Sequence[str], *, confidence: bool = False, **options: Any
) -> Series[Any] | DataFrame | RowsEstimate:
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
    found: Series[Any] | DataFrame | RowsEstimate
    options = {**options, "confidence": confidence}
    found = run_prompts(
        to_frame(texts),
        classification_prompts(labels, "label", options),
        all_columns if confidence else single_column,
    )
    return found


def run_prompts(view: DataFrame, prompt_spec: RowPrompts, write: WriteColumns) -> Any:
    """Send the prompts of the rows of ``view`` and ``write`` the answers, or return an estimate."""
    run = RowPromptRun(view, prompt_spec)
    if prompt_spec.dry_run:
        return run.estimate()
    run.obtain_consent()
    ended_by = run.ask()
    if isinstance(ended_by, LLMError) and not any(run.answered):
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


def single_column(columns: DataFrame, _: Sequence[bool]) -> tuple[Any, str]:
    """Return the only column as a Series."""
    return columns.iloc[:, 0], _PARTIAL_ATTRIBUTE


def all_columns(columns: DataFrame, _: Sequence[bool]) -> tuple[Any, str]:
    """Return all columns as a DataFrame."""
    return columns, _PARTIAL_ATTRIBUTE
