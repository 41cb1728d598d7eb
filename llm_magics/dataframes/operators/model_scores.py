"""Scores of statements by a model that reads several of them in one prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from llm_magics.dataframes.operators.packed_prompts import PackedPrompts, RowsPerPrompt
from llm_magics.dataframes.operators.packing import DEGREE
from llm_magics.dataframes.operators.packing_check import SIZES
from llm_magics.dataframes.row_prompts import RowPrompts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llm_magics.dataframes.operators.packing_check import PackingCheck
    from llm_magics.dataframes.reports import RowsEstimate
    from llm_magics.errors import LLMError


class ModelScores:
    """
    The degree to which each statement is true, from 0 to 100, by a model.

    Attributes:
        is_new: true; see `ItemScores`.
        errors: the error of each item without a score.
    """

    is_new = True

    def __init__(
        self,
        statements: Sequence[str],
        order: Sequence[int],
        *,
        prompt_spec: RowPrompts,
        rows_per_prompt: RowsPerPrompt = "auto",
        max_extra: int,
    ) -> None:
        """
        Prepare the prompts; nothing is sent.

        Args:
            statements: the statement of each item.
            order: the items in the order in which they are packed into prompts. It is random, so
                that the rows of a prompt differ even in a sorted table.
            prompt_spec: the model, and how to send the prompts.
            rows_per_prompt: the most rows in one prompt.
            max_extra: the most prompts in addition to one for each pack of rows.

        Raises:
            UsageError: ``rows_per_prompt`` is not ``"auto"`` or a positive integer.
        """
        self._order = order
        self._packed = PackedPrompts(
            statements,
            DEGREE,
            prompt_spec,
            rows_per_prompt=rows_per_prompt,
            max_extra=max_extra,
        )

    @property
    def name(self) -> str:
        """The name of the model."""
        return self._packed.model

    @property
    def calls(self) -> int:
        """The number of prompts that were sent and answered."""
        return self._packed.calls

    @property
    def cached(self) -> int:
        """The number of prompts whose answer was stored before."""
        return self._packed.cached

    @property
    def cost_usd(self) -> float | None:
        """The cost of ``calls`` in US dollars; ``None`` if unknown."""
        return self._packed.cost_usd

    @property
    def errors(self) -> dict[int, LLMError]:
        """The error of each item without a score."""
        return self._packed.errors

    @property
    def packing(self) -> PackingCheck | None:
        """The check of the rows in one prompt."""
        return self._packed.check

    def estimate(self) -> RowsEstimate:
        """
        Return the estimated cost, without prompts that have an answer.

        With ``rows_per_prompt="auto"`` and without a stored check, it assumes the largest packs.
        """
        self._packed.check_stored(self._order)
        return self._packed.estimate(self._order)

    def check_packing(self) -> bool:
        """Do the check of the rows in one prompt; return whether fewer fit than was estimated."""
        is_open = self._packed.rows_per_prompt == "auto"
        return self._packed.choose_size(self._order) < SIZES[0] and is_open

    def obtain(self) -> NDArray[np.float64]:
        """Return the score of each item; of one that failed, NaN."""
        found = self._packed.ask(self._order)
        scores = np.full(len(self._order), np.nan)
        scores[self._order] = [np.nan if each is None else float(each) for each in found]
        return scores
