"""
The event loop that all providers share, and calls to it from other threads and loops.

The loop runs in one daemon thread. The thread of a cell reads results from a queue, so that every
output appears in the right cell. An interrupt, ``break`` or an error cancels the coroutine, and
waits
until it has ended: no stream continues while the kernel is idle.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import queue
import threading
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Future, wait
from contextvars import ContextVar
from typing import Any, Generic, Protocol, TypeVar

from llm_magics._async.functions import current_scope
from llm_magics.host import note_caller

T = TypeVar("T")

# The maximum time, in seconds, for a cancelled call to close its connection.
CLOSING_TIME_S = 5.0

# The maximum time, in seconds, until the caller's thread must start a function; see `call_in_caller`.
_HANDOVER_S = 5.0

# Short timeouts let Ctrl-C through on Windows, where waiting for a lock cannot be interrupted.
_WAIT_S = 0.25


class _End:
    """The last item of a queue, with the result or the error of the work."""

    __slots__ = ("error", "value")

    def __init__(self, value: Any = None, error: BaseException | None = None) -> None:
        self.value = value
        self.error = error


class _CallerFunction(Generic[T]):
    """An item of a queue: a function for the thread that reads the queue."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self.future: Future[T] = Future()

    def call(self) -> None:
        """Call the function. An interrupt is also raised here."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            result = self._function()
        except BaseException as error:
            self.future.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            self.future.set_result(result)


class _Queue(Protocol):
    """The queue for the items of some work."""

    def put(self, item: Any) -> None: ...

    def get(self, block: bool = True, timeout: float | None = None) -> Any: ...


class _LoopQueue:
    """A queue whose items are read on another event loop."""

    def __init__(self, target: asyncio.Queue[Any]) -> None:
        # A weak reference: only the reader refers to the queue, and dropping the reader stops the
        # work.
        self._target = weakref.ref(target)
        self._loop = asyncio.get_running_loop()

    def put(self, item: Any) -> None:
        target = self._target()
        if target is not None:
            with contextlib.suppress(RuntimeError):  # the other loop has ended
                self._loop.call_soon_threadsafe(target.put_nowait, item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Raise `queue.Empty`: items are read from the loop's own queue."""
        raise queue.Empty


