"""The result of a tool of a server, as text and pictures for the model."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm_magics.attachments import Image
from llm_magics.errors import ConfigurationError
from llm_magics.secrets import scrub
from llm_magics.types import ChatMessage

# The bounds on the pictures of one result.
_MAX_PICTURES = 5
_MAX_PICTURE_BYTES = 5_000_000


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of a call: its text, its pictures, and whether the server calls it an error."""

    text: str
    images: tuple[Image, ...] = ()
    is_error: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the result as JSON, for a recording."""
        images = [each.base64 for each in self.images]
        return {"text": self.text, **({"images": images} if images else {})}

    def as_message(self, call_id: str) -> ChatMessage:
        """Return the result of the call ``call_id`` as a message to the model."""
        return ChatMessage("tool", self.text, images=self.images, tool_call_id=call_id)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> ToolResult:
        """Return a result from a recording."""
        images = (Image(base64.b64decode(each)) for each in stored.get("images", ()))
        return cls(str(stored["text"]), tuple(images))


def read_result(
    content: Sequence[Mapping[str, Any]],
    structured: Any = None,
    *,
    is_error: bool = False,
) -> ToolResult:
    """
    Return the result in the ``content`` blocks of a server, with its structured content as JSON.

    What a model cannot read, such as sound and unknown data, is named in the text. Text that looks
    like an API key is removed.
    """
    parts: list[str] = []
    images: list[Image] = []
    for block in content:
        text, image = _read_block(block, len(images))
        parts.append(text)
        if image is not None:
            images.append(image)
    if structured is not None and not _is_repeated(structured, parts):
        parts.append(json.dumps(structured, ensure_ascii=False, default=str))
    text = scrub("\n".join(filter(None, parts)))
    if is_error and not text.startswith("Error"):
        text = f"Error: {text}"
    if not text and not images:
        text = "(no result)"
    return ToolResult(text, tuple(images), is_error)


def _is_repeated(structured: Any, parts: Sequence[str]) -> bool:
    """Whether the blocks have the structured content too, which servers repeat for older clients."""
    is_wrapped = isinstance(structured, dict) and structured.keys() == {"result"}
    # The official package wraps a value that is not an object, and makes a block of each item.
    value = structured["result"] if is_wrapped else structured
    is_list = is_wrapped and isinstance(value, list) and len(value) == len(parts)
    return is_list or any(
        part == value or _is_json_of(part, value) or _is_json_of(part, structured)
        for part in parts
    )


def _is_json_of(text: str, value: Any) -> bool:
    try:
        return bool(json.loads(text) == value)
    except (ValueError, RecursionError):
        return False


def _read_block(block: Mapping[str, Any], pictures: int) -> tuple[str, Image | None]:
    """Return the text of a block, and its picture; ``pictures`` were in the blocks before."""
    kind = block.get("type")
    if kind == "text":
        return str(block.get("text", "")), None
    if kind == "image":
        return _read_picture(block, pictures)
    if kind == "resource":
        resource = block.get("resource") or {}
        if isinstance(resource.get("text"), str):
            return resource["text"], None
        return f"[data of {resource.get('uri')}, left out]", None
    if kind == "resource_link":
        return f"[link to {block.get('uri')}: {block.get('name')}]", None
    return f"[{kind}, left out]", None


def _read_picture(block: Mapping[str, Any], pictures: int) -> tuple[str, Image | None]:
    encoded = str(block.get("data", ""))
    if pictures >= _MAX_PICTURES or len(encoded) * 3 // 4 > _MAX_PICTURE_BYTES:
        most = f"{_MAX_PICTURES} pictures of {_MAX_PICTURE_BYTES // 1_000_000} MB"
        return f"[picture left out; a result has at most {most}]", None
    try:
        image = Image(base64.b64decode(encoded, validate=True))
        _ = image.media_type
    except (binascii.Error, ValueError, ConfigurationError):
        return f"[picture left out: {block.get('mimeType')} is not PNG, JPEG, GIF or WebP]", None
    return "", image
