"""
OpenAI, and by its address any server that speaks its formats, Azure's among them.

``OPENAI_API_KEY``, ``OPENAI_BASE_URL``, ``OPENAI_ORG_ID`` and ``OPENAI_PROJECT_ID`` are heeded.
Source: https://platform.openai.com/docs/api-reference.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from llm_magics.errors import ConfigurationError, nearest
from llm_magics.parameters import ModelParameters
from llm_magics.providers import model_catalog
from llm_magics.providers.base import TEXT_CAPABILITIES, ModelInfo
from llm_magics.providers.identity import remove_foreign_reasoning
from llm_magics.providers.openai_compatible import MediaProvider, OpenAICompatibleConfig
from llm_magics.providers.profiles import PROFILES, ServiceProfile, find_profile
from llm_magics.secrets import Secret, environment_value
from llm_magics.types import ChatMessage, StreamChunk
from llm_magics.wire import openai_responses
from llm_magics.wire.tool_calls import collect_call_ids

_FROM_ENVIRONMENT = {"organization": "OPENAI_ORG_ID", "project": "OPENAI_PROJECT_ID"}
_OPENAI_URL = PROFILES["openai"].base_url
_CLOUD_URLS = {quirks.base_url for quirks in PROFILES.values() if quirks.hosts}


class OpenAIConfig(OpenAICompatibleConfig):
    """
    Attributes:
        base_url: the service's address, up to ``/v1``.
        api_key: the key; ``OPENAI_API_KEY`` unless given. A server of your own may need none.
        organization, project: sent along where given. ``OPENAI_ORG_ID`` and
            ``OPENAI_PROJECT_ID`` count at OpenAI itself and at ``OPENAI_BASE_URL``: they are
            the user's, and no other address learns them.
        api: which of OpenAI's two interfaces a chat goes through.
        profile: whose manners the service has, if its address does not tell: ``groq``,
            ``mistral``, ``vllm`` …
        api_version: of Azure's older interface, with an address for each deployment.
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
        if value is not None and value not in PROFILES:
            raise ValueError(nearest(value, PROFILES))
        return value

    @classmethod
    def for_named_instance(cls, name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Of a look-alike called ``name``: its profile's address, and a key that is its own."""
        profile = _profile_of(name, settings)
        quirks = PROFILES.get(profile or "", ServiceProfile())
        base_url = settings.get("base_url") or quirks.base_url
        if not base_url:
            msg = f"Where {name} is has not been said."
            hint = f"Set providers.{name}.base_url to its address, up to /v1."
            raise ConfigurationError(msg, hint=hint, provider=name, code="base_url")
        return {
            "profile": profile,
            "api_key": environment_value(cls.named_key_variable(name, settings)) or None,
            "organization": None,
            "project": None,
            **settings,
            "base_url": base_url,
        }

    @classmethod
    def named_key_variable(cls, name: str, settings: Mapping[str, Any]) -> str:
        # A known service's variable is for its own address; a server with its manners has its own.
        address = settings.get("base_url")
        profile = _profile_of(name, settings) or ""
        known = find_profile(address) if address else PROFILES.get(profile, ServiceProfile())
        return known.key_variable or super().named_key_variable(name, settings)


def _profile_of(name: str, settings: Mapping[str, Any]) -> str | None:
    """The profile that a look-alike was given, or that has its name."""
    return settings.get("profile") or (name if name in PROFILES else None)


class OpenAIProvider(MediaProvider):
    """OpenAI, or a server that speaks its formats."""

    name = "openai"
    config_type = OpenAIConfig
    capabilities = (*TEXT_CAPABILITIES, "images", "transcription")
    key_variable = "OPENAI_API_KEY"
    environment = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID")
    usual_address = own_address = _OPENAI_URL
    config: OpenAIConfig

    @property
    def quirks(self) -> ServiceProfile:
        if self.config.profile:
            return PROFILES[self.config.profile]
        return find_profile(self.config.base_url)

    @property
    def _needs_key(self) -> bool:
        is_in_the_cloud = self.config.base_url in _CLOUD_URLS
        return is_in_the_cloud and self.config.api_key is None

    def _headers(self) -> dict[str, str]:
        given = {
            "OpenAI-Organization": self.config.organization,
            "OpenAI-Project": self.config.project,
        }
        return {name: value for name, value in given.items() if value}

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
        return "openai" if self._is_openai_itself else ""

    def known(self, model: str) -> ModelInfo:
        info = super().known(model)
        return model_catalog.complete_info("openai", info) if self._is_openai_itself else info

    @property
    def _is_openai_itself(self) -> bool:
        return self.config.base_url == _OPENAI_URL

    def stream_chat(
        self, messages: Sequence[ChatMessage], model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        if self.config.api == "chat":
            return super().stream_chat(messages, model, parameters)
        origin = f"responses {self.address} {model}"
        messages = remove_foreign_reasoning(messages, origin)
        known = self.known(model).capabilities if self._is_openai_itself else ()
        reasons = not known or "reasoning" in known
        dialect = self.quirks.dialect

        def build(said: Sequence[ChatMessage], given: ModelParameters) -> dict[str, Any]:
            return openai_responses.build_responses_request(
                said, model, given, dialect, reasons=reasons
            )

        decoder = partial(openai_responses.ChunkDecoder, collect_call_ids(messages), origin)
        return self._answered("/responses", messages, model, parameters, dialect, build, decoder)
