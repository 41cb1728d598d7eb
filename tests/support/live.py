"""Real servers: where they are, which models are asked there, and how busy they are."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil
import pytest

from llm_magics import ChatMessage, ModelParameters, ModelResponse, StreamChunk
from llm_magics.providers import create_provider
from llm_magics.providers.base import BaseModelProvider
from llm_magics.types import Tool

# Read at import: each test runs without the variables of its user.
_ENVIRONMENT = dict(os.environ)

WEATHER = Tool(
    "get_weather",
    "The weather of a city",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


def variable(name: str, default: str = "") -> str:
    """The value that an environment variable had when the tests began."""
    return _ENVIRONMENT.get(name) or default


def needs(*names: str) -> pytest.MarkDecorator:
    """Skip a test unless these environment variables are set."""
    missing = [name for name in names if not variable(name)]
    return pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)} is not set")


@dataclass(frozen=True)
class Target:
    """
    A service as one provider sees it.

    Attributes:
        name: in the ids of tests.
        at: the environment variable without which it is skipped.
        provider: which provider asks it.
        path: what follows the address in ``at``, where that is one.
        settings: of the provider.
        chat, embedding, tools, thinking: its models; empty where it has none.
        parameters: those of a short answer that is the same each time, as far as it can be.
        checks_models: whether it refuses the name of a model that it does not have.
        follows_schemas: whether its answers can have no other form than the schema's.
        stops: whether it has stop sequences.
    """

    name: str
    at: str
    provider: str
    chat: str
    path: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    embedding: str = ""
    tools: str = ""
    thinking: str = ""
    parameters: Mapping[str, Any] = field(
        default_factory=lambda: {"max_tokens": 8, "temperature": 0, "seed": 1}
    )
    checks_models: bool = True
    follows_schemas: bool = True
    stops: bool = True

    @property
    def is_there(self) -> bool:
        """Whether the environment says where it is."""
        return bool(variable(self.at))

    @property
    def config(self) -> dict[str, Any]:
        """The provider's settings."""
        if self.path is None:
            return {"api_key": variable(self.at), **self.settings}
        address = variable(self.at)
        address = address if "://" in address else f"http://{address}"
        return {"base_url": f"{address}{self.path}", "api_key": "none", **self.settings}

    def create(self) -> BaseModelProvider:
        """Return a new provider for it."""
        return create_provider(self.provider, **self.config)

    def short(self, **more: Any) -> ModelParameters:
        """Return the parameters of a short answer."""
        return ModelParameters(**{**self.parameters, **more})


_OLLAMA = {
    "at": "OLLAMA_HOST",
    "chat": variable("LIVE_OLLAMA_MODEL", "smollm2:135m"),
    "tools": variable("LIVE_OLLAMA_TOOLS_MODEL", "smollm2-tools"),
    "thinking": variable("LIVE_OLLAMA_THINKING_MODEL", "smollm2-think"),
}
_OLLAMA_EMBEDDING = variable("LIVE_OLLAMA_EMBEDDING_MODEL", "all-minilm")
# Of one model, whatever a request calls it.
_LLAMA_SERVER = {"at": "LIVE_LLAMA_SERVER", "chat": "smollm2", "checks_models": False}
_LLAMA_CPP = {"profile": "llamacpp"}
_RESPONSES = {"api": "responses"}
_OPENAI = variable("LIVE_OPENAI_MODEL", "gpt-4.1-nano")
_ANTHROPIC = variable("LIVE_ANTHROPIC_MODEL", "claude-haiku-4-5")
_GEMINI = variable("LIVE_GEMINI_MODEL", "gemini-2.5-flash-lite")
_HUGGINGFACE = variable("LIVE_HUGGINGFACE_MODEL", "meta-llama/Llama-3.1-8B-Instruct")
_UNSEEDED = {"max_tokens": 8, "temperature": 0}

