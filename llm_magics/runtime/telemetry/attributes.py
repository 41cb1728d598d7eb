"""The attributes of a call, by the names of OpenTelemetry's conventions for generative AI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from llm_magics.errors import ProviderError
from llm_magics.parameters import ModelParameters
from llm_magics.providers.base import BaseModelProvider
from llm_magics.providers.services import find_service_at
from llm_magics.runtime.prompts.prompt import Prompt
from llm_magics.runtime.response import INTERRUPTED, Response
from llm_magics.secrets import scrub
from llm_magics.types import StreamChunk

Attributes = dict[str, Any]

# The names of providers in the conventions, where they differ from the names here.
_WELL_KNOWN = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "bedrock-anthropic": "aws.bedrock",
    "bedrock-mantle": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "vertex": "gcp.vertex_ai",
    "xai": "x_ai",
}

# The operations in the conventions, by the kinds of calls in the log. ``batch`` is not in them.
_OPERATIONS = {
    "chat": "chat",
    "embedding": "embeddings",
    "image": "generate_content",
    "transcription": "generate_content",
}
_OUTPUTS = {"image": "image", "transcription": "text"}

# Parameters of services that the conventions know, with the types of their values.
_SERVICE_PARAMETERS = {
    "frequency_penalty": float,
    "presence_penalty": float,
    "top_k": int,
}

# A value that is not content, such as a name, is cut to this length.
_MAX_LENGTH = 1000
_MAX_ITEMS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class CallDetails:
    """
    What is reported of a call in addition to its response.

    Attributes:
        parameters: the parameters as they were sent.
        thread: the name of the conversation.
        chunks: the chunks of the answer.
        dimensions: the dimensions of the vectors.
        prompt_name: the name of the prompt file.
        prompt_digest: the digest of the prompt file.
    """

    parameters: ModelParameters | None = None
    thread: str | None = None
    chunks: Sequence[StreamChunk] = ()
    dimensions: int | None = None
    prompt_name: str | None = None
    prompt_digest: str | None = None

    @classmethod
    def of(
        cls, prompt: Prompt, parameters: ModelParameters | None, chunks: Sequence[StreamChunk]
    ) -> CallDetails:
        """Return the details of a chat."""
        return cls(
            parameters=parameters,
            thread=prompt.thread,
            chunks=chunks,
            prompt_name=prompt.file_name,
            prompt_digest=prompt.file_digest,
        )


@dataclass(frozen=True, slots=True)
class Target:
    """What a call of ``kind`` is sent to. Without a provider, it is not known yet."""

    kind: str
    provider: BaseModelProvider | None = field(default=None, repr=False)
    model: str = ""

    @property
    def operation(self) -> str:
        """The name of the operation; Gemini's own interface has another name for a chat."""
        if self.kind == "chat" and type(self.provider).__dict__.get("name") == "gemini":
            return "generate_content"
        return _OPERATIONS.get(self.kind, self.kind)

    @property
    def span_name(self) -> str:
        """The operation and the model."""
        return clean_text(f"{self.operation} {self.model}".strip())

    def attributes(self) -> Attributes:
        """Return the attributes that spans and metrics share."""
        found: Attributes = {"gen_ai.operation.name": self.operation}
        if self.provider is None:
            return found
        found["gen_ai.provider.name"] = provider_name(self.provider)
        found["gen_ai.request.model"] = self.model
        address = urlsplit(self.provider.address)
        if address.hostname:
            found["server.address"] = address.hostname
            found["server.port"] = address.port or (80 if address.scheme == "http" else 443)
        return clean(found)


def provider_name(provider: BaseModelProvider) -> str:
    """Return the provider's name in the conventions; for a server of the user's own, its name here."""
    address, kind = provider.address, type(provider)
    service = find_service_at(address) or find_service_at(address, "anthropic")
    if service is not None:
        name = service.name
    else:
        is_own = bool(address) and address == getattr(kind, "own_address", "").rstrip("/")
        name = kind.name if is_own else provider.name
    return _WELL_KNOWN.get(name, name)


