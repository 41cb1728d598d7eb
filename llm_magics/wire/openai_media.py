"""
OpenAI's image generation and transcription formats.

Source: https://platform.openai.com/docs/api-reference/images and /audio.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from llm_magics._util.json_text import read_json
from llm_magics.attachments import Sound, Transcript
from llm_magics.errors import ConfigurationError, ProviderError, nearest

# The service takes no larger file.
MAX_AUDIO_BYTES = 25 * 1024 * 1024

TRANSCRIPT_FORMATS = ("json", "text", "srt", "vtt", "verbose_json", "diarized_json")


def build_image_request(prompt: str, model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the body of ``POST /images/generations``.

    DALL·E sends an address that soon expires unless ``b64_json`` is requested; its successors
    always send the image, and reject the parameter.
    """
    inline = {"response_format": "b64_json"} if model.startswith("dall-e") else {}
    return {"model": model, "prompt": prompt, **inline, **options}


def parse_images(reply: Mapping[str, Any]) -> list[bytes | str]:
    """Return the images of an answer, each as its bytes or its address."""
    rows = reply.get("data") or []
    if not rows:
        msg = "The service made no picture."
        raise ProviderError(msg, hint="Word it differently, and run the cell again.", body=reply)
    return [
        base64.b64decode(row["b64_json"]) if row.get("b64_json") else row["url"] for row in rows
    ]


def build_transcription_form(
    model: str, options: Mapping[str, Any]
) -> tuple[dict[str, str | list[str]], str]:
    """Return the form fields of ``POST /audio/transcriptions``, and the requested format."""
    remaining = dict(options)
    format_ = remaining.pop("format", remaining.pop("response_format", None)) or "json"
    if format_ not in TRANSCRIPT_FORMATS:
        msg = f'A transcription has no format "{format_}".'
        raise ConfigurationError(msg, hint=nearest(str(format_), TRANSCRIPT_FORMATS))
    fields: dict[str, str | list[str]] = {"model": model, "response_format": format_}
    for name, value in remaining.items():
        if isinstance(value, list | tuple):
            fields[f"{name}[]"] = [str(each) for each in value]
        elif value is not None:
            fields[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return fields, format_


def check_audio_size(sound: Sound) -> None:
    """Reject a file that the service would reject after receiving all of it."""
    if len(sound.data) > MAX_AUDIO_BYTES:
        size = len(sound.data) / 1e6
        msg = f"The recording is {size:.0f} MB, and the service takes 25 MB."
        raise ConfigurationError(msg, hint="Cut it into parts, or send it as MP3 or Opus.")


def parse_transcript(body: bytes, format_: str) -> Transcript:
    """Return the transcript; some servers send JSON whatever the requested format, others text."""
    text = body.decode("utf-8", "replace")
    try:
        content = read_json(body) if format_.endswith("json") or text.startswith("{") else None
    except ValueError:
        content = None
    if isinstance(content, dict) and "text" in content:
        if not isinstance(content["text"], str):
            msg = f"text of the type {type(content['text']).__name__}"
            raise TypeError(msg)
        return Transcript(content["text"], content)
    return Transcript(text if format_ in ("srt", "vtt") else text.strip())
