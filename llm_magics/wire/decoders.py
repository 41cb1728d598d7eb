"""
Decode the bytes of a stream to lines, server-sent events and JSON, with the base of all decoders.

Server-sent events follow WHATWG HTML, section 9.2, with two exceptions that real services need: an
event counts even if the stream ends before its blank line, and its size is unlimited, because
images are sent this way too.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from llm_magics._util.json_text import read_json
from llm_magics._util.text import count_or_none, replace_lone_surrogates
from llm_magics.types import StreamChunk
from llm_magics.wire.schema_dialects import WRAPPER


class NewlineSplitter:
    r"""
    Splits a stream of bytes at ``\n`` only, as JSON lines require.

    An incomplete line is stored as a list of the received pieces: joining it with every new piece
    would take quadratic time.
    """

    def __init__(self) -> None:
        self._rest: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that ``data`` completes, without their line ends."""
        if b"\n" not in data:
            if data:
                self._rest.append(data)
            return []
        lines = data.split(b"\n")
        if self._rest:
            lines[0] = b"".join([*self._rest, lines[0]])
        last = lines.pop()
        self._rest = [last] if last else []
        return lines

    def flush(self) -> list[bytes]:
        """Return the last line, if the stream ended without a line end."""
        rest, self._rest = b"".join(self._rest), []
        return [rest] if rest else []


