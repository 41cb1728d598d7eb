"""Escaping of untrusted text for terminals, and for questions in which all of it must be visible."""

from __future__ import annotations

import re
import shlex

# All controls but tab and newline. An escape sequence could set a terminal's title, write to its
# clipboard or overwrite what stands there; backspaces and carriage returns overwrite too.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

# The same but for colours, which tracebacks have.
_CONTROLS_IN_COLOUR = re.compile(r"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]")

_SURROGATES = re.compile(r"[\ud800-\udfff]")

# Characters that count as printable and show nothing: fillers, joiners, variation selectors.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)


# Characters that hide, reorder or join what stands beside them: overrides of the direction of
# writing, zero-width spaces, and joiners, selectors and tags that no emoji or script needs there.
_DECEPTIVE = re.compile(
    "[\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
    "|(?<=[\x20-\x7f])[\u200c\u200d\U000e0000-\U000e007f]+"
    "|(?<=[A-Za-z._:/-])[\ufe00-\ufe0f]"
)

_MAX_NAME = 200


def strip_controls(text: str) -> str:
    """Return ``text`` without control characters other than tab and newline."""
    return _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", _CONTROLS.sub("", text))


def one_line(text: str) -> str:
    """Return ``text`` on one line, with every break and tab as a space."""
    return strip_controls(" ".join(text.split()))


def escape_invisible(text: str, allowed: str = "") -> str:
    r"""
    Return ``text`` with all characters that cannot be seen as ``\uXXXX``, but for those ``allowed``.

    Among them are controls, line breaks, zero-width characters, those that turn the direction
    of writing, private-use characters and tags.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(each if each in allowed else _escaped(each) for each in text)


def escape_controls(text: str) -> str:
    r"""
    Return prose with control and deceptive characters as ``\uXXXX``; breaks and tabs stay.

    Emoji and scripts that need joiners are left alone; see `visible` for names.
    """
    return _DECEPTIVE.sub(
        _escaped_all, _SURROGATES.sub(_escaped_all, _CONTROLS.sub(_escaped_all, text))
    )


def escape_all_but_colours(text: str) -> str:
    """Return `escaped` text in which the colours are left."""
    return _DECEPTIVE.sub(_escaped_all, _CONTROLS_IN_COLOUR.sub(_escaped_all, text))


def display_name(text: str) -> str:
    """Return the name of a model, a file or the like as messages show it: visible, on one line."""
    name = escape_invisible(text)
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"


def quote_word(text: str) -> str | None:
    """
    Return ``text`` as one word of a magic's line, in quotes where it needs them.

    ``None`` where no line can hold it, or where the line would not look like what it is.
    """
    return None if escape_invisible(text) != text else shlex.quote(text)


def _escaped_all(found: re.Match[str]) -> str:
    return "".join(map(_code, found[0]))


def _escaped(character: str) -> str:
    shows = character.isprintable() and not _INVISIBLE.match(character)
    return character if shows else _code(character)


def _code(character: str) -> str:
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
