"""
The common base of all providers with an OpenAI-compatible API.

Source: https://platform.openai.com/docs/api-reference.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

from pydantic import Field, field_validator

from llm_magics._util.text import batches_in_order
from llm_magics.errors import ProviderError
from llm_magics.host import warn
from llm_magics.http import KeyHeader, Reply
from llm_magics.parameters import ModelParameters
from llm_magics.providers.base import ModelInfo
from llm_magics.providers.model_lists import parse_models
from llm_magics.providers.openai_errors import OpenAIRules, map_openai_error
from llm_magics.providers.parameter_fallback import ChatRequest, ParameterFallback
from llm_magics.providers.profiles import ServiceProfile
from llm_magics.providers.remote import RemoteProvider
from llm_magics.providers.remote_config import RemoteConfig
from llm_magics.types import (
    ChatMessage,
    Embeddings,
    PackedVectors,
    StreamChunk,
    Usage,
    remove_foreign_reasoning,
)
from llm_magics.wire import openai_chat
from llm_magics.wire.openai_media import (
    build_embedding_request,
    extract_vectors,
    parse_embedding_usage,
    parse_embeddings,
    parse_packed_rows,
)
from llm_magics.wire.thinking import UNKNOWN_RULES, ThinkingRules
from llm_magics.wire.tool_calls import collect_call_ids


class OpenAICompatibleConfig(RemoteConfig):
    """
    Attributes:
        base_url: the service's address, up to ``/v1``.
    """

    address_form: ClassVar[str] = ", up to /v1"
    base_url: str = Field("")

    @field_validator("base_url", mode="after")
    @classmethod
    def _address(cls, value: str) -> str:
        return value.rstrip("/")


class OpenAICompatibleProvider(RemoteProvider):
    """A provider of a service with an OpenAI-compatible API."""

    config: OpenAICompatibleConfig
    config_type: ClassVar[type[OpenAICompatibleConfig]] = OpenAICompatibleConfig

    def __init__(self, config: OpenAICompatibleConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self._fallback = ParameterFallback(OpenAIRules())
        self._warned: set[str] = set()
        self.tiers = self.profile.tiers

    @cached_property
    def profile(self) -> ServiceProfile:
        """How the service differs from others."""
        return ServiceProfile()

    def _key_header(self) -> KeyHeader:
        return self.profile.key_header

    def _path(self, path: str, model: str) -> str:
        """Return the full path, which depends on the model in Azure's older API."""
        return path

    def _refused(
        self, said: Any, status: int | None, headers: Mapping[str, str], model: str
    ) -> ProviderError:
        codes = self.profile.errors
        return map_openai_error(said, status, self.name, model, headers, codes=codes)

    async def list_models(self) -> list[str]:
        return [info.name for info in await self._listed()]

    async def describe_models(self) -> list[ModelInfo]:
        return await self._listed()

    async def _listed(self) -> list[ModelInfo]:
        """Return the models that the service lists; none if it has no list."""
        path = self.profile.models_path
        if not path:
            self._need_key()
            return []
        said = (await self._send("GET", self._path(f"/{path.lstrip('/')}", ""))).json()
        with self._reading():
            models = self._parse_models(said)
        if models is None:
            raise self._foreign(said)
        return models

    def _parse_models(self, said: Any) -> list[ModelInfo] | None:
        """Return the models in a list; ``None`` if it has another form."""
        return parse_models(said, self.profile.models_format)

    async def _health(self) -> dict[str, Any]:
        if self.profile.models_path:
            return await super()._health()
        return await self._unlisted_health()

    async def generate_embeddings(self, texts: Sequence[str], model: str) -> list[list[float]]:
        vectors, tokens = Embeddings(), 0
        for batch in self._batches(texts):
            reply = await self._embedded(batch, model)
            listed = await self._object_in(reply.json(), reply, model)
            with self._reading(retryable=True):
                batch_vectors = parse_embeddings(listed)
            self._check_count(len(batch_vectors), len(batch), model)
            vectors += batch_vectors
            tokens += (batch_vectors.usage.input_tokens if batch_vectors.usage else None) or 0
        vectors.usage = Usage(tokens or None)
        return vectors

    async def generate_packed(self, texts: Sequence[str], model: str) -> PackedVectors:
        return await self._packed(texts, model)

    async def generate_shortened(
        self, texts: Sequence[str], model: str, dimensions: int
    ) -> PackedVectors:
        return await self._packed(texts, model, dimensions)

    def _batches(self, texts: Sequence[str]) -> Iterator[list[str]]:
        size = self.profile.embedding_batch_size
        return batches_in_order(texts, size) if size else batches_in_order(texts)

    async def _packed(
        self, texts: Sequence[str], model: str, shortened: int | None = None
    ) -> PackedVectors:
        rows: list[bytes | None] = []
        tokens = 0
        for batch in self._batches(texts):
            reply = await self._embedded(batch, model, shortened)
            rest, apart = extract_vectors(reply.body)
            listed = await self._object_in(replace(reply, body=rest).json(), reply, model)
            with self._reading(retryable=True):
                batch_vectors = parse_packed_rows(listed, apart)
                tokens += parse_embedding_usage(listed).input_tokens or 0
            self._check_count(len(batch_vectors), len(batch), model)
            rows += batch_vectors
        return PackedVectors.of_rows(rows, Usage(tokens or None))

    async def _embedded(
        self, batch: Sequence[str], model: str, dimensions: int | None = None
    ) -> Reply:
        model = self.bare(model)
        if dimensions is not None and "dimensions" in self.profile.refuses:
            self._cannot("shorten vectors", "openai, ollama")
        body = build_embedding_request(batch, model, self.profile.encoding_format, dimensions)
        return await self._send("POST", self._path("/embeddings", model), body, model)

    def _check_count(self, count: int, expected: int, model: str) -> None:
        if count != expected:
            msg = f"{self.name}/{self.bare(model)} returned {count} vectors for {expected} texts."
            raise ProviderError(msg, provider=self.name, model=model, retryable=True)

    async def thinking_rules(self, model: str) -> ThinkingRules:
        rules = self.profile.thinking.of_model(model)
        return await super().thinking_rules(model) if rules is UNKNOWN_RULES else rules

    def stream_chat(
        self, messages: Sequence[ChatMessage], model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        origin = f"chat {self.address} {model}"
        messages, profile = remove_foreign_reasoning(messages, origin), self.profile

        if parameters.tools and "tools" in profile.refuses:
            self._cannot("call tools")

        def build(conversation: Sequence[ChatMessage], options: ModelParameters) -> dict[str, Any]:
            body = openai_chat.build_chat_request(
                conversation, model, options, profile.dialect, profile.thinking
            )
            self._warn_about(profile.refused_in(body))
            return profile.adapt(body)

        def create_decoder() -> openai_chat.ChunkDecoder:
            names = [tool.name for tool in parameters.tools]
            return openai_chat.ChunkDecoder(names, collect_call_ids(messages), origin)

        return self._fallback.stream_chat(
            ChatRequest(
                send=self._chunks,
                provider=self.name,
                path=self._path("/chat/completions", model),
                model=model,
                messages=messages,
                parameters=parameters,
                dialect=profile.dialect,
                build=build,
                create_decoder=create_decoder,
            )
        )

    def _warn_about(self, refused: frozenset[str]) -> None:
        """Warn once about each parameter that the service does not support."""
        for name in sorted(refused - self._warned):
            self._warned.add(name)
            warn(f"{self.name} does not support {name}; it is omitted.")

    def stream_completion(
        self, prompt: str, model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        body = openai_chat.build_completion_request(prompt, model, parameters)
        self._warn_about(self.profile.refused_in(body))
        body = {key: value for key, value in body.items() if key not in self.profile.refuses}
        path, headers = self._path("/completions", model), parameters.extra_headers
        return self._fallback.stream(
            self._chunks, path, body, model, openai_chat.ChunkDecoder, headers, self.name
        )
