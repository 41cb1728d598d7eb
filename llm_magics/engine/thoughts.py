"""Answers in JSON, wherever a model wrote them: in prose, in fences, or in its thoughts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from llm_magics.errors import ParseError
from llm_magics.policies.parsing import FoundJSON, json_values
from llm_magics.schemas import fitted
from llm_magics.types import ModelResponse
from llm_magics.wire.schema_dialects import unwrapped

if TYPE_CHECKING:
    from llm_magics.engine.response import Response


def is_thought_only(answer: ModelResponse | Response) -> bool:
    """Whether the model thought, and answered with nothing."""
    return bool(answer.reasoning.strip()) and not answer.text.strip() and not answer.tool_calls


def fitting_json(text: str, schema: Any) -> FoundJSON | None:
    """Return the last JSON value in ``text`` that fits ``schema``, as it fits, if any does."""
    for found in json_values(text):
        values = [found.value]
        if (inner := unwrapped(found.value)) is not found.value:
            values.append(inner)
        for value in values:
            try:
                return found._replace(value=fitted(value, schema))
            except ParseError:
                continue
    return None


def answer_in_thoughts(answer: ModelResponse, schema: Any) -> ModelResponse:
    """
    Return ``answer`` with the JSON of its thoughts as its text, where it has no other.

    Some servers put the whole output of a thinking model into its thoughts when the answer is
    bound to a schema. What does not fit the schema stays a thought.
    """
    if schema is None or not is_thought_only(answer):
        return answer
    found = fitting_json(answer.reasoning, schema)
    if found is None:
        return answer
    thoughts = answer.reasoning
    text = thoughts[found.start : found.end].strip()
    rest = f"{thoughts[: found.start]}{thoughts[found.end :]}"
    return replace(answer, text=text, reasoning=rest.strip())
