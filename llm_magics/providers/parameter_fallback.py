"""
Retry requests without the parameters and schemas that a model does not support.

Which model supports which parameter changes with every release. A parameter that the service
refuses is omitted with a warning, and not sent to that model again. If only its value was refused,
only that value is omitted.

An answer is constrained to a schema if the service supports it. A request that is refused because
of its schema is retried once without it, with the schema in the prompt. The refusal is remembered:
for the model if it supports no schemas at all, otherwise for this schema.
"""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

from llm_magics._async.concurrency import retry_unless_begun
from llm_magics.errors import ProviderError
from llm_magics.host import warn
from llm_magics.parameters import ModelParameters
from llm_magics.providers.error_bodies import error_text, is_other_error
from llm_magics.providers.streaming import DecoderFactory
from llm_magics.types import ChatMessage, StreamChunk
from llm_magics.wire.decoders import AnswerUnwrapper
from llm_magics.wire.schema_dialects import JSON_OBJECT, Dialect, compile_schema

Chunks = AsyncGenerator[StreamChunk, None]

# Words in errors about a schema or an answer format that the service does not support.
_SCHEMA_WORDS = re.compile(
    r"response[_ ]?format|json[_ ]?schema|structured[_ ]outputs?|output_config|output_format"
    r"|text\.format|guided|grammar|invalid schema|schema (?:is )?too|failed_generation"
    r"|json_validate_failed"
    r"|response mime type|json mode is not|specified schema",  # Gemini
    re.IGNORECASE,
)
# Words in errors about this schema in particular. Another schema may be accepted.
_INVALID_SCHEMA_WORDS = re.compile(
    r"invalid (?:json )?schema|in context=|propert(?:y|ies)\b|\.schema\b|schema error"
    r"|conversion failed|too (?:complex|many|large|deep)|nesting|recursi|\$ref|grammar"
    r"|specified schema|unsupported keyword",
    re.IGNORECASE,
)
# The model failed to generate a matching answer. The next answer may be constrained again.
_GENERATION_FAILED = re.compile(r"json_validate_failed|failed_generation", re.IGNORECASE)

# Statuses that services use for invalid requests; Ollama uses 500 too.
_STATUSES = frozenset({None, 400, 422, 500, 501})

_ANY_SCHEMA = ""


def add_schema_to_prompt(
    messages: Sequence[ChatMessage], schema: Mapping[str, Any]
) -> list[ChatMessage]:
    """Return ``messages`` with the schema appended to the user's last message."""
    instruction = (
        "Answer with JSON alone, and nothing before or after it, that fits this JSON schema:\n"
        f"{json.dumps(dict(schema), ensure_ascii=False)}"
    )
    extended = list(messages)
    for index in range(len(extended) - 1, -1, -1):
        if extended[index].role == "user":
            content = f"{extended[index].content}\n\n{instruction}".lstrip()
            extended[index] = replace(extended[index], content=content)
            return extended
    return [*extended, ChatMessage("user", instruction)]


def is_schema_refusal(error: ProviderError) -> bool:
    """Return whether the service refused a request because of the answer's schema."""
    if is_other_error(error) or error.status not in _STATUSES:
        return False
    return bool(_SCHEMA_WORDS.search(error_text(error)))


