"""
Asking models that do not take every parameter.

Which model takes what changes with every release. A parameter that is refused is left out,
told of, and not sent to that model again — or not with that value, where only the value was
the matter.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from llm_magics.errors import ProviderError
from llm_magics.parameters import ModelParameters
from llm_magics.providers.remote import RemoteConfig, RemoteProvider
from llm_magics.providers.schema_fallback import (
    SchemaFallback,
    add_schema_to_prompt,
    is_schema_refusal,
    unwrap_answer,
)
from llm_magics.providers.streaming import Decoder
from llm_magics.types import ChatMessage, StreamChunk
from llm_magics.user_code import warn
from llm_magics.wire.schema_dialects import JSON_OBJECT, Dialect, compile_schema

_ANY = object()

# Makes the body of a request.
Build = Callable[[Sequence[ChatMessage], ModelParameters], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class UnsupportedParameter:
    """A parameter that is not taken, with any value or with this one."""

    name: str
    value: Any = _ANY
    # Whether it holds for other requests to the model too, and not only for this conversation.
    is_lasting: ClassVar[bool] = True

    def is_in(self, body: Mapping[str, Any]) -> bool:
        """Whether ``body`` asks for it."""
        return self.name in body and self.value in (_ANY, body[self.name])

    def __str__(self) -> str:
        return self.name if self.value is _ANY else f"{self.name}={self.value!r}"


class ParameterFallbackProvider(RemoteProvider):
    """A remote provider that learns what its models do not take."""

    # Left out without a word: what the user did not ask for, or what has a substitute.
    silently: ClassVar[frozenset[str]] = frozenset()
    # What a request cannot be without.
    needed: ClassVar[frozenset[str]] = frozenset({"model", "messages", "input", "prompt"})

    def __init__(self, config: RemoteConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        # By address and model: another interface may take what this one does not.
        self._not_taken: dict[tuple[str, str], list[UnsupportedParameter]] = {}
        self._bindings = SchemaFallback()

    @abstractmethod
    def _culprit(
        self, error: ProviderError, body: Mapping[str, Any]
    ) -> UnsupportedParameter | None:
        """What of ``body`` the service says it does not take, if it says so."""

    def _leave_out(
        self,
        body: dict[str, Any],
        refused: UnsupportedParameter,
        known: list[UnsupportedParameter],
    ) -> None:
        """Take it out of ``body``, or put what replaces it in its place."""
        body.pop(refused.name, None)

    def _is_silent(self, refused: UnsupportedParameter, known: list[UnsupportedParameter]) -> bool:
        """Whether the user need not hear of it."""
        return refused.name in self.silently

    def _answered(  # noqa: PLR0913, PLR0917 (a conversation, and how it is sent)
        self,
        path: str,
        messages: Sequence[ChatMessage],
        model: str,
        parameters: ModelParameters,
        dialect: Dialect,
        build: Build,
        decoder: Callable[[], Decoder],
    ) -> AsyncGenerator[StreamChunk, None]:
        """Yield an answer; it is bound to the schema where the service takes it."""
        headers, schema = parameters.extra_headers, parameters.schema
        if schema is None:
            return self._asked(path, build(messages, parameters), model, decoder, headers)
        made = compile_schema(schema, dialect)

        def bound() -> AsyncGenerator[StreamChunk, None]:
            assert made is not None
            said = (
                add_schema_to_prompt(messages, made.schema) if dialect is JSON_OBJECT else messages
            )
            body = build(said, parameters)
            chunks = self._asked(path, body, model, decoder, headers, is_bound=True)
            return unwrap_answer(chunks) if made.is_wrapped else chunks

        def unbound() -> AsyncGenerator[StreamChunk, None]:
            body = build(add_schema_to_prompt(messages, schema), replace(parameters, schema=None))
            return self._asked(path, body, model, decoder, headers)

        return self._bindings.answered((path, model), schema, bound if made else None, unbound)

    async def _asked(  # noqa: PLR0913 (one request)
        self,
        path: str,
        body: dict[str, Any],
        model: str,
        decoder: Callable[[], Decoder],
        headers: Mapping[str, str],
        *,
        is_bound: bool = False,
    ) -> AsyncGenerator[StreamChunk, None]:
        """
        Yield the answer to ``POST body``, as it comes.

        A refusal of the schema that the answer is bound to is the caller's to deal with.
        """
        self._without_known(path, body, model)
        while True:
            chunks = self._chunks(path, body, model, decoder(), headers)
            has_begun = False
            try:
                async for chunk in chunks:
                    has_begun = True
                    yield chunk
                return
            except ProviderError as error:
                if has_begun or (is_bound and is_schema_refusal(error)):
                    raise
                if not self._has_learned(error, path, body, model):
                    raise
            finally:
                await chunks.aclose()

    def _without_known(self, path: str, body: dict[str, Any], model: str) -> None:
        """Leave out what is known not to be taken."""
        known = self._not_taken.get((path, model), [])
        for refused in known:
            if refused.is_in(body):
                self._leave_out(body, refused, known)

    def _has_learned(
        self, error: ProviderError, path: str, body: dict[str, Any], model: str
    ) -> bool:
        """Whether ``body`` is worth sending again, without what ``error`` blames."""
        refused = self._culprit(error, body)
        known = self._not_taken.setdefault((path, model), [])
        if refused is None or refused.name in self.needed or refused in known:
            return False
        if refused.is_lasting:
            known.append(refused)
        self._leave_out(body, refused, known)
        if refused.is_in(body):
            return False  # it cannot be left out
        if not self._is_silent(refused, known):
            msg = f"{self.name}/{model} does not take {refused}: it is left out from now on."
            warn(msg)
        return True
