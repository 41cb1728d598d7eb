"""The smallest provider that meets the interface."""

from __future__ import annotations

from llm_magics import ModelResponse
from llm_magics.providers import BaseModelProvider


class SmallProvider(BaseModelProvider):
    """As little as a third party must write: it does not even stream."""

    name = "theirs"

    async def initialize(self) -> bool:
        return True

    async def list_models(self) -> list[str]:
        return ["small"]

    async def generate_chat(self, messages, model, parameters):  # type: ignore[no-untyped-def]
        return ModelResponse(text=messages[-1].content.upper(), finish_reason="stop")

    async def generate_completion(self, prompt, model, parameters):  # type: ignore[no-untyped-def]
        return ModelResponse(text=prompt.upper())

    async def generate_embeddings(self, texts, model):  # type: ignore[no-untyped-def]
        return [[float(len(text))] for text in texts]

    async def health_check(self) -> dict[str, str]:
        return {"status": "ok", "detail": "small"}
