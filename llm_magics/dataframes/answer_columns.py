"""
Columns of answers: their dtypes, and how they are written into a DataFrame.

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
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llm_magics.dataframes.confidence import confidence_name, field_values, scored_values
from llm_magics.errors import UsageError
from llm_magics.schemas import parse_schema
from llm_magics.wire.schema_forms import InexpressibleSchemaError, flatten_schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llm_magics.dataframes.prompt_run import RowPromptRun
    from llm_magics.dataframes.row_prompts import RowPrompts

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

    Their dtypes depend on the schema: see `llm_magics.dataframes.answer_columns`.
    """
    fields = schema_fields(run.schema)
    if not fields:
        # The last one is for rows without a prompt, whose code is -1.
        texts = [*(None if each is None else each.text for each in run.answers()), None]
        column = np.array(texts, dtype=object)[run.codes]
        return pd.DataFrame({ANSWER: pd.Series(column, index=run.index, dtype="object")})
    values = (
        scored_values(run, next(iter(fields))) if run.spec.choices else field_values(run, fields)
    )
    columns = {
        name: _spread(values.pop(name), dtype, run)
        for name, dtype in answer_dtypes(run.spec).items()
    }
    return pd.DataFrame(columns, index=run.index, columns=list(columns))


def _spread(values: list[Any], dtype: Any, run: RowPromptRun) -> pd.Series[Any]:
    """Return the values for distinct prompts as a column of the rows."""
    values.append(None)  # for rows without a prompt, whose code is -1
    column = to_typed_column(values, dtype, pd.RangeIndex(len(values)))
    return pd.Series(column.array.take(run.codes), index=run.index, dtype=column.dtype)


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
    new: pd.Series[Any], old: pd.Series[Any], is_open: NDArray[np.bool_]
) -> pd.Series[Any]:
    """Return ``new``, with the old values in rows that have no new answer (``is_open``)."""
    if not is_open.any() or old[is_open].isna().all():
        return new
    mixed = new.astype(object)
    mixed[is_open] = old[is_open].astype(object)
    is_fitting = not isinstance(new.dtype, pd.CategoricalDtype) or set(mixed.dropna()) <= set(
        new.dtype.categories
    )
    try:
        return mixed.astype(new.dtype) if is_fitting else mixed
    except (TypeError, ValueError):
        return mixed
