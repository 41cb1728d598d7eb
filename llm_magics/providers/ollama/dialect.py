"""
Ollama's specifics: its address and options, its errors, and how it reports progress.

Errors are classified by their messages if these are more specific than the status.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from llm_magics._util.json_text import read_json
from llm_magics.errors import (
    AuthenticationError,
    ContextLengthError,
    ModelNotFoundError,
    ProviderError,
    RateLimitError,
    UnsupportedError,
    UsageError,
    nearest,
)
from llm_magics.host import Progress
from llm_magics.http import find_request_id
from llm_magics.providers import error_mapping
from llm_magics.providers.error_bodies import parse_error
from llm_magics.providers.error_mapping import parse_retry_after
from llm_magics.providers.remote_config import RemoteConfig
from llm_magics.secrets import Secret, environment_value, redact, strip_whitespace
from llm_magics.wire.thinking import EFFORTS, ThinkingRules

# The messages of 0.24, of llama-server in 0.30, and of llama-server for a text to embed.
_TOO_LONG = re.compile(
    r"exceeds the (?:context length|available context size)|input .{0,40}too large to process"
)

_TOKENS = re.compile(r"\((\d{1,9}) tokens\)")

# A suggested context includes this many tokens for an answer, up to the largest context of any
# model.
_ROOM_FOR_ANSWER = 512
_MAX_CONTEXT = 2**20

# Parts of messages for invalid requests that the server sends with status 500.
_REQUEST_FAULT_WORDS = ("option ", "invalid format", "invalid json schema", "must be of type")


def map_ollama_error(
    said: Any, status: int | None, headers: Mapping[str, str], provider: str, model: str
) -> ProviderError:
    """Map an error of the server to an exception, by its message and status."""
    if isinstance(said, str) and said.lstrip().startswith("<"):  # a web page, not from Ollama
        return error_mapping.map_error(
            said, status, headers, provider=provider, model=model, by_code={}
        )
    details = parse_error(said)  # from 0.30 on a JSON string inside ``error``
    if status is None:  # inside a stream, from newer servers
        status = details.status
    words = redact(details.message).replace("registry.ollama.ai/library/", "").strip().rstrip(".")
    error_type, hint = _error_type(words.lower(), status)
    if error_type is ContextLengthError:
        hint = _context_hint(words, provider)
    callers_fault = any(part in words.lower() for part in _REQUEST_FAULT_WORDS)
    retryable = error_type.retryable or (
        (status is None or status >= 500 or status == 408) and not callers_fault
    )
    return error_type(
        f"{provider}{f'/{model}' if model else ''}: {words[:300] or f'status {status}'}.",
        hint=hint,
        provider=provider,
        model=model,
        status=status,
        request_id=find_request_id(headers),
        retry_after=parse_retry_after(headers),
        retryable=retryable and error_type not in (ModelNotFoundError, ContextLengthError),
        body=said,
    )


def _context_hint(words: str, provider: str) -> str:
    """Return how to fit a prompt into the context; ``words`` may contain its length in tokens."""
    length = max(map(int, _TOKENS.findall(words)), default=0)
    size = 8192
    while size < length + _ROOM_FOR_ANSWER and size < _MAX_CONTEXT:
        size *= 2
    return (
        f"Raise the context: -p num_ctx={size} in a cell, lm.ask(…, num_ctx={size}), or "
        f"%llm config providers.{provider}.num_ctx {size}. "
        "Or shorten the prompt, or let the server truncate it with truncate=True."
    )


def _error_type(words: str, status: int | None) -> tuple[type[ProviderError], str | None]:
    if "does not support" in words:
        return UnsupportedError, "Use another model; %llm models lists their capabilities."
    if _TOO_LONG.search(words):
        return ContextLengthError, None
    if status in (401, 403):
        return AuthenticationError, "Set OLLAMA_API_KEY."
    if status == 404 or "file does not exist" in words:
        return ModelNotFoundError, None
    if status in (429, 503):
        return RateLimitError, "Wait a moment and run the cell again."
    return ProviderError, None


_DEFAULT_PORT = 11434

# The paths of Ollama's own API and its OpenAI-compatible one, which requests append.
_API_PATH = re.compile(
    r"(?:/(?:api|v1)(?:/(?:chat(?:/completions)?|completions|embed(?:dings)?|generate|models|tags))?)$"
)


def parse_host(host: str) -> str:
    """
    Return the address that a value of ``OLLAMA_HOST`` means.

    >>> parse_host("")
    'http://127.0.0.1:11434'
    >>> parse_host("example.com:8000")
    'http://example.com:8000'
    >>> parse_host("https://ollama.com")
    'https://ollama.com:443'
    >>> parse_host("0.0.0.0")
    'http://127.0.0.1:11434'
    >>> parse_host(":8000")
    'http://127.0.0.1:8000'
    >>> parse_host("[::1]")
    'http://[::1]:11434'
    >>> parse_host("http://example.com/path/")
    'http://example.com:80/path'

    API paths that other clients need are removed; credentials are preserved:

    >>> parse_host("http://localhost:11434/v1/")
    'http://localhost:11434'
    >>> parse_host("https://ada:secret@example.com/ollama/api")
    'https://ada:secret@example.com:443/ollama'

    Raises:
        ValueError: it is not an address.
    """
    host = strip_whitespace(host)
    scheme, separator, _ = host.partition("://")
    parts = urlsplit(host if separator else f"http://{host}")
    ports = {"http": 80, "https": 443} if separator else {}
    port = parts.port or ports.get(scheme, _DEFAULT_PORT)
    name = parts.hostname or "127.0.0.1"
    if name in ("0.0.0.0", "::"):  # noqa: S104 (a server's listening address)
        name = "127.0.0.1"
    host_name = f"[{name}]" if ":" in name else name
    user, at, _ = parts.netloc.rpartition("@")
    path = _API_PATH.sub("", parts.path.rstrip("/"))
    query = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{user}{at}{host_name}:{port}{path}{query}"


class OllamaConfig(RemoteConfig):
    """
    Attributes:
        base_url: the server's address; default: ``OLLAMA_HOST``, otherwise
            ``http://127.0.0.1:11434``.
        api_key: for a server that requires one; default: ``OLLAMA_API_KEY``.
        keep_alive: how long a model stays loaded after a call, in Ollama's notation ("5m").
        num_ctx: the limit of prompt plus answer, in tokens; default: the server's.
    """

    base_url: str = Field(default_factory=lambda: environment_value("OLLAMA_HOST"))
    api_key: Secret | None = Field(
        default_factory=lambda: Secret.of(environment_value("OLLAMA_API_KEY"))
    )
    keep_alive: str | int | None = None
    num_ctx: int | None = Field(None, ge=1)
    idle_s: float = Field(600.0, gt=0)  # a large model may take minutes to load

    @field_validator("base_url", mode="before")
    @classmethod
    def _address(cls, value: object) -> object:
        return parse_host(value) if isinstance(value, str) else value


# Source: api/types.go, Options and Runner.
_OPTIONS = frozenset(
    [
        "num_keep",
        "seed",
        "num_predict",
        "top_k",
        "top_p",
        "min_p",
        "typical_p",
        "repeat_last_n",
        "temperature",
        "repeat_penalty",
        "presence_penalty",
        "frequency_penalty",
        "stop",
        "num_ctx",
        "num_batch",
        "num_gpu",
        "main_gpu",
        "use_mmap",
        "num_thread",
        "draft_num_predict",
        "numa",
        "low_vram",
        "use_mlock",
        "vocab_only",
        "mirostat",
        "mirostat_tau",
        "mirostat_eta",
        "penalize_newline",
        "tfs_z",
        "logits_all",
        "embedding_only",
        "f16_kv",
    ]
)


def move_options(body: dict[str, Any]) -> dict[str, Any]:
    """
    Return ``body`` with the runner's options in ``options``, where the server reads them.

    Parameters such as ``num_ctx`` are added next to ``model``, where the server ignores them.

    Raises:
        UsageError: ``truncate`` or ``shift`` is not a boolean.
    """
    for name in ("truncate", "shift"):
        if not isinstance(body.get(name, False), bool):
            msg = f"Invalid value for {name}: {body[name]!r}."
            raise UsageError(msg, hint="Pass true or false.")
    beside = {name: body[name] for name in body if name in _OPTIONS}
    if not beside:
        return body
    rest = {name: value for name, value in body.items() if name not in beside}
    return {**rest, "options": {**beside, **body.get("options", {})}}


def check_options(names: Iterable[str]) -> None:
    """Raise `UsageError` for an unknown option, because the server would ignore a typo."""
    for name in names:
        if name not in _OPTIONS:
            msg = f'Ollama has no option "{name}".'
            raise UsageError(msg, hint=nearest(name, _OPTIONS))


class PullTracker:
    """Sums the layers of a pull, whose progress lines repeat and arrive in any order."""

    def __init__(self, provider: str, model: str) -> None:
        self._provider = provider
        self._model = model
        self._done: dict[str, int] = {}
        self._total: dict[str, int] = {}
        self.succeeded = False

    def after(self, line: bytes, elapsed_s: float) -> Progress:
        """Return the pull's progress after this line."""
        update = read_json(line)
        if not isinstance(update, dict):
            msg = f"a line that is not a JSON object: {line[:40]!r}"
            raise TypeError(msg)
        if "error" in update:
            raise map_ollama_error(update, None, {}, self._provider, self._model)
        self.succeeded = self.succeeded or update.get("status") == "success"
        digest = update.get("digest")
        if digest:
            self._total[digest] = int(update.get("total") or self._total.get(digest, 0))
            self._done[digest] = int(update.get("completed") or self._done.get(digest, 0))
        done, total = sum(self._done.values()), sum(self._total.values())
        task = f"downloading {self._model}"
        if not total:
            return Progress(f"{task}: {update.get('status', '')}", elapsed_s=elapsed_s)
        return Progress(task, total if self.succeeded else done, total, elapsed_s=elapsed_s)


