"""Scores of statements by a model that reads several of them in one prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from llm_magics._util.validation import check_integer
from llm_magics.dataframes.operators.numbered_rows import (
    ROWS_NOTE,
    number_rows,
    pack,
    row_tokens,
)
from llm_magics.dataframes.operators.prompt_waves import PromptWaves
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.errors import LLMError, ParseError, UsageError
from llm_magics.runtime.response import Response

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llm_magics.dataframes.reports import RowsEstimate

_PROMPT = """\
To which degree is each of these statements true, from 0 (not at all) to 100 (completely)? All
have this form, with a text or other data in place of the braces:

{form}

The statements, {note}

{rows}

Answer with the number and the score of each row, as JSON."""

_SCORE: dict[str, Any] = {
    "type": "object",
    "properties": {"row": {"type": "integer"}, "score": {"type": "integer"}},
    "required": ["row", "score"],
    "additionalProperties": False,
}

_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"scores": {"type": "array", "items": _SCORE}},
    "required": ["scores"],
    "additionalProperties": False,
}

_MAX_SCORE = 100

RowsPerPrompt = int | Literal["auto"]

# By default, a prompt has at most this many rows, and rows with at most this many tokens.
_AUTO_ROWS, _AUTO_TOKENS = 10, 3000
_UNLIMITED = 2**62

_LACKING = ParseError("The answer has no score of this row.", hint="Run it again.")


class ModelScores:
    """
    Scores by a model.

    The rows that an answer lacks are sent once more.

    Attributes:
        name, is_new, max_prompts, calls, cached, cost_usd, errors: as of `ItemScores`.
    """

    is_new = True

    def __init__(
        self,
        statements: Sequence[str],
        order: Sequence[int],
        prompt_spec: RowPrompts,
        rows_per_prompt: RowsPerPrompt = "auto",
        *,
        max_repeats: int = 0,
    ) -> None:
        """
        Prepare the prompts; nothing is sent.

        Args:
            statements: the statement of each item.
            order: the order in which the items are packed into prompts: random, so that no
                prompt has similar items only.
            prompt_spec: the template of the statements, the model, and how to send prompts.
            rows_per_prompt: the number of rows in one prompt.
            max_repeats: the maximum number of prompts with rows that answers lack.

        Raises:
            UsageError: ``rows_per_prompt`` is not ``"auto"`` or a positive integer.
        """
        self._statements = statements
        self._form = prompt_spec.text
        self._limits = _limits(rows_per_prompt)
        self._max_repeats = max_repeats
        self._waves = PromptWaves(replace(prompt_spec, schema=_SCHEMA))
        self._scores = np.full(len(statements), np.nan)
        self.errors: dict[int, LLMError] = {}
        self._lacking: list[int] = []
        self._packs = list(self._pack(order))
        self.max_prompts = len(self._packs) + max_repeats

    @property
    def name(self) -> str:
        """The name of the model."""
        return self._waves.model

    @property
    def calls(self) -> int:
        """The number of prompts that were sent and answered."""
        return self._waves.calls

    @property
    def cached(self) -> int:
        """The number of prompts whose answer was stored before."""
        return self._waves.cached

    @property
    def cost_usd(self) -> float | None:
        """The cost in US dollars; ``None`` if unknown."""
        return self._waves.cost_usd

    def estimate(self) -> RowsEstimate:
        """Return the estimated cost, without prompts that have an answer."""
        return self._waves.estimate(self._prompts(self._packs))

    def obtain(self) -> NDArray[np.float64]:
        """Return the score of each item; of one that failed, NaN."""
        with self._waves:
            self._send(self._packs)
            self._send(list(self._pack(self._lacking))[: self._max_repeats])
        return self._scores

    def _pack(self, items: Sequence[int]) -> Iterator[list[int]]:
        """Yield the items of each prompt."""
        max_tokens, max_rows = self._limits
        tokens = [row_tokens(self._statements[item]) for item in items]
        for part in pack(tokens, max_tokens, max_rows):
            yield [items[each] for each in part]

    def _prompts(self, packs: Sequence[Sequence[int]]) -> list[str]:
        return [self._prompt(items) for items in packs]

    def _prompt(self, items: Sequence[int]) -> str:
        rows = number_rows((self._statements[item] for item in items), "statement")
        return _PROMPT.format(form=self._form, note=ROWS_NOTE, rows=rows)

    def _send(self, packs: Sequence[Sequence[int]]) -> None:
        """Send prompts, and store the scores of their items."""

        def receive(number: int, result: Response | LLMError) -> None:
            items = packs[number]
            found = _read(result)
            for row, item in enumerate(items, 1):
                if isinstance(found, LLMError):
                    self.errors[item] = found
                elif row in found:
                    self.errors.pop(item, None)
                    self._scores[item] = found[row]
                else:
                    self.errors[item] = _LACKING
                    self._lacking.append(item)

        self._waves.send(self._prompts(packs), receive)


def _limits(rows_per_prompt: RowsPerPrompt) -> tuple[int, int]:
    """Return the maximum tokens and rows of a prompt."""
    if rows_per_prompt == "auto":
        return _AUTO_TOKENS, _AUTO_ROWS
    if isinstance(rows_per_prompt, str):
        msg = f"Invalid value for rows_per_prompt: {rows_per_prompt!r:.60}."
        raise UsageError(msg, hint='Pass "auto", or an integer.')
    return _UNLIMITED, check_integer("rows_per_prompt", rows_per_prompt)


def _read(result: Response | LLMError) -> dict[int, float] | LLMError:
    """Return the score of each row by its number in the prompt, or the error of the prompt."""
    if isinstance(result, LLMError):
        return result
    try:
        value = result.json()
    except ParseError as error:
        return error
    scores = value.get("scores") if isinstance(value, dict) else None
    found: dict[int, float] = {}
    for each in scores if isinstance(scores, list) else ():
        if isinstance(each, dict) and type(each.get("row")) is int:
            score = each.get("score")
            if isinstance(score, int | float) and 0 <= score <= _MAX_SCORE:
                found.setdefault(each["row"], float(score))
    return found
