"""
Oracles about pairs of rows from two tables, for ``join``.

The statement is a template with ``{{ left.text }}`` and ``{{ right["a column"] }}``. A pair is
rendered only when it is asked: its digest is computed from those of its two rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from llm_magics.dataframes.operators.known_oracles import (
    RowFunction,
    call_function,
    function_name,
)
from llm_magics.dataframes.operators.model_oracle import PromptOracle
from llm_magics.dataframes.operators.oracle import DIGEST_BYTES, NO_ITEM
from llm_magics.dataframes.operators.questions import QUESTION, question_prompts
from llm_magics.dataframes.operators.remembering_oracle import Answer, RememberingOracle
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.dataframes.row_texts import RowTexts
from llm_magics.dataframes.rows import get_column
from llm_magics.errors import UsageError, nearest
from llm_magics.runtime.prompts import templates

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

LEFT, RIGHT = "left", "right"

# Odd factors of the digests' halves. They differ, so that the pairs (a, b) and (b, a) differ.
_FACTORS = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93], np.uint64
)


class PairTexts(Sequence[str]):
    """
    The prompts about pairs of rows, rendered when they are read.

    Attributes:
        left_codes, right_codes: the number of the content of each row, of the columns that the
            statement names; negative if all of them are missing.
        items: the item of each pair: its distinct content, or `NO_ITEM`.
        digests: a digest of each item.
    """

    def __init__(
        self,
        statement: str,
        frames: tuple[DataFrame, DataFrame],
        rows: tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]],
    ) -> None:
        """
        Find the distinct pairs; nothing is rendered.

        Args:
            statement: a template with ``left`` and ``right``.
            frames: the left and the right table.
            rows: the positions of the left and of the right row of each pair.

        Raises:
            UsageError: the statement does not name columns of both tables, or columns that do not
                exist.
        """
        self._statement = statement
        _check_names(statement)
        left, right = (
            _Contents(statement, side, frame)
            for side, frame in zip((LEFT, RIGHT), frames, strict=True)
        )
        self._contents = left, right
        self.left_codes, self.right_codes = left.codes, right.codes
        first, second = left.codes[rows[0]], right.codes[rows[1]]
        is_pair = (first >= 0) & (second >= 0)
        keys = first[is_pair].astype(np.int64) * max(1, len(right)) + second[is_pair]
        distinct, inverse = np.unique(keys, return_inverse=True)
        self.items = np.full(len(is_pair), NO_ITEM, np.int32)
        self.items[is_pair] = inverse
        self._left, self._right = np.divmod(distinct, max(1, len(right)))
        self.digests = _combine(left.digests[self._left], right.digests[self._right])

    def __len__(self) -> int:
        return len(self._left)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        left, right = self._contents
        values = {
            LEFT: left.record(int(self._left[number])),
            RIGHT: right.record(int(self._right[number])),
        }
        return QUESTION + templates.render(self._statement, values)


class ModelPairOracle(PromptOracle):
    """A model that is asked whether a statement is true for pairs of rows."""

    def __init__(
        self,
        frames: tuple[DataFrame, DataFrame],
        rows: tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]],
        prompt_spec: RowPrompts,
    ) -> None:
        """
        Find the distinct pairs; nothing is rendered or sent.

        Args:
            frames, rows: as for `PairTexts`; ``items`` has the item of each of these pairs.
            prompt_spec: the statement as its text, the model, and how to send the prompts.

        Raises:
            UsageError: as for `PairTexts`.
        """
        texts = PairTexts(prompt_spec.text, frames, rows)
        super().__init__(
            items=texts.items,
            digests=texts.digests,
            texts=texts,
            prompt_spec=question_prompts(prompt_spec),
        )


class FunctionPairOracle(RememberingOracle):
    """
    A function of a pair of rows; each pair is an item of its own.

    Its argument is a `pandas.Series` with the columns of both tables, named ``left.NAME`` and
    ``right.NAME``.
    """

    may_fail = True

    def __init__(
        self,
        frames: tuple[DataFrame, DataFrame],
        rows: tuple[NDArray[np.integer[Any]], NDArray[np.integer[Any]]],
        *,
        function: RowFunction,
        statement: str,
    ) -> None:
        """
        Prepare to call ``function``; see `PairTexts` for the other arguments.

        Raises:
            UsageError: as for `PairTexts`.
        """
        texts = PairTexts(statement, frames, rows)
        pairs = np.flatnonzero(texts.items >= 0)
        items = np.full(len(texts.items), NO_ITEM, np.int32)
        items[pairs] = np.arange(len(pairs), dtype=np.int32)
        super().__init__(items, texts.digests[texts.items[pairs]])
        self.name = function_name(function)
        self._function = function
        self._frames = frames
        self._rows = rows[0][pairs], rows[1][pairs]
        self._names = [
            f"{side}.{name}"
            for side, frame in zip((LEFT, RIGHT), frames, strict=True)
            for name in frame.columns
        ]

    def _obtain(self, items: NDArray[np.int32], record: Answer) -> None:
        left, right = self._frames
        for item in items.tolist():
            first, second = (rows[item] for rows in self._rows)
            values = [*left.iloc[first].tolist(), *right.iloc[second].tolist()]
            row = pd.Series(values, self._names, dtype=object)
            record(item, call_function(self._function, row))
            self.calls += 1

    def estimate(self, items: NDArray[np.int32]) -> None:
        """Return ``None``: a function is free, as far as is known."""
        return


class _Record:
    """
    A row in a template: ``left.name``, ``left["a name"]``, or all of it as ``left``.

    It has no public attributes, which would hide columns of the same names.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __str__(self) -> str:
        return "\n".join(f"{name}: {value}" for name, value in self._values.items())


