"""
The provider of models at Hugging Face: chat through the router, embeddings by feature extraction.

A model is ``OWNER/NAME``; append ``:PROVIDER`` to choose the inference provider. The token is taken
from ``HF_TOKEN`` or from ``hf auth login``.
Source: https://huggingface.co/docs/inference-providers.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from pydantic import Field, field_validator

from llm_magics._util.text import batches_in_order
from llm_magics.errors import ProviderError
from llm_magics.parameters import ModelParameters
from llm_magics.providers.base import BaseModelProvider, ModelInfo
from llm_magics.providers.hf_hub import find_token
from llm_magics.providers.model_lists import parse_models
from llm_magics.providers.openai_compatible import OpenAICompatibleConfig, OpenAICompatibleProvider
from llm_magics.secrets import Secret
from llm_magics.types import Embeddings, StreamChunk
from llm_magics.wire.decoders import is_error_body


def pool_vector(values: list[Any]) -> list[float]:
    """
    Return the vector of a text: ``values`` itself, or the normalised mean of its token vectors.

    ``values`` is a vector or a list of token vectors, which may be nested in lists of length one.
    """
    while values and isinstance(values[0], list) and len(values) == 1:
        values = values[0]
    if not values or not isinstance(values[0], list):
        return values
    mean = [sum(column) / len(values) for column in zip(*values, strict=True)]
    norm = math.sqrt(sum(value * value for value in mean)) or 1.0
    return [value / norm for value in mean]


_ROUTER_URL = "https://router.huggingface.co"

# The default batch size of text-embeddings-inference.
_MAX_TEXTS = 32


class HuggingFaceConfig(OpenAICompatibleConfig):
    """
    Attributes:
        base_url: the router's address, without ``/v1``.
        api_key: the token; default: ``HF_TOKEN``, or the token of ``hf auth login``.
    """

    base_url: str = Field(_ROUTER_URL)
    api_key: Secret | None = Field(default_factory=lambda: Secret.of(find_token()[0]))

    @field_validator("base_url", mode="after")
    @classmethod
    def _root(cls, value: str) -> str:
        return value.rstrip("/").removesuffix("/v1")


class HuggingFaceProvider(OpenAICompatibleProvider):
    """The provider of Hugging Face's router, which forwards to inference providers."""

    name = "huggingface"
    config_type = HuggingFaceConfig
    capabilities = ("chat", "embeddings", "vision", "tools", "schema", "reasoning")
    key_variable = "HF_TOKEN"
    environment = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "HF_HOME")
    usual_address = own_address = _ROUTER_URL
    config: HuggingFaceConfig

    @classmethod
    def own_key_source(cls) -> str:
        return find_token()[1]

    def _path(self, path: str, model: str) -> str:
        return f"/v1{path}"

    def _parse_models(self, said: Any) -> list[ModelInfo] | None:
        return parse_models(said, "openai", _parse_model)

    def stream_completion(
        self, prompt: str, model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        self._cannot("continue raw text", "huggingface-local, local, ollama, openai, lmstudio")

    async def generate_embeddings(self, texts: Sequence[str], model: str) -> list[list[float]]:
        model = self.bare(model)
        repository = model.partition(":")[0]
        path = f"/hf-inference/models/{repository}/pipeline/feature-extraction"
        vectors: list[object] = []
        for batch in batches_in_order(texts, _MAX_TEXTS):
            body = {"inputs": batch, "normalize": True}
            reply = await self._send("POST", path, body, model)
            said = reply.json()
            if is_error_body(said):
                raise await self._explained(self._error(said, None, reply.headers, model))
            if not isinstance(said, list) or len(said) != len(batch):
                msg = f"{self.name}/{model} did not return one vector for each of {len(batch)} texts."
                raise ProviderError(msg, provider=self.name, model=model, body=said)
            vectors += [_try_pool(each) for each in said]
        return Embeddings.of_rows(vectors)

    # Hugging Face does not have the OpenAI-compatible embeddings endpoint.
    generate_packed = BaseModelProvider.generate_packed
    generate_shortened = BaseModelProvider.generate_shortened


def _try_pool(values: Any) -> object:
    """Return the vector of a text; ``None`` if ``values`` is invalid."""
    try:
        return pool_vector(values)
    except (TypeError, ValueError, OverflowError, LookupError):
        return None


def _parse_model(model: Mapping[str, Any]) -> ModelInfo:
    """Return the facts about a model: its live providers combined, with the lowest price."""
    serving = [each for each in model.get("providers") or () if each.get("status") == "live"]
    seen = (model.get("architecture") or {}).get("input_modalities") or ()
    capabilities = {
        "chat": True,
        "vision": "image" in seen,
        "tools": any(each.get("supports_tools") for each in serving),
        "schema": any(each.get("supports_structured_output") for each in serving),
    }
    prices = [price for each in serving if (price := each.get("pricing"))]
    cheapest: dict[str, Any] = min(
        prices, key=lambda price: price["input"] + price["output"], default={}
    )
    return ModelInfo(
        model["id"],
        tuple(name for name, can in capabilities.items() if can),
        max((each.get("context_length") or 0 for each in serving), default=0) or None,
        input_usd=cheapest.get("input"),
        output_usd=cheapest.get("output"),
    )
