"""
The interface of providers: six methods that all have, and a few that some have.

A third party registers a subclass under the entry-point group ``llm_magics.providers``.
`StreamingProvider` needs less: it builds complete answers from streams.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from inspect import isawaitable
from typing import Any, ClassVar, NoReturn, Self

from llm_magics._util.text import count_or_none, replace_lone_surrogates
from llm_magics._util.validation import attribute_error
from llm_magics.attachments import Transcript
from llm_magics.errors import ProviderError, StreamInterrupted, UnsupportedError
from llm_magics.host import Progress
from llm_magics.parameters import ModelParameters
from llm_magics.providers.configs import ProviderConfig, resolve_config
from llm_magics.secrets import environment_value, scrub
from llm_magics.types import (
    ChatMessage,
    ModelResponse,
    PackedVectors,
    StreamChunk,
    messages_of,
    model_name,
)
from llm_magics.wire.decoders import ThinkTags, join_surrogates

__all__ = [
    "CAPABILITIES",
    "TEXT_CAPABILITIES",
    "Answer",
    "BaseModelProvider",
    "ModelInfo",
    "ProviderConfig",
    "StreamingProvider",
    "as_stream",
]

# Capabilities of models that read and write text, and all capabilities, as users see them.
TEXT_CAPABILITIES = ("chat", "completion", "embeddings", "vision", "tools", "schema", "reasoning")
CAPABILITIES = (*TEXT_CAPABILITIES, "images", "transcription", "pull", "delete")

Answer = ModelResponse | AsyncGenerator[StreamChunk, None]


# Names that attributes of providers and models had before the first release.
_RENAMED = {
    "abilities": "capabilities",
    "embeds_at_once": "embedding_concurrency",
    "for_namesake": "for_named_instance",
    "longest_answer": "max_output_tokens",
    "namesake_key_variable": "named_key_variable",
    "texts_at_once": "embedding_batch_size",
}


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """
    What is known of a model; ``None`` where it is not.

    Attributes:
        name: without the provider.
        capabilities: of ``chat``, ``completion``, ``embeddings``, ``vision``, ``tools`` …
        context: the limit of prompt plus answer, in tokens.
        size_bytes: of its weights on disk.
        pulled: whether it can be used without fetching anything.
        loaded: whether it is in memory now.
        input_usd, output_usd: its price in US dollars for a million tokens.
        cached_usd, written_usd: the same for a prompt read from the service's cache, and put there.
        max_output_tokens: in tokens.
    """

    name: str
    capabilities: tuple[str, ...] = ()
    context: int | None = None
    size_bytes: int | None = None
    pulled: bool | None = None
    loaded: bool | None = None
    input_usd: float | None = None
    output_usd: float | None = None
    max_output_tokens: int | None = None
    cached_usd: float | None = None
    written_usd: float | None = None

    def __getattr__(self, name: str) -> Any:
        raise attribute_error(self, name, _RENAMED)

    def __post_init__(self) -> None:
        """Replace invalid numbers by ``None``: a service may send anything."""
        for name in ("context", "size_bytes", "max_output_tokens"):
            object.__setattr__(self, name, count_or_none(getattr(self, name)))
        for name in ("input_usd", "output_usd", "cached_usd", "written_usd"):
            value = getattr(self, name)
            is_price = type(value) in (int, float) and 0 <= value < 2**63
            object.__setattr__(self, name, float(value) if is_price else None)
        object.__setattr__(self, "name", scrub(model_name(self.name)))
        names = [each for each in self.capabilities if isinstance(each, str)]
        object.__setattr__(self, "capabilities", tuple(map(replace_lone_surrogates, names)))


def _accept_all_forms(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``method`` with messages as mappings, and parameters as one or left out, too."""

    @wraps(method)
    async def generate(
        self: BaseModelProvider, prompt: Any = None, /, *arguments: Any, **named: Any
    ) -> Any:
        if prompt is None:
            prompt = named.pop("messages") if "messages" in named else named.pop("prompt")
        model, *rest = (*arguments, named.pop("model")) if "model" in named else arguments
        parameters = ModelParameters.of(rest[0] if rest else named.pop("parameters", None))
        if not isinstance(prompt, str):
            prompt = messages_of(prompt)
        answer = method(self, prompt, model, parameters, *rest[1:], **named)
        return await answer if isawaitable(answer) else answer

    return generate


