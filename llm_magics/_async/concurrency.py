"""Many pieces of work, some at a time; what is wrong with all of them ends it, and loses nothing."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Generic, TypeVar

_T = TypeVar("_T")


async def run_bounded(
    at_once: int | Callable[[], int],
    do: Callable[[_T], Awaitable[None]],
    todo: Iterable[_T],
    news: asyncio.Queue[None] | None = None,
) -> AsyncGenerator[None, None]:
    """
    ``do`` each piece of ``todo``, ``at_once`` of them at a time; yields when one is done.

    How many may change on the way. Whoever puts something on ``news`` makes it yield, too. When one fails no other is begun; those under way may be
    paid, and are waited for before its error is raised. Closing the generator stops them at once.
    """
    wanted = at_once if callable(at_once) else lambda: at_once
    crew = _BoundedRun(wanted, do, todo, news)
    try:
        crew.hire()
        while crew.is_at_work:
            await crew.news.get()
            crew.hire()
            yield
    finally:
        await crew.stop()
    if crew.failures:
        raise crew.failures[0]


class _BoundedRun(Generic[_T]):
    """Those at work, and ``news`` of each piece that is done and of each one who leaves."""

    def __init__(
        self,
        wanted: Callable[[], int],
        do: Callable[[_T], Awaitable[None]],
        todo: Iterable[_T],
        news: asyncio.Queue[None] | None,
    ) -> None:
        self._wanted = wanted
        self._do = do
        self._pieces = iter(todo)
        self._workers: set[asyncio.Task[None]] = set()
        self.failures: list[Exception] = []
        self.news: asyncio.Queue[None] = asyncio.Queue() if news is None else news

    @property
    def is_at_work(self) -> bool:
        return bool(self._workers)

    def hire(self) -> None:
        """As many as are wanted, while there is something to do."""
        while len(self._workers) < max(1, self._wanted()):
            if self.failures:
                return
            try:
                piece = next(self._pieces)
            except StopIteration:
                return
            worker = asyncio.create_task(self._work(piece))
            self._workers.add(worker)
            worker.add_done_callback(self._leave)

    def _leave(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        self.news.put_nowait(None)

    async def stop(self) -> None:
        """Whatever is under way ends now."""
        workers = list(self._workers)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    async def _work(self, piece: _T) -> None:
        """One piece, and then the next ones, while so many hands are wanted."""
        try:
            await self._do(piece)
            self.news.put_nowait(None)
            while not self.failures and len(self._workers) <= max(1, self._wanted()):
                await self._do(next(self._pieces))
                self.news.put_nowait(None)
        except StopIteration:
            return
        except Exception as error:
            self.failures.append(error)


_POLL_S = 0.1


async def wait_for_process(process: subprocess.Popen[bytes]) -> AsyncGenerator[float, None]:
    """Yield the seconds so far until ``process`` has ended; left early, it is killed."""
    started = time.monotonic()
    try:
        while process.poll() is None:
            yield time.monotonic() - started
            await asyncio.sleep(_POLL_S)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
