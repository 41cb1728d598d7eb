"""HTTP: one service's address, key, timeouts and connections, over httpx."""

from llm_magics.http.client import (
    BodyLimits,
    ByteStream,
    Form,
    KeyHeader,
    Reply,
    Timeouts,
    Transport,
)

__all__ = [
    "BodyLimits",
    "ByteStream",
    "Form",
    "KeyHeader",
    "Reply",
    "Timeouts",
    "Transport",
]
