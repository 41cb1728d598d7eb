"""
A deterministic provider without a network or a model, for tests, tutorials and dry runs.

``echo/echo`` answers with the last message; ``echo/lorem`` with text that is generated from the
prompt and the seed. Text, tokens, vectors and *times* depend on these alone: the clock is virtual,
so that a table of latencies is the same on every machine.

``echo/echo`` calls a tool if the message contains the call, in Python syntax, and answers with the
tool's result. An image appears in the answer as its URL or media type.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import random
import re
import warnings
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from pydantic import Field

from llm_magics.errors import ModelNotFoundError, nearest
from llm_magics.host import Progress
from llm_magics.parameters import ModelParameters, Tool
from llm_magics.providers.base import ModelInfo, StreamingProvider
from llm_magics.providers.configs import ProviderConfig
from llm_magics.types import ChatMessage, Embeddings, StreamChunk, ToolCall, Usage
from llm_magics.wire.thinking import NO_THINKING, ThinkingRules

_MAX_CALL_CHARS = 2000
_MAX_CALLS, _MAX_MATCHES = 20, 200
# A quoted text or a single character; only brackets outside quotes count.
_PART = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|.""", re.DOTALL)


def parse_calls(text: str, tools: Sequence[Tool]) -> tuple[ToolCall, ...]:
    """
    Return the calls of ``tools`` in ``text``, such as ``weather("Oslo")``, in their order.

    Arguments are literals, positional or by keyword; invalid Python is not a call.
    """
    by_name = {tool.name: tool for tool in tools}
    found: list[ToolCall] = []
    for name, source in _find_calls(text, list(by_name)):
        arguments = _parse_arguments(source, by_name[name])
        if arguments is not None and len(found) < _MAX_CALLS:
            found.append(ToolCall(f"call_{len(found)}", name, arguments))
    return tuple(found)