TARGETS = {
    target.name: target
    for target in (
        Target("ollama", provider="ollama", path="", settings={"api_key": None}, embedding=_OLLAMA_EMBEDDING, **_OLLAMA),
        Target("ollama-chat", provider="openai", path="/v1", embedding=_OLLAMA_EMBEDDING, **_OLLAMA),
        Target("ollama-responses", provider="openai", path="/v1", settings=_RESPONSES, stops=False, **_OLLAMA),
        Target("ollama-messages", provider="anthropic", path="", follows_schemas=False, **_OLLAMA),
        Target("llama-chat", provider="openai", path="/v1", settings=_LLAMA_CPP, **_LLAMA_SERVER),
        Target("llama-responses", provider="openai", path="/v1", settings=_LLAMA_CPP | _RESPONSES, follows_schemas=False, stops=False, **_LLAMA_SERVER),
        Target("llama-messages", provider="anthropic", path="", follows_schemas=False, **_LLAMA_SERVER),
        Target("openai", "OPENAI_API_KEY", "openai", _OPENAI, embedding=variable("LIVE_OPENAI_EMBEDDING_MODEL", "text-embedding-3-small"), tools=_OPENAI),
        Target("openai-responses", "OPENAI_API_KEY", "openai", _OPENAI, settings=_RESPONSES, tools=_OPENAI, parameters={"max_tokens": 16, "temperature": 0}, stops=False),
        Target("anthropic", "ANTHROPIC_API_KEY", "anthropic", _ANTHROPIC, tools=_ANTHROPIC, parameters=_UNSEEDED),
        Target("gemini", "GEMINI_API_KEY", "gemini", _GEMINI, embedding=variable("LIVE_GEMINI_EMBEDDING_MODEL", "gemini-embedding-001"), tools=_GEMINI),
        Target("huggingface", "HF_TOKEN", "huggingface", _HUGGINGFACE, embedding=variable("LIVE_HUGGINGFACE_EMBEDDING_MODEL", "sentence-transformers/all-MiniLM-L6-v2"), follows_schemas=False, parameters=_UNSEEDED),
        Target("lmstudio", "LMSTUDIO_BASE_URL", "lmstudio", variable("LIVE_LMSTUDIO_MODEL", "smollm2-135m-instruct"), path="", embedding=variable("LIVE_LMSTUDIO_EMBEDDING_MODEL", "text-embedding-nomic-embed-text-v1.5")),
    )
}  # fmt: skip


def model_processes() -> list[psutil.Process]:
    """The processes that run the models of Ollama."""
    command = shlex.split(variable("LIVE_OLLAMA_PIDS"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return [psutil.Process(int(pid)) for pid in done.stdout.split()]


# The slot of a server that still starts, as far as the tests read it.
_STARTING = {"is_processing": True, "next_token": [{"n_decoded": 0}]}


def slots(target: Target) -> list[dict[str, Any]]:
    """
    What llama.cpp's servers compute for ``target``: one entry for each request that fits in.

    The models of Ollama run on such servers too, whose ports are in their command lines.
    """
    if target.at == "LIVE_LLAMA_SERVER":
        addresses = [variable("LIVE_LLAMA_SERVER")]
    else:
        words = [process.cmdline() for process in model_processes()]
        addresses = [f"http://127.0.0.1:{each[each.index('--port') + 1]}" for each in words]
    found: list[dict[str, Any]] = []
    for address in addresses:
        try:
            reply = httpx.get(f"{address}/slots", timeout=60)
        except httpx.TransportError:
            reply = None
        # A server that starts refuses connections, then answers with an error; one that Ollama
        # ends while it is asked resets them.
        is_ready = reply is not None and reply.status_code == 200
        found += reply.json() if reply is not None and is_ready else [_STARTING]
    return found


def is_busy(target: Target) -> bool:
    """Whether a server computes for ``target``."""
    return any(slot["is_processing"] for slot in slots(target))


def can_see_slots(target: Target) -> bool:
    """Whether `slots` knows anything of ``target``."""
    seen = {"LIVE_LLAMA_SERVER": "LIVE_LLAMA_SERVER", "OLLAMA_HOST": "LIVE_OLLAMA_PIDS"}
    return bool(variable(seen.get(target.at, "")))


def targets_with(attribute: str) -> pytest.MarkDecorator:
    """Run a test for each target with ``attribute``, such as a model for embeddings."""
    names = [name for name, target in TARGETS.items() if getattr(target, attribute)]
    return pytest.mark.parametrize("target", names, indirect=True)


async def stream_of(
    provider: BaseModelProvider,
    messages: Sequence[ChatMessage],
    model: str,
    parameters: ModelParameters,
) -> AsyncGenerator[StreamChunk, None]:
    """Return the stream of an answer."""
    answer = await provider.generate_chat(messages, model, parameters.with_stream())
    assert isinstance(answer, AsyncGenerator)
    return answer


async def answer_of(
    provider: BaseModelProvider,
    messages: Sequence[ChatMessage] | str,
    model: str,
    parameters: ModelParameters,
) -> ModelResponse:
    """Return the whole answer to messages, or the continuation of a text."""
    if isinstance(messages, str):
        answer = await provider.generate_completion(messages, model, parameters)
    else:
        answer = await provider.generate_chat(messages, model, parameters)
    assert isinstance(answer, ModelResponse)
    return answer
