"""Parameters of a call: sampling parameters, schema and tools."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any

from llm_magics.errors import ConfigurationError
from llm_magics.secrets import KeyHeaders, register_headers


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool that a model may call. ``parameters`` is a JSON schema of an object."""

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(
        default_factory=lambda: {"type": "object", "properties": {}}
    )

    def as_dict(self) -> dict[str, Any]:
        """Return the tool as a dict in the format of most services."""
        return {
            "name": self.name,
            "description": self.description,
            "parameters": dict(self.parameters),
        }


@dataclass(frozen=True, slots=True)
class ModelParameters:
    """
    The parameters of a call. ``None`` means the default of the model.

    Attributes:
        temperature: the sampling temperature, 0 (always the most likely token) or more.
        max_tokens: the maximum length of the answer in tokens, 1 or more.
        top_p: the probability mass to sample from, above 0 and at most 1.
        seed: the seed for reproducible sampling, if the service supports it.
        stop: the answer ends before any of these texts.
        tools: the tools that the model may call.
        tool_choice: ``auto``, ``none``, ``required``, or the name of the tool to call.
        schema: the JSON schema of the answer.
        reasoning: how much to think: ``off``, ``low``, ``medium``, ``high``. ``False`` is ``off``,
            ``True`` the usual amount of the model. See `llm_magics.wire.thinking`.
        logprobs: return the log probability of each token of the answer, with up to this number of
            alternatives; a service may give fewer. ``True`` is 0: without alternatives.
        search: whether the model may search the web, with the tool of its service.
        tier: the service's tier: ``flex``, which is cheaper but slower, where a service has it, or
            ``standard``.
        choices: texts of which the answer is the most probable one. The model does not generate it;
            the probabilities of all choices are in its log probabilities. Only ``local`` has this.
        stream: return a generator of `StreamChunk` instead of a `ModelResponse`.
        extra_body: further fields of the request body, for parameters of specific services.
        extra_headers: further headers of the request.
    """

    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Tool, ...] = ()
    tool_choice: str | None = None
    schema: Mapping[str, Any] | None = None
    reasoning: bool | str | None = None
    extra_headers: Mapping[str, str] = field(default_factory=dict)
    logprobs: int | None = None
    search: bool = False
    choices: tuple[str, ...] = ()
    tier: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", _parse_stop(self.stop))
        for name, values in (("extra_body", object), ("extra_headers", str)):
            _check_mapping(name, getattr(self, name), values)
        if self.extra_headers:
            _check_host(self.extra_headers)
            register_headers(self.extra_headers)
            object.__setattr__(self, "extra_headers", KeyHeaders(self.extra_headers))
        object.__setattr__(self, "reasoning", _parse_reasoning(self.reasoning))
        object.__setattr__(self, "logprobs", _parse_logprobs(self.logprobs))
        object.__setattr__(self, "search", _parse_search(self.search))
        object.__setattr__(self, "tier", _parse_tier(self.tier))
        object.__setattr__(self, "choices", _parse_choices(self.choices))
        _check_number("temperature", self.temperature, 0, None, "a number of at least 0")
        _check_number("top_p", self.top_p, 1e-9, 1, "a number above 0 and at most 1")
        _check_number(
            "max_tokens", self.max_tokens, 1, None, "an integer of at least 1", integer=True
        )
        _check_number("seed", self.seed, None, None, "an integer", integer=True)

    @classmethod
    def of(cls, parameters: ModelParameters | Mapping[str, Any] | None) -> ModelParameters:
        """
        Return ``parameters`` itself, or create parameters from a mapping; ``None`` means defaults.

        Names that are not attributes of this class are added to ``extra_body``.

        Raises:
            ConfigurationError: a name is misspelled, or a value is invalid.
        """
        if isinstance(parameters, ModelParameters):
            return parameters
        if parameters is None:
            return cls()
        if not isinstance(parameters, Mapping):
            msg = f"Invalid parameters: {type(parameters).__name__}."
            raise ConfigurationError(msg, hint="Pass a dict, ModelParameters or None.")
        known = [each.name for each in fields(cls)]
        arguments = {name: value for name, value in parameters.items() if name in known}
        others = {name: value for name, value in parameters.items() if name not in known}
        for name in others:
            _reject_misspelled(name, known)
        if others:
            _check_mapping("extra_body", arguments.get("extra_body", {}), object)
            arguments["extra_body"] = {**others, **arguments.get("extra_body", {})}
        if isinstance(arguments.get("tools"), Iterable):
            arguments["tools"] = tuple(arguments["tools"])
        return cls(**arguments)

    def with_stream(self, stream: bool = True) -> ModelParameters:
        """Return a copy of these parameters with a different ``stream``."""
        return replace(self, stream=stream)

    def without_tier(self) -> ModelParameters:
        """Return a copy of these parameters without a tier, also among the further fields."""
        extra = {name: value for name, value in self.extra_body.items() if name not in TIER_FIELDS}
        return replace(self, tier=None, extra_body=extra)

    def with_bound(self, max_tokens: int) -> ModelParameters:
        """Return a copy of these parameters with a different ``max_tokens``."""
        return replace(self, max_tokens=max_tokens)


# Parameters of services that resemble misspelled parameters of this package.
_SERVICE_PARAMETERS = frozenset(
    {"top_k", "min_p", "min_tokens", "typical_p", "top_n", "stop_token_ids", "top_logprobs"}
)


