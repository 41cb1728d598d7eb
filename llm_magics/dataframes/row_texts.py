"""The texts of the prompts of rows, rendered when they are read."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llm_magics.dataframes.row_attachments import AttachedText
from llm_magics.dataframes.row_prompts import ROW, RowPrompts, prompt_columns
from llm_magics.dataframes.rows import TEXT, get_column
from llm_magics.errors import UsageError
from llm_magics.runtime.prompts import templates

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame, Series

# The code of a row without a prompt.
NO_PROMPT = -1

# The "row" of a text that belongs to no row.
_NEUTRAL = -1

# The number of rows whose values are Python objects at the same time.
_SLICE = 8192

# The characters of the texts that are held in memory. Longer texts are rendered again.
HELD_CHARACTERS = 2_000_000

_DIGEST_BYTES = 16


class RowTexts(Sequence[str]):
    """
    The distinct texts of the prompts for the rows of a DataFrame.

    Many texts are not held in memory: each is rendered again from the first of its rows.

    Attributes:
        codes: the number of each row's text, or `NO_PROMPT`.
        neutral_count: the number of the texts at the beginning that belong to no row.
    """

    def __init__(self, frame: DataFrame, spec: RowPrompts) -> None:
        """
        Render the texts.

        Raises:
            UsageError: the prompt names a column that does not exist.
            TemplateError: the prompt cannot be rendered.
        """
        self._frame = frame
        self._spec = spec
        names = prompt_columns(frame, spec)
        self._names = [str(name) for name in names]
        self._columns = [get_column(frame, name) for name in names]
        # They are first, so that the rows before an interrupt can be calibrated.
        neutral = [templates.render(spec.text, {TEXT: each}) for each in spec.neutral]
        self._neutral = list(dict.fromkeys(neutral))
        self.neutral_count = len(self._neutral)
        self._held: list[str] | None = []
        # Of each text, the row it is rendered from, and a digest.
        self._rows = np.empty(0, np.int32)
        self._digests = b""
        self.codes: NDArray[np.int32]
        if spec.attachments is not None and spec.attachments.columns:
            self.codes = self._encode_attached()
        else:
            self.codes = self._encode()
        if (self.codes < 0).all():  # nothing to calibrate
            self._rows, self._held, self._digests = self._rows[:0], [], b""

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        if self._held is not None:
            return self._held[number]
        number = range(len(self))[number]
        row = self._rows[number]
        text = self._neutral[number] if row == _NEUTRAL else self._render(self._values_of(row))
        start = number * _DIGEST_BYTES
        if _digest(text) != self._digests[start : start + _DIGEST_BYTES]:
            msg = "The prompt of a row has changed since the call began."
            hint = "Do not change the DataFrame meanwhile, and use no random values in a prompt."
            raise UsageError(msg, hint=hint)
        return text

    @property
    def digests(self) -> NDArray[np.void]:
        """A digest of each text, dtype ``V16``; of texts without attachments."""
        return np.frombuffer(self._digests, f"V{_DIGEST_BYTES}")

    def values(self, number: int) -> dict[str, Any]:
        """Return the values that a text is rendered from, by the names of their columns."""
        values = self._values_of(self._rows[number])
        return {name: "" if _is_missing(value) else value for name, value in values.items()}

    def _encode(self) -> NDArray[np.int32]:
        """Find the distinct texts; return the number of each row's text."""
        found = _Found(self._neutral)
        are_comparable = all(map(_is_comparable, self._columns))
        codes = array("i")
        for row, values in enumerate(self._values(self._columns)):
            if row % _SLICE == 0:
                latest: dict[tuple[Any, ...], int] = {}  # because a lookup here is faster
            number = latest.get(values) if are_comparable else None
            if number is None:
                key = _digest_values(values) if are_comparable else b""
                number = found.known.get(key)
                if number is None:
                    text = self._render(dict(zip(self._names, values, strict=True)))
                    number = found.number_of(text, row, key)
                if are_comparable:
                    latest[values] = number
            codes.append(number)
        self._rows, self._held, self._digests, ranks = found.distinct()
        numbers = np.frombuffer(codes, np.int32)
        for start in range(0, len(numbers), _SLICE):
            part = numbers[start : start + _SLICE]
            part[part >= 0] = ranks[part[part >= 0]]
        return numbers

    def _encode_attached(self) -> NDArray[np.int32]:
        """As `_encode`, for rows with attachments: equal texts may have different ones."""
        numbers: dict[str, int] = {}
        codes = np.full(len(self._frame), NO_PROMPT, np.int32)
        values = self._values(self._columns)
        for row, (each, files) in enumerate(zip(values, self._attached(), strict=True)):
            text = self._render(dict(zip(self._names, each, strict=True)))
            if files and text.strip():  # a row without the files that it should have is missing
                codes[row] = numbers.setdefault(AttachedText(text, files), len(numbers))
        self._held = list(numbers)
        self._rows = np.arange(len(numbers), dtype=np.int32)
        return codes

    def _attached(self) -> Iterator[tuple[Any, ...]]:
        """Yield the attachments of each row."""
        attachments = self._spec.attachments
        assert attachments is not None
        known = {str(name): name for name in self._frame.columns}
        attachments.check_columns(known)
        columns = [get_column(self._frame, known[name]) for name in attachments.columns]
        for label, row in zip(self._frame.index, self._values(columns), strict=True):
            yield attachments.of_row(row, label)

    def _values(self, columns: Sequence[Any]) -> Iterator[tuple[Any, ...]]:
        """Yield the values of ``columns`` row by row; only a part of them are in memory."""
        count = len(self._frame)
        if not columns:
            yield from repeat((), count)
        for start in range(0, count if columns else 0, _SLICE):
            part = slice(start, start + _SLICE)
            yield from zip(*(column.iloc[part].tolist() for column in columns), strict=True)

    def _values_of(self, row: np.int32) -> dict[str, Any]:
        return {
            name: _plain(column.array[row], column.dtype)
            for name, column in zip(self._names, self._columns, strict=True)
        }

    def _render(self, row: dict[str, Any]) -> str:
        """Return the text for a row; without one, if all its columns are missing, it is empty."""
        if row and all(_is_missing(value) for value in row.values()):
            return ""
        values = {name: "" if _is_missing(value) else value for name, value in row.items()}
        return templates.render(self._spec.text, {ROW: values, **values})


