"""Map errors of OpenAI-compatible APIs to exceptions, and find the parameters they refuse."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from llm_magics.errors import (
    AuthenticationError,
    ContentFilterError,
    ContextLengthError,
    ModelNotFoundError,
    ProviderError,
    RateLimitError,
    UnsupportedError,
)
from llm_magics.http import Reply
from llm_magics.providers import error_mapping
from llm_magics.providers.error_bodies import parse_error
from llm_magics.providers.parameter_fallback import ParameterRules, UnsupportedParameter
from llm_magics.providers.tiers import tier_in
from llm_magics.wire import openai_reasoning
from llm_magics.wire.openai_responses import ENCRYPTED_REASONING
from llm_magics.wire.web_search import has_search_tool

_BY_CODE: dict[str, type[ProviderError]] = {
    "DeploymentNotFound": ModelNotFoundError,
    "authentication_error": AuthenticationError,
    "content_filter": ContentFilterError,
    "content_policy_violation": ContentFilterError,
    "context_length_exceeded": ContextLengthError,
    "exceed_context_size_error": ContextLengthError,
    "invalid_api_key": AuthenticationError,
    "model_not_found": ModelNotFoundError,
    "moderation_blocked": ContentFilterError,
    "not_found_error": ModelNotFoundError,
    "not_supported_error": UnsupportedError,
    "max_tokens_per_request": ContextLengthError,
    "model_max_prompt_tokens_exceeded": ContextLengthError,
    "rate_limit_error": RateLimitError,
    "rate_limit_exceeded": RateLimitError,
    "request_too_large": ContextLengthError,
    "tokens_limit_reached": ContextLengthError,
    "RESOURCE_EXHAUSTED": RateLimitError,  # Google's
}

# The equivalent status of an error inside a stream, where the response status was already 200.
_STATUS_OF = {
    "INTERNAL": 500,
    "InternalServerError": 500,
    "UNAVAILABLE": 503,
    "api_error": 500,
    "internal_error": 500,
    "internal_server_error": 500,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "server_error": 500,
    "service_unavailable": 503,
    "service_unavailable_error": 503,
    "timeout_error": 504,
}

# The parameter in errors of the first reasoning models, which did not support system messages.
_ROLE = re.compile(r"messages\[\d+\]\.role")


@dataclass(frozen=True, slots=True)
class UnsupportedSystemRole(UnsupportedParameter):
    """A system message, which is sent as a user message instead."""

    name: str = "a system message"

    def is_in(self, body: Mapping[str, Any]) -> bool:
        return any(message.get("role") == "system" for message in body.get("messages") or ())


@dataclass(frozen=True, slots=True)
class UnsupportedEncryptedReasoning(UnsupportedParameter):
    """A request for encrypted reasoning from a model that does not reason."""

    name: str = "encrypted thinking"

    def is_in(self, body: Mapping[str, Any]) -> bool:
        return ENCRYPTED_REASONING in (body.get("include") or ())

    def leave_out(self, body: dict[str, Any]) -> None:
        """Remove encrypted reasoning from the requested fields."""
        body["include"] = [each for each in body["include"] if each != ENCRYPTED_REASONING]
        if not body["include"]:
            del body["include"]


@dataclass(frozen=True, slots=True)
class UnsupportedReasoningInput(UnsupportedParameter):
    """Reasoning that is sent back in a chat to a server that does not accept it."""

    name: str = "its thinking back"

    def is_in(self, body: Mapping[str, Any]) -> bool:
        messages = body.get("messages") or []
        return openai_reasoning.remove_reasoning(messages) != messages

    def leave_out(self, body: dict[str, Any]) -> None:
        """Remove the reasoning from the messages."""
        body["messages"] = openai_reasoning.remove_reasoning(body["messages"])


@dataclass(frozen=True, slots=True)
class ForeignEncryptedReasoning(UnsupportedParameter):
    """Encrypted reasoning in a conversation that the key of another account cannot decrypt."""

    name: str = "encrypted thinking of another account"
    is_lasting: ClassVar[bool] = False

    def is_in(self, body: Mapping[str, Any]) -> bool:
        return any(item.get("type") == "reasoning" for item in body.get("input") or ())

    def leave_out(self, body: dict[str, Any]) -> None:
        """Remove the reasoning items, and the ids of other items, which refer to them."""
        body["input"] = [
            {name: value for name, value in item.items() if name not in ("id", "status", "phase")}
            for item in body["input"]
            if item.get("type") != "reasoning"
        ]


@dataclass(frozen=True, slots=True)
class MissingReasoning(UnsupportedParameter):
    """Reasoning that the service requires with tool calls, missing for calls by another model."""

    name: str = "calls without thinking"

    def is_in(self, body: Mapping[str, Any]) -> bool:
        messages = body.get("messages") or []
        return openai_reasoning.add_empty_reasoning(messages) != messages

    def leave_out(self, body: dict[str, Any]) -> None:
        """Add empty reasoning to these calls."""
        body["messages"] = openai_reasoning.add_empty_reasoning(body["messages"])


@dataclass(frozen=True, slots=True)
class MissingSignatures(UnsupportedParameter):
    """Signatures that the service requires with tool calls, missing for calls by another model."""

    name: str = "calls without a signature"

    def is_in(self, body: Mapping[str, Any]) -> bool:
        messages = body.get("messages") or []
        return openai_reasoning.mark_missing_signatures(messages) != messages

    def leave_out(self, body: dict[str, Any]) -> None:
        """Mark these calls as from another model, with the value that Google defines for this."""
        body["messages"] = openai_reasoning.mark_missing_signatures(body["messages"])


ConversationChange = (
    UnsupportedEncryptedReasoning
    | UnsupportedReasoningInput
    | ForeignEncryptedReasoning
    | MissingReasoning
    | MissingSignatures
)

_IS_MISSING = re.compile(
    r"missing|must be (?:passed|provided|included)|is required", re.IGNORECASE
)
_FIELD = re.compile(
    r"\b(?:reasoning_content|reasoning_details|extra_content)\b|message.{0,80}\breasoning\b",
    re.DOTALL,
)


def find_conversation_change(
    error: ProviderError, body: Mapping[str, Any]
) -> ConversationChange | None:
    """Return how reasoning in ``body`` must change after ``error``; ``None`` if not at all."""
    words = parse_error(error.body).message
    found: ConversationChange | None = None
    if "encrypted content" in words.lower():
        is_foreign = error.code == "invalid_encrypted_content" or "verified" in words
        found = ForeignEncryptedReasoning() if is_foreign else UnsupportedEncryptedReasoning()
    elif re.search(r"\binclude\b", words):
        found = UnsupportedEncryptedReasoning()
    elif "thought_signature" in words and _IS_MISSING.search(words):
        found = MissingSignatures()
    elif "reasoning_content" in words and _IS_MISSING.search(words):
        found = MissingReasoning()
    elif _FIELD.search(words):
        found = UnsupportedReasoningInput()
    return found if found is not None and found.is_in(body) else None


_QUOTA_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached"})


# What the services' own codes can mean, in the data file.
MEANINGS: Mapping[str, type[ProviderError]] = {
    "content_filter": ContentFilterError,
    "invalid_key": AuthenticationError,
    "missing_model": ModelNotFoundError,
    "no_credit": RateLimitError,
    "rate_limit": RateLimitError,
}
_NO_CODES: Mapping[str, str] = MappingProxyType({})


def map_reply(reply: Reply, provider: str, model: str) -> ProviderError:
    """Return the exception for a reply with an error status."""
    return map_openai_error(reply.json(), reply.status, provider, model, reply.headers)


def map_openai_error(  # noqa: PLR0913 (the properties of one error)
    body: Any,
    status: int | None,
    provider: str,
    model: str,
    headers: Mapping[str, str] | None = None,
    *,
    codes: Mapping[str, str] = _NO_CODES,
) -> ProviderError:
    """
    Return the exception for an error's body, by its type and code, otherwise by its status.

    Args:
        codes: the meaning of the service's own codes, by code: a key of `MEANINGS`.
    """
    own = {code: MEANINGS[meaning] for code, meaning in codes.items()}
    spent = {code for code, meaning in codes.items() if meaning == "no_credit"}
    return error_mapping.map_error(
        body,
        status,
        headers or {},
        provider=provider,
        model=model,
        by_code={**_BY_CODE, **own},
        statuses=_STATUS_OF,
        spent=_QUOTA_CODES | spent,
    )


# Parameters, each with its replacement.
_REPLACEMENTS = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}


# Never omitted: `ThinkingFallback` explains why the model refuses them.
_THINKING_PARAMETERS = frozenset({"enable_thinking", "reasoning", "reasoning_effort", "thinking"})


class OpenAIRules(ParameterRules):
    """Find unsupported parameters by OpenAI's error codes and other services' messages."""

    silent = frozenset({*_REPLACEMENTS, "stream_options", UnsupportedSystemRole().name})

    def find(self, error: ProviderError, body: Mapping[str, Any]) -> UnsupportedParameter | None:
        if error.status not in (400, 422):
            return None
        adapted = find_conversation_change(error, body)
        if adapted is not None:
            return adapted
        error_body = error.body.get("error") if isinstance(error.body, dict) else None
        param = error_body.get("param") if isinstance(error_body, dict) else None
        if (
            isinstance(param, str)
            and _ROLE.fullmatch(param)
            and UnsupportedSystemRole().is_in(body)
        ):
            return UnsupportedSystemRole()
        if isinstance(param, str) and param in body and param not in _THINKING_PARAMETERS:
            if error.code in ("unsupported_parameter", "unknown_parameter"):
                return UnsupportedParameter(param)
            if error.code == "unsupported_value":
                return UnsupportedParameter(param, body[param])
        says_so = "stream_options" in str(error) and "stream_options" in body
        return UnsupportedParameter("stream_options") if says_so else None

    def is_required(self, parameter: UnsupportedParameter, body: Mapping[str, Any]) -> bool:
        is_search = parameter.name == "tools" and has_search_tool(body)
        # Without its tier, the request would cost more than the user expects.
        is_tier = parameter.name == "service_tier" and bool(tier_in(body))
        return is_search or is_tier or super().is_required(parameter, body)

    def remove(
        self,
        body: dict[str, Any],
        parameter: UnsupportedParameter,
        known: Sequence[UnsupportedParameter],
    ) -> None:
        if isinstance(parameter, UnsupportedSystemRole):
            body["messages"] = [_as_user(message) for message in body["messages"]]
            return
        if isinstance(parameter, ConversationChange):
            parameter.leave_out(body)
            return
        value = body.pop(parameter.name, None)
        other = _REPLACEMENTS.get(parameter.name)
        if other is not None and UnsupportedParameter(other) not in known:
            body[other] = value

    def is_silent(
        self, parameter: UnsupportedParameter, known: Sequence[UnsupportedParameter]
    ) -> bool:
        if isinstance(parameter, ConversationChange):
            return True
        other = _REPLACEMENTS.get(parameter.name)
        has_substitute = other is None or UnsupportedParameter(other) not in known
        return parameter.name in self.silent and has_substitute


def _as_user(message: dict[str, Any]) -> dict[str, Any]:
    """Return a system message as a user message, which every model supports."""
    return {**message, "role": "user"} if message["role"] == "system" else message
