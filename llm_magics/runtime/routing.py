"""
From what a user calls a model to those who are asked.

An *alias* is a short name for a model and its parameters; a *route* is a list of models that
are tried in their order, or in that of a policy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from llm_magics._util.terminal import visible
from llm_magics.errors import ConfigurationError, ModelNotFoundError, nearest
from llm_magics.providers.base import BaseModelProvider

Policy = Literal["order", "cheapest", "fastest", "round-robin"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may be asked, and the parameters that its alias brings along."""

    model: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Route:
    """
    Where a request goes: the provider, the model's name there, and the time to load it.

    ``parameters`` are those of the alias that led here.
    """

    provider: BaseModelProvider
    model: str
    load_s: float = 0.0
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The model's full name."""
        return f"{self.provider.name}/{self.model}"


def candidates(
    wanted: str,
    aliases: Mapping[str, Any],
    routes: Mapping[str, Any],
) -> tuple[list[Candidate], Policy]:
    """
    The models that ``wanted`` stands for, in the order they were written, and the policy.

    Raises:
        ConfigurationError: a name leads back to itself, or to nothing.
    """
    return _resolved(wanted, {}, aliases, routes, ())


def _resolved(
    wanted: str,
    parameters: Mapping[str, Any],
    aliases: Mapping[str, Any],
    routes: Mapping[str, Any],
    seen: tuple[str, ...],
) -> tuple[list[Candidate], Policy]:
    if wanted in seen:
        way = " → ".join((*seen, wanted))
        msg = f'The name "{wanted}" leads back to itself: {way}.'
        raise ConfigurationError(msg, hint="Mend the aliases and routes in your settings.")
    if wanted in aliases:
        alias = aliases[wanted]
        given = {"model": alias} if isinstance(alias, str) else dict(alias)
        model = given.pop("model", "")
        # What is written nearer to the prompt counts more.
        return _resolved(model, {**given, **parameters}, aliases, routes, (*seen, wanted))
    if wanted in routes:
        route = routes[wanted]
        told: dict[str, Any] = {"models": route} if isinstance(route, list) else dict(route)
        policy: Policy = told.get("policy", "order")
        found: list[Candidate] = []
        for model in told["models"]:
            inner, _ = _resolved(model, parameters, aliases, routes, (*seen, wanted))
            found += [each for each in inner if each not in found]
        return found, policy
    return [Candidate(wanted, parameters)], "order"


def ordered(
    found: Sequence[Candidate],
    policy: Policy,
    *,
    turn: int = 0,
    price: Callable[[str], float | None] = lambda _: None,
    speed: Callable[[str], float | None] = lambda _: None,
) -> list[Candidate]:
    """
    ``found`` in the order in which they are to be tried.

    Args:
        turn: which round it is, for ``round-robin``.
        price: of a model, in US dollars for a million tokens; the unknown come last.
        speed: of a model, in tokens a second as measured; the unknown come last.
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


def split(model: str) -> tuple[str | None, str]:
    """``provider/name`` cut at its first slash; a bare name has no provider."""
    provider, slash, name = model.partition("/")
    return (provider, name) if slash else (None, model)


def find_bare(
    name: str,
    listings: Mapping[str, Sequence[str]],
    short_names: Iterable[str] = (),
    elsewhere: Iterable[str] = (),
) -> str:
    """
    The one provider that lists ``name``; an error names the nearest, ``short_names`` among them.

    ``elsewhere``: what to write for models of that name at services that listed none, in words.

    Raises:
        ModelNotFoundError: none does, or several do.
    """
    if name in listings:
        msg = f'"{name}" is a provider, and no model.'
        hint = f"Write {name}/NAME. {nearest('', listings[name], listed=True)}"
        raise ModelNotFoundError(msg, hint=hint, provider=name)
    having = [provider for provider, models in listings.items() if name in models]
    if len(having) == 1:
        return having[0]
    known = [f"{provider}/{model}" for provider, models in listings.items() for model in models]
    if having:
        msg = f'Several providers have a model "{name}".'
        hint = f"Say which: {' or '.join(f'{provider}/{visible(name)}' for provider in having)}."
    elif instructions := " ".join(elsewhere):
        msg = f'The model "{name}" needs the name of its provider.'
        hint = instructions
    else:
        msg = f'No provider has a model "{name}".'
        by_name = {model.partition("/")[2]: model for model in known}
        hint = nearest(by_name.get(name, name), [*known, *by_name, *short_names])
    raise ModelNotFoundError(msg, hint=hint, model=name)
