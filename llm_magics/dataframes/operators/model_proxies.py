"""Proxies that ask a cheap model: by its confidence in yes, or by its answers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from llm_magics._async.bridge import bridge
from llm_magics.dataframes.classify import can_score_choices
from llm_magics.dataframes.confidence import field_confidences
from llm_magics.dataframes.operators.packed_prompts import PackedPrompts, RowsPerPrompt
from llm_magics.dataframes.operators.packing import YES_NO
from llm_magics.dataframes.operators.prompt_waves import PromptWaves, SendsWaves
from llm_magics.dataframes.operators.proxies import UNKNOWN_SCORE, Proxy
from llm_magics.dataframes.operators.questions import FIELD, YES_NO_SCHEMA, Questions, read_yes_no
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.errors import LLMError, UnsupportedError
from llm_magics.runtime.label_scores import normalise
from llm_magics.runtime.response import Response
from llm_magics.runtime.routing import find_route
from llm_magics.runtime.session import session
from llm_magics.wire.logprobs import MAX_LOGPROBS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llm_magics.dataframes.reports import RowsEstimate
    from llm_magics.dataframes.row_texts import RowTexts

# The answers of a model that scores choices instead of writing one of them.
_TRUE, _FALSE = "true", "false"


class ModelProxy(Proxy):
    """
    Scores by a cheap model. Rows with the same question are asked once.

    `held_out` asks only about the rows of the pilot; `predict` about all others.
    """

    learns = False
    is_paid = True

    def __init__(self, statements: RowTexts, rows: NDArray[np.intp]) -> None:
        """
        Prepare the questions; nothing is sent.

        Args:
            statements: the rendered statement of each row of the table.
            rows: the positions of the rows that have a question.
        """
        self._codes = statements.codes[rows]
        self._scores = np.full(len(statements), np.nan)
        # By their digests, so that prompts about several rows do not depend on the table's order.
        self._order = np.argsort(statements.digests.view("S16"), kind="stable")
        self._asked = 0
        self.errors: dict[int, LLMError] = {}

    @abstractmethod
    def _ask(self, items: Sequence[int]) -> None:
        """Ask about distinct statements, and set ``_scores`` and ``errors``."""

    def predict(self) -> NDArray[np.float64]:
        """Return the score of each row; those without one are asked."""
        self._score(self._items_of(None))
        scores: NDArray[np.float64] = self._scores[self._codes]
        return scores

    def held_out(self, rows: NDArray[np.intp], labels: NDArray[np.int8]) -> NDArray[np.float64]:
        """Return the scores of ``rows``; those without one are asked."""
        self._score(self._items_of(rows))
        scores: NDArray[np.float64] = self._scores[self._codes[rows]]
        return scores

    def _score(self, items: NDArray[np.integer[Any]]) -> None:
        """
        Ask about those of ``items`` that have no score; failed ones get 0.5.

        Raises:
            LLMError: an error that affects all rows, also if all of them fail.
        """
        left = self._unscored(items)
        if not left:
            return
        self._ask(left)
        self._asked += len(left)
        if len(self.errors) == self._asked:
            raise next(iter(self.errors.values()))
        for item in self._unscored(items):
            self._scores[item] = UNKNOWN_SCORE

    def _items_of(self, rows: NDArray[np.intp] | None) -> NDArray[np.integer[Any]]:
        """Return the distinct statements of ``rows``, by default of all."""
        return np.unique(self._codes if rows is None else self._codes[rows])

    def _unscored(self, items: NDArray[np.integer[Any]]) -> list[int]:
        wanted = np.zeros(len(self._scores), np.bool_)
        wanted[items] = True
        found: list[int] = self._order[(wanted & np.isnan(self._scores))[self._order]].tolist()
        return found


class ModelConfidence(SendsWaves, ModelProxy):
    """
    The probability of yes, by the log probabilities of a cheap model's answers.

    A model that can score choices is not asked for an answer.
    """

    def __init__(
        self, statements: RowTexts, rows: NDArray[np.intp], prompt_spec: RowPrompts
    ) -> None:
        """
        Prepare the questions; nothing is sent.

        Args:
            statements, rows: as for `ModelProxy`.
            prompt_spec: the model, and how to send the prompts.
        """
        super().__init__(statements, rows)
        self._questions = Questions(statements)
        self._scores_choices = can_score_choices(prompt_spec.model)
        spec = replace(prompt_spec, schema=YES_NO_SCHEMA)
        parameters = {"logprobs": MAX_LOGPROBS, **spec.parameters}
        if self._scores_choices:
            spec = replace(spec, choices=(_TRUE, _FALSE))
            parameters = {**spec.parameters, "choices": spec.choices}
        self._waves = PromptWaves(spec, parameters)
        self.name = f"the confidence of {self._waves.model}"

    def _ask(self, items: Sequence[int]) -> None:
        # A model without log probabilities is found out by the first answer.
        first = [] if self._asked else items[:1]
        try:
            self._send(first)
            for error in self.errors.values():
                if isinstance(error, UnsupportedError):
                    raise error
            self._send(items[len(first) :])
        finally:
            self.calls, self.cost_usd = self._waves.calls, self._waves.cost_usd

    def _send(self, items: Sequence[int]) -> None:
        def receive(number: int, result: Response | LLMError) -> None:
            score = self._read(result)
            if isinstance(score, LLMError):
                self.errors[items[number]] = score
            else:
                self._scores[items[number]] = score

        self._waves.send([self._questions[item] for item in items], receive)

    def _read(self, result: Response | LLMError) -> float | LLMError:
        """Return the probability of yes; 1 or 0 if it cannot be found in the answer."""
        if isinstance(result, LLMError):
            return result
        if self._scores_choices:
            (scored,) = result.token_logprobs
            return normalise({each.token: each.logprob for each in scored.top})[_TRUE]
        answer = read_yes_no(result)
        if isinstance(answer, LLMError):
            return answer
        confidence = field_confidences(result, YES_NO_SCHEMA["properties"]).get(FIELD, 1.0)
        return confidence if answer else 1 - confidence

    def estimate(
        self, rows: NDArray[np.intp] | None = None, *, with_stored: bool = False
    ) -> RowsEstimate:
        """Return the estimated cost of scoring those of ``rows`` that have no score."""
        left = self._unscored(self._items_of(rows))
        texts = [self._questions[item] for item in left]
        return self._waves.estimate(texts, with_stored=with_stored)


class ModelAnswers(ModelProxy):
    """The answers of a cheap model, several rows in one prompt: 1 for yes, 0 for no."""

    def __init__(
        self,
        statements: RowTexts,
        rows: NDArray[np.intp],
        prompt_spec: RowPrompts,
        *,
        rows_per_prompt: RowsPerPrompt = "auto",
    ) -> None:
        """
        Prepare the questions; nothing is sent.

        Args:
            statements, rows: as for `ModelProxy`.
            prompt_spec: the model, and how to send the prompts.
            rows_per_prompt: as for `PackedPrompts`.

        Raises:
            UsageError: ``rows_per_prompt`` is invalid.
        """
        super().__init__(statements, rows)
        self._prompts = PackedPrompts(
            statements, YES_NO, prompt_spec, rows_per_prompt=rows_per_prompt
        )
        self.name = f"the answers of {self._prompts.model}"

    def __enter__(self) -> Self:
        self._prompts.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._prompts.__exit__(kind, error, traceback)

    def _ask(self, items: Sequence[int]) -> None:
        try:
            answers = self._prompts.ask(items)
        finally:
            self.calls, self.cost_usd = self._prompts.calls, self._prompts.cost_usd
        self.errors |= self._prompts.errors
        for item, answer in zip(items, answers, strict=True):
            if answer is not None:
                self._scores[item] = float(answer)

    def estimate(
        self, rows: NDArray[np.intp] | None = None, *, with_stored: bool = False
    ) -> RowsEstimate:
        """Return the estimated cost of scoring those of ``rows`` that have no score."""
        left = self._unscored(self._items_of(rows))
        return self._prompts.estimate(left, with_stored=with_stored)


def may_have_confidence(model: str) -> bool:
    """Return whether ``model`` can score choices, or its service may return log probabilities."""
    if can_score_choices(model):
        return True
    try:
        route = bridge.run(find_route(session, model))
    except LLMError:  # raised again when the prompts are sent
        return False
    return "logprobs" in route.provider.capabilities
