"""Images, sound recordings, transcripts, and blocks of reasoning that go with a message."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from llm_magics._util.text import reason_of
from llm_magics.errors import ConfigurationError

# PNG's word for a pixel of so many values.
_KINDS = {1: 0, 3: 2, 4: 6}

_SHAPES = "Use the shape (height, width), (height, width, 3) or (height, width, 4), with values 0 to 255 or 0.0 to 1.0."


def encode_png(array: Any) -> bytes:
    """
    Return the PNG file (W3C, 3rd edition) of an array that numpy can read.

    Args:
        array: of shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4): grey, RGB or RGBA; of
            integers from 0 to 255, of fractions from 0 to 1, or of truth values.

    Raises:
        ConfigurationError: it is not an image.
    """
    import numpy as np

    pixels = np.asarray(array)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in _KINDS or not pixels.size:
        msg = f"An array of shape {np.shape(array)} is not an image."
        raise ConfigurationError(msg, hint=_SHAPES)
    if pixels.dtype.kind in "fb":
        pixels = pixels * 255.0
    if pixels.dtype.kind not in "fiu" or not _are_colours(pixels):
        msg = f"The values of the array ({pixels.dtype}) are not colours."
        raise ConfigurationError(msg, hint=_SHAPES)
    return _write_png(np.rint(pixels).astype(np.uint8))


def _are_colours(pixels: Any) -> bool:
    """Whether all values are colours; NaN and infinity are not."""
    return bool(pixels.min() >= 0 and pixels.max() <= 255)


def _write_png(pixels: Any) -> bytes:
    height, width, values = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 8, _KINDS[values], 0, 0, 0)
    # Each line begins with the number of its filter, and 0 is none.
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(*part) for part in parts)


def _png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


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
            msg = "An image needs either data or url."
            raise ConfigurationError(msg, hint="Pass one of data and url.")

    @property
    def media_type(self) -> str:
        """Its MIME type, read off its first bytes."""
        if self.data[:4] == b"RIFF" and self.data[8:12] == b"WEBP":
            return "image/webp"
        for signature, media_type in _SIGNATURES.items():
            if self.data.startswith(signature):
                return media_type
        msg = "Unknown image format."
        raise ConfigurationError(msg, hint="Use PNG, JPEG, GIF or WebP.")

    @property
    def base64(self) -> str:
        """Its bytes in base64."""
        if not self.data:
            msg = "This service does not accept image URLs."
            raise ConfigurationError(
                msg, hint="Download the image first, and pass its bytes or path."
            )
        return base64.b64encode(self.data).decode()

    @property
    def as_url(self) -> str:
        """Its address, or a data URL."""
        return self.url or f"data:{self.media_type};base64,{self.base64}"


def load_image(source: Any) -> Image:
    """
    Return the picture in what a user has: bytes, a path, an address, an array, a figure, or a picture
    of PIL or IPython.

    Raises:
        ConfigurationError: it is none of these, or the file does not exist.
    """
    if isinstance(source, Image):
        return source
    if isinstance(source, bytes | bytearray):
        return _from_bytes(bytes(source), "The image")
    return _load_named(source) if isinstance(source, str | Path) else _render_image(source)


def _load_named(source: str | Path) -> Image:
    """Return the picture at a path or an address, or in a data URL."""
    if isinstance(source, str) and source.startswith("data:"):
        return _from_bytes(_decode_base64(source.partition(",")[2]), "The image in the data URL")
    if isinstance(source, str) and source.startswith(("https://", "http://")):
        return Image(url=source)
    return _read_image(source)


def _render_image(source: Any) -> Image:
    """Return the picture of another library's object."""
    if isinstance(getattr(source, "data", None), bytes):  # IPython
        return _from_bytes(source.data, "The image")
    if hasattr(source, "convert") and getattr(source, "mode", None) not in _PNG_MODES:  # PIL
        source = source.convert("RGB")
    for way in ("save", "savefig"):  # PIL, matplotlib
        if hasattr(source, way):
            return Image(_save_png(getattr(source, way)))
    if hasattr(source, "get_figure"):  # what stands within a figure
        return _render_image(source.get_figure())
    if hasattr(source, "__array__"):
        return Image(encode_png(source))
    msg = f"Expected an image, got {type(source).__name__}."
    raise ConfigurationError(
        msg, hint="Pass bytes, a path, a URL, an array, a figure or a PIL image."
    )


def _decode_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text)
    except ValueError:
        msg = "The data URL of the image is not valid base64."
        raise ConfigurationError(msg, hint="Pass the bytes or the path of the image.") from None


def _save_png(save: Callable[..., Any]) -> bytes:
    """Return what PIL's or matplotlib's function ``save`` writes as PNG."""
    buffer = io.BytesIO()
    try:
        save(buffer, format="PNG")
    except (TypeError, ValueError, OSError) as error:
        msg = f"Could not save the image as PNG: {reason_of(error)}."
        raise ConfigurationError(msg, hint="Pass its bytes or a path.") from None
    return buffer.getvalue()


