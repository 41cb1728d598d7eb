"""Many pieces of work, some at a time; what is wrong with all of them ends it, and loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

_T = TypeVar("_T")


async def done_by(
    at_once: int, do: Callable[[_T], Awaitable[None]], todo: Iterable[_T]
) -> AsyncGenerator[None, None]:
    """
    ``do`` each piece of ``todo``, ``at_once`` of them at a time; yields when one is done.

    When one fails no other is begun; those under way may be paid, and are waited for before its
    error is raised. Closing the generator stops them at once.
    """
    failures: list[Exception] = []
    news: asyncio.Queue[None] = asyncio.Queue()
    pieces = iter(todo)
    workers = [
        asyncio.create_task(_work(do, pieces, failures, news)) for _ in range(max(1, at_once))
    ]
    try:
        while not all(worker.done() for worker in workers):
            await news.get()
            yield
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
    if failures:
        raise failures[0]


async def _work(
    do: Callable[[_T], Awaitable[None]],
    pieces: Iterator[_T],
    failures: list[Exception],
    news: asyncio.Queue[None],
) -> None:
    try:
        for piece in pieces:
            if failures:
                return
            await do(piece)
            news.put_nowait(None)
    except Exception as error:
        failures.append(error)
    finally:
        asyncio.get_running_loop().call_soon(news.put_nowait, None)  # when this task is done