def _check_names(statement: str) -> None:
    names = templates.find_names(statement)
    unknown = names - {LEFT, RIGHT}
    missing = {LEFT, RIGHT} - names
    hint = 'Write: "{{ left.text }} is answered by {{ right.text }}"'
    if unknown:
        msg = f'The prompt uses "{min(unknown)}", which is neither left nor right.'
        raise UsageError(msg, hint=hint)
    if missing:
        templates.render(statement, {LEFT: _Anything(), RIGHT: _Anything()})  # a syntax error
        raise UsageError(f"The prompt does not use the {min(missing)} row.", hint=hint)


class _Anything:
    """A row with any column, all of them empty."""

    def __getitem__(self, name: str) -> str:
        return ""


class _Contents:
    """The distinct contents of the columns that a statement reads from one table."""

    def __init__(self, statement: str, side: str, frame: DataFrame) -> None:
        known = {str(name): name for name in frame.columns}
        keys = templates.find_row_keys(statement, side)
        self._names = sorted(known if keys is None else map(str, keys))
        for name in self._names:
            if name not in known:
                msg = f'The prompt uses "{side}.{name}", but the {side} DataFrame has no such column.'
                raise UsageError(msg, hint=nearest(name, known))
        columns = {
            f"c{number}": get_column(frame, known[name]) for number, name in enumerate(self._names)
        }
        # With the length before each value, different rows have different texts.
        text = "".join(f"{{{{ ({each}|string)|length }}}}:{{{{ {each} }}}}" for each in columns)
        self._texts = RowTexts(pd.DataFrame(columns), RowPrompts(text=text))
        self.codes = self._texts.codes
        self.digests = self._texts.digests

    def __len__(self) -> int:
        return len(self._texts)

    def record(self, number: int) -> _Record:
        """Return the values of a content for a template."""
        values = self._texts.values(number)
        return _Record({name: values[f"c{place}"] for place, name in enumerate(self._names)})


def _combine(left: NDArray[np.void], right: NDArray[np.void]) -> NDArray[np.void]:
    """Return a digest of each pair of digests, which are uniformly distributed."""
    first = np.ascontiguousarray(left).view("<u8").reshape(-1, 2)
    second = np.ascontiguousarray(right).view("<u8").reshape(-1, 2)
    mixed = first * _FACTORS[:2] + second * _FACTORS[2:]
    return np.ascontiguousarray(mixed).view(f"V{DIGEST_BYTES}").reshape(-1)
