"""Cache the lists of the providers' models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from llm_magics.errors import ConnectionError
from llm_magics.providers.base import BaseModelProvider, ModelInfo

ModelList = list[ModelInfo]

# The maximum time to wait for a list, if there is an older one, and if there is none.
_REFRESH_TIMEOUT_S = 1.0
_FIRST_TIMEOUT_S = 8.0


class ModelListCache:
    """The models of each provider, by name. Use it only on the bridge's loop."""

    def __init__(self, provider: Callable[[str], BaseModelProvider]) -> None:
        """Create the cache for the providers that ``provider`` returns by name."""
        self._provider = provider
        self._known: dict[str, tuple[BaseModelProvider, float, ModelList]] = {}
        self._asking: dict[BaseModelProvider, asyncio.Task[ModelList]] = {}

    async def of(
        self, names: Sequence[str], max_age_s: float = 2.0
    ) -> list[ModelList | BaseException]:
        """
        Return the models of each provider in ``names``, or its error; all are requested
        concurrently.

        A list older than ``max_age_s`` is requested again. A slow provider does not delay the
        caller for
        long: its previous list is returned, and the new one the next time.
        """
        return list(
            await asyncio.gather(
                *(self._one(name, max_age_s) for name in names), return_exceptions=True
            )
        )

    async def _one(self, name: str, max_age_s: float) -> ModelList:
        provider = self._provider(name)
        known = self._known.get(name)
        last = known[2] if known and known[0] is provider else None
        if known and last is not None and time.monotonic() - known[1] <= max_age_s:
            return last
        asking = self._asking.get(provider)
        if asking is None:
            asking = self._asking[provider] = asyncio.create_task(self._ask(name, provider))
            asking.add_done_callback(lambda done: self._ended(provider, done))
        timeout_s = _FIRST_TIMEOUT_S if last is None else _REFRESH_TIMEOUT_S
        await asyncio.wait([asking], timeout=timeout_s)
        if asking.done():
            return asking.result()
        if last is not None:
            return last
        msg = f"{name} did not list its models within {timeout_s:.0f} s."
        raise ConnectionError(msg, hint="Try again in a moment.", provider=name)

    def _ended(self, provider: BaseModelProvider, asking: asyncio.Task[ModelList]) -> None:
        self._asking.pop(provider, None)
        if not asking.cancelled():
            asking.exception()  # mark it as retrieved: no caller waits for it

    async def _ask(self, name: str, provider: BaseModelProvider) -> ModelList:
        models = await provider.describe_models()
        self._known[name] = (provider, time.monotonic(), models)
        return models

    def models(self) -> dict[str, ModelInfo]:
        """Return all models in the cache by their full names."""
        known = self._known.copy()
        return {
            f"{name}/{info.name}": info
            for name, (_, _, models) in known.items()
            for info in models
        }

    def forget(self, name: str) -> None:
        """Remove the list of ``name`` from the cache, because its models have changed."""
        self._known.pop(name, None)

    async def close(self) -> None:
        """Cancel all requests."""
        for asking in list(self._asking.values()):
            asking.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
