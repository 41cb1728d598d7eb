"""
The interface of providers: six methods that all must implement, and optional ones.

A third party registers a subclass under the entry-point group ``llm_magics.providers``.
`StreamingProvider` requires fewer methods: it builds complete answers from streams.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, wraps
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, Self

from llm_magics._util.text import replace_lone_surrogates
from llm_magics.attachments import Transcript
from llm_magics.errors import ProviderError, StreamInterrupted, UnsupportedError
from llm_magics.host import Progress
from llm_magics.parameters import ModelParameters
from llm_magics.providers.configs import ProviderConfig, resolve_config
from llm_magics.providers.logprobs import PROVIDERS_WITH_LOGPROBS, require_logprobs
from llm_magics.providers.media import AcceptedMedia
from llm_magics.providers.model_catalog import ModelInfo
from llm_magics.providers.searching import explain_search_refusal, searching_providers
from llm_magics.providers.thinking import ThinkingFallback
from llm_magics.providers.tiers import require_tier
from llm_magics.secrets import environment_value, scrub
from llm_magics.types import ChatMessage, ModelResponse, PackedVectors, StreamChunk, messages_of
from llm_magics.wire.decoders import ThinkTags, join_surrogates, move_citations
from llm_magics.wire.thinking import NO_THINKING, UNKNOWN_RULES, ThinkingRules

if TYPE_CHECKING:
    from llm_magics.providers.batches.service import BatchService

__all__ = ["CAPABILITIES", "TEXT_CAPABILITIES", "Answer", "BaseModelProvider", "ModelInfo", "ProviderConfig", "StreamingProvider", "as_stream"]  # fmt: skip

# Capabilities of models that read and write text, and all capabilities, as shown to users.
TEXT_CAPABILITIES = ("chat", "completion", "embeddings", "vision", "tools", "schema", "reasoning")
CAPABILITIES = (*TEXT_CAPABILITIES, "logprobs", "choices", "documents", "audio", "search", "images", "transcription", "pull", "delete")  # fmt: skip

Answer = ModelResponse | AsyncGenerator[StreamChunk, None]


# Former names of attributes of providers and models, with the current ones.
_RENAMED = {
    "abilities": "capabilities",
    "embeds_at_once": "embedding_concurrency",
    "for_namesake": "for_named_instance",
    "namesake_key_variable": "named_key_variable",
    "texts_at_once": "embedding_batch_size",
}


def _accept_all_forms(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``method``, which then also accepts messages as mappings, and optional parameters."""

    @wraps(method)
    async def generate(
        self: BaseModelProvider, prompt: Any = None, /, *arguments: Any, **named: Any
    ) -> Any:
        if prompt is None:
            prompt = named.pop("messages") if "messages" in named else named.pop("prompt")
        model, *rest = (*arguments, named.pop("model")) if "model" in named else arguments
        parameters = ModelParameters.of(rest[0] if rest else named.pop("parameters", None))
        if parameters.search:
            self.require_search()
        if not isinstance(prompt, str):
            prompt = messages_of(prompt)
        if parameters.logprobs is not None and "logprobs" not in self.capabilities:
            self._cannot("return log probabilities", PROVIDERS_WITH_LOGPROBS)
        if parameters.tier:
            require_tier(parameters.tier, self.name, self.tiers, method.__name__)
        if parameters.choices and "choices" not in self.capabilities:
            self._cannot("score choices", "local")
        answer = method(self, prompt, model, parameters, *rest[1:], **named)
        return await answer if isawaitable(answer) else answer

    return generate


