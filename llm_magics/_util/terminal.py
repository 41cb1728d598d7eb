"""Text of others made safe to write to a terminal, and made visible where it is decided on."""

from __future__ import annotations

import re

# All controls but tab and newline. An escape sequence could set a terminal's title, write to its
# clipboard or overwrite what stands there; backspaces and carriage returns overwrite too.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_SURROGATES = re.compile(r"[\ud800-\udfff]")

# Characters that count as printable and show nothing: fillers, joiners, variation selectors.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)


def plain(text: str) -> str:
    """Return ``text`` without control characters other than tab and newline."""
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", _CONTROLS.sub("", text))


def one_line(text: str) -> str:
    """Return ``text`` on one line, with every break and tab as a space."""
    return plain(" ".join(text.split()))


def visible(text: str, kept: str = "") -> str:
    r"""
    Return ``text`` with all characters that cannot be seen as ``\uXXXX``, but for those ``kept``.

    Among them are controls, line breaks, zero-width characters, those that turn the direction
    of writing, private-use characters and tags.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(each if each in kept else _escaped(each) for each in text)


def _escaped(character: str) -> str:
    if character.isprintable() and not _INVISIBLE.match(character):
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
