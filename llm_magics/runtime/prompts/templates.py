"""Render ``{{ name }}`` in a prompt with the notebook's variables, in Jinja's sandbox."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from llm_magics._util.table_text import describe_table, format_table, is_table, summarize_table
from llm_magics.errors import TemplateError, nearest

if TYPE_CHECKING:
    import jinja2
    from jinja2.nodes import Template
    from jinja2.sandbox import SandboxedEnvironment


def _as_function(kind: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a type as a plain function, because its methods would lead out of the sandbox."""

    def convert(*values: Any) -> Any:
        return kind(*values)

    return convert


# Python functions that users expect in an expression; Jinja has filters instead.
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    function.__name__: _as_function(function)
    for function in (len, str, int, float, round, sorted, sum, min, max, abs, list, repr, zip)
}

_NOTE = "_llm_magics_note"

# Jinja's default comment marks, {# and #}, are too common in prompts.
_SYNTAX: dict[str, Any] = {"comment_start_string": "{{#", "comment_end_string": "#}}"}

_RAW_HINT = "To send literal braces, put them between {% raw %} and {% endraw %}."


@dataclass(frozen=True, slots=True)
class Substitution:
    """A rendered ``{{ … }}``: the names in it, the kind of its value, and its text's length."""

    names: tuple[str, ...]
    kind: str
    characters: int


def render(
    text: str,
    variables: Mapping[str, Any],
    note: Callable[[Substitution], None] | None = None,
    *,
    is_foreign: bool = False,
) -> str:
    """
    Return ``text`` with its ``{{ … }}`` rendered; other text is unchanged.

    Args:
        text: the prompt.
        variables: the values of the names in it.
        note: called with each substitution.
        is_foreign: whether it is from a file that others may have written. It can then only read
            copies of the data that it names, cannot call functions of the notebook, and has limits
            of size and time.

    Raises:
        TemplateError: a name is not defined, an expression fails, braces do not match, or a
            template of a file uses an object that is not data, or exceeds its limits.
    """
    if "{{" not in text and "{%" not in text:
        return text
    import jinja2

    try:
        if is_foreign:
            return _render_foreign(text, variables, note)
        if note is None:
            return _compiled(text).render(variables)
        environment = _environment()
        tree = environment.parse(text)
        _have_noted(tree)
        environment.globals[_NOTE] = _noting(note, _display_value)
        return environment.from_string(tree).render(variables)
    except jinja2.TemplateSyntaxError as error:
        msg = f"Line {error.lineno} of the prompt: {str(error.message).rstrip('.')}."
        raise TemplateError(msg, hint=_RAW_HINT) from None
    except jinja2.UndefinedError as error:
        raise _undefined(str(error.message), variables) from None
    except TemplateError:
        raise
    except Exception as error:
        msg = f"An expression in the prompt failed: {type(error).__name__}: {error}"
        raise TemplateError(
            msg, hint="Run the expression in its own cell to see the error."
        ) from error


def _render_foreign(
    text: str, variables: Mapping[str, Any], note: Callable[[Substitution], None] | None
) -> str:
    from llm_magics.sandbox.environment import Sandbox, copy_named_data

    sandbox = Sandbox(_FUNCTIONS, **_SYNTAX)
    tree = sandbox.parse(text)
    data = copy_named_data(find_names(text), variables)
    if note is not None:
        _have_noted(tree)
        sandbox.add_function(_NOTE, _noting(note, sandbox.display_text))
    return sandbox.fill_in(text, tree, data)


@lru_cache(maxsize=16)
def _compiled(text: str) -> jinja2.Template:
    """Compile one of the user's own templates, once for all rows."""
    return _environment().from_string(text)


