"""
OpenAI, and any server that speaks its chat format, by its address.

``OPENAI_API_KEY``, ``OPENAI_BASE_URL``, ``OPENAI_ORG_ID`` and ``OPENAI_PROJECT_ID`` are heeded.
Source: https://platform.openai.com/docs/api-reference.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import AsyncGenerator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, field_validator

from llm_magics.errors import (
    AuthenticationError,
    ModelNotFoundError,
    ProviderError,
    nearest,
)
from llm_magics.providers.base import StreamingProvider
from llm_magics.providers.openai_like import classified, error_of
from llm_magics.providers.remote import RemoteConfig
from llm_magics.providers.streams import Decoder, stream_chunks
from llm_magics.secrets import Secret
from llm_magics.transport import Reply, Transport
from llm_magics.types import ChatMessage, Embeddings, ModelParameters, StreamChunk, Usage
from llm_magics.wire import openai_chat, openai_responses

_OWN = "https://api.openai.com/v1"

# The service's bounds for one request of embeddings; four bytes a token at the least.
_MOST_TEXTS = 2048
_MOST_BYTES = 300_000 * 3


@dataclass(frozen=True, slots=True)
class Quirks:
    """
    In what a service differs from the others that speak its format.

    Attributes:
        max_tokens: what it calls the longest answer.
        encoding_format: how it is asked for vectors; strangers do not all know base64.
    """

    max_tokens: str = "max_tokens"
    encoding_format: str = "float"


OPENAI = Quirks("max_completion_tokens", "base64")
LOOK_ALIKE = Quirks()


class OpenAIConfig(RemoteConfig):
    """
    Attributes:
        base_url: the service's address, up to ``/v1``.
        api_key: the key; ``OPENAI_API_KEY`` unless given. A server of your own may need none.
        organization, project: sent along where given.
        api: which of OpenAI's two interfaces a chat goes through.
    """

    base_url: str = Field(default_factory=lambda: os.environ.get("OPENAI_BASE_URL") or _OWN)
    api_key: Secret | None = Field(
        default_factory=lambda: Secret.of(os.environ.get("OPENAI_API_KEY"))
    )
    organization: str | None = Field(default_factory=lambda: os.environ.get("OPENAI_ORG_ID"))
    project: str | None = Field(default_factory=lambda: os.environ.get("OPENAI_PROJECT_ID"))
    api: Literal["chat", "responses"] = "chat"

    @field_validator("base_url", mode="after")
    @classmethod
    def _address(cls, value: str) -> str:
        return value.rstrip("/")


class OpenAIProvider(StreamingProvider):
    """OpenAI, or a server that speaks its format."""

    name = "openai"
    config_type = OpenAIConfig
    key_variable = "OPENAI_API_KEY"
    config: OpenAIConfig

    def __init__(self, config: OpenAIConfig | None = None) -> None:
        super().__init__(config)
        given = {
            "OpenAI-Organization": self.config.organization,
            "OpenAI-Project": self.config.project,
        }
        self._transport = Transport(
            self.config.base_url,
            {name: value for name, value in given.items() if value},
            self.config.api_key,
            self.config.timeouts,
        )
        self._quirks = OPENAI if self._is_openai_itself else LOOK_ALIKE
        # What a model was found not to take, learned from its refusals.
        self._refused: dict[str, set[str]] = {}

    @property
    def _is_openai_itself(self) -> bool:
        return self.config.base_url == _OWN

    async def initialize(self) -> bool:
        return self.config.api_key is not None or not self._is_openai_itself

    async def list_models(self) -> list[str]:
        reply = await self._send("GET", "/models")
        return sorted(model["id"] for model in reply.json().get("data") or [])

    async def health_check(self) -> dict[str, Any]:
        try:
            models = await self.list_models()
        except ProviderError as error:
            return {"status": "unavailable", "detail": f"{error} {error.hint or ''}".strip()}
        detail = f"{len(models)} models at {self.config.base_url}"
        return {"status": "ok", "detail": detail, "models": models}

    async def generate_embeddings(self, texts: Sequence[str], model: str) -> list[list[float]]:
        model = self.bare(model)
        vectors, tokens = Embeddings(), 0
        for batch in _batches(texts):
            body = openai_chat.embedding_request(batch, model)
            body["encoding_format"] = self._quirks.encoding_format
            reply = await self._send("POST", "/embeddings", body, model)
            came = openai_chat.embeddings_of(reply.json())
            if len(came) != len(batch):
                msg = f"openai/{model} gave {len(came)} vectors for {len(batch)} texts."
                raise ProviderError(msg, provider=self.name, model=model)
            vectors += came
            tokens += (came.usage.input_tokens if came.usage else None) or 0
        vectors.usage = Usage(tokens or None)
        return vectors

    def stream_chat(
        self, messages: Sequence[ChatMessage], model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        if self.config.api == "responses":
            body = openai_responses.responses_request(messages, model, parameters)
            return self._stream("/responses", body, model, openai_responses.ChunkDecoder)
        body = openai_chat.chat_request(messages, model, parameters)
        return self._stream("/chat/completions", body, model, openai_chat.ChunkDecoder)

    def stream_completion(
        self, prompt: str, model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        body = openai_chat.completion_request(prompt, model, parameters)
        return self._stream("/completions", body, model, openai_chat.ChunkDecoder)

    async def _stream(
        self, path: str, body: dict[str, Any], model: str, decoder: type[Decoder]
    ) -> AsyncGenerator[StreamChunk, None]:
        """The answer; a parameter that the model does not take is left out, once, and told of."""
        self._need_key()
        if path == "/chat/completions" and "max_tokens" in body:
            body[self._quirks.max_tokens] = body.pop("max_tokens")
        for name in self._refused.get(model, ()):
            _leave_out(body, name)
        left_out: set[str] = set()
        while True:
            chunks = stream_chunks(
                self._transport,
                path,
                body,
                decoder(),
                lambda said, status, headers: classified(said, status, self.name, model, headers),
            )
            has_begun = False
            try:
                async for chunk in chunks:
                    has_begun = True
                    yield chunk
                return
            except ModelNotFoundError as error:
                raise await self._with_nearest(error) from None
            except ProviderError as error:
                culprit = _refused_parameter(error, body)
                if has_begun or culprit is None or culprit in left_out:
                    raise
                left_out.add(culprit)
                self._learn(model, culprit)
                _leave_out(body, culprit)
            finally:
                await chunks.aclose()

    def _learn(self, model: str, name: str) -> None:
        self._refused.setdefault(model, set()).add(name)
        if name not in _REPLACED and name != "stream_options":
            msg = f"openai/{model} does not take {name}: it is left out from now on."
            warnings.warn(msg, stacklevel=2)

    async def _send(self, method: str, path: str, body: Any = None, model: str = "") -> Reply:
        self._need_key()
        reply = await self._transport.send(method, path, body)
        if not reply.ok:
            error = error_of(reply, self.name, model)
            if isinstance(error, ModelNotFoundError) and path != "/models":
                raise await self._with_nearest(error)
            raise error
        return reply

    def _need_key(self) -> None:
        if self._is_openai_itself and self.config.api_key is None:
            msg = "OpenAI needs a key, and none is set."
            hint = "Set the environment variable OPENAI_API_KEY, and restart the kernel."
            raise AuthenticationError(msg, hint=hint, provider=self.name)

    async def _with_nearest(self, error: ModelNotFoundError) -> ModelNotFoundError:
        """``error``, naming what the service has in its place."""
        try:
            models = await self.list_models()
        except ProviderError:
            return error
        error.hint = nearest(error.model or "", models)
        return error

    async def close(self) -> None:
        await self._transport.close()


# A refused parameter and what takes its place.
_REPLACED = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}


def _refused_parameter(error: ProviderError, body: dict[str, Any]) -> str | None:
    """The parameter of ``body`` that the service says it does not take, if that is the matter."""
    if error.status not in (400, 422):
        return None
    told = error.body.get("error") if isinstance(error.body, dict) else None
    param = told.get("param") if isinstance(told, dict) else None
    if error.code in ("unsupported_parameter", "unsupported_value") and param in body:
        return str(param)
    return (
        "stream_options" if "stream_options" in str(error) and "stream_options" in body else None
    )


def _leave_out(body: dict[str, Any], name: str) -> None:
    value = body.pop(name, None)
    if value is not None and name in _REPLACED:
        body[_REPLACED[name]] = value


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """``texts`` in portions that the service takes at once."""
    batch: list[str] = []
    size = 0
    for text in texts:
        length = len(text.encode())
        if batch and (len(batch) == _MOST_TEXTS or size + length > _MOST_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(text)
        size += length
    if batch:
        yield batch
