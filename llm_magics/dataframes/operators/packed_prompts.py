"""Answers about rows, several rows in one prompt: for proxies, scores and summaries, not oracles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from llm_magics._util.validation import check_integer
from llm_magics.dataframes.operators.consent import add_estimates
from llm_magics.dataframes.operators.packing import (
    RowQuestion,
    alone_schema,
    pack_prompt,
    pack_schema,
    read_alone,
    read_pack,
)
from llm_magics.dataframes.operators.packing_check import (
    FEWEST_ROWS,
    SAMPLE,
    SIZES,
    PackingCheck,
    check_sizes,
)
from llm_magics.dataframes.operators.prompt_waves import PromptWaves, SendsWaves
from llm_magics.dataframes.operators.row_packs import usable_tokens
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.errors import LLMError, ParseError, UsageError, abbreviate
from llm_magics.runtime.answer_bounds import schema_tokens, text_tokens
from llm_magics.runtime.response import Response

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llm_magics.dataframes.reports import RowsEstimate

RowsPerPrompt = int | Literal["auto"]


class PackedPrompts(SendsWaves):
    """
    A question about many rows, asked about several of them in one prompt.

    A row that has no answer of its own in the answer to its prompt, or several, is asked again
    alone; so are all rows of a prompt that fails. Answers are cached by prompt: the same rows in
    the same order are not paid for twice. In a ``with`` block, all calls share one line of progress.

    Attributes:
        errors: the error of each row that failed, also when it was asked alone.
        check: the result of the check of ``rows_per_prompt="auto"``; ``None`` without one.
    """

    def __init__(
        self,
        texts: Sequence[str],
        question: RowQuestion,
        prompt_spec: RowPrompts,
        *,
        rows_per_prompt: RowsPerPrompt = "auto",
        max_extra: int | None = None,
    ) -> None:
        """
        Prepare the prompts; nothing is sent.

        Args:
            texts: the text of each row, read when it is needed. Equal texts are different rows.
            question: what to ask about each row.
            prompt_spec: the model, and how to send the prompts; its text is not used.
            rows_per_prompt: the most rows in one prompt. With ``"auto"``, the first rows are asked
                alone and together, and rows are packed if the answers are the same.
            max_extra: the most prompts in addition to one for each pack: those of the check, and of rows
                that are asked again alone. Other rows without an answer fail. By default, there is
                no limit.

        Raises:
            UsageError: ``rows_per_prompt`` is neither a positive integer nor ``"auto"``.
        """
        check_rows_per_prompt(rows_per_prompt)
        self._texts = texts
        self._question = question
        self._alone_schema = alone_schema(question)
        self._waves = PromptWaves(replace(prompt_spec, schema=self._alone_schema))
        self._size = rows_per_prompt
        self._extra_left = max_extra
        if rows_per_prompt == "auto" and len(texts) < FEWEST_ROWS:
            self._size = 1
        self._answers: dict[int, Any] = {}
        self._most_tokens: int | None = None
        self.errors: dict[int, LLMError] = {}
        self.check: PackingCheck | None = None

    @property
    def model(self) -> str:
        """The name of the model."""
        return self._waves.model

    @property
    def rows_per_prompt(self) -> RowsPerPrompt:
        """The most rows in one prompt; ``"auto"`` before the check."""
        return self._size

    @property
    def calls(self) -> int:
        """The number of prompts that were sent and answered, with those of the check."""
        return self._waves.calls

    @property
    def cached(self) -> int:
        """The number of prompts whose answer was stored before."""
        return self._waves.cached

    @property
    def cost_usd(self) -> float | None:
        """The cost of the calls in US dollars; ``None`` if unknown."""
        return self._waves.cost_usd

    def ask(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> list[Any]:
        """
        Return the answer for each of ``rows``; ``None`` for a row that failed.

        Rows are packed in the given order, and each is asked once.

        Raises:
            LLMError: an error that affects all prompts.
            KeyboardInterrupt: the user interrupted the call; the answers so far are stored.
        """
        wanted = np.asarray(rows, np.intp).tolist()
        with self:
            size = self.choose_size(wanted)
            packs = self._packs(self._left(wanted), size)
            self._ask_packed([pack for pack in packs if len(pack) > 1], size, self._answers)
            self._ask_alone([pack[0] for pack in packs if len(pack) == 1])
            self._ask_alone(self._repeated(self._left(wanted)))
        return [self._answers.get(row) for row in wanted]

    def choose_size(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> int:
        """
        Return the most rows in one prompt; do the check of ``rows_per_prompt="auto"`` before.

        ``rows`` are those that will be asked.
        """
        if self._size == "auto":
            sample = self._sample(np.asarray(rows, np.intp).tolist())
            with self:
                self._size = self._check_sizes(sample, partial(self._ask_sample, sample))
        return int(self._size)

    def check_stored(self, rows: Sequence[int] | NDArray[np.integer[Any]]) -> None:
        """
        Do the check of ``rows_per_prompt="auto"`` if all of its answers are stored.

        Then the estimate of ``rows`` is that of the prompts that `ask` will send.
        """
        sample = self._sample(np.asarray(rows, np.intp).tolist()) if self._size == "auto" else []
        if not sample or self._waves.estimate(self._alone(sample)).prompts:
            return

        def ask_packed(size: int) -> list[Any]:
            if self._estimate_packs(self._packs(sample, size), size).prompts:
                raise _NotStored
            return self._ask_sample(sample, size)

        with suppress(_NotStored):
            self._size = self._check_sizes(sample, ask_packed)

    def estimate(
        self, rows: Sequence[int] | NDArray[np.integer[Any]], *, with_stored: bool = False
    ) -> RowsEstimate:
        """
        Return the estimated cost of asking ``rows``.

        Before the check, this is the check, and the other rows in prompts of 20 rows. Stored
        answers are free, unless ``with_stored``.
        """
        left = self._left(np.asarray(rows, np.intp).tolist())
        if self._size != "auto":
            packs = self._packs(left, self._size)
            estimate = self._estimate_packs(packs, self._size, with_stored=with_stored)
            return replace(estimate, rows=len(left))
        sample, size = self._sample(left), SIZES[0]
        others = [row for row in left if row not in set(sample)]
        packs = self._packs(sample, size) + self._packs(others, size)
        alone = self._waves.estimate(self._alone(sample), with_stored=with_stored)
        together = self._estimate_packs(packs, size, with_stored=with_stored)
        return replace(add_estimates(alone, together), rows=len(left))

    def _estimate_packs(
        self, packs: Sequence[Sequence[int]], size: int, *, with_stored: bool = False
    ) -> RowsEstimate:
        """Return the estimated cost of prompts about each of ``packs``."""
        single = [pack[0] for pack in packs if len(pack) == 1]
        alone = self._waves.estimate(self._alone(single), with_stored=with_stored)
        texts = _Rendered([pack for pack in packs if len(pack) > 1], self._pack_text)
        schema = pack_schema(self._question, size)
        together = self._waves.estimate(texts, schema, with_stored=with_stored)
        return add_estimates(alone, together)

    def _left(self, rows: Sequence[int]) -> list[int]:
        """Return those of ``rows`` that were not asked, each once."""
        return [
            row
            for row in dict.fromkeys(rows)
            if row not in self._answers and row not in self.errors
        ]

    def _repeated(self, rows: list[int]) -> list[int]:
        """Return those of ``rows``, which have no answer, that are asked alone; others fail."""
        if self._extra_left is None:
            return rows
        hint = "Run it again with fewer rows_per_prompt."
        lost = ParseError("The answer to several rows lacks this one.", hint=hint)
        repeated = rows[: max(0, self._extra_left)]
        self.errors |= dict.fromkeys(rows[len(repeated) :], lost)
        self._extra_left -= len(repeated)
        return repeated

    def _sample(self, rows: Sequence[int]) -> list[int]:
        """Return the rows of the check."""
        spread = np.linspace(0, len(self._texts) - 1, 2 * SAMPLE).astype(int).tolist()
        return list(dict.fromkeys([*rows[:SAMPLE], *spread]))[:SAMPLE]

    def _check_sizes(
        self, sample: Sequence[int], ask_packed: Callable[[int], Sequence[Any]]
    ) -> int:
        """Ask ``sample`` alone, and packed by ``ask_packed``; return the rows in a prompt."""
        self._ask_alone(self._left(sample))
        alone = [self._answers.get(row) for row in sample]
        self.check = check_sizes(alone, ask_packed, self._question.is_same, self._extra_left)
        if self._extra_left is not None:
            self._extra_left -= self.check.extra_prompts
        return self.check.rows_per_prompt

    def _ask_sample(self, sample: Sequence[int], size: int) -> list[Any]:
        """Return the answers to the sample in prompts of ``size`` rows."""
        answers: dict[int, Any] = {}
        packs = self._packs(sample, size)
        self._ask_packed([pack for pack in packs if len(pack) > 1], size, answers)
        return [answers.get(row) for row in sample]

    def _ask_packed(
        self, packs: Sequence[Sequence[int]], size: int, answers: dict[int, Any]
    ) -> None:
        """Ask each of ``packs`` in a prompt; put the valid answers into ``answers``."""

        def receive(number: int, result: Response | LLMError) -> None:
            pack = packs[number]
            for place, answer in self._read_pack(pack, result).items():
                answers[pack[place]] = answer

        schema = pack_schema(self._question, size)
        self._waves.send(_Rendered(packs, self._pack_text), receive, schema)

    def _read_pack(self, pack: Sequence[int], result: Response | LLMError) -> dict[int, Any]:
        if isinstance(result, ParseError) and result.partial is not None:
            result = result.partial  # some of its rows may have an answer
        if isinstance(result, LLMError):
            return {}
        try:
            value = result.json()
        except LLMError:
            return {}
        return read_pack(self._question, [self._texts[row] for row in pack], value)

    def _ask_alone(self, rows: Sequence[int]) -> None:
        def receive(number: int, result: Response | LLMError) -> None:
            row = rows[number]
            if isinstance(result, LLMError):
                self.errors[row] = result
                return
            try:
                self._answers[row] = read_alone(self._question, result.json())
            except LLMError as error:
                self.errors[row] = error

        self._waves.send(self._alone(rows), receive)

    def _alone(self, rows: Sequence[int]) -> Sequence[str]:
        """Return the prompts that ask each of ``rows`` alone."""
        return _Rendered(rows, lambda row: self._question.alone + self._texts[row])

    def _packs(self, rows: Sequence[int], size: int) -> list[list[int]]:
        """Divide ``rows`` into packs of at most ``size`` that fit into the context."""
        if size == 1:
            return [[row] for row in rows]
        most = self._context_tokens()
        answer = (schema_tokens(self._question.answer) or 0) + 12  # with its id
        packs: list[list[int]] = []
        used = most
        for row in rows:
            tokens = text_tokens(self._texts[row]) + 2 * answer
            if used + tokens > most or len(packs[-1]) == size:
                packs.append([])
                used = 0
            packs[-1].append(row)
            used += tokens
        return packs

    def _context_tokens(self) -> int:
        """Return the tokens that the rows of a prompt and its answers may have."""
        if self._most_tokens is None:
            self._most_tokens = usable_tokens(self.model)
        return self._most_tokens

    def _pack_text(self, pack: Sequence[int]) -> str:
        return pack_prompt(self._question, [self._texts[row] for row in pack])


def check_rows_per_prompt(value: Any) -> None:
    """
    Check a value of ``rows_per_prompt``.

    Raises:
        UsageError: it is neither a positive integer nor ``"auto"``.
    """
    if isinstance(value, str) and value != "auto":
        msg = f"Invalid value for rows_per_prompt: {abbreviate(value)}."
        raise UsageError(msg, hint='Pass a number, or "auto".')
    if value != "auto":
        check_integer("rows_per_prompt", value)


class _NotStored(Exception):  # noqa: N818 (not an error)
    """An answer that a check needs is not stored."""


class _Rendered(Sequence[str]):
    """A text for each of ``things``, made when it is read."""

    def __init__(self, things: Sequence[Any], render: Callable[[Any], str]) -> None:
        self._things = things
        self._render = render

    def __len__(self) -> int:
        return len(self._things)

    def __getitem__(self, number: Any) -> Any:
        found = self._things[number]
        return list(map(self._render, found)) if isinstance(number, slice) else self._render(found)