def find_names(text: str, *, with_functions: bool = False) -> set[str]:
    """Return the variables that ``text`` uses; function names only with ``with_functions``."""
    import jinja2
    from jinja2 import meta

    environment = _environment()
    environment.finalize = jinja2.pass_context(lambda _, value: value)
    if with_functions:  # otherwise Jinja omits them
        environment.globals.clear()
    try:
        tree = environment.parse(text)
        search = meta.TrackingCodeGenerator(environment)
        # The optimizer would evaluate constants without a time limit: {{ 10 ** 10 ** 10 }}.
        search.optimizer = None
        search.visit(tree)
        return search.undeclared_identifiers - set(environment.globals)
    except (jinja2.TemplateSyntaxError, RecursionError):
        return set()


def find_row_keys(text: str, name: str) -> set[str] | None:
    """
    Return the keys of the mapping ``name`` that ``text`` reads: ``row["a b"]``, ``row.a``.

    Return ``None`` if the text uses the mapping in another way, and may need all of its keys.
    """
    import jinja2
    from jinja2 import nodes

    try:
        tree = _environment().parse(text)
    except jinja2.TemplateSyntaxError:
        return set()
    reads = sum(node.name == name for node in tree.find_all(nodes.Name))
    keys: list[Any] = []
    for node in tree.find_all(nodes.Expr):
        if not isinstance(node, nodes.Getitem | nodes.Getattr):
            continue
        if not isinstance(node.node, nodes.Name) or node.node.name != name:
            continue
        if isinstance(node, nodes.Getattr):
            keys.append(node.attr)
        elif isinstance(node.arg, nodes.Const):
            keys.append(node.arg.value)
    return set(keys) if len(keys) == reads else None


def list_filters() -> list[str]:
    """Return the names of the filters that can be used in an expression."""
    return list(_environment().filters)


def _environment() -> SandboxedEnvironment:
    import jinja2
    from jinja2.sandbox import SandboxedEnvironment

    environment = SandboxedEnvironment(
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        finalize=_display_value,
        **_SYNTAX,
    )
    environment.filters |= {"table": format_table, "describe": describe_table}
    environment.globals |= _FUNCTIONS
    return environment


def _display_value(value: Any) -> Any:
    # Ends with a newline, because text right after a table would be read as a part of it.
    return f"{summarize_table(value)}\n" if is_table(value) else value


def _have_noted(tree: Template) -> None:
    """Pass every value that is inserted into the text through a function, with its names."""
    from jinja2 import nodes

    for output in tree.find_all(nodes.Output):
        for index, part in enumerate(output.nodes):
            if isinstance(part, nodes.TemplateData):
                continue
            within = [part, *part.find_all(nodes.Name)]
            names = dict.fromkeys(each.name for each in within if isinstance(each, nodes.Name))
            arguments: list[nodes.Expr] = [nodes.Const(tuple(names)), part]
            call = nodes.Call(nodes.Name(_NOTE, "load"), arguments, [], None, None)
            call.set_lineno(part.lineno)
            output.nodes[index] = call


def _noting(
    note: Callable[[Substitution], None], display: Callable[[Any], Any]
) -> Callable[[tuple[str, ...], Any], Any]:
    def noted(names: tuple[str, ...], value: Any) -> Any:
        note(Substitution(names, _kind(value), len(str(display(value)))))
        return value

    return noted


def _kind(value: Any) -> str:
    """Return the type of a value, and its size if it has one."""
    name = type(value).__name__
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"{name} {' x '.join(f'{each:,}' for each in shape)}"
    if isinstance(value, list | tuple | dict | set):
        return f"{name} of {len(value):,}"
    return name


def _undefined(message: str, variables: Mapping[str, Any]) -> TemplateError:
    name = message.split("'")[1] if "'" in message else ""
    if message != f"'{name}' is undefined":  # an attribute or item, not a name
        msg = f"Could not render the prompt: {message}."
        return TemplateError(msg, hint="Run the expression in its own cell to see the error.")
    known = [known for known in variables if not known.startswith("_")]
    msg = f"The prompt uses {{{{ {name} }}}}, but the variable {name} is not defined."
    guess = nearest(name, known, listed=False)
    how = f"Define {name} in an earlier cell, or pass it with -p {name}=… (in Python: variables={{…}})."
    return TemplateError(msg, hint=f"{guess} {how}".strip())