class BaseModelProvider(ABC):
    """A service that runs models."""

    # The class's default; an instance that a settings file names has the name from the file.
    name: str
    config_type: ClassVar[type[ProviderConfig]] = ProviderConfig
    # What it can do with at least one model, from `CAPABILITIES`; a single model may support less.
    capabilities: tuple[str, ...] = ()
    # Its cheaper tiers for chats, such as ``flex``.
    tiers: tuple[str, ...] = ()
    # What a user must do first, except setting a key, in a few words; empty if nothing.
    start: ClassVar[str] = ""
    # The environment variable with the user's key; empty if there is none.
    key_variable: str = ""
    # The number of texts in one embedding request, and of such requests at the same time.
    embedding_batch_size: int = 256
    embedding_concurrency: ClassVar[int] = 4
    # Whether the service itself can embed only the beginning of a text that is too long.
    truncates_texts: ClassVar[bool] = False
    # The environment variables that its settings depend on; a change replaces the provider.
    environment: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: ProviderConfig | Mapping[str, Any] | None = None) -> None:
        self.config = resolve_config(self.name, self.config_type, config)

    def __init_subclass__(cls, **options: Any) -> None:
        """Make the methods of every provider accept messages and parameters in all their forms."""
        super().__init_subclass__(**options)
        for name in _RENAMED.keys() & vars(cls):
            msg = f"{cls.__name__}.{name} was renamed to {_RENAMED[name]}."
            raise TypeError(msg)
        for name in ("generate_chat", "generate_completion"):
            if name in vars(cls):
                setattr(cls, name, _accept_all_forms(vars(cls)[name]))

    @classmethod
    def own_key_source(cls) -> str:
        """Return the source of the user's key, in words; empty if none is set."""
        return cls.key_variable if environment_value(cls.key_variable) else ""

    @property
    def address(self) -> str:
        """The address of the service; empty if it is this machine."""
        return ""

    @property
    def price_list(self) -> str:
        """The name under which its prices are published; empty if it follows from ``address``."""
        return ""

    def is_free(self, model: str) -> bool:
        """Return whether ``model`` is free to use, because it runs on the user's own machine."""
        return False

    def batches_may_differ(self, model: str) -> bool:
        """Return whether a vector may depend on its batch, and whether testing this is free."""
        return self.is_free(model)

    def known(self, model: str) -> ModelInfo:
        """Return the known facts about ``model`` without sending a request."""
        return ModelInfo(model)

    def output_limit(self, model: str, parameters: ModelParameters) -> int | None:
        """Return the limit of output tokens that is sent, which may add a budget for thinking."""
        return parameters.max_tokens

    async def accepted_media(self, model: str) -> AcceptedMedia:
        """Return the files that ``model`` accepts in a prompt; documents are otherwise sent as text."""
        can = self.known(model).capabilities
        return AcceptedMedia(images="vision" in can if can else None)

    async def digest(self, model: str) -> str:
        """Return the digest of the model's weights; empty if there is none."""
        return ""

    async def identity(self, model: str) -> str:
        """Return what distinguishes ``model`` from others of its name: its address and weights."""
        return self.address

    async def former_identity(self, model: str) -> str:
        """Return what earlier versions returned as `identity`, to find the answers they stored."""
        return await self.identity(model)

    @property
    def is_set_up(self) -> bool:
        """Whether the user has set the required address or key, if any."""
        return True

    @abstractmethod
    async def initialize(self) -> bool:
        """Return whether the provider can be used at all. This is fast and loads no model."""

    @abstractmethod
    async def list_models(self) -> list[str]:
        """Return the names of its models, without the provider's name."""

    @abstractmethod
    async def generate_chat(
        self,
        messages: Sequence[ChatMessage | Mapping[str, Any]],
        model: str,
        parameters: ModelParameters | Mapping[str, Any] | None = None,
    ) -> Answer:
        """Answer a conversation: completely, or as a stream if ``parameters.stream``."""

    @abstractmethod
    async def generate_completion(
        self,
        prompt: str,
        model: str,
        parameters: ModelParameters | Mapping[str, Any] | None = None,
    ) -> Answer:
        """Continue a raw text: completely, or as a stream if ``parameters.stream``."""

    @abstractmethod
    async def generate_embeddings(self, texts: Sequence[str], model: str) -> list[list[float]]:
        """Return one vector per text, in the same order."""

    async def generate_packed(self, texts: Sequence[str], model: str) -> PackedVectors:
        """Like `generate_embeddings`, but without a Python object for each number."""
        return PackedVectors.of(await self.generate_embeddings(texts, model))

    async def generate_shortened(
        self, texts: Sequence[str], model: str, dimensions: int
    ) -> PackedVectors:
        """Like `generate_packed`, with vectors that the service shortens to ``dimensions``."""
        self._cannot("shorten vectors", "openai, ollama")

    async def generate_truncated(
        self, texts: Sequence[str], model: str, dimensions: int | None = None
    ) -> PackedVectors:
        """Like `generate_packed`, but embed only the beginning of texts that are too long."""
        self._cannot("truncate long texts", "ollama")

    @abstractmethod
    async def health_check(self) -> dict[str, Any]:
        """Return ``{"status": "ok" or "unavailable", "detail": in words, …}``; always free."""

    async def describe_models(self) -> list[ModelInfo]:
        """Return its models with the known facts about them."""
        return [ModelInfo(name) for name in await self.list_models()]

    async def prepare(self, model: str, capability: str) -> AsyncGenerator[Progress, None]:
        """Do what ``model`` needs once before its first use, and yield the progress."""
        return
        yield

    async def pull_model(self, model: str) -> AsyncGenerator[Progress, None]:
        """Download ``model`` so that it can be used, and yield the progress."""
        self._cannot("pull models", "local, ollama, lmstudio, huggingface-local")
        yield

    async def delete_model(self, model: str) -> None:
        """Delete the weights of ``model``."""
        self._cannot("delete models", "local, ollama, huggingface-local")

    async def generate_image(self, prompt: str, model: str, **options: Any) -> list[bytes]:
        """Return images of ``prompt``, each as the bytes of a file."""
        self._cannot("make images", "openai")

    async def transcribe(self, audio: bytes, model: str, **options: Any) -> Transcript:
        """Return the transcript of ``audio``, the bytes of a file."""
        self._cannot("transcribe audio", "openai")

    def batch_service(self) -> BatchService:
        """Return the service's API for jobs of many requests."""
        others = "openai, azure, anthropic, gemini, mistral, groq, together, openrouter"
        self._cannot("run batch jobs", others)

    async def close(self) -> None:  # noqa: B027 (most have nothing to close)
        """Release all resources. A closed provider can be used again."""

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def bare(self, model: str) -> str:
        """Return ``model`` without the prefix of this provider."""
        return model.removeprefix(f"{self.name}/")

    def require_search(self) -> None:
        """Raise `UnsupportedError` if no model of the provider searches the web."""
        if "search" not in self.capabilities:
            self._cannot("search the web", ", ".join(searching_providers()))

    def _cannot(self, what: str, who_can: str = "") -> NoReturn:
        msg = f"The provider {self.name} does not {what}."
        hint = f"Use one of: {who_can}." if who_can else None
        raise UnsupportedError(msg, hint=hint, provider=self.name)


