"""
The provider of OpenAI, and of any server with an OpenAI-compatible API, such as Azure's.

It reads the environment variables ``OPENAI_API_KEY``, ``OPENAI_BASE_URL``, ``OPENAI_ORG_ID`` and
``OPENAI_PROJECT_ID``. Source: https://platform.openai.com/docs/api-reference.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from llm_magics.attachments import Sound, Transcript
from llm_magics.errors import ProviderError, nearest
from llm_magics.http import Form, Reply, Transport
from llm_magics.parameters import ModelParameters
from llm_magics.providers import model_catalog
from llm_magics.providers.base import TEXT_CAPABILITIES, ModelInfo
from llm_magics.providers.media import (
    OPENAI_CHAT_FILES,
    OPENAI_RESPONSES_FILES,
    AcceptedMedia,
    accepted_by,
)
from llm_magics.providers.openai_compatible import OpenAICompatibleConfig, OpenAICompatibleProvider
from llm_magics.providers.parameter_fallback import ChatRequest
from llm_magics.providers.profiles import ServiceProfile, find_profile, profiles
from llm_magics.providers.services import find_service
from llm_magics.secrets import Secret, environment_value
from llm_magics.types import ChatMessage, StreamChunk, remove_foreign_reasoning
from llm_magics.wire import openai_media, openai_responses
from llm_magics.wire.tool_calls import collect_call_ids

if TYPE_CHECKING:
    from llm_magics.providers.batches.service import BatchService

_FROM_ENVIRONMENT = {"organization": "OPENAI_ORG_ID", "project": "OPENAI_PROJECT_ID"}
_OPENAI_URL = "https://api.openai.com/v1"


class OpenAIConfig(OpenAICompatibleConfig):
    """
    Attributes:
        base_url: the service's address, up to ``/v1``.
        api_key: the key; default: ``OPENAI_API_KEY``. A server of your own may need none.
        organization: sent if set; default: ``OPENAI_ORG_ID``, for OpenAI and
            ``OPENAI_BASE_URL`` only.
        project: sent if set; default: ``OPENAI_PROJECT_ID``, for OpenAI and ``OPENAI_BASE_URL``
            only.
        api: which of OpenAI's APIs to use for chat.
        profile: the kind of service, if the address does not identify it: ``groq``,
            ``mistral``, ``vllm`` …
        api_version: the version of Azure's older API, which has one address per deployment.
    """

    base_url: str = Field(
        default_factory=lambda: environment_value("OPENAI_BASE_URL") or _OPENAI_URL
    )
    api_key: Secret | None = Field(
        default_factory=lambda: Secret.of(environment_value("OPENAI_API_KEY"))
    )
    organization: str | None = None
    project: str | None = None
    api: Literal["chat", "responses"] = "chat"
    profile: str | None = None
    api_version: str | None = None

    @model_validator(mode="after")
    def _of_the_environment(self) -> Self:
        if self.base_url in (_OPENAI_URL, environment_value("OPENAI_BASE_URL").rstrip("/")):
            for name, variable in _FROM_ENVIRONMENT.items():
                value = environment_value(variable)
                if value and name not in self.model_fields_set:
                    object.__setattr__(self, name, value)
        return self

    @field_validator("profile", mode="after")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and value not in profiles():
            raise ValueError(nearest(value, profiles()))
        return value

    @classmethod
    def for_named_instance(cls, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Return a compatible service's settings: its profile's address and its own key."""
        service = find_service(name, settings)
        return {
            "profile": service.name if service else None,
            "organization": None,
            "project": None,
            **super().for_named_instance(name, settings),
        }


