"""Prompts made distinct, so that no cache of what was read before answers sooner."""

from __future__ import annotations

import hashlib


def mark_of(key: str) -> str:
    """A short mark, another for each ``key``."""
    return hashlib.sha256(key.encode()).hexdigest()[:8]


def marked(prompt: str, mark: str) -> str:
    """
    ``prompt`` with ``mark`` before it.

    At its beginning, for what services and engines keep of a prompt is its beginning; where
    there is a system message, that has one too.
    """
    return f"[{mark}] {prompt}"
