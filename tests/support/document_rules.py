"""
What services refuse of the documents and audio in a request.

By the types of the official clients (anthropic 2.14, openai 3.57) and the pages that
``llm_magics/providers/media.py`` names.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

_DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
_SIGNATURES = {"application/pdf": b"%PDF-", _DOCX: b"PK\x03\x04"}
_EXTENSIONS = {"application/pdf": ".pdf", _DOCX: ".docx"}


def wrong_document(block: Mapping[str, Any]) -> str | None:
    """What Anthropic finds wrong with a block of the type ``document``."""
    if extra := set(block) - {"type", "source", "title", "context", "citations", "cache_control"}:
        return f"{extra.pop()}: Extra inputs are not permitted"
    if not 1 <= len(block.get("title", "-")) <= 500:
        return "title: String should have between 1 and 500 characters"
    return _wrong_source(block["source"])


def _wrong_source(source: Mapping[str, Any]) -> str | None:
    fields = {"base64": {"media_type", "data"}, "text": {"media_type", "data"}, "url": {"url"}}
    if source["type"] not in fields:
        return f"source: Input tag '{source['type']}' does not match any of the expected tags"
    if set(source) - {"type"} != fields[source["type"]]:
        return "source: Extra inputs are not permitted"
    expected = {"base64": "application/pdf", "text": "text/plain"}.get(source["type"])
    if source.get("media_type") != expected:
        return f"source.{source['type']}.media_type: Input should be '{expected}'"
    return _wrong_data(source["data"], expected or "") if source["type"] == "base64" else None


def wrong_chat_part(part: Mapping[str, Any]) -> str | None:
    """What OpenAI's Chat Completions API finds wrong with a part of a user message."""
    if part["type"] == "file":
        if set(part) != {"type", "file"} or set(part["file"]) != {"filename", "file_data"}:
            return "Unknown parameter in a file part."
        return _wrong_file(part["file"], {"application/pdf"})
    if part["type"] == "input_audio":
        audio = part["input_audio"]
        if set(part) != {"type", "input_audio"} or set(audio) != {"data", "format"}:
            return "Unknown parameter in an input_audio part."
        if audio["format"] not in {"wav", "mp3"}:
            return f"Invalid value: '{audio['format']}'. Supported values are: 'wav' and 'mp3'."
        return _wrong_data(audio["data"], "")
    return None if part["type"] in {"text", "image_url"} else f"Invalid value: '{part['type']}'."


def wrong_response_part(part: Mapping[str, Any]) -> str | None:
    """What OpenAI's Responses API finds wrong with a part of a message."""
    if part["type"] != "input_file":
        return None
    if set(part) == {"type", "file_url"}:
        return None if part["file_url"].startswith("https://") else "Invalid file_url."
    if set(part) != {"type", "filename", "file_data"}:
        return "Unknown parameter in an input_file part."
    return _wrong_file(part, {"application/pdf", _DOCX})


def _wrong_file(file: Mapping[str, Any], accepted: set[str]) -> str | None:
    head, separator, data = file["file_data"].partition(";base64,")
    media_type = head.removeprefix("data:")
    if not separator or not head.startswith("data:"):
        return "Invalid file data: expected a base64-encoded data URL with an application/pdf MIME type."
    if media_type not in accepted:
        return f"Invalid file data: expected a supported MIME type but got unsupported MIME type '{media_type}'."
    if not file["filename"].endswith(_EXTENSIONS[media_type]):
        return "Invalid input: Expected context stuffing file type to be a supported format."
    return _wrong_data(data, media_type)


def _wrong_data(data: str, media_type: str) -> str | None:
    try:
        decoded = base64.b64decode(data, validate=True)
    except binascii.Error:
        return "source.base64.data: Invalid base64 data"
    is_right = decoded.startswith(_SIGNATURES.get(media_type, b"")) and decoded
    return None if is_right else "The file was not valid."
