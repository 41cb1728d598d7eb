"""An event loop whose clock jumps to the next timer, and a server simulated on it."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from llm_magics.parameters import ModelParameters
from llm_magics.providers.base import Answer, BaseModelProvider, ProviderConfig
from llm_magics.runtime.session import Session
from llm_magics.settings.config import config
from llm_magics.types import ChatMessage, ModelResponse, PackedVectors, Usage

T = TypeVar("T")


class _Selector(selectors.DefaultSelector):
    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(None if timeout is None else 0)
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """Sleeping takes no time: the clock is set to the moment of the next timer."""

    def __init__(self) -> None:
        self._moments = _Selector()
        super().__init__(self._moments)

    def time(self) -> float:
        return self._moments.now


def run(work: Coroutine[Any, Any, T]) -> tuple[T, float]:
    """Run ``work`` and return its result, and the virtual seconds that it took."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        result = runner.run(work)
        return result, runner.get_loop().time()


class SharedServer:
    """
    A server that answers ``rate(n)`` requests a second while ``n`` are under way.

    They share its time equally, as on a few cores or a graphics card.
    """

    def __init__(self, rate: Callable[[int], float]) -> None:
        self._rate = rate
        self._left: dict[asyncio.Future[None], float] = {}
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self.most_at_once = 0

    async def serve(self, work: float = 1.0) -> None:
        """Do as much ``work`` as one usual request is."""
        loop = asyncio.get_running_loop()
        self._advance(loop)
        done: asyncio.Future[None] = loop.create_future()
        self._left[done] = work
        self.most_at_once = max(self.most_at_once, len(self._left))
        self._schedule(loop)
        try:
            await done
        finally:
            self._advance(loop)
            self._left.pop(done, None)
            self._schedule(loop)

    def _advance(self, loop: asyncio.AbstractEventLoop) -> None:
        now, count = loop.time(), len(self._left)
        if count:
            each = (now - self._since) * self._rate(count) / count
            self._left = {done: left - each for done, left in self._left.items()}
        self._since = now

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._left:
            count = len(self._left)
            wait_s = max(0.0, min(self._left.values())) * count / self._rate(count)
            self._timer = loop.call_later(wait_s, self._finish, loop)

    def _finish(self, loop: asyncio.AbstractEventLoop) -> None:
        self._advance(loop)
        for done in [done for done, left in self._left.items() if left < 1e-9]:
            del self._left[done]
            if not done.done():
                done.set_result(None)
        self._schedule(loop)


class SimulatedProvider(BaseModelProvider):
    """A provider whose every request is answered by ``serve``, given the texts in it."""

    name = "lab"
    capabilities = ("chat", "embeddings")

    def __init__(
        self,
        serve: Callable[[Sequence[str]], Coroutine[Any, Any, None]],
        config: ProviderConfig | None = None,
        *,
        is_own: bool = False,
    ) -> None:
        super().__init__(config)
        self._serve = serve
        self._is_own = is_own
        self.requests: list[Sequence[str]] = []

    def is_free(self, model: str) -> bool:
        return self._is_own

    def batches_may_differ(self, model: str) -> bool:
        return False

    async def initialize(self) -> bool:
        return True

    async def list_models(self) -> list[str]:
        return ["m"]

    async def health_check(self) -> dict[str, Any]:
        return {"status": "ok", "detail": ""}

    async def generate_chat(
        self, messages: Sequence[ChatMessage], model: str, parameters: ModelParameters
    ) -> Answer:
        await self._send([messages[-1].content])
        return ModelResponse("said", finish_reason="stop", usage=Usage(1, 1))

    async def generate_completion(
        self, prompt: str, model: str, parameters: ModelParameters
    ) -> Answer:
        raise NotImplementedError

    async def generate_embeddings(self, texts: Sequence[str], model: str) -> list[list[float]]:
        await self._send(texts)
        return [[1.0, float(number)] for number in range(len(texts))]

    async def generate_packed(self, texts: Sequence[str], model: str) -> PackedVectors:
        return PackedVectors.of(await self.generate_embeddings(texts, model))

    async def _send(self, texts: Sequence[str]) -> None:
        self.requests.append(texts)
        await self._serve(texts)


class SimulatedSession(Session):
    """A session of its own in which every model is that of ``simulated``."""

    def __init__(self, simulated: BaseModelProvider) -> None:
        super().__init__(config)
        self.simulated = simulated

    def provider(self, name: str, *, in_use: bool = False) -> BaseModelProvider:
        return self.simulated
