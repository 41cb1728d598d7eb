"""
One limit for all workers of a cluster: so many requests at once, wherever they are made.

It is a `distributed.Semaphore`, whose places the scheduler takes back from a worker that is
lost. Without a cluster Dask's threads share a place in this process in its stead.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llm_magics.runtime.policies.rate_limit import cluster_limit

if TYPE_CHECKING:
    from distributed import Semaphore

# Waiting for a place of the cluster's blocks a thread; more than these never wait at once.
_WAITING = 64

_lock = threading.Lock()
_here: dict[tuple[str, int], asyncio.Semaphore] = {}
_of_clusters: dict[tuple[str, str], Semaphore] = {}
_waiters: list[ThreadPoolExecutor] = []


class SharedLimit:
    """
    At most ``most`` requests at once for what is called ``name``.

    It is made where the work is planned, travels with it, and is kept where it is done.
    """

    def __init__(self, name: str, most: int) -> None:
        """Nothing is asked of a cluster yet."""
        self.name = name
        self.most = most

    @contextmanager
    def kept(self) -> Generator[None, None, None]:
        """All calls that are begun inside, in a thread of a worker's, keep it."""
        semaphore = _semaphore(f"llm_magics {self.name} {self.most}", self.most)
        place = _InProcess(self._in_this_process()) if semaphore is None else _InCluster(semaphore)
        token = cluster_limit.set(place)
        try:
            yield
        finally:
            cluster_limit.reset(token)

    def _in_this_process(self) -> asyncio.Semaphore:
        with _lock:
            return _here.setdefault((self.name, self.most), asyncio.Semaphore(self.most))


class _InProcess:
    def __init__(self, semaphore: asyncio.Semaphore) -> None:
        self._semaphore = semaphore

    async def take(self) -> None:
        await self._semaphore.acquire()

    async def give_back(self) -> None:
        self._semaphore.release()


class _InCluster:
    def __init__(self, semaphore: Semaphore) -> None:
        self._semaphore = semaphore

    async def take(self) -> None:
        waiting = _waiter().submit(self._semaphore.acquire)
        try:
            await asyncio.wrap_future(waiting)
        except asyncio.CancelledError:  # the place may come all the same
            waiting.add_done_callback(self._let_go)
            raise

    async def give_back(self) -> None:
        # Nobody waits for the scheduler's answer: a place that is not given back runs out.
        _waiter().submit(self._semaphore.release)

    def _let_go(self, waited: Future[Any]) -> None:
        if not waited.cancelled() and waited.exception() is None:
            _waiter().submit(self._semaphore.release)


def _semaphore(name: str, most: int) -> Semaphore | None:
    """
    The cluster's, or ``None`` where there is none.

    It is made in a task's own thread, for elsewhere it finds no worker, and once in a process,
    for it tells the scheduler now and then that its places are still needed.
    """
    try:
        from distributed import Semaphore, get_worker

        worker = str(get_worker().id)
    except (ImportError, ValueError):
        return None
    with _lock:
        known = _of_clusters.get((worker, name))
        if known is None:
            known = _of_clusters[worker, name] = Semaphore(max_leases=most, name=name)
        return known


def _waiter() -> ThreadPoolExecutor:
    with _lock:
        if not _waiters:
            _waiters.append(ThreadPoolExecutor(_WAITING, "llm_magics-places"))
        return _waiters[0]
