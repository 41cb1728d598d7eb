"""
The provider of Google's Gemini models, through the Gemini API.

It reads the environment variables ``GEMINI_API_KEY``, ``GOOGLE_API_KEY`` and
``GOOGLE_GEMINI_BASE_URL``. Source: https://ai.google.dev/api (November 2026).
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NoReturn
from urllib.parse import quote

from pydantic import Field, field_validator

from llm_magics._util.text import batches_in_order
from llm_magics.errors import ProviderError
from llm_magics.http import KeyHeader
from llm_magics.parameters import ModelParameters
from llm_magics.providers import model_catalog
from llm_magics.providers.base import CAPABILITIES, ModelInfo
from llm_magics.providers.error_bodies import parse_error
from llm_magics.providers.gemini_errors import map_gemini_error
from llm_magics.providers.media import GEMINI_FILES, AcceptedMedia, accepted_by
from llm_magics.providers.model_lists import check_page_count
from llm_magics.providers.openai_compatible import OpenAICompatibleConfig, OpenAICompatibleProvider
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
    Embeddings,
    PackedVectors,
    StreamChunk,
    Usage,
    model_name,
    remove_foreign_reasoning,
)
from llm_magics.wire import gemini as wire
from llm_magics.wire.gemini_answers import ChunkDecoder, parse_embeddings
from llm_magics.wire.gemini_thinking import output_limit, thinking_facts
from llm_magics.wire.schema_dialects import GEMINI
from llm_magics.wire.thinking import ThinkingRules
from llm_magics.wire.tool_calls import collect_call_ids

if TYPE_CHECKING:
    from llm_magics.providers.batches.service import BatchService

_GEMINI_URL = "https://generativelanguage.googleapis.com/v1beta"

_KEY_VARIABLES = ("GEMINI_API_KEY", "GOOGLE_API_KEY")

# The maximum number of models in one page of the list, and of texts in one embedding request.
_PAGE, _MAX_TEXTS = 1000, 100

# What a model can do, by the methods that the list names.
_METHODS = {
    "generateContent": "chat",
    "embedContent": "embeddings",
    "batchEmbedContents": "embeddings",
}

# The error for signatures of another account or service, or of calls that were changed.
_NOT_VERIFIED = re.compile(
    r"(?:invalid|corrupted) thought.?signature|thought.?signature is (?:not valid|invalid)",
    re.IGNORECASE,
)
_NO_SYSTEM_MESSAGE = "Developer instruction is not enabled"


@dataclass(frozen=True, slots=True)
class ForeignSignatures(UnsupportedParameter):
    """Thought signatures in a conversation that the service cannot verify."""

    name: str = "thought signatures of another account"
    is_lasting: ClassVar[bool] = False

    def is_in(self, body: Mapping[str, Any]) -> bool:
        return wire.has_signatures(body)


class GeminiRules(ParameterRules):
    """Find unsupported parameters of the Gemini API, which names them only in its messages."""

    silent = frozenset({"systemInstruction", ForeignSignatures().name})

    def find(self, error: ProviderError, body: Mapping[str, Any]) -> UnsupportedParameter | None:
        if error.status != 400:
            return None
        words = parse_error(error.body).message
        if _NOT_VERIFIED.search(words) and ForeignSignatures().is_in(body):
            return ForeignSignatures()
        if _NO_SYSTEM_MESSAGE in words and "systemInstruction" in body:
            return UnsupportedParameter("systemInstruction")
        return None

    def remove(
        self,
        body: dict[str, Any],
        parameter: UnsupportedParameter,
        known: Sequence[UnsupportedParameter],
    ) -> None:
        if isinstance(parameter, ForeignSignatures):
            wire.remove_signatures(body)
        else:
            wire.move_system_message(body)


class GeminiConfig(RemoteConfig):
    """
    Attributes:
        base_url: the service's address; ``/v1beta`` is added if it has no version.
            Default: ``GOOGLE_GEMINI_BASE_URL``.
        api_key: the key; default: ``GEMINI_API_KEY``, otherwise ``GOOGLE_API_KEY``.
        api: ``native``, or ``openai`` for Google's OpenAI-compatible API.
    """

    base_url: str = Field(
        default_factory=lambda: environment_value("GOOGLE_GEMINI_BASE_URL") or _GEMINI_URL
    )
    api_key: Secret | None = Field(default_factory=lambda: Secret.of(_find_key()[0]))
    api: Literal["native", "openai"] = "native"

    @field_validator("base_url", mode="after")
    @classmethod
    def _address(cls, value: str) -> str:
        address, separator, query = value.partition("?")
        address = address.rstrip("/").removesuffix("/openai")
        has_version = re.search(r"/v\d+(?:(?:alpha|beta)\d*)?(?:/|$)", address)
        return f"{address if has_version else f'{address}/v1beta'}{separator}{query}"


def _find_key() -> tuple[str, str]:
    """Return the user's key and the variable that has it; empty texts without one."""
    found = ((environment_value(name), name) for name in _KEY_VARIABLES)
    return next((each for each in found if each[0]), ("", ""))