class BaseModelProvider(ABC):
    """A service that runs models."""

    # A class's own; a provider that a settings file names has that name.
    name: str
    config_type: ClassVar[type[ProviderConfig]] = ProviderConfig
    # What it can do with some model of its, of `CAPABILITIES`; a model may do less.
    capabilities: ClassVar[tuple[str, ...]] = ()
    # What its user does first, in a few words, besides setting a key; nothing where nothing.
    start: ClassVar[str] = ""
    # The environment variable that holds the user's key, where there is one.
    key_variable: str = ""
    # So many texts in one request of vectors, and so many such requests at once.
    embedding_batch_size: ClassVar[int] = 256
    embedding_concurrency: ClassVar[int] = 4
    # Whether the service itself can embed the beginning of a text that is too long.
    truncates_texts: ClassVar[bool] = False
    # Variables that its settings may come from: when one changes, the provider is created again.
    environment: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: ProviderConfig | Mapping[str, Any] | None = None) -> None:
        self.config = resolve_config(self.name, self.config_type, config)

    def __init_subclass__(cls, **options: Any) -> None:
        """Have every provider take messages and parameters in all their forms."""
        super().__init_subclass__(**options)
        for name in _RENAMED.keys() & vars(cls):
            msg = f"{cls.__name__}.{name} was renamed to {_RENAMED[name]}."
            raise TypeError(msg)
        for name in ("generate_chat", "generate_completion"):
            if name in vars(cls):
                setattr(cls, name, _accept_all_forms(vars(cls)[name]))

    @classmethod
    def own_key_source(cls) -> str:
        """Where the user's key would be taken from, in words; nothing where there is none."""
        return cls.key_variable if environment_value(cls.key_variable) else ""

    @property
    def address(self) -> str:
        """The address of the service; empty if it is this machine."""
        return ""

    @property
    def price_list(self) -> str:
        """Under which service's name prices are published; nothing where ``address`` tells."""
        return ""

    def is_free(self, model: str) -> bool:
        """Whether asking ``model`` costs nothing, because it runs on the user's own machine."""
        return False

    def batches_may_differ(self, model: str) -> bool:
        """Whether a text's vector may be another in a batch, and it costs nothing to see."""
        return self.is_free(model)

    def known(self, model: str) -> ModelInfo:
        """What is known of ``model`` without asking anybody."""
        return ModelInfo(model)

    async def digest(self, model: str) -> str:
        """Return the digest of the model's weights, where there is one."""
        return ""

    async def identity(self, model: str) -> str:
        """What tells ``model`` from another of its name: where it is, and which weights."""
        return self.address

    async def former_identity(self, model: str) -> str:
        """What `identity` was in versions before, whose answers are still found."""
        return await self.identity(model)

    @property
    def is_set_up(self) -> bool:
        """Whether the user has said where it is or with what key, or need not."""
        return True

    @abstractmethod
    async def initialize(self) -> bool:
        """Whether the provider can be used at all; cheap, and no model is loaded."""

    @abstractmethod
    async def list_models(self) -> list[str]:
        """The names of its models, without the provider's."""

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
        """One vector per text, in their order."""

    async def generate_packed(self, texts: Sequence[str], model: str) -> PackedVectors:
        """The same as `generate_embeddings`, without a Python object for each number."""
        return PackedVectors.of(await self.generate_embeddings(texts, model))

    async def generate_shortened(
        self, texts: Sequence[str], model: str, dimensions: int
    ) -> PackedVectors:
        """The same as `generate_packed`, of vectors that the service itself shortens."""
        self._cannot("shorten vectors", "openai, ollama")

    async def generate_truncated(
        self, texts: Sequence[str], model: str, dimensions: int | None = None
    ) -> PackedVectors:
        """The same as `generate_packed`, of the beginning of texts that are too long."""
        self._cannot("truncate long texts", "ollama")

    @abstractmethod
    async def health_check(self) -> dict[str, Any]:
        """``{"status": "ok" or "unavailable", "detail": in words, …}``; never costs money."""

    async def describe_models(self) -> list[ModelInfo]:
        """Its models with what is known of them."""
        return [ModelInfo(name) for name in await self.list_models()]

    async def prepare(self, model: str, capability: str) -> AsyncGenerator[Progress, None]:
        """Do what is needed once before ``model`` can be used, and report its progress."""
        return
        yield

    async def pull_model(self, model: str) -> AsyncGenerator[Progress, None]:
        """Fetch ``model`` so that it can be used."""
        self._cannot("pull models", "local, ollama, lmstudio, huggingface-local")
        yield

    async def delete_model(self, model: str) -> None:
        """Delete the weights of ``model``."""
        self._cannot("delete models", "local, ollama, huggingface-local")

    async def generate_image(self, prompt: str, model: str, **options: Any) -> list[bytes]:
        """Pictures of ``prompt``, each as the bytes of a file."""
        self._cannot("make images", "openai")

    async def transcribe(self, audio: bytes, model: str, **options: Any) -> Transcript:
        """What is said in ``audio``, the bytes of a file."""
        self._cannot("transcribe audio", "openai")

    async def close(self) -> None:  # noqa: B027 (most hold nothing open)
        """Give back what is held open. A closed provider can be used again."""

    async def __aenter__(self) -> Self:
        await self.initialize()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def bare(self, model: str) -> str:
        """``model`` without this provider's own prefix."""
        return model.removeprefix(f"{self.name}/")

    def _cannot(self, what: str, who_can: str = "") -> NoReturn:
        msg = f"The provider {self.name} does not {what}."
        hint = f"Use one of: {who_can}." if who_can else None
        raise UnsupportedError(msg, hint=hint, provider=self.name)


