"""A server of one's own that loads a model before its first word: how it is told, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from llm_magics.errors import LLMError
from llm_magics.progress import Progress
from llm_magics.providers.base import ModelInfo

# Servers keep a model for minutes after a call; so long it is not asked about again.
_SURELY_LOADED_S = 60.0

# To tell of the loading is not worth a long wait.
_PATIENCE_S = 1.0


class Loading:
    """Says of a model that it is being loaded, where the server has it on disk alone."""

    def __init__(self, find: Callable[[str], Awaitable[ModelInfo | None]]) -> None:
        """``find`` tells of a model whether it is loaded, and how large it is."""
        self._find = find
        self._asked_at: dict[str, float] = {}

    async def of(self, model: str) -> Progress | None:
        """What to show while ``model`` is waited for; nothing where it is in memory already."""
        now = time.monotonic()
        asked_at, self._asked_at[model] = self._asked_at.get(model), now
        if asked_at is not None and now - asked_at < _SURELY_LOADED_S:
            return None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                info = await self._find(model)
        except (LLMError, TimeoutError):  # the call itself will say what is wrong
            return None
        return None if info is None or info.loaded is not False else Progress(told(info))


def told(info: ModelInfo) -> str:
    """That a model is being loaded, and how large it is where that is known."""
    size = info.size_bytes
    if not size:
        return f"loading {info.name}"
    return (
        f"loading {info.name}, {f'{size / 1e9:.1f} GB' if size >= 1e9 else f'{size / 1e6:.0f} MB'}"
    )
