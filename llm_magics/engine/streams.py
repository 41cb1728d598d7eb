"""An answer as it comes, in a user's own loop."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Any, Self

from llm_magics._async.sync import Exchange, walked
from llm_magics.engine.chat import ChatCall
from llm_magics.engine.response import Response
from llm_magics.errors import ParseError
from llm_magics.types import StreamChunk


class _SoFar:
    def __init__(self, call: ChatCall) -> None:
        self._call = call
        self._seen: list[StreamChunk] = []
        self._is_whole = False

    @property
    def response(self) -> Response:
        """The answer, or as much of it as has been taken."""
        return self._call.response(None if self._is_whole else self._seen)

    @property
    def data(self) -> Any:
        """The JSON value in it, as far as it has come; ``None`` before there is any."""
        try:
            return self.response.json(partial=True)
        except ParseError:
            return None


class Stream(_SoFar):
    """
    Iterate it for the pieces of the answer (`StreamChunk`). Leaving early stops the model.

    At every moment ``response`` is the answer so far, and ``data`` the JSON value so far.
    """

    def __init__(self, call: ChatCall) -> None:
        super().__init__(call)
        self._chunks = self._walked(call)

    @staticmethod
    def _walked(call: ChatCall) -> Generator[StreamChunk, None, None]:
        with Exchange(call) as exchange:
            yield from exchange

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> StreamChunk:
        try:
            chunk = next(self._chunks)
        except StopIteration:
            self._is_whole = True
            raise
        self._seen.append(chunk)
        return chunk

    def close(self) -> None:
        """Stop the model, and wait until it has stopped."""
        self._chunks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncStream(_SoFar):
    """The same for ``async for``."""

    def __init__(self, call: ChatCall) -> None:
        super().__init__(call)
        self._chunks: AsyncGenerator[StreamChunk, None] = walked(call)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamChunk:
        try:
            chunk = await anext(self._chunks)
        except StopAsyncIteration:
            self._is_whole = True
            raise
        self._seen.append(chunk)
        return chunk

    async def aclose(self) -> None:
        """Stop the model, and wait until it has stopped."""
        await self._chunks.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
