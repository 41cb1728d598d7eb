"""The methods of ``df.llm`` that are operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pandas import DataFrame


class OperatorMethods:
    """Operators over the rows of a DataFrame, for its accessor."""

    _frame: DataFrame
