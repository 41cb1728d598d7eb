"""A call as the cell's own thread sees it: plain iteration, and nothing left running after."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from llm_magics import progress
from llm_magics.bridge import bridge
from llm_magics.types import Progress, StreamChunk

Event_co = TypeVar("Event_co", bound=Progress | StreamChunk, covariant=True)


class Call(Protocol[Event_co]):
    """A call on the road, of whatever kind."""

    def events(self) -> AsyncGenerator[Event_co, None]:
        """What happens, as it happens."""


class Exchange(Generic[Event_co]):
    """
    Walks a call from a thread without a loop. Use it in a ``with`` block, and iterate once.

    However the block is left, the call has ended when it is: the connection is closed and
    the engine stands still. Progress is shown as it comes; the rest is handed out.
    """

    def __init__(
        self,
        call: Call[Event_co],
        show_progress: progress.View | None = None,
        idle: Callable[[], None] | None = None,
    ) -> None:
        """
        Walk ``call``, showing its progress in a view of its own or by ``show_progress``.

        ``idle`` is called now and then while nothing happens.
        """
        self._events: Generator[Event_co, None, None] = bridge.iterate(call.events(), idle)
        self._show_progress = show_progress or progress.new_view()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _: TracebackType | None,
    ) -> None:
        self._events.close()
        self._show_progress(None)

    def __iter__(self) -> Iterator[StreamChunk]:
        for event in self._events:
            if isinstance(event, Progress):
                self._show_progress(event)
            else:
                yield event

    def finish(self) -> None:
        """Walk to the end, handing nothing out."""
        for _ in self:
            pass


async def walked(call: Call[Event_co]) -> AsyncGenerator[StreamChunk, None]:
    """
    The same for a caller who has a loop of his own.

    When the generator is closed, or its task is cancelled, the call ends before it does.
    """
    show = progress.new_view()
    events = bridge.aiterate(call.events())
    try:
        async for event in events:
            if isinstance(event, Progress):
                show(event)
            else:
                yield event
    finally:
        show(None)
        await events.aclose()
