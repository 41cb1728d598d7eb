"""
The differences between services with OpenAI-compatible APIs.

They are data: ``services.toml`` has the facts about each service, with their sources and dates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any, Literal

from llm_magics.http import KeyHeader
from llm_magics.providers.services import Service, find_service_at, services
from llm_magics.wire import schema_dialects
from llm_magics.wire.schema_dialects import Dialect
from llm_magics.wire.thinking import EFFORT, EFFORTS, ThinkingDialect, ThinkingRules

_BEARER = KeyHeader()

_DIALECTS: Mapping[str, Dialect] = {
    "cerebras": schema_dialects.CEREBRAS,
    "grammar": schema_dialects.GRAMMAR,
    "json_object": schema_dialects.JSON_OBJECT,
    "openai": schema_dialects.OPENAI,
    "plain": schema_dialects.PLAIN,
    "unknown": schema_dialects.UNKNOWN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponsesProfile:
    """
    How the Responses API of one service differs from OpenAI's.

    Attributes:
        path: its path.
        refuses: parameters that it does not support; they are left out. With ``text``, a schema is
            sent in ``response_format``; ``reasoning.summary`` is a part of ``reasoning``.
        model_prefix: added to the names of models without a slash.
    """

    path: str = "/responses"
    refuses: frozenset[str] = frozenset()
    model_prefix: str = ""

    def adapt(self, body: dict[str, Any]) -> dict[str, Any]:
        """Convert ``body``, a request to OpenAI, to a request to this service."""
        adapted = {name: value for name, value in body.items() if name not in self.refuses}
        if "text" in body and "text" in self.refuses:
            format_ = {
                key: value for key, value in body["text"]["format"].items() if key != "type"
            }
            adapted["response_format"] = {"type": "json_schema", "json_schema": format_}
        if "reasoning.summary" in self.refuses and "reasoning" in adapted:
            effort = {key: value for key, value in body["reasoning"].items() if key != "summary"}
            adapted["reasoning"] = effort
        if "/" not in str(body["model"]):
            adapted["model"] = f"{self.model_prefix}{body['model']}"
        return adapted


_USUAL_RESPONSES = ResponsesProfile()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceProfile:
    """
    How one service differs from most others; the defaults suit most servers.

    Attributes:
        base_url: its address, with the names of parts in braces; empty if it has none.
        hosts: the host names by which it is recognised; ``*`` stands for one or more labels.
        key_variable: the environment variable in which its users keep their key.
        key_header: the header for the key.
        names: its names of parameters, by OpenAI's older names.
        refuses: parameters that it does not support; they are left out.
        capabilities: what it can do with at least one model; empty if that is unknown.
        embedding_batch_size: the maximum number of texts in one request; 0 if it is not known.
        encoding_format: the format of vectors; not every service supports base64.
        schema: ``json_schema``, or ``json_object`` if it does not support schemas: the answer is
            then JSON, and only our own validation checks whether it matches the schema.
        dialect: the subset of JSON schemas that it accepts.
        strict_models: parts of the names of models that support strict schemas; ``None`` if all do.
        thinking: its parameters for thinking, and the known facts about its models.
        models_path: the path of the list of models; empty if there is none.
        models_format: the form of that list.
        errors: the meaning of its error codes, as in `openai_errors.MEANINGS`.
        max_logprobs: the maximum number of alternatives per token in log probabilities.
        logprobs_format: ``openai``, or ``integer`` if ``logprobs`` is the number of alternatives.
        price_list: its name in ``genai-prices``; empty if that has no prices of it.
        search: the API with its web search tool: ``responses``, or ``chat`` for OpenRouter's; empty
            if it has none.
        responses: how its Responses API differs from OpenAI's.
        tiers: its cheaper tiers for chats, sent as ``service_tier``.
        batches: the format of its API for batch jobs, a module of `llm_magics.providers.batches`;
            empty if it has none.
    """

    base_url: str = ""
    hosts: tuple[str, ...] = ()
    key_variable: str = ""
    key_header: KeyHeader = _BEARER
    names: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    refuses: frozenset[str] = frozenset()
    capabilities: tuple[str, ...] = ()
    embedding_batch_size: int = 0
    encoding_format: str = "float"
    schema: Literal["json_schema", "json_object"] = "json_schema"
    dialect: Dialect = schema_dialects.PLAIN
    strict_models: tuple[str, ...] | None = None
    thinking: ThinkingDialect = EFFORT
    models_path: str = "/models"
    models_format: str = "openai"
    errors: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    max_logprobs: int = 20
    logprobs_format: Literal["openai", "integer"] = "openai"
    price_list: str = ""
    search: Literal["", "chat", "responses"] = ""
    responses: ResponsesProfile = _USUAL_RESPONSES
    tiers: tuple[str, ...] = ()
    batches: str = ""

    @classmethod
    def of(cls, service: Service) -> ServiceProfile:
        """Return the profile of a service in the data file."""
        facts = dict(service.profile)
        del facts["description"]
        header = facts.pop("key_header", {})
        lists = facts.pop("models", {})
        thinking = _thinking_dialect(facts.pop("thinking", {}), facts.pop("thinking_models", ()))
        dialect = facts.pop("dialect", "plain")
        responses = facts.pop("responses", {})
        responses["refuses"] = frozenset(responses.get("refuses", ()))
        for name in ("capabilities", "strict_models", "tiers"):
            if name in facts:
                facts[name] = tuple(facts[name])
        return cls(
            base_url=service.address,
            hosts=service.hosts,
            key_variable=next(iter(service.key_variables), ""),
            key_header=KeyHeader(**header),
            names=MappingProxyType(facts.pop("names", {})),
            errors=MappingProxyType(facts.pop("errors", {})),
            refuses=frozenset(facts.pop("refuses", ())),
            dialect=_DIALECTS[dialect],
            responses=ResponsesProfile(**responses),
            thinking=thinking,
            models_path=lists.get("path", "/models"),
            models_format=lists.get("format", "openai"),
            **facts,
        )

    @property
    def is_in_the_cloud(self) -> bool:
        """Whether it is a service with its own hosts, and not a server of the user's own."""
        return bool(self.hosts)

    def refused_in(self, body: Mapping[str, Any]) -> frozenset[str]:
        """Return the parameters of ``body`` that the service refuses and that the user has set."""
        return self.refuses.intersection(body) - {"stream_options"}

    def adapt(self, body: dict[str, Any]) -> dict[str, Any]:
        """Convert ``body``, a request with OpenAI's parameter names, to this service's names."""
        adapted = {name: value for name, value in body.items() if name not in self.refuses}
        for usual, own in self.names.items():
            value = adapted.pop(usual, None)
            if value is not None:
                adapted[own] = value
        if self.schema == "json_object" and "response_format" in adapted:
            adapted["response_format"] = {"type": "json_object"}
        self._loosen(adapted)
        self._adapt_logprobs(adapted)
        return adapted

    def _adapt_logprobs(self, body: dict[str, Any]) -> None:
        """Limit the number of alternatives in log probabilities, and express it in one field."""
        count = body.get("top_logprobs")
        if type(count) is int:
            body["top_logprobs"] = min(count, self.max_logprobs)
        if self.logprobs_format == "integer" and body.get("logprobs") is True:
            body["logprobs"] = max(1, body.pop("top_logprobs", 1))

    def _loosen(self, body: dict[str, Any]) -> None:
        """Remove ``strict`` if the model has no strict mode."""
        schema_format = (body.get("response_format") or {}).get("json_schema")
        if self.strict_models is None or not isinstance(schema_format, dict):
            return
        if not any(part in str(body.get("model")) for part in self.strict_models):
            loose = {name: value for name, value in schema_format.items() if name != "strict"}
            body["response_format"] = {"type": "json_schema", "json_schema": loose}