class SchemaFallback:
    """Remembers which schemas the models of a provider refuse, and puts these into the prompt."""

    def __init__(self) -> None:
        self._refused: set[tuple[str, str, str]] = set()

    def stream(
        self,
        model: tuple[str, str],
        messages: Sequence[ChatMessage],
        parameters: ModelParameters,
        dialect: Dialect,
        send: Callable[[Sequence[ChatMessage], ModelParameters], Chunks],
    ) -> Chunks:
        """
        Return the answer of ``send``, constrained to the schema of ``parameters`` if it has one.

        This is for providers whose dialect never wraps the schema in an object.
        """
        schema = parameters.schema
        if schema is None:
            return send(messages, parameters)
        is_supported = compile_schema(schema, dialect) is not None
        return self.stream_bound(
            model,
            schema,
            (lambda: send(messages, parameters)) if is_supported else None,
            lambda: send(add_schema_to_prompt(messages, schema), replace(parameters, schema=None)),
        )

    def stream_bound(
        self,
        model: tuple[str, str],
        schema: Mapping[str, Any],
        bound: Callable[[], Chunks] | None,
        unbound: Callable[[], Chunks],
        retry: Callable[[ProviderError], Chunks | None] = lambda _: None,
    ) -> Chunks:
        """
        Return the answer of ``bound``, or of ``unbound`` if the service refuses the schema.

        Args:
            model: the address and the model.
            schema: the answer's schema, as the user wrote it.
            bound: sends the schema; ``None`` if the schema cannot be expressed for this service.
            unbound: sends the request with the schema in the prompt.
            retry: returns the next attempt after any other error, or ``None`` to raise the error.
        """
        key = _schema_digest(schema)
        is_bound = False
        entry: tuple[str, str, str] | None = None

        def first() -> Chunks:
            nonlocal is_bound
            if bound is None or self._is_known(model, key):
                return unbound()
            is_bound = True
            return bound()

        def next_attempt(error: ProviderError) -> Chunks | None:
            nonlocal is_bound, entry
            if is_bound and is_schema_refusal(error):
                is_bound, entry = False, self._note(model, key, error)
                return unbound()
            following = retry(error)
            if following is None and entry is not None:  # the schema was not to blame
                self._refused.discard(entry)
            return following

        return retry_unless_begun(first, next_attempt)

    def _is_known(self, model: tuple[str, str], key: str) -> bool:
        return any((*model, each) in self._refused for each in (_ANY_SCHEMA, key))

    def _note(
        self, model: tuple[str, str], key: str, error: ProviderError
    ) -> tuple[str, str, str] | None:
        words = error_text(error)
        if _GENERATION_FAILED.search(words):
            return None
        entry = (*model, key if _INVALID_SCHEMA_WORDS.search(words) else _ANY_SCHEMA)
        self._refused.add(entry)
        return entry


