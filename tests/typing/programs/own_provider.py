"""Providers of another package, as an entry point of the group ``llm_magics.providers``."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, assert_type

from llm_magics.providers import create_provider
from llm_magics.providers.base import (
    BaseModelProvider,
    ModelInfo,
    ProviderConfig,
    StreamingProvider,
)
from llm_magics.types import (
    ChatMessage,
    ModelParameters,
    ModelResponse,
    Progress,
    StreamChunk,
    Usage,
)


class OwnConfig(ProviderConfig):
    """A setting of its own."""

    shout: bool = False


class OwnProvider(StreamingProvider):
    """Repeats what it is asked, word by word."""

    name = "own"
    config_type = OwnConfig
    capabilities = ("chat", "embeddings")
    config: OwnConfig

    async def initialize(self) -> bool:
        return True

    async def list_models(self) -> list[str]:
        return ["repeat"]

    async def describe_models(self) -> list[ModelInfo]:
        return [ModelInfo("repeat", capabilities=("chat",), context=1000)]

    async def stream_chat(
        self, messages: Sequence[ChatMessage], model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        for word in messages[-1].content.split():
            yield StreamChunk(word.upper() if self.config.shout else word)
        yield StreamChunk(finish_reason="stop", usage=Usage(input_tokens=1, output_tokens=1))

    async def stream_completion(
        self, prompt: str, model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        yield StreamChunk(prompt, finish_reason="stop")

    async def generate_embeddings(self, texts: Sequence[str], model: str) -> list[list[float]]:
        return [[1.0, 0.0] for _ in texts]

    async def prepare(self, model: str, capability: str) -> AsyncGenerator[Progress, None]:
        yield Progress("loading", 1, 2, is_load=True)

    async def health_check(self) -> dict[str, Any]:
        return {"status": "ok", "detail": ""}


async def use(settings: Mapping[str, Any]) -> None:
    """A provider is used by itself, as a context manager."""
    async with OwnProvider({"shout": True, **settings}) as provider:
        assert_type(provider, OwnProvider)
        answer = await provider.generate_chat([ChatMessage("user", "Hello.")], "repeat")
        if isinstance(answer, ModelResponse):
            assert_type(answer.text, str)
        else:
            async for chunk in answer:
                assert_type(chunk, StreamChunk)
        assert_type(await provider.list_models(), list[str])


def create() -> BaseModelProvider:
    """A provider by its name."""
    return create_provider("echo", {})
