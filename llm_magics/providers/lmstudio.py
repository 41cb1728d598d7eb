"""
The provider of LM Studio: OpenAI's format for chat, completion and embeddings, its own API
otherwise.

``LMSTUDIO_BASE_URL`` is the server's address; ``LM_API_TOKEN`` is the key, if it requires one.
Source: https://lmstudio.ai/docs/developer/rest (``/api/v1``, and ``/api/v0`` before 0.4).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from functools import cached_property
from typing import Any, Literal
from urllib.parse import quote

from pydantic import Field, field_validator

from llm_magics.errors import ContextLengthError, ModelNotFoundError, ProviderError, nearest
from llm_magics.host import Progress
from llm_magics.providers.base import TEXT_CAPABILITIES, ModelInfo
from llm_magics.providers.openai_compatible import OpenAICompatibleConfig, OpenAICompatibleProvider
from llm_magics.providers.profiles import ServiceProfile
from llm_magics.providers.streaming import LoadingNotice
from llm_magics.secrets import Secret, environment_value
from llm_magics.types import Embeddings, Usage
from llm_magics.wire.schema_dialects import GRAMMAR

_DEFAULT_URL = "http://127.0.0.1:1234"

# The interval between checks of a download's progress, in seconds.
_POLL_S = 0.5

_KINDS = {"embedding": ("embeddings",), "embeddings": ("embeddings",)}


class LMStudioConfig(OpenAICompatibleConfig):
    """
    Attributes:
        base_url: the server's address, without ``/v1``; default: ``LMSTUDIO_BASE_URL``.
        api_key: for a server that requires one; default: ``LM_API_TOKEN``.
        chat_api: ``v1`` is OpenAI's format; ``v0`` is LM Studio's older API, which also reports
            its time to first token and speed.
    """

    base_url: str = Field(
        default_factory=lambda: environment_value("LMSTUDIO_BASE_URL") or _DEFAULT_URL
    )
    api_key: Secret | None = Field(
        default_factory=lambda: Secret.of(environment_value("LM_API_TOKEN"))
    )
    chat_api: Literal["v1", "v0"] = "v1"
    idle_s: float = Field(600.0, gt=0)  # a large model may take minutes to load

    @field_validator("base_url", mode="after")
    @classmethod
    def _root(cls, value: str) -> str:
        return value.rstrip("/").removesuffix("/v1")


class LMStudioProvider(OpenAICompatibleProvider):
    """The provider of an LM Studio server."""

    name = "lmstudio"
    config_type = LMStudioConfig
    capabilities = (*TEXT_CAPABILITIES, "pull")
    start = "lms server start"
    key_variable = "LM_API_TOKEN"
    environment = ("LM_API_TOKEN", "LMSTUDIO_BASE_URL")
    usual_address = _DEFAULT_URL
    start_hint = f"Start the server in LM Studio, or with: {start}. For another address set LMSTUDIO_BASE_URL."
    config: LMStudioConfig

    def __init__(self, config: LMStudioConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self._loading = LoadingNotice(self._size_and_place)

    async def prepare(self, model: str, capability: str) -> AsyncGenerator[Progress, None]:
        """Report that the server is loading ``model``."""
        if (progress := await self._loading.of(self.bare(model))) is not None:
            yield progress

    async def _size_and_place(self, model: str) -> ModelInfo | None:
        return next((each for each in await self.describe_models() if each.name == model), None)

    @cached_property
    def profile(self) -> ServiceProfile:
        return ServiceProfile(dialect=GRAMMAR)

    def _path(self, path: str, model: str) -> str:
        native = self.config.chat_api == "v0" and path != "/embeddings"
        return f"/api/v0{path}" if native else f"/v1{path}"

    async def list_models(self) -> list[str]:
        return [model.name for model in await self.describe_models()]

    def is_free(self, model: str) -> bool:
        return True

    async def describe_models(self) -> list[ModelInfo]:
        newer = await self._native("/api/v1/models")
        if newer is not None:
            with self._reading():
                return [_parse_model(model) for model in newer.get("models") or []]
        older = await self._native("/api/v0/models")
        if older is not None:
            with self._reading():
                return [_parse_v0_model(model) for model in older.get("data") or []]
        return await super().describe_models()

    async def _native(self, path: str) -> dict[str, Any] | None:
        """Return the response of LM Studio's own API; ``None`` if the server lacks it."""
        try:
            said = await self._object("GET", path)
        except ProviderError as error:
            if error.status in (200, 404, 405) or "Unexpected endpoint" in str(error):
                return None
            raise
        return said if "models" in said or "data" in said else None

    async def _health(self) -> dict[str, Any]:
        models = await self.describe_models()
        loaded = [model.name for model in models if model.loaded]
        detail = f"LM Studio at {self.address}: {len(models)} models, {len(loaded)} loaded"
        return {"detail": detail, "models": [model.name for model in models], "loaded": loaded}

    async def load_model(self, model: str, **settings: Any) -> dict[str, Any]:
        """Load ``model`` into memory, with LM Studio's ``settings``, such as ``context_length``."""
        model = self.bare(model)
        return await self._object(
            "POST", "/api/v1/models/load", {"model": model, **settings}, model
        )

    async def unload_model(self, model: str) -> None:
        """Unload every instance of ``model`` from memory."""
        model = self.bare(model)
        listed = await self._object("GET", "/api/v1/models")
        with self._reading():
            known = {each["key"]: each for each in listed.get("models") or []}
        if model not in known:
            msg = f"{self.name} has no model {model}."
            raise ModelNotFoundError(
                msg, hint=nearest(model, known), provider=self.name, model=model
            )
        for instance in known[model].get("loaded_instances") or []:
            body = {"instance_id": instance["id"]}
            await self._object("POST", "/api/v1/models/unload", body, model)

    async def pull_model(self, model: str) -> AsyncGenerator[Progress, None]:
        """Download ``model`` in LM Studio, by its catalogue name or its URL."""
        model = self.bare(model)
        started = time.perf_counter()
        try:
            job = await self._object("POST", "/api/v1/models/download", {"model": model}, model)
        except ModelNotFoundError as error:
            error.hint = "See https://lmstudio.ai/models for the names in its catalogue."
            raise
        while True:
            yield _progress(model, job, time.perf_counter() - started)
            if job.get("status") in ("completed", "already_downloaded"):
                return
            if job.get("status") not in ("downloading", "paused"):
                msg = f"LM Studio could not download {model}."
                raise ProviderError(
                    msg,
                    hint="See the status of the download in the LM Studio app.",
                    provider=self.name,
                    body=job,
                )
            await asyncio.sleep(_POLL_S)
            path = f"/api/v1/models/download/status/{quote(str(job.get('job_id')), safe='')}"
            job = await self._object("GET", path)

    async def delete_model(self, model: str) -> None:
        """Raise `UnsupportedError`: LM Studio deletes models only in its app, not by its API."""
        self._cannot("delete models; use the LM Studio app", "local, ollama, huggingface-local")

    async def generate_embeddings(self, texts: Any, model: str) -> list[list[float]]:
        vectors = await super().generate_embeddings(texts, model)
        if isinstance(vectors, Embeddings) and not (vectors.usage or Usage()).input_tokens:
            vectors.usage = None  # LM Studio always reports 0
        return vectors

    def _refused(
        self, said: Any, status: int | None, headers: Mapping[str, str], model: str
    ) -> ProviderError:
        error = super()._refused(said, status, headers, model)
        if "No models loaded" in str(error):
            error.hint = f"Load it in LM Studio, or with: lms load {model}"
        if isinstance(error, ContextLengthError):
            load = f"lms load {model} --context-length 16384"
            error.hint = f"Shorten the prompt, or load the model with a longer context: {load}"
        return error


