"""
The provider of Ollama, through its own API: on this machine, another one, or ollama.com.

``OLLAMA_HOST`` is the server's address, in all forms that Ollama accepts; ``OLLAMA_API_KEY`` is the
key, if it requires one. Source: ``docs/api.md`` of ollama, and traffic of 0.24 and 0.30 servers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any

from llm_magics.errors import (
    ConnectionError,
    ContextLengthError,
    ProviderError,
    UnsupportedError,
)
from llm_magics.host import Progress, warn
from llm_magics.http import BodyLimits
from llm_magics.parameters import ModelParameters
from llm_magics.providers.base import TEXT_CAPABILITIES, ModelInfo
from llm_magics.providers.media import AcceptedMedia
from llm_magics.providers.ollama.dialect import (
    THINKING_RULES,
    CapabilityCache,
    OllamaConfig,
    PullTracker,
    check_options,
    map_ollama_error,
    may_be_full,
    move_options,
    parse_host,
    truncates_silently,
)
from llm_magics.providers.parameter_fallback import SchemaFallback
from llm_magics.providers.remote import RemoteProvider
from llm_magics.providers.streaming import DecoderFactory, LoadingNotice
from llm_magics.types import (
    ChatMessage,
    Embeddings,
    PackedVectors,
    StreamChunk,
    remove_foreign_reasoning,
)
from llm_magics.wire import ollama as wire
from llm_magics.wire.decoders import NewlineSplitter
from llm_magics.wire.schema_dialects import GRAMMAR
from llm_magics.wire.thinking import ThinkingRules, find_rules
from llm_magics.wire.tool_calls import collect_call_ids

_LONG_TEXT_HINT = (
    'Embed its beginning with too_long="truncate", or the mean of its parts with '
    'too_long="chunk-mean"; or use a model with a longer context.'
)

# Suffixes of the names of models that run on Ollama's servers and are billed.
_CLOUD_SUFFIXES = (":cloud", "-cloud")

# The time, in seconds, for which digests of models are cached.
_DIGESTS_TTL_S = 30.0


class OllamaProvider(RemoteProvider):
    """The provider of an Ollama server."""

    name = "ollama"
    config_type = OllamaConfig
    capabilities = (*TEXT_CAPABILITIES, "logprobs", "pull", "delete")
    truncates_texts = True
    start = "ollama serve"
    key_variable = "OLLAMA_API_KEY"
    environment = ("OLLAMA_API_KEY", "OLLAMA_HOST")
    usual_address = parse_host("")
    start_hint = f"Start it with: {start}. For another address set OLLAMA_HOST."
    config: OllamaConfig

    def __init__(self, config: OllamaConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self._capabilities = CapabilityCache(self.show_model)
        self._digests: tuple[float, dict[str, str]] = (0.0, {})
        self._version = ""
        self._loading = LoadingNotice(self._size_and_place)
        self._bindings = SchemaFallback()

    async def prepare(self, model: str, capability: str) -> AsyncGenerator[Progress, None]:
        """Report that the server is loading ``model``."""
        if (progress := await self._loading.of(self.bare(model))) is not None:
            yield progress

    async def _size_and_place(self, model: str) -> ModelInfo | None:
        tags, loaded = await asyncio.gather(self._tags(), self.running_models())
        name = model if ":" in model else f"{model}:latest"
        tag = next((each for each in tags if each["name"] == name), None)
        if tag is None or model.endswith(_CLOUD_SUFFIXES):
            return None
        in_memory = any(each["name"] == name for each in loaded)
        return ModelInfo(model, size_bytes=tag.get("size"), loaded=in_memory)

    async def initialize(self) -> bool:
        return bool((await self.health_check())["status"] == "ok")

    async def list_models(self) -> list[str]:
        tags = await self._tags()
        with self._reading():
            return [tag["name"] for tag in tags]

    def is_free(self, model: str) -> bool:
        is_ones_own = not self._has_credential
        return is_ones_own and not model.endswith(_CLOUD_SUFFIXES)

    async def identity(self, model: str) -> str:
        return f"{await super().identity(model)} {await self.digest(model)}"

    async def former_identity(self, model: str) -> str:
        return f"{await super().former_identity(model)} {await self.digest(model)}"

    async def digest(self, model: str) -> str:
        name = model if ":" in model else f"{model}:latest"
        read_at, digests = self._digests
        if time.monotonic() - read_at > _DIGESTS_TTL_S or name not in digests:
            await self._tags()
            _, digests = self._digests
        return digests.get(name, "")

    async def describe_models(self) -> list[ModelInfo]:
        tags, loaded = await asyncio.gather(self._tags(), self.running_models())
        capabilities = await self._capabilities.of_all(tags)
        in_memory = {model["name"] for model in loaded}
        return [
            ModelInfo(
                tag["name"],
                able,
                (tag.get("details") or {}).get("context_length"),
                tag.get("size"),
                pulled=True,
                loaded=tag["name"] in in_memory,
            )
            for tag, able in zip(tags, capabilities, strict=True)
        ]

    async def _health(self) -> dict[str, Any]:
        version = await self.version()
        models = await self.running_models()
        with self._reading():
            loaded = [model["name"] for model in models]
        detail = f"Ollama {version} at {self.address}"
        return {"detail": detail, "version": version, "loaded": loaded}

    async def version(self) -> str:
        """Return the server's version."""
        return str(
            (await self._object("GET", "/api/version")).get("version", "of unknown version")
        )

    async def running_models(self) -> list[dict[str, Any]]:
        """Return the models in memory, as the server describes them."""
        return await self._models("/api/ps")

    async def show_model(self, model: str) -> dict[str, Any]:
        """Return everything that the server reports about ``model``."""
        model = self.bare(model)
        return await self._object("POST", "/api/show", {"model": model}, model)

    async def load_model(self, model: str) -> None:
        """Load ``model`` into memory."""
        model = self.bare(model)
        body = {"model": model, "messages": [], "stream": False, **self._keep_alive_field()}
        await self._object("POST", "/api/chat", body, model)

    async def unload_model(self, model: str) -> None:
        """Unload ``model`` from memory."""
        model = self.bare(model)
        body = {"model": model, "messages": [], "stream": False, "keep_alive": 0}
        await self._object("POST", "/api/chat", body, model)

    async def pull_model(self, model: str) -> AsyncGenerator[Progress, None]:
        """Download ``model``. The next pull resumes an interrupted one."""
        model = self.bare(model)
        lines, sizes = NewlineSplitter(), PullTracker(self.name, model)
        try:
            limits = BodyLimits(total=None)  # a download may take hours
            requested = {"model": model}
            async with self._transport.stream(
                "POST", "/api/pull", requested, limits=limits
            ) as stream:
                if not stream.ok:
                    reply = await stream.reply()
                    error = self._error(reply.json(), reply.status, reply.headers, model)
                    raise await self._explained(error)
                elapsed_s = 0.0
                async with aclosing(stream.blocks) as blocks:
                    async for elapsed_s, block in blocks:
                        for progress in self._progress(sizes, lines.feed(block), elapsed_s):
                            yield progress
                for progress in self._progress(sizes, lines.flush(), elapsed_s):
                    yield progress
        except ConnectionError as error:
            raise self._unreachable(error) from None
        if not sizes.succeeded:
            msg = f"The server ended the download of {model} before it was complete."
            raise ConnectionError(
                msg, hint="Pull it again; the download resumes.", provider=self.name
            )

    def _progress(
        self, sizes: PullTracker, lines: list[bytes], elapsed_s: float
    ) -> list[Progress]:
        with self._reading():
            return [sizes.after(line, elapsed_s) for line in lines if line.strip()]

    async def delete_model(self, model: str) -> None:
        """Delete ``model`` from the server."""
        model = self.bare(model)
        await self._send("DELETE", "/api/delete", {"model": model}, model)

    async def generate_embeddings(self, texts: Sequence[str], model: str) -> list[list[float]]:
        return await self._embedded(texts, model)

    async def generate_shortened(
        self, texts: Sequence[str], model: str, dimensions: int
    ) -> PackedVectors:
        return PackedVectors.of(await self._embedded(texts, model, dimensions))

    async def generate_truncated(
        self, texts: Sequence[str], model: str, dimensions: int | None = None
    ) -> PackedVectors:
        return PackedVectors.of(await self._embedded(texts, model, dimensions, truncate=True))

    async def _embedded(
        self,
        texts: Sequence[str],
        model: str,
        dimensions: int | None = None,
        *,
        truncate: bool = False,
    ) -> list[list[float]]:
        model = self.bare(model)
        if not texts:
            return []
        if "embeddings" not in (capabilities := await self._abilities_of(model)) and capabilities:
            # The server returns its hidden states, which are a poor measure of similarity.
            msg = f"{self.name}/{model} is not an embedding model: its vectors are a poor measure of similarity."
            warn(msg)
        body = {
            **wire.build_embed_request(texts, model, dimensions, truncate=truncate),
            **self._keep_alive_field(),
        }
        try:
            reply = await self._object("POST", "/api/embed", body, model)
        except ContextLengthError as error:  # num_ctx does not help: this is the model's own limit
            raise ContextLengthError(
                str(error),
                hint=_LONG_TEXT_HINT,
                provider=self.name,
                model=model,
                status=error.status,
                body=error.body,
            ) from None
        with self._reading(retryable=True):
            vectors: Embeddings = wire.parse_embeddings(reply)
        if len(vectors) != len(texts):  # the server drops empty texts
            msg = f"{self.name}/{model} returned {len(vectors)} vectors for {len(texts)} texts."
            raise ProviderError(
                msg,
                hint="Remove empty texts.",
                provider=self.name,
                model=model,
                retryable=True,
            )
        return vectors

    def stream_chat(
        self, messages: Sequence[ChatMessage], model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        has_images = any(message.images for message in messages)
        path, headers = "/api/chat", parameters.extra_headers
        origin = f"ollama {self.address} {model}"
        messages = remove_foreign_reasoning(messages, origin)
        has_tools = bool(parameters.tools)

        def ask(
            conversation: Sequence[ChatMessage], options: ModelParameters
        ) -> AsyncGenerator[StreamChunk, None]:
            body = wire.build_chat_request(conversation, model, options)

            def create_decoder() -> wire.ChunkDecoder:
                call_ids = collect_call_ids(conversation)
                return wire.ChunkDecoder(call_ids, origin, has_tools=has_tools)

            return self._stream(
                path, body, model, headers, create_decoder, needs_vision=has_images
            )

        return self._bindings.stream((path, model), messages, parameters, GRAMMAR, ask)

    def stream_completion(
        self, prompt: str, model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        body = wire.build_generate_request(prompt, model, parameters)
        return self._stream("/api/generate", body, model, parameters.extra_headers)

    async def _stream(  # noqa: PLR0913 (the properties of one request)
        self,
        path: str,
        body: dict[str, Any],
        model: str,
        headers: Mapping[str, str],
        create_decoder: DecoderFactory = wire.ChunkDecoder,
        *,
        needs_vision: bool = False,
    ) -> AsyncGenerator[StreamChunk, None]:
        body = self._with_settings(body)
        if needs_vision and "vision" not in await self._abilities_of(model):
            # The server would silently drop the image, and the model would invent an answer.
            msg = f"{self.name}/{model} does not accept images."
            raise UnsupportedError(msg, hint="Use a model with vision.", provider=self.name)
        chunks = self._chunks(path, body, model, create_decoder, headers)
        has_answered = False
        try:
            async for chunk in chunks:
                has_answered = has_answered or chunk.has_tokens or bool(chunk.tool_calls)
                yield chunk
                if chunk.finish_reason:
                    await self._warn_of_cut(body, model, chunk, has_answered)
        finally:
            await chunks.aclose()

    async def _warn_of_cut(
        self, body: dict[str, Any], model: str, last: StreamChunk, has_answered: bool
    ) -> None:
        """Warn if an old server, which cannot refuse a long prompt, may have truncated it."""
        read = last.usage.input_tokens if last.usage else None
        if body.get("truncate") is not False or (has_answered and not may_be_full(read)):
            return
        if not truncates_silently(await self._known_version()):
            return
        if not has_answered:
            msg = (
                f"{self.name}/{model} returned an empty answer after reading {read} tokens. If the prompt "
                "was longer, the server truncated it: raise num_ctx, or update Ollama."
            )
        elif read == await self._context(body, model):
            msg = (
                f"{self.name}/{model} read {read} tokens, its whole context: the server may have "
                "truncated the prompt. Raise num_ctx, or update Ollama."
            )
        else:
            return
        warn(msg)

    async def _known_version(self) -> str:
        """Return the server's version, requested once; empty if it is unknown."""
        if not self._version:
            with suppress(ProviderError):
                self._version = await self.version()
        return self._version

    async def _context(self, body: dict[str, Any], model: str) -> int | None:
        """Return the context of the loaded model in tokens, as requested or as reported."""
        requested = body.get("options", {}).get("num_ctx")
        if requested is not None:
            return int(requested)
        try:
            loaded = await self.running_models()
        except ProviderError:
            return None
        full = model if ":" in model else f"{model}:latest"
        return next((each.get("context_length") for each in loaded if each["name"] == full), None)

    def _with_settings(self, body: dict[str, Any]) -> dict[str, Any]:
        body = move_options(body)
        options = {"num_ctx": self.config.num_ctx} if self.config.num_ctx else {}
        options |= body.get("options", {})
        check_options(options)
        return {**self._keep_alive_field(), **body, **({"options": options} if options else {})}

    def _keep_alive_field(self) -> dict[str, Any]:
        keep_alive = self.config.keep_alive
        return {} if keep_alive is None else {"keep_alive": keep_alive}

    async def thinking_rules(self, model: str) -> ThinkingRules:
        # A server refuses a level for a model that does not think, and ignores "off".
        return find_rules(THINKING_RULES, model)

    async def accepted_media(self, model: str) -> AcceptedMedia:
        return AcceptedMedia(images="vision" in await self._abilities_of(self.bare(model)))

    async def _abilities_of(self, model: str) -> tuple[str, ...]:
        return await self._capabilities.of(model, await self.digest(model))

    async def _tags(self) -> list[dict[str, Any]]:
        tags = await self._models("/api/tags")
        digests = {tag["name"]: str(tag.get("digest") or "") for tag in tags}
        self._digests = (time.monotonic(), digests)
        return tags

    async def _models(self, path: str) -> list[dict[str, Any]]:
        reply = await self._object("GET", path)
        models = reply.get("models") or []
        if not isinstance(models, list) or not all(map(_is_named, models)):
            raise self._foreign(reply)
        return models

    def _refused(
        self, body: Any, status: int | None, headers: Mapping[str, str], model: str
    ) -> ProviderError:
        return map_ollama_error(body, status, headers, self.name, model)


def _is_named(model: Any) -> bool:
    """Return whether an entry of a list describes a model with a name."""
    return isinstance(model, dict) and isinstance(model.get("name"), str) and model["name"] != ""
