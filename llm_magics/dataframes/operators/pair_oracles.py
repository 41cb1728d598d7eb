"""
Oracles about pairs of rows from two tables, for ``join``.

The statement is a template with ``{{ left.text }}`` and ``{{ right["a column"] }}``. A pair is
rendered only when it is asked: until then it is a number, computed from those of its two rows.
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

# The most pairs of rows, whose numbers are int32.
MOST_PAIRS = 2**31 - 1

_NO_ITEMS = np.empty(0, np.int32)
_NO_DIGESTS = np.empty(0, f"V{DIGEST_BYTES}")


class PairTexts(Sequence[str]):
    """
    The prompts about pairs of rows, rendered when they are read.

    The number of a prompt is that of its distinct pair of contents: ``number of the left content *
    number of right contents + number of the right content``.

    Attributes:
        contents: the distinct contents of the rows of the left and of the right table.
    """

    def __init__(self, statement: str, frames: tuple[DataFrame, DataFrame]) -> None:
        """
        Read the contents of the rows; nothing is rendered.

        Args:
            statement: a template with ``left`` and ``right``.
            frames: the left and the right table.

        Raises:
            UsageError: the statement does not name columns of both tables, or columns that do not
                exist; or there are more than 2 billion pairs.
        """
        self._statement = statement
        _check_names(statement)
        left, right = frames
        self.contents = Contents(statement, LEFT, left), Contents(statement, RIGHT, right)
        if len(left) * len(right) > MOST_PAIRS:
            msg = f"The tables have {len(left) * len(right):,} pairs of rows."
            hint = (
                f"The limit is {MOST_PAIRS:,}: join parts of a table, and concatenate the results."
            )
            raise UsageError(msg, hint=hint)

    def __len__(self) -> int:
        return len(self.contents[0]) * len(self.contents[1])

    def items_of(
        self, left: NDArray[np.integer[Any]], right: NDArray[np.integer[Any]]
    ) -> NDArray[np.int32]:
        """Return the number of the prompt of each pair of row positions, or `NO_ITEM`."""
        first, second = self.contents[0].codes[left], self.contents[1].codes[right]
        items = first * np.int32(len(self.contents[1])) + second
        return np.where((first < 0) | (second < 0), np.int32(NO_ITEM), items)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        left, right = self.contents
        first, second = divmod(int(number), len(right))
        values = {LEFT: left.record(first), RIGHT: right.record(second)}
        return QUESTION + templates.render(self._statement, values)


class ModelPairOracle(PromptOracle):
    """
    A model that is asked whether a statement is true for pairs of rows.

    There may be billions of pairs: ``items`` and ``digests`` are empty, and `items_of` returns the
    items of some pairs.
    """

    def __init__(self, frames: tuple[DataFrame, DataFrame], prompt_spec: RowPrompts) -> None:
        """
        Read the contents of the rows; nothing is rendered or sent.

        Args:
            frames: the left and the right table.
            prompt_spec: the statement as its text, the model, and how to send the prompts.

        Raises:
            UsageError: as for `PairTexts`.
        """
        self.texts = PairTexts(prompt_spec.text, frames)
        super().__init__(
            items=_NO_ITEMS,
            digests=_NO_DIGESTS,
            texts=self.texts,
            prompt_spec=question_prompts(prompt_spec),
        )

    def items_of(
        self, left: NDArray[np.integer[Any]], right: NDArray[np.integer[Any]]
    ) -> NDArray[np.int32]:
        """Return the item of each pair of row positions: its distinct content, or `NO_ITEM`."""
        return self.texts.items_of(left, right)


class FunctionPairOracle(RememberingOracle):
    """
    A function of a pair of rows; each pair is a separate item.

    Its argument is a `pandas.Series` with the columns of both tables, named ``left.NAME`` and
    ``right.NAME``. As for `ModelPairOracle`, ``items`` and ``digests`` are empty.
    """

    may_fail = True

    def __init__(
        self, frames: tuple[DataFrame, DataFrame], function: RowFunction, statement: str
    ) -> None:
        """
        Prepare to call ``function``; see `PairTexts` for the other arguments.

        Raises:
            UsageError: as for `PairTexts`.
        """
        self.texts = PairTexts(statement, frames)
        super().__init__(_NO_ITEMS, _NO_DIGESTS, len(frames[0]) * len(frames[1]))
        self.name = function_name(function)
        self._function = function
        self._right_rows = len(frames[1])
        self._values = _row_values(frames[0]), _row_values(frames[1])
        self._names = pd.Index(
            [
                f"{side}.{name}"
                for side, frame in zip((LEFT, RIGHT), frames, strict=True)
                for name in frame.columns
            ]
        )

    def items_of(
        self, left: NDArray[np.integer[Any]], right: NDArray[np.integer[Any]]
    ) -> NDArray[np.int32]:
        """Return the item of each pair of row positions, which is its number, or `NO_ITEM`."""
        items = left.astype(np.int32) * np.int32(self._right_rows) + right.astype(np.int32)
        return np.where(self.texts.items_of(left, right) == NO_ITEM, np.int32(NO_ITEM), items)

    def _obtain(self, items: NDArray[np.int32], record: Answer) -> None:
        left, right = self._values
        for item in items.tolist():
            first, second = divmod(item, self._right_rows)
            row = pd.Series([*left[first], *right[second]], self._names, dtype=object)
            record(item, call_function(self._function, row))
            self.calls += 1

    def estimate(self, items: NDArray[np.int32], *, with_stored: bool = False) -> None:
        """Return ``None``: a function is free, as far as is known."""
        return


# An oracle about pairs.
PairOracle = ModelPairOracle | FunctionPairOracle


def _row_values(frame: DataFrame) -> list[tuple[Any, ...]]:
    """Return the values of each row."""
    columns = [frame.iloc[:, place].tolist() for place in range(frame.shape[1])]
    return list(zip(*columns, strict=True)) if columns else [()] * len(frame)


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


class Contents:
    """
    The distinct contents of the columns that a statement reads from one table.

    Attributes:
        codes: the number of the content of each row; negative if all of the columns are missing.
        digests: a digest of each content, dtype ``V16``.
        names: the columns.
    """

    def __init__(self, statement: str, side: str, frame: DataFrame) -> None:
        known = {str(name): name for name in frame.columns}
        keys = templates.find_row_keys(statement, side)
        self.names = sorted(known if keys is None else map(str, keys))
        for name in self.names:
            if name not in known:
                msg = f'The prompt uses "{side}.{name}", but the {side} DataFrame has no such column.'
                raise UsageError(msg, hint=nearest(name, known))
        columns = {
            f"c{number}": get_column(frame, known[name]) for number, name in enumerate(self.names)
        }
        # With the length before each value, different rows have different texts.
        text = "".join(f"{{{{ ({each}|string)|length }}}}:{{{{ {each} }}}}" for each in columns)
        self._texts = RowTexts(pd.DataFrame(columns), RowPrompts(text=text))
        self.codes = self._texts.codes
        self.digests = self._texts.digests

    def __len__(self) -> int:
        return len(self._texts)

    def values(self, number: int) -> dict[str, Any]:
        """Return the values of a content, by the names of their columns."""
        values = self._texts.values(number)
        return {name: values[f"c{place}"] for place, name in enumerate(self.names)}

    def record(self, number: int) -> _Record:
        """Return a content for a template."""
        return _Record(self.values(number))
