"""What the formats of batch jobs have in common: lines of JSON, times and counts."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from llm_magics._util.text import replace_lone_surrogates

# No service has that many requests, and the journal and tables cannot hold numbers of any size.
_MAX_COUNT = 10**15

# Without spaces and control characters, and short enough for an address.
_IDENTIFIER = re.compile(r"[!-~]{1,500}")


def encode_line(value: Any) -> bytes:
    r"""
    Return ``value`` as JSON in one line, without its end.

    >>> encode_line({"custom_id": "a-0", "text": "two\nlines é"}).decode()
    '{"custom_id":"a-0","text":"two\\nlines é"}'
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return replace_lone_surrogates(text).encode()


def parse_time(value: Any) -> datetime | None:
    """
    Return a time in RFC 3339, or in seconds since the epoch; ``None`` if it is neither.

    >>> parse_time("2026-08-20T20:08:31.015405218Z").isoformat()
    '2026-08-20T20:08:31.015405+00:00'
    >>> parse_time(1782097200) == parse_time("2026-06-22T03:00:00Z")
    True
    """
    try:
        if isinstance(value, str):
            moment = datetime.fromisoformat(value)
            return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None


def parse_identifier(value: Any) -> str:
    """
    Return the identifier of a job or a file.

    Raises:
        TypeError: it is none, or cannot be a part of an address.
    """
    is_text = isinstance(value, str) and _IDENTIFIER.fullmatch(value) is not None
    if not is_text or value in (".", ".."):
        msg = f"an invalid identifier: {str(value)[:60]!r}"
        raise TypeError(msg)
    return str(value)


def parse_count(value: Any) -> int:
    """Return a count, which Google writes as text; 0 if it is missing or invalid."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        value = int(value)
    return value if type(value) is int and 0 < value < _MAX_COUNT else 0
