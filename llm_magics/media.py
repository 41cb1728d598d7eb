"""Pictures and tools: what a message may hold besides text, and what a model may call."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from llm_magics.errors import ConfigurationError, ParseError

# The first bytes of the formats that the services take.
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
}


@dataclass(frozen=True, slots=True)
class Image:
    """A picture, by its bytes or by an address that the service fetches itself."""

    data: bytes = field(default=b"", repr=False)
    url: str = ""

    def __post_init__(self) -> None:
        if bool(self.data) == bool(self.url):
            msg = "A picture is given by its bytes or by its address."
            raise ConfigurationError(msg, hint="Give one of data and url.")

    @property
    def media_type(self) -> str:
        """Its MIME type, read off its first bytes."""
        if self.data[:4] == b"RIFF" and self.data[8:12] == b"WEBP":
            return "image/webp"
        for signature, media_type in _SIGNATURES.items():
            if self.data.startswith(signature):
                return media_type
        msg = "This is no picture that the services know."
        raise ConfigurationError(msg, hint="Use PNG, JPEG, GIF or WebP.")

    @property
    def base64(self) -> str:
        """Its bytes in base64."""
        return base64.b64encode(self.data).decode()

    @property
    def as_url(self) -> str:
        """Its address, or a data URL."""
        return self.url or f"data:{self.media_type};base64,{self.base64}"


@dataclass(frozen=True, slots=True)
class Tool:
    """Something a model may call. ``parameters`` is a JSON schema of an object."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(
        default_factory=lambda: {"type": "object", "properties": {}}
    )

    def as_dict(self) -> dict[str, Any]:
        """As most services write it."""
        return {
            "name": self.name,
            "description": self.description,
            "parameters": dict(self.parameters),
        }


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's wish to call a tool: which, and with what, as it wrote it."""

    id: str
    name: str
    arguments_text: str = ""

    @property
    def arguments(self) -> dict[str, Any]:
        """What it wants to call it with; nothing written means nothing given."""
        try:
            arguments = json.loads(self.arguments_text or "{}")
        except ValueError:
            arguments = None
        if not isinstance(arguments, dict):
            msg = f"The arguments of {self.name} are no JSON object: {self.arguments_text[:80]}"
            raise ParseError(msg, hint="Read them as written from .arguments_text.")
        return arguments
