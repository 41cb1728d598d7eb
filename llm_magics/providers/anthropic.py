"""
The provider of Anthropic's Claude models, through the Messages API.

It reads the environment variables ``ANTHROPIC_API_KEY`` and ``ANTHROPIC_BASE_URL``.
Source: https://docs.anthropic.com/en/api.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn
from urllib.parse import quote

from pydantic import Field, field_validator

from llm_magics.errors import (
    AuthenticationError,
    ContextLengthError,
    ModelNotFoundError,
    ProviderError,
    RateLimitError,
)
from llm_magics.http import KeyHeader
from llm_magics.parameters import ModelParameters
from llm_magics.providers import error_mapping, model_catalog
from llm_magics.providers.base import ModelInfo
from llm_magics.providers.error_bodies import parse_error
from llm_magics.providers.media import ANTHROPIC_FILES, AcceptedMedia, accepted_by
from llm_magics.providers.model_lists import check_page_count
from llm_magics.providers.parameter_fallback import (
    ChatRequest,
    ParameterFallback,
    ParameterRules,
    UnsupportedParameter,
)
from llm_magics.providers.profiles import ServiceProfile, find_profile
from llm_magics.providers.remote import RemoteProvider
from llm_magics.providers.remote_config import RemoteConfig
from llm_magics.secrets import Secret, environment_value
from llm_magics.types import (
    ChatMessage,
    ModelResponse,
    StreamChunk,
    Usage,
    model_name,
    remove_foreign_reasoning,
)
from llm_magics.usage import add_usage
from llm_magics.wire import anthropic_messages as wire
from llm_magics.wire.anthropic_answers import ChunkDecoder
from llm_magics.wire.schema_dialects import ANTHROPIC
from llm_magics.wire.tool_calls import collect_call_ids

if TYPE_CHECKING:
    from llm_magics.providers.batches.service import BatchService

_ANTHROPIC_URL = "https://api.anthropic.com"

# The maximum number of times that a paused answer is continued.
_MAX_PAUSES = 10

# The maximum number of models in one page of the list.
_PAGE = 1000

_BY_TYPE: dict[str, type[ProviderError]] = {
    "authentication_error": AuthenticationError,
    "billing_error": RateLimitError,
    "exceed_context_size_error": ContextLengthError,  # llama.cpp's
    "not_found_error": ModelNotFoundError,
    "permission_error": AuthenticationError,
    "rate_limit_error": RateLimitError,
    "request_too_large": ContextLengthError,
}

# Messages about a parameter that a model does not support, as opposed to an invalid value.
_NOT_TAKEN = re.compile(r"Extra inputs are not permitted|deprecated|not supported (?:for|by|with)")

# The error for a signature of another account, or one that does not match its thinking block.
_NOT_VERIFIED = re.compile(r"Invalid .?signature.? in .?thinking.? block", re.IGNORECASE)

# The error for tool calls in a turn without thinking, when the request enables thinking.
_MISSING_THINKING = re.compile(
    r"Expected .?thinking.? or .?redacted_thinking.?,? but found|must start with a thinking block",
    re.IGNORECASE,
)

# The equivalent status of an error inside a stream, where the response status was already 200.
_STATUS_OF = {"api_error": 500, "timeout_error": 504}


@dataclass(frozen=True, slots=True)
class ForeignThinking(UnsupportedParameter):
    """Thinking blocks in a conversation that the service refuses because it cannot verify them."""

    name: str = "thinking of another account"
    is_lasting: ClassVar[bool] = False

    def is_in(self, body: Mapping[str, Any]) -> bool:
        return wire.has_thinking(body)


@dataclass(frozen=True, slots=True)
class MisplacedThinking(UnsupportedParameter):
    """Enabled thinking in a turn that began without it: another model made its tool calls."""

    name: str = "thinking in the middle of a turn"
    is_lasting: ClassVar[bool] = False

    def is_in(self, body: Mapping[str, Any]) -> bool:
        return "thinking" in body


class AnthropicRules(ParameterRules):
    """Find unsupported parameters of the Messages API, which names them only in its messages."""

    silent = frozenset({"thinking", ForeignThinking().name, MisplacedThinking().name})

    def find(self, error: ProviderError, body: Mapping[str, Any]) -> UnsupportedParameter | None:
        # An invalid value of a supported parameter is left for the user to correct.
        if error.status != 400:
            return None
        words = parse_error(error.body).message
        if _NOT_VERIFIED.search(words) and ForeignThinking().is_in(body):
            return ForeignThinking()
        if _MISSING_THINKING.search(words) and MisplacedThinking().is_in(body):
            return MisplacedThinking()
        if "thinking" in words and "adaptive" in words and "budget_tokens" in str(body):
            return UnsupportedParameter("thinking", body["thinking"])
        if _NOT_TAKEN.search(words):
            for name in ("temperature", "top_p", "output_config"):
                if name in body and re.match(rf"`?{name}`?[:\s]", words):
                    return UnsupportedParameter(name)
        return None

    def remove(
        self,
        body: dict[str, Any],
        parameter: UnsupportedParameter,
        known: Sequence[UnsupportedParameter],
    ) -> None:
        if isinstance(parameter, ForeignThinking):
            wire.remove_thinking(body)
        elif isinstance(parameter, MisplacedThinking):
            del body["thinking"]
        elif parameter.name != "thinking":
            super().remove(body, parameter, known)
        elif "budget_tokens" in body.get("thinking", {}):
            wire.use_adaptive_thinking(body)


class AnthropicConfig(RemoteConfig):
    """
    Attributes:
        base_url: the service's address, without ``/v1``; default: ``ANTHROPIC_BASE_URL``.
        api_key: the key; default: ``ANTHROPIC_API_KEY``.
        api_version: the version of the API. The newer one, 2026-10-21, does not accept
            temperature and top_p; these are then left out, with a warning.
        cache_prompts: let the service cache tools, system message and conversation. This makes
            the next turn cheaper and the current one slightly more expensive.
    """

    base_url: str = Field(
        default_factory=lambda: environment_value("ANTHROPIC_BASE_URL") or _ANTHROPIC_URL
    )
    api_key: Secret | None = Field(
        default_factory=lambda: Secret.of(environment_value("ANTHROPIC_API_KEY"))
    )
    api_version: str = "2023-06-01"
    cache_prompts: bool = False

    @field_validator("base_url", mode="after")
    @classmethod
    def _address(cls, value: str) -> str:
        return value.rstrip("/").removesuffix("/v1")


class AnthropicProvider(RemoteProvider):
    """The provider of Anthropic, or of a server with an Anthropic-compatible API."""

    name = "anthropic"
    writes_thinking = False  # the API returns thinking in separate blocks
    config_type = AnthropicConfig
    capabilities: tuple[str, ...] = (
        "chat",
        "vision",
        "tools",
        "schema",
        "reasoning",
        "documents",
        "search",
    )
    key_variable = "ANTHROPIC_API_KEY"
    environment = ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL")
    usual_address = own_address = _ANTHROPIC_URL
    config: AnthropicConfig

    def __init__(self, config: AnthropicConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self._fallback = ParameterFallback(AnthropicRules())
        if self._profile is not None and self._profile.capabilities:
            self.capabilities = self._profile.capabilities

    def _headers(self) -> Mapping[str, str]:
        return {"anthropic-version": self.config.api_version}

    @property
    def _profile(self) -> ServiceProfile | None:
        """The profile of another service with this API; ``None`` if it is none in the data file."""
        if self.config.base_url == _ANTHROPIC_URL:
            return None
        profile = find_profile(self.config.base_url, "anthropic")
        return profile if profile.is_in_the_cloud else None

    def _key_header(self) -> KeyHeader:
        return self._profile.key_header if self._profile else KeyHeader("x-api-key", "")

    @property
    def _needs_key(self) -> bool:
        return super()._needs_key or (self._profile is not None and not self._has_credential)

    @property
    def is_set_up(self) -> bool:
        return super().is_set_up and not self._needs_key

    async def _health(self) -> dict[str, Any]:
        if self._profile is None or self._profile.models_path:
            return await super()._health()
        return await self._unlisted_health()

    async def list_models(self) -> list[str]:
        listing = await self._listing()
        with self._reading():
            return [model_name(model["id"]) for model in listing]

    async def describe_models(self) -> list[ModelInfo]:
        listing = await self._listing()
        with self._reading():
            return [
                model_catalog.complete_info("anthropic", _parse_model(model)) for model in listing
            ]

    @property
    def price_list(self) -> str:
        if self.config.base_url == _ANTHROPIC_URL:
            return "anthropic"
        return self._profile.price_list if self._profile else ""

    def known(self, model: str) -> ModelInfo:
        info = super().known(model)
        is_own = self.config.base_url == _ANTHROPIC_URL
        return model_catalog.complete_info("anthropic", info) if is_own else info

    async def accepted_media(self, model: str) -> AcceptedMedia:
        service = self._profile.capabilities if self._profile else ()
        if self.config.base_url != _ANTHROPIC_URL and "documents" not in service:
            return await super().accepted_media(model)
        known = self.known(model)
        return accepted_by(ANTHROPIC_FILES, known.capabilities, context=known.context)

    async def _listing(self) -> list[dict[str, Any]]:
        """Return the models on all pages of the list; none if the service has no list."""
        if self._profile is not None and not self._profile.models_path:
            self._need_key()
            return []
        models: list[dict[str, Any]] = []
        seen: set[str] = set()
        path = f"/v1/models?limit={_PAGE}"
        while True:
            page = await self._object("GET", path)
            if not isinstance(page.get("data"), list):
                raise self._foreign(page)
            models += page["data"]
            last = str(page.get("last_id") or "")
            if not page.get("has_more") or not page["data"] or last in seen:
                return models
            seen.add(last)
            check_page_count(len(seen), self.name)
            path = f"/v1/models?limit={_PAGE}&after_id={quote(last)}"

    async def count_tokens(
        self,
        messages: Sequence[ChatMessage],
        model: str,
        parameters: ModelParameters | None = None,
    ) -> int:
        """Return the token count of ``messages`` for ``model``, with tools and system message."""
        model = self.bare(model)
        messages = remove_foreign_reasoning(messages, f"messages {self.address}")
        body = wire.build_count_request(messages, model, parameters or ModelParameters())
        counted = await self._object("POST", "/v1/messages/count_tokens", body, model)
        with self._reading():
            return int(counted["input_tokens"])

    def output_limit(self, model: str, parameters: ModelParameters) -> int | None:
        return None if parameters.max_tokens is None else wire.output_limit(parameters)

    def stream_chat(
        self, messages: Sequence[ChatMessage], model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        origin = f"messages {self.address}"  # its models accept each other's thinking
        messages = remove_foreign_reasoning(messages, origin)

        def build(conversation: Sequence[ChatMessage], options: ModelParameters) -> dict[str, Any]:
            return wire.build_messages_request(
                conversation, model, options, cache=self.config.cache_prompts
            )

        def create_decoder() -> ChunkDecoder:
            return ChunkDecoder(collect_call_ids(messages), origin)

        request = ChatRequest(
            send=self._chunks,
            provider=self.name,
            path="/v1/messages",
            model=model,
            messages=messages,
            parameters=parameters,
            dialect=ANTHROPIC,
            build=build,
            create_decoder=create_decoder,
        )
        if not parameters.search:
            return self._fallback.stream_chat(request)
        return self._resume_paused(request, origin)

    async def _resume_paused(
        self, request: ChatRequest, origin: str
    ) -> AsyncGenerator[StreamChunk, None]:
        """
        Yield the answer; one that the service pauses during its searches is continued.

        The paused answer is sent back, and the service continues it. Each request is billed.
        """
        messages, said = request.messages, Usage()
        received: list[StreamChunk] = []
        at, began_s = (0, 0), 0.0
        for pauses_left in reversed(range(_MAX_PAUSES + 1)):
            is_paused, used = False, None

            def create_decoder(at: tuple[int, int] = at) -> ChunkDecoder:
                return ChunkDecoder(collect_call_ids(request.messages), origin, at=at)

            step = replace(request, messages=messages, create_decoder=create_decoder)
            async with aclosing(self._fallback.stream_chat(step)) as chunks:
                async for chunk in chunks:
                    chunk = chunk._replace(elapsed_s=began_s + (chunk.elapsed_s or 0.0))
                    if chunk.finish_reason == wire.PAUSED and pauses_left:
                        is_paused, chunk = True, chunk._replace(finish_reason=None)
                    if chunk.usage:
                        used = chunk.usage
                        chunk = chunk._replace(usage=add_usage(said, used))
                    received.append(chunk)
                    yield chunk
            if not is_paused:
                return
            said, began_s = add_usage(said, used or Usage()), received[-1].elapsed_s or 0.0
            answer = ModelResponse.of(received)
            at = (len(answer.text), len(answer.tool_calls))
            paused = ChatMessage(
                "assistant",
                answer.text,
                tool_calls=answer.tool_calls,
                reasoning_blocks=answer.reasoning_blocks,
            )
            messages = [*request.messages, paused]

    def stream_completion(self, prompt: str, model: str, parameters: ModelParameters) -> NoReturn:
        self._cannot("continue raw text", "local, ollama, openai, lmstudio")

    async def generate_embeddings(self, texts: Sequence[str], model: str) -> NoReturn:
        self._cannot("embed", "local, ollama, openai, lmstudio, huggingface")

    def batch_service(self) -> BatchService:
        if self._profile is not None:  # another service with this API
            return super().batch_service()
        from llm_magics.providers.batches.anthropic import Batches

        return Batches(self)

    def _refused(
        self, said: Any, status: int | None, headers: Mapping[str, str], model: str
    ) -> ProviderError:
        return error_mapping.map_error(
            said,
            status,
            headers,
            provider=self.name,
            model=model,
            by_code=_BY_TYPE,
            statuses=_STATUS_OF,
            spent=frozenset({"billing_error"}),
        )


def _parse_model(model: dict[str, Any]) -> ModelInfo:
    context, longest = model.get("max_input_tokens"), model.get("max_tokens")
    return ModelInfo(model["id"], context=context, max_output_tokens=longest)