class CompatibleGeminiProvider(OpenAICompatibleProvider):
    """Google's OpenAI-compatible API, which `GeminiProvider` uses if its settings ask for it."""

    name = "gemini"
    writes_thinking = False
    config_type = OpenAICompatibleConfig

    @cached_property
    def profile(self) -> ServiceProfile:
        return find_profile(_GEMINI_URL)

    async def list_models(self) -> list[str]:
        return [info.name for info in await self.describe_models()]

    async def describe_models(self) -> list[ModelInfo]:
        infos = await super().describe_models()
        return [replace(info, name=info.name.removeprefix("models/")) for info in infos]

    def _refused(
        self, said: Any, status: int | None, headers: Mapping[str, str], model: str
    ) -> ProviderError:
        return map_gemini_error(said, status, headers, provider=self.name, model=model)


class GeminiProvider(RemoteProvider):
    """
    The provider of the Gemini API.

    A subclass for another service with this format changes the addresses with `_path`.
    """

    name = "gemini"
    writes_thinking = False  # the API returns thinking in separate parts
    config_type = GeminiConfig
    capabilities: tuple[str, ...] = (
        "chat",
        "embeddings",
        "vision",
        "tools",
        "schema",
        "reasoning",
        "logprobs",
        "documents",
        "audio",
        "search",
    )
    key_variable = "GEMINI_API_KEY"
    environment = (*_KEY_VARIABLES, "GOOGLE_GEMINI_BASE_URL")
    usual_address = own_address = _GEMINI_URL
    embedding_batch_size = _MAX_TEXTS
    config: GeminiConfig

    def __init__(self, config: GeminiConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self.key_variable = self.own_key_source() or self.key_variable
        self._fallback = ParameterFallback(GeminiRules())
        self.tiers = () if self.config.api == "openai" else ("flex",)
        if self.config.api == "openai":
            self.capabilities = tuple(each for each in self.capabilities if each != "search")

    @cached_property
    def _compatible(self) -> CompatibleGeminiProvider | None:
        """The provider of the OpenAI-compatible API; ``None`` if the native one is used."""
        if self.config.api != "openai":
            return None
        address, separator, query = self.config.base_url.partition("?")
        settings = {name: value for name, value in self.config.to_dict().items() if name != "api"}
        settings["base_url"] = f"{address}/openai{separator}{query}"
        return CompatibleGeminiProvider(OpenAICompatibleConfig(**settings))

    @classmethod
    def own_key_source(cls) -> str:
        return _find_key()[1]

    def _key_header(self) -> KeyHeader:
        return KeyHeader("x-goog-api-key", "")

    def _path(self, model: str, method: str) -> str:
        """Return the path of a method of ``model``."""
        return f"/{quote(wire.resource_name(model))}:{method}"

    async def list_models(self) -> list[str]:
        return [info.name for info in await self._listed()]

    async def describe_models(self) -> list[ModelInfo]:
        infos = await self._listed()
        return [*map(self._complete, infos)] if self.price_list else infos

    def _complete(self, info: ModelInfo) -> ModelInfo:
        """Return ``info`` with the facts that the list does not contain."""
        known = model_catalog.complete_info("gemini", replace(info, capabilities=()))
        can = {*info.capabilities, *known.capabilities}
        return replace(known, capabilities=tuple(each for each in CAPABILITIES if each in can))

    async def _listed(self) -> list[ModelInfo]:
        if self._compatible is not None:
            self._need_key()
            return await self._compatible.describe_models()
        listing = await self._listing()
        with self._reading():
            return sorted(_parse_models(listing), key=lambda info: info.name)

    async def _listing(self) -> list[dict[str, Any]]:
        """Return the models on all pages of the list."""
        models: list[dict[str, Any]] = []
        seen: set[str] = set()
        path = f"/models?pageSize={_PAGE}"
        while True:
            page = await self._object("GET", path)
            listed = page.get("models", [] if seen else None)
            if not isinstance(listed, list):
                raise self._foreign(page)
            models += listed
            following = str(page.get("nextPageToken") or "")
            if not following or following in seen:
                return models
            seen.add(following)
            check_page_count(len(seen), self.name)
            path = f"/models?pageSize={_PAGE}&pageToken={quote(following, safe='')}"

    @property
    def price_list(self) -> str:
        return "google" if self.config.base_url == _GEMINI_URL else ""

    def known(self, model: str) -> ModelInfo:
        info = super().known(model)
        return model_catalog.complete_info("gemini", info) if self.price_list else info

    async def accepted_media(self, model: str) -> AcceptedMedia:
        if self._compatible is not None:
            return await super().accepted_media(model)
        return accepted_by(GEMINI_FILES, self.known(model).capabilities)

    async def count_tokens(
        self,
        messages: Sequence[ChatMessage],
        model: str,
        parameters: ModelParameters | None = None,
    ) -> int:
        """Return the token count of ``messages`` for ``model``, with tools and system message."""
        model = self.bare(model)
        messages = remove_foreign_reasoning(messages, self._origin)
        body = wire.build_count_request(
            messages,
            model,
            parameters or ModelParameters(),
            is_nested="/publishers/" not in self.address,  # Vertex AI's addresses
        )
        counted = await self._object("POST", self._path(model, "countTokens"), body, model)
        with self._reading():
            return int(counted["totalTokens"])

    async def thinking_rules(self, model: str) -> ThinkingRules:
        facts = thinking_facts(model)
        if facts is None:
            return await super().thinking_rules(model)
        return ThinkingRules(thinks=facts.thinks, is_optional=facts.can_be_off)

    @property
    def _origin(self) -> str:
        return f"gemini {self.address}"  # its models accept each other's signatures

    def output_limit(self, model: str, parameters: ModelParameters) -> int | None:
        return output_limit(model, parameters)

    def stream_chat(
        self, messages: Sequence[ChatMessage], model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        if self._compatible is not None:
            self._need_key()
            return self._compatible.stream_chat(messages, model, parameters)
        origin = self._origin
        messages = remove_foreign_reasoning(messages, origin)

        def build(conversation: Sequence[ChatMessage], options: ModelParameters) -> dict[str, Any]:
            return wire.build_request(conversation, model, options)

        def create_decoder() -> ChunkDecoder:
            return ChunkDecoder(collect_call_ids(messages), origin)

        return self._fallback.stream_chat(
            ChatRequest(
                send=self._chunks,
                provider=self.name,
                path=f"{self._path(model, 'streamGenerateContent')}?alt=sse",
                model=model,
                messages=messages,
                parameters=parameters,
                dialect=GEMINI,
                build=build,
                create_decoder=create_decoder,
            )
        )

    def stream_completion(self, prompt: str, model: str, parameters: ModelParameters) -> NoReturn:
        self._cannot("continue raw text", "local, ollama, openai, lmstudio")

    async def generate_embeddings(self, texts: Sequence[str], model: str) -> list[list[float]]:
        if self._compatible is not None:
            self._need_key()
            return await self._compatible.generate_embeddings(texts, self.bare(model))
        return await self._embedded(texts, model)

    async def generate_shortened(
        self, texts: Sequence[str], model: str, dimensions: int
    ) -> PackedVectors:
        if self._compatible is not None:
            self._need_key()
            return await self._compatible.generate_shortened(texts, self.bare(model), dimensions)
        vectors = await self._embedded(texts, model, dimensions)
        # gemini-embedding-001 normalises only its full vectors, other services all.
        normalised = Embeddings(map(_normalise, vectors), vectors.usage)
        return PackedVectors.of(normalised)

    async def _embedded(
        self, texts: Sequence[str], model: str, dimensions: int | None = None
    ) -> Embeddings:
        model = self.bare(model)
        vectors, tokens = Embeddings(), 0
        for batch in batches_in_order(texts, _MAX_TEXTS):
            body = wire.build_embedding_request(batch, model, dimensions)
            reply = await self._object(
                "POST", self._path(model, "batchEmbedContents"), body, model
            )
            with self._reading(retryable=True):
                batch_vectors = parse_embeddings(reply)
            if len(batch_vectors) != len(batch):
                msg = f"{self.name}/{model} returned {len(batch_vectors)} vectors for {len(batch)} texts."
                raise ProviderError(msg, provider=self.name, model=model, retryable=True)
            vectors += batch_vectors
            tokens += (batch_vectors.usage.input_tokens if batch_vectors.usage else None) or 0
        vectors.usage = Usage(tokens or None)
        return vectors

    def batch_service(self) -> BatchService:
        if self._compatible is not None or not re.search(r"/v\d+\w*$", self.address):
            return super().batch_service()  # Vertex AI has another API for jobs
        from llm_magics.providers.batches.gemini import Batches

        return Batches(self)

    async def close(self) -> None:
        await super().close()
        if self._compatible is not None:
            await self._compatible.close()

    def _refused(
        self, said: Any, status: int | None, headers: Mapping[str, str], model: str
    ) -> ProviderError:
        return map_gemini_error(said, status, headers, provider=self.name, model=model)


def _parse_models(listing: Sequence[Mapping[str, Any]]) -> Iterator[ModelInfo]:
    """Yield the models that chat or embed; others need another API."""
    for model in listing:
        methods = model.get("supportedGenerationMethods") or ()
        capabilities = [_METHODS[method] for method in methods if method in _METHODS]
        if not capabilities:
            continue
        if model.get("thinking") and "chat" in capabilities:
            capabilities.append("reasoning")
        yield ModelInfo(
            model_name(model["name"]).removeprefix("models/"),
            tuple(dict.fromkeys(capabilities)),
            context=model.get("inputTokenLimit"),
            max_output_tokens=model.get("outputTokenLimit"),
        )


def _normalise(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector] if length else vector
