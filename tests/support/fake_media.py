"""A fake of OpenAI's image and transcription endpoints."""

from __future__ import annotations

import base64
from typing import Any

from tests.support.fake_openai import refusal
from tests.support.serving import Asked, Says, as_json

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)


WAV = b"RIFF\x24\x00\x00\x00WAVEfmt "


SAID = {"text": "hello", "language": "english", "duration": 1.5, "segments": [{"id": 0}]}
SRT = "1\n00:00:00,000 --> 00:00:01,500\nhello\n\n"


class FakeMedia:
    """OpenAI's images and audio: it refuses what each model refuses."""

    def __call__(self, asked: Asked) -> Says:
        if asked.path == "/images/generations":
            return self.images(asked.json())
        assert asked.path == "/audio/transcriptions"
        return self.audio(asked)

    def images(self, body: dict[str, Any]) -> Says:
        if body["model"].startswith("gpt-image") and "response_format" in body:
            return refusal("unknown_parameter", "Unknown parameter: 'response_format'.", 400, "response_format")  # fmt: skip
        if body["model"] == "dall-e-2" and "quality" in body:
            return refusal("unknown_parameter", "Unknown parameter: 'quality'.", 400, "quality")
        row = {"b64_json": base64.b64encode(PNG).decode()}
        if body["model"] == "by-address":
            row = {"url": body["prompt"]}
        return as_json({"created": 1, "data": [row] * body.get("n", 1)})

    def audio(self, asked: Asked) -> Says:
        assert asked.headers["content-type"].startswith("multipart/form-data; boundary=")
        assert b'name="file"; filename="audio.wav"' in asked.body
        assert b"Content-Type: audio/wav" in asked.body
        assert WAV in asked.body
        if b"\r\n\r\nverbose_json\r\n" in asked.body:
            return as_json(SAID)
        if b"\r\n\r\njson\r\n" in asked.body:
            return as_json({"text": "hello"})
        text = SRT if b"\r\n\r\nsrt\r\n" in asked.body else "hello\n"
        return Says([text.encode()], content_type="text/plain")
