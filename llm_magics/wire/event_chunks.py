"""The way from bytes over server-sent events to chunks, for formats of one chunk an event."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from llm_magics.types import StreamChunk
from llm_magics.wire.errors import InStreamError
from llm_magics.wire.sse import EventDecoder, ServerEvent


class EventChunkDecoder(ABC):
    """Feeds on bytes, yields the chunks that `_read` makes of the events in them."""

    def __init__(self) -> None:
        self._events = EventDecoder()
        self.finished = False
        # An error that came in one event with a piece of the answer, which is handed out first.
        self.failure: Mapping[str, Any] | None = None

    def feed(self, data: bytes, elapsed_s: float) -> Iterator[StreamChunk]:
        """The chunks that ``data``, read at ``elapsed_s``, completes."""
        return self._chunks(self._events.feed(data), elapsed_s)

    def flush(self, elapsed_s: float) -> Iterator[StreamChunk]:
        """What is left when the stream has ended."""
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
        """The chunk in an event, if there is one."""