def _read_image(source: str | Path) -> Image:
    try:
        data = Path(source).expanduser().read_bytes()
    except (OSError, ValueError, RuntimeError) as error:
        msg = f"Could not read the image {source}: {reason_of(error)}."
        raise ConfigurationError(msg, hint="Check the path.") from None
    return _from_bytes(data, f"The image {source}")


def _from_bytes(data: bytes, what: str) -> Image:
    """Return the picture in the bytes of a file; printers' colours are converted to RGB."""
    if not data:
        msg = f"{what} is empty (0 bytes)."
        raise ConfigurationError(msg, hint="Check that the file was written completely.")
    return Image(_convert_to_rgb(data) if _is_cmyk(data) else data)


# Modes that PIL writes into a PNG file unchanged; the rest (CMYK, YCbCr, LAB …) becomes RGB.
_PNG_MODES = frozenset({"1", "I", "I;16", "L", "LA", "P", "PA", "RGB", "RGBA"})

# JPEG's markers of a frame, which tell how many colours a pixel has (ITU-T T.81, table B.1).
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})


def _is_cmyk(data: bytes) -> bool:
    """Return whether the bytes are a JPEG file with four colours a pixel, as printers use."""
    at = 2
    while data.startswith(b"\xff\xd8\xff") and at + 9 < len(data) and data[at] == 0xFF:
        if data[at + 1] in _FRAMES:
            return data[at + 9] == 4
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def _convert_to_rgb(data: bytes) -> bytes:
    """Return a picture with printers' colours as PNG in RGB: the services misread the others."""
    from PIL import Image as PILImage

    try:
        with PILImage.open(io.BytesIO(data)) as picture:
            return _save_png(picture.convert("RGB").save)
    except (OSError, ValueError) as error:
        msg = f"Could not convert the CMYK image to RGB: {reason_of(error)}."
        raise ConfigurationError(msg, hint="Save it as an RGB image.") from None


class ReasoningBlock(dict[str, Any]):
    """
    A part of an answer that must be sent back to its service unchanged.

    Attributes:
        origin: the service that it is from, and its model where no other can read it; empty where
            unknown.
        at: where it stood in the answer, as the number of characters of text and of tool calls
            before it.
    """

    origin: str
    at: tuple[int, int]

    def __init__(
        self, block: Mapping[str, Any], origin: str = "", at: tuple[int, int] = (0, 0)
    ) -> None:
        super().__init__(block)
        self.origin = origin
        self.at = at

    @classmethod
    def of(cls, block: Mapping[str, Any]) -> Self:
        """Return ``block`` itself, or one created from a plain mapping."""
        return block if isinstance(block, cls) else cls(block)

    def as_dict(self) -> dict[str, Any]:
        """Return its form in a recording."""
        return {"block": dict(self), "origin": self.origin, "at": list(self.at)}

    @classmethod
    def from_dict(cls, recorded: Mapping[str, Any]) -> Self:
        """Return the recorded block; older recordings lack its origin."""
        block, at = recorded.get("block"), recorded.get("at")
        if not isinstance(block, Mapping) or not isinstance(at, list) or len(at) != 2:
            return cls(recorded)
        return cls(block, str(recorded.get("origin") or ""), (at[0], at[1]))


# Where in a file its format is written, how, and what that makes of it.
_SOUNDS = (
    (0, b"ID3", "mp3", "audio/mpeg"),
    *((0, bytes((0xFF, second)), "mp3", "audio/mpeg") for second in (0xFB, 0xFA, 0xF3, 0xF2)),
    (0, b"OggS", "ogg", "audio/ogg"),
    (0, b"fLaC", "flac", "audio/flac"),
    (0, b"\x1aE\xdf\xa3", "webm", "audio/webm"),
    (4, b"ftyp", "m4a", "audio/mp4"),
    (8, b"WAVE", "wav", "audio/wav"),
)


@dataclass(frozen=True, slots=True)
class Sound:
    """A recording, by its bytes."""

    data: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if not self.data:
            msg = "The audio is empty (0 bytes)."
            raise ConfigurationError(msg, hint="Check that the file was written completely.")

    @property
    def _kind(self) -> tuple[str, str]:
        for at, mark, ending, media_type in _SOUNDS:
            if self.data[at : at + len(mark)] == mark:
                return ending, media_type
        msg = "Unknown audio format."
        raise ConfigurationError(msg, hint="Use MP3, MP4, M4A, WAV, FLAC, Ogg or WebM.")

    @property
    def media_type(self) -> str:
        """Its MIME type, read off its first bytes."""
        return self._kind[1]

    @property
    def file_name(self) -> str:
        """A name with the ending of its format, which the services go by."""
        return f"audio.{self._kind[0]}"


class Transcript(str):
    """
    The transcript of a recording as text; subtitles where those were requested.

    Attributes:
        data: what the service reported of it (language, duration, segments, words), or empty.
    """

    __slots__ = ("data",)

    data: Mapping[str, Any]

    def __new__(cls, text: str, data: Mapping[str, Any] | None = None) -> Self:
        transcript = super().__new__(cls, text)
        transcript.data = data or {}
        return transcript
