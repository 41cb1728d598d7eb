"""
The only event loop, and the way there and back.

Providers are async. One daemon thread runs one loop for all of them; the cell's own thread
takes what comes from a queue, so that every output lands in its own cell. Whoever stops
waiting — Interrupt, ``break``, an error — cancels the work *and waits until it has ended*:
nothing goes on streaming behind an idle kernel.
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
from typing import Any, Protocol, TypeVar

from llm_magics.user_code import note_caller

T = TypeVar("T")

# How long a cancelled call may take to close its connection before we stop waiting for it.
CLOSING_TIME_S = 5.0

# Waiting in slices lets Ctrl-C through on Windows, where a bare lock wait cannot be interrupted.
_WAIT_S = 0.5


class _End:
    """The last thing on a queue: how the work ended."""

    __slots__ = ("error", "value")

    def __init__(self, value: Any = None, error: BaseException | None = None) -> None:
        self.value = value
        self.error = error


class _Queue(Protocol):
    """Where the items of some work arrive."""

    def put(self, item: Any) -> None: ...

    def get(self, block: bool = True, timeout: float | None = None) -> Any: ...


class _LoopQueue:
    """Hands items over to the loop of whoever waits for them."""

    def __init__(self, handed: asyncio.Queue[Any]) -> None:
        # Weakly: whoever waits holds it, and when nobody does the work is stopped.
        self._handed = weakref.ref(handed)
        self._loop = asyncio.get_running_loop()

    def put(self, item: Any) -> None:
        handed = self._handed()
        if handed is not None:
            with contextlib.suppress(RuntimeError):  # that loop has ended, and nobody waits
                self._loop.call_soon_threadsafe(handed.put_nowait, item)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Nobody waits in a thread."""
        raise queue.Empty


async def _pump(source: AsyncGenerator[Any, None], items: _Queue) -> None:
    """
    Put all that ``source`` gives on ``items``, in lists of what came at once.

    Waking the one who waits costs more than an item is worth: he is woken when the loop has
    done what it could do without waiting itself.
    """
    came: list[Any] = []
    loop = asyncio.get_running_loop()

    def hand_over() -> None:
        if came:
            items.put(came.copy())
            came.clear()

    try:
        async for item in source:
            if not came:
                loop.call_soon(hand_over)
            came.append(item)
    finally:
        hand_over()
        await source.aclose()


async def _wait_for_end(handed: asyncio.Queue[Any]) -> None:
    """Wait until cancelled work has ended, and let go of all it still hands over."""

    async def ended() -> None:
        while not isinstance(await handed.get(), _End):
            pass

    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(ended(), CLOSING_TIME_S)


class Bridge:
    """A loop on a thread of its own, started when first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closers: list[Callable[[], Awaitable[None]]] = []

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of ``work``, run on the loop; interrupting cancels it."""
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
        """Have ``work`` run behind one's back, from any thread; what is returned cancels it."""
        task = _Task(self._running_loop(), work, queue.SimpleQueue())
        task.start()
        return task.cancel

    def iterate(
        self, source: AsyncGenerator[T, None], idle: Callable[[], None] | None = None
    ) -> Generator[T, None, None]:
        """
        The items of ``source`` as they come; while none does, ``idle`` is called now and then.

        Close the generator (``contextlib.closing``) to stop early: only when ``source`` has
        run its own clean-up does ``close`` return.
        """
        items: queue.SimpleQueue[Any] = queue.SimpleQueue()

        task = self._task(_pump(source, items), items)
        try:
            task.start()
            while not isinstance(came := task.take(idle), _End):
                yield from came
        except BaseException:
            task.cancel_and_wait()
            raise
        if came.error is not None:
            raise came.error

    async def aiterate(self, source: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
        """
        The same for a caller on a loop of his own, which goes on turning meanwhile.

        Closing the generator, or cancelling its task, stops ``source`` and waits for its end.
        """
        if _is_own_thread():
            async with contextlib.aclosing(source):
                async for item in source:
                    yield item
            return
        handed: asyncio.Queue[Any] = asyncio.Queue()
        task = self._task(_pump(source, over := _LoopQueue(handed)), over)
        forgotten = weakref.finalize(handed, task.cancel)
        forgotten.atexit = False
        task.start()
        try:
            while not isinstance(came := await handed.get(), _End):
                for item in came:
                    yield item
        except BaseException:
            task.cancel()
            await _wait_for_end(handed)
            raise
        finally:
            forgotten.detach()
        if came.error is not None:
            raise came.error

    def at_exit(self, close: Callable[[], Awaitable[None]]) -> None:
        """Have ``close`` awaited on the loop when Python ends."""
        self._closers.append(close)

    def _task(self, work: Coroutine[Any, Any, Any], items: _Queue | None = None) -> _Task:
        if _is_own_thread():
            work.close()
            msg = "The bridge cannot wait for itself: await the coroutine instead."
            raise RuntimeError(msg)
        note_caller()
        return _Task(self._running_loop(), work, items or queue.SimpleQueue())

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
        """After a fork: the thread stayed with the parent, so start anew when needed."""
        self._lock = threading.Lock()
        self._loop = None


_THREAD_NAME = "llm_magics-bridge"


def _is_own_thread() -> bool:
    return threading.current_thread().name == _THREAD_NAME


class _Task:
    """
    Work on the bridge's loop, and the queue on which its items and its `_End` arrive.

    It can be cancelled at every moment: before it is handed over, on the way, and after.
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
        """Hand the work over to the loop."""
        self._loop.call_soon_threadsafe(self._create)

    def _create(self) -> None:
        if self._is_cancelled:
            return
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(self._report)

    async def _run(self) -> _End:
        try:
            return _End(await self._work)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # SystemExit would end the loop, and all calls with it
            return _End(error=error)

    def _report(self, task: asyncio.Task[_End]) -> None:
        self._work.close()  # it may never have been started
        self._items.put(
            _End(error=asyncio.CancelledError()) if task.cancelled() else task.result()
        )

    def take(self, idle: Callable[[], None] | None = None) -> Any:
        """The next thing on the queue; ``idle`` is called while there is none."""
        while True:
            try:
                return self._items.get(timeout=_WAIT_S)
            except queue.Empty:
                if idle is not None:
                    idle()

    def cancel_and_wait(self) -> None:
        """Cancel the work, wait until it has cleaned up, and let go of all it still put."""
        if self._loop.is_closed():
            return
        self.cancel()
        if _is_own_thread():  # a forgotten generator, collected there: nobody waits for it
            return
        try:
            while not isinstance(self._items.get(timeout=CLOSING_TIME_S), _End):
                pass
        except queue.Empty:  # it will not end; the daemon thread must not hold the cell for ever
            pass

    def cancel(self) -> None:
        """Cancel the work; its `_End` comes when it has cleaned up."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and the work with it
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
