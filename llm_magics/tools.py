"""Python functions as tools of a model: described from their hints and docstrings, and called."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, get_type_hints

from llm_magics.errors import ConfigurationError, nearest
from llm_magics.parameters import Tool
from llm_magics.schemas import closed
from llm_magics.secrets import redact
from llm_magics.types import ToolCall

if TYPE_CHECKING:
    from pydantic import BaseModel

Function = Callable[..., Any]

_UNCALLABLE = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def tool_of(function: Function | Tool) -> Tool:
    """
    ``function`` as a tool: its name, what its docstring says, and a schema of its arguments.

    Raises:
        ConfigurationError: its arguments cannot be told to a model.
    """
    if isinstance(function, Tool):
        return function
    from docstring_parser import parse

    told = parse(inspect.getdoc(function) or "")
    about = {each.arg_name: each.description or "" for each in told.params}
    words = [told.short_description or "", told.long_description or ""]
    schema = _arguments_of(function).model_json_schema()
    for name, described in schema.get("properties", {}).items():
        described.pop("title", None)
        if about.get(name):
            described.setdefault("description", about[name])
    schema.pop("title", None)
    schema.setdefault("properties", {})
    return Tool(_name_of(function), "\n\n".join(filter(None, words)), closed(schema))


def _name_of(function: Function) -> str:
    name = getattr(function, "__name__", "")
    if not name.isidentifier():
        msg = f"{function!r} has no name that a model could call."
        raise ConfigurationError(msg, hint="Give it a name with def.")
    return str(name)


def _arguments_of(function: Function) -> type[BaseModel]:
    """A pydantic class of the function's arguments."""
    from pydantic import ConfigDict, create_model
    from pydantic.errors import PydanticUserError

    name = _name_of(function)
    parameters = inspect.signature(function).parameters
    try:
        hints = get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        msg = f"The arguments of {name} cannot be told to a model: {error}"
        raise ConfigurationError(msg, hint="Use types that JSON has.") from None
    fields: dict[str, Any] = {}
    for each in parameters.values():
        if each.kind in _UNCALLABLE or each.kind is inspect.Parameter.POSITIONAL_ONLY:
            msg = f"{name} takes {each}, which a model cannot give."
            raise ConfigurationError(msg, hint="Use arguments with names.")
        default = ... if each.default is inspect.Parameter.empty else each.default
        fields[each.name] = (hints.get(each.name, Any), default)
    try:
        made: type[BaseModel] = create_model(
            name, __config__=ConfigDict(extra="forbid", protected_namespaces=()), **fields
        )
        made.model_json_schema()
        if set(fields) != set(made.model_fields):
            msg = "an argument has a name that is kept for other uses"
            raise NameError(msg)
    except (PydanticUserError, NameError) as error:
        first = str(error).splitlines()[0]
        msg = f"The arguments of {name} cannot be told to a model: {first}"
        raise ConfigurationError(msg, hint="Use types that JSON has.") from None
    return made


def _on_its_own_loop(work: Coroutine[Any, Any, Any]) -> Any:
    """The notebook's own loop runs already: the work gets another, in another thread."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


async def _of(result: Awaitable[Any]) -> Any:
    return await result


class Toolbox:
    """The functions that a model may call, by name."""

    def __init__(
        self,
        functions: Iterable[Function],
        wait_for: Callable[[Coroutine[Any, Any, Any]], Any] = _on_its_own_loop,
    ) -> None:
        """Hold ``functions``; what async ones give is waited for by ``wait_for``."""
        self._wait_for = wait_for
        self._functions: dict[str, Function] = {}
        for each in functions:
            name = _name_of(each)
            if name in self._functions:
                msg = f"Two tools are called {name}."
                raise ConfigurationError(msg, hint="Give one of them another name.")
            self._functions[name] = each
        self.tools = tuple(tool_of(each) for each in self._functions.values())

    def __contains__(self, name: str) -> bool:
        return name in self._functions

    def call(self, call: ToolCall) -> str:
        """
        What the function gave, as text for the model.

        Its arguments are checked, and whatever goes wrong is told to the model: it may know
        better the next time.
        """
        function = self._functions.get(call.name)
        if function is None:
            return f"Error: there is no tool {call.name}. {nearest(call.name, self._functions)}"
        try:
            checked = _arguments_of(function)(**call.arguments)
            given = {name: getattr(checked, name) for name in type(checked).model_fields}
            result = function(**given)
            return result_text(
                self._wait_for(_of(result)) if inspect.isawaitable(result) else result
            )
        except Exception as error:  # the function is the user's own
            return redact(f"Error: {type(error).__name__}: {error}")[:2000]


def result_text(result: Any) -> str:
    """What a function gave, as a model reads it: a text as it is, all else as JSON."""
    if isinstance(result, str):
        return result
    if hasattr(result, "model_dump"):
        result = result.model_dump(mode="json")
    try:
        return json.dumps(result, ensure_ascii=False, default=_plain)
    except (TypeError, ValueError):
        return str(result)


def _plain(value: Any) -> Any:
    """What JSON has no word for: tables and arrays by their own, all else by its text."""
    for name in ("to_dict", "tolist", "isoformat"):
        if hasattr(value, name):
            return value.to_dict("records") if _is_frame(value) else getattr(value, name)()
    return dict(value) if isinstance(value, Mapping) else str(value)


def _is_frame(value: Any) -> bool:
    return type(value).__name__ == "DataFrame"