class _Unread:
    """The queue of work for which no thread waits."""

    def put(self, item: Any) -> None:
        """Discard ``item``."""

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Raise `queue.Empty`."""
        raise queue.Empty


# The queue to which the current work on the loop sends its items.
_current_queue: ContextVar[_Queue | None] = ContextVar("current_queue", default=None)


async def _pump(source: AsyncGenerator[Any, None], items: _Queue) -> None:
    """
    Put the items of ``source`` into ``items``, as lists of those that arrived together.

    Waking the reader takes longer than handling an item, so it is woken only after the loop has run
    all callbacks that are ready.
    """
    batch: list[Any] = []
    loop = asyncio.get_running_loop()

    def flush() -> None:
        if batch:
            items.put(batch.copy())
            batch.clear()

    try:
        async for item in source:
            if not batch:
                loop.call_soon(flush)
            batch.append(item)
    finally:
        flush()
        await source.aclose()


async def _wait_for_end(received: asyncio.Queue[Any]) -> None:
    """Discard the remaining items of cancelled work until it has ended."""

    async def drain() -> None:
        while not isinstance(item := await received.get(), _End):
            _reject(item)

    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(drain(), CLOSING_TIME_S)


def _reject(item: object) -> None:
    """Discard an item of cancelled work; a function in it is not called."""
    if isinstance(item, _CallerFunction):
        item.future.cancel()


class Bridge:
    """An event loop on a separate thread, which starts when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closers: list[Callable[[], Awaitable[None]]] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` on the loop and return its result; an interrupt cancels it."""
        task = self._task(work)
        try:
            task.start()
            ended: _End = task.take()
        except BaseException:
            task.cancel_and_wait()
            raise
        if ended.error is not None:
            raise ended.error
        result: T = ended.value
        return result

    def start(self, work: Coroutine[Any, Any, None]) -> Callable[[], None]:
        """Schedule a coroutine from any thread without waiting; return a function that cancels it."""
        task = _Task(self._running_loop(), work, _Unread())
        task.start()
        return task.cancel

    def call_in_caller(self, function: Callable[[], T]) -> T:
        """
        Call ``function`` in the thread that waits for the current work, and return its result.

        Some functions of a notebook's platform only work in the thread that runs the cell. The loop
        is blocked meanwhile. On any other thread than the loop's, the function is called directly.

        Raises:
            RuntimeError: no thread waits for the work.
        """
        if not _is_own_thread():
            return function()
        items = _current_queue.get()
        if items is None or isinstance(items, _Unread):
            msg = "No thread waits for this work."
            raise RuntimeError(msg)
        item = _CallerFunction(function)
        items.put(item)
        wait([item.future], _HANDOVER_S)
        if item.future.cancel():  # the thread has not started it
            msg = "The thread that waits for this work is busy."
            raise RuntimeError(msg)
        return item.future.result()

    def iterate(
        self, source: AsyncGenerator[T, None], idle: Callable[[], None] | None = None
    ) -> Generator[T, None, None]:
        """
        Yield the items of ``source`` as they arrive; while none arrives, ``idle`` is called
        regularly.

        Close the generator (``contextlib.closing``) to stop early. ``close`` returns only after
        ``source`` has cleaned up.
        """
        items: queue.SimpleQueue[Any] = queue.SimpleQueue()

        task = self._task(_pump(source, items), items)
        try:
            task.start()
            while not isinstance(batch := task.take(idle), _End):
                yield from batch
        except BaseException:
            task.cancel_and_wait()
            raise
        if batch.error is not None:
            raise batch.error

    async def aiterate(self, source: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """
        Yield the items of ``source`` on the caller's event loop, without blocking it.

        When the generator is closed or its task is cancelled, ``source`` ends first.
        """
        if _is_own_thread():
            async with contextlib.aclosing(source):
                async for item in source:
                    yield item
            return
        received: asyncio.Queue[Any] = asyncio.Queue()
        task = self._task(_pump(source, items := _LoopQueue(received)), items)
        forgotten = weakref.finalize(received, task.cancel)
        forgotten.atexit = False
        task.start()
        try:
            while not isinstance(batch := await received.get(), _End):
                if isinstance(batch, _CallerFunction):
                    batch.call()
                    continue
                for item in batch:
                    yield item
        except BaseException:
            task.cancel()
            await _wait_for_end(received)
            raise
        finally:
            forgotten.detach()
        if batch.error is not None:
            raise batch.error

    def at_exit(self, close: Callable[[], Awaitable[None]]) -> None:
        """Run ``close`` on the loop before Python ends."""
        self._closers.append(close)

    def _task(self, work: Coroutine[Any, Any, Any], items: _Queue | None = None) -> _Task:
        if _is_own_thread():
            work.close()
            msg = "The bridge cannot wait for itself: await the coroutine instead."
            raise RuntimeError(msg)
        note_caller()
        task = _Task(self._running_loop(), work, items or queue.SimpleQueue())
        if (scope := current_scope.get()) is not None:
            try:
                scope.add(task)
            except asyncio.CancelledError:
                work.close()
                raise
        return task

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._thread is None or not self._thread.is_alive():
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name=_THREAD_NAME, daemon=True
                )
                self._thread.start()
                atexit.register(self._close)
            return self._loop

    def _close(self) -> None:
        loop, self._loop = self._loop, None
        if loop is None:
            return

        async def close_all() -> None:
            await asyncio.gather(*(close() for close in self._closers), return_exceptions=True)

        if self._thread is None or not self._thread.is_alive():
            return
        try:
            asyncio.run_coroutine_threadsafe(close_all(), loop).result(CLOSING_TIME_S)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            if self._thread is not None:
                self._thread.join(CLOSING_TIME_S)
            if not loop.is_running():
                loop.close()

    def forget(self) -> None:
        """Reset the bridge after a fork, because its thread only exists in the parent process."""
        self._lock = threading.Lock()
        self._loop = None


_THREAD_NAME = "llm_magics-bridge"


def _is_own_thread() -> bool:
    return threading.current_thread().name == _THREAD_NAME


class _Task:
    """
    Work on the bridge's loop, with the queue for its items and its `_End`.

    It can be cancelled at any time: before, during and after its transfer to the loop.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        work: Coroutine[Any, Any, Any],
        items: _Queue,
    ) -> None:
        self._loop = loop
        self._work = work
        self._items = items
        self._task: asyncio.Task[_End] | None = None
        self._is_cancelled = False

    def start(self) -> None:
        """Transfer the work to the loop."""
        self._loop.call_soon_threadsafe(self._create)

    def _create(self) -> None:
        if self._is_cancelled:
            return
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(self._report)

    async def _run(self) -> _End:
        _current_queue.set(self._items)
        try:
            return _End(await self._work)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # SystemExit would end the loop and all calls
            return _End(error=error)

    def _report(self, task: asyncio.Task[_End]) -> None:
        self._work.close()  # it may not have been started
        self._items.put(
            _End(error=asyncio.CancelledError()) if task.cancelled() else task.result()
        )

    def take(self, idle: Callable[[], None] | None = None) -> Any:
        """
        Return the next item of the queue; ``idle`` is called regularly while there is none.

        Functions in the queue are called here, see `Bridge.call_in_caller`.
        """
        while True:
            try:
                item = self._items.get(timeout=_WAIT_S)
            except queue.Empty:
                if idle is not None:
                    idle()
                continue
            if not isinstance(item, _CallerFunction):
                return item
            item.call()

    def cancel_and_wait(self) -> None:
        """Cancel the work, and discard its items until it has cleaned up."""
        if self._loop.is_closed():
            return
        self.cancel()
        if _is_own_thread():  # called by the garbage collector
            return
        try:
            while not isinstance(item := self._items.get(timeout=CLOSING_TIME_S), _End):
                _reject(item)
        except queue.Empty:  # the work does not end: do not block the cell for ever
            pass

    def cancel(self) -> None:
        """Cancel the work; its `_End` is queued after it has cleaned up."""
        with contextlib.suppress(RuntimeError):  # the loop and its work have ended
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        elif not self._is_cancelled:
            self._is_cancelled = True
            self._work.close()
            self._items.put(_End(error=asyncio.CancelledError()))


bridge = Bridge()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=bridge.forget)
