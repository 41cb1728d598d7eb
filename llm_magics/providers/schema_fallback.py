"""
Binding an answer to a schema where the service can, and stating the schema in the prompt otherwise.

Which model takes which schema is found out by trying: a request that is refused because of its
schema is repeated once without it, with the schema in the prompt. The refusal is remembered, for
the model where it takes no schemas at all, and otherwise for this schema.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llm_magics.errors import (
    AuthenticationError,
    ConnectionError,
    ContentFilterError,
    ContextLengthError,
    ModelNotFoundError,
    ProviderError,
    RateLimitError,
)
from llm_magics.parameters import ModelParameters
from llm_magics.providers.error_bodies import parse_error
from llm_magics.types import ChatMessage, StreamChunk
from llm_magics.wire.schema_dialects import WRAPPER, Dialect, compile_schema

Chunks = AsyncGenerator[StreamChunk, None]

# What services say of a schema, or of an answer's format, that they do not take.
_SCHEMA_WORDS = re.compile(
    r"response[_ ]?format|json[_ ]?schema|structured[_ ]outputs?|output_config|output_format"
    r"|text\.format|guided|grammar|invalid schema|schema (?:is )?too|failed_generation"
    r"|json_validate_failed",
    re.IGNORECASE,
)
# The words that blame the schema itself: another one may be taken.
_INVALID_SCHEMA_WORDS = re.compile(
    r"invalid (?:json )?schema|in context=|propert(?:y|ies)\b|\.schema\b|schema error"
    r"|conversion failed|too (?:complex|many|large|deep)|nesting|recursi|\$ref|grammar",
    re.IGNORECASE,
)
# The model's own failure to write what fits: the next answer may be bound again.
_GENERATION_FAILED = re.compile(r"json_validate_failed|failed_generation", re.IGNORECASE)

_OTHER_ERRORS = (
    AuthenticationError,
    ConnectionError,
    ContentFilterError,
    ContextLengthError,
    ModelNotFoundError,
    RateLimitError,
)
# With these a service blames the request; Ollama does it with 500 too.
_STATUSES = frozenset({None, 400, 422, 500, 501})

_ANY_SCHEMA = ""


def add_schema_to_prompt(
    messages: Sequence[ChatMessage], schema: Mapping[str, Any]
) -> list[ChatMessage]:
    """Return ``messages`` with the schema at the end of the last one of the user's."""
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
    """Whether a service refuses a request because of the schema of its answer."""
    if isinstance(error, _OTHER_ERRORS) or error.status not in _STATUSES:
        return False
    return bool(_SCHEMA_WORDS.search(_error_text(error)))


def _error_text(error: ProviderError) -> str:
    details = parse_error(error.body)
    body = error.body.get("error") if isinstance(error.body, Mapping) else None
    parameter = body.get("param") if isinstance(body, Mapping) else None
    return " ".join(
        str(each) for each in (details.message[:2000], details.code, parameter, error) if each
    )


async def retry_unless_begun(
    first: Callable[[], Chunks], next_attempt: Callable[[ProviderError], Chunks | None]
) -> Chunks:
    """
    Yield the answer of ``first``; on an error before its first chunk, that of the next attempt.

    Args:
        first: sends the request.
        next_attempt: sends it in another form after an error, or returns ``None`` to raise it.
    """
    chunks = first()
    while True:
        has_begun = False
        try:
            async for chunk in chunks:
                has_begun = True
                yield chunk
            return
        except ProviderError as error:
            following = None if has_begun else next_attempt(error)
            if following is None:
                raise
        finally:
            await chunks.aclose()
        chunks = following


class SchemaFallback:
    """Remembers which schemas the models of a provider refuse, and states those in the prompt."""

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
        Return the answer of ``send``, bound to the schema of ``parameters`` if there is one.

        For providers whose dialect wraps nothing.
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
        Return the answer of ``bound``, or of ``unbound`` where the service refuses the schema.

        Args:
            model: the address and the model.
            schema: of the answer, as the user wrote it.
            bound: sends the schema; ``None`` where it has no form for this service.
            unbound: sends the request with the schema in the prompt.
            retry: the next attempt after any other error, if there is one.
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
        words = _error_text(error)
        if _GENERATION_FAILED.search(words):
            return None
        entry = (*model, key if _INVALID_SCHEMA_WORDS.search(words) else _ANY_SCHEMA)
        self._refused.add(entry)
        return entry


def _schema_digest(schema: Mapping[str, Any]) -> str:
    text = json.dumps(dict(schema), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# The beginning of an answer inside the object that was put around its schema, and parts of it.
_WRAPPER_START = re.compile(rf'\s*\{{\s*"{WRAPPER}"\s*:\s*')
_PARTIAL_WRAPPER_START = re.compile(
    r"\s*(?:\{\s*(?:"
    + "|".join(re.escape(f'"{WRAPPER}"'[:length]) for length in range(len(WRAPPER) + 2, 0, -1))
    + rf'|"{WRAPPER}"\s*)?)?'
)
_WRAPPER_END = re.compile(r"\s*\}\s*")


class AnswerUnwrapper:
    """
    Takes the object off an answer that was wrapped in one, while it comes.

    An answer that is not wrapped passes unchanged. At the end the last ``}`` is held back, for it
    may be the wrapper's.
    """

    def __init__(self) -> None:
        self._held = ""
        self._is_wrapped: bool | None = None

    def take(self, chunk: StreamChunk) -> StreamChunk:
        """Return ``chunk`` with as much of the answer as is certain."""
        text = self._held + chunk.text
        self._held = ""
        if self._is_wrapped is None and text.strip():
            text = self._begun(text)
        elif self._is_wrapped is None:
            self._held, text = text, ""
        if self._is_wrapped:
            text = self._without_end(text)
        if chunk.finish_reason:
            text += self.flush()
        return chunk._replace(text=text) if text != chunk.text else chunk

    def _begun(self, text: str) -> str:
        found = _WRAPPER_START.match(text)
        # The white space after the colon may go on in the next chunk.
        if found is not None and found.end() < len(text):
            self._is_wrapped = True
            return text[found.end() :]
        if found is not None or _PARTIAL_WRAPPER_START.fullmatch(text):
            self._held = text
            return ""
        self._is_wrapped = False
        return text

    def _without_end(self, text: str) -> str:
        end = len(text.rstrip().removesuffix("}").rstrip())
        self._held = text[end:]
        return text[:end]

    def flush(self) -> str:
        """Return what was held back and is part of the answer."""
        held, self._held = self._held, ""
        if self._is_wrapped:
            return "" if _WRAPPER_END.fullmatch(held) else held
        return held


async def unwrap_answer(chunks: Chunks) -> Chunks:
    """Yield ``chunks`` without the object around the answer."""
    work = AnswerUnwrapper()
    try:
        async for chunk in chunks:
            yield work.take(chunk)
        if rest := work.flush():
            yield StreamChunk(rest)
    finally:
        await chunks.aclose()