class _Found:
    """
    The texts that are found while the rows are read; equal ones may occur several times.

    Attributes:
        known: the number of the text for rows with certain values, by a digest of these.
    """

    def __init__(self, neutral: Sequence[str]) -> None:
        self.known: dict[bytes, int] = {}
        self._rows = array("i")
        self._digests = bytearray()
        self._held: list[str] = []
        self._characters = 0
        for text in neutral:
            self._add(text, _NEUTRAL)

    def number_of(self, text: str, row: int, key: bytes = b"") -> int:
        """Return the number of a row's text; without a ``key``, equal texts have one number."""
        key = key or _digest(text)
        number = self.known.get(key)
        if number is None:
            number = self._add(text, row) if text.strip() else NO_PROMPT
            self.known[key] = number
        return number

    def _add(self, text: str, row: int) -> int:
        self._rows.append(row)
        self._digests += _digest(text)
        self._characters += len(text)
        if self._characters <= HELD_CHARACTERS:
            self._held.append(text)
        else:
            self._held.clear()
        return len(self._rows) - 1

    def distinct(self) -> tuple[NDArray[np.int32], list[str] | None, bytes, NDArray[np.int32]]:
        """
        Return the distinct texts in the order of their first occurrence.

        Returns:
            the row of each; the texts themselves, if they are few; their digests; and for each
            number its place among them.
        """
        self.known.clear()
        digests = np.frombuffer(self._digests, f"V{_DIGEST_BYTES}")
        _, first, inverse = np.unique(digests, return_index=True, return_inverse=True)
        order = np.argsort(first)
        ranks = np.empty(len(order), np.int32)
        ranks[order] = np.arange(len(order), dtype=np.int32)
        order = first[order]
        is_held = self._characters <= HELD_CHARACTERS
        held = [self._held[each] for each in order] if is_held else None
        rows = np.frombuffer(self._rows, np.int32)[order]
        return rows, held, digests[order].tobytes(), ranks[inverse]


def _plain(value: Any, dtype: Any) -> Any:
    """Return ``value`` of a column as its ``tolist`` does: as a Python object."""
    return value.item() if isinstance(value, np.generic) and dtype != "object" else value


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).digest()


def _is_comparable(column: Series[Any]) -> bool:
    """Return whether equal values in ``column`` are always rendered equally, unlike 1 and True."""
    dtype = column.dtype
    if dtype == "object":
        return pd.api.types.infer_dtype(column, skipna=True) in ("string", "empty")
    is_plain = pd.api.types.is_integer_dtype(dtype) or pd.api.types.is_bool_dtype(dtype)
    return is_plain or isinstance(dtype, pd.StringDtype)


def _digest_values(values: Sequence[Any]) -> bytes:
    """Return a digest of texts, integers and booleans, in which missing and blank values are equal."""
    texts = ["" if _is_missing(value) else str(value) for value in values]
    return _digest("".join([f"{len(text)}:{text}" for text in texts]))


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))
