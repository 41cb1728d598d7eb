"""An array of pixels as the bytes of a PNG file, for models that look at pictures."""

from __future__ import annotations

import struct
import zlib
from typing import Any

from llm_magics.errors import ConfigurationError

# PNG's word for a pixel of so many values.
_KINDS = {1: 0, 3: 2, 4: 6}

_SHAPES = (
    "Give it the shape (height, width), or with 3 or 4 colours behind; 0 to 255, or 0.0 to 1.0."
)


def png_of(array: Any) -> bytes:
    """
    The PNG file (W3C, 3rd edition) of an array of numpy's kind.

    Args:
        array: of shape (h, w), (h, w, 1), (h, w, 3) or (h, w, 4): grey, RGB or RGBA; of whole
            numbers from 0 to 255, of fractions from 0 to 1, or of truth values.

    Raises:
        ConfigurationError: it is no picture.
    """
    import numpy as np

    pixels = np.asarray(array)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in _KINDS or not pixels.size:
        msg = f"An array of shape {np.shape(array)} is no picture."
        raise ConfigurationError(msg, hint=_SHAPES)
    if pixels.dtype.kind in "fb":
        pixels = pixels * 255.0
    if pixels.dtype.kind not in "fiu" or not _fits(pixels):
        msg = f"The values of the array ({pixels.dtype}) are no colours."
        raise ConfigurationError(msg, hint=_SHAPES)
    return _file(np.rint(pixels).astype(np.uint8))


def _fits(pixels: Any) -> bool:
    """Whether all values are colours; those that are no number are not."""
    return bool(pixels.min() >= 0 and pixels.max() <= 255)


def _file(pixels: Any) -> bytes:
    height, width, values = pixels.shape
    head = struct.pack(">IIBBBBB", width, height, 8, _KINDS[values], 0, 0, 0)
    # Each line begins with the number of its filter, and 0 is none.
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_part(*part) for part in parts)


def _part(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
