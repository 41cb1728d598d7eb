"""Text as it can be sent, stored and shown."""

from __future__ import annotations


def replace_lone_surrogates(text: str) -> str:
    """Return ``text`` with halves of a character joined, or replaced if they stand alone."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
