"""
Aliases and routes: resolve a model's name to candidates, in order.

An *alias* is a short name for a model and its parameters. A *route* is a list of models that are
tried in their order, or in the order of a policy.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from llm_magics._util.text import escape_invisible
from llm_magics.errors import ConfigurationError, ModelNotFoundError, nearest
from llm_magics.host import current_host
from llm_magics.providers.base import BaseModelProvider
from llm_magics.providers.model_catalog import find_providers
from llm_magics.runtime import pricing
from llm_magics.runtime.history.entries import Details
from llm_magics.runtime.response import INTERRUPTED, Response
from llm_magics.runtime.session import Session
from llm_magics.runtime.storage import run_log
from llm_magics.runtime.telemetry.attributes import CallDetails
from llm_magics.runtime.telemetry.calls import start_call
from llm_magics.secrets import redact

__all__ = ["INTERRUPTED", "Route", "find_candidates", "find_route", "log_call", "route_to"]

Policy = Literal["order", "cheapest", "fastest", "round-robin"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model to try, and the parameters of its alias."""

    model: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Route:
    """
    The target of a request: the provider, the model's name there, and the time to load it.

    ``parameters`` are those of the alias.
    """

    provider: BaseModelProvider
    model: str
    load_s: float = 0.0
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The model's full name."""
        return f"{self.provider.name}/{self.model}"


def resolve_candidates(
    name: str,
    aliases: Mapping[str, Any],
    routes: Mapping[str, Any],
) -> tuple[list[Candidate], Policy]:
    """
    Return the models that ``name`` stands for, in their written order, and the policy.

    Raises:
        ConfigurationError: a name refers to itself, or to nothing.
    """
    return _resolve(name, {}, aliases, routes, ())


def _resolve(
    name: str,
    parameters: Mapping[str, Any],
    aliases: Mapping[str, Any],
    routes: Mapping[str, Any],
    seen: tuple[str, ...],
) -> tuple[list[Candidate], Policy]:
    if name in seen:
        chain = " → ".join((*seen, name))
        msg = f'The alias or route "{name}" refers to itself: {chain}.'
        raise ConfigurationError(msg, hint="Fix the aliases and routes in your settings.")
    if name in aliases:
        alias = aliases[name]
        options = {"model": alias} if isinstance(alias, str) else dict(alias)
        model = options.pop("model", "")
        # Parameters closer to the prompt take precedence.
        return _resolve(model, {**options, **parameters}, aliases, routes, (*seen, name))
    if name in routes:
        route = routes[name]
        settings: dict[str, Any] = {"models": route} if isinstance(route, list) else dict(route)
        policy: Policy = settings.get("policy", "order")
        found: list[Candidate] = []
        for model in settings["models"]:
            inner, _ = _resolve(model, parameters, aliases, routes, (*seen, name))
            found += [each for each in inner if each not in found]
        return found, policy
    return [Candidate(name, parameters)], "order"


def order_candidates(
    found: Sequence[Candidate],
    policy: Policy,
    *,
    turn: int = 0,
    price: Callable[[str], float | None] = lambda _: None,
    speed: Callable[[str], float | None] = lambda _: None,
) -> list[Candidate]:
    """
    Return ``found`` in the order in which to try them.

    Args:
        turn: the number of the round, for ``round-robin``.
        price: returns a model's price, in US dollars per million tokens; unknown ones are last.
        speed: returns a model's measured speed, in tokens per second; unknown ones are last.
    """
    if policy == "round-robin" and found:
        start = turn % len(found)
        return [*found[start:], *found[:start]]
    if policy == "cheapest":
        return sorted(found, key=lambda each: _last_if_unknown(price(each.model)))
    if policy == "fastest":
        return sorted(found, key=lambda each: _last_if_unknown(_negative(speed(each.model))))
    return list(found)


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def _last_if_unknown(value: float | None) -> float:
    return float("inf") if value is None else value


def split_name(model: str) -> tuple[str | None, str]:
    """Split ``provider/name`` at its first slash; a bare name has no provider."""
    provider, slash, name = model.partition("/")
    return (provider, name) if slash else (None, model)


def find_provider_of(
    name: str,
    listings: Mapping[str, Sequence[str]],
    short_names: Iterable[str] = (),
    elsewhere: Iterable[str] = (),
    providers: Collection[str] = (),
) -> str:
    """
    Return the only provider that lists ``name``; the error names similar models and
    ``short_names``.

    ``elsewhere`` contains instructions for models of that name at services that listed no models.
    ``providers`` contains all providers, also those that listed no models.

    Raises:
        ModelNotFoundError: no provider lists it, or several do.
    """
    if name in listings:
        msg = f'"{name}" is a provider, not a model.'
        hint = f"Use {name}/NAME. {nearest('', listings[name], listed=True)}"
        raise ModelNotFoundError(msg, hint=hint, provider=name)
    having = [provider for provider, models in listings.items() if name in models]
    if len(having) == 1:
        return having[0]
    known = [f"{provider}/{model}" for provider, models in listings.items() for model in models]
    if having:
        msg = f'Several providers have a model "{name}".'
        hint = f"Use one of: {' or '.join(f'{provider}/{escape_invisible(name)}' for provider in having)}."
    elif instructions := " ".join(elsewhere):
        msg = f'The model "{name}" needs the name of its provider.'
        hint = instructions
    elif name in providers:
        msg = f'"{name}" is a provider, not a model.'
        hint = f"Use {name}/NAME."
    else:
        msg = f'No provider has a model "{name}".'
        by_name = {model.partition("/")[2]: model for model in known}
        hint = nearest(by_name.get(name, name), [*known, *by_name, *short_names])
    raise ModelNotFoundError(msg, hint=hint, model=name)


