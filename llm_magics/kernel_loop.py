"""
Coroutines of the notebook's own: an async tool, or ``asyncio.run()`` typed in a cell.

The kernel's loop runs already while a cell does, so such a coroutine gets a loop of its own, in
a thread of its own. What is bound to the kernel's loop — a client made in a cell, a lock —
works there alone: for it the setting ``loop: nested`` lets the kernel's loop be entered again.
That patches asyncio for the whole process, and for good, and so is never done unasked.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, TypeVar

from llm_magics.errors import ConfigurationError, LLMError
from llm_magics.settings.config import config

_T = TypeVar("_T")

# From here on the older of the two packages makes every request in the process fail.
_TOO_NEW = (3, 14)


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """The result of ``work``, waited for where a loop may be running; stopping cancels it."""
    if _is_nested() and (loop := _running()) is not None:
        _patcher().apply(loop)
        return _entered(loop, work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def nest_if_wanted() -> None:
    """Let the running loop be entered again, where the settings ask for it."""
    try:
        wanted = _is_nested()
    except LLMError:  # the settings cannot be read, which is told of where one is needed
        return
    if wanted and (loop := _running()) is not None:
        _patcher().apply(loop)


def _entered(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, _T]) -> _T:
    task = loop.create_task(work)
    try:
        return loop.run_until_complete(task)
    except BaseException:
        task.cancel()  # an Interrupt leaves it running on the kernel's loop otherwise
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        raise


def _is_nested() -> bool:
    return bool(config.loop == "nested")


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _patcher() -> ModuleType:
    """
    The package that patches; never both, for each would undo the other.

    Raises:
        ConfigurationError: there is none for this Python.
    """
    try:
        import nest_asyncio2
    except ImportError:
        import nest_asyncio
    else:
        patcher: ModuleType = nest_asyncio2
        return patcher
    if sys.version_info >= _TOO_NEW:
        config.reset("loop")
        msg = "loop: nested needs nest-asyncio2 on this Python."
        raise ConfigurationError(msg, hint="Run: pip install nest-asyncio2, and restart.")
    older: ModuleType = nest_asyncio
    return older
