"""Keys that cannot be shown by accident, and text from which keys are taken out."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import NoReturn

_HIDDEN = "****"

# What the big services' keys look like; a known key is found by its value as well.
_KEY_SHAPES = re.compile(
    r"\b(?:sk-(?:ant-|proj-|or-)?[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{16,}|gsk_[A-Za-z0-9]{16,})"
)

_KEY_NAMES = re.compile(
    r"(?:^|[_.])(?:api_?key|key|token|secret|password|extra_headers)s?(?:$|\.)", re.IGNORECASE
)

_known: set[str] = set()

_KEY_HEADERS = re.compile(
    r"auth|key|token|secret|passw|cookie|session|credential|sign", re.IGNORECASE
)


def _may_be_key(name: str, value: str) -> bool:
    """Whether a header may hold a key: one by its name, or one that is no plain word."""
    return _KEY_HEADERS.search(name) is not None or not re.fullmatch(r"[A-Za-z_.\s-]*", value)


def stripped(value: str | None) -> str:
    """
    Return ``value`` without white space around it: files and ``$(cat …)`` end in a newline.

    The mark of the byte order, with which some editors begin a file, counts as white space.
    """
    return (value or "").strip().strip("\ufeff\u200b").strip()


def environment_value(name: str) -> str:
    """Return the environment variable ``name`` stripped; empty if it is unset or blank."""
    return stripped(os.environ.get(name)) if name else ""


def is_secret_name(name: str) -> bool:
    """Whether a setting of this name may hold a key."""
    return _KEY_NAMES.search(name) is not None


class Secret:
    """
    A key that shows itself as ``****`` everywhere but in `reveal`.

    It cannot be pickled, so that it does not travel into a file or another process unseen.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value
        if len(value) >= 8:  # shorter ones would blank out ordinary words
            _known.add(value)

    @classmethod
    def of(cls, value: str | None) -> Secret | None:
        """``value`` wrapped, without white space around it; ``None`` if there is nothing else."""
        value = stripped(value)
        return cls(value) if value else None

    def reveal(self) -> str:
        """The key itself: for the header that needs it, and for nothing else."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret('{_HIDDEN}')"

    def __str__(self) -> str:
        return _HIDDEN

    def __format__(self, format_spec: str) -> str:
        return _HIDDEN

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __reduce__(self) -> NoReturn:
        msg = "a Secret cannot be pickled"
        raise TypeError(msg)


class Hidden:
    """A value that holds keys among other things — headers, say — and shows itself as ``****``."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value
        within = value if isinstance(value, Mapping) else {"key": value}
        for name, each in within.items():
            if _may_be_key(str(name), str(each)):
                Secret(str(each))  # known from now on, and taken out of what is shown

    def reveal(self) -> object:
        """The value itself."""
        return self._value

    def __repr__(self) -> str:
        return f"Hidden('{_HIDDEN}')"

    def __str__(self) -> str:
        return _HIDDEN


class Unseen:
    """A value that can be compared with another, and is not shown."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unseen) and other._value == self._value

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Unseen('{_HIDDEN}')"


def address_shown(address: str) -> str:
    """An address without what may be a key in it: the user before its host, values of its query."""
    address = re.sub(r"(?<=://)[^/@\s]+@", f"{_HIDDEN}@", address)
    return re.sub(r"(?<==)[^&#\s]+", _HIDDEN, address)


def scrub(text: str) -> str:
    """``text`` with every known key, and everything shaped like one, replaced by ``****``."""
    for value in sorted(_known.copy(), key=len, reverse=True):  # a key may begin another
        text = text.replace(value, _HIDDEN)
    return _KEY_SHAPES.sub(_HIDDEN, text)


def scrubbed(value: object) -> object:
    """The same for decoded JSON."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, Mapping):
        return {scrubbed(key): scrubbed(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [scrubbed(each) for each in value]
    return value
