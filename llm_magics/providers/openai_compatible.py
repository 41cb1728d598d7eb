"""
Any service that speaks OpenAI's chat format: what they have in common.

Source: https://platform.openai.com/docs/api-reference.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from pydantic import Field, field_validator

from llm_magics._util.text import batches_in_order
from llm_magics.attachments import Sound, Transcript
from llm_magics.errors import ProviderError
from llm_magics.http import Form, KeyHeader, Reply, Transport
from llm_magics.parameters import ModelParameters
from llm_magics.providers.base import ModelInfo
from llm_magics.providers.identity import remove_foreign_reasoning
from llm_magics.providers.openai_errors import (
    ConversationChange,
    UnsupportedSystemRole,
    find_unsupported_parameter,
    map_openai_error,
)
from llm_magics.providers.parameter_fallback import ParameterFallbackProvider, UnsupportedParameter
from llm_magics.providers.profiles import ServiceProfile, parse_model
from llm_magics.providers.remote import RemoteConfig
from llm_magics.types import ChatMessage, Embeddings, PackedVectors, StreamChunk, Usage, model_name
from llm_magics.wire import openai_chat
from llm_magics.wire import openai_media as wire
from llm_magics.wire.openai_embeddings import (
    build_embedding_request,
    extract_vectors,
    parse_embedding_usage,
    parse_embeddings,
    parse_packed_rows,
)
from llm_magics.wire.tool_calls import collect_call_ids

# A refused parameter and what takes its place.
_REPLACEMENTS = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}


class OpenAICompatibleConfig(RemoteConfig):
    """
    Attributes:
        base_url: the service's address, up to ``/v1``.
    """

    base_url: str = Field("")

    @field_validator("base_url", mode="after")
    @classmethod
    def _address(cls, value: str) -> str:
        return value.rstrip("/")


class OpenAICompatibleProvider(ParameterFallbackProvider):
    """A service that speaks OpenAI's format."""

    config: OpenAICompatibleConfig
    config_type: ClassVar[type[OpenAICompatibleConfig]] = OpenAICompatibleConfig
    silently = frozenset({*_REPLACEMENTS, "stream_options", UnsupportedSystemRole().name})

    @property
    def quirks(self) -> ServiceProfile:
        """In what the service differs from others."""
        return ServiceProfile()

    def _key_header(self) -> KeyHeader:
        return self.quirks.key_header

    def _path(self, path: str, model: str) -> str:
        """Where ``path`` is found; Azure has each model under an address of its own."""
        return path

    def _refused(
        self, said: Any, status: int | None, headers: Mapping[str, str], model: str
    ) -> ProviderError:
        return map_openai_error(said, status, self.name, model, headers)

    async def list_models(self) -> list[str]:
        listing = await self._listing()
        with self._reading():
            return sorted(model_name(model["id"]) for model in listing)

    async def describe_models(self) -> list[ModelInfo]:
        listing = await self._listing()
        with self._reading():
            return sorted(map(parse_model, listing), key=lambda info: info.name)

    async def _listing(self) -> list[dict[str, Any]]:
        """The models as the service describes them; some send the bare list."""
        said = (await self._send("GET", self._path("/models", ""))).json()
        models = said.get("data") if isinstance(said, dict) else said
        if not isinstance(models, list) or not all(isinstance(each, dict) for each in models):
            raise self._foreign(said)
        return models

    async def generate_embeddings(self, texts: Sequence[str], model: str) -> list[list[float]]:
        vectors, tokens = Embeddings(), 0
        for batch in batches_in_order(texts):
            reply = await self._embedded(batch, model)
            told = await self._object_in(reply.json(), reply, model)
            with self._reading(retryable=True):
                came = parse_embeddings(told)
            self._check_count(len(came), len(batch), model)
            vectors += came
            tokens += (came.usage.input_tokens if came.usage else None) or 0
        vectors.usage = Usage(tokens or None)
        return vectors

    async def generate_packed(self, texts: Sequence[str], model: str) -> PackedVectors:
        return await self._packed(texts, model)

    async def generate_shortened(
        self, texts: Sequence[str], model: str, dimensions: int
    ) -> PackedVectors:
        return await self._packed(texts, model, dimensions)

    async def _packed(
        self, texts: Sequence[str], model: str, shortened: int | None = None
    ) -> PackedVectors:
        rows: list[bytes | None] = []
        tokens = 0
        for batch in batches_in_order(texts):
            reply = await self._embedded(batch, model, shortened)
            rest, apart = extract_vectors(reply.body)
            told = await self._object_in(replace(reply, body=rest).json(), reply, model)
            with self._reading(retryable=True):
                came = parse_packed_rows(told, apart)
                tokens += parse_embedding_usage(told).input_tokens or 0
            self._check_count(len(came), len(batch), model)
            rows += came
        return PackedVectors.of_rows(rows, Usage(tokens or None))

    async def _embedded(
        self, batch: Sequence[str], model: str, dimensions: int | None = None
    ) -> Reply:
        model = self.bare(model)
        body = build_embedding_request(batch, model, self.quirks.encoding_format, dimensions)
        return await self._send("POST", self._path("/embeddings", model), body, model)

    def _check_count(self, came: int, wanted: int, model: str) -> None:
        if came != wanted:
            msg = f"{self.name}/{self.bare(model)} gave {came} vectors for {wanted} texts."
            raise ProviderError(msg, provider=self.name, model=model, retryable=True)

    def stream_chat(
        self, messages: Sequence[ChatMessage], model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        origin = f"chat {self.address} {model}"
        messages, quirks = remove_foreign_reasoning(messages, origin), self.quirks

        def build(said: Sequence[ChatMessage], given: ModelParameters) -> dict[str, Any]:
            return quirks.adapt(openai_chat.build_chat_request(said, model, given, quirks.dialect))

        names = [tool.name for tool in parameters.tools]
        decoder = partial(openai_chat.ChunkDecoder, names, collect_call_ids(messages), origin)
        path = self._path("/chat/completions", model)
        return self._answered(path, messages, model, parameters, quirks.dialect, build, decoder)

    def stream_completion(
        self, prompt: str, model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        body = openai_chat.build_completion_request(prompt, model, parameters)
        if "stream_options" in self.quirks.names:
            del body["stream_options"]
        path, headers = self._path("/completions", model), parameters.extra_headers
        return self._asked(path, body, model, openai_chat.ChunkDecoder, headers)

    def _culprit(
        self, error: ProviderError, body: Mapping[str, Any]
    ) -> UnsupportedParameter | None:
        return find_unsupported_parameter(error, body)

    def _leave_out(
        self,
        body: dict[str, Any],
        refused: UnsupportedParameter,
        known: list[UnsupportedParameter],
    ) -> None:
        if isinstance(refused, UnsupportedSystemRole):
            body["messages"] = [_as_user(message) for message in body["messages"]]
            return
        if isinstance(refused, ConversationChange):
            refused.leave_out(body)
            return
        value = body.pop(refused.name, None)
        other = _REPLACEMENTS.get(refused.name)
        if other is not None and UnsupportedParameter(other) not in known:
            body[other] = value

    def _is_silent(self, refused: UnsupportedParameter, known: list[UnsupportedParameter]) -> bool:
        if isinstance(refused, ConversationChange):
            return True
        other = _REPLACEMENTS.get(refused.name)
        has_substitute = other is None or UnsupportedParameter(other) not in known
        return refused.name in self.silently and has_substitute


def _as_user(message: dict[str, Any]) -> dict[str, Any]:
    """A system message as the user's own words, which every model reads."""
    return {**message, "role": "user"} if message["role"] == "system" else message


class MediaProvider(OpenAICompatibleProvider):
    """A service that paints and listens too."""

    async def generate_image(self, prompt: str, model: str, **options: Any) -> list[bytes]:
        """
        Pictures of ``prompt``, each as the bytes of a file.

        Args:
            options: ``n``, ``size``, ``quality``, ``background`` … as the service has them.
        """
        model = self.bare(model)
        body = wire.build_image_request(prompt, model, options)
        path = self._path("/images/generations", model)
        self._without_known(path, body, model)
        while True:
            try:
                reply = await self._object("POST", path, body, model)
                break
            except ProviderError as error:
                if not self._has_learned(error, path, body, model):
                    raise
        with self._reading():
            made = wire.parse_images(reply)
        return [await self._fetched(each) if isinstance(each, str) else each for each in made]

    async def _fetched(self, url: str) -> bytes:
        """The picture at ``url``. The key is not sent there: it lies with somebody else."""
        if not url.startswith("https://"):
            msg = f"The service sent an address that is not safe: {url[:80]}"
            raise ProviderError(msg, provider=self.name)
        address, _, query = url.partition("#")[0].partition("?")
        elsewhere = Transport(
            address, timeouts=self.config.timeouts, query=query, limits=self.config.limits
        )
        try:
            reply = await elsewhere.send("GET", "")
        except ConnectionError as error:
            raise self._not_fetched(url, str(error)) from error
        finally:
            await elsewhere.close()
        if not reply.ok:
            raise self._not_fetched(url, f"status {reply.status}")
        return reply.body

    def _not_fetched(self, url: str, why: str) -> ProviderError:
        """Return an error that is not retried: that would pay for another image."""
        msg = f"The image was made and could not be fetched ({why})."
        return ProviderError(msg, hint=f"Fetch it yourself: {url}", provider=self.name)

    async def transcribe(self, audio: bytes, model: str, **options: Any) -> Transcript:
        """
        What is said in ``audio``, the bytes of a file.

        Args:
            options: ``format`` (``json``, ``text``, ``srt``, ``vtt``, ``verbose_json``,
                ``diarized_json``), ``language``, ``prompt``, ``temperature``,
                ``timestamp_granularities`` … as the service has them.
        """
        model = self.bare(model)
        sound = Sound(audio)
        wire.check_audio_size(sound)
        fields, wanted = wire.build_transcription_form(model, options)
        file = (sound.file_name, sound.data, sound.media_type)
        form = Form(fields, {"file": file})
        path = self._path("/audio/transcriptions", model)
        reply = await self._send("POST", path, form, model)
        said = reply.json() if reply.body.startswith(b"{") else None
        if isinstance(said, dict) and said.get("error"):  # status 200 does not make it an answer
            raise self._error(said, None, reply.headers, model)
        with self._reading():
            return wire.parse_transcript(reply.body, wanted)
