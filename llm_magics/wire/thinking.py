"""
The parameters by which services turn thinking on and off, or set how much a model thinks.

Sources, November 2026: https://platform.openai.com/docs/guides/reasoning,
https://openrouter.ai/docs/use-cases/reasoning-tokens,
https://api-docs.deepseek.com/guides/thinking_mode, https://docs.z.ai/guides/capabilities/thinking,
https://help.aliyun.com/zh/model-studio/deep-thinking and
https://docs.vllm.ai/en/latest/features/reasoning_outputs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Literal

# The level that means "think as usual", and the name of the level of `False`.
_USUAL, OFF = "medium", "off"

# Token budgets for thinking, for services that have budgets instead of levels.
BUDGETS = {
    "minimal": 1024,
    "low": 1024,
    "medium": 4096,
    "high": 16384,
    "xhigh": 32768,
    "max": 32768,
}

Reasoning = bool | str | None


def level_of(reasoning: bool | str) -> str:
    """
    Return the name of a level.

    >>> level_of(False), level_of(True), level_of("low")
    ('off', 'medium', 'low')
    """
    if isinstance(reasoning, str):
        return reasoning
    return _USUAL if reasoning else OFF


def _effort(level: str) -> dict[str, Any]:
    return {"reasoning_effort": "none" if level == OFF else level}


def _effort_object(level: str) -> dict[str, Any]:
    return {"reasoning": {"effort": "none" if level == OFF else level}}


def _effort_with_summary(level: str) -> dict[str, Any]:
    if level == OFF:
        return _effort_object(level)
    return {"reasoning": {"effort": level, "summary": "auto"}}


def _type(level: str) -> dict[str, Any]:
    return {"thinking": {"type": "disabled" if level == OFF else "enabled"}}


def _enable(level: str) -> dict[str, Any]:
    if level == OFF:
        return {"enable_thinking": False}
    return {"enable_thinking": True, "thinking_budget": BUDGETS[level]}


def _enable_in_template(level: str) -> dict[str, Any]:
    # Templates ignore the names that they do not use: Qwen's uses the first, DeepSeek's the second,
    # gpt-oss's the third.
    if level == OFF:
        return {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}}
    options = {"enable_thinking": True, "thinking": True, "reasoning_effort": level}
    return {"chat_template_kwargs": options}


# The fields of a request for a level, by the name of the dialect.
DIALECTS: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "reasoning_effort": _effort,
    "reasoning_object": _effort_object,
    "reasoning_summary": _effort_with_summary,
    "thinking_type": _type,
    "enable_thinking": _enable,
    "template_enable_thinking": _enable_in_template,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingRules:
    """
    Facts about the thinking of some models; ``None`` for unknown ones.

    Attributes:
        models: patterns of the names of these models.
        thinks: whether they can think.
        is_optional: whether thinking can be switched off.
        levels: the levels that they support.
    """

    models: tuple[str, ...] = ("*",)
    thinks: bool | None = None
    is_optional: bool | None = None
    levels: tuple[str, ...] | None = None


# The levels of models that always think.
EFFORTS = ("low", "medium", "high")

UNKNOWN_RULES = ThinkingRules()
NO_THINKING = ThinkingRules(thinks=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThinkingDialect:
    """
    How to tell one service how much to think.

    Attributes:
        name: the form of its parameters, one of `DIALECTS`.
        levels: its names of levels, by ours. A service that can only switch thinking on has the
            same name for several levels.
        rules: the known facts about its models. The first entry whose patterns match counts.
    """

    name: str = "reasoning_effort"
    levels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    rules: tuple[ThinkingRules, ...] = ()

    def fields(self, reasoning: Reasoning) -> dict[str, Any]:
        """Return the fields of a request that set ``reasoning``; none for ``None``."""
        if reasoning is None:
            return {}
        level = level_of(reasoning)
        return DIALECTS[self.name](self.levels.get(level, level))

    def of_model(self, model: str) -> ThinkingRules:
        """Return the known facts about ``model``."""
        return find_rules(self.rules, model)


# The dialects of OpenAI's two APIs.
EFFORT = ThinkingDialect()
EFFORT_SUMMARY = ThinkingDialect(name="reasoning_summary")
# The dialect of servers that pass options to the chat template of the model.
TEMPLATE = ThinkingDialect(name="template_enable_thinking")


def add_thinking(
    body: dict[str, Any], dialect: ThinkingDialect, reasoning: Reasoning
) -> dict[str, Any]:
    """Return ``body`` with the fields that set ``reasoning``; fields of ``body`` take precedence."""
    added = dialect.fields(reasoning)
    for name in added.keys() & body.keys():
        if isinstance(added[name], dict) and isinstance(body[name], Mapping):
            added[name] = {**added[name], **body[name]}
        else:
            added[name] = body[name]
    return {**body, **added}


def find_rules(rules: tuple[ThinkingRules, ...], model: str) -> ThinkingRules:
    """Return the first of ``rules`` with a pattern that matches ``model``."""
    name = model.lower()
    for each in rules:
        if any(fnmatchcase(name, pattern) for pattern in each.models):
            return each
    return UNKNOWN_RULES


def template_rules(template: str) -> ThinkingRules:
    """Return what a chat template (Jinja, of a model's files) supports."""
    if "enable_thinking" in template:
        return ThinkingRules(thinks=True, is_optional=True)
    if "reasoning_effort" in template:
        return ThinkingRules(thinks=True, is_optional=False, levels=EFFORTS)
    return ThinkingRules(is_optional=False) if "<think>" in template else NO_THINKING


# Words in errors about thinking.
_ABOUT_THINKING = re.compile(r"reasoning|thinking|\bthink\b", re.IGNORECASE)
# The model always thinks.
_ALWAYS = re.compile(
    r"mandatory|can(?:no|')t be (?:disabled|turned off|switched off)|only works? (?:in|with) thinking"
    r"|restricted to true|must be (?:set to )?true|requires? thinking",
    re.IGNORECASE,
)
# The parameter is known, but not this value of it.
_VALUE = re.compile(
    r"unsupported.value|supported values|invalid (?:option|value|enum)|must be one of"
    r"|expected one of|should be '|value .{0,40}is not supported|unknown variant|is invalid",
    re.IGNORECASE,
)
# The model or the service does not know the parameter.
_PARAMETER = re.compile(
    r"not support|unsupported|unrecogni[sz]ed|unknown|unexpected|extra.(?:inputs|forbidden|fields)"
    r"|not permitted|not allowed|not available|not enabled|does not (?:think|reason)|no field",
    re.IGNORECASE,
)

Refusal = Literal["parameter", "value", "always"]


def find_refusal(words: str) -> Refusal | None:
    """
    Return what a service refuses about thinking, by the ``words`` of its error.

    It is ``parameter`` if the model cannot think, ``value`` if it does not support the level, and
    ``always`` if it cannot answer without thinking.
    """
    if not _ABOUT_THINKING.search(words):
        return None
    if _ALWAYS.search(words):
        return "always"
    if _VALUE.search(words):
        return "value"
    return "parameter" if _PARAMETER.search(words) else None
