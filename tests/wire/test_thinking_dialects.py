"""The parameters for thinking of each service, and its words where a model refuses them."""

from __future__ import annotations

from typing import Any

import pytest

from llm_magics import ModelParameters, errors
from llm_magics.wire.thinking import (
    BUDGETS,
    DIALECTS,
    EFFORT,
    NO_THINKING,
    TEMPLATE,
    UNKNOWN_RULES,
    ThinkingDialect,
    ThinkingRules,
    add_thinking,
    find_refusal,
    find_rules,
    template_rules,
)


@pytest.mark.parametrize(
    ("name", "off", "low"),
    [
        ("reasoning_effort", {"reasoning_effort": "none"}, {"reasoning_effort": "low"}),
        ("reasoning_object", {"reasoning": {"effort": "none"}}, {"reasoning": {"effort": "low"}}),
        (
            "reasoning_summary",
            {"reasoning": {"effort": "none"}},
            {"reasoning": {"effort": "low", "summary": "auto"}},
        ),
        (
            "thinking_type",
            {"thinking": {"type": "disabled"}},
            {"thinking": {"type": "enabled"}},
        ),
        (
            "enable_thinking",
            {"enable_thinking": False},
            {"enable_thinking": True, "thinking_budget": BUDGETS["low"]},
        ),
        (
            "template_enable_thinking",
            {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}},
            {
                "chat_template_kwargs": {
                    "enable_thinking": True,
                    "thinking": True,
                    "reasoning_effort": "low",
                }
            },
        ),
    ],
)
def test_each_dialect_has_its_own_fields(
    name: str, off: dict[str, Any], low: dict[str, Any]
) -> None:
    """And none for ``None``: the service decides."""
    dialect = ThinkingDialect(name=name)
    assert dialect.fields(False) == off
    assert dialect.fields("low") == low
    assert dialect.fields(None) == {}


def test_no_dialect_was_forgotten() -> None:
    """Each accepts every level, also those that only some services know."""
    for name in DIALECTS:
        for level in (False, True, *BUDGETS):
            assert ThinkingDialect(name=name).fields(level)


def test_a_service_has_its_own_names_of_levels() -> None:
    """One that can only be switched on has the same name for all."""
    dialect = ThinkingDialect(levels={"low": "high", "medium": "high"})
    assert dialect.fields("low") == dialect.fields(True) == {"reasoning_effort": "high"}


def test_fields_of_the_user_take_precedence() -> None:
    """Those inside an object are merged."""
    body = {"reasoning_effort": "xhigh"}
    assert add_thinking(body, EFFORT, "low") == body
    own = {"chat_template_kwargs": {"thinking": False, "a": 1}}
    merged = add_thinking(own, TEMPLATE, "low")["chat_template_kwargs"]
    assert merged == {
        "enable_thinking": True,
        "thinking": False,
        "reasoning_effort": "low",
        "a": 1,
    }


# Real messages of services, and what they refuse.
_REFUSALS = [
    # OpenAI, gpt-4o and gpt-5.1
    ("Unrecognized request argument supplied: reasoning_effort", "parameter"),
    (
        "Unsupported parameter: 'reasoning_effort' is not supported with this model.",
        "parameter",
    ),
    (
        "Unsupported value: 'minimal' is not supported with the 'gpt-5.1' model. reasoning.effort",
        "value",
    ),
    # OpenRouter
    ("Reasoning is mandatory for this endpoint and cannot be disabled.", "always"),
    (
        'reasoning.effort: Invalid option: expected one of "max"|"xhigh"|"high"|"medium"|"low"',
        "value",
    ),
    # xAI, Groq, Mistral, Ollama, Gemini, DashScope
    ("Model grok-4 does not support parameter reasoningEffort.", "parameter"),
    ("`reasoning_effort` is not supported with this model", "parameter"),
    ("`reasoning_effort` must be one of `low`, `medium`, or `high`", "value"),
    ("body.reasoning_effort: Extra inputs are not permitted extra_forbidden", "parameter"),
    ('"smollm2:135m" does not support thinking', "parameter"),
    ('think value "low" is not supported for this model', "value"),
    ("Budget 0 is invalid. This model only works in thinking mode.", "always"),
    ("The value of the enable_thinking parameter is restricted to True.", "always"),
    # not about thinking
    ("Unsupported parameter: 'temperature' is not supported with this model.", None),
    ("This model's maximum context length is 4096 tokens.", None),
    ("I think you sent too much", None),
]


@pytest.mark.parametrize(("words", "refused"), _REFUSALS)
def test_a_refusal_is_recognised_by_its_words(words: str, refused: str | None) -> None:
    """What is refused decides whether the request is sent again."""
    assert find_refusal(words) == refused


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("off", False),
        ("none", False),
        (" High ", "high"),
        ("on", True),
        (True, True),
        (None, None),
    ],
)
def test_levels_have_one_form(value: Any, expected: Any) -> None:
    """So that the same request is found in caches and recordings."""
    assert ModelParameters(reasoning=value).reasoning == expected


@pytest.mark.parametrize("value", ["hgih", "", 3, ["low"]])
def test_other_levels_are_an_error(value: Any) -> None:
    """Before anything is sent."""
    with pytest.raises(errors.ConfigurationError, match="reasoning"):
        ModelParameters(reasoning=value)


def test_the_first_rule_that_matches_counts() -> None:
    """Patterns ignore case, and no match is unknown."""
    rules = (NO_THINKING, ThinkingRules(thinks=True))
    assert find_rules(rules, "any") is NO_THINKING
    mini = ThinkingRules(models=("mini-*",), thinks=False)
    assert find_rules((mini, rules[1]), "MINI-1") is mini
    assert find_rules((mini,), "maxi") is UNKNOWN_RULES


@pytest.mark.parametrize(
    ("template", "thinks", "is_optional"),
    [
        ("{% if enable_thinking %}<think>{% endif %}", True, True),
        ("Reasoning: {{ reasoning_effort }}", True, False),
        ("{{ messages }}<think>\n", None, False),
        ("{{ messages }}", False, None),
    ],
)
def test_a_template_tells_what_a_model_supports(
    template: str, thinks: bool | None, is_optional: bool | None
) -> None:
    """Of models on this machine."""
    rules = template_rules(template)
    assert (rules.thinks, rules.is_optional) == (thinks, is_optional)
