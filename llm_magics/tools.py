"""Python functions as tools for models: schemas from type hints and docstrings, and calls."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, get_type_hints

from llm_magics._util.text import escape_invisible
from llm_magics.errors import ConfigurationError, LLMError, nearest
from llm_magics.parameters import Tool
from llm_magics.schemas import close_objects
from llm_magics.secrets import redact
from llm_magics.types import ToolCall

if TYPE_CHECKING:
    from pydantic import BaseModel

Function = Callable[..., Any]

_UNCALLABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def create_tool(function: Function | Tool) -> Tool:
    """
    Return ``function`` as a tool: its name, its docstring, and a schema of its arguments.

    Raises:
        ConfigurationError: the arguments cannot be described by a JSON schema.
    """
    if isinstance(function, Tool):
        return function
    from docstring_parser import parse

    docstring = parse(inspect.getdoc(function) or "")
    about = {each.arg_name: each.description or "" for each in docstring.params}
    words = [docstring.short_description or "", docstring.long_description or ""]
    schema = _arguments_model(function).model_json_schema()
    for name, described in schema.get("properties", {}).items():
        described.pop("title", None)
        if about.get(name):
            described.setdefault("description", about[name])
    schema.pop("title", None)
    schema.setdefault("properties", {})
    return Tool(_name_of(function), "\n\n".join(filter(None, words)), close_objects(schema))


def _name_of(function: Function) -> str:
    name = getattr(function, "__name__", "")
    if not name.isidentifier():
        msg = f"{function!r} has no name for a model to call."
        raise ConfigurationError(msg, hint="Define it with def.")
    return str(name)


def _arguments_model(function: Function) -> type[BaseModel]:
    """Return a pydantic class for the arguments of the function."""
    from pydantic import ConfigDict, create_model
    from pydantic.errors import PydanticUserError

    name = _name_of(function)
    parameters = inspect.signature(function).parameters
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        msg = f"Could not describe the arguments of {name} to a model: {error}"
        raise ConfigurationError(msg, hint="Use types that JSON supports.") from None
    fields: dict[str, Any] = {}
    for each in parameters.values():
        if each.kind in _UNCALLABLE or each.kind is inspect.Parameter.POSITIONAL_ONLY:
            msg = f"{name} takes {each}, which a model cannot pass."
            raise ConfigurationError(msg, hint="Use named arguments.")
        default = ... if each.default is inspect.Parameter.empty else each.default
        fields[each.name] = (hints.get(each.name, Any), default)
    try:
        model: type[BaseModel] = create_model(
            name, __config__=ConfigDict(extra="forbid", protected_namespaces=()), **fields
        )
        model.model_json_schema()
        if set(fields) != set(model.model_fields):
            msg = "an argument has a reserved name"
            raise NameError(msg)
    except (PydanticUserError, NameError) as error:
        first = str(error).splitlines()[0]
        msg = f"Could not describe the arguments of {name} to a model: {first}"
        raise ConfigurationError(msg, hint="Use types that JSON supports.") from None
    return model


def _run_in_thread(work: Coroutine[Any, Any, Any]) -> Any:
    """Run ``work`` on a new event loop in a thread, because the notebook's loop is running."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


async def _await(result: Awaitable[Any]) -> Any:
    return await result


class Toolbox:
    """The functions that a model may call, by name."""

    def __init__(
        self,
        functions: Iterable[Function],
        run_coroutine: Callable[[Coroutine[Any, Any, Any]], Any] = _run_in_thread,
    ) -> None:
        """Create a toolbox of ``functions``; ``run_coroutine`` runs the coroutines they return."""
        self._run_coroutine = run_coroutine
        self._functions: dict[str, Function] = {}
        for each in functions:
            name = _name_of(each)
            if name in self._functions:
                msg = f"Two tools are named {name}."
                raise ConfigurationError(msg, hint="Rename one of them.")
            self._functions[name] = each
        self.tools = tuple(create_tool(each) for each in self._functions.values())

    def __contains__(self, name: str) -> bool:
        return name in self._functions

    def call(
        self, call: ToolCall, note_error: Callable[[Exception], None] = lambda error: None
    ) -> str:
        """
        Call the function and return its result as text for the model.

        The arguments are validated. Errors are returned as text, so that the model can correct its
        call; ``note_error`` also gets them.
        """
        function = self._functions.get(call.name)
        if function is None:
            return f"Error: unknown tool {call.name}. {nearest(call.name, self._functions)}"
        try:
            checked = _arguments_model(function)(**call.arguments)
            arguments = {name: getattr(checked, name) for name in type(checked).model_fields}
            result = function(**arguments)
            return format_result(
                self._run_coroutine(_await(result)) if inspect.isawaitable(result) else result
            )
        except Exception as error:  # the user's function may raise any error
            note_error(error)
            return redact(f"Error: {type(error).__name__}: {error}")[:2000]


def format_result(result: Any) -> str:
    """Return a result as text for the model: a string unchanged, other values as JSON."""
    if isinstance(result, str):
        return result
    if hasattr(result, "model_dump"):
        result = result.model_dump(mode="json")
    try:
        return json.dumps(result, ensure_ascii=False, default=_to_json_value)
    except (TypeError, ValueError):
        return str(result)


def _to_json_value(value: Any) -> Any:
    """Return a JSON value: tables, arrays and dates are converted, other values become text."""
    for name in ("to_dict", "tolist", "isoformat"):
        if hasattr(value, name):
            return value.to_dict("records") if _is_frame(value) else getattr(value, name)()
    return dict(value) if isinstance(value, Mapping) else str(value)


def _is_frame(value: Any) -> bool:
    return type(value).__name__ == "DataFrame"


def format_call(call: ToolCall) -> str:
    """
    Return the call with all its arguments, one per line, for the confirmation.

    The text is complete. Invisible and bidirectional characters in it are escaped.
    """
    name = escape_invisible(call.name)
    try:
        arguments = call.arguments
    except LLMError:
        return f"{name}, with arguments that are not a JSON object:\n    {escape_invisible(call.arguments_text)}"
    if not arguments:
        return f"{name}, without arguments."
    lines = [
        f"    {escape_invisible(each)}: {format_json(value)}" for each, value in arguments.items()
    ]
    return "\n".join([f"{name}:", *lines])


def truncate(text: str, most: int) -> str:
    """Return the first ``most`` characters of ``text``, with the number of omitted characters."""
    left = len(text) - most
    return text if left <= 0 else f"{text[:most]}\n[… {left:,} more characters left out]"


def format_json(value: Any) -> str:
    """Return a value as JSON, with invisible characters escaped."""
    return escape_invisible(json.dumps(value, ensure_ascii=False))