# A service's prices rarely change, so a list of this age in seconds is sufficient.
_PRICES_MAX_AGE_S = 3600.0


async def find_candidates(session: Session, name: str) -> list[Candidate]:
    """Return the models that ``name`` (a model, an alias or a route) stands for, in order."""
    found, policy = resolve_candidates(name, session.config.aliases, session.config.routes)
    if len(found) < 2 or policy == "order":
        return found
    price = await _prices(session, found) if policy == "cheapest" else {}
    speed = session.runs.speeds() if policy == "fastest" else {}
    turn = session.turn(name) if policy == "round-robin" else 0
    return order_candidates(found, policy, turn=turn, price=price.get, speed=speed.get)


async def _prices(session: Session, found: Sequence[Candidate]) -> dict[str, float]:
    """Return the price of a million input and a million output tokens of each model, if known."""
    prices: dict[str, float | None] = {}
    for each in found:
        name, model = split_name(each.model)
        if name:
            provider = session.provider(name)
            prices[each.model] = pricing.cost_usd(
                session.config, provider, model, pricing.A_MILLION_EACH
            )
    unknown = sorted({model.partition("/")[0] for model, usd in prices.items() if usd is None})
    lists = await session.listings.of(unknown, _PRICES_MAX_AGE_S)
    for name, models in zip(unknown, lists, strict=True):
        for info in () if isinstance(models, BaseException) else models:
            if prices.get(f"{name}/{info.name}", 0) is None and info.input_usd is not None:
                prices[f"{name}/{info.name}"] = info.input_usd + (info.output_usd or 0)
    return {model: usd for model, usd in prices.items() if usd is not None}


async def find_route(session: Session, name: str) -> Route:
    """Return the route to the model that a user calls ``name``; of several, to the first."""
    found = await find_candidates(session, name)
    return await route_to(session, found[0])


async def route_to(session: Session, candidate: Candidate) -> Route:
    """Return the route to one model."""
    name, model = split_name(candidate.model)
    if name is None:
        short_names = [*session.config.aliases, *session.config.routes]
        listings = await session.model_names()
        elsewhere = [_qualified_name_hint(session, each, model) for each in find_providers(model)]
        providers = session.providers.known_names()
        name = find_provider_of(candidate.model, listings, short_names, elsewhere, providers)
    if not model:
        msg = f'"{candidate.model}" is not a model name.'
        raise ModelNotFoundError(
            msg, hint=f"Use {name}/NAME; %llm models {name} lists the models."
        )
    provider = session.provider(name, in_use=True)
    return Route(provider=provider, model=model, parameters=candidate.parameters)


def _qualified_name_hint(session: Session, name: str, model: str) -> str:
    """Return how to write ``model`` of the provider ``name``, and which key is missing."""
    provider = session.provider(name)
    model = escape_invisible(model)
    if provider.is_set_up or not provider.key_variable:
        return f"Use {name}/{model}."
    return f"Use {name}/{model}; it needs {provider.key_variable} (or: %llm key {name})."


@contextmanager
def log_call(
    session: Session,
    kind: str,
    route: Callable[[], Route | None],
    response: Callable[[], Response],
    details: Callable[[], CallDetails] = CallDetails,
) -> Generator[None, None, None]:
    """
    Log and trace the call inside the block, however it ends, with its last ``route``.

    ``details`` returns what a trace has in addition to the log.
    """
    started, cell, first = datetime.now(UTC), current_host().current_cell, route()
    span = None
    if "opentelemetry" in sys.modules:  # otherwise no SDK is configured
        span = start_call(kind, first.provider if first else None, first.model if first else "")
    ending: dict[str, str] = {}
    failure: BaseException | None = None
    try:
        yield
    except (asyncio.CancelledError, GeneratorExit) as stop:
        ending, failure = {"finish_reason": INTERRUPTED}, stop
        raise
    except Exception as error:
        ending = {"finish_reason": "error", "error": redact(f"{type(error).__name__}: {error}")}
        failure = error
        raise
    finally:
        answer, taken = response(), route()
        if span is not None:
            provider, model = (taken.provider, taken.model) if taken else (None, "")
            span.end(provider, model, answer, details, failure)
        session.log(
            run_log.Run(
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
                reasoning_tokens=answer.usage.reasoning_tokens,
                tokens_per_s=answer.timing.tokens_per_s,
                cost_usd=answer.cost_usd,
                reasoning_usd=answer.reasoning_usd,
                cached=answer.cached,
                retries=answer.retries,
                fallback_from=", ".join(answer.fallback_from) or None,
                finish_reason=ending.get("finish_reason", answer.finish_reason),
                error=ending.get("error"),
                cell=cell.number,
            ),
            answer,
            Details.of(details(), cell.key, failure),
        )