def _find_calls(text: str, names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each call of one of ``names`` in ``text``, up to its closing bracket."""
    if not names:
        return
    end = 0
    matches = re.finditer(rf"(?<![\w.])({'|'.join(map(re.escape, names))})\(", text)
    for match in islice(matches, _MAX_MATCHES):
        if match.start() < end:  # inside the previous call
            continue
        length = _call_length(text[match.end() : match.end() + _MAX_CALL_CHARS])
        end = match.end() + max(0, length)
        if length >= 0:
            yield match[1], f"f({text[match.end() : end]}"


def _call_length(text: str) -> int:
    """Return the length of ``text`` up to the call's closing bracket; -1 if there is none."""
    depth = 1
    for part in _PART.finditer(text):
        depth += {"(": 1, ")": -1}.get(part[0], 0)
        if not depth:
            return part.end()
    return -1


def _parse_arguments(source: str, tool: Tool) -> str | None:
    """Return the arguments of a call as JSON; ``None`` if they are invalid."""
    names = list(tool.parameters.get("properties", {}))
    try:
        with warnings.catch_warnings(action="ignore"):  # about invalid escapes in the user's text
            node = ast.parse(source, mode="eval").body
        if not isinstance(node, ast.Call) or len(node.args) > len(names):
            return None
        values: dict[str, Any] = dict(zip(names, map(ast.literal_eval, node.args), strict=False))
        for each in node.keywords:
            if each.arg is None or each.arg in values:
                return None
            values[each.arg] = ast.literal_eval(each.value)
        arguments = json.dumps(values, ensure_ascii=False, allow_nan=False)
        arguments.encode("utf-8")
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None
    return arguments


LOREM_TOKENS = 60
_WORDS = (  # noqa: SIM905 (a list would fill a page)
    "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor "
    "incididunt ut labore et dolore magna aliqua enim ad minim veniam quis nostrud "
    "exercitation ullamco laboris nisi aliquip ex ea commodo consequat duis aute irure in "
    "reprehenderit voluptate velit esse cillum fugiat nulla pariatur excepteur sint "
    "occaecat cupidatat non proident sunt culpa qui officia deserunt mollit anim id est "
    "laborum "
).split()


def tokenize(text: str) -> list[str]:
    """Return ``text`` split into tokens: words with the space before them."""
    return re.findall(r"\s*\S+|\s+$", text)


def lorem(draw: random.Random, count: int = LOREM_TOKENS) -> str:
    """Return sentences of random words, at least ``count`` in total."""
    words: list[str] = []
    while len(words) < count:
        sentence = draw.choices(_WORDS, k=draw.randint(6, 12))
        words += [sentence[0].capitalize(), *sentence[1:-1], sentence[-1] + "."]
    return " ".join(words)


def hash_embedding(text: str, dimensions: int) -> list[float]:
    """Return a unit vector to which each word contributes plus or minus one in one dimension."""
    vector = [0.0] * dimensions
    for word in re.findall(r"\w+", text.lower()) or [text]:
        digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
        vector[int.from_bytes(digest[:4], "little") % dimensions] += 1.0 if digest[4] & 1 else -1.0
    norm = math.sqrt(sum(value * value for value in vector))
    if not norm:  # words that cancel out
        vector[0], norm = 1.0, 1.0
    return [value / norm for value in vector]


_TEXT = ("chat", "completion", "embeddings")
_CAPABILITIES = {"echo": (*_TEXT, "vision", "tools"), "lorem": _TEXT}
MODELS = tuple(_CAPABILITIES)
_CONTEXT = 8192


class EchoConfig(ProviderConfig):
    """
    Attributes:
        ttft_s: virtual seconds to the first token, in addition to 1 ms per prompt token.
        tokens_per_s: virtual speed afterwards; each gap varies by a quarter.
        dimensions: length of the vectors.
    """

    ttft_s: float = Field(0.05, ge=0)
    tokens_per_s: float = Field(100.0, gt=0)
    dimensions: int = Field(64, ge=1)


class EchoProvider(StreamingProvider):
    """A provider whose answers depend only on prompt and seed, with a virtual clock."""

    name = "echo"
    capabilities = (*_CAPABILITIES["echo"], "pull", "delete")
    writes_thinking = False  # the answer repeats the prompt unchanged
    config_type = EchoConfig
    config: EchoConfig

    def __init__(self, config: EchoConfig | Mapping[str, Any] | None = None) -> None:
        super().__init__(config)
        self._deleted: set[str] = set()

    async def initialize(self) -> bool:
        return True

    async def list_models(self) -> list[str]:
        return [model for model in MODELS if model not in self._deleted]

    def is_free(self, model: str) -> bool:
        return True

    def batches_may_differ(self, model: str) -> bool:
        return False

    async def describe_models(self) -> list[ModelInfo]:
        return [
            ModelInfo(
                name, _CAPABILITIES[name], context=_CONTEXT, size_bytes=0, pulled=True, loaded=True
            )
            for name in await self.list_models()
        ]

    async def health_check(self) -> dict[str, Any]:
        return {"status": "ok", "detail": "always ready", "models": await self.list_models()}

    async def pull_model(self, model: str) -> AsyncGenerator[Progress, None]:
        """Restore a deleted model. There is nothing to download."""
        model = self._known(model, of=MODELS)
        self._deleted.discard(model)
        yield Progress(f"downloading {model}", done=1, total=1, unit="model")

    async def delete_model(self, model: str) -> None:
        """Hide ``model`` until it is pulled again."""
        self._deleted.add(self._known(model))

    async def generate_embeddings(self, texts: Sequence[str], model: str) -> list[list[float]]:
        """Return unit vectors of hashed words: texts that share words have similar vectors."""
        self._known(model)
        vectors = (hash_embedding(text, self.config.dimensions) for text in texts)
        return Embeddings(vectors, Usage(sum(len(tokenize(text)) for text in texts), 0))

    async def thinking_rules(self, model: str) -> ThinkingRules:
        return NO_THINKING

    def stream_chat(
        self, messages: Sequence[ChatMessage], model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        read = sum(len(tokenize(message.content)) for message in messages)
        text = _last_message(messages)
        may_call = self.bare(model) == "echo" and messages and messages[-1].role == "user"
        calls = _allowed_calls(text, parameters) if may_call else ()
        return self._stream(text, read, model, parameters, calls)

    def stream_completion(
        self, prompt: str, model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        return self._stream(prompt, len(tokenize(prompt)), model, parameters)

    async def _stream(
        self,
        prompt: str,
        input_tokens: int,
        model: str,
        parameters: ModelParameters,
        calls: tuple[ToolCall, ...] = (),
    ) -> AsyncGenerator[StreamChunk, None]:
        model = self._known(model)
        draw = random.Random(f"{model} {parameters.seed or 0} {prompt}")  # noqa: S311
        text = "" if calls else prompt if model == "echo" else lorem(draw)
        tokens, finish_reason = _cut(text, parameters)
        clock = self.config.ttft_s + input_tokens / 1000
        for token in tokens:
            yield StreamChunk(token, elapsed_s=clock)
            clock += draw.uniform(0.75, 1.25) / self.config.tokens_per_s
        if calls:
            finish_reason = "tool_calls"
            yield StreamChunk(elapsed_s=clock, tool_calls=calls)
        usage = Usage(input_tokens, len(tokens) + len(calls))
        yield StreamChunk(elapsed_s=clock, finish_reason=finish_reason, usage=usage)

    def _known(self, model: str, of: Sequence[str] | None = None) -> str:
        models = of or [name for name in MODELS if name not in self._deleted]
        model = self.bare(model)
        if model not in models:
            msg = f'echo has no model "{model}".'
            raise ModelNotFoundError(
                msg, hint=nearest(model, models), provider=self.name, model=model
            )
        return model


def _last_message(messages: Sequence[ChatMessage]) -> str:
    """Return the user's last message with its images named, or the results of later tool calls."""
    results: list[str] = []
    for message in reversed(messages):
        if message.role == "tool":
            results.append(message.content)
        elif results:
            return "\n".join(reversed(results))
        elif message.role == "user":
            pictures = (image.url or image.media_type for image in message.images)
            return "\n".join([message.content, *(f"[picture: {each}]" for each in pictures)])
    return "\n".join(reversed(results))


def _allowed_calls(text: str, parameters: ModelParameters) -> tuple[ToolCall, ...]:
    """Return the calls in ``text`` that ``parameters.tool_choice`` allows."""
    choice = parameters.tool_choice
    if choice == "none":
        return ()
    is_named = choice not in (None, "auto", "required")
    return parse_calls(text, [t for t in parameters.tools if not is_named or t.name == choice])


def _cut(text: str, parameters: ModelParameters) -> tuple[list[str], str]:
    """Return the tokens of ``text`` up to a stop or ``max_tokens``, and the finish reason."""
    stops = [text.index(stop) for stop in parameters.stop if stop and stop in text]
    tokens = tokenize(text[: min(stops)] if stops else text)
    if parameters.max_tokens is not None and len(tokens) > parameters.max_tokens:
        return tokens[: parameters.max_tokens], "length"
    return tokens, "stop"
