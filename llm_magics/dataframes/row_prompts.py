"""The prompts of rows as the user describes them: their text, the columns in it, and options."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from llm_magics._util.validation import check_integer, check_on_error
from llm_magics.dataframes.row_attachments import RowAttachments
from llm_magics.dataframes.rows import OnError
from llm_magics.errors import UsageError, nearest
from llm_magics.runtime.prompts import templates
from llm_magics.secrets import KeyHeaders, register_headers

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
        batch: send the prompts in batch jobs.
        wait: wait until these have ended.
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
    batch: bool = False
    wait: bool = True

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
        self._check_options()
        if self.confidence and self.schema is None:
            msg = "confidence needs a schema."
            raise UsageError(msg, hint="Use classify or extract with confidence=True.")

    def _check_options(self) -> None:
        """Refuse options that have another type, and those without an effect on batch jobs."""
        for name in ("confidence", "batch", "wait"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                msg = f"Invalid value for {name}: {value!r:.60}."
                raise UsageError(msg, hint="Use True or False.")
        if self.batch and self.concurrency is not None:
            msg = "concurrency has no effect on batch jobs."
            raise UsageError(msg, hint="Pass either batch=True or concurrency.")
        if self.batch and self.parameters.get("tier") not in (None, "standard"):
            msg = "tier has no effect on batch jobs."
            raise UsageError(msg, hint="Pass either batch=True or tier.")
        if not self.wait and not self.batch:
            msg = "wait=False needs batch=True."
            raise UsageError(msg, hint="Live calls end when all rows are answered.")


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
    {
        "batch",
        "concurrency",
        "confidence",
        "dry_run",
        "fresh",
        "model",
        "on_error",
        "system",
        "wait",
        "yes",
    }
)


# The name of a row in a prompt: {{ row["a column"] }}.
ROW = "row"


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
