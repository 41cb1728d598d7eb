"""Limits of one rendering: time, work, the size of a value, and the size of the text."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any, NoReturn

from llm_magics.errors import TemplateError
from llm_magics.sandbox.copies import Row
from llm_magics.sandbox.frames import Facade

# The maximum size of the rendered text, and of any intermediate value, in characters or items.
MAX_CHARACTERS = 10_000_000
# The maximum time for one rendering, in seconds.
MAX_SECONDS = 10.0
# The maximum number of characters and items in all values of one rendering together.
_MAX_WORK = 200_000_000
# The cost of one loop iteration or one call, in characters.
_STEP = 20
# The maximum width of a formatted field.
MAX_FIELD = 10_000
_MAX_BITS = 20_000
_MAX_DIGITS = 6_000
# The weight of a table within a list: about the number of characters in its text.
_TABLE = 5_000
# Types whose values count as one item; most values of long lists are of these, numbers or strings.
_PLAIN = frozenset({float, bool, type(None)})

_HINT = "A prompt file may produce up to 10,000,000 characters in 10 seconds. Cells have no such limit."


class Budget:
    """The work that one rendering has used so far, and the weights of the values it has seen."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + MAX_SECONDS
        self._work = 0
        # By id(); the reference to the value prevents that its id is reused.
        self._weights: dict[int, tuple[Any, int]] = {}

    def spend(self, amount: int) -> None:
        """
        Count ``amount`` characters or items.

        Raises:
            TemplateError: a value is too large, the sum of all values is, or the time is over.
        """
        if amount > MAX_CHARACTERS:
            refuse("produces a value that is too large")
        self._work += amount + _STEP
        if self._work > _MAX_WORK or time.monotonic() > self._deadline:
            refuse("takes too long")

    def weigh(self, value: Any) -> int:
        """
        Return the number of characters and items in ``value``, including nested ones, with
        repetitions.

        Containers cannot change while a template is rendered, so each is counted only once.
        """
        if isinstance(value, str | range):
            return len(value)
        if isinstance(value, int):
            if value.bit_length() > _MAX_BITS:
                refuse("produces a number that is too large")
            return 1
        if isinstance(value, Row):
            return self.weigh(value._values)
        if not isinstance(value, dict | list | tuple | set | frozenset):
            return 1
        known = self._weights.get(id(value))
        if known is not None:
            return known[1]
        weight = 1 + len(value)
        parts: Iterable[Any] = value
        if isinstance(value, dict):
            parts = (part for pair in value.items() for part in pair)
        for part in parts:
            weight += self._weigh_part(part)
            if weight > MAX_CHARACTERS:
                refuse("produces a value that is too large")
        self.spend(len(value))
        self._weights[id(value)] = (value, weight)
        return weight

    def _weigh_part(self, part: Any) -> int:
        kind = type(part)
        if kind is str:
            return len(part)
        if kind in _PLAIN or (kind is int and part.bit_length() <= _MAX_BITS):
            return 1
        self._refuse_no_data(part)
        return _TABLE if isinstance(part, Facade) else self.weigh(part)

    def _refuse_no_data(self, part: Any) -> None:
        is_data = isinstance(part, tuple) or hasattr(part, "_fail_with_undefined_error")
        if type(part).__module__.startswith("jinja2.") and not is_data:  # groupby yields tuples
            msg = f"The template puts a {type(part).__name__} into a list."
            raise TemplateError(msg, hint="Lists can contain strings, numbers, lists and tables.")

    def check(self, value: Any) -> Any:
        """Return ``value`` after adding its weight to the work."""
        is_decimal = isinstance(value, Decimal) and value.is_finite()
        if is_decimal and abs(value.adjusted()) > _MAX_DIGITS:  # int(value) would take hours
            refuse("produces a number that is too large")
        self.spend(self.weigh(value))
        return value

    def steps(self, values: Iterable[Any]) -> Iterator[Any]:
        """Yield ``values``, and count each as a step."""
        for value in values:
            self.spend(0)
            yield value

    def as_list(self, value: Any) -> Any:
        """Return ``value``; an iterator is converted to a list."""
        if hasattr(type(value), "__next__") and hasattr(type(value), "__iter__"):
            return list(self.steps(value))
        return value

    def join(self, texts: Iterable[str]) -> str:
        """Join the parts of a text, if the result is not too long."""
        parts = list(texts)
        self.spend(sum(map(len, parts)))
        return "".join(parts)


class Steps:
    """The values of a loop, counted step by step; its length is that of the values."""

    def __init__(self, budget: Budget, values: Any) -> None:
        self._budget = budget
        self._values = values

    def __iter__(self) -> Iterator[Any]:
        """Iterate over the values."""
        return self._budget.steps(self._values)

    def __len__(self) -> int:
        """Return the number of values, if the values have a length."""
        return len(self._values)


def refuse(what: str) -> NoReturn:
    """
    Stop a template that exceeds its limits.

    Raises:
        TemplateError: always.
    """
    msg = f"The template {what}."
    raise TemplateError(msg, hint=_HINT)


def limit_widths(widths: Iterable[str]) -> None:
    """Raise `TemplateError` for a format with a field that is too wide."""
    for width in widths:
        if width == "*" or len(width) > len(str(MAX_FIELD)) or int(width or 0) > MAX_FIELD:
            refuse(f"formats a value to more than {MAX_FIELD:,} characters")
