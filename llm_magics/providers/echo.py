"""
A provider that needs nothing and surprises nobody: for tests, tutorials and dry runs.

``echo/echo`` answers with the last message; ``echo/lorem`` with text drawn from the prompt
and the seed. Text, tokens, vectors and *times* depend on these alone: the clock is virtual,
so that a table of its latencies is the same on every machine.
"""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from pydantic import Field

from llm_magics.errors import ModelNotFoundError, nearest
from llm_magics.providers.base import ModelInfo, ProviderConfig, StreamingProvider
from llm_magics.types import (
    ChatMessage,
    Embeddings,
    ModelParameters,
    Progress,
    StreamChunk,
    Usage,
)

MODELS = ("echo", "lorem")
_CONTEXT = 8192
_LOREM_TOKENS = 60

_WORDS = [
    "lorem",
    "ipsum",
    "dolor",
    "sit",
    "amet",
    "consectetur",
    "adipiscing",
    "elit",
    "sed",
    "do",
    "eiusmod",
    "tempor",
    "incididunt",
    "ut",
    "labore",
    "et",
    "dolore",
    "magna",
    "aliqua",
    "enim",
    "ad",
    "minim",
    "veniam",
    "quis",
    "nostrud",
    "exercitation",
    "ullamco",
    "laboris",
    "nisi",
    "aliquip",
    "ex",
    "ea",
    "commodo",
    "consequat",
    "duis",
    "aute",
    "irure",
    "in",
    "reprehenderit",
    "voluptate",
    "velit",
    "esse",
    "cillum",
    "fugiat",
    "nulla",
    "pariatur",
    "excepteur",
    "sint",
    "occaecat",
    "cupidatat",
    "non",
    "proident",
    "sunt",
    "culpa",
    "qui",
    "officia",
    "deserunt",
    "mollit",
    "anim",
    "id",
    "est",
    "laborum",
]


class EchoConfig(ProviderConfig):
    """
    Attributes:
        ttft_s: virtual seconds to the first token, besides 1 ms a prompt token.
        tokens_per_s: virtual speed after it; each gap varies by a quarter around it.
        dimensions: length of its vectors.
    """

    ttft_s: float = Field(0.05, ge=0)
    tokens_per_s: float = Field(100.0, gt=0)
    dimensions: int = Field(64, ge=1)


class EchoProvider(StreamingProvider):
    """Answers from the prompt and the seed alone, on a virtual clock."""

    name = "echo"
    writes_thinking = False  # a prompt comes back as it is
    config_type = EchoConfig
    config: EchoConfig

    def __init__(self, config: EchoConfig | None = None) -> None:
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
        abilities = ("chat", "completion", "embeddings")
        return [
            ModelInfo(name, abilities, context=_CONTEXT, size_bytes=0, pulled=True, loaded=True)
            for name in await self.list_models()
        ]

    async def health_check(self) -> dict[str, Any]:
        return {"status": "ok", "detail": "always ready", "models": await self.list_models()}

    async def pull_model(self, model: str) -> AsyncGenerator[Progress, None]:
        """Bring a deleted model back; there is nothing to fetch."""
        model = self._known(model, of=MODELS)
        self._deleted.discard(model)
        yield Progress(f"fetching {model}", done=1, total=1, unit="model")

    async def delete_model(self, model: str) -> None:
        """Forget ``model`` until it is pulled again."""
        self._deleted.add(self._known(model))

    async def generate_embeddings(self, texts: Sequence[str], model: str) -> list[list[float]]:
        """Unit vectors of hashed words: texts that share words point the same way."""
        self._known(model)
        vectors = (_hashed_words(text, self.config.dimensions) for text in texts)
        return Embeddings(vectors, Usage(sum(len(tokens_of(text)) for text in texts), 0))

    def stream_chat(
        self, messages: Sequence[ChatMessage], model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        said = [message.content for message in messages if message.role == "user"]
        read = sum(len(tokens_of(message.content)) for message in messages)
        return self._stream(said[-1] if said else "", read, model, parameters)

    def stream_completion(
        self, prompt: str, model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        return self._stream(prompt, len(tokens_of(prompt)), model, parameters)

    async def _stream(
        self, prompt: str, input_tokens: int, model: str, parameters: ModelParameters
    ) -> AsyncGenerator[StreamChunk, None]:
        model = self._known(model)
        draw = random.Random(f"{model} {parameters.seed or 0} {prompt}")  # noqa: S311
        text = prompt if model == "echo" else _lorem(draw, _LOREM_TOKENS)
        tokens, finish_reason = _cut(text, parameters)
        clock = self.config.ttft_s + input_tokens / 1000
        for token in tokens:
            yield StreamChunk(token, elapsed_s=clock)
            clock += draw.uniform(0.75, 1.25) / self.config.tokens_per_s
        usage = Usage(input_tokens, len(tokens))
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


def tokens_of(text: str) -> list[str]:
    """``text`` cut into what counts as tokens here: words with the space before them."""
    return re.findall(r"\s*\S+|\s+$", text)


def _cut(text: str, parameters: ModelParameters) -> tuple[list[str], str]:
    """The tokens of ``text`` up to a stop sequence or the longest answer allowed, and why."""
    stops = [text.index(stop) for stop in parameters.stop if stop and stop in text]
    tokens = tokens_of(text[: min(stops)] if stops else text)
    if parameters.max_tokens is not None and len(tokens) > parameters.max_tokens:
        return tokens[: parameters.max_tokens], "length"
    return tokens, "stop"


def _lorem(draw: random.Random, count: int) -> str:
    words: list[str] = []
    while len(words) < count:
        sentence = draw.choices(_WORDS, k=draw.randint(6, 12))
        words += [sentence[0].capitalize(), *sentence[1:-1], sentence[-1] + "."]
    return " ".join(words)


def _hashed_words(text: str, dimensions: int) -> list[float]:
    vector = [0.0] * dimensions
    for word in re.findall(r"\w+", text.lower()) or [text]:
        digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
        vector[int.from_bytes(digest[:4], "little") % dimensions] += 1.0 if digest[4] & 1 else -1.0
    norm = math.sqrt(sum(value * value for value in vector))
    if not norm:  # words that cancel out
        vector[0], norm = 1.0, 1.0
    return [value / norm for value in vector]
