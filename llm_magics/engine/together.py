"""Several calls at once, and what comes of each as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from llm_magics.engine.chat import ChatCall
from llm_magics.errors import LLMError
from llm_magics.progress import Progress
from llm_magics.types import StreamChunk

Event = Progress | StreamChunk


class Together:
    """
    Walks ``calls`` side by side; one that fails stops no other.

    ``errors`` has the error of each, ``None`` where there was none.
    """

    def __init__(self, calls: Sequence[ChatCall]) -> None:
        self._calls = calls
        self.errors: list[LLMError | None] = [None] * len(calls)

    async def events(self) -> AsyncGenerator[tuple[int, Event], None]:
        """Which call it is of, and what happened. Closing the generator stops all of them."""
        happened: asyncio.Queue[tuple[int, Event | None]] = asyncio.Queue()
        tasks = [
            asyncio.create_task(self._walk(number, call, happened))
            for number, call in enumerate(self._calls)
        ]
        left = len(tasks)
        try:
            while left:
                number, event = await happened.get()
                if event is None:
                    left -= 1
                else:
                    yield number, event
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _walk(
        self, number: int, call: ChatCall, happened: asyncio.Queue[tuple[int, Event | None]]
    ) -> None:
        try:
            async with aclosing(call.events()) as events:
                async for event in events:
                    happened.put_nowait((number, event))
        except LLMError as error:
            self.errors[number] = error
        finally:
            happened.put_nowait((number, None))
