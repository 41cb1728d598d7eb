"""
The road that every call takes: route → model made ready → … → measurements in the log.

What is particular to a kind of call stands beside it, in `chat` and `embedding`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass

from llm_magics.engine import metrics, routing
from llm_magics.engine.response import Response
from llm_magics.engine.session import Session
from llm_magics.errors import ModelNotFoundError
from llm_magics.providers.base import BaseModelProvider
from llm_magics.secrets import scrub
from llm_magics.types import Progress

INTERRUPTED = "interrupted"


@dataclass
class Route:
    """Where a call goes: the provider, the model's name there, and the time to load it."""

    provider: BaseModelProvider
    model: str
    load_s: float = 0.0

    @property
    def name(self) -> str:
        """The model's full name."""
        return f"{self.provider.name}/{self.model}"


async def find_route(session: Session, wanted: str) -> Route:
    """The route to the model that a user calls ``wanted``."""
    name, model = routing.split(wanted)
    if name is None:
        name = routing.find_bare(wanted, await session.listings())
    if not model:
        msg = f'"{wanted}" names no model.'
        raise ModelNotFoundError(msg, hint=f"Write {name}/NAME; %llm models {name} lists them.")
    return Route(session.provider(name), model)


async def made_ready(route: Route, ability: str) -> AsyncGenerator[Progress, None]:
    """Have the model fetched and loaded, with its progress; loading time is kept apart."""
    loading_since: float | None = None
    async for progress in route.provider.prepare(route.model, ability):
        if progress.is_load and loading_since is None:
            loading_since = time.perf_counter()
        yield progress
    if loading_since is not None:
        route.load_s = time.perf_counter() - loading_since


@contextmanager
def logged(
    session: Session, kind: str, route: Route, response: Callable[[], Response]
) -> Generator[None, None, None]:
    """Put the call made inside into the log, however it ends."""
    started = metrics.now()
    ending: dict[str, str] = {}
    try:
        yield
    except (asyncio.CancelledError, GeneratorExit):
        ending = {"finish_reason": INTERRUPTED}
        raise
    except Exception as error:
        ending = {"finish_reason": "error", "error": scrub(f"{type(error).__name__}: {error}")}
        raise
    finally:
        answer = response()
        session.runs.add(
            metrics.Run(
                time=started,
                provider=route.provider.name,
                model=route.model,
                kind=kind,
                ttft_s=answer.timing.ttft_s,
                itl_ms=answer.timing.itl_ms,
                e2e_s=answer.timing.e2e_s,
                load_s=answer.timing.load_s,
                input_tokens=answer.usage.input_tokens,
                output_tokens=answer.usage.output_tokens,
                tokens_per_s=answer.timing.tokens_per_s,
                cost_usd=answer.cost_usd,
                cached=answer.cached,
                finish_reason=ending.get("finish_reason", answer.finish_reason),
                error=ending.get("error"),
            )
        )
