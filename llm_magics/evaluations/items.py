"""The items of an evaluation set: canonical values and digests."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from uuid import UUID

import numpy as np
import pandas as pd

from llm_magics._util.text import replace_lone_surrogates

# Deeper values would overflow the stack.
_MAX_DEPTH = 50
# Python does not read the digits of much larger integers.
_MAX_INTEGER = 10**1000
# Above it, not every integer is a float.
_MAX_EXACT = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """
    One item of an evaluation set; all values are JSON values.

    Attributes:
        id: identifies the item in its set.
        inputs: the values that a task reads, by column.
        expected: the expected answer; ``None`` if it is unknown.
        labels: the labels, by the name of the person.
        split: the part of the set that it belongs to, such as ``test``.
    """

    id: str
    inputs: Mapping[str, Any]
    expected: Any = None
    labels: Mapping[str, Any] = field(default_factory=dict)
    split: str | None = None

    @property
    def digest(self) -> str:
        """The digest of the inputs and the expected answer, without id, labels and split."""
        return digest_of([self.inputs, self.expected])

    @property
    def content_digest(self) -> str:
        """The digest of all values but the split."""
        return digest_of([self.id, self.inputs, self.expected, self.labels])

    @property
    def columns(self) -> dict[str, Any]:
        """All values by the name of their column."""
        labels = {f"{LABEL_PREFIX}{name}": value for name, value in self.labels.items()}
        rest = {"id": self.id, "expected": self.expected, "split": self.split}
        return {**self.inputs, **rest, **labels}

    @property
    def record(self) -> dict[str, Any]:
        """The item as a record, from which `EvaluationSet` can read it."""
        record: dict[str, Any] = {"id": self.id, **self.inputs}
        record |= {"expected": self.expected} if self.expected is not None else {}
        record |= {"labels": dict(self.labels)} if self.labels else {}
        return record | ({"split": self.split} if self.split is not None else {})

    @property
    def series(self) -> pd.Series[Any]:
        """All values as a row of a DataFrame, with the id as its name."""
        return pd.Series(self.columns, dtype="object", name=self.id)


# The beginning of the names of columns with the labels of one person.
LABEL_PREFIX = "label_"


def canonical_json(value: Any) -> str:
    """Return a JSON value as text that is the same for equal values."""
    return json.dumps(
        value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
    )


def digest_of(value: Any) -> str:
    """Return the SHA-256 of a JSON value, as 64 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def is_missing(value: Any) -> bool:
    """Return whether ``value`` is ``None``, NaN, NaT or ``pandas.NA``."""
    if value is None or value is pd.NA or value is pd.NaT:
        return True
    return isinstance(value, float | np.floating) and math.isnan(value)


def canonical_value(value: Any, depth: int = 0) -> Any:
    """
    Return ``value`` as a JSON value that does not depend on the format it was read from.

    Missing values are ``None``, and floats without a fraction are integers, because a column of
    integers with missing values has floats.

    Raises:
        ValueError: it is not a JSON value, or is nested too deeply.
    """
    if isinstance(value, np.datetime64 | np.timedelta64):
        value = pd.Timestamp(value) if isinstance(value, np.datetime64) else pd.Timedelta(value)
    if isinstance(value, np.generic):
        value = value.item()
    if is_missing(value):
        return None
    if isinstance(value, bool | int):
        if abs(value) >= _MAX_INTEGER:
            msg = "an integer of more than 1,000 digits cannot be stored as JSON"
            raise ValueError(msg)
        return value
    for kinds, convert in _SCALARS:
        if isinstance(value, kinds):
            return convert(value)
    return _canonical_container(value, depth)


def _canonical_container(value: Any, depth: int) -> Any:
    if depth >= _MAX_DEPTH:
        msg = f"it has more than {_MAX_DEPTH} levels"
        raise ValueError(msg)
    if isinstance(value, Mapping):
        return {_key(name): canonical_value(each, depth + 1) for name, each in value.items()}
    if isinstance(value, np.ndarray | pd.Series):
        value = value.tolist()
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [canonical_value(each, depth + 1) for each in value]
    msg = f"a value of the type {type(value).__name__} cannot be stored as JSON"
    raise ValueError(msg)


def _canonical_float(value: float) -> float | int:
    if math.isinf(value):
        msg = "an infinite number cannot be stored as JSON"
        raise ValueError(msg)
    return int(value) if value.is_integer() and abs(value) < _MAX_EXACT else value


# How each kind of value is converted.
_SCALARS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    (str, replace_lone_surrogates),
    (float, _canonical_float),
    (date | time, lambda value: value.isoformat()),
    (Decimal | PurePath | UUID | timedelta | pd.Interval, str),
)


def _key(name: Any) -> str:
    if isinstance(name, str):
        return replace_lone_surrogates(name)
    msg = f"the key {name!r:.40} is not a string"
    raise ValueError(msg)