# The first version that can refuse a prompt that is too long (ollama/ollama#12582).
_FIRST_STRICT_VERSION = (0, 12, 6)

# Contexts are usually multiples of this. Any other token count cannot be that of a full context.
_CONTEXT_STEP = 64


def truncates_silently(version: str) -> bool:
    """
    Whether a server of ``version`` ignores ``truncate`` in chat and completion.

    >>> truncates_silently("0.11.4"), truncates_silently("0.12.6-rc0"), truncates_silently("0.30.0")
    (True, False, False)
    >>> truncates_silently("0.0.0"), truncates_silently("unknown")
    (False, False)
    """
    numbers = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version)
    if numbers is None:
        return False
    parts = tuple(map(int, numbers.groups()))
    return any(parts) and parts < _FIRST_STRICT_VERSION  # 0.0.0 is a build from source


def may_be_full(tokens_read: int | None) -> bool:
    """Return whether a prompt of this length may have filled the context."""
    return bool(tokens_read) and tokens_read % _CONTEXT_STEP == 0  # type: ignore[operator]


# Source: https://docs.ollama.com/capabilities/thinking (November 2026).
THINKING_RULES = (
    ThinkingRules(models=("gpt-oss*", "*/gpt-oss*"), is_optional=False, levels=EFFORTS),
)

