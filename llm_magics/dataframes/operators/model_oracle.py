"""A model as the oracle: one prompt for each distinct row, never several rows in one prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llm_magics.dataframes.operators.prompt_waves import PromptWaves, SendsWaves
from llm_magics.dataframes.operators.questions import (
    Questions,
    question_prompts,
    read_yes_no,
    statement_texts,
)
from llm_magics.dataframes.operators.remembering_oracle import Answer, RememberingOracle
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.errors import LLMError
from llm_magics.runtime.response import Response

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from pandas import DataFrame

    from llm_magics.dataframes.reports import RowsEstimate


class PromptOracle(SendsWaves, RememberingOracle):
    """
    A model that answers one prompt for each item.

    Answers are cached, so that another run, target or kernel does not pay for them again. In a
    ``with`` block, all calls of `ask` share one line of progress.
    """

    may_fail = True

    def __init__(
        self,
        *,
        items: NDArray[np.int32],
        digests: NDArray[np.void],
        texts: Sequence[str],
        prompt_spec: RowPrompts,
    ) -> None:
        """
        Ask ``texts``, the prompt of each item, as ``prompt_spec`` says.

        Args:
            items, digests: as for `Oracle`.
            texts: the prompt of each item; rendered when it is read.
            prompt_spec: the model, and how to send the prompts.
        """
        super().__init__(items, digests, len(texts))
        self._texts = texts
        self._waves = PromptWaves(prompt_spec)

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name of the model."""
        return self._waves.model

    def expect(self, calls: int) -> None:
        """Set the number of items that may be asked in total, for the progress."""
        self._waves.expected = calls

    def _obtain(self, items: NDArray[np.int32], record: Answer) -> None:
        numbers = items.tolist()

        def receive(number: int, result: Response | LLMError) -> None:
            item = numbers[number]
            self.is_cached[item] = isinstance(result, Response) and result.cached
            record(item, read_yes_no(result))

        try:
            self._waves.send(_Chosen(self._texts, numbers), receive)
        finally:
            waves = self._waves
            self.calls, self.cached, self.cost_usd = waves.calls, waves.cached, waves.cost_usd

    def estimate(self, items: NDArray[np.int32], *, with_stored: bool = False) -> RowsEstimate:
        """Return the estimated cost of asking ``items``; that of many items is based on a sample."""
        texts = _Chosen(self._texts, self.not_asked(items).tolist())
        return self._waves.estimate(texts, with_stored=with_stored)


class ModelOracle(PromptOracle):
    """
    A model that is asked whether a statement is true for each row of a table.

    Attributes:
        statements: the rendered statement of each row.
    """

    def __init__(self, frame: DataFrame, prompt_spec: RowPrompts) -> None:
        """
        Render the questions; nothing is sent.

        Args:
            frame: the rows. Those in which all columns that the statement names are missing have
                no item.
            prompt_spec: the statement as its text, the model, and how to send the prompts.

        Raises:
            UsageError: the statement names no column, or one that does not exist.
            TemplateError: it cannot be rendered.
        """
        self.statements = statements = statement_texts(frame, prompt_spec)
        super().__init__(
            items=statements.codes,
            digests=statements.digests,
            texts=Questions(statements),
            prompt_spec=question_prompts(prompt_spec),
        )


class _Chosen(Sequence[str]):
    """Some of ``texts``, each read when it is needed."""

    def __init__(self, texts: Sequence[str], numbers: Sequence[int]) -> None:
        self._texts = texts
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self._texts[each] for each in self._numbers[number]]
        return self._texts[self._numbers[number]]


def stores_answers(oracle: object, prompt_spec: RowPrompts) -> bool:
    """Return whether the same call later finds the answers of ``oracle`` that it has so far."""
    return isinstance(oracle, PromptOracle) and not prompt_spec.fresh