def _thinking_dialect(
    facts: Mapping[str, Any], models: Sequence[Mapping[str, Any]]
) -> ThinkingDialect:
    """Return the dialect of a service; for a level that it lacks, its next higher one is sent."""
    known = [each for each in EFFORTS if each in facts.get("efforts", EFFORTS)]
    levels = {
        level: next((each for each in EFFORTS[place:] if each in known), known[-1])
        for place, level in enumerate(EFFORTS)
        if known and level not in known
    }
    rules = (
        ThinkingRules(
            models=tuple(each["names"]),
            thinks=each.get("thinks"),
            is_optional=each.get("can_be_off"),
            levels=tuple(each["efforts"]) if "efforts" in each else None,
        )
        for each in models
    )
    name = facts.get("dialect", EFFORT.name)
    return ThinkingDialect(name=name, levels=MappingProxyType(levels), rules=tuple(rules))


_OTHER = ServiceProfile(dialect=schema_dialects.UNKNOWN)


@cache
def profiles() -> Mapping[str, ServiceProfile]:
    """Return the profile of each service by name, and ``other`` for unknown servers."""
    known = {name: ServiceProfile.of(service) for name, service in services().items()}
    return MappingProxyType({**known, "other": _OTHER})


@lru_cache(maxsize=64)
def find_profile(base_url: str, type_name: str = "openai") -> ServiceProfile:
    """Return the profile of the service of this type at ``base_url``, by its host."""
    service = find_service_at(base_url, type_name)
    return profiles()[service.name] if service else _OTHER
