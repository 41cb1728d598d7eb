"""The models of every provider, as they were told last, and asked for anew behind one's back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from llm_magics.errors import ConnectionError
from llm_magics.providers.base import BaseModelProvider, ModelInfo

Listing = list[ModelInfo]

# How long an answer is waited for: where there is an older one, and where there is none.
_IMPATIENT_S = 1.0
_PATIENT_S = 8.0


class Listings:
    """What each provider has, by its name. To be used on the bridge's loop alone."""

    def __init__(self, provider: Callable[[str], BaseModelProvider]) -> None:
        """Of the providers that ``provider`` gives by their names."""
        self._provider = provider
        self._known: dict[str, tuple[BaseModelProvider, float, Listing]] = {}
        self._asking: dict[BaseModelProvider, asyncio.Task[Listing]] = {}

    async def of(
        self, names: Sequence[str], max_age_s: float = 2.0
    ) -> list[Listing | BaseException]:
        """
        The models of each provider in ``names``, or its error, all asked at once.

        What is older than ``max_age_s`` is asked for again. Who is slow is not waited for
        long: what he told last counts meanwhile, and his answer does the next time.
        """
        return list(
            await asyncio.gather(
                *(self._one(name, max_age_s) for name in names), return_exceptions=True
            )
        )

    async def _one(self, name: str, max_age_s: float) -> Listing:
        provider = self._provider(name)
        known = self._known.get(name)
        last = known[2] if known and known[0] is provider else None
        if known and last is not None and time.monotonic() - known[1] <= max_age_s:
            return last
        asking = self._asking.get(provider)
        if asking is None:
            asking = self._asking[provider] = asyncio.create_task(self._ask(name, provider))
            asking.add_done_callback(lambda done: self._ended(provider, done))
        patience_s = _PATIENT_S if last is None else _IMPATIENT_S
        await asyncio.wait([asking], timeout=patience_s)
        if asking.done():
            return asking.result()
        if last is not None:
            return last
        msg = f"{name} did not list its models within {patience_s:.0f} s."
        raise ConnectionError(msg, hint="Ask again in a moment.", provider=name)

    def _ended(self, provider: BaseModelProvider, asking: asyncio.Task[Listing]) -> None:
        self._asking.pop(provider, None)
        if not asking.cancelled():
            asking.exception()  # of a failure that nobody waited for, nobody is to hear

    async def _ask(self, name: str, provider: BaseModelProvider) -> Listing:
        models = await provider.describe_models()
        self._known[name] = (provider, time.monotonic(), models)
        return models

    def names(self) -> list[str]:
        """The full names of all models that were told of."""
        known = self._known.copy()
        return [f"{name}/{info.name}" for name, (_, _, told) in known.items() for info in told]

    def forget(self, name: str) -> None:
        """What ``name`` has was changed."""
        self._known.pop(name, None)

    async def close(self) -> None:
        """Ask nobody any more."""
        for asking in list(self._asking.values()):
            asking.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
