"""How long a service asks to wait, from the headers of its refusal."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

# Durations as OpenAI and Groq write them: "20ms", "7.66s", "6m0s", "1h2m3s".
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")
_LIMITS = ("requests", "tokens", "input-tokens", "output-tokens")

# A larger number is no duration but a moment, in seconds or milliseconds since 1970.
_MOMENT_S, _MOMENT_MS = 1e9, 1e11


def retry_after_s(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """
    Return the seconds to wait, or ``None`` if the service does not say.

    Read are ``retry-after-ms``, ``retry-after`` in seconds or as a date (RFC 9110, section
    10.2.3), and ``x-ratelimit-reset-…`` of a limit of which nothing remains. They count only
    with errors; some services send them with success.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    now = now or datetime.now(UTC)
    value = headers.get("retry-after")
    seconds = _number(value)
    if seconds is not None:
        return seconds
    return _until(value, now) if value else _reset_s(headers, now)


def _until(text: str, now: datetime) -> float | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (date - now).total_seconds())


def _reset_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return when the last of the used-up limits is reset."""
    names = ["", *(f"-{limit}" for limit in _LIMITS)]
    resets = [
        _duration(headers.get(f"x-ratelimit-reset{name}"), now)
        for name in names
        if _number(headers.get(f"x-ratelimit-remaining{name}")) == 0
    ]
    return max((seconds for seconds in resets if seconds is not None), default=None)


def _duration(text: str | None, now: datetime) -> float | None:
    number = _number(text)
    if number is not None:
        if number < _MOMENT_S:
            return number
        moment = number / 1000 if number > _MOMENT_MS else number
        return max(0.0, moment - now.timestamp())
    compact = (text or "").replace(" ", "")
    parts = _PART.findall(compact)
    if not parts or "".join(amount + unit for amount, unit in parts) != compact:
        return None
    return sum(float(amount) * _UNITS[unit] for amount, unit in parts)


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text else None
    except ValueError:
        return None
    return number if number is not None and 0 <= number < float("inf") else None
