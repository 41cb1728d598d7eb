"""
The values that travel between the rooms.

Messages and parameters go down to a provider; chunks, progress and responses come up.
All are immutable and know nothing of any service, notebook or file.
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple

from llm_magics._util.text import replace_lone_surrogates
from llm_magics.errors import ConfigurationError
from llm_magics.media import Image, Tool, ToolCall
from llm_magics.secrets import KeyHeaders, remember_headers, scrubbed

Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """
    One message of a conversation.

    Attributes:
        role: who speaks.
        content: the text.
        images: pictures that come with it.
        tool_calls: what the assistant wanted to call.
        tool_call_id: which call this is the result of, in a message of the role ``tool``.
        reasoning_blocks: what the service gave with an answer and wants back with it, as it is.
    """

    role: Role
    content: str
    images: tuple[Image, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    reasoning_blocks: tuple[Mapping[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            msg = f'A message cannot have the role "{self.role}".'
            raise ConfigurationError(msg, hint=f"Use one of {', '.join(ROLES)}.")
        object.__setattr__(self, "content", whole_text(self.content))

    @classmethod
    def of(cls, message: ChatMessage | Mapping[str, Any]) -> ChatMessage:
        """``message`` itself, or one made from ``{"role": …, "content": …}``."""
        if isinstance(message, ChatMessage):
            return message
        if isinstance(message, Mapping):
            known = {each.name for each in fields(cls)}
            is_text = isinstance(message.get("content"), str)
            if set(message) <= known and "role" in message and is_text:
                return cls(**message)
        msg = "A message is not one."  # its values are not shown: they may be long
        raise ConfigurationError(msg, hint='Write {"role": "user", "content": "…"}.')


@dataclass(frozen=True, slots=True)
class ModelParameters:
    """
    How to answer. What is ``None`` is left to the model's own default.

    Attributes:
        temperature: 0 (the likeliest token each time) or more.
        max_tokens: the longest answer, in tokens; 1 or more.
        top_p: the share of probability drawn from; above 0, at most 1.
        seed: the same seed asks for the same draw.
        stop: the answer ends before any of these.
        tools: what the model may call.
        tool_choice: ``auto``, ``none``, ``required``, or the name of the tool to call.
        schema: the JSON schema that the answer must fit.
        reasoning: think or not, or how much: ``low``, ``medium``, ``high``.
        stream: ask for a generator of `StreamChunk` instead of a `ModelResponse`.
        extra_body: sent along as it is, for what a service has beyond these.
        extra_headers: the same for the request's headers.
    """

    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Tool, ...] = ()
    tool_choice: str | None = None
    schema: Mapping[str, Any] | None = None
    reasoning: bool | str | None = None
    extra_headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "stop", _stops(self.stop))
        for name, values in (("extra_body", object), ("extra_headers", str)):
            _check_mapping(name, getattr(self, name), values)
        if self.extra_headers:
            remember_headers(self.extra_headers)
            object.__setattr__(self, "extra_headers", KeyHeaders(self.extra_headers))
        _check("temperature", self.temperature, 0, None, "a number, 0 or more")
        _check("top_p", self.top_p, 1e-9, 1, "a number above 0 and at most 1")
        _check("max_tokens", self.max_tokens, 1, None, "a whole number, 1 or more", whole=True)
        _check("seed", self.seed, None, None, "a whole number", whole=True)

    @classmethod
    def of(cls, parameters: ModelParameters | Mapping[str, Any] | None) -> ModelParameters:
        """
        Return ``parameters`` itself, or one made from a mapping, or all defaults for ``None``.

        Names that are not among the attributes go into ``extra_body``.

        Raises:
            ConfigurationError: a name is a slip, or a value is impossible.
        """
        if isinstance(parameters, ModelParameters):
            return parameters
        if parameters is None:
            return cls()
        if not isinstance(parameters, Mapping):
            msg = f"The parameters cannot be {type(parameters).__name__}."
            raise ConfigurationError(msg, hint="Give a dictionary, ModelParameters, or None.")
        known = [each.name for each in fields(cls)]
        given = {name: value for name, value in parameters.items() if name in known}
        beside = {name: value for name, value in parameters.items() if name not in known}
        for name in beside:
            _refuse_slip(name, known)
        if beside:
            _check_mapping("extra_body", given.get("extra_body", {}), object)
            given["extra_body"] = {**beside, **given.get("extra_body", {})}
        if isinstance(given.get("tools"), Iterable):
            given["tools"] = tuple(given["tools"])
        return cls(**given)

    def with_stream(self, stream: bool = True) -> ModelParameters:
        """These parameters, asking for a stream or not."""
        return replace(self, stream=stream)

    def with_bound(self, max_tokens: int) -> ModelParameters:
        """These parameters, with an answer of ``max_tokens`` at most."""
        return replace(self, max_tokens=max_tokens)


# Parameters that services have, and that look like slips for ours.
_THEIRS = frozenset({"top_k", "min_p", "min_tokens", "typical_p", "top_n", "stop_token_ids"})
# What the arguments of a call say.
_OF_THE_CALL = frozenset({"input", "messages", "model", "prompt"})


def _refuse_slip(name: object, known: Sequence[str]) -> None:
    if not isinstance(name, str) or name in _OF_THE_CALL:
        msg = f"{name!r} cannot be given as a parameter."
        raise ConfigurationError(msg, hint="It is an argument of the call itself.")
    meant = [] if name in _THEIRS else get_close_matches(name, known, n=1, cutoff=0.75)
    if meant:
        msg = f"There is no parameter {name}."
        raise ConfigurationError(msg, hint=f"Did you mean {meant[0]}?")


def _check_mapping(name: str, value: object, values: type) -> None:
    if isinstance(value, Mapping) and all(
        isinstance(key, str) and isinstance(each, values) for key, each in value.items()
    ):
        return
    msg = f"{name} cannot be what it is."  # not shown: it may hold a key
    kind = "texts" if values is str else "values"
    raise ConfigurationError(msg, hint=f"Give it a dictionary of {kind} by name.")


def _stops(stop: str | Iterable[str]) -> tuple[str, ...]:
    stops = (
        (stop,) if isinstance(stop, str) else tuple(stop) if isinstance(stop, Iterable) else stop
    )
    if not isinstance(stops, tuple) or not all(isinstance(each, str) for each in stops):
        msg = f"stop cannot be {stop!r}."
        raise ConfigurationError(msg, hint="Give it a text, or a list of texts.")
    return stops


def _check(  # noqa: PLR0913 (a row of a table)
    name: str,
    value: float | None,
    low: float | None,
    high: float | None,
    allowed: str,
    *,
    whole: bool = False,
) -> None:
    if value is None:
        return
    is_number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if (
        not is_number
        or not math.isfinite(value)
        or (low is not None and value < low)
        or (high is not None and value > high)
    ):
        msg = f"{name} cannot be {value!r}."
        raise ConfigurationError(msg, hint=f"Give it {allowed}.")


@dataclass(frozen=True, slots=True)
class Usage:
    """
    Tokens read and written, as the service counts them; ``None`` where it does not say.

    Attributes:
        input_tokens: of the prompt, whether from the service's cache or not. (Ollama from 0.30 on
            counts only what was not in its cache: it is not the length of the prompt there.)
        output_tokens: of the answer, its thinking included.
        cached_tokens: those of the prompt that came from the service's cache.
        cache_write_tokens: those of the prompt that were put into it.
        reasoning_tokens: those of the answer that are thinking, shown or not.
        service_tier: by which tier the service bills the call (``flex``, ``priority`` …).
    """

    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None
    service_tier: str | None = None

    def __post_init__(self) -> None:
        """Drop what is not a number of tokens, or not a name: a service may send anything."""
        for name in self.__slots__[:-1]:
            object.__setattr__(self, name, whole_number(getattr(self, name)))
        if not isinstance(self.service_tier, str) or not self.service_tier.isprintable():
            object.__setattr__(self, "service_tier", None)

    def __repr__(self) -> str:
        """Return what is known of it."""
        values = ((name, getattr(self, name)) for name in self.__slots__)
        known = ", ".join(f"{name}={value!r}" for name, value in values if value is not None)
        return f"Usage({known})"

    @property
    def total_tokens(self) -> int | None:
        """Input and output together."""
        if self.input_tokens is None or self.output_tokens is None:
            return None
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True, slots=True)
class EngineTimings:
    """What an engine measured itself, in seconds; ``None`` where it does not say."""

    load_s: float | None = None
    prompt_s: float | None = None
    generation_s: float | None = None

    def __post_init__(self) -> None:
        """What is no number of seconds counts as not told: a service may send anything."""
        for name in ("load_s", "prompt_s", "generation_s"):
            value = getattr(self, name)
            is_time = type(value) in (int, float) and 0 <= value < 2**63
            object.__setattr__(self, name, value if is_time else None)


class StreamChunk(NamedTuple):
    """
    A piece of an answer as it comes. (A tuple, because making one must cost next to nothing.)

    Attributes:
        text: the new text of the answer, often one token.
        reasoning: new text of the model's thinking, kept apart from the answer.
        elapsed_s: seconds from sending the request to reading this piece off the socket;
            ``None`` from a provider that does not stamp, and the road does it on arrival.
        finish_reason: why the answer ended, on the chunk that ends it.
        usage: tokens so far, on the chunk that tells.
        timings: the engine's own measurements, on the chunk that tells.
        raw: what the service sent, decoded.
        tool_calls: calls that are whole with this piece.
        reasoning_blocks: what must go back with the answer in the next turn.
        piece: ``tool_call`` for a piece of a call that is not whole yet, ``summary`` where
            ``reasoning`` sums up thinking that the service does not show; else empty.
        ends_reasoning: whether all text before this piece turns out to be thinking, because the
            model closed it without having opened it.
    """

    text: str = ""
    reasoning: str = ""
    elapsed_s: float | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    timings: EngineTimings | None = None
    raw: Mapping[str, Any] | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning_blocks: tuple[Mapping[str, Any], ...] = ()
    piece: str = ""
    ends_reasoning: bool = False

    @property
    def has_tokens(self) -> bool:
        """Whether it carries new text of any kind."""
        return bool(self.text or self.reasoning)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class ModelResponse:
    """A whole answer, or as much of one as came."""

    text: str
    model: str = ""
    provider: str = ""
    finish_reason: str | None = None
    reasoning: str = ""
    usage: Usage | None = None
    timings: EngineTimings | None = None
    raw: Mapping[str, Any] = field(default_factory=dict)
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning_blocks: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def of(
        cls, chunks: Iterable[StreamChunk], *, model: str = "", provider: str = ""
    ) -> ModelResponse:
        """The answer that ``chunks`` add up to. The last word on usage and finish wins."""
        chunks = settled(list(chunks))
        told = {name: _last(chunks, name) for name in ("finish_reason", "usage", "timings", "raw")}
        last: dict[str, Any] = {name: value for name, value in told.items() if value is not None}
        if "raw" in last:
            last["raw"] = scrubbed(last["raw"])
        return cls(
            text="".join([chunk.text for chunk in chunks]),
            reasoning="".join([chunk.reasoning for chunk in chunks]),
            tool_calls=tuple(call for chunk in chunks for call in chunk.tool_calls),
            reasoning_blocks=tuple(block for chunk in chunks for block in chunk.reasoning_blocks),
            model=model,
            provider=provider,
            **last,
        )


def settled(chunks: Sequence[StreamChunk]) -> Sequence[StreamChunk]:
    """Return ``chunks`` with the text that turned out to be thinking as their reasoning."""
    last = max((place for place, each in enumerate(chunks) if each.ends_reasoning), default=0)
    if not last:
        return chunks
    thoughts = [
        each._replace(text="", reasoning=each.reasoning + each.text) for each in chunks[:last]
    ]
    return [*thoughts, *chunks[last:]]


def _last(chunks: Sequence[StreamChunk], name: str) -> Any:
    """What the last of ``chunks`` that tells of ``name`` says."""
    return next(
        (told for each in reversed(chunks) if (told := getattr(each, name)) is not None), None
    )


class Embeddings(list[list[float]]):
    """One vector per text, and the tokens they took where the service tells."""

    def __init__(self, vectors: Iterable[list[float]] = (), usage: Usage | None = None) -> None:
        super().__init__(vectors)
        self.usage = usage

    @classmethod
    def of_rows(cls, rows: Sequence[object], usage: Usage | None = None) -> Embeddings:
        """Take vectors as a service sent them; what is not a list of numbers becomes NaN."""
        vectors = [
            row if isinstance(row, list) and float32_bytes(row) is not None else None
            for row in rows
        ]
        width = max((len(row) for row in vectors if row), default=1)
        return cls((row or [math.nan] * width for row in vectors), usage)


class PackedVectors(NamedTuple):
    """
    Vectors as bytes: float32, little-endian, one row of ``dimensions`` after the other.

    A row of NaN stands for a vector that could not be read. ``usage`` has the tokens they took
    where the service tells.
    """

    data: bytes
    dimensions: int
    usage: Usage | None = None

    @classmethod
    def of(cls, vectors: Sequence[Sequence[float]]) -> PackedVectors:
        """Pack ``vectors``; one that is not a list of numbers, or is too short, becomes NaN."""
        usage = vectors.usage if isinstance(vectors, Embeddings) else None
        return cls.of_rows([float32_bytes(vector) for vector in vectors], usage)

    @classmethod
    def of_rows(cls, rows: Sequence[bytes | None], usage: Usage | None = None) -> PackedVectors:
        """
        Join ``rows`` of float32; one that is missing or not as long as most becomes NaN.

        Where no length is that of most rows, all of them become NaN: nothing tells which of
        them are right.
        """
        counts = Counter(len(row) for row in rows if row)
        common = counts.most_common(2)
        is_tie = len(common) == 2 and common[0][1] == common[1][1]
        size = common[0][0] if common and not is_tie else 4
        if is_tie or len(common) > 1 or not all(rows):
            hole = _NAN * (size // 4)
            rows = [hole if is_tie or row is None or len(row) != size else row for row in rows]
        return cls(b"".join(row or b"" for row in rows), size // 4 if rows else 0, usage)


_NAN = struct.pack("<f", math.nan)


def float32_bytes(vector: Any) -> bytes | None:
    """Return ``vector`` as little-endian float32; ``None`` where it is not a list of numbers."""
    if isinstance(vector, str | bytes | bytearray | Mapping):
        return None
    if isinstance(vector, list) and bool in set(map(type, vector)):
        return None
    try:
        packed = array("f", vector)
    except (TypeError, ValueError, OverflowError):
        return None
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes() or None


@dataclass(frozen=True, slots=True)
class Timing:
    """
    What one call took; the definitions stand in `llm_magics.policies.metrics`.

    ``ttft_s``, ``e2e_s`` and ``load_s`` are seconds, ``itl_ms`` milliseconds.
    """

    ttft_s: float | None = None
    itl_ms: float | None = None
    e2e_s: float | None = None
    load_s: float = 0.0
    tokens_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """
    How far some long work has come.

    Attributes:
        task: what is being done, for people ("fetching smollm2-135m").
        done, total: how much of it, in ``unit``; ``total`` is ``None`` where unknown.
        unit: ``"B"`` for bytes, else a word for the things counted.
        elapsed_s: seconds since the work began.
        before: how much of ``done`` was there then, and took no time.
        is_load: whether this is loading a model, which is told apart from answering.
    """

    task: str
    done: int = 0
    total: int | None = None
    unit: str = "B"
    elapsed_s: float = 0.0
    is_load: bool = False
    before: int = 0

    def __post_init__(self) -> None:
        """A service may send anything: a size that is none counts as unknown."""
        object.__setattr__(self, "task", replace_lone_surrogates(self.task))
        object.__setattr__(self, "done", whole_number(self.done) or 0)
        object.__setattr__(self, "total", whole_number(self.total))

    @property
    def fraction(self) -> float | None:
        """From 0 to 1, or ``None`` where the total is unknown."""
        return min(1.0, self.done / self.total) if self.total else None

    @property
    def eta_s(self) -> float | None:
        """Seconds to go at the speed so far, or ``None`` while that is unknown."""
        if not self.total or not self.speed:
            return None
        return max(0.0, (self.total - self.done) / self.speed)

    @property
    def speed(self) -> float | None:
        """So much a second, or ``None`` while that is unknown."""
        since = self.done - self.before
        return since / self.elapsed_s if since > 0 and self.elapsed_s else None

    def __str__(self) -> str:
        parts = [self.task]
        if self.total:
            parts.append(f"{_amount(self.done, self.unit, self.total)}")
            parts.append(f"{self.fraction:.0%}")
        if self.speed is not None:
            parts.append(f"{_quantity(self.speed, self.unit)}/s")
        if self.eta_s is not None and self.fraction != 1:
            parts.append(f"ETA {self.eta_s:.0f} s")
        return "  ".join(parts)


def _amount(done: int, unit: str, total: int) -> str:
    if unit == "B":
        return f"{done / 1e6:.1f}/{total / 1e6:.1f} MB"
    return f"{done:,}/{total:,} {unit}"


def _quantity(amount: float, unit: str) -> str:
    return f"{amount / 1e6:.1f} MB" if unit == "B" else f"{amount:,.0f} {unit}"


def messages_of(messages: Sequence[ChatMessage | Mapping[str, Any]]) -> list[ChatMessage]:
    """``messages`` as `ChatMessage`, whichever way they were written."""
    return [ChatMessage.of(message) for message in messages]


def whole_number(value: object) -> int | None:
    """``value`` if it is a number of things that a machine can count to, else ``None``."""
    if type(value) is not int or not 0 <= value < 2**63:
        return None
    return value


def model_name(value: object) -> str:
    """
    Return ``value`` as the name of a model.

    Raises:
        TypeError: it is not a text, or an empty one.
    """
    if not isinstance(value, str) or not value:
        msg = f"a model whose name is {value!r:.60}"
        raise TypeError(msg)
    return replace_lone_surrogates(value)


whole_text = replace_lone_surrogates
