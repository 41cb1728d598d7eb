"""Pictures made and speech written down, as recorded and as documented."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from llm_magics import errors
from llm_magics.attachments import Sound, Transcript
from llm_magics.providers.openai import OpenAIConfig, OpenAIProvider
from llm_magics.wire import openai_media
from tests.support.fake_media import PNG, SRT, WAV, FakeMedia
from tests.support.fake_openai import refusal
from tests.support.recorded import needs_recordings, records
from tests.support.serving import as_json, serving

KEY = "a-key-of-the-test"


def used(url: str, do: Callable[[OpenAIProvider], Any]) -> Any:
    """What ``do`` gives, called with a provider at ``url``."""

    async def use() -> Any:
        config = OpenAIConfig(base_url=url, api_key=KEY)  # type: ignore[arg-type]
        async with OpenAIProvider(config) as provider:
            return await do(provider)

    return asyncio.run(use())


@pytest.mark.parametrize("model", ["gpt-image-1", "dall-e-3"])
def test_pictures_come_as_bytes(model: str) -> None:
    """Whichever way the model wants to be asked for them."""
    with serving(FakeMedia()) as server:
        made = used(server.url, lambda p: p.generate_image("a cat", f"openai/{model}", n=2))
    assert made == [PNG, PNG]
    assert ("response_format" in server.asked[0].json()) == model.startswith("dall-e")


def test_an_option_that_a_model_refuses_is_left_out() -> None:
    """As a recorded refusal has it: dall-e-2 takes no quality any more."""
    with serving(FakeMedia()) as server, pytest.warns(UserWarning, match="quality"):
        made = used(server.url, lambda p: p.generate_image("x", "dall-e-2", quality="standard"))
    assert made == [PNG]


def test_an_address_is_fetched_without_the_key() -> None:
    """And only where it is safe."""
    with serving(FakeMedia()) as server:
        address = f"{server.url}/picture.png"
        with pytest.raises(errors.ProviderError, match="unsafe"):
            used(server.url, lambda p: p.generate_image(address, "by-address"))
        assert len(server.asked) == 1


def test_no_picture_at_all() -> None:
    """An empty list is an error that says so."""
    with (
        serving(as_json({"data": []})) as server,
        pytest.raises(errors.ProviderError, match="no image"),
    ):
        used(server.url, lambda p: p.generate_image("x", "dall-e-3"))


def test_a_refused_picture() -> None:
    """What the service will not paint is a ContentFilterError."""
    with (
        serving(refusal("moderation_blocked", "Your request was rejected.", 400)) as server,
        pytest.raises(errors.ContentFilterError),
    ):
        used(server.url, lambda p: p.generate_image("x", "gpt-image-1"))


@needs_recordings
def test_recorded_pictures() -> None:
    """Addresses or bytes, as the real service gave them."""
    found = [r for r in records("openai_images") if r["status"] == 200]
    assert found
    for record in found:
        (picture,) = openai_media.parse_images(json.loads(record["body"]))
        assert str(picture).startswith("https://")


@pytest.mark.parametrize(
    ("wanted", "text"),
    [("json", "hello"), ("text", "hello"), ("srt", SRT), ("verbose_json", "hello")],
)
def test_speech_is_written_down_in_every_format(wanted: str, text: str) -> None:
    """A text that is a text, with all that the service told beside it."""
    with serving(FakeMedia()) as server:
        said = used(server.url, lambda p: p.transcribe(WAV, "openai/whisper-1", format=wanted))
    assert isinstance(said, Transcript)
    assert said == text
    assert (said.data.get("duration") == 1.5) == (wanted == "verbose_json")


def test_options_become_fields_of_the_form() -> None:
    """Lists by OpenAI's name for them, and nothing for what is not given."""
    fields, wanted = openai_media.build_transcription_form(
        "m",
        {"language": "en", "timestamp_granularities": ["word"], "prompt": None, "stream": True},
    )
    assert wanted == "json"
    assert fields == {
        "model": "m",
        "response_format": "json",
        "language": "en",
        "timestamp_granularities[]": ["word"],
        "stream": "true",
    }
    with pytest.raises(errors.ConfigurationError) as caught:
        openai_media.build_transcription_form("m", {"format": "str"})
    assert "srt" in str(caught.value.hint)


def test_what_cannot_be_heard_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No recording, or too large a one: said here, before all of it was sent."""
    with serving(FakeMedia()) as server:
        with pytest.raises(errors.ConfigurationError, match="audio format"):
            used(server.url, lambda p: p.transcribe(b"text", "whisper-1"))
        monkeypatch.setattr("llm_magics.wire.openai_media.MAX_AUDIO_BYTES", 8)
        with pytest.raises(errors.ConfigurationError, match="25 MB"):
            used(server.url, lambda p: p.transcribe(WAV, "whisper-1"))
        assert server.asked == []


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (WAV, "audio.wav"),
        (b"ID3\x04", "audio.mp3"),
        (b"\xff\xfb\x90", "audio.mp3"),
        (b"OggS", "audio.ogg"),
        (b"fLaC", "audio.flac"),
        (b"\x00\x00\x00\x20ftypM4A ", "audio.m4a"),
        (b"\x1aE\xdf\xa3", "audio.webm"),
    ],
)
def test_a_recording_is_known_by_its_bytes(data: bytes, name: str) -> None:
    """The services go by the ending of a file's name."""
    assert Sound(data).file_name == name


@needs_recordings
def test_recorded_speech() -> None:
    """The recorded answer, through the reading."""
    (record,) = [r for r in records("openai_audio") if r["status"] == 200]
    said = openai_media.parse_transcript(record["body"].encode(), "json")
    assert said == json.loads(record["body"])["text"]
    assert said.data["usage"]["total_tokens"] == 6


def test_an_error_with_status_200() -> None:
    """Is one."""
    with (
        serving(as_json({"error": {"message": "no ears"}})) as server,
        pytest.raises(errors.ProviderError, match="no ears"),
    ):
        used(server.url, lambda p: p.transcribe(WAV, "whisper-1"))