class OpenAIProvider(OpenAICompatibleProvider):
    """The provider of OpenAI, or of a server with an OpenAI-compatible API."""

    name = "openai"
    config_type = OpenAIConfig
    capabilities: tuple[str, ...] = (
        *TEXT_CAPABILITIES,
        "logprobs",
        "documents",
        "audio",
        "search",
        "images",
        "transcription",
    )
    key_variable = "OPENAI_API_KEY"
    environment = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID")
    usual_address = own_address = _OPENAI_URL
    config: OpenAIConfig

    def __init__(self, config: OpenAIConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        kind = type(self)
        usual = tuple(each for each in kind.capabilities if each != "documents")
        self.capabilities = self.profile.capabilities or usual  # of an unknown server
        if not self.profile.search:
            self.capabilities = tuple(each for each in self.capabilities if each != "search")
        self.embedding_batch_size = self.profile.embedding_batch_size or kind.embedding_batch_size

    @cached_property
    def profile(self) -> ServiceProfile:
        if self.config.profile:
            return profiles()[self.config.profile]
        return find_profile(self.config.base_url)

    @property
    def is_set_up(self) -> bool:
        if self.name == type(self).name:
            return super().is_set_up
        is_usual = self.config.base_url == self.profile.base_url
        return not self._needs_key and (self._has_credential or not is_usual)

    @property
    def _needs_key(self) -> bool:
        service = find_profile(self.config.base_url)
        headers = {"authorization", service.key_header.name.lower()}
        sent = headers.intersection(map(str.lower, self.config.extra_headers))
        return service.is_in_the_cloud and not self._has_credential and not sent

    def _headers(self) -> dict[str, str]:
        headers = {
            "OpenAI-Organization": self.config.organization,
            "OpenAI-Project": self.config.project,
        }
        return {name: value for name, value in headers.items() if value}

    def _query(self) -> dict[str, str]:
        version = self.config.api_version
        return {"api-version": version} if version else {}

    def _path(self, path: str, model: str) -> str:
        if not self.config.api_version:
            return path
        return f"/openai/deployments/{model}{path}" if model else f"/openai{path}"

    async def describe_models(self) -> list[ModelInfo]:
        infos = await super().describe_models()
        if self._is_openai_itself:
            return [model_catalog.complete_info("openai", info) for info in infos]
        return infos

    @property
    def price_list(self) -> str:
        return find_profile(self.config.base_url).price_list

    def known(self, model: str) -> ModelInfo:
        info = super().known(model)
        return model_catalog.complete_info("openai", info) if self._is_openai_itself else info

    async def accepted_media(self, model: str) -> AcceptedMedia:
        if "documents" in self.profile.capabilities:
            service = (
                OPENAI_RESPONSES_FILES if self.config.api == "responses" else OPENAI_CHAT_FILES
            )
            return accepted_by(service, self.known(model).capabilities)
        accepted = await super().accepted_media(model)
        # Servers for own models (vLLM, llama.cpp) have the format, and refuse it where a model cannot.
        is_own = not self.profile.is_in_the_cloud and self.config.api == "chat"
        return replace(accepted, audio=OPENAI_CHAT_FILES.audio) if is_own else accepted

    @property
    def _is_openai_itself(self) -> bool:
        return self.config.base_url == _OPENAI_URL

    def _require(self, capability: str, what: str, who_can: str) -> None:
        """Raise `UnsupportedError` if the service is known not to have ``capability``."""
        if capability not in self.capabilities:
            self._cannot(what, who_can)

    def stream_completion(
        self, prompt: str, model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        self._require("completion", "continue raw text", "local, ollama, openai, lmstudio")
        return super().stream_completion(prompt, model, parameters)

    async def _embedded(
        self, batch: Sequence[str], model: str, dimensions: int | None = None
    ) -> Reply:
        self._require("embeddings", "embed", "local, ollama, openai, lmstudio, huggingface")
        return await super()._embedded(batch, model, dimensions)

    def stream_chat(
        self, messages: Sequence[ChatMessage], model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        searches = parameters.search and self.profile.search == "responses"  # not in a chat
        if self.config.api == "chat" and not searches:
            return super().stream_chat(messages, model, parameters)
        origin = f"responses {self.address} {model}"
        messages = remove_foreign_reasoning(messages, origin)
        known = self.known(model).capabilities if self._is_openai_itself else ()
        reasons = not known or "reasoning" in known
        dialect = self.profile.dialect

        def build(conversation: Sequence[ChatMessage], options: ModelParameters) -> dict[str, Any]:
            body = openai_responses.build_responses_request(
                conversation, model, options, dialect, reasons=reasons
            )
            asked = {"temperature", "tool_choice", "top_p"}
            self._warn_about(self.profile.responses.refuses.intersection(body) & asked)
            return self.profile.responses.adapt(body)

        def create_decoder() -> openai_responses.ChunkDecoder:
            taken, limit = collect_call_ids(messages), parameters.max_tokens
            return openai_responses.ChunkDecoder(taken, origin, limit=limit)

        return self._fallback.stream_chat(
            ChatRequest(
                send=self._chunks,
                provider=self.name,
                path=self.profile.responses.path,
                model=model,
                messages=messages,
                parameters=parameters,
                dialect=dialect,
                build=build,
                create_decoder=create_decoder,
            )
        )

    def batch_service(self) -> BatchService:
        if not self.profile.batches:
            return super().batch_service()
        module = import_module(f"llm_magics.providers.batches.{self.profile.batches}")
        service: BatchService = module.Batches(self)
        return service

    async def generate_image(self, prompt: str, model: str, **options: Any) -> list[bytes]:
        """
        Return images of ``prompt``, each as the bytes of a file.

        Args:
            options: ``n``, ``size``, ``quality``, ``background`` … as the service defines them.
        """
        self._require("images", "make images", "openai")
        model = self.bare(model)
        body = openai_media.build_image_request(prompt, model, options)
        path = self._path("/images/generations", model)
        supported = self._fallback.of_request(path, model, self.name)
        supported.apply(body)
        while True:
            try:
                reply = await self._object("POST", path, body, model)
                break
            except ProviderError as error:
                if not supported.learn(error, body):
                    raise
        with self._reading():
            images = openai_media.parse_images(reply)
        return [await self._fetched(each) if isinstance(each, str) else each for each in images]

    async def _fetched(self, url: str) -> bytes:
        """Return the image at ``url``. The key is not sent, because the host is not the service."""
        if not url.startswith("https://"):
            msg = f"The service sent an unsafe URL: {url[:80]}"
            raise ProviderError(msg, provider=self.name)
        address, _, query = url.partition("#")[0].partition("?")
        host, slash, path = address.removeprefix("https://").partition("/")
        elsewhere = Transport(
            f"https://{host}",
            timeouts=self.config.timeouts,
            query=query,
            limits=self.config.limits,
        )
        try:
            reply = await elsewhere.send("GET", f"{slash}{path}")
        except ConnectionError as error:
            raise self._not_fetched(url, str(error)) from error
        finally:
            await elsewhere.close()
        if not reply.ok:
            raise self._not_fetched(url, f"status {reply.status}")
        kind = reply.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind.startswith("text/") or kind in ("application/json", "application/xml"):
            raise self._not_fetched(url, f"{kind} is not an image")
        return reply.body

    def _not_fetched(self, url: str, why: str) -> ProviderError:
        """Return an error that is not retryable, because a retry would pay for another image."""
        msg = f"The image was generated but could not be downloaded ({why})."
        return ProviderError(msg, hint=f"Download it yourself: {url}", provider=self.name)

    async def transcribe(self, audio: bytes, model: str, **options: Any) -> Transcript:
        """
        Return the transcript of ``audio``, the bytes of a file.

        Args:
            options: ``format`` (``json``, ``text``, ``srt``, ``vtt``, ``verbose_json``,
                ``diarized_json``), ``language``, ``prompt``, ``temperature``,
                ``timestamp_granularities`` … as the service defines them.
        """
        self._require("transcription", "transcribe audio", "openai")
        model = self.bare(model)
        sound = Sound(audio)
        openai_media.check_audio_size(sound)
        fields, expected = openai_media.build_transcription_form(model, options)
        file = (sound.file_name, sound.data, sound.media_type)
        form = Form(fields, {"file": file})
        path = self._path("/audio/transcriptions", model)
        reply = await self._send("POST", path, form, model)
        said = reply.json() if reply.body.startswith(b"{") else None
        if isinstance(said, dict) and said.get("error"):  # errors may have status 200
            raise self._error(said, None, reply.headers, model)
        with self._reading():
            return openai_media.parse_transcript(reply.body, expected)
