"""
Prompts for rows: one prompt per row, rendered from its columns. Equal prompts are sent once.

Answers are cached as they arrive. After an interrupt, a crash or a change of some rows, the same
call sends only the prompts that have no cached answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np

from llm_magics._async.bridge import bridge
from llm_magics._async.sync import SyncRunner
from llm_magics.dataframes.reports import PromptReport, RowsEstimate
from llm_magics.dataframes.row_attachments import AttachedText
from llm_magics.dataframes.row_prompts import RowPrompts
from llm_magics.dataframes.row_texts import RowTexts
from llm_magics.errors import LLMError
from llm_magics.runtime.batch import BatchCall
from llm_magics.runtime.confirm import confirm_batch
from llm_magics.runtime.jobs.prompt_jobs import PromptJobs
from llm_magics.runtime.jobs.work import JobOptions
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.response import Response
from llm_magics.runtime.session import session
from llm_magics.wire.finish_reasons import Outcome
from llm_magics.wire.logprobs import MAX_LOGPROBS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pandas import DataFrame

# The number of rows for which temporary arrays are created.
_SLICE = 65_536


class RowPromptRun:
    """
    A prompt for each row of ``frame``; `ask` sends them.

    Rows in which all columns that the prompt names are missing are skipped.
    """

    def __init__(self, frame: DataFrame, prompt_spec: RowPrompts) -> None:
        """
        Render the prompts.

        Raises:
            UsageError: the prompt names a column that does not exist.
            TemplateError: the prompt cannot be rendered.
        """
        self._frame = frame
        self._prompt_spec = prompt_spec
        self.schema = prompt_spec.schema
        self.raises = prompt_spec.on_error == "raise"
        self.index = frame.index
        self._parameters = self._all_parameters()
        self._texts = RowTexts(frame, prompt_spec)
        self._neutral_count = self._texts.neutral_count
        # The number of each row's prompt; negative without one.
        self.codes = self._texts.codes
        prompts = LazyPrompts(self._texts, self._prompt)
        self.call = _create_call(prompts, prompt_spec)
        self.call.done = self._done

    def _done(self) -> str:
        return f"{self.counts()['ok']:,} of {len(self.codes):,} rows"

    def _all_parameters(self) -> Mapping[str, Any]:
        """Return the parameters of all prompts; one mapping, because they share it."""
        spec = self._prompt_spec
        if spec.choices:
            return {**spec.parameters, "choices": spec.choices}
        return (
            {"logprobs": MAX_LOGPROBS, **spec.parameters} if spec.confidence else spec.parameters
        )

    def _prompt(self, text: str) -> Prompt:
        return create_prompt(self._prompt_spec, self._parameters, text)

    def estimate(self) -> RowsEstimate:
        """Return an estimate of tokens, cost and time; nothing is sent."""
        left = bridge.run(self.call.to_send())
        return RowsEstimate(
            rows=len(self.codes),
            prompts=left.prompts,
            input_tokens=left.input_tokens,
            output_tokens=left.output_tokens,
            cost_usd=left.cost_usd,
            seconds=bridge.run(self.call.seconds(left.prompts)),
            attachments=self.call.attachments,
            in_jobs=self.call.in_jobs,
        )

    def obtain_consent(self) -> None:
        """
        Ask the user to confirm a high cost, unless ``yes`` is set.

        Raises:
            DeclinedError: the user declined.
            UsageError: the session is not interactive.
        """
        if not self._prompt_spec.yes:
            confirm_batch(self.call)

    def ask(self) -> BaseException | None:
        """Send all prompts; return the error that ended the run, if any."""
        try:
            with SyncRunner(self.call) as exchange:
                exchange.finish()
        except (LLMError, KeyboardInterrupt) as error:
            return error
        errors = self.call.errors
        unscored = [errors[each] for each in range(self._neutral_count) if each in errors]
        return unscored[0] if unscored else None  # no row can be calibrated

    @property
    def spec(self) -> RowPrompts:
        """The prompt of each row, and how to send it."""
        return self._prompt_spec

    @property
    def neutral(self) -> list[Response]:
        """The answer to each neutral text that is answered."""
        found = (self._answer(number) for number in range(min(self._neutral_count, self._count)))
        return [each for each in found if each is not None]

    @property
    def is_calibrated(self) -> bool:
        """Whether all neutral texts are answered, so that rows can have labels."""
        return len(self.neutral) == min(self._neutral_count, self._count)

    def answers(self) -> Iterator[Response | None]:
        """Yield the answer to each distinct prompt, in the order of ``codes``."""
        if not self.is_calibrated:
            yield from repeat(None, self._count)
            return
        errors = self.call.errors
        for number, each in enumerate(self.call.responses):
            yield None if number in errors else each

    def _answer(self, number: int) -> Response | None:
        return None if number in self.call.errors else self.call.responses[number]

    @property
    def _count(self) -> int:
        return len(self._texts)

    @property
    def row_counts(self) -> NDArray[np.int64]:
        """The number of rows with each distinct prompt."""
        counts = np.zeros(self._count, np.int64)
        for codes in self._slices():
            counts += np.bincount(codes[codes >= 0], minlength=self._count)
        return counts

    def _slices(self) -> Iterator[NDArray[np.int32]]:
        """Yield the codes in parts, because indexing by an array makes a larger copy of it."""
        for start in range(0, len(self.codes), _SLICE):
            yield self.codes[start : start + _SLICE]

    @property
    def is_answered(self) -> NDArray[np.bool_]:
        """Whether each row has an answer."""
        numbers = range(self._count if self.is_calibrated else 0)
        found = np.zeros(self._count + 1, np.bool_)  # the last one is for rows without a prompt
        found[: len(numbers)] = [self.call.is_answered(number) for number in numbers]
        return np.concatenate([found[:0], *(found[codes] for codes in self._slices())])

    @property
    def is_open(self) -> NDArray[np.bool_]:
        """Whether each row has a prompt but not an answer."""
        rows: NDArray[np.bool_] = (self.codes >= 0) & ~self.is_answered
        return rows

    @property
    def first_error(self) -> LLMError | None:
        """The error of the first row that failed."""
        errors = self.call.errors
        return errors[min(errors)] if errors else None

    def counts(self) -> dict[str, int]:
        """Return the number of rows by outcome."""
        rows = dict.fromkeys([*Outcome, None], 0)
        for number, count in enumerate(self.row_counts.tolist()):
            rows[self.call.outcome(number)] += count
        return {
            **{str(each): rows[each] for each in Outcome},
            "missing": int((self.codes < 0).sum()),
            "pending": rows[None],
        }

    @property
    def has_failed(self) -> bool:
        """Whether any prompt that was sent failed."""
        return bool(self.call.errors)

    def report(self) -> PromptReport:
        """Return the report of this run."""
        return PromptReport(
            counts=self.counts(),
            _call=self.call,
            _codes=self.codes,
            _texts=self._texts,
            _index=self._frame.index,
        )


def create_prompt(prompt_spec: RowPrompts, parameters: Mapping[str, Any], text: str) -> Prompt:
    """Return the prompt with a rendered ``text``, whose answer is always stored."""
    return Prompt(
        text=text,
        model=prompt_spec.model,
        system=prompt_spec.system,
        parameters=parameters,
        schema=None if prompt_spec.choices else prompt_spec.schema,
        attachments=text.attachments if isinstance(text, AttachedText) else (),
        is_fresh=prompt_spec.fresh,
        is_kept=True,
    )


def _create_call(prompts: Sequence[Prompt], prompt_spec: RowPrompts) -> BatchCall | PromptJobs:
    if not prompt_spec.batch:
        return BatchCall(session, prompts, prompt_spec.concurrency)
    options = JobOptions(
        wait=prompt_spec.wait,
        timeout_s=session.config.batch_timeout,
        is_fresh=prompt_spec.fresh,
    )
    return PromptJobs(session, prompts, options)


class LazyPrompts(Sequence[Prompt]):
    """The prompts with ``texts``, each created when it is read."""

    def __init__(self, texts: Sequence[str], create: Callable[[str], Prompt]) -> None:
        self._texts = texts
        self._create = create

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, number: Any) -> Any:
        found = self._texts[number]
        return list(map(self._create, found)) if isinstance(number, slice) else self._create(found)
