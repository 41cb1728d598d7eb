"""
OpenAI's formats for pictures made and speech written down.

Source: https://platform.openai.com/docs/api-reference/images and /audio.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from llm_magics._util.text import read_json
from llm_magics.attachments import Sound, Transcript
from llm_magics.errors import ConfigurationError, ProviderError, nearest

# The service takes no larger file.
MOST_AUDIO_BYTES = 25 * 1024 * 1024

FORMATS = ("json", "text", "srt", "vtt", "verbose_json", "diarized_json")


def image_request(prompt: str, model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """
    The body of ``POST /images/generations``.

    DALL·E sends an address that soon dies unless asked for the picture itself; its successors
    always send the picture, and refuse the question.
    """
    asked = {"response_format": "b64_json"} if model.startswith("dall-e") else {}
    return {"model": model, "prompt": prompt, **asked, **options}


def images_of(reply: Mapping[str, Any]) -> list[bytes | str]:
    """The pictures of an answer: each its bytes, or the address where it lies."""
    rows = reply.get("data") or []
    if not rows:
        msg = "The service made no picture."
        raise ProviderError(msg, hint="Word it differently, and run the cell again.", body=reply)
    return [
        base64.b64decode(row["b64_json"]) if row.get("b64_json") else row["url"] for row in rows
    ]


def transcription_fields(
    model: str, options: Mapping[str, Any]
) -> tuple[dict[str, str | list[str]], str]:
    """The fields of the form of ``POST /audio/transcriptions``, and the format asked for."""
    given = dict(options)
    wanted = given.pop("format", given.pop("response_format", None)) or "json"
    if wanted not in FORMATS:
        msg = f'A transcription has no format "{wanted}".'
        raise ConfigurationError(msg, hint=nearest(str(wanted), FORMATS))
    fields: dict[str, str | list[str]] = {"model": model, "response_format": wanted}
    for name, value in given.items():
        if isinstance(value, list | tuple):
            fields[f"{name}[]"] = [str(each) for each in value]
        elif value is not None:
            fields[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return fields, wanted


def check_size(sound: Sound) -> None:
    """Refuse here what the service would refuse after all of it was sent."""
    if len(sound.data) > MOST_AUDIO_BYTES:
        size = len(sound.data) / 1e6
        msg = f"The recording is {size:.0f} MB, and the service takes 25 MB."
        raise ConfigurationError(msg, hint="Cut it into parts, or send it as MP3 or Opus.")


def transcript_of(body: bytes, wanted: str) -> Transcript:
    """What was said. Some servers send JSON whatever was asked for, others text."""
    text = body.decode("utf-8", "replace")
    try:
        said = read_json(body) if wanted.endswith("json") or text.startswith("{") else None
    except ValueError:
        said = None
    if isinstance(said, dict) and "text" in said:
        if not isinstance(said["text"], str):
            msg = f"text of the type {type(said['text']).__name__}"
            raise TypeError(msg)
        return Transcript(said["text"], said)
    return Transcript(text if wanted in ("srt", "vtt") else text.strip())
