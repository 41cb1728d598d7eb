"""Many prompts to one model, some at a time; each answer is kept when it has come."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from llm_magics.engine import money
from llm_magics.engine.chat import ChatCall
from llm_magics.engine.checking import CheckedCall
from llm_magics.engine.crew import done_by
from llm_magics.engine.money import Estimate
from llm_magics.engine.prompt import Prompt
from llm_magics.engine.response import Response
from llm_magics.engine.road import Route, find_candidates, find_route, route_to
from llm_magics.engine.session import Session
from llm_magics.errors import (
    AuthenticationError,
    BudgetError,
    ConfigurationError,
    ConnectionError,
    LLMError,
    ModelNotFoundError,
    UsageError,
)
from llm_magics.types import Progress

# These are about all prompts alike.
_OF_ALL = (
    AuthenticationError,
    BudgetError,
    ConfigurationError,
    ConnectionError,
    ModelNotFoundError,
    UsageError,
)

_AT_ONCE = 8
_AT_ONCE_HERE = 1  # one's own machine answers none sooner for being asked several


class ManyCall:
    """
    Prompts on their way; afterwards ``responses`` and ``errors`` have what came of each.

    A prompt that fails for itself has its error there, and stops no other.
    """

    def __init__(
        self, session: Session, prompts: Sequence[Prompt], concurrency: int | None = None
    ) -> None:
        self._session = session
        self._prompts = prompts
        self._concurrency = concurrency
        self.responses: list[Response | None] = [None] * len(prompts)
        self.errors: dict[int, LLMError] = {}

    async def events(self) -> AsyncGenerator[Progress, None]:
        """Ask all of them, yielding how far it has come."""
        if not self._prompts:
            return
        wanted = self._wanted
        at_once = self._at_once(await find_route(self._session, wanted))
        began = time.perf_counter()
        numbers = range(len(self._prompts))
        async with aclosing(done_by(at_once, self._ask, numbers)) as walked:
            async for _ in walked:
                yield self._progress(wanted, time.perf_counter() - began)

    async def to_send(self) -> list[Estimate]:
        """What each of those may take that were not answered before; nothing is sent."""
        calls = [ChatCall(self._session, prompt) for prompt in self._prompts]
        told = [await call.to_send() for call in calls]
        return [each for each in told if each is not None]

    async def may_cost(self) -> bool:
        """Whether any model that may answer has a price, as far as that is known."""
        if not self._prompts:
            return False
        for each in await find_candidates(self._session, self._wanted):
            route = await route_to(self._session, each)
            if money.has_price(self._session, route.provider, route.model):
                return True
        return False

    async def seconds(self, count: int) -> float | None:
        """How long ``count`` prompts may take, going by answers that came before."""
        if not self._prompts:
            return 0.0
        route = await find_route(self._session, self._wanted)
        each_s = self._session.runs.usual_seconds(route.provider.name, route.model)
        return None if each_s is None else each_s * count / self._at_once(route)

    @property
    def _wanted(self) -> str:
        return self._prompts[0].model or str(self._session.config.model)

    def _at_once(self, route: Route) -> int:
        is_here = route.provider.is_free(route.model)
        return self._concurrency or (_AT_ONCE_HERE if is_here else _AT_ONCE)

    async def _ask(self, number: int) -> None:
        call = CheckedCall(self._session, self._prompts[number])
        try:
            async with aclosing(call.events()) as events:
                async for _ in events:
                    pass
            call.response().check()
        except _OF_ALL:
            raise
        except LLMError as error:
            self.errors[number] = error
        self.responses[number] = call.response()

    def _progress(self, model: str, elapsed_s: float) -> Progress:
        told = [f"asking {model}"]
        answered = [each for each in self.responses if each is not None]
        cached = sum(each.cached for each in answered)
        cost = sum(each.cost_usd or 0.0 for each in answered)
        told += [f"{cached:,} cached"] if cached else []
        told += [f"{len(self.errors):,} failed"] if self.errors else []
        told += [f"${cost:.2g}"] if cost else []
        return Progress(
            " · ".join(told),
            len(answered),
            len(self._prompts),
            "prompts",
            elapsed_s,
            before=cached,
        )
