"""
OpenAI's formats of embeddings, images and transcriptions.

Compatible services use the format of embeddings too.

Source: https://platform.openai.com/docs/api-reference/embeddings, /images and /audio.
"""

from __future__ import annotations

import array
import base64
import binascii
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from llm_magics._util.json_text import read_json
from llm_magics.attachments import Sound, Transcript
from llm_magics.errors import ConfigurationError, ProviderError, nearest
from llm_magics.types import Embeddings, PackedVectors, Usage, float32_bytes

# The maximum file size that the service accepts.
MAX_AUDIO_BYTES = 25 * 1024 * 1024

TRANSCRIPT_FORMATS = ("json", "text", "srt", "vtt", "verbose_json", "diarized_json")


def build_image_request(prompt: str, model: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the body of ``POST /images/generations``.

    DALL·E returns a URL that soon expires unless ``b64_json`` is requested; its successors always
    return the image, and reject the parameter.
    """
    inline = {"response_format": "b64_json"} if model.startswith("dall-e") else {}
    return {"model": model, "prompt": prompt, **inline, **options}


def parse_images(reply: Mapping[str, Any]) -> list[bytes | str]:
    """Return the images of an answer, each as its bytes or its URL."""
    rows = reply.get("data") or []
    if not rows:
        msg = "The service returned no image."
        raise ProviderError(msg, hint="Rephrase the prompt and run the cell again.", body=reply)
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
        msg = f'Unknown transcription format: "{format_}".'
        raise ConfigurationError(msg, hint=nearest(str(format_), TRANSCRIPT_FORMATS))
    fields: dict[str, str | list[str]] = {"model": model, "response_format": format_}
    for name, value in remaining.items():
        if isinstance(value, list | tuple):
            fields[f"{name}[]"] = [str(each) for each in value]
        elif value is not None:
            fields[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return fields, format_


def check_audio_size(sound: Sound) -> None:
    """Raise an error for a file that the service would reject after receiving all of it."""
    if len(sound.data) > MAX_AUDIO_BYTES:
        size = len(sound.data) / 1e6
        msg = f"The audio file has {size:.0f} MB; the service accepts at most 25 MB."
        raise ConfigurationError(msg, hint="Split it, or convert it to MP3 or Opus.")


def parse_transcript(body: bytes, format_: str) -> Transcript:
    """Return the transcript. Some servers send JSON or text independent of the requested format."""
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


def build_embedding_request(
    texts: Sequence[str],
    model: str,
    encoding_format: str = "base64",
    dimensions: int | None = None,
) -> dict[str, Any]:
    """Return the body of ``POST /embeddings``."""
    body = {"model": model, "input": list(texts), "encoding_format": encoding_format}
    return body if dimensions is None else {**body, "dimensions": dimensions}


def parse_embeddings(reply: Mapping[str, Any]) -> Embeddings:
    """
    Return the vectors of an answer, from base64 or numbers, in the order of the texts sent.

    An invalid vector becomes NaN.

    Raises:
        ValueError: it is unclear which vector belongs to which text.
    """
    return Embeddings.of_rows(
        [_decode_vector(each) for each in _sort_vectors(reply)], parse_embedding_usage(reply)
    )


def _sort_vectors(reply: Mapping[str, Any]) -> list[Any]:
    """
    Return the undecoded vectors of an answer, in the order of the texts sent.

    Raises:
        ValueError: their indexes are not the numbers from 0 on, each exactly once.
    """
    data = reply.get("data") if isinstance(reply, Mapping) else None
    if not isinstance(data, list) or not all(isinstance(row, dict) for row in data):
        msg = "a response without a list of vectors"
        raise ValueError(msg)
    indexes = [row.get("index") for row in data]
    vectors = [row.get("embedding") for row in data]
    if indexes == [None] * len(data):
        return vectors
    # ``1.0`` and ``True`` equal 1, so the types are compared too.
    if set(map(type, indexes)) != {int} or sorted(indexes) != list(range(len(data))):
        listed = ", ".join(repr(index) for index in indexes[:8])
        msg = f"vectors whose indexes are not exactly 0 to {len(data) - 1}: {listed:.80}"
        raise ValueError(msg)
    return [vector for _, vector in sorted(zip(indexes, vectors, strict=True), key=_by_index)]


def _by_index(row: tuple[int, Any]) -> int:
    return row[0]


_VECTOR = b'"embedding":'


# The prefix of the number that replaces an extracted vector; base64 does not use this character.
_MARK = "#"


def extract_vectors(body: bytes) -> tuple[bytes, list[memoryview]]:
    """
    Replace each base64 vector of an answer by a marker; return the rest of the answer, and the
    vectors.

    The vectors are not parsed as JSON strings, which would take as long as decoding the base64.
    Keys inside a JSON string are not found, because they have backslashes before their quotes.
    """
    view = memoryview(body)
    pieces: list[bytes | memoryview] = []
    vectors: list[memoryview] = []
    done = 0
    while (at := body.find(_VECTOR, done)) >= 0:
        start = at + len(_VECTOR)
        while body[start : start + 1].isspace():
            start += 1
        end = body.find(b'"', start + 1)
        if body[start : start + 1] != b'"' or end < 0 or body.find(b"\\", start, end) >= 0:
            pieces.append(view[done:start])  # numbers, or a string with escapes
            done = start
            continue
        pieces += [view[done:start], b'"#%d"' % len(vectors)]
        vectors.append(view[start + 1 : end])
        done = end + 1
    return b"".join([*pieces, view[done:]]), vectors


def parse_packed_rows(
    reply: Mapping[str, Any], vectors: Sequence[bytes | memoryview] = ()
) -> list[bytes | None]:
    """
    Return the vectors of an answer as little-endian float32; ``None`` for an invalid one.

    Base64 is not unpacked into numbers; ``vectors`` are those from `extract_vectors`.

    Raises:
        ValueError: it is unclear which vector belongs to which text.
    """
    return [_decode_float32(each, vectors) for each in _sort_vectors(reply)]


def parse_packed_vectors(
    reply: Mapping[str, Any], vectors: Sequence[bytes | memoryview] = ()
) -> PackedVectors:
    """Return the vectors as one packed array; an invalid vector becomes NaN."""
    return PackedVectors.of_rows(parse_packed_rows(reply, vectors), parse_embedding_usage(reply))


def parse_embedding_usage(reply: Mapping[str, Any]) -> Usage:
    """Return the number of tokens in the texts."""
    usage = reply.get("usage") or {}
    return Usage(usage.get("prompt_tokens", usage.get("total_tokens")))  # for Voyage


def _decode_float32(embedding: Any, vectors: Sequence[bytes | memoryview]) -> bytes | None:
    """Return the bytes of one vector, from base64, numbers, or the marker of an extracted one."""
    if not isinstance(embedding, str):
        return float32_bytes(embedding)
    packed: str | bytes | memoryview = embedding
    if embedding.startswith(_MARK) and embedding[1:].isdecimal():
        number = int(embedding[1:])
        packed = vectors[number] if number < len(vectors) else b""
    elif "\n" in embedding:  # base64 with line breaks, as in MIME
        packed = "".join(embedding.split())
    try:  # non-strict decoding would ignore invalid characters
        data = binascii.a2b_base64(packed, strict_mode=True)
    except ValueError:
        return None
    return data if data and len(data) % 4 == 0 else None


def _decode_vector(embedding: Any) -> Any:
    """Return the numbers of a base64 vector; any other value is returned unchanged."""
    packed = _decode_float32(embedding, ()) if isinstance(embedding, str) else None
    if packed is None:
        return embedding
    floats = array.array("f", packed)
    if sys.byteorder == "big":
        floats.byteswap()
    return floats.tolist()
