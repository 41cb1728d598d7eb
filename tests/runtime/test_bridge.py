"""The way between a cell's thread and the loop."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import closing

import pytest

from llm_magics._async.bridge import Bridge, bridge


async def count(up_to: int, ended: list[str], gap_s: float = 0.0) -> AsyncGenerator[int, None]:
    """Numbers, with a clean-up that takes a while."""
    try:
        for number in range(up_to):
            yield number
            await asyncio.sleep(gap_s)
    finally:
        await asyncio.sleep(0.05)
        ended.append("cleaned up")


def test_items_come_in_order_and_the_source_is_cleaned_up() -> None:
    """Every item once, and then the source's own ending."""
    ended: list[str] = []
    assert list(bridge.iterate(count(1000, ended))) == list(range(1000))
    assert ended == ["cleaned up"]


def test_leaving_early_waits_for_the_clean_up() -> None:
    """When close returns, the source has ended: nothing goes on behind."""
    ended: list[str] = []
    with closing(bridge.iterate(count(10**9, ended))) as items:
        assert next(items) == 0
    assert ended == ["cleaned up"]


def test_leaving_before_the_first_item() -> None:
    """A source that was never asked is never started."""
    ended: list[str] = []
    bridge.iterate(count(3, ended)).close()
    assert ended == []


def test_errors_come_through() -> None:
    """What the source raises, the cell sees; so with a single result."""

    async def fail() -> int:
        raise ValueError("no")

    async def fail_later() -> AsyncGenerator[int, None]:
        yield 1
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        bridge.run(fail())
    with pytest.raises(ValueError, match="no"):
        list(bridge.iterate(fail_later()))


def test_interrupting_cancels_and_waits() -> None:
    """Ctrl-C while waiting: KeyboardInterrupt at once, the source cleaned up."""
    ended: list[str] = []
    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(bridge.iterate(count(10, ended, gap_s=60)))
    assert ended == ["cleaned up"]
    assert time.monotonic() - started < 5


def test_interrupting_a_single_result() -> None:
    """The same for run."""
    ended: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("cancelled")

    threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        bridge.run(wait())
    assert ended == ["cancelled"]


def test_the_bridge_does_not_wait_for_itself() -> None:
    """Called on its own loop it says so, where it would hang for ever."""

    async def outer() -> None:
        async def inner() -> None: ...

        bridge.run(inner())

    with pytest.raises(RuntimeError, match="await"):
        bridge.run(outer())


def test_it_works_beside_a_running_loop() -> None:
    """A notebook's own loop is running while its cells run."""

    async def main() -> list[int]:
        return list(bridge.iterate(count(3, [])))

    assert asyncio.run(main()) == [0, 1, 2]


def test_closing_it_closes_what_was_promised() -> None:
    """At exit the closers are awaited, and the loop is closed."""
    closed: list[str] = []
    own = Bridge()

    async def close() -> None:
        closed.append("closed")

    own.at_exit(close)

    async def loop() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    running = own.run(loop())
    own._close()
    assert closed == ["closed"]
    assert running.is_closed()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_gets_a_loop_of_its_own() -> None:
    """The parent's thread does not come along; the child starts another."""
    assert list(bridge.iterate(count(1, []))) == [0]
    child = os.fork()
    if child == 0:
        code = 0 if list(bridge.iterate(count(2, []))) == [0, 1] else 1
        os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def test_what_would_end_the_loop_does_not() -> None:
    """A SystemExit in the work reaches the caller, and the next call works."""

    async def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        bridge.run(leave())
    assert list(bridge.iterate(count(1, []))) == [0]


def test_cancelled_before_it_began() -> None:
    """Work that was never handed over is closed, and nobody waits for it."""
    ended: list[str] = []

    async def work() -> None:
        ended.append("ran")

    task = bridge._task(work())
    task.cancel_and_wait()
    assert ended == []


def test_a_loop_that_died_is_replaced() -> None:
    """Were its thread gone, calls would wait for ever."""
    own = Bridge()
    loop = own._running_loop()
    loop.call_soon_threadsafe(loop.stop)
    assert own._thread is not None
    own._thread.join(5)
    loop.close()

    async def one() -> int:
        return 1

    assert own.run(one()) == 1
    own._close()