class StreamingProvider(BaseModelProvider):
    """
    A provider that always streams; a complete answer is an accumulated stream.

    ``writes_thinking`` says whether its models may write ``<think>`` tags into their answers. Their
    content is then separated from the text.
    """

    writes_thinking: ClassVar[bool] = True

    @abstractmethod
    def stream_chat(
        self, messages: Sequence[ChatMessage], model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        """Yield the chunks of the answer to a conversation as they arrive."""

    @abstractmethod
    def stream_completion(
        self, prompt: str, model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        """Yield the chunks of the continuation of a raw text as they arrive."""

    async def generate_chat(
        self,
        messages: Sequence[ChatMessage | Mapping[str, Any]],
        model: str,
        parameters: ModelParameters | Mapping[str, Any] | None = None,
    ) -> Answer:
        model, parameters = self.bare(model), ModelParameters.of(parameters)
        turns = messages_of(messages)
        if parameters.reasoning is None:
            chunks = self.stream_chat(turns, model, parameters)
        else:
            rules = await self.thinking_rules(model)
            chunks = self._thinking.stream(
                model, parameters, rules, lambda options: self.stream_chat(turns, model, options)
            )
        if parameters.search:
            chunks = explain_search_refusal(chunks)
        return await self._answer(chunks, model, parameters, self.writes_thinking)

    @cached_property
    def _thinking(self) -> ThinkingFallback:
        return ThinkingFallback(self.name)

    async def thinking_rules(self, model: str) -> ThinkingRules:
        """Return the known facts about the thinking of ``model``."""
        capabilities = self.known(model).capabilities
        can_chat = "chat" in capabilities
        return NO_THINKING if can_chat and "reasoning" not in capabilities else UNKNOWN_RULES

    async def generate_completion(
        self,
        prompt: str,
        model: str,
        parameters: ModelParameters | Mapping[str, Any] | None = None,
    ) -> Answer:
        model, parameters = self.bare(model), ModelParameters.of(parameters)
        if parameters.search:
            self._cannot("search the web while it continues raw text")
        chunks = self.stream_completion(prompt, model, parameters)
        return await self._answer(chunks, model, parameters)

    async def _answer(
        self,
        chunks: AsyncGenerator[StreamChunk, None],
        model: str,
        parameters: ModelParameters,
        writes_thinking: bool = False,
    ) -> Answer:
        guarded = self._guarded(chunks, model, writes_thinking=writes_thinking)
        if parameters.logprobs is not None:
            guarded = require_logprobs(guarded, self.name, model)
        if parameters.stream:
            return guarded
        return ModelResponse.of(
            [chunk async for chunk in guarded], model=model, provider=self.name
        )

    async def _guarded(
        self, chunks: AsyncGenerator[StreamChunk, None], model: str, *, writes_thinking: bool
    ) -> AsyncGenerator[StreamChunk, None]:
        """Yield ``chunks``; an error after the first token contains the partial answer."""
        received: list[StreamChunk] = []
        thinking: ThinkTags | None = None
        halves, removed = ("", ""), 0
        try:
            async for chunk in chunks:
                if writes_thinking and not received:
                    thinking = ThinkTags()
                chunk = _check_types(chunk)
                if thinking is not None:
                    chunk = thinking.split(chunk)
                    removed = thinking.removed
                    if thinking.is_past:
                        thinking = None
                chunk = move_citations(chunk, -removed) if removed else chunk
                if any(halves) or not (chunk.text.isascii() and chunk.reasoning.isascii()):
                    chunk, halves = join_surrogates(chunk, halves)
                received.append(chunk)
                yield chunk
            if thinking is not None and (rest := thinking.flush()).has_tokens:
                yield rest
        except Exception as error:
            if thinking is not None:
                received.append(thinking.flush())
            partial = ModelResponse.of(received, model=model, provider=self.name)
            if isinstance(error, StreamInterrupted) or not (
                partial.text or partial.reasoning or partial.tool_calls
            ):
                raise
            raise self._interrupted(error, partial) from error
        finally:
            await chunks.aclose()

    def _interrupted(self, error: Exception, partial: ModelResponse) -> StreamInterrupted:
        cause = error if isinstance(error, ProviderError) else ProviderError(repr(error))
        changes = {"provider": self.name, "model": partial.model, "retryable": True}
        msg = f"The answer of {self.name}/{partial.model} was interrupted: {cause}"
        hint = "The partial answer is in the error's .partial. Run the cell again."
        details = {**cause.details(), **changes}
        return StreamInterrupted(msg, hint=hint, partial=partial, **details)


async def as_stream(answer: ModelResponse) -> AsyncGenerator[StreamChunk, None]:
    """Yield a complete answer, from a provider that cannot stream, as the only chunk of a stream."""
    yield StreamChunk(
        answer.text,
        answer.reasoning,
        finish_reason=answer.finish_reason or "stop",
        usage=answer.usage,
        timings=answer.timings,
        raw=answer.raw,
        tool_calls=answer.tool_calls,
        reasoning_blocks=answer.reasoning_blocks,
        logprobs=answer.logprobs,
        citations=answer.citations,
        searches=answer.searches,
        request_id=answer.request_id,
    )


def _check_types(chunk: StreamChunk) -> StreamChunk:
    """Return the chunk if its fields have the declared types; otherwise raise `ProviderError`."""
    if type(chunk.text) is str and type(chunk.reasoning) is str:
        if chunk.finish_reason is None and not (chunk.reasoning_blocks or chunk.tool_calls):
            return chunk  # the usual case
        return _check_fields(chunk)
    sent = chunk.text if type(chunk.text) is not str else chunk.reasoning
    msg = f"The service sent {type(sent).__name__} instead of text."
    raise ProviderError(msg, hint="Run the cell again.", body=chunk.raw)


def _check_fields(chunk: StreamChunk) -> StreamChunk:
    """
    Return the chunk if its fields other than text have the declared types; else raise
    `ProviderError`.

    A key that the service repeats in the finish reason or in the id or name of a call is masked.
    """
    reason = chunk.finish_reason
    if reason is not None and not isinstance(reason, str):
        msg = f"The service sent {type(reason).__name__} as the finish reason."
        raise ProviderError(msg, hint="Run the cell again.", retryable=True, body=chunk.raw)
    if not all(isinstance(each, Mapping) for each in chunk.reasoning_blocks):
        msg = "The service sent a block of reasoning that is not an object."
        raise ProviderError(msg, hint="Run the cell again.", retryable=True, body=chunk.raw)
    calls = tuple(
        replace(call, id=scrub(call.id), name=scrub(call.name)) for call in chunk.tool_calls
    )
    reason = scrub(replace_lone_surrogates(reason)) if reason else reason
    return chunk._replace(finish_reason=reason, tool_calls=calls)
