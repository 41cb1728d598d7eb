"""
Digests of functions, by which a run is continued only with the same function.

A digest covers the code of a function, its helpers in the same module or notebook, and the constants
that it uses. Lists, sets and mappings count only if their name is in capitals: others, such as a
cache, are often changed by the function itself.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import CodeType, FunctionType
from typing import Any

from llm_magics.benchmarking.evaluation import parse_scorers
from llm_magics.benchmarking.judge import Judge
from llm_magics.evaluations.items import digest_of
from llm_magics.runtime.session import session

_LAMBDA = "<lambda>"
# Values of these types are written with ``repr``, which is the same in all processes.
_SIMPLE = (str, bytes, int, float, complex, type(None))


def source_of(function: Any) -> str:
    """Return the code of a function or class, or its name if the code cannot be read."""
    return _source(function) or str(getattr(function, "__qualname__", type(function).__qualname__))


def function_name(function: Callable[..., Any]) -> str:
    """Return the name of a function, that of the class of another callable, or ``function``."""
    while isinstance(function, partial):
        function = function.func
    name = str(getattr(function, "__name__", type(function).__name__))
    return "function" if name == _LAMBDA else name


def function_digest(function: Callable[..., Any]) -> str:
    """Return a digest of the code of a function, its helpers and the constants that it uses."""
    return digest_of(_describe(function, set()))


def score_digests(score: Any) -> dict[str, str]:
    """Return a digest of each score by name: of its code, or of the model and criteria of a judge."""
    return {
        each.name: digest_of(
            [each.model or str(session.config.model), each.criteria]
            if isinstance(each, Judge)
            else function_digest(each.score)
        )[:12]
        for each in parse_scorers(score)
    }


def _source(function: Any) -> str | None:
    try:
        return textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        return None


def _describe(function: Any, seen: set[Any]) -> list[Any]:
    """Return what makes a function different from others; ``seen`` has the functions above it."""
    if isinstance(function, partial):
        values: dict[Any, Any] = {**dict(enumerate(function.args)), **function.keywords}
        return ["partial", _describe(function.func, seen), _constants(values)]
    own = inspect.unwrap(function)
    if inspect.ismethod(own):
        return ["method", _describe(own.__func__, seen), _attributes(own.__self__)]
    if isinstance(own, FunctionType):
        return _describe_function(own, seen)
    call = inspect.unwrap(type(own).__call__)
    if isinstance(call, FunctionType):
        return ["object", _describe_function(call, seen), _attributes(own)]
    return [source_of(own)]


def _describe_function(function: FunctionType, seen: set[Any]) -> list[Any]:
    code = function.__code__
    if function in seen:
        return [function.__qualname__]
    seen.add(function)
    # The source of a lambda is the whole statement around it.
    source = None if code.co_name == _LAMBDA else _source(function)
    used = _used_values(function)
    return [
        _compiled(code) if source is None else source,
        _constants(dict(enumerate(function.__defaults__ or ()))),
        _constants(function.__kwdefaults__ or {}),
        _constants(used),
        *_helpers(function, used, seen),
    ]


def _used_values(function: FunctionType) -> dict[str, Any]:
    """Return the values of the names outside the function that its code reads."""
    names = sorted({name for code in _codes(function.__code__) for name in code.co_names})
    values = {name: function.__globals__[name] for name in names if name in function.__globals__}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in cells:
        try:
            values[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return values


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield the code and that of the functions inside it."""
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


def _helpers(
    function: FunctionType, used: Mapping[str, Any], seen: set[Any]
) -> Iterator[list[Any]]:
    """Yield the functions and classes of the same module that a function uses."""
    for name, value in used.items():
        if getattr(value, "__module__", None) != function.__module__:
            continue
        if isinstance(value, FunctionType | partial):
            yield [name, *_describe(value, seen)]
        elif inspect.isclass(value):
            yield [name, source_of(value)]


def _attributes(value: Any) -> list[list[str]]:
    return [] if inspect.isclass(value) else _constants(getattr(value, "__dict__", {}))


def _constants(values: Mapping[Any, Any]) -> list[list[str]]:
    """Return the constants among named values, as texts in the order of their names."""
    texts = [
        (str(name), _text(value, is_capital=str(name).isupper())) for name, value in values.items()
    ]
    return sorted([name, text] for name, text in texts if text is not None)


def _text(value: Any, *, is_capital: bool) -> str | None:
    """Return a constant as a text; ``None`` for other values."""
    if isinstance(value, _SIMPLE):
        return repr(value)
    if isinstance(value, re.Pattern):
        return repr((value.pattern, value.flags))
    pairs: list[tuple[Any, ...]] | None = None
    if isinstance(value, tuple | frozenset) or (is_capital and isinstance(value, list | set)):
        pairs = [(each,) for each in value]
    elif is_capital and isinstance(value, dict):
        pairs = list(value.items())
    if pairs is None:
        return None
    texts = [[_text(each, is_capital=is_capital) for each in pair] for pair in pairs]
    if any(text is None for pair in texts for text in pair):
        return None
    has_order = isinstance(value, tuple | list)
    lines = [" ".join(map(str, pair)) for pair in texts]
    return f"{type(value).__name__}({', '.join(lines if has_order else sorted(lines))})"


def _compiled(code: CodeType) -> str:
    constants = [
        _compiled(each)
        if isinstance(each, CodeType)
        else _text(each, is_capital=False) or repr(each)
        for each in code.co_consts
    ]
    return f"{code.co_code.hex()} {code.co_names} {constants}"
