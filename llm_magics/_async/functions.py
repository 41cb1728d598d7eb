"""
Call functions of the user from the event loop: coroutines on it, other functions in new threads.

When the caller is cancelled, the requests that a function has sent stop too, although Python cannot
stop its thread: the function then gets a ``CancelledError`` from the call that waits for the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from typing import Any, Protocol
from weakref import WeakSet

# The maximum time, in seconds, for a cancelled function to end.
_ENDING_TIME_S = 5.0


class Cancellable(Protocol):
    """Work on another thread that can be cancelled."""

    def cancel(self) -> None:
        """Cancel the work; without effect if it has ended."""


class CallScope:
    """The calls that one function has started in its thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: WeakSet[Cancellable] = WeakSet()
        self._is_cancelled = False

    def add(self, call: Cancellable) -> None:
        """
        Add a call that is about to start.

        Raises:
            CancelledError: the function is cancelled.
        """
        with self._lock:
            if self._is_cancelled:
                raise asyncio.CancelledError
            self._calls.add(call)

    def cancel(self) -> None:
        """Cancel all calls, and refuse further ones."""
        with self._lock:
            self._is_cancelled = True
            calls = list(self._calls)
        for call in calls:
            call.cancel()


# The scope of the function that the current code runs in. Its calls do not display their progress.
current_scope: ContextVar[CallScope | None] = ContextVar("current_scope", default=None)


async def call_function(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """
    Return the result of ``function``, which may be a coroutine function.

    An ordinary function runs in a new thread, and does not block the loop.
    """
    scope = CallScope()
    token = current_scope.set(scope)
    try:
        if inspect.iscoroutinefunction(function):
            return await function(*args, **kwargs)
        result = await _call_in_thread(scope, lambda: function(*args, **kwargs))
        return await result if inspect.isawaitable(result) else result
    finally:
        current_scope.reset(token)


async def _call_in_thread(scope: CallScope, function: Callable[[], Any]) -> Any:
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    context = copy_context()

    def end(result: Any, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def work() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = context.run(function)
        except StopIteration as failure:  # a future does not accept it
            error = RuntimeError(f"StopIteration: {failure}")
        except BaseException as failure:
            error = failure
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(end, result, error)

    threading.Thread(target=work, name="llm_magics-function", daemon=True).start()
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        scope.cancel()
        await asyncio.wait([future], timeout=_ENDING_TIME_S)
        if future.done() and not future.cancelled():
            future.exception()  # so that it is not reported as never retrieved
        raise
