"""Checks of arguments, before anything is sent."""

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
    One text as a list of it, several as they are; ``what`` they are, for people.

    Raises:
        UsageError: there is none, or something else among them.
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
    The models that are named.

    Raises:
        UsageError: there is none, or one is named twice.
    """
    named = check_texts("models", value)
    twice = next((each for each in named if named.count(each) > 1), None)
    if twice is not None:
        msg = f"{twice} is listed twice."
        raise UsageError(msg, hint="Define an alias for the second one: lm.config.aliases.")
    return named


def check_positive(what: str, value: Any, of_what: str) -> float:
    """Return ``value`` as a number above 0."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not is_number or not 0 < float(value) < math.inf:
        msg = f"Invalid value for {what}: {value!r:.60}."
        raise UsageError(msg, hint=f"Pass a number of {of_what} above 0.")
    return float(value)


def attribute_error(owner: object, name: str, renamed: Mapping[str, str]) -> AttributeError:
    """Return the error for an attribute that ``owner`` lacks; a renamed one has its new name."""
    msg = f"{type(owner).__name__!r} object has no attribute {name!r}"
    if name in renamed:
        msg = f"{msg}. It was renamed to {renamed[name]}."
    return AttributeError(msg, name=name, obj=owner)


def check_misspelled(parameters: Iterable[str], function: Callable[..., Any]) -> None:
    """
    Refuse what looks like a mistyped argument of ``function``: a service would swallow it.

    Raises:
        UsageError: one does.
    """
    known = list(inspect.signature(function).parameters)
    for name in parameters:
        meant = get_close_matches(name, known, n=1, cutoff=_MIN_SIMILARITY)
        if meant:
            msg = f"Unknown argument: {name}."
            raise UsageError(msg, hint=f"Did you mean {meant[0]}?")


def check_integer(name: str, value: Any, *, least: int = 1, most: int | None = None) -> int:
    """``value`` as a number of things, of whatever kind of integer it is."""
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
    """``null`` or ``raise``."""
    if value not in ("null", "raise"):
        msg = f"Invalid value for on_error: {value!r:.60}."
        raise UsageError(msg, hint='Use "null" or "raise".')


def require_package(module: str, what: str, *, extra: str, package: str | None = None) -> None:
    """
    Check that ``module``, which belongs to an optional dependency, is installed.

    Args:
        module: its name in an ``import``.
        what: what needs it, at the beginning of a sentence.
        extra: the extra that installs it.
        package: its name on the package index, where that differs.

    Raises:
        UsageError: it is not installed.
    """
    if find_spec(module) is None:
        msg = f"{what} needs {package or module}, which is not installed."
        raise UsageError(msg, hint=f'Run: pip install "llm_magics[{extra}]"')