def request_attributes(kind: str, details: CallDetails) -> Attributes:
    """Return the parameters of the request; those that were not set are left out."""
    parameters = details.parameters or ModelParameters()
    extra = parameters.extra_body
    is_level = isinstance(parameters.reasoning, str) and parameters.reasoning != "off"
    choices = _number(extra.get("n"), int)
    found: Attributes = {
        "gen_ai.conversation.id": details.thread,
        "gen_ai.embeddings.dimension.count": details.dimensions,
        "gen_ai.output.type": "json" if parameters.schema is not None else _OUTPUTS.get(kind),
        "gen_ai.prompt.name": details.prompt_name,
        "gen_ai.prompt.version": details.prompt_digest,
        "gen_ai.request.choice.count": None if choices == 1 else choices,
        "gen_ai.request.max_tokens": parameters.max_tokens,
        "gen_ai.request.reasoning.level": parameters.reasoning if is_level else None,
        "gen_ai.request.seed": parameters.seed,
        "gen_ai.request.stop_sequences": parameters.stop or None,
        "gen_ai.request.stream": True if parameters.stream else None,
        "gen_ai.request.temperature": _number(parameters.temperature, float),
        "gen_ai.request.top_p": _number(parameters.top_p, float),
    }
    for name, type_ in _SERVICE_PARAMETERS.items():
        found[f"gen_ai.request.{name}"] = _number(extra.get(name), type_)
    return clean(found)


def _number(value: Any, type_: type[float]) -> float | None:
    """Return a number as ``type_``; ``None`` for any other value, as a service may take them."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return type_(value) if is_number else None


def response_attributes(response: Response, details: CallDetails) -> Attributes:
    """
    Return the attributes of the answer, without those that are unknown.

    A stored answer has no tokens and no times: they belong to the call that was sent.
    """
    found: Attributes = {
        "llm_magics.cached": response.cached,
        "llm_magics.cost_usd": response.cost_usd,
        "llm_magics.retries": response.retries or None,
        "llm_magics.fallback_from": response.fallback_from or None,
        "gen_ai.response.finish_reasons": [_finish_reason(response)],
        **identity_attributes(details.chunks),
    }
    if not response.cached:
        usage = response.usage
        found |= {
            "gen_ai.response.time_to_first_chunk": time_to_first_chunk(details),
            "gen_ai.usage.input_tokens": usage.input_tokens,
            "gen_ai.usage.output_tokens": usage.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
            "gen_ai.usage.cache_write.input_tokens": usage.cache_write_tokens,
            "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
        }
    return clean(found)


def _finish_reason(response: Response) -> str:
    """Return the service's reason; ``error`` for an answer that did not end, by the conventions."""
    reason = response.finish_reason
    return "error" if reason in (None, INTERRUPTED) else reason


def time_to_first_chunk(details: CallDetails) -> float | None:
    """Return the seconds from the request to the first chunk."""
    return details.chunks[0].elapsed_s if details.chunks else None


def chunk_gaps(chunks: Sequence[StreamChunk]) -> list[float]:
    """Return the seconds between consecutive chunks."""
    times = [each.elapsed_s for each in chunks if each.elapsed_s is not None]
    return [max(0.0, later - earlier) for earlier, later in pairwise(times)]


# Where services put the identifier of an answer and the name of the model that wrote it.
_IDS = ("id", "responseId", "interaction_id")
_MODELS = ("model", "modelVersion")
_ENVELOPES = ("message", "response")


def identity_attributes(chunks: Sequence[StreamChunk]) -> Attributes:
    """Return the identifier of the answer and the model, if the first or last chunk has them."""
    bodies: list[Mapping[str, Any]] = []
    for raw in [each.raw for each in (*chunks[:1], *chunks[-2:])]:
        if isinstance(raw, Mapping):
            inner = [raw.get(name) for name in _ENVELOPES]
            bodies += [raw, *(each for each in inner if isinstance(each, Mapping))]
    return {
        "gen_ai.response.id": _first_text(bodies, _IDS),
        "gen_ai.response.model": _first_text(bodies, _MODELS),
    }


def _first_text(bodies: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str | None:
    values = (body.get(name) for body in bodies for name in names)
    return next((value for value in values if isinstance(value, str) and value), None)


def error_type(error: BaseException | str) -> str:
    """
    Return the HTTP status of a service's refusal; otherwise the full name of the error's class.

    A text is the name of the error already.
    """
    if isinstance(error, str):
        return error
    if isinstance(error, ProviderError) and error.status is not None:
        return str(error.status)
    kind = type(error)
    is_builtin = kind.__module__ == "builtins"
    return kind.__qualname__ if is_builtin else f"{kind.__module__}.{kind.__qualname__}"


def clean(attributes: Mapping[str, Any]) -> Attributes:
    """Return the attributes that have a value, with keys masked and long texts cut."""
    return {name: _clean(value) for name, value in attributes.items() if value is not None}


def clean_text(text: str) -> str:
    """Return a text that is not content, with keys masked, and cut if it is long."""
    return scrub(text)[:_MAX_LENGTH]


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, list | tuple):
        return [_clean(each) for each in value[:_MAX_ITEMS]]
    return value
