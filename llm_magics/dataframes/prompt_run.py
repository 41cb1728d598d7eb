"""
Prompts for rows: one prompt per row, rendered from its columns. Equal prompts are sent once.

Answers are cached as they arrive. After an interrupt, a crash or a change of some rows, the same
call sends only the prompts that have no cached answer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import repeat
from typing import TYPE_CHECKING, Any

import pandas as pd

from llm_magics._async.bridge import bridge
from llm_magics._async.sync import SyncRunner
from llm_magics._util.validation import check_integer, check_on_error
from llm_magics.dataframes.reports import PromptReport, RowsEstimate, sum_known
from llm_magics.dataframes.row_attachments import AttachedText, RowAttachments
from llm_magics.dataframes.rows import TEXT, OnError, get_column
from llm_magics.errors import LLMError, UsageError, nearest
from llm_magics.runtime.batch import BatchCall
from llm_magics.runtime.confirm import confirm_batch
from llm_magics.runtime.prompts import templates
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.session import session
from llm_magics.secrets import KeyHeaders, register_headers
from llm_magics.wire.finish_reasons import Outcome
from llm_magics.wire.logprobs import MAX_LOGPROBS

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPrompts:
    """
    The prompt of each row, and how to send it.

    Attributes:
        text: the prompt, with ``{{ column }}`` in it.
        model, system, parameters, schema: as for `llm_magics.ask`, the same for all rows.
        concurrency: number of concurrent requests; by default chosen for the provider.
        on_error: ``null`` leaves the answer of a failed row empty; ``raise`` raises the error.
        fresh: send prompts even if their answers are cached.
        dry_run: only estimate tokens, cost and time.
        yes: do not ask for confirmation of the cost.
        attachments: the columns with files to attach.
        confidence: whether each field has a column with its confidence.
        choices: the labels to score, instead of generating an answer that matches ``schema``.
        neutral: texts without content, by which the scores of labels are calibrated.
    """

    text: str
    model: str | None = None
    system: str | None = None
    schema: Any = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    concurrency: int | None = None
    on_error: OnError = "null"
    fresh: bool = False
    dry_run: bool = False
    yes: bool = False
    attachments: RowAttachments | None = None
    confidence: bool = False
    choices: tuple[str, ...] = ()
    neutral: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            msg = f"The prompt must be a string, got {type(self.text).__name__}."
            raise UsageError(msg, hint='Use: lm.prompt(df, "Summarize {{ text }}")')
        if self.concurrency is not None:
            check_integer("concurrency", self.concurrency)
        for name in self.parameters:
            _check_argument_name(name)
        headers = self.parameters.get("extra_headers")
        if isinstance(headers, Mapping):  # other types raise an error when the prompt is sent
            register_headers(headers)
            parameters = {**self.parameters, "extra_headers": KeyHeaders(headers)}
            object.__setattr__(self, "parameters", parameters)
        check_on_error(self.on_error)
        if not isinstance(self.confidence, bool):
            msg = f"Invalid value for confidence: {self.confidence!r:.60}."
            raise UsageError(msg, hint="Use True or False.")
        if self.confidence and self.schema is None:
            msg = "confidence needs a schema."
            raise UsageError(msg, hint="Use classify or extract with confidence=True.")


# Arguments of other functions, which must not be passed to a model as parameters.
_UNSUPPORTED_ARGUMENTS = {
    "into": "Only df.llm.prompt and df.llm.classify take into.",
    "confidence": "Only extract and classify take confidence.",
    "choices": "Pass the labels to classify.",
    "schema": "extract takes the schema as its first argument; classify takes labels.",
    **dict.fromkeys(
        ("thread", "variables", "template", "images", "tools"), "Only lm.ask takes this argument."
    ),
    **dict.fromkeys(
        ("attachments", "attachments_root", "allow_urls"),
        "Only lm.prompt and df.llm.prompt of pandas take this argument; both also take a schema.",
    ),
}


def _check_argument_name(name: str) -> None:
    if name in _UNSUPPORTED_ARGUMENTS:
        raise UsageError(f"{name} is not supported here.", hint=_UNSUPPORTED_ARGUMENTS[name])
    meant = get_close_matches(name, {*ROW_ARGUMENTS, "into"}, n=1, cutoff=0.7)
    if meant:
        raise UsageError(f"Unknown argument: {name}.", hint=f"Did you mean {meant[0]}?")


# Arguments that are not model parameters.
ROW_ARGUMENTS = frozenset(
    {"model", "system", "concurrency", "on_error", "fresh", "dry_run", "yes", "confidence"}
)


# The name of a row in a prompt: {{ row["a column"] }}.
ROW = "row"


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
        self._columns = prompt_columns(frame, prompt_spec)
        self._parameters = self._all_parameters()
        # Neutral texts are first, so that the rows before an interrupt can be calibrated.
        neutral = [
            templates.render(prompt_spec.text, {TEXT: each}) for each in prompt_spec.neutral
        ]
        numbers = {text: number for number, text in enumerate(dict.fromkeys(neutral))}
        self._neutral_count = len(numbers)
        self.codes = [
            self._code(row, numbers, files)
            for row, files in zip(self._rows(), self._attached(), strict=True)
        ]
        if all(code < 0 for code in self.codes):
            numbers.clear()  # nothing to calibrate
        prompts = [self._prompt(text) for text in numbers]
        self.call = BatchCall(session, prompts, prompt_spec.concurrency)
        self.call.done = self._done
        self._texts = list(numbers)

    def _done(self) -> str:
        return f"{self.counts()['ok']:,} of {len(self.codes):,} rows"

    def _rows(self) -> list[dict[str, Any]]:
        if not self._columns:
            return [{}] * len(self._frame)
        columns = [get_column(self._frame, name) for name in self._columns]
        values = zip(*(column.tolist() for column in columns), strict=True)
        names = [str(name) for name in self._columns]
        return [dict(zip(names, row, strict=True)) for row in values]

    def _attached(self) -> Iterator[tuple[Any, ...] | None]:
        """Yield the attachments of each row; ``None`` without columns of attachments."""
        attachments = self._prompt_spec.attachments
        if attachments is None or not attachments.columns:
            yield from repeat(None, len(self._frame))
            return
        known = {str(name): name for name in self._frame.columns}
        attachments.check_columns(known)
        columns = [get_column(self._frame, known[name]) for name in attachments.columns]
        values = zip(*(column.tolist() for column in columns), strict=True)
        for label, row in zip(self._frame.index, values, strict=True):
            yield attachments.of_row(row, label)

    def _code(
        self, row: dict[str, Any], numbers: dict[str, int], files: tuple[Any, ...] | None = None
    ) -> int:
        """
        Return the number of a row's prompt; -1 if all its columns are missing, or it is empty.

        A row without the files that it should have is missing too.
        """
        if files == ():
            return -1
        if row and all(_is_missing(value) for value in row.values()):
            return -1
        values = {name: "" if _is_missing(value) else value for name, value in row.items()}
        values = {ROW: values, **values}
        text = templates.render(self._prompt_spec.text, values)
        text = text if files is None else AttachedText(text, files)
        return numbers.setdefault(text, len(numbers)) if text.strip() else -1

    def _all_parameters(self) -> Mapping[str, Any]:
        """Return the parameters of all prompts; one mapping, because they share it."""
        spec = self._prompt_spec
        if spec.choices:
            return {**spec.parameters, "choices": spec.choices}
        return (
            {"logprobs": MAX_LOGPROBS, **spec.parameters} if spec.confidence else spec.parameters
        )

    def _prompt(self, text: str) -> Prompt:
        prompt_spec = self._prompt_spec
        return Prompt(
            text=text,
            model=prompt_spec.model,
            system=prompt_spec.system,
            parameters=self._parameters,
            schema=None if prompt_spec.choices else prompt_spec.schema,
            attachments=text.attachments if isinstance(text, AttachedText) else (),
            is_fresh=prompt_spec.fresh,
            is_kept=True,
        )

    def estimate(self) -> RowsEstimate:
        """Return an estimate of tokens, cost and time; nothing is sent."""
        each = bridge.run(self.call.to_send())
        return RowsEstimate(
            rows=len(self.codes),
            prompts=len(each),
            input_tokens=sum(one.input_tokens for one in each),
            output_tokens=sum(one.output_tokens for one in each),
            cost_usd=sum_known(one.cost_usd for one in each),
            seconds=bridge.run(self.call.seconds(len(each))),
            attachments=self.call.attachments,
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
    def neutral(self) -> list[Any]:
        """The `Response` for each neutral text that is answered."""
        return [
            each
            for number, each in enumerate(self.call.responses[: self._neutral_count])
            if each is not None and number not in self.call.errors
        ]

    @property
    def is_calibrated(self) -> bool:
        """Whether all neutral texts are answered, so that rows can have labels."""
        return len(self.neutral) == min(self._neutral_count, len(self._texts))

    @property
    def answered(self) -> list[Any]:
        """The `Response` for the cell of each row; ``None`` for a row without one."""
        if not self.is_calibrated:
            return [None] * len(self.codes)
        errors, responses = self.call.errors, self.call.responses
        good = [None if number in errors else each for number, each in enumerate(responses)]
        return [good[code] if code >= 0 else None for code in self.codes]

    @property
    def is_open(self) -> list[bool]:
        """Whether each row has a prompt but not an answer."""
        return [
            code >= 0 and each is None
            for code, each in zip(self.codes, self.answered, strict=True)
        ]

    @property
    def first_error(self) -> LLMError | None:
        """The error of the first row that failed."""
        errors = self.call.errors
        return errors[min(errors)] if errors else None

    def counts(self) -> dict[str, int]:
        """Return the number of rows by outcome."""
        by_prompt = [self.call.outcome(number) for number in range(len(self._texts))]
        rows = Counter(by_prompt[code] if code >= 0 else "missing" for code in self.codes)
        return {
            **{str(each): rows[each] for each in Outcome},
            "missing": rows["missing"],
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


def prompt_columns(frame: DataFrame, prompt_spec: RowPrompts) -> list[Hashable]:
    """
    Return the columns that the prompt names, as ``{{ text }}`` or ``{{ row["a text"] }}``.

    A column with the name of a Jinja function, or ``row``, takes precedence over it.

    Raises:
        UsageError: the prompt names a column that the DataFrame does not have.
    """
    known = {str(name): name for name in frame.columns}
    _check_spaces(prompt_spec.text, known)
    named = templates.find_names(prompt_spec.text, with_functions=True) & set(known)
    unknown = templates.find_names(prompt_spec.text) - set(known)
    if ROW in unknown:
        keys = templates.find_row_keys(prompt_spec.text, ROW)
        in_row = set(known) if keys is None else {str(key) for key in keys}
        unknown = (unknown - {ROW}) | (in_row - set(known))
        named |= in_row & set(known)
    if unknown:
        first = min(unknown)
        msg = f'The prompt uses "{first}", but the DataFrame has no such column.'
        raise UsageError(msg, hint=nearest(first, known))
    return [known[name] for name in sorted(named)]


def _check_spaces(text: str, names: Iterable[str]) -> None:
    """
    Refuse ``{{ a text }}``: a name with a space needs ``{{ row["a text"] }}``.

    Raises:
        UsageError: the prompt contains such a name.
    """
    for name in names:
        if not name.isidentifier() and re.search(r"\{\{\s*" + re.escape(name) + r"\s*[|}]", text):
            msg = f'The column "{name}" cannot be written as {{{{ {name} }}}}.'
            raise UsageError(msg, hint=f'Use {{{{ row["{name}"] }}}}.')


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return pd.api.types.is_scalar(value) and bool(pd.isna(value))