def _schema_digest(schema: Mapping[str, Any]) -> str:
    text = json.dumps(dict(schema), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


async def unwrap_answer(chunks: Chunks) -> Chunks:
    """Yield ``chunks`` without the object that wraps the answer."""
    work = AnswerUnwrapper()
    try:
        async for chunk in chunks:
            yield work.take(chunk)
        if rest := work.flush():
            yield StreamChunk(rest)
    finally:
        await chunks.aclose()


_ANY = object()


@dataclass(frozen=True, slots=True)
class UnsupportedParameter:
    """A parameter that a model does not support, with any value or only with this one."""

    name: str
    value: Any = _ANY
    # Whether it also applies to later requests to the model, and not only to this conversation.
    is_lasting: ClassVar[bool] = True

    def is_in(self, body: Mapping[str, Any]) -> bool:
        """Return whether ``body`` contains it."""
        return self.name in body and self.value in (_ANY, body[self.name])

    def __str__(self) -> str:
        return self.name if self.value is _ANY else f"{self.name}={self.value!r}"


class ParameterRules(ABC):
    """How a wire format reports unsupported parameters, and what to send instead."""

    # Omitted without a warning: the user did not set it, or another parameter replaces it.
    silent: ClassVar[frozenset[str]] = frozenset()
    # Never omitted. Without log probabilities, an answer is not what the user asked for.
    required: ClassVar[frozenset[str]] = frozenset(
        {"model", "messages", "input", "prompt", "logprobs", "top_logprobs"}
    )

    def is_required(self, parameter: UnsupportedParameter, body: Mapping[str, Any]) -> bool:
        """Return whether a request without ``parameter`` would not be what the user asked for."""
        return parameter.name in self.required

    @abstractmethod
    def find(self, error: ProviderError, body: Mapping[str, Any]) -> UnsupportedParameter | None:
        """Return the parameter of ``body`` that ``error`` reports as unsupported, or ``None``."""

    def remove(
        self,
        body: dict[str, Any],
        parameter: UnsupportedParameter,
        known: Sequence[UnsupportedParameter],
    ) -> None:
        """Remove ``parameter`` from ``body``, or replace it."""
        body.pop(parameter.name, None)

    def is_silent(
        self, parameter: UnsupportedParameter, known: Sequence[UnsupportedParameter]
    ) -> bool:
        """Return whether ``parameter`` is omitted without a warning."""
        return parameter.name in self.silent


class Send(Protocol):
    """Sends one request and returns its answer as chunks."""

    def __call__(
        self,
        path: str,
        body: dict[str, Any],
        model: str,
        create_decoder: DecoderFactory,
        headers: Mapping[str, str] | None = None,
        /,
    ) -> Chunks: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A conversation, and how to send it."""

    send: Send
    provider: str
    path: str
    model: str
    messages: Sequence[ChatMessage]
    parameters: ModelParameters
    dialect: Dialect
    build: Callable[[Sequence[ChatMessage], ModelParameters], dict[str, Any]]
    create_decoder: DecoderFactory


class RequestParameters:
    """The parameters of one request, without those that its model does not support."""

    def __init__(
        self, rules: ParameterRules, known: list[UnsupportedParameter], model: str
    ) -> None:
        """``known`` is what other requests have learned about ``model``, and is extended."""
        self._rules = rules
        self._known = known
        self._model = model
        self._omitted: list[UnsupportedParameter] = []

    def apply(self, body: dict[str, Any]) -> None:
        """Remove from ``body`` the parameters that are known to be unsupported."""
        for parameter in self._known:
            if parameter.is_in(body) and not self._rules.is_required(parameter, body):
                self._rules.remove(body, parameter, self._known)

    def learn(self, error: ProviderError, body: dict[str, Any]) -> bool:
        """Remove from ``body`` what ``error`` reports; return whether to send it again."""
        parameter = self._rules.find(error, body)
        # A parameter that returns under another name must not be replaced without end.
        if parameter is None or parameter in self._omitted:
            return False
        if self._rules.is_required(parameter, body):
            return False
        self._omitted.append(parameter)
        # Concurrent requests are refused too; all are sent again, and the first one warns.
        is_new = parameter not in self._known
        if is_new and parameter.is_lasting:
            self._known.append(parameter)
        self._rules.remove(body, parameter, self._known)
        if parameter.is_in(body):
            return False  # it cannot be removed
        if is_new and not self._rules.is_silent(parameter, self._known):
            warn(f"{self._model} does not support {parameter}; it is omitted from now on.")
        return True


class ParameterFallback:
    """Sends requests, and retries refused ones without unsupported parameters."""

    def __init__(self, rules: ParameterRules) -> None:
        self._rules = rules
        # By path and model, because another API may support what this one does not.
        self._unsupported: dict[tuple[str, str], list[UnsupportedParameter]] = {}
        self._schemas = SchemaFallback()

    def stream_chat(self, request: ChatRequest) -> Chunks:
        """Return the answer, constrained to its schema if the service supports that."""
        path, model, messages = request.path, request.model, request.messages
        parameters, schema = request.parameters, request.parameters.schema
        if schema is None:
            return self.stream(
                request.send,
                path,
                request.build(messages, parameters),
                model,
                request.create_decoder,
                parameters.extra_headers,
                request.provider,
            )
        supported = self.of_request(path, model, request.provider)
        schema_form = compile_schema(schema, request.dialect)
        body: dict[str, Any] = {}
        is_wrapped = False

        def send() -> Chunks:
            chunks = request.send(
                path, body, model, request.create_decoder, parameters.extra_headers
            )
            return unwrap_answer(chunks) if is_wrapped else chunks

        def bound() -> Chunks:
            nonlocal body, is_wrapped
            assert schema_form is not None
            is_stated = request.dialect is JSON_OBJECT
            said = add_schema_to_prompt(messages, schema_form.schema) if is_stated else messages
            body, is_wrapped = request.build(said, parameters), schema_form.is_wrapped
            supported.apply(body)
            return send()

        def unbound() -> Chunks:
            nonlocal body, is_wrapped
            said = add_schema_to_prompt(messages, schema)
            body, is_wrapped = request.build(said, replace(parameters, schema=None)), False
            supported.apply(body)
            return send()

        def retry(error: ProviderError) -> Chunks | None:
            return send() if supported.learn(error, body) else None

        return self._schemas.stream_bound(
            (path, model), schema, bound if schema_form else None, unbound, retry
        )

    def stream(  # noqa: PLR0913, PLR0917 (the properties of one request)
        self,
        send: Send,
        path: str,
        body: dict[str, Any],
        model: str,
        create_decoder: DecoderFactory,
        headers: Mapping[str, str],
        provider: str,
    ) -> Chunks:
        """Return the chunks of the answer to ``POST body``."""
        supported = self.of_request(path, model, provider)

        def first() -> Chunks:
            supported.apply(body)
            return send(path, body, model, create_decoder, headers)

        def retry(error: ProviderError) -> Chunks | None:
            if not supported.learn(error, body):
                return None
            return send(path, body, model, create_decoder, headers)

        return retry_unless_begun(first, retry)

    def of_request(self, path: str, model: str, provider: str) -> RequestParameters:
        """Return the parameters of a new request."""
        known = self._unsupported.setdefault((path, model), [])
        return RequestParameters(self._rules, known, f"{provider}/{model}")
