"""
The OpenAI-compatible client of one llama.cpp server in a child process.

Source: https://github.com/ggml-org/llama.cpp/tree/master/tools/server, and recorded traffic.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Mapping
from functools import cached_property
from typing import Any

from llm_magics.errors import ConnectionError, ContextLengthError, ProviderError, UnsupportedError
from llm_magics.providers.local.process import Engine
from llm_magics.providers.openai_compatible import OpenAICompatibleConfig, OpenAICompatibleProvider
from llm_magics.providers.profiles import ServiceProfile
from llm_magics.providers.streaming import DecoderFactory
from llm_magics.types import StreamChunk
from llm_magics.wire.schema_dialects import GRAMMAR
from llm_magics.wire.thinking import TEMPLATE, ThinkingRules, template_rules

_PROFILE = ServiceProfile(encoding_format="base64", dialect=GRAMMAR, thinking=TEMPLATE)


class EngineConfig(OpenAICompatibleConfig):
    """
    Attributes:
        max_tokens: maximum length of an answer, in tokens, if a prompt sets none.
    """

    max_tokens: int


class EngineClient(OpenAICompatibleProvider):
    """The client of one server of a running engine: it adapts requests and maps errors."""

    name = "local"
    config_type = EngineConfig
    capabilities = ("chat", "completion", "embeddings", "logprobs")
    config: EngineConfig

    def __init__(self, engine: Engine, address: str, model: str, **settings: Any) -> None:
        """Create the client, with the key of ``engine`` and the fields of `EngineConfig`."""
        super().__init__({"base_url": address, "api_key": engine.key, **settings})
        self.engine = engine
        self._model = model
        self._properties: dict[str, Any] | None = None

    @cached_property
    def profile(self) -> ServiceProfile:
        return _PROFILE

    @property
    def address(self) -> str:
        """A constant, so that reasoning is also sent back to a new engine for the same model."""
        return self.name

    def _path(self, path: str, model: str) -> str:
        return f"/v1{path}"

    async def check_tools(self) -> None:
        """Raise `UnsupportedError` if the model's template ignores tools."""
        capabilities = (await self._read_properties()).get("chat_template_caps", {})
        if capabilities.get("supports_tools") is False:
            msg = (
                f"local/{self._model} cannot call tools: its chat template does not support them."
            )
            hint = "Use a model that supports tools, or request data with a schema."
            raise UnsupportedError(msg, hint=hint, provider=self.name, model=self._model)

    async def thinking_rules(self, model: str) -> ThinkingRules:
        """Return what the model's template supports."""
        return template_rules(str((await self._read_properties()).get("chat_template") or ""))

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send ``body`` to the server, and return the JSON object in its reply."""
        return await self._object("POST", path, body, self._model)

    async def _read_properties(self) -> dict[str, Any]:
        """Return the properties of the server, requested once."""
        if self._properties is None:
            self._properties = await self._object("GET", "/props")
        return self._properties

    def _chunks(
        self,
        path: str,
        body: dict[str, Any],
        model: str,
        create_decoder: DecoderFactory,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[StreamChunk, None]:
        if body.get("seed") is not None or body.get("temperature") == 0:
            # A prompt that is partly in the cache is computed in different batches, which changes
            # the last bits of the result. Repeating such a call must return the same answer.
            body.setdefault("cache_prompt", False)
        body.setdefault("max_tokens", self.config.max_tokens)
        return super()._chunks(path, body, model, create_decoder, headers)

    def _error(
        self, said: Any, status: int | None, headers: Mapping[str, str], model: str
    ) -> ProviderError:
        """Return the mapped error, without advice about the key, which the user did not set."""
        error = self._refused(said, status, headers, model)
        # llama.cpp reports a text that is too long as a server error.
        return _length_error(error) if "too large to process" in str(error) else error

    async def _explain_broken(self, error: ProviderError) -> ProviderError:
        """Return ``error``; if the engine's process has ended, return an error about that."""
        if not isinstance(error, ConnectionError):
            return error
        await asyncio.to_thread(self.engine.await_exit)
        if self.engine.is_alive:
            return self._unreachable(error)
        msg = f"the llama.cpp process of local/{self._model} ended ({self.engine.exit_reason()})"
        hint = "Run the cell again to start a new one."
        return ConnectionError(msg, hint=hint, provider=self.name, model=self._model)


def _length_error(error: ProviderError) -> ContextLengthError:
    tokens = re.search(r"\((\d+) tokens\).*: (\d+)\)", str(error))
    read, longest = tokens.groups() if tokens else ("?", "?")
    return ContextLengthError(
        f"A text has {read} tokens, but local/{error.model} reads at most {longest}.",
        hint='Shorten it, or use too_long="chunk-mean".',
        provider=error.provider,
        model=error.model,
        status=error.status,
        body=error.body,
    )
