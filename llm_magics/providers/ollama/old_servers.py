"""Servers older than 0.12.6 cut a long prompt whatever is asked: a warning is all there is."""

from __future__ import annotations

import re

# The first version that refuses on request what does not fit (ollama/ollama#12582).
_REFUSES = (0, 12, 6)

# Contexts are powers of two or nearly so: any other count cannot be that of a full one.
_CONTEXT_STEP = 64


def cuts_silently(version: str) -> bool:
    """
    Whether a server of ``version`` ignores ``truncate`` in chat and completion.

    >>> cuts_silently("0.11.4"), cuts_silently("0.12.6-rc0"), cuts_silently("0.30.0")
    (True, False, False)
    >>> cuts_silently("0.0.0"), cuts_silently("unknown")
    (False, False)
    """
    numbers = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version)
    if numbers is None:
        return False
    parts = tuple(map(int, numbers.groups()))
    return any(parts) and parts < _REFUSES  # 0.0.0 is a build from source


def may_be_full(tokens_read: int | None) -> bool:
    """Whether a prompt of so many tokens may have filled the context."""
    return bool(tokens_read) and tokens_read % _CONTEXT_STEP == 0  # type: ignore[operator]
