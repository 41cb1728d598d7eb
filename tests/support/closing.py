"""Async generators of ours that nobody closed: the garbage collector ended them, at some time."""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from typing import Any

from llm_magics._async.bridge import bridge

# httpcore leaves its own generator of the same name, and closes the connection instead.
_AS_IN_HTTPCORE = {"_JoiningConnection._receive_response_body"}


@contextmanager
def unclosed_generators() -> Generator[list[str], None, None]:
    """The names of those that are collected unclosed while the block runs on this thread's loop."""
    found: list[str] = []
    hooks = sys.get_asyncgen_hooks()

    def finalize(generator: AsyncGenerator[Any, None]) -> None:
        code: Any = generator.ag_code  # type: ignore[attr-defined]
        is_ours = "llm_magics" in code.co_filename and code.co_qualname not in _AS_IN_HTTPCORE
        if is_ours:
            found.append(code.co_qualname)
        if hooks.finalizer is not None:
            hooks.finalizer(generator)

    sys.set_asyncgen_hooks(firstiter=hooks.firstiter, finalizer=finalize)
    try:
        yield found
        gc.collect()
    finally:
        sys.set_asyncgen_hooks(*hooks)


def left_open(create: Callable[[], AsyncGenerator[Any, None]]) -> tuple[list[str], int]:
    """
    Close what ``create`` makes after each number of its items, on the bridge's loop.

    Returns:
        The generators that were left open, and the number of all items.
    """

    async def closed_after(count: int) -> bool:
        source = create()
        try:
            for _ in range(count):
                await anext(source)
        except StopAsyncIteration:
            return True
        await source.aclose()
        return False

    async def closed_at_each() -> tuple[list[str], int]:
        count = 1
        with unclosed_generators() as found:
            while not await closed_after(count):
                count += 1
        return found, count - 1

    return bridge.run(closed_at_each())


# The options of a benchmark whose load a test adds.
BENCH: dict[str, Any] = {
    "repeat": 4, "concurrency": None, "rate": None, "arrival": "poisson", "requests": None,
    "seconds": None, "warmup": 0, "distinct": True, "tokenizer": None, "system": None,
    "yes": True, "draw": 1, "parameters": {},
}  # fmt: skip