# Ollama's names with ours; other names are the same.
_CAPABILITY_NAMES = {
    "completion": ("chat", "completion"),
    "embedding": ("embeddings",),
    "thinking": ("reasoning",),
}


def parse_capabilities(capabilities: object) -> tuple[str, ...]:
    """Return the capabilities that the server reports, by our names; none if they are invalid."""
    if not isinstance(capabilities, list):
        return ()
    names = [each for each in capabilities if isinstance(each, str)]
    return tuple(name for each in names for name in _CAPABILITY_NAMES.get(each, (each,)))


# The maximum number of concurrent requests for the pages of models.
_MAX_CONCURRENT = 8


class CapabilityCache:
    """
    A cache of the capabilities of models, from ``/api/show``.

    The list of models is not sufficient: 0.24 does not list capabilities, and 0.30 lists
    ``completion`` for embedding models.
    """

    def __init__(self, show: Callable[[str], Awaitable[Mapping[str, Any]]]) -> None:
        self._show = show
        self._known: dict[str, tuple[str, ...]] = {}

    async def of(self, model: str, digest: str) -> tuple[str, ...]:
        """
        Return the capabilities of ``model``, whose weights have ``digest``.

        Raises:
            ProviderError: the model's page cannot be read.
        """
        if digest and digest in self._known:
            return self._known[digest]
        capabilities = parse_capabilities((await self._show(model)).get("capabilities"))
        if digest:
            self._known[digest] = capabilities
        return capabilities

    async def of_all(self, tags: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
        """Return the capabilities of all listed models; from the list if a page cannot be read."""
        free = asyncio.Semaphore(_MAX_CONCURRENT)

        async def of_one(tag: Mapping[str, Any]) -> tuple[str, ...]:
            async with free:
                try:
                    return await self.of(tag["name"], str(tag.get("digest") or ""))
                except ProviderError:
                    return parse_capabilities(tag.get("capabilities"))

        return await asyncio.gather(*map(of_one, tags))
