"""
Two functions out of one implementation: one that waits, and one that is awaited.

A *work* is prepared in the caller's own thread — templates run the user's code there — and
walked on the bridge's loop. So both twins work in a script, in a thread, in a kernel, and in a
loop that is running; cancelling the one and interrupting the other stop the model at once.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, ParamSpec, Protocol, Self, TypeVar

from llm_magics._async.bridge import bridge
from llm_magics.errors import Interrupted
from llm_magics.host import ProgressDisplay, current_host
from llm_magics.progress import Progress
from llm_magics.types import StreamChunk

Event_co = TypeVar("Event_co", bound=Progress | StreamChunk, covariant=True)


class Call(Protocol[Event_co]):
    """A call on the road, of whatever kind."""

    def events(self) -> AsyncGenerator[Event_co, None]:
        """What happens, as it happens."""


class SyncRunner(Generic[Event_co]):
    """
    Walks a call from a thread without a loop. Use it in a ``with`` block, and iterate once.

    However the block is left, the call has ended when it is: the connection is closed and
    the engine stands still. Progress is shown as it comes; the rest is handed out.
    """

    def __init__(
        self,
        call: Call[Event_co],
        show_progress: ProgressDisplay | None = None,
        idle: Callable[[], None] | None = None,
    ) -> None:
        """
        Walk ``call``, showing its progress in a view of its own or by ``show_progress``.

        ``idle`` is called now and then while nothing happens.
        """
        self._events: Generator[Event_co, None, None] = bridge.iterate(call.events(), idle)
        self._show_progress = show_progress or current_host().create_progress_display()

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


async def iterate_async(call: Call[Event_co]) -> AsyncGenerator[StreamChunk, None]:
    """
    The same for a caller who has a loop of his own.

    When the generator is closed, or its task is cancelled, the call ends before it does.
    """
    show = current_host().create_progress_display()
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


P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C")
_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Operation(Generic[T]):
    """
    A call that is ready to be walked.

    Attributes:
        call: what is walked.
        result: what came of it, when it has ended.
        stopped: the exception for a user's Interrupt, with what had come.
    """

    call: Call[Progress | StreamChunk]
    result: Callable[[], T]
    stopped: Callable[[], BaseException] = lambda: Interrupted("Stopped.")


class CoroutineCall(Generic[T]):
    """A call that hands out nothing on its way: the result of ``work``."""

    def __init__(self, work: Callable[[], Awaitable[T]]) -> None:
        self._work = work
        self.value: T

    async def events(self) -> AsyncGenerator[Progress | StreamChunk, None]:
        """Walk it."""
        self.value = await self._work()
        return
        yield

    def result(self) -> T:
        """What came of it."""
        return self.value


def blocking(name: str, prepare: Callable[P, Operation[T]]) -> Callable[P, T]:
    """The function ``name`` that waits until the work that ``prepare`` makes is done."""

    def wait(*args: P.args, **given: P.kwargs) -> T:
        work = prepare(*args, **given)
        try:
            with SyncRunner(work.call) as exchange:
                exchange.finish()
        except KeyboardInterrupt:
            raise work.stopped() from None
        return work.result()

    return _copy_signature(wait, name, prepare)


def awaited(name: str, prepare: Callable[P, Operation[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """The same, to be awaited."""

    async def wait(*args: P.args, **given: P.kwargs) -> T:
        work = prepare(*args, **given)
        try:
            async for _ in iterate_async(work.call):
                pass
        except asyncio.CancelledError as error:
            partial = getattr(work.stopped(), "partial", None)
            if partial is not None:  # what had come is not lost with the task
                vars(error)["partial"] = partial
            raise
        return work.result()

    return _copy_signature(wait, name, prepare)


def wrap_factory(made: Callable[[C], T], name: str, prepare: Callable[P, C]) -> Callable[P, T]:
    """The function ``name`` that gives what ``made`` makes of the call that is prepared."""

    def make(*args: P.args, **given: P.kwargs) -> T:
        return made(prepare(*args, **given))

    return _copy_signature(make, name, prepare, getattr(made, "__name__", ""))


def _copy_signature(made: _F, name: str, prepare: Callable[..., Any], result: str = "") -> _F:
    """``made`` with the name, the help and the signature of what it stands for."""
    dressed: Any = made
    functools.update_wrapper(dressed, prepare)
    del dressed.__wrapped__  # its result is another
    dressed.__name__ = dressed.__qualname__ = name
    if prepare.__qualname__.startswith("_"):  # Python's own errors then name what was called
        prepare.__qualname__ = name
    signature = inspect.signature(prepare)
    told = result or str(signature.return_annotation).removeprefix("Operation[").removesuffix("]")
    dressed.__signature__ = signature.replace(return_annotation=told)
    dressed.__annotations__ = {**prepare.__annotations__, "return": told}
    return made
