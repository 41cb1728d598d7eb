"""Attachments of messages: images, audio, transcripts and reasoning blocks."""

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

# PNG's colour type, by the number of values per pixel.
_KINDS = {1: 0, 3: 2, 4: 6}

_SHAPES = "Use the shape (height, width), (height, width, 3) or (height, width, 4), with values 0 to 255 or 0.0 to 1.0."


def encode_png(array: Any) -> bytes:
    """
    Return an array as a PNG file (W3C, 3rd edition).

    Args:
        array: an array of shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4): grey, RGB or RGBA.
            Its values are integers from 0 to 255, floats from 0 to 1, or booleans.

    Raises:
        ConfigurationError: the array is not an image.
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
    """Whether all values are from 0 to 255; NaN and infinity are not."""
    return bool(pixels.min() >= 0 and pixels.max() <= 255)


def _write_png(pixels: Any) -> bytes:
    height, width, values = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 8, _KINDS[values], 0, 0, 0)
    # Each line begins with its filter type; 0 means no filter.
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(*part) for part in parts)


def _png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


# The first bytes of the image formats that services accept.
_SIGNATURES = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
}


@dataclass(frozen=True, slots=True)
class Image:
    """An image: its bytes, or a URL that the service fetches itself."""

    data: bytes = field(default=b"", repr=False)
    url: str = ""

    def __post_init__(self) -> None:
        if bool(self.data) == bool(self.url):
            msg = "An image needs either data or url."
            raise ConfigurationError(msg, hint="Pass one of data and url.")

    @property
    def media_type(self) -> str:
        """The MIME type, determined from the first bytes."""
        if self.data[:4] == b"RIFF" and self.data[8:12] == b"WEBP":
            return "image/webp"
        for signature, media_type in _SIGNATURES.items():
            if self.data.startswith(signature):
                return media_type
        msg = "Unknown image format."
        raise ConfigurationError(msg, hint="Use PNG, JPEG, GIF or WebP.")

    @property
    def base64(self) -> str:
        """The bytes in base64."""
        if not self.data:
            msg = "This service does not accept image URLs."
            raise ConfigurationError(
                msg, hint="Download the image first, and pass its bytes or path."
            )
        return base64.b64encode(self.data).decode()

    @property
    def as_url(self) -> str:
        """The URL, or the bytes as a data URL."""
        return self.url or f"data:{self.media_type};base64,{self.base64}"


def load_image(source: Any) -> Image:
    """
    Return an image from any source that users have.

    Args:
        source: bytes, a path, a URL, an array, a figure, or an image of PIL or IPython.

    Raises:
        ConfigurationError: the source is not an image, or the file does not exist.
    """
    if isinstance(source, Image):
        return source
    if isinstance(source, bytes | bytearray):
        return _from_bytes(bytes(source), "The image")
    return _load_named(source) if isinstance(source, str | Path) else _render_image(source)


def _load_named(source: str | Path) -> Image:
    """Return the image at a path or URL, or in a data URL."""
    if isinstance(source, str) and source.startswith("data:"):
        return _from_bytes(_decode_base64(source.partition(",")[2]), "The image in the data URL")
    if isinstance(source, str) and source.startswith(("https://", "http://")):
        return Image(url=source)
    return _read_image(source)


def _render_image(source: Any) -> Image:
    """Return the image of an object of another library."""
    if isinstance(getattr(source, "data", None), bytes):  # IPython
        return _from_bytes(source.data, "The image")
    if hasattr(source, "convert") and getattr(source, "mode", None) not in _PNG_MODES:  # PIL
        source = source.convert("RGB")
    for way in ("save", "savefig"):  # PIL, matplotlib
        if hasattr(source, way):
            return Image(_save_png(getattr(source, way)))
    if hasattr(source, "get_figure"):  # a part of a figure, such as its axes
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
    """Return the PNG file that the function ``save`` of PIL or matplotlib writes."""
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
    """Return the image in the bytes of a file; CMYK is converted to RGB."""
    if not data:
        msg = f"{what} is empty (0 bytes)."
        raise ConfigurationError(msg, hint="Check that the file was written completely.")
    return Image(_convert_to_rgb(data) if _is_cmyk(data) else data)


# Modes that PIL writes into a PNG file unchanged; the rest (CMYK, YCbCr, LAB …) becomes RGB.
_PNG_MODES = frozenset({"1", "I", "I;16", "L", "LA", "P", "PA", "RGB", "RGBA"})

# JPEG's frame markers; a frame has the number of colour components (ITU-T T.81, table B.1).
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})


def _is_cmyk(data: bytes) -> bool:
    """Whether the bytes are a JPEG file with four colour components (CMYK)."""
    at = 2
    while data.startswith(b"\xff\xd8\xff") and at + 9 < len(data) and data[at] == 0xFF:
        if data[at + 1] in _FRAMES:
            return data[at + 9] == 4
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def _convert_to_rgb(data: bytes) -> bytes:
    """Return a CMYK image as an RGB PNG, because services misread CMYK."""
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
        origin: the service that sent it, and the model if other models cannot read it; empty if
            unknown.
        at: its position in the answer: the number of characters of text and the number of tool
            calls before it.
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
        """Return the block as a dict for a recording."""
        return {"block": dict(self), "origin": self.origin, "at": list(self.at)}

    @classmethod
    def from_dict(cls, recorded: Mapping[str, Any]) -> Self:
        """Return a block from a recording; older recordings do not have its origin."""
        block, at = recorded.get("block"), recorded.get("at")
        if not isinstance(block, Mapping) or not isinstance(at, list) or len(at) != 2:
            return cls(recorded)
        return cls(block, str(recorded.get("origin") or ""), (at[0], at[1]))


# Audio formats: the offset and bytes of the signature, the file extension, and the MIME type.
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
    """An audio recording: the bytes of its file."""

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
        """The MIME type, determined from the first bytes."""
        return self._kind[1]

    @property
    def base64(self) -> str:
        """The bytes in base64."""
        return base64.b64encode(self.data).decode()

    @property
    def file_name(self) -> str:
        """A file name with the extension of the format, which services use to recognise it."""
        return f"audio.{self._kind[0]}"


class Transcript(str):
    """
    The transcript of a recording as text, or as subtitles if these were requested.

    Attributes:
        data: further data from the service (language, duration, segments, words); may be empty.
    """

    __slots__ = ("data",)

    data: Mapping[str, Any]

    def __new__(cls, text: str, data: Mapping[str, Any] | None = None) -> Self:
        transcript = super().__new__(cls, text)
        transcript.data = data or {}
        return transcript
