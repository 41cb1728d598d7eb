"""What each model can do, as its own page says, asked once for each digest."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from llm_magics.errors import ProviderError

# Ollama's names to ours; others stay as they are.
_NAMES = {
    "completion": ("chat", "completion"),
    "embedding": ("embeddings",),
    "thinking": ("reasoning",),
}

# So many pages are read at once.
_AT_ONCE = 8


class Abilities:
    """
    The abilities of models, from ``/api/show``.

    The list of models is no substitute: 0.24 has no abilities there, and 0.30 calls embedding
    models ``completion``.
    """

    def __init__(self, show: Callable[[str], Awaitable[Mapping[str, Any]]]) -> None:
        self._show = show
        self._known: dict[str, tuple[str, ...]] = {}

    async def of(self, model: str, digest: str) -> tuple[str, ...]:
        """
        Return the abilities of ``model``, whose weights have ``digest``.

        Raises:
            ProviderError: its page cannot be read.
        """
        if digest and digest in self._known:
            return self._known[digest]
        abilities = _renamed((await self._show(model)).get("capabilities"))
        if digest:
            self._known[digest] = abilities
        return abilities

    async def of_all(self, tags: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
        """Return those of all models of a list; what the list says where a page cannot be read."""
        free = asyncio.Semaphore(_AT_ONCE)

        async def of_one(tag: Mapping[str, Any]) -> tuple[str, ...]:
            async with free:
                try:
                    return await self.of(tag["name"], str(tag.get("digest") or ""))
                except ProviderError:
                    return _renamed(tag.get("capabilities"))

        return await asyncio.gather(*map(of_one, tags))


def _renamed(capabilities: object) -> tuple[str, ...]:
    if not isinstance(capabilities, list):
        return ()
    told = [each for each in capabilities if isinstance(each, str)]
    return tuple(name for each in told for name in _NAMES.get(each, (each,)))
