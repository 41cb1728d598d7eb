"""``{{ name }}`` in a prompt: filled in from the notebook's variables, in Jinja's sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llm_magics import tables
from llm_magics.errors import TemplateError, nearest

# Python's own, which people expect in an expression; Jinja has filters in their place.
_FUNCTIONS: dict[str, Any] = {
    function.__name__: function
    for function in (len, str, int, float, round, sorted, sum, min, max, abs, list, repr, zip)
}

_RAW_HINT = "To send braces as they are, put them between {% raw %} and {% endraw %}."


def render(text: str, variables: Mapping[str, Any]) -> str:
    """
    ``text`` with its ``{{ … }}`` filled in; text without any is left exactly as it is.

    Raises:
        TemplateError: a name is not defined, an expression fails, or braces do not match.
    """
    if "{{" not in text and "{%" not in text:
        return text
    import jinja2
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        # Jinja's own comment marks, {# and #}, stand in too many prompts by chance.
        comment_start_string="{{#",
        comment_end_string="#}}",
        finalize=lambda value: tables.summary(value) if tables.is_table(value) else value,
    )
    environment.filters |= {"table": tables.table, "describe": tables.describe}
    environment.globals |= _FUNCTIONS
    try:
        return environment.from_string(text).render(variables)
    except jinja2.TemplateSyntaxError as error:
        msg = f"Line {error.lineno} of the prompt: {str(error.message).rstrip('.')}."
        raise TemplateError(msg, hint=_RAW_HINT) from None
    except jinja2.UndefinedError as error:
        raise _undefined(str(error.message), variables) from None
    except TemplateError:
        raise
    except Exception as error:
        msg = f"An expression in the prompt failed: {type(error).__name__}: {error}"
        raise TemplateError(msg, hint="Try the expression in a cell of its own.") from error


def _undefined(message: str, variables: Mapping[str, Any]) -> TemplateError:
    name = message.split("'")[1] if "'" in message else ""
    if message != f"'{name}' is undefined":  # an attribute or item, not a name
        msg = f"The prompt cannot be filled in: {message}."
        return TemplateError(msg, hint="Try the expression in a cell of its own.")
    known = [known for known in variables if not known.startswith("_")]
    msg = f"The prompt names {{{{ {name} }}}}, and there is no variable {name}."
    guess = nearest(name, known, listed=False)
    return TemplateError(msg, hint=f"Define {name} in a cell before. {guess}".strip())
