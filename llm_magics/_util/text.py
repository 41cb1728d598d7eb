"""
Text that can be sent, stored and displayed, batches, amounts of money.

Untrusted text is escaped for terminals, and for questions in which all of it must be visible.

Batches are bounded by the number of their texts and bytes. Texts of similar length share a batch:
models pad a batch to its longest text, so one long text among short ones makes all of them cost
more.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple


def replace_lone_surrogates(text: str) -> str:
    """Return ``text`` with halves of a character joined, or replaced if they stand alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class Bounds(NamedTuple):
    """
    The most that one request may hold.

    OpenAI's are 2,048 texts and 300,000 tokens; a token is three bytes at the least in what
    people embed.
    """

    texts: int = 256
    bytes: int = 900_000


def batches(lengths: Sequence[int], bounds: Bounds) -> Iterator[list[int]]:
    """
    Yield the indices of all texts, batch by batch, the longest first.

    ``lengths`` are in bytes. A text that is longer than ``bounds`` allows is alone in its batch.
    """
    batch: list[int] = []
    size = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        if batch and (len(batch) == bounds.texts or size + lengths[index] > bounds.bytes):
            yield batch
            batch, size = [], 0
        batch.append(index)
        size += lengths[index]
    if batch:
        yield batch


# OpenAI's bounds for one request of embeddings: 2,048 texts and 300,000 tokens, a token
# being three bytes of text at the least in what people embed.
MAX_TEXTS = 2048
MAX_BYTES = 300_000 * 3


def batches_in_order(texts: Sequence[str], most_texts: int = MAX_TEXTS) -> Iterator[list[str]]:
    """``texts`` in their order, in portions of ``most_texts`` and ``MOST_BYTES`` at most."""
    batch: list[str] = []
    size = 0
    for text in texts:
        length = len(text.encode("utf-8", "surrogatepass"))
        if batch and (len(batch) == most_texts or size + length > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += length
    if batch:
        yield batch


def format_usd(usd: float | None) -> str:
    """Return an amount as ``$3,092.21``; below one cent with two significant digits: ``$0.00042``."""
    if usd is None or math.isnan(usd):
        return "an unknown amount"
    if usd <= 0 or usd >= 0.00995:
        return f"${usd:,.2f}"
    decimals = 1 - math.floor(math.log10(usd))
    return f"${usd:.{decimals}f}"


def pluralize(count: int, noun: str) -> str:
    """Return ``count`` with ``noun``, which gets an ``s`` unless there is one: "1 row", "1,200 rows"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def count_or_none(value: object) -> int | None:
    """``value`` if it is a number of things that a machine can count to, else ``None``."""
    if type(value) is not int or not 0 <= value < 2**63:
        return None
    return value


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


# Characters that hide, reorder or join their neighbours: overrides of the direction of
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

    Emoji and scripts that need joiners are unchanged; see `display_name` for names.
    """
    return _DECEPTIVE.sub(
        _escaped_all, _SURROGATES.sub(_escaped_all, _CONTROLS.sub(_escaped_all, text))
    )


def escape_all_but_colours(text: str) -> str:
    """Return the text of `escape_controls`, but with ANSI colours unchanged."""
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
