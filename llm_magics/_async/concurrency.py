"""Concurrency on one event loop: bounded tasks, merged and retried streams, waiting for a process."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from typing import Generic, TypeVar

from llm_magics.errors import ProviderError

_T = TypeVar("_T")


async def run_bounded(
    limit: int | Callable[[], int],
    function: Callable[[_T], Awaitable[None]],
    items: Iterable[_T],
    wakeups: asyncio.Queue[None] | None = None,
) -> AsyncGenerator[None, None]:
    """
    Call ``function`` for each item, at most ``limit`` at a time, and yield when an item is done.

    The limit may change during the run. An entry in ``wakeups`` makes it yield too. After a
    failure, no further item is started. Running items are awaited before the error is raised,
    because they may be paid calls. Closing the generator cancels all of them.
    """
    run = _BoundedRun(
        limit=limit if callable(limit) else lambda: limit,
        function=function,
        items=items,
        wakeups=wakeups,
    )
    try:
        run.spawn()
        while run.is_running:
            await run.wakeups.get()
            run.spawn()
            yield
    finally:
        await run.cancel()
    if run.failures:
        raise run.failures[0]


class _BoundedRun(Generic[_T]):
    """The tasks of one `run_bounded`; ``wakeups`` gets an entry when an item or a task ends."""

    def __init__(
        self,
        *,
        limit: Callable[[], int],
        function: Callable[[_T], Awaitable[None]],
        items: Iterable[_T],
        wakeups: asyncio.Queue[None] | None,
    ) -> None:
        self._limit = limit
        self._function = function
        self._items = iter(items)
        self._tasks: set[asyncio.Task[None]] = set()
        self.failures: list[Exception] = []
        self.wakeups: asyncio.Queue[None] = asyncio.Queue() if wakeups is None else wakeups

    @property
    def is_running(self) -> bool:
        return bool(self._tasks)

    def spawn(self) -> None:
        """Start tasks up to the limit, as long as there are items."""
        while len(self._tasks) < max(1, self._limit()):
            if self.failures:
                return
            try:
                item = next(self._items)
            except StopIteration:
                return
            task = asyncio.create_task(self._work(item))
            self._tasks.add(task)
            task.add_done_callback(self._remove)

    def _remove(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self.wakeups.put_nowait(None)

    async def cancel(self) -> None:
        """Cancel all tasks and return when they have ended."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, item: _T) -> None:
        """Process one item, then further ones as long as the limit allows this task."""
        try:
            await self._function(item)
            self.wakeups.put_nowait(None)
            while not self.failures and len(self._tasks) <= max(1, self._limit()):
                await self._function(next(self._items))
                self.wakeups.put_nowait(None)
        except StopIteration:
            return
        except Exception as error:
            self.failures.append(error)


async def merge_streams(
    streams: Sequence[AsyncGenerator[_T, None]],
) -> AsyncGenerator[tuple[int, _T], None]:
    """
    Iterate over several streams concurrently; yield each item with the number of its stream.

    A stream that fails does not stop the others: its error is raised after all have ended. Closing
    the generator cancels all of them.
    """
    items: asyncio.Queue[tuple[int, _T] | None] = asyncio.Queue()

    async def read(number: int, stream: AsyncGenerator[_T, None]) -> None:
        try:
            async with aclosing(stream):
                async for item in stream:
                    items.put_nowait((number, item))
        finally:
            items.put_nowait(None)

    tasks = [asyncio.create_task(read(*each)) for each in enumerate(streams)]
    running = len(tasks)
    try:
        while running:
            item = await items.get()
            if item is None:
                running -= 1
            else:
                yield item
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


_POLL_S = 0.1


async def wait_for_process(process: subprocess.Popen[bytes]) -> AsyncGenerator[float, None]:
    """Yield the elapsed seconds until ``process`` has ended; closing early kills the process."""
    started = time.monotonic()
    try:
        while process.poll() is None:
            yield time.monotonic() - started
            await asyncio.sleep(_POLL_S)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


async def retry_unless_begun(
    first: Callable[[], AsyncGenerator[_T, None]],
    next_attempt: Callable[[ProviderError], AsyncGenerator[_T, None] | None],
) -> AsyncGenerator[_T, None]:
    """
    Yield the items of ``first``; after an error before its first item, those of the next attempt.

    Args:
        first: sends the request.
        next_attempt: sends a changed request after an error, or returns ``None`` to raise the
            error.
    """
    items = first()
    while True:
        has_begun = False
        try:
            async for item in items:
                has_begun = True
                yield item
            return
        except ProviderError as error:
            following = None if has_begun else next_attempt(error)
            if following is None:
                raise
        finally:
            await items.aclose()
        items = following
