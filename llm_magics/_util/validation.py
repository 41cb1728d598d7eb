"""Checks of arguments, before a request is sent."""

from __future__ import annotations

import inspect
import math
import operator
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from importlib.util import find_spec
from numbers import Real
from typing import Any

from llm_magics.errors import UsageError

# From this similarity on, a name is a mistyped argument ("store" is a parameter of a service).
_MIN_SIMILARITY = 0.82


def check_texts(what: str, value: Any) -> list[str]:
    """
    Return one text as a list, or several texts as a list; ``what`` names them in errors.

    Raises:
        UsageError: the list is empty, or a value is not a string.
    """
    if isinstance(value, str):
        return [value]
    if hasattr(value, "columns") or not isinstance(value, Iterable) or isinstance(value, Mapping):
        msg = f"Invalid {what}: got {type(value).__name__}."
        raise UsageError(msg, hint="Pass a string, or a list or column of strings.")
    listed = list(value)
    if not listed:
        msg = f"{what} is empty."
        raise UsageError(msg, hint="Pass at least one text.")
    for each in listed:
        if not isinstance(each, str):
            msg = f"{what} contains a value that is not a string: {each!r:.60}."
            raise UsageError(msg, hint="Pass a string, or a list or column of strings.")
    return listed


def check_model_names(value: Any) -> list[str]:
    """
    Return the names of models as a list.

    Raises:
        UsageError: the list is empty, or a name is repeated.
    """
    named = check_texts("models", value)
    twice = next((each for each in named if named.count(each) > 1), None)
    if twice is not None:
        msg = f"{twice} is listed twice."
        raise UsageError(msg, hint="Define an alias for the second one: lm.config.aliases.")
    return named


def check_positive(what: str, value: Any, of_what: str) -> float:
    """Return ``value`` as a float, if it is a number above 0; otherwise raise `UsageError`."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not 0 < float(value) < math.inf:
        msg = f"Invalid value for {what}: {value!r:.60}."
        raise UsageError(msg, hint=f"Pass a number of {of_what} above 0.")
    return float(value)


def attribute_error(owner: object, name: str, renamed: Mapping[str, str]) -> AttributeError:
    """Return the error for a missing attribute of ``owner``, with the new name of a renamed one."""
    msg = f"{type(owner).__name__!r} object has no attribute {name!r}"
    if name in renamed:
        msg = f"{msg}. It was renamed to {renamed[name]}."
    return AttributeError(msg, name=name, obj=owner)


def check_misspelled(parameters: Iterable[str], function: Callable[..., Any]) -> None:
    """
    Check that no parameter is a mistyped argument of ``function``: a service would ignore it.

    Raises:
        UsageError: a parameter is similar to an argument.
    """
    known = list(inspect.signature(function).parameters)
    for name in parameters:
        if name in known:
            continue
        meant = get_close_matches(name, known, n=1, cutoff=_MIN_SIMILARITY)
        if meant:
            msg = f"Unknown argument: {name}."
            raise UsageError(msg, hint=f"Did you mean {meant[0]}?")


def check_integer(name: str, value: Any, *, least: int = 1, most: int | None = None) -> int:
    """Return ``value`` as an int, if it is an integer of any type within the bounds."""
    try:
        number = operator.index(value)
    except TypeError:
        number = least - 1
    is_bool = isinstance(value, bool)
    if is_bool or number < least or (most is not None and number > most):
        bounds = f"{least:,} or more" if most is None else f"from {least:,} to {most:,}"
        msg = f"Invalid value for {name}: {value!r:.60}."
        raise UsageError(msg, hint=f"Pass an integer, {bounds}.")
    return number


def check_on_error(value: Any) -> None:
    """Check that ``value`` is ``null`` or ``raise``."""
    if value not in ("null", "raise"):
        msg = f"Invalid value for on_error: {value!r:.60}."
        raise UsageError(msg, hint='Use "null" or "raise".')


def require_package(module: str, what: str, *, extra: str, package: str | None = None) -> None:
    """
    Check that ``module``, which belongs to an optional dependency, is installed.

    Args:
        module: its name in an ``import``.
        what: the feature that needs it, as the beginning of a sentence.
        extra: the extra that installs it.
        package: its name on the package index, if different.

    Raises:
        UsageError: it is not installed.
    """
    if find_spec(module) is None:
        msg = f"{what} needs {package or module}, which is not installed."
        raise UsageError(msg, hint=f'Run: pip install "jupyter-llm-magics[{extra}]"')
