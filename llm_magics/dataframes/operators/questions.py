"""The yes-or-no question about a row: its prompt, its schema, and reading the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llm_magics.dataframes.row_prompts import RowPrompts, prompt_columns
from llm_magics.dataframes.row_texts import RowTexts
from llm_magics.errors import LLMError, ParseError, UsageError

if TYPE_CHECKING:
    from pandas import DataFrame

    from llm_magics.runtime.response import Response

# What precedes the statement in a prompt.
QUESTION = (
    "Decide whether this statement is true. It may contain a text, and then says something about "
    "it. Answer true or false, as JSON. The statement:\n\n"
)

# The field with the answer.
FIELD = "answer"

YES_NO_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {FIELD: {"type": "boolean"}},
    "required": [FIELD],
    "additionalProperties": False,
}


def question_prompts(prompt_spec: RowPrompts) -> RowPrompts:
    """Return ``prompt_spec`` with the schema of the answers."""
    return replace(prompt_spec, schema=YES_NO_SCHEMA)


class Questions(Sequence[str]):
    """The questions about ``statements``, each put together when it is read."""

    def __init__(self, statements: Sequence[str]) -> None:
        self._statements = statements

    def __len__(self) -> int:
        return len(self._statements)

    def __getitem__(self, number: Any) -> Any:
        found = self._statements[number]
        return (
            [QUESTION + each for each in found] if isinstance(number, slice) else QUESTION + found
        )


def statement_texts(frame: DataFrame, prompt_spec: RowPrompts) -> RowTexts:
    """
    Return the rendered texts of a template for the rows of ``frame``.

    Raises:
        UsageError: the template names no column, or one that does not exist.
        TemplateError: it cannot be rendered.
    """
    if not prompt_columns(frame, prompt_spec):
        names = ", ".join(f"{{{{ {name} }}}}" for name in list(frame.columns)[:3])
        msg = (
            f"The prompt names no column, so it is the same for all rows: {prompt_spec.text!r:.60}"
        )
        raise UsageError(msg, hint=f"Write the names of columns in it: {names}")
    return RowTexts(frame, prompt_spec)


def read_yes_no(result: Response | LLMError) -> bool | LLMError:
    """Return the answer to a question, or the error of its prompt."""
    if isinstance(result, LLMError):
        return result
    try:
        value = result.json()
    except ParseError as error:
        return error
    answer = value.get(FIELD) if isinstance(value, dict) else None
    if isinstance(answer, bool):
        return answer
    return ParseError("The answer is neither true nor false.", hint="Ask another model.")
