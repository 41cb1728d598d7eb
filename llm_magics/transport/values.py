"""What is sent and what comes back, as values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_magics.secrets import Secret


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to wait: for a connection, for the next byte, and for the whole answer."""

    connect: float = 2.0
    idle: float = 300.0
    total: float | None = None


@dataclass(frozen=True, slots=True)
class KeyHeader:
    """The header in which a service wants its key, and the word before it."""

    name: str = "Authorization"
    scheme: str = "Bearer"

    def value(self, key: Secret) -> str:
        """The header's value; the key is revealed for nothing else."""
        return f"{self.scheme} {key.reveal()}".lstrip()


@dataclass(frozen=True, slots=True)
class Form:
    """
    A body of the kind ``multipart/form-data``.

    ``files`` holds by field ``(file name, bytes, media type)``.
    """

    fields: Mapping[str, str | list[str]]
    files: Mapping[str, tuple[str, bytes, str]]


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer: its status, headers and bytes."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)  # a service may repeat the key in it

    @property
    def ok(self) -> bool:
        """Whether the status says success."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body decoded, or as text where it is no JSON: proxies answer in HTML."""
        try:
            return json.loads(self.body)
        except ValueError:
            return self.body.decode("utf-8", "replace")
