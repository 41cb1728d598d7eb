"""What is asked of rows, and how."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal

from llm_magics._util.validation import check_on_error, whole_number
from llm_magics.errors import UsageError
from llm_magics.secrets import KeyHeaders, remember_headers

OnError = Literal["null", "raise"]

# The name of a lone column of texts in a prompt.
TEXT = "text"


@dataclass(frozen=True, slots=True)
class RowPrompts:
    """
    What is asked of each row, and how.

    Attributes:
        text: the prompt, with ``{{ column }}`` in it.
        model, system, parameters, schema: as for `llm_magics.ask`, the same for all rows.
        concurrency: prompts at once; what suits the provider unless given.
        on_error: whether a row that fails is left without an answer (``null``) or raised.
        fresh: ask anew what was asked before.
        dry_run: only tell what it may take.
        yes: whatever it may cost is allowed.
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

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            msg = f"A prompt is a text, and this is {type(self.text).__name__}."
            raise UsageError(msg, hint='Write it first: lm.prompt(df, "Sum up {{ text }}").')
        if self.concurrency is not None:
            whole_number("concurrency", self.concurrency)
        for name in self.parameters:
            _refuse_slip(name)
        headers = self.parameters.get("extra_headers")
        if isinstance(headers, Mapping):  # anything else is refused when it is sent
            remember_headers(headers)
            shown = {**self.parameters, "extra_headers": KeyHeaders(headers)}
            object.__setattr__(self, "parameters", shown)
        check_on_error(self.on_error)


# What goes to a model must be no slip for what is said here of rows.
_NOT_HERE = {
    "into": "Only df.llm.prompt and df.llm.classify put one column somewhere.",
    "schema": "What is extracted is said first; labels are the schema of classify.",
    **dict.fromkeys(
        ("thread", "variables", "template", "images", "tools"), "Only lm.ask takes it."
    ),
}


def _refuse_slip(name: str) -> None:
    if name in _NOT_HERE:
        raise UsageError(f"{name} cannot be given here.", hint=_NOT_HERE[name])
    meant = get_close_matches(name, {*_OWN, "into"}, n=1, cutoff=0.7)
    if meant:
        raise UsageError(f"There is no argument {name}.", hint=f"Did you mean {meant[0]}?")


# All that is no parameter of the model's.
_OWN = frozenset({"model", "system", "concurrency", "on_error", "fresh", "dry_run", "yes"})


def prompts(text: str, schema: Any, given: Mapping[str, Any]) -> RowPrompts:
    """What is asked by ``text``; what of ``given`` is not about rows is for the model."""
    own = {name: value for name, value in given.items() if name in _OWN}
    parameters = {name: value for name, value in given.items() if name not in _OWN}
    return RowPrompts(text, schema=schema, parameters=parameters, **own)


def extraction(schema: Any, given: Mapping[str, Any]) -> RowPrompts:
    """Have what ``schema`` asks for taken out of texts."""
    asked = f"Take this out of the text, as JSON. The text:\n\n{{{{ {TEXT} }}}}"
    return prompts(asked, schema, given)


def classification(labels: Sequence[str], into: str, given: Mapping[str, Any]) -> RowPrompts:
    """Have texts put under one of ``labels`` each, in the field ``into``."""
    is_list = isinstance(labels, Iterable) and not isinstance(labels, str | bytes | Mapping)
    labels = list(dict.fromkeys(labels)) if is_list else []
    if len(labels) < 2 or not all(isinstance(each, str) for each in labels):
        msg = "To classify takes a list of at least two different labels, all of them texts."
        raise UsageError(msg, hint='Write labels=["praise", "complaint"].')
    schema = {
        "type": "object",
        "properties": {into: {"type": "string", "enum": labels}},
        "required": [into],
        "additionalProperties": False,
    }
    told = ", ".join(labels).replace("{", "{{ '{' }}")  # a label is no template
    asked = f"Which of these fits the text best: {told}? The text:\n\n{{{{ {TEXT} }}}}"
    return prompts(asked, schema, given)
