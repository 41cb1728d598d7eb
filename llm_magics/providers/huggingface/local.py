"""
The provider that runs Transformers in this process: models from the hub, a folder or a GGUF file.

``huggingface-local/OWNER/NAME`` is downloaded into the hub's cache on first use;
``huggingface-local/./folder`` and ``huggingface-local/./model.gguf`` are used in place.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import Field

from llm_magics._util.text import reason_of
from llm_magics.errors import (
    ConfigurationError,
    ModelNotFoundError,
    ProviderError,
    UnsupportedError,
    WeightsError,
    nearest,
)
from llm_magics.host import Progress
from llm_magics.parameters import ModelParameters
from llm_magics.providers import hf_hub
from llm_magics.providers.base import ModelInfo, StreamingProvider
from llm_magics.providers.configs import ProviderConfig
from llm_magics.providers.media import AcceptedMedia
from llm_magics.providers.parameter_fallback import add_schema_to_prompt
from llm_magics.types import ChatMessage, Embeddings, PackedVectors, StreamChunk, Usage
from llm_magics.wire import openai_chat
from llm_magics.wire.thinking import TEMPLATE, ThinkingRules, template_rules

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llm_magics.providers.huggingface.inference import (
        Embedder,
        GenerationResult,
        TextGenerator,
    )


def missing_packages() -> list[str]:
    """Return the names of the required packages that are not installed."""
    return [name for name in ("torch", "transformers") if find_spec(name) is None]


def is_path(model: str) -> bool:
    """Return whether ``model`` is a path rather than a name on the hub."""
    return model.startswith((".", "/", "~")) or Path(model).is_absolute()


def find_on_disk(model: str) -> Path | None:
    """Return the folder or file of ``model`` on this machine; ``None`` if there is none."""
    if is_path(model):
        path = Path(model).expanduser()
        return path if path.exists() else None
    return hf_hub.cached_folder(model)


def read_model_config(folder: Path | None) -> dict[str, Any]:
    """Return the ``config.json`` in a model's folder; empty if it is missing or invalid."""
    try:
        config = json.loads((folder or Path()).joinpath("config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


_EMBEDS = ("BertModel", "RobertaModel", "MPNetModel", "XLMRobertaModel", "DistilBertModel")


class HuggingFaceLocalConfig(ProviderConfig):
    """
    Attributes:
        pooling: how token vectors are combined into one text vector; default: as the model was
            trained.
        max_tokens: maximum length of an answer, in tokens, if a call sets none.
    """

    pooling: Literal["mean", "cls", "last"] | None = None
    max_tokens: int = Field(1024, ge=1)


class HuggingFaceLocalProvider(StreamingProvider):
    """Transformers models, in memory from their first use until the provider is closed."""

    name = "huggingface-local"
    capabilities = ("chat", "completion", "embeddings", "reasoning", "pull", "delete")
    start = "pip install torch transformers accelerate huggingface_hub gguf"
    # Each batch uses all cores, so concurrent batches would only slow each other down.
    embedding_concurrency = 1
    config_type = HuggingFaceLocalConfig
    config: HuggingFaceLocalConfig

    def __init__(self, config: HuggingFaceLocalConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self._loaded: dict[tuple[str, str], Any] = {}
        self._loading = threading.Lock()
        self._closed = 0

    @property
    def is_set_up(self) -> bool:
        return not missing_packages()

    async def initialize(self) -> bool:
        return not missing_packages()

    async def list_models(self) -> list[str]:
        if find_spec("huggingface_hub") is None:
            return []
        return [model.name for model in await asyncio.to_thread(hf_hub.cached_models)]

    def is_free(self, model: str) -> bool:
        return True

    async def accepted_media(self, model: str) -> AcceptedMedia:
        return AcceptedMedia(images=False)

    async def identity(self, model: str) -> str:
        return await asyncio.to_thread(_model_identity, model)

    async def describe_models(self) -> list[ModelInfo]:
        if find_spec("huggingface_hub") is None:
            return []
        models = await asyncio.to_thread(hf_hub.cached_models)
        return [self._described(model) for model in models]

    def _described(self, model: hf_hub.CachedModel) -> ModelInfo:
        config = read_model_config(hf_hub.cached_folder(model.name))
        kinds = config.get("architectures") or [""]
        writes = kinds[0].endswith("ForCausalLM")
        loaded = any(name == model.name for _, name in self._loaded)
        return ModelInfo(
            model.name,
            ("chat", "completion") if writes else ("embeddings",) if kinds[0] in _EMBEDS else (),
            config.get("max_position_embeddings"),
            model.size_bytes,
            pulled=True,
            loaded=loaded,
        )

    async def health_check(self) -> dict[str, Any]:
        missing = missing_packages()
        if missing:
            detail = f"Not installed: {', '.join(missing)}. Run: pip install {' '.join(missing)}"
            return {"status": "unavailable", "detail": detail}
        models = await self.list_models()
        detail = f"Transformers is ready; {len(models)} models in the hub's cache"
        return {"status": "ok", "detail": detail, "models": models}

    async def prepare(self, model: str, capability: str) -> AsyncGenerator[Progress, None]:
        """Download the model into the hub's cache and load it, unless that is done already."""
        model = self.bare(model)
        self._need_packages(model)
        if find_on_disk(model) is None:
            async with aclosing(self.pull_model(model)) as steps:
                async for progress in steps:
                    yield progress
        kind = "embedder" if capability == "embeddings" else "writer"
        if (kind, model) not in self._loaded:
            yield Progress(f"loading {model}", is_load=True)
            await asyncio.to_thread(self._model, kind, model)

    async def pull_model(self, model: str) -> AsyncGenerator[Progress, None]:
        """Download ``model`` into the hub's cache. The next pull resumes an interrupted one."""
        model = self.bare(model)
        self._need_packages(model)
        if is_path(model):
            raise self._unknown(model, [])
        try:
            async with aclosing(hf_hub.fetch(model)) as steps:
                async for progress in steps:
                    yield progress
        except ModelNotFoundError as error:
            known = await self.list_models()
            guess = nearest(model, known, listed=False)
            error.provider, error.hint = self.name, f"{guess} {error.hint}".strip()
            raise
        except WeightsError as error:
            error.provider = self.name
            guess = nearest(model, await self.list_models(), listed=False)
            error.hint = f"{guess} {error.hint}".strip()
            raise

    async def delete_model(self, model: str) -> None:
        """Delete ``model`` from the hub's cache."""
        model = self.bare(model)
        self._need_packages(model)
        await asyncio.to_thread(hf_hub.delete, model)
        for kind in ("writer", "embedder"):
            self._loaded.pop((kind, model), None)

    async def generate_embeddings(self, texts: Sequence[str], model: str) -> list[list[float]]:
        if not texts:
            return []
        vectors, tokens = await self._embedded(texts, model)
        return Embeddings(vectors.tolist(), Usage(tokens))

    async def generate_packed(self, texts: Sequence[str], model: str) -> PackedVectors:
        vectors, tokens = await self._embedded(texts, model)
        return PackedVectors(vectors.astype("<f4").tobytes(), vectors.shape[1], Usage(tokens))

    async def _embedded(self, texts: Sequence[str], model: str) -> tuple[NDArray[np.float32], int]:
        model = self.bare(model)
        async for _ in self.prepare(model, "embeddings"):
            pass
        embedder = cast("Embedder", await asyncio.to_thread(self._model, "embedder", model))
        return await asyncio.to_thread(embedder.embed, list(texts))

    async def thinking_rules(self, model: str) -> ThinkingRules:
        """Return what the chat template of ``model`` supports; loads the model."""
        async for _ in self.prepare(model, "chat"):
            pass
        writer = cast("TextGenerator", await asyncio.to_thread(self._model, "writer", model))
        return template_rules(writer.chat_template)

    def stream_chat(
        self, messages: Sequence[ChatMessage], model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        if any(message.images for message in messages):
            msg = f"{self.name}/{model} accepts only text."
            raise UnsupportedError(msg, hint="Use a provider with vision.", provider=self.name)
        if parameters.schema is not None:  # generation cannot be constrained to a schema
            messages = add_schema_to_prompt(messages, parameters.schema)
        plain = replace(parameters, schema=None)
        request = openai_chat.build_chat_request(messages, model, plain, thinking=TEMPLATE)
        options = request.get("chat_template_kwargs") or {}
        return self._stream(
            model,
            parameters,
            lambda writer: writer.chat_tokens(request["messages"], request.get("tools"), options),
        )

    def stream_completion(
        self, prompt: str, model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        return self._stream(model, parameters, lambda writer: writer.text_tokens(prompt))

    async def _stream(
        self, model: str, parameters: ModelParameters, read: Callable[[TextGenerator], Any]
    ) -> AsyncGenerator[StreamChunk, None]:
        async for _ in self.prepare(model, "chat"):
            pass
        writer = cast("TextGenerator", await asyncio.to_thread(self._model, "writer", model))
        bound = parameters.max_tokens or self.config.max_tokens
        parameters = parameters.with_bound(bound)
        pieces: asyncio.Queue[tuple[float, str] | None] = asyncio.Queue()
        loop, stopped, clock = asyncio.get_running_loop(), threading.Event(), time.perf_counter
        started = clock()

        def say(text: str) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, (clock() - started, text))

        def write() -> GenerationResult:
            try:
                return writer.write(read(writer), parameters, say, stopped)
            finally:  # on failure too: the consumer must not block on the next piece
                loop.call_soon_threadsafe(pieces.put_nowait, None)

        writing = asyncio.ensure_future(asyncio.to_thread(write))
        try:
            while (piece := await pieces.get()) is not None:
                yield StreamChunk(piece[1], "", piece[0])
            written = await writing
        except ProviderError as error:
            error.provider, error.model = self.name, model
            raise
        except Exception as error:  # templates and models may raise any exception
            first = str(error).strip().partition("\n")[0][:300]
            msg = f"{self.name}/{model}: {first}"
            raise ProviderError(msg, provider=self.name, model=model) from error
        finally:
            stopped.set()
            if not writing.done():
                await asyncio.shield(_join_thread(writing))
        usage = Usage(written.input_tokens, written.output_tokens)
        yield StreamChunk("", "", clock() - started, written.finish_reason, usage)

    async def close(self) -> None:
        """Drop all loaded models."""
        self._closed += 1
        self._loaded.clear()

    def _model(self, kind: str, model: str) -> TextGenerator | Embedder:
        """Return the loaded model; concurrent callers share one load."""
        with self._loading:
            found: TextGenerator | Embedder | None = self._loaded.get((kind, model))
            if found is None:
                closed = self._closed
                found = self._load(kind, model)
                if closed == self._closed:  # otherwise it would stay in memory after close()
                    self._loaded[kind, model] = found
            return found

    def _load(self, kind: str, model: str) -> TextGenerator | Embedder:
        from llm_magics.providers.huggingface.inference import Embedder, TextGenerator

        path = find_on_disk(model)
        if path is None:
            raise self._unknown(model, [])
        folder, gguf_file = (path.parent, path.name) if path.is_file() else (path, None)
        try:
            if kind == "embedder":
                return Embedder(folder, self.config.pooling)
            return TextGenerator(folder, gguf_file)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            first = reason_of(error).partition("\n")[0][:200]
            msg = f"Transformers could not load {model}: {first}"
            hint = "Check that the model is complete and supports this task."
            raise WeightsError(msg, hint=hint, provider=self.name, model=model) from error

    def _need_packages(self, model: str) -> None:
        missing = missing_packages()
        if missing:
            msg = f"{self.name} runs on Transformers, and {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing."
            hint = f"Run: pip install {' '.join(missing)}"
            raise ConfigurationError(msg, hint=hint, provider=self.name, model=model)

    def _unknown(self, model: str, known: list[str]) -> ModelNotFoundError:
        msg = f"No model at {model}."
        hint = f"{nearest(model, known, listed=False)} Use OWNER/NAME of the Hugging Face hub, or a path.".strip()
        return ModelNotFoundError(msg, hint=hint, provider=self.name, model=model)


async def _join_thread(writing: asyncio.Future[GenerationResult]) -> None:
    """Wait until the thread has noticed the stop event, which takes at most one token."""
    await asyncio.wait([writing])
    if not writing.cancelled():
        writing.exception()


def _model_identity(model: str) -> str:
    """Return the model's folder in the hub's cache, or a path with its modification time."""
    path = Path(model).expanduser()
    if path.exists():
        return f"{path.resolve()} {path.stat().st_mtime_ns}"
    return str(hf_hub.cached_folder(model)) if find_spec("huggingface_hub") else ""