class LineSplitter:
    r"""
    Splits a stream of bytes at ``\n``, ``\r`` and ``\r\n``; the lines exclude their line ends.

    It works on bytes rather than text, because ``str.splitlines`` also splits at U+2028 and other
    characters that a JSON string may contain.
    """

    def __init__(self) -> None:
        self._lines = NewlineSplitter()
        self._skip_newline = False

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that ``data`` completes."""
        if self._skip_newline and data:
            data = data.removeprefix(b"\n")
            self._skip_newline = False
        if b"\r" in data:
            # A \r at the very end may be the first half of \r\n, with the \n in the next piece.
            self._skip_newline = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        return self._lines.feed(data)

    def flush(self) -> list[bytes]:
        """Return the last line, if the stream ended without a line end."""
        return self._lines.flush()


class ServerEvent(NamedTuple):
    """One event: its name (``message`` by default) and its data, with lines joined by newlines."""

    name: bytes
    data: bytes


class EventDecoder:
    """Decodes bytes to server-sent events. Comments and unknown fields are ignored."""

    def __init__(self) -> None:
        self._lines = LineSplitter()
        self._name = b"message"
        self._data: list[bytes] = []
        self._is_first = True

    def feed(self, data: bytes) -> list[ServerEvent]:
        """Return the events that ``data`` completes."""
        return self._events(self._lines.feed(data))

    def flush(self) -> list[ServerEvent]:
        """Return the last event, if the stream ended without a blank line."""
        return self._events([*self._lines.flush(), b""])

    def _events(self, lines: list[bytes]) -> list[ServerEvent]:
        events: list[ServerEvent] = []
        if self._is_first and lines:
            lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")  # the byte order mark
            self._is_first = False
        for line in lines:
            if not line:
                if self._data:
                    events.append(ServerEvent(self._name, b"\n".join(self._data)))
                    self._data = []
                self._name = b"message"
                continue
            if line.startswith(b"data: "):
                self._data.append(line[6:])
                continue
            field, _, value = line.partition(b":")
            if field == b"data":
                self._data.append(value.removeprefix(b" "))
            elif field == b"event":
                self._name = value.removeprefix(b" ")
        return events


_OPEN, _CLOSE = "<think>", "</think>"

# The data of the event that ends a stream in OpenAI's formats.
DONE = b"[DONE]"


class ThinkTags:
    """
    Separates the thinking at the start of an answer from its text.

    Some servers do this themselves; others return the model's output unchanged. Thinking is between
    ``<think>`` and ``</think>`` at the start, or, if the prompt ended with the opening tag, before
    a lone ``</think>``. In the second case the thinking was already returned as text: the chunk
    with the tag is then marked with ``ends_reasoning``. Anywhere else the tags are text, because an
    answer may be about them.
    """

    def __init__(self) -> None:
        self.is_past = False
        self.removed = 0  # the characters before the answer, once it has started
        self._fed = 0
        self._held = ""
        self._is_thinking = False
        self._is_after = False
        self._is_plain = False
        self._said: list[str] = []

    def split(self, chunk: StreamChunk) -> StreamChunk:
        """Return ``chunk`` with thinking in ``reasoning``; a possible partial tag is held back."""
        if self.is_past or not (chunk.text or chunk.finish_reason):
            return chunk
        self._fed += len(chunk.text)
        if self._is_plain and not self._held and "<" not in chunk.text and not chunk.finish_reason:
            self._said.append(chunk.text)  # the usual case
            return chunk
        was_plain = self._is_plain
        text, reasoning = self._split(chunk.text)
        ends_reasoning = was_plain and not self._is_plain
        if chunk.finish_reason:
            rest = self.flush()
            text, reasoning = text + rest.text, reasoning + rest.reasoning
        reasoning = chunk.reasoning + reasoning
        return chunk._replace(text=text, reasoning=reasoning, ends_reasoning=ends_reasoning)

    def flush(self) -> StreamChunk:
        """Return the text that is still held back at the end of the answer."""
        held, self._held = self._held, ""
        return StreamChunk("", held) if self._is_thinking else StreamChunk(held)

    def _split(self, text: str) -> tuple[str, str]:
        text, self._held = self._held + text, ""
        reasoning = ""
        if self._is_plain:
            return self._until_lone_tag(text)
        if not self._is_thinking and not self._is_after:
            start = text.lstrip()
            if _OPEN.startswith(start[: len(_OPEN)]) and len(start) < len(_OPEN):
                self._held = text
                return "", ""
            if not start.startswith(_OPEN):
                self._is_plain = True
                return self._until_lone_tag(text)
            self._is_thinking, text = True, start[len(_OPEN) :]
        if self._is_thinking:
            reasoning, closed, text = text.partition(_CLOSE)
            if not closed:
                keep = _count_partial_close(reasoning)
                self._held = reasoning[len(reasoning) - keep :]
                return "", reasoning[: len(reasoning) - keep]
            self._is_thinking, self._is_after = False, True
        return self._after(text), reasoning

    def _after(self, text: str) -> str:
        text = text.lstrip("\n")  # blank lines between thinking and answer
        self.is_past = bool(text)
        self.removed = self._fed - len(text)
        return text

    def _until_lone_tag(self, text: str) -> tuple[str, str]:
        """Return text and thinking, split at a closing tag; without one, all of it is text."""
        index = text.find(_CLOSE)
        while index >= 0:
            if _may_end_thinking("".join([*self._said, text[:index]])):
                self._is_plain, self._is_after = False, True
                return self._after(text[index + len(_CLOSE) :]), text[:index]
            index = text.find(_CLOSE, index + 1)
        keep = _count_partial_close(text) if "<" in text[1 - len(_CLOSE) :] else 0
        text, self._held = text[: len(text) - keep], text[len(text) - keep :]
        self._said.append(text)
        return text, ""


def _may_end_thinking(before: str) -> bool:
    """
    Return whether a closing tag after ``before`` ends the thinking.

    It does not after an opening tag, and not in quotes or code, where the text is about tags.
    """
    line = before.rpartition("\n")[2]
    is_quoted = before.endswith(("`", '"', "'", "“", "‘", "«")) or line.count("`") % 2 == 1
    return _OPEN not in before and not is_quoted and before.count("```") % 2 == 0


def _count_partial_close(text: str) -> int:
    """Return the number of characters at the end that may begin the closing tag."""
    for length in range(min(len(_CLOSE) - 1, len(text)), 0, -1):
        if _CLOSE.startswith(text[-length:]):
            return length
    return 0


def decode_json(data: bytes) -> Any:
    """
    Return the value in ``data``; lone surrogates are kept, as the other half may be in the next
    event.

    Raises:
        ValueError: ``data`` is not JSON, or is nested too deeply.
    """
    return read_json(data, replace_surrogates=False)


# The exceptions of code that reads an answer, if the service sent something unexpected.
DECODING_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


class InStreamError(Exception):
    """An error that the service sent inside a stream after the status 200."""

    def __init__(self, body: Any) -> None:
        super().__init__(str(body))
        self.body = body


def is_error_body(body: Any) -> bool:
    """
    Return whether ``body``, which is an event of a stream or a complete answer, is an error.

    Google sends its errors in a list, old vLLM servers as ``{"object": "error", …}``, gateways
    as ``{"detail": …}`` or ``{"message": …}``.
    """
    if isinstance(body, list):
        return any(is_error_body(each) for each in body)
    if not isinstance(body, dict):
        return False
    if body.get("error"):
        return True
    if "choices" in body:
        return False
    says = body.get("message") or body.get("detail")
    if body.get("object") == "error" or body.get("type") == "error":
        return bool(says)
    return bool(body.get("errors")) or bool(body.get("detail")) or _is_bare_message(body)


def decode_typed_event(data: bytes) -> dict[str, Any] | None:
    """Return the object of an event that has a ``type``; ``None`` for the end marker."""
    if data.startswith(DONE) or not data.strip():  # from compatible servers
        return None
    body = decode_json(data)
    if not isinstance(body, dict) or ("type" not in body and is_error_body(body)):
        raise InStreamError(body)
    return body


def _is_bare_message(body: dict[str, Any]) -> bool:
    """Return whether ``body`` is a message with a code or status, as errors of gateways are."""
    named = {"code", "status", "status_code", "type", "statusCode"}
    has_name = any(body.get(name) is not None for name in named)
    return isinstance(body.get("message"), str) and has_name


class EventChunkDecoder(ABC):
    """Decodes bytes to the chunks that `_read` creates from the events in them."""

    def __init__(self) -> None:
        self._events = EventDecoder()
        self.finished = False
        # An error in the same event as a piece of the answer, which is yielded first.
        self.failure: Mapping[str, Any] | None = None

    def feed(self, data: bytes, elapsed_s: float) -> Iterator[StreamChunk]:
        """Yield the chunks that ``data``, received at ``elapsed_s``, completes."""
        return self._chunks(self._events.feed(data), elapsed_s)

    def flush(self, elapsed_s: float) -> Iterator[StreamChunk]:
        """Yield the remaining chunks at the end of the stream."""
        return self._chunks(self._events.flush(), elapsed_s)

    def _chunks(self, events: Sequence[ServerEvent], elapsed_s: float) -> Iterator[StreamChunk]:
        for event in events:
            chunk = self._read(event, elapsed_s)
            if chunk is not None:
                yield chunk
            if self.failure is not None:
                raise InStreamError(self.failure)

    @abstractmethod
    def _read(self, event: ServerEvent, elapsed_s: float) -> StreamChunk | None:
        """Return the chunk of an event; ``None`` if there is none."""


def count_reasoning_tokens(usage: Mapping[str, Any]) -> int | None:
    """Return the number of thinking tokens, from any field that a service uses for it."""
    for name in ("completion_tokens_details", "output_tokens_details"):
        details = usage.get(name)
        if isinstance(details, Mapping):
            for kind in ("reasoning_tokens", "thinking_tokens"):
                if (count := count_or_none(details.get(kind))) is not None:
                    return count
    return count_or_none(usage.get("reasoning_tokens"))


# The start of the object that wraps an answer, and its prefixes.
_WRAPPER_START = re.compile(rf'\s*\{{\s*"{WRAPPER}"\s*:\s*')


_PARTIAL_WRAPPER_START = re.compile(
    r"\s*(?:\{\s*(?:"
    + "|".join(re.escape(f'"{WRAPPER}"'[:length]) for length in range(len(WRAPPER) + 2, 0, -1))
    + rf'|"{WRAPPER}"\s*)?)?'
)


_WRAPPER_END = re.compile(r"\s*\}\s*")


class AnswerUnwrapper:
    """
    Removes the object that wraps an answer, while the answer arrives.

    An answer that is not wrapped passes unchanged. A ``}`` at the end is held back, because it may
    close the wrapper.
    """

    def __init__(self) -> None:
        self._held = ""
        self._is_wrapped: bool | None = None
        self._removed = 0

    def take(self, chunk: StreamChunk) -> StreamChunk:
        """Return ``chunk`` with the part of the answer that is certain so far."""
        text = self._held + chunk.text
        self._held = ""
        if self._is_wrapped is None and text.strip():
            text = self._begun(text)
        elif self._is_wrapped is None:
            self._held, text = text, ""
        if self._is_wrapped:
            text = self._without_end(text)
        if chunk.finish_reason:
            text += self.flush()
        chunk = chunk._replace(text=text) if text != chunk.text else chunk
        return move_citations(chunk, -self._removed)

    def _begun(self, text: str) -> str:
        found = _WRAPPER_START.match(text)
        # The whitespace after the colon may continue in the next chunk.
        if found is not None and found.end() < len(text):
            self._is_wrapped, self._removed = True, found.end()
            return text[found.end() :]
        if found is not None or _PARTIAL_WRAPPER_START.fullmatch(text):
            self._held = text
            return ""
        self._is_wrapped = False
        return text

    def _without_end(self, text: str) -> str:
        end = len(text.rstrip().removesuffix("}").rstrip())
        self._held = text[end:]
        return text[:end]

    def flush(self) -> str:
        """Return the text that was held back and belongs to the answer."""
        held, self._held = self._held, ""
        if self._is_wrapped:
            return "" if _WRAPPER_END.fullmatch(held) else held
        return held


def move_citations(chunk: StreamChunk, by: int) -> StreamChunk:
    """Return ``chunk`` with its citations moved by a number of characters."""
    if not by or not chunk.citations:
        return chunk
    return chunk._replace(citations=tuple(each.moved(by) for each in chunk.citations))


_SURROGATE = re.compile("[\ud800-\udfff]")


def join_surrogates(
    chunk: StreamChunk, halves: tuple[str, str]
) -> tuple[StreamChunk, tuple[str, str]]:
    """
    Join surrogate pairs that are split between chunks.

    Args:
        chunk: the next chunk.
        halves: the first halves at the ends of text and thinking that were held back before.

    Returns:
        The chunk with complete characters, and the halves to hold back for the next chunk.
    """
    texts = halves[0] + chunk.text, halves[1] + chunk.reasoning
    if not any(map(_SURROGATE.search, texts)):
        return chunk, ("", "")
    is_last = bool(chunk.finish_reason)
    (text, half), (reasoning, other) = (_split_surrogate(each, is_last) for each in texts)
    return chunk._replace(text=text, reasoning=reasoning), (half, other)


def _split_surrogate(text: str, is_last: bool) -> tuple[str, str]:
    half = text[-1:] if "\ud800" <= text[-1:] <= "\udbff" and not is_last else ""
    return replace_lone_surrogates(text.removesuffix(half)), half
