"""Every setting with its type, default and description; imported when a setting is first used."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from platformdirs import user_cache_path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from llm_magics.secrets import is_secret_name, register_headers, register_secret


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _as_switch(value: Any) -> Any:
    """Convert a path, and the values that YAML reads in ``on`` and ``off``, to text."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value) if isinstance(value, Path) else value


class _Alias(BaseModel):
    """
    A model under a short name; other keys, such as ``temperature``, are parameters.

    Attributes:
        model: the model, as ``provider/name``.
    """

    model_config = ConfigDict(extra="allow")

    model: str

    def model_post_init(self, context: Any, /) -> None:
        """Mask keys in its headers."""
        headers = (self.model_extra or {}).get("extra_headers")
        if isinstance(headers, Mapping):
            register_headers(headers)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, "****" if name and is_secret_name(name) else value


class _Route(BaseModel):
    """
    Models to try in turn.

    Attributes:
        models: the models, as ``provider/name``.
        policy: ``order`` (as listed), ``cheapest`` (by known prices), ``fastest`` (as measured in
            this session) or ``round-robin``.
    """

    model_config = ConfigDict(extra="forbid")

    models: list[str] = Field(min_length=1)
    policy: Literal["order", "cheapest", "fastest", "round-robin"] = "order"


class _Price(BaseModel):
    """
    A price in US dollars per million tokens.

    Attributes:
        input_usd: price of tokens in the prompt.
        output_usd: price of tokens in the answer.
        cached_usd: price of prompt tokens that the service read from its cache.
        written_usd: price of prompt tokens that the service added to its cache.
        reasoning_usd: price of tokens of thinking; by default ``output_usd``.
        search_usd: fee of one web search, in US dollars; by default that of the service.
        batch_share: price in a batch job as a share of these prices; by default that of the
            service.
    """

    model_config = ConfigDict(extra="forbid")

    input_usd: float = Field(ge=0)
    output_usd: float | None = Field(None, ge=0)
    cached_usd: float | None = Field(None, ge=0)
    written_usd: float | None = Field(None, ge=0)
    reasoning_usd: float | None = Field(None, ge=0)
    search_usd: float | None = Field(None, ge=0)
    batch_share: float | None = Field(None, ge=0, le=1)


def _split_command(value: Any) -> Any:
    return shlex.split(value) if isinstance(value, str) else value


class ServerSettings(BaseModel):
    """
    An MCP server: a command that starts it, or its address.

    Attributes:
        command: the program and its arguments.
        url: the address of a server that is reached by HTTP.
        env: environment variables of the program; ``null`` copies the one of the kernel.
        allow: the names of the tools that run without a question.
        timeout_s: the maximum time to start, and the maximum time of a call, in seconds.
        token_env: the environment variable with the bearer token for ``url``.
    """

    model_config = ConfigDict(extra="forbid")

    command: Annotated[tuple[str, ...], BeforeValidator(_split_command)] = ()
    url: str | None = None
    env: dict[str, str | None] = {}
    allow: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = ()
    timeout_s: float = Field(30.0, gt=0, le=3600, allow_inf_nan=False)
    token_env: str | None = None

    @model_validator(mode="after")
    def _has_one_location(self) -> Self:
        if bool(self.command) == (self.url is not None):
            msg = "a server needs either a command or a url"
            raise ValueError(msg)
        address = urlsplit(self.url or "http://localhost")
        if (
            address.scheme not in ("http", "https")
            or not address.hostname
            or "@" in address.netloc
        ):
            msg = "the url of a server starts with https:// or http:// and contains no user"
            raise ValueError(msg)
        if self.command and self.token_env:
            msg = "token_env belongs to a server with a url"
            raise ValueError(msg)
        return self

    def model_post_init(self, context: Any, /) -> None:
        """Mask the keys in its environment."""
        for name, value in self.env.items():
            if value and is_secret_name(name):
                register_secret(value)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            if name == "env":  # its values may be keys
                value = {each: "****" if own else own for each, own in value.items()}
            if value not in (None, (), {}):
                yield name, value


def _parse_price(value: Any) -> Any:
    """Convert ``0`` to a price of zero for all tokens."""
    return {"input_usd": 0.0, "output_usd": 0.0} if value in (0, "0") else value


