"""Many prompts to one model, some at a time; each answer is kept when it has come."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from llm_magics.engine.checking import CheckedCall
from llm_magics.engine.crew import done_by
from llm_magics.engine.prompt import Prompt
from llm_magics.engine.response import Response
from llm_magics.engine.road import find_route
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
        wanted = self._prompts[0].model or self._session.config.model
        route = await find_route(self._session, wanted)
        at_once = self._concurrency or (
            _AT_ONCE_HERE if route.provider.is_free(route.model) else _AT_ONCE
        )
        began = time.perf_counter()
        numbers = range(len(self._prompts))
        async with aclosing(done_by(at_once, self._ask, numbers)) as walked:
            async for _ in walked:
                yield self._progress(wanted, time.perf_counter() - began)

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
        return Progress(" · ".join(told), len(answered), len(self._prompts), "prompts", elapsed_s)
