"""
How much Gemini's models think: budgets in tokens up to Gemini 2.5, levels since Gemini 3.

Sources (November 2026): https://ai.google.dev/gemini-api/docs/generate-content/thinking,
https://ai.google.dev/gemini-api/docs/openai (the budgets of the levels), and the refusals in
https://github.com/earendil-works/pi/issues/9455 and pydantic-ai 2.68.0, which tried each model.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from llm_magics.errors import UnsupportedError
from llm_magics.parameters import ModelParameters

_NUMBER = re.compile(r"gemini-(\d+)(?:\.(\d+))?(?=-|$)")


def find_version(model: str) -> tuple[int, int] | None:
    """
    Return the version of a Gemini model; the newest for its short names.

    >>> find_version("gemini-3.8-flash"), find_version("gemini-pro-latest"), find_version("gemma-3")
    ((3, 8), (3, 0), None)
    """
    bare = model.rpartition("/")[2]
    found = _NUMBER.match(bare)
    if found is not None:
        return int(found[1]), int(found[2] or 0)
    return (3, 0) if re.fullmatch(r"gemini-[a-z-]+-latest", bare) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingFacts:
    """
    How the models of a family think.

    Attributes:
        levels: the levels that they support, from the least to the most.
        budgets: the least and the largest number of tokens, for models with budgets.
        can_be_off: whether thinking can be switched off.
    """

    levels: tuple[str, ...] = ()
    budgets: tuple[int, int] | None = None
    can_be_off: bool = False

    @property
    def thinks(self) -> bool:
        """Whether they can think."""
        return bool(self.levels or self.budgets)


_NO_THINKING = ThinkingFacts()
# `minimal` is what Google offers instead of switching it off: hard tasks may still be thought about.
_FOUR = ThinkingFacts(levels=("minimal", "low", "medium", "high"), can_be_off=True)
_THREE = ThinkingFacts(levels=("low", "medium", "high"))
_ENDS = ThinkingFacts(levels=("minimal", "high"), can_be_off=True)

# By the beginning of the name; the first that matches counts. Checked in November 2026.
_FAMILIES = (
    ("gemini-1.", _NO_THINKING),
    ("gemini-2.0", _NO_THINKING),
    ("gemini-2.5-flash-image", _NO_THINKING),
    ("gemini-2.5-flash-lite", ThinkingFacts(budgets=(512, 24_576), can_be_off=True)),
    ("gemini-2.5-flash", ThinkingFacts(budgets=(1, 24_576), can_be_off=True)),
    ("gemini-2.5-pro", ThinkingFacts(budgets=(128, 32_768))),
    ("gemini-3-pro-preview", ThinkingFacts(levels=("low", "high"))),
    ("gemini-3-flash", _FOUR),
    ("gemini-3.1-flash-image", _ENDS),
    ("gemini-3.1-flash-lite-image", _ENDS),
    ("gemini-3.1-flash-lite", _FOUR),
    ("gemini-3.5-flash", _FOUR),
    ("gemini-3.6-flash", _FOUR),
    ("gemini-flash-lite-latest", _FOUR),
    ("gemma-3", _NO_THINKING),
    # Further models since Gemini 3 support these, as all of its Pro models and Gemini 4 do.
    ("gemini-", _THREE),
)

# The budgets that Google's OpenAI-compatible API uses for the levels.
_BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576}


def thinking_facts(model: str) -> ThinkingFacts | None:
    """Return how ``model`` thinks; ``None`` if this is unknown."""
    bare = model.rpartition("/")[2].lower()
    return next((facts for start, facts in _FAMILIES if bare.startswith(start)), None)


def encode_thinking(model: str, parameters: ModelParameters) -> dict[str, Any]:
    """
    Return the fields of ``generationConfig`` that set how much ``model`` thinks.

    Raises:
        UnsupportedError: ``model`` cannot think, cannot think at this level, or always thinks.
    """
    reasoning = parameters.reasoning
    facts = thinking_facts(model)
    if reasoning is None or (facts == _NO_THINKING and reasoning is False):
        return {}
    if facts == _NO_THINKING:
        raise _unsupported(f"{model} cannot think.", "Leave reasoning out.", model)
    if reasoning is False:
        return _encode_off(model, facts)
    if facts is not None and facts.budgets is not None:
        budget = _find_budget(reasoning, facts.budgets)
        return {"thinkingConfig": {"includeThoughts": True, "thinkingBudget": budget}}
    if reasoning is True:  # the usual amount of the model
        return {"thinkingConfig": {"includeThoughts": True}}
    if facts is not None and reasoning in _BUDGETS and reasoning not in facts.levels:
        levels = ", ".join(facts.levels)
        msg = f"{model} does not support reasoning={reasoning}."
        raise _unsupported(msg, f"Use one of: {levels}.", model)
    return {"thinkingConfig": {"includeThoughts": True, "thinkingLevel": reasoning.upper()}}


def _encode_off(model: str, facts: ThinkingFacts | None) -> dict[str, Any]:
    if facts is not None and not facts.can_be_off:
        hint = "Leave reasoning out, or use reasoning=low to think less."
        raise _unsupported(f"{model} cannot answer without thinking.", hint, model)
    if facts is not None and facts.budgets is not None:
        return {"thinkingConfig": {"thinkingBudget": 0}}
    return {"thinkingConfig": {"thinkingLevel": "MINIMAL"}}


def _find_budget(reasoning: bool | str, bounds: tuple[int, int]) -> int:
    """Return the budget of a level; -1 lets the model decide."""
    least, most = bounds
    return -1 if reasoning is True else min(max(_BUDGETS.get(str(reasoning), most), least), most)


def output_limit(model: str, parameters: ModelParameters) -> int | None:
    """Return ``maxOutputTokens`` of a request to ``model``; ``None`` if it has none."""
    limit, reasoning, facts = parameters.max_tokens, parameters.reasoning, thinking_facts(model)
    if limit is None or not reasoning or facts is None or facts.budgets is None:
        return limit
    budget = _find_budget(reasoning, facts.budgets)
    # Thinking counts as output too, so the limit must leave enough tokens for the answer.
    return limit if limit > budget else limit + budget


def _unsupported(message: str, hint: str, model: str) -> UnsupportedError:
    return UnsupportedError(message, hint=hint, model=model, code="reasoning")
