"""Copies of the caller's data for a template that must not change it, nor see more than data."""

from __future__ import annotations

import datetime as dt
import decimal
import sys
import uuid
from collections import ChainMap, Counter, OrderedDict, UserDict, defaultdict, deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from llm_magics.errors import TemplateError
from llm_magics.sandbox.frames import facade

_MOST_ITEMS = 1_000_000
_DEEPEST = 60
_SAME = (
    type(None),
    bool,
    int,
    float,
    complex,
    str,
    decimal.Decimal,
    dt.date,
    dt.datetime,
    dt.time,
    dt.timedelta,
    uuid.UUID,
)
_MAPPINGS = (dict, OrderedDict, defaultdict, Counter, ChainMap, UserDict, MappingProxyType)
# Values in the cells of tables that cannot be changed.
_CELLS = frozenset({"Timestamp", "Timedelta", "NaTType", "NAType", "Period", "Interval"})
_HINT = (
    "A prompt file sees texts, numbers, lists, mappings and tables; make one of them in a cell."
)


def data_named(names: set[str], variables: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return read-only copies of those of ``variables`` that a template names.

    Raises:
        TemplateError: one of them is no data, or too large to be copied.
    """
    found = {}
    for name in names & set(variables):
        try:
            found[name] = copied(variables[name])
        except _TooMuchError as error:
            msg = f"The template names {{{{ {name} }}}}, which {error}."
            raise TemplateError(msg, hint="Pass on a part of it, or a DataFrame.") from None
        except _NoDataError as error:
            holds = "is" if type(variables[name]).__name__ == str(error) else "holds"
            msg = f"The template names {{{{ {name} }}}}, and {name} {holds} a {error}."
            raise TemplateError(msg, hint=_HINT) from None
    return found


def users_own(variables: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return ``variables`` without what IPython itself put into the notebook's namespace.

    That is its history (``In``, ``_i3``), its outputs (``Out``, ``_``, ``_3``) and its functions.
    A name that the user has given another value is the user's own.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None:
        return dict(variables)
    nothing = object()
    hidden = shell.user_ns_hidden
    history = [
        getattr(shell.history_manager, name, nothing)
        for name in ("input_hist_parsed", "input_hist_raw", "output_hist", "dir_hist")
    ]
    return {
        name: value
        for name, value in variables.items()
        if hidden.get(name, nothing) is not value and not any(value is each for each in history)
    }


class _NoDataError(Exception):
    """A value is neither data nor a table; its message is the name of its type."""


class _TooMuchError(Exception):
    """A value has too many items, or too many levels."""


def copied(value: Any) -> Any:
    """Return a copy of ``value``, or what stands in front of it; shared parts stay shared."""
    return _Copier().copy(value, 0)


class _Copier:
    def __init__(self) -> None:
        self._left = _MOST_ITEMS
        # By identity; the value is held, for a passing one would leave its identity to the next.
        self._made: dict[int, tuple[Any, Any]] = {}

    def copy(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind in _SAME:
            return value
        known = self._made.get(id(value))
        if known is not None:
            return known[1]
        if depth > _DEEPEST:
            msg = f"has more than {_DEEPEST} levels"
            raise _TooMuchError(msg)
        made = self._copy(value, kind, depth + 1)
        self._made[id(value)] = (value, made)
        return made

    def _copy(self, value: Any, kind: type, depth: int) -> Any:  # noqa: PLR0911 (one for each kind)
        if kind in _MAPPINGS:
            self._take(len(value))
            pairs = list(value.items())
            return {self.copy(key, depth): self.copy(item, depth) for key, item in pairs}
        if kind in (list, tuple, set, frozenset, deque):
            self._take(len(value))
            items = (self.copy(item, depth) for item in list(value))
            return list(items) if kind is deque else kind(items)
        if isinstance(value, str):
            return str.__str__(value)  # StrEnum, numpy.str_, Markup: the text alone
        module = kind.__module__.partition(".")[0]
        if module == "pandas" and kind.__name__ in _CELLS:
            return value
        if isinstance(value, tuple) and hasattr(kind, "_fields"):
            self._take(len(value))
            items = (self.copy(item, depth) for item in tuple.__iter__(value))
            return dict(zip(kind._fields, items, strict=True))
        if module == "numpy" and hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
            return self._scalar(value, depth)
        if module == "pyarrow" and hasattr(value, "as_py"):
            return self.copy(value.as_py(), depth)
        stand_in = facade(value)
        if stand_in is None:
            raise _NoDataError(kind.__name__)
        return stand_in

    def _scalar(self, value: Any, depth: int) -> Any:
        if value.dtype.kind in "mM":  # a plain integer would lose its meaning
            return str(value)
        plain = value.item()
        return float(plain) if type(plain).__module__ == "numpy" else self.copy(plain, depth)

    def _take(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            msg = f"has more than {_MOST_ITEMS:,} items"
            raise _TooMuchError(msg)