class StreamingProvider(BaseModelProvider):
    """
    A provider that always streams; a complete answer is an accumulated stream.

    ``writes_thinking``: its models may write ``<think>`` into their answers, to be put apart.
    """

    writes_thinking: ClassVar[bool] = True

    @abstractmethod
    def stream_chat(
        self, messages: Sequence[ChatMessage], model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        """The answer to a conversation as it comes."""

    @abstractmethod
    def stream_completion(
        self, prompt: str, model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        """The continuation of a raw text as it comes."""

    async def generate_chat(
        self,
        messages: Sequence[ChatMessage | Mapping[str, Any]],
        model: str,
        parameters: ModelParameters | Mapping[str, Any] | None = None,
    ) -> Answer:
        model, parameters = self.bare(model), ModelParameters.of(parameters)
        chunks = self.stream_chat(messages_of(messages), model, parameters)
        return await self._answer(chunks, model, parameters, self.writes_thinking)

    async def generate_completion(
        self,
        prompt: str,
        model: str,
        parameters: ModelParameters | Mapping[str, Any] | None = None,
    ) -> Answer:
        model, parameters = self.bare(model), ModelParameters.of(parameters)
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
        if parameters.stream:
            return guarded
        return ModelResponse.of(
            [chunk async for chunk in guarded], model=model, provider=self.name
        )

    async def _guarded(
        self, chunks: AsyncGenerator[StreamChunk, None], model: str, *, writes_thinking: bool
    ) -> AsyncGenerator[StreamChunk, None]:
        """Yield ``chunks``; an error after the first token carries the partial answer."""
        received: list[StreamChunk] = []
        thinking: ThinkTags | None = None
        halves = ("", "")
        try:
            async for chunk in chunks:
                if writes_thinking and not received:
                    thinking = ThinkTags()
                chunk = _check_types(chunk)
                if thinking is not None:
                    chunk = thinking.split(chunk)
                    if thinking.is_past:
                        thinking = None
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
    )


def _check_types(chunk: StreamChunk) -> StreamChunk:
    """Return the chunk, if all that it has is of the promised types."""
    if type(chunk.text) is str and type(chunk.reasoning) is str:
        if chunk.finish_reason is None and not (chunk.reasoning_blocks or chunk.tool_calls):
            return chunk  # as nearly all pieces are
        return _check_fields(chunk)
    sent = chunk.text if type(chunk.text) is not str else chunk.reasoning
    msg = f"The service sent {type(sent).__name__} instead of text."
    raise ProviderError(msg, hint="Run the cell again.", body=chunk.raw)


def _check_fields(chunk: StreamChunk) -> StreamChunk:
    """
    Return the chunk, if what it has besides text is of the promised types.

    A key that the service repeats in its reason, or in the id of a call, is masked.
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