# Names of arguments of a call, which are not parameters.
_CALL_ARGUMENTS = frozenset({"input", "messages", "model", "prompt"})


def _reject_misspelled(name: object, known: Sequence[str]) -> None:
    if not isinstance(name, str) or name in _CALL_ARGUMENTS:
        msg = f"{name!r} is not a model parameter."
        raise ConfigurationError(msg, hint="It is an argument of the call itself.")
    meant = [] if name in _SERVICE_PARAMETERS else get_close_matches(name, known, n=1, cutoff=0.75)
    if meant:
        msg = f"Unknown parameter: {name}."
        raise ConfigurationError(msg, hint=f"Did you mean {meant[0]}?")


def _check_mapping(name: str, value: object, values: type) -> None:
    if isinstance(value, Mapping) and all(
        isinstance(key, str) and isinstance(each, values) for key, each in value.items()
    ):
        return
    msg = f"Invalid value for {name}."  # without the value, which may contain a key
    kind = "texts" if values is str else "values"
    raise ConfigurationError(msg, hint=f"Pass a dict of {kind} by name.")


def _check_host(headers: Mapping[str, str]) -> None:
    """Refuse a header that sends a request to another host: a prompt's file may contain it."""
    if any(name.strip().lower() == "host" for name in headers):
        msg = "extra_headers of a call cannot contain Host."
        raise ConfigurationError(msg, hint="Set providers.NAME.base_url, or its extra_headers.")


def _parse_stop(stop: str | Iterable[str]) -> tuple[str, ...]:
    stops = (
        (stop,) if isinstance(stop, str) else tuple(stop) if isinstance(stop, Iterable) else stop
    )
    if not isinstance(stops, tuple) or not all(isinstance(each, str) for each in stops):
        msg = f"Invalid value for stop: {stop!r}."
        raise ConfigurationError(msg, hint="Pass a string or a list of strings.")
    return stops


# The levels of thinking that every service's own parameters are derived from.
REASONING_LEVELS = ("off", "low", "medium", "high")
# Further levels, which only some services know. They are passed on unchanged.
_MORE_LEVELS = ("minimal", "xhigh", "max")


def _parse_reasoning(reasoning: object) -> bool | str | None:
    """Return the level of thinking; ``off`` is ``False``, so that it is one request in a cache."""
    if reasoning is None or isinstance(reasoning, bool):
        return reasoning
    named = {"off": False, "none": False, "on": True}
    level = reasoning.strip().lower() if isinstance(reasoning, str) else ""
    if level in named:
        return named[level]
    if level in REASONING_LEVELS or level in _MORE_LEVELS:
        return level
    msg = f"Invalid value {reasoning!r} for reasoning."
    raise ConfigurationError(msg, hint=f"Use one of: {', '.join(REASONING_LEVELS)}.")


def _parse_choices(choices: object) -> tuple[str, ...]:
    is_list = isinstance(choices, Iterable) and not isinstance(choices, str | bytes | Mapping)
    given: tuple[Any, ...] = tuple(choices) if is_list else ()  # type: ignore[arg-type]
    is_valid = all(isinstance(each, str) and each for each in given) and len(given) != 1
    if choices is not None and (not is_list or not is_valid or len(set(given)) < len(given)):
        msg = "Invalid value for choices."
        raise ConfigurationError(msg, hint='Pass at least two different texts: ["yes", "no"].')
    return given


def _parse_logprobs(logprobs: object) -> int | None:
    """Return the number of alternatives; ``None`` if no log probabilities are requested."""
    if logprobs is None or logprobs is False:
        return None
    if logprobs is True:
        return 0
    _check_number(
        "logprobs",
        logprobs,  # type: ignore[arg-type]
        0,
        None,
        "True, or the number of alternatives per token",
        integer=True,
    )
    return logprobs  # type: ignore[return-value]


def _parse_search(search: object) -> bool:
    if search is None or isinstance(search, bool):
        return bool(search)
    msg = f"Invalid value {search!r:.60} for search."
    raise ConfigurationError(msg, hint="Use True or False.")


# Services' names of the parameter for the tier. It affects the price and the time of an answer, but
# not the answer.
TIER_FIELDS = frozenset({"service_tier", "serviceTier"})

# The tiers that can be requested at every service that has them.
TIERS = ("standard", "flex")


def _parse_tier(tier: object) -> str | None:
    """Return the tier; ``None`` for the usual one."""
    if tier is None or tier == "standard":
        return None
    if tier in TIERS:
        return str(tier)
    msg = f"Invalid value {tier!r:.60} for tier."
    raise ConfigurationError(msg, hint=f"Use one of: {', '.join(TIERS)}.")


def _check_number(  # noqa: PLR0913 (a row of a table)
    name: str,
    value: float | None,
    low: float | None,
    high: float | None,
    allowed: str,
    *,
    integer: bool = False,
) -> None:
    if value is None:
        return
    is_number = isinstance(value, int if integer else int | float) and not isinstance(value, bool)
    if (
        not is_number
        or not math.isfinite(value)
        or (low is not None and value < low)
        or (high is not None and value > high)
    ):
        msg = f"Invalid value {value!r} for {name}."
        raise ConfigurationError(msg, hint=f"Pass {allowed}.")