def _parse_model(model: dict[str, Any]) -> ModelInfo:
    """Return the facts about a model from an entry of ``/api/v1/models``."""
    can = model.get("capabilities") or {}
    flags = {"vision": "vision", "trained_for_tool_use": "tools", "reasoning": "reasoning"}
    chats = ("chat", "completion", *(word for flag, word in flags.items() if can.get(flag)))
    instances = model.get("loaded_instances") or []
    set_to = instances[0].get("config", {}).get("context_length") if instances else None
    return ModelInfo(
        model["key"],
        _KINDS.get(model.get("type", ""), chats),
        set_to or model.get("max_context_length"),
        model.get("size_bytes"),
        pulled=True,
        loaded=bool(instances),
    )


def _parse_v0_model(model: dict[str, Any]) -> ModelInfo:
    """Return the facts about a model from an entry of ``/api/v0/models``."""
    chats: tuple[str, ...] = ("chat", "completion")
    if model.get("type") == "vlm":
        chats += ("vision",)
    if "tool_use" in (model.get("capabilities") or ()):
        chats += ("tools",)
    return ModelInfo(
        model["id"],
        _KINDS.get(model.get("type", ""), chats),
        model.get("loaded_context_length") or model.get("max_context_length"),
        pulled=True,
        loaded=model.get("state") == "loaded",
    )


def _progress(model: str, job: Mapping[str, Any], elapsed_s: float) -> Progress:
    total = job.get("total_size_bytes")
    done = job.get("downloaded_bytes") or 0
    if job.get("status") in ("completed", "already_downloaded"):
        done = total or 0
    paused = " (paused)" if job.get("status") == "paused" else ""
    return Progress(f"downloading {model}{paused}", done, total, elapsed_s=elapsed_s)
