"""Arguments that are wrong are told of before anything is sent."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from numbers import Real
from typing import Any

from llm_magics.errors import UsageError

# So like an argument of ours is no parameter of a service. ("store" is one, and like "score".)
_LIKE = 0.82


def texts(what: str, given: Any) -> list[str]:
    """
    One text as a list of it, several as they are; ``what`` they are, for people.

    Raises:
        UsageError: there is none, or something else among them.
    """
    if isinstance(given, str):
        return [given]
    if hasattr(given, "columns") or not isinstance(given, Iterable) or isinstance(given, Mapping):
        msg = f"{what} cannot be a {type(given).__name__}."
        raise UsageError(msg, hint="Give it a text, or a list or column of texts.")
    listed = list(given)
    if not listed:
        msg = f"There is nothing to ask: {what} has none."
        raise UsageError(msg, hint="Give it one text at least.")
    for each in listed:
        if not isinstance(each, str):
            msg = f"{what} has something else than texts: {each!r:.60}."
            raise UsageError(msg, hint="Give it a text, or a list or column of texts.")
    return listed


def models(given: Any) -> list[str]:
    """
    The models that are named.

    Raises:
        UsageError: there is none, or one is named twice.
    """
    named = texts("models", given)
    twice = next((each for each in named if named.count(each) > 1), None)
    if twice is not None:
        msg = f"{twice} is named twice."
        raise UsageError(msg, hint="Give its second form a short name: lm.config.aliases.")
    return named


def number(what: str, given: Any, of_what: str) -> float:
    """``given`` as a number above 0."""
    is_number = isinstance(given, Real) and not isinstance(given, bool)
    if not is_number or not 0 < float(given) < math.inf:
        msg = f"{what} cannot be {given!r:.60}."
        raise UsageError(msg, hint=f"Give it a number of {of_what}, above 0.")
    return float(given)


def refuse_slips(parameters: Iterable[str], function: Callable[..., Any]) -> None:
    """
    Refuse what looks like a mistyped argument of ``function``: a service would swallow it.

    Raises:
        UsageError: one does.
    """
    known = list(inspect.signature(function).parameters)
    for name in parameters:
        meant = get_close_matches(name, known, n=1, cutoff=_LIKE)
        if meant:
            msg = f"There is no argument {name}."
            raise UsageError(msg, hint=f"Did you mean {meant[0]}?")
