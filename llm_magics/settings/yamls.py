"""YAML of unknown origin: plain values within limits, or a ``ValueError``."""

from __future__ import annotations

import re
from typing import Any

_MOST_CHARACTERS = 200_000
# Values, when every alias is written out.
_MOST_VALUES = 50_000
_DEEPEST = 40
# PyYAML converts digits in quadratic time.
_NUMBER = re.compile(r"[-+0-9a-fA-FxXob_:.]{1000,}")


def decoded(text: str) -> Any:
    """
    Return the value in ``text``.

    Raises:
        ValueError: it is not valid YAML, one of its values is not what it says it is, or it is
            too large, too deep, or grows too large by its aliases.
    """
    import yaml

    if len(text) > _MOST_CHARACTERS:
        msg = f"it has more than {_MOST_CHARACTERS:,} characters"
        raise ValueError(msg)
    try:
        _refuse_bombs(text)
        return yaml.safe_load(text)
    except Exception as error:  # its constructors raise whatever their conversions do
        raise ValueError(" ".join(str(error).split())[:200] or type(error).__name__) from None


def _refuse_bombs(text: str) -> None:
    """Count the values before any is made: an alias counts as all that it stands for."""
    import yaml

    sizes: dict[str, int] = {}
    open_: list[tuple[str | None, int]] = []  # each collection with the count before it
    count = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                msg = f"the alias *{event.anchor} stands for nothing, or for itself"
                raise ValueError(msg)
            count += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            sizes |= {event.anchor: 1} if event.anchor else {}
            if event.style is None and _NUMBER.fullmatch(event.value):
                msg = "a number in it has more than 1,000 digits"
                raise ValueError(msg)
        elif isinstance(event, yaml.CollectionStartEvent):
            open_.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            sizes |= {anchor: count - before} if anchor else {}
        if count > _MOST_VALUES:
            msg = f"it has more than {_MOST_VALUES:,} values when its aliases are written out"
            raise ValueError(msg)
        if len(open_) > _DEEPEST:
            msg = f"it has more than {_DEEPEST} levels"
            raise ValueError(msg)
