"""
Text that can be sent, stored and displayed; batches of texts; amounts of money.

Untrusted text is escaped for terminals, and for prompts in which all of it must be visible.

Batches are bounded by the number of texts and of bytes. Texts of similar length share a batch,
because models pad a batch to its longest text: one long text makes all short ones in its batch more
expensive.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple

# What separates the parts of a summary.
_PART_MARK = " · "


def replace_lone_surrogates(text: str) -> str:
    """Join surrogate pairs in ``text``, and replace lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


class Bounds(NamedTuple):
    """
    The maximum number of texts and bytes in one request.

    OpenAI's limits are 2,048 texts and 300,000 tokens; in texts that people embed, a token has
    three bytes or more.
    """

    texts: int = 256
    bytes: int = 900_000


def batches(lengths: Sequence[int], bounds: Bounds) -> Iterator[list[int]]:
    """
    Yield the indices of all texts, batch by batch, the longest first.

    ``lengths`` are in bytes. A text that exceeds ``bounds`` has a batch to itself.
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


# OpenAI's limits for one embedding request are 2,048 texts and 300,000 tokens. In texts that people
# embed, a token has three bytes or more.
MAX_TEXTS = 2048
MAX_BYTES = 300_000 * 3


def batches_in_order(texts: Sequence[str], most_texts: int = MAX_TEXTS) -> Iterator[list[str]]:
    """Yield ``texts`` in their order, in batches of at most ``most_texts`` and ``MOST_BYTES``."""
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
    """Return an amount as ``$3,092.21``; below a cent with two significant digits: ``$0.00042``."""
    if usd is None or math.isnan(usd):
        return "an unknown amount"
    if usd <= 0 or usd >= 0.00995:
        return f"${usd:,.2f}"
    decimals = 1 - math.floor(math.log10(usd))
    return f"${usd:.{decimals}f}"


def format_percent(share: float) -> str:
    """
    Return a share as ``62 %``, with more digits near 0 and 1: ``0.13 %``, ``99.97 %``.

    Only 0 and 1 are shown as ``0 %`` and ``100 %``.
    """
    percent = 100 * share
    distance = min(percent, 100 - percent)
    if not 0 < distance < 1:
        return f"{percent:.0f} %"
    decimals = min(10, 1 - math.floor(math.log10(distance)))
    text = f"{percent:.{decimals}f}"
    return f"{text.rstrip('0').rstrip('.')} %"


def format_confidence(confidence: float) -> str:
    """Return a confidence with all its digits: ``95 %``, ``97.5 %``, ``99.9999 %``."""
    return f"{round(100 * confidence, 10):.12g} %"


def reason_of(error: BaseException) -> str:
    """Return what went wrong in words: the system's "Permission denied" without number and path."""
    reason = str(getattr(error, "strerror", None) or error).strip().rstrip(".")
    return reason or type(error).__name__


def wrap_parts(text: str, width: int) -> str:
    """Return ``text`` with line breaks between its parts, which " · " separates, at ``width``."""
    lines: list[str] = []
    for part in text.split(_PART_MARK):
        if lines and len(lines[-1]) + len(_PART_MARK) + len(part) <= width:
            lines[-1] += _PART_MARK + part
        else:
            lines.append(part)
    return "\n".join(lines)


def pluralize(count: int, noun: str) -> str:
    """Return ``count`` with ``noun``, plus ``s`` unless it is 1: "1 row", "1,200 rows"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def count_or_none(value: object) -> int | None:
    """Return ``value`` if it is an int from 0 to 2**63 - 1, otherwise ``None``."""
    if type(value) is not int or not 0 <= value < 2**63:
        return None
    return value


# All control characters but tab and newline. An escape sequence could set a terminal's title, write
# to its clipboard or overwrite its text; backspaces and carriage returns can overwrite text too.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

# The same except for ANSI colours, which tracebacks have.
_CONTROLS_IN_COLOUR = re.compile(r"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b-\x1a\x1c-\x1f\x7f-\x9f]")

_SURROGATES = re.compile(r"[\ud800-\udfff]")

# Characters that Python calls printable but that are invisible: fillers, joiners, variation
# selectors.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)


# Characters that hide, reorder or join others: directional overrides, zero-width spaces, and
# joiners, selectors and tags where no emoji or script needs them.
_DECEPTIVE = re.compile(
    "[\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]"
    "|(?<=[\x20-\x7f])[\u200c\u200d\U000e0000-\U000e007f]+"
    "|(?<=[A-Za-z._:/-])[\ufe00-\ufe0f]"
)

_MAX_NAME = 200


def strip_controls(text: str) -> str:
    """Return ``text`` without control characters other than tab and newline."""
    text = _CONTROLS.sub("", text)
    return text if text.isascii() else _SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


def one_line(text: str) -> str:
    """Return ``text`` on one line, with every break and tab as a space."""
    return strip_controls(" ".join(text.split()))


def escape_invisible(text: str, allowed: str = "") -> str:
    r"""
    Return ``text`` with all invisible characters as ``\uXXXX``, except for those in ``allowed``.

    These include control characters, line breaks, zero-width characters, directional overrides,
    private-use characters and tags.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(each if each in allowed else _escaped(each) for each in text)


def escape_controls(text: str) -> str:
    r"""
    Return prose with control and deceptive characters as ``\uXXXX``; line breaks and tabs are
    preserved.

    Emoji and scripts that need joiners are unchanged; see `display_name` for names.
    """
    text = _CONTROLS.sub(_escaped_all, text)
    if text.isascii():
        return text
    return _DECEPTIVE.sub(_escaped_all, _SURROGATES.sub(_escaped_all, text))


def escape_all_but_colours(text: str) -> str:
    """Escape as `escape_controls` does, but preserve ANSI colours."""
    return _DECEPTIVE.sub(_escaped_all, _CONTROLS_IN_COLOUR.sub(_escaped_all, text))


def display_name(text: str) -> str:
    """Return the name of a model, file or similar for messages: visible, shortened, on one line."""
    name = escape_invisible(text)
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"


def quote_word(text: str) -> str | None:
    """
    Return ``text`` as one word in the line of a magic, quoted if necessary.

    Return ``None`` if a line cannot contain the text, or would not display it unchanged.
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
