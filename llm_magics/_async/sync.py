"""
Run calls from ordinary and from asynchronous functions.

An `Operation` is prepared in the caller's thread, because templates run the user's code there. Its
call runs on the event loop of the bridge. So both ``lm.ask`` and ``lm.aask`` work in a script, in a
thread, in a kernel and in a running event loop. Interrupting the first or cancelling the second
stops the model immediately.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from llm_magics._async.bridge import bridge
from llm_magics._async.functions import current_scope
from llm_magics.errors import Interrupted
from llm_magics.host import Progress, ProgressDisplay, current_host
from llm_magics.types import StreamChunk

Event_co = TypeVar("Event_co", bound=Progress | StreamChunk, covariant=True)


class Call(Protocol[Event_co]):
    """A request of any kind that reports its progress and its results as events."""

    def events(self) -> AsyncGenerator[Event_co, None]:
        """Run the call and yield its events as they arrive."""


class SyncRunner(Generic[Event_co]):
    """
    Runs a call from a thread without an event loop. Use it in a ``with`` block, and iterate once.

    The call always ends before the block does: the connection is then closed and the model stopped.
    It displays progress and yields chunks.
    """

    def __init__(
        self,
        call: Call[Event_co],
        show_progress: ProgressDisplay | None = None,
        idle: Callable[[], None] | None = None,
    ) -> None:
        """
        Run ``call``, and show its progress in a new view or by ``show_progress``.

        ``idle`` is called regularly while nothing happens.
        """
        self._events: Generator[Event_co, None, None] = bridge.iterate(call.events(), idle)
        self._show_progress = show_progress or _create_progress_display()

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
        """Run the call to its end, without yielding its chunks."""
        for _ in self:
            pass


def _create_progress_display() -> ProgressDisplay:
    """Return a display; one without effect inside a function whose caller shows the progress."""
    if current_scope.get() is not None:
        return lambda progress: None
    return current_host().create_progress_display()


async def iterate_async(call: Call[Event_co]) -> AsyncGenerator[StreamChunk, None]:
    """
    Run ``call`` for a caller with an event loop, and yield its chunks.

    When the generator is closed or its task is cancelled, the call ends first.
    """
    show = _create_progress_display()
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


T = TypeVar("T")


@dataclass(frozen=True)
class Operation(Generic[T]):
    """
    A call that is ready to run.

    Attributes:
        call: the call to run.
        result: returns the result after the call has ended.
        interrupted: returns the exception for a user's interrupt, with the partial result.
    """

    call: Call[Progress | StreamChunk]
    result: Callable[[], T]
    interrupted: Callable[[], BaseException] = lambda: Interrupted("Stopped.")


class CoroutineCall(Generic[T]):
    """A call without events, which awaits the coroutine that ``function`` returns."""

    def __init__(self, function: Callable[[], Awaitable[T]]) -> None:
        self._function = function
        self.value: T

    async def events(self) -> AsyncGenerator[Progress | StreamChunk, None]:
        """Await the coroutine, without yielding events."""
        self.value = await self._function()
        return
        yield

    def result(self) -> T:
        """Return the result of the coroutine."""
        return self.value


def run_sync(operation: Operation[T]) -> T:
    """Run an operation, showing its progress, and return its result."""
    try:
        with SyncRunner(operation.call) as runner:
            runner.finish()
    except KeyboardInterrupt:
        raise operation.interrupted() from None
    return operation.result()


async def run_async(operation: Operation[T]) -> T:
    """Run an operation without blocking the caller's event loop, and return its result."""
    try:
        async for _ in iterate_async(operation.call):
            pass
    except asyncio.CancelledError as error:
        partial = getattr(operation.interrupted(), "partial", None)
        if partial is not None:  # available after the task has ended
            vars(error)["partial"] = partial
        raise
    return operation.result()
