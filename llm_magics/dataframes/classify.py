"""
The prompts of ``extract`` and ``classify``, and how the labels of a text are found.

A model whose provider can score choices (`ModelParameters.choices`) does not generate a label: the
probabilities of all labels are computed, and the most probable one is the result. Small models
prefer some labels whatever the text is, so the scores are calibrated: they are divided by those of
texts without content. The texts and the form of the prompt were chosen with the 118 reviews of the
notebooks; ``docs/how-to/confidence.md`` has the measurements.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llm_magics._async.bridge import bridge
from llm_magics._util.text import replace_lone_surrogates
from llm_magics.dataframes.row_prompts import ROW_ARGUMENTS, RowPrompts
from llm_magics.dataframes.rows import TEXT
from llm_magics.errors import LLMError, UsageError
from llm_magics.runtime.routing import resolve_candidates, route_to
from llm_magics.runtime.session import session

# Texts without content, by which scores are calibrated.
NEUTRAL_TEXTS = (
    "N/A",
    "",
    "[MASK]",
    "...",
    "lorem ipsum",
    "This is a text.",
    "The customer wrote a review.",
    "-",
    "It is what it is.",
    "text",
)


def row_prompts(text: str, schema: Any, options: Mapping[str, Any]) -> RowPrompts:
    """Return the prompts of ``text``; options that are not `ROW_ARGUMENTS` are model parameters."""
    own = {name: value for name, value in options.items() if name in ROW_ARGUMENTS}
    parameters = {name: value for name, value in options.items() if name not in ROW_ARGUMENTS}
    return RowPrompts(text=text, schema=schema, parameters=parameters, **own)


def extraction_prompts(schema: Any, options: Mapping[str, Any]) -> RowPrompts:
    """Return the prompts that extract the fields of ``schema`` from texts."""
    instruction = f"Take this out of the text, as JSON. The text:\n\n{{{{ {TEXT} }}}}"
    return row_prompts(instruction, schema, options)


def classification_prompts(
    labels: Sequence[str], into: str, options: Mapping[str, Any]
) -> RowPrompts:
    """Return the prompts that assign one of ``labels`` to each text, in the field ``into``."""
    is_list = isinstance(labels, Iterable) and not isinstance(labels, str | bytes | Mapping)
    labels = list(dict.fromkeys(labels)) if is_list else []
    if len(labels) < 2 or not all(isinstance(each, str) for each in labels):
        msg = "classify needs a list of at least two different labels, all of them strings."
        raise UsageError(msg, hint='Use: labels=["praise", "complaint"]')
    for each in labels:
        if replace_lone_surrogates(each) != each:
            msg = f"The label {each!a:.60} has a character that is not valid Unicode."
            raise UsageError(msg, hint="Remove the character; it is half of a pair.")
    schema = {
        "type": "object",
        "properties": {into: {"type": "string", "enum": labels}},
        "required": [into],
        "additionalProperties": False,
    }
    choices = ", ".join(labels).replace("{", "{{ '{' }}")  # labels are not templates
    instruction = f"Which of these fits the text best: {choices}? The text:\n\n{{{{ {TEXT} }}}}"
    prompts = row_prompts(instruction, schema, options)
    if all(labels) and can_score_choices(prompts.model):
        return replace(prompts, choices=tuple(labels), neutral=NEUTRAL_TEXTS)
    return prompts


def can_score_choices(model: str | None) -> bool:
    """Return whether the only candidate for ``model`` can score given answers."""

    async def find() -> bool:
        name = model or str(session.config.model)
        candidates, _ = resolve_candidates(name, session.config.aliases, session.config.routes)
        if len(candidates) != 1:
            return False
        route = await route_to(session, candidates[0])
        return "choices" in route.provider.capabilities

    try:
        return bridge.run(find())
    except LLMError:  # reported when the prompts are sent
        return False
