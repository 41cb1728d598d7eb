"""
Repeating requests without the parameters that a model does not support.

Which model supports which parameter changes with every release. A parameter that is refused is
left out with a warning, and not sent to that model again; where only its value was refused, only
that value is left out. A schema that is refused goes into the prompt.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

from llm_magics.errors import ProviderError
from llm_magics.parameters import ModelParameters
from llm_magics.providers.schema_fallback import (
    Chunks,
    SchemaFallback,
    add_schema_to_prompt,
    retry_unless_begun,
    unwrap_answer,
)
from llm_magics.providers.streaming import Decoder
from llm_magics.types import ChatMessage
from llm_magics.user_code import warn
from llm_magics.wire.schema_dialects import JSON_OBJECT, Dialect, compile_schema

_ANY = object()


@dataclass(frozen=True, slots=True)
class UnsupportedParameter:
    """A parameter that a model refuses, with any value or with this one."""

    name: str
    value: Any = _ANY
    # Whether it holds for other requests to the model too, and not only for this conversation.
    is_lasting: ClassVar[bool] = True

    def is_in(self, body: Mapping[str, Any]) -> bool:
        """Return whether ``body`` contains it."""
        return self.name in body and self.value in (_ANY, body[self.name])

    def __str__(self) -> str:
        return self.name if self.value is _ANY else f"{self.name}={self.value!r}"


class ParameterRules(ABC):
    """How a wire format reports unsupported parameters, and what to send instead."""

    # Left out without a warning: the user did not set it, or something else replaces it.
    silent: ClassVar[frozenset[str]] = frozenset()
    # Never left out.
    required: ClassVar[frozenset[str]] = frozenset({"model", "messages", "input", "prompt"})

    @abstractmethod
    def find(self, error: ProviderError, body: Mapping[str, Any]) -> UnsupportedParameter | None:
        """Return the parameter of ``body`` that ``error`` calls unsupported, if it does."""

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
        """Return whether no warning is due."""
        return parameter.name in self.silent


class Send(Protocol):
    """Sends one request and returns its answer as chunks."""

    def __call__(
        self,
        path: str,
        body: dict[str, Any],
        model: str,
        decoder: Decoder,
        headers: Mapping[str, str] | None = None,
        /,
    ) -> Chunks: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """A conversation, and how it is sent."""

    send: Send
    provider: str
    path: str
    model: str
    messages: Sequence[ChatMessage]
    parameters: ModelParameters
    dialect: Dialect
    build: Callable[[Sequence[ChatMessage], ModelParameters], dict[str, Any]]
    decoder: Callable[[], Decoder]


class ParameterFallback:
    """Sends requests, and repeats those that are refused without what a model does not support."""

    def __init__(self, rules: ParameterRules) -> None:
        self._rules = rules
        # By path and model: another interface may take what this one does not.
        self._unsupported: dict[tuple[str, str], list[UnsupportedParameter]] = {}
        self._schemas = SchemaFallback()

    def stream_chat(self, request: ChatRequest) -> Chunks:
        """Return an answer that is bound to the schema where the service supports it."""
        path, model, messages = request.path, request.model, request.messages
        parameters, schema = request.parameters, request.parameters.schema
        if schema is None:
            return self.stream(
                request.send,
                path,
                request.build(messages, parameters),
                model,
                request.decoder,
                parameters.extra_headers,
                request.provider,
            )
        schema_form = compile_schema(schema, request.dialect)
        body: dict[str, Any] = {}
        is_wrapped = False

        def send() -> Chunks:
            chunks = request.send(path, body, model, request.decoder(), parameters.extra_headers)
            return unwrap_answer(chunks) if is_wrapped else chunks

        def bound() -> Chunks:
            nonlocal body, is_wrapped
            assert schema_form is not None
            is_stated = request.dialect is JSON_OBJECT
            said = add_schema_to_prompt(messages, schema_form.schema) if is_stated else messages
            body, is_wrapped = request.build(said, parameters), schema_form.is_wrapped
            self.apply(path, body, model)
            return send()

        def unbound() -> Chunks:
            nonlocal body, is_wrapped
            said = add_schema_to_prompt(messages, schema)
            body, is_wrapped = request.build(said, replace(parameters, schema=None)), False
            self.apply(path, body, model)
            return send()

        def retry(error: ProviderError) -> Chunks | None:
            return send() if self.learn(error, path, body, model, request.provider) else None

        return self._schemas.stream_bound(
            (path, model), schema, bound if schema_form else None, unbound, retry
        )

    def stream(  # noqa: PLR0913, PLR0917 (one request)
        self,
        send: Send,
        path: str,
        body: dict[str, Any],
        model: str,
        decoder: Callable[[], Decoder],
        headers: Mapping[str, str],
        provider: str,
    ) -> Chunks:
        """Return the answer to ``POST body``."""

        def first() -> Chunks:
            self.apply(path, body, model)
            return send(path, body, model, decoder(), headers)

        def retry(error: ProviderError) -> Chunks | None:
            if not self.learn(error, path, body, model, provider):
                return None
            return send(path, body, model, decoder(), headers)

        return retry_unless_begun(first, retry)

    def apply(self, path: str, body: dict[str, Any], model: str) -> None:
        """Remove from ``body`` what ``model`` is known not to support."""
        known = self._unsupported.get((path, model), [])
        for parameter in known:
            if parameter.is_in(body):
                self._rules.remove(body, parameter, known)

    def learn(
        self, error: ProviderError, path: str, body: dict[str, Any], model: str, provider: str
    ) -> bool:
        """Return whether ``body`` is worth sending again, without what ``error`` blames."""
        parameter = self._rules.find(error, body)
        known = self._unsupported.setdefault((path, model), [])
        if parameter is None or parameter.name in self._rules.required or parameter in known:
            return False
        if parameter.is_lasting:
            known.append(parameter)
        self._rules.remove(body, parameter, known)
        if parameter.is_in(body):
            return False  # it cannot be left out
        if not self._rules.is_silent(parameter, known):
            msg = f"{provider}/{model} does not take {parameter}: it is left out from now on."
            warn(msg)
        return True
