"""Where a call goes, and its line in the log: what all kinds of calls share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

from llm_magics import host
from llm_magics._util.terminal import visible
from llm_magics.engine import money
from llm_magics.engine.response import Response
from llm_magics.engine.session import Session
from llm_magics.errors import ModelNotFoundError
from llm_magics.policies import metrics
from llm_magics.providers.model_catalog import providers_of
from llm_magics.runtime import routing
from llm_magics.runtime.routing import Candidate, Route
from llm_magics.secrets import redact

__all__ = ["INTERRUPTED", "Route", "find_candidates", "find_route", "logged", "route_to"]

INTERRUPTED = "interrupted"

# A service's prices do not change by the minute.
_PRICES_LAST_S = 3600.0


async def find_candidates(session: Session, wanted: str) -> list[Candidate]:
    """The models that ``wanted`` stands for — itself, an alias, a route — in their order."""
    found, policy = routing.candidates(wanted, session.config.aliases, session.config.routes)
    if len(found) < 2 or policy == "order":
        return found
    price = await _prices(session, found) if policy == "cheapest" else {}
    speed = session.runs.speeds() if policy == "fastest" else {}
    turn = session.turn(wanted) if policy == "round-robin" else 0
    return routing.ordered(found, policy, turn=turn, price=price.get, speed=speed.get)


async def _prices(session: Session, found: Sequence[Candidate]) -> dict[str, float]:
    """What is known of prices, of a million tokens in and as many out."""
    prices: dict[str, float | None] = {}
    for each in found:
        name, model = routing.split(each.model)
        if name:
            provider = session.provider(name)
            prices[each.model] = money.cost_usd(session, provider, model, money.A_MILLION_EACH)
    unknown = sorted({model.partition("/")[0] for model, usd in prices.items() if usd is None})
    told = await session.listings.of(unknown, _PRICES_LAST_S)
    for name, models in zip(unknown, told, strict=True):
        for info in () if isinstance(models, BaseException) else models:
            if prices.get(f"{name}/{info.name}", 0) is None and info.input_usd is not None:
                prices[f"{name}/{info.name}"] = info.input_usd + (info.output_usd or 0)
    return {model: usd for model, usd in prices.items() if usd is not None}


async def find_route(session: Session, wanted: str) -> Route:
    """The route to the model that a user calls ``wanted``; of several, to the first."""
    candidates = await find_candidates(session, wanted)
    return await route_to(session, candidates[0])


async def route_to(session: Session, candidate: Candidate) -> Route:
    """The route to one model."""
    name, model = routing.split(candidate.model)
    if name is None:
        short_names = [*session.config.aliases, *session.config.routes]
        listings = await session.model_names()
        elsewhere = [_how_to_write(session, each, model) for each in providers_of(model)]
        name = routing.find_bare(candidate.model, listings, short_names, elsewhere)
    if not model:
        msg = f'"{candidate.model}" names no model.'
        raise ModelNotFoundError(msg, hint=f"Write {name}/NAME; %llm models {name} lists them.")
    return Route(session.provider(name), model, parameters=candidate.parameters)


def _how_to_write(session: Session, name: str, model: str) -> str:
    """Return what to write for ``model`` of the provider ``name``, and the key that is missing."""
    provider = session.provider(name)
    model = visible(model)
    if provider.is_set_up or not provider.key_variable:
        return f"Write {name}/{model}."
    return f"Write {name}/{model}; it needs {provider.key_variable} (or: %llm key {name})."


@contextmanager
def logged(
    session: Session,
    kind: str,
    route: Callable[[], Route | None],
    response: Callable[[], Response],
) -> Generator[None, None, None]:
    """Put the call made inside into the log, however it ends, by the ``route`` it ended on."""
    started = metrics.now()
    ending: dict[str, str] = {}
    try:
        yield
    except (asyncio.CancelledError, GeneratorExit):
        ending = {"finish_reason": INTERRUPTED}
        raise
    except Exception as error:
        ending = {"finish_reason": "error", "error": redact(f"{type(error).__name__}: {error}")}
        raise
    finally:
        answer, taken = response(), route()
        session.runs.add(
            metrics.Run(
                time=started,
                provider=taken.provider.name if taken else "",
                model=taken.model if taken else "",
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
                retries=answer.retries,
                fallback_from=", ".join(answer.fallback_from) or None,
                finish_reason=ending.get("finish_reason", answer.finish_reason),
                error=ending.get("error"),
                cell=host.running().number,
            )
        )