class Settings(BaseModel):
    """All settings with their defaults. ``%llm config`` shows the descriptions."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field("local/smollm2-135m", description="Model used when a cell names none.")
    embedding_model: str = Field(
        "local/minilm-l6-v2", description="Model used for embeddings when none is named."
    )
    proxy_model: str | None = Field(
        None,
        description="Cheaper model that df.llm.filter and similar operators may ask to save calls.",
    )
    image_model: str = Field("openai/gpt-image-2", description="Model that generates images.")
    transcription_model: str = Field(
        "openai/gpt-4o-transcribe", description="Model that transcribes audio."
    )
    system: str | None = Field(None, description="System message for every prompt.")
    temperature: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Sampling temperature, 0 or more."
    )
    max_tokens: int | None = Field(
        None, ge=1, description="Maximum length of an answer, in tokens."
    )
    top_p: float | None = Field(
        None, gt=0, le=1, description="Nucleus sampling: probability mass, above 0 and at most 1."
    )
    seed: int | None = Field(None, description="Seed for reproducible sampling.")
    stop: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = Field(
        (), description="Texts before which an answer ends."
    )
    aliases: dict[str, str | _Alias] = Field(
        {}, description="Short names for a model, or for a model with parameters."
    )
    routes: dict[str, list[str] | _Route] = Field(
        {}, description="Names for lists of models that are tried in turn."
    )
    retries: int = Field(2, ge=0, le=20, description="Number of retries of a failed request.")
    retry_timeout_s: float = Field(
        120.0, ge=0, description="Total retry time per call, in seconds."
    )
    schema_retries: int = Field(
        1,
        ge=0,
        le=10,
        description="Number of retries of an answer that does not match its schema.",
    )
    tool_rounds: int = Field(
        8, ge=1, le=100, description="Maximum rounds of tool calls before the model must answer."
    )
    tool_calls_max: int = Field(
        20, ge=1, le=1000, description="Maximum number of tool calls in one round."
    )
    tool_result_max_chars: int = Field(
        20_000, ge=100, description="Tool results longer than this are truncated, with a note."
    )
    mcp: dict[Annotated[str, Field(pattern=r"^[A-Za-z][\w-]{0,31}$")], ServerSettings] = Field(
        {}, description="MCP servers by name, whose tools a model may call: %llm mcp"
    )
    max_retry_delay_s: float = Field(
        30.0, ge=0, description="Do not retry if the delay would exceed this many seconds."
    )
    batch_settle_s: float = Field(
        60.0,
        ge=0,
        description="Seconds after which a service's list shows a new batch job, at the latest.",
    )
    batch_timeout: float = Field(
        86_400.0,
        gt=0,
        allow_inf_nan=False,
        description="Maximum time to wait for batch jobs, in seconds; they go on after it.",
    )
    budget: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="Limit on spending in this session, in US dollars.",
    )
    confirm_above_usd: float = Field(
        1.0,
        ge=0,
        description="Ask for confirmation above this cost in US dollars, if no budget is set.",
    )
    prices: dict[str, Annotated[_Price, BeforeValidator(_parse_price)]] = Field(
        {}, description="Prices of models per million tokens, by name or pattern: lab/*"
    )
    cache: bool = Field(False, description="Reuse answers to identical requests.")
    cache_mb: int = Field(500, ge=1, description="Maximum size of the answer cache, in MB.")
    vectors: Path | None = Field(
        None,
        description="Folder for stored vectors; off: do not store them; default: in cache_dir.",
    )
    evaluations: Path | None = Field(
        None,
        description="Folder for results of lm.evaluate; off: do not store them; default: the user's data.",
    )
    history: Annotated[str, BeforeValidator(_as_switch)] = Field(
        "on",
        description="Store all calls in a file for lm.history(): on, off, or the path of the file.",
    )
    history_contents: bool = Field(
        True, description="Store prompts and answers in the history, not only the figures."
    )
    history_mb: int = Field(2_000, ge=1, description="Maximum size of the history, in MB.")
    history_days: int = Field(
        730, ge=1, description="Maximum age of runs in the history, in days."
    )
    record: Path | None = Field(None, description="Record answers in this file.")
    replay: Path | None = Field(None, description="Replay answers from this file; off: live.")
    replay_strict: bool = Field(
        False, description="Raise an error for a call that the replayed file does not contain."
    )
    replay_speed: float = Field(
        0, ge=0, allow_inf_nan=False, description="Replay speed; 1: as recorded, 0: immediately."
    )
    max_line_mb: float = Field(
        16.0,
        gt=0,
        allow_inf_nan=False,
        description="Maximum size of one line of a streamed answer, in MB.",
    )
    max_response_mb: float = Field(
        512.0,
        gt=0,
        allow_inf_nan=False,
        description="Maximum size of a response after decompression, in MB.",
    )
    render: Literal["auto", "live", "static", "text"] = Field(
        "auto", description="How to display answers; auto: live in interactive notebooks."
    )
    footer: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Lines with tokens, time, cost and hints under answers; auto: in interactive notebooks.",
    )
    loop: Literal["thread", "nested"] = Field(
        "thread",
        description="nested: let asyncio.run() work in cells (patches asyncio permanently).",
    )
    secret_scope: str | None = Field(
        None, description="Databricks secret scope in which API keys are looked up."
    )
    tracebacks: Literal["short", "full"] = Field("short", description="How to display errors.")
    cache_dir: Path = Field(
        default_factory=lambda: user_cache_path("llm_magics", appauthor=False),
        description="Folder for weights and caches.",
    )
    providers: dict[Annotated[str, Field(pattern=r"^[\w-]+$")], dict[str, Any]] = Field(
        {}, description="Settings of providers, by name."
    )
