"""Every setting with its type, default and description; imported at the first use of a setting."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from platformdirs import user_cache_path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from llm_magics.secrets import is_secret_name, register_headers


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class _Alias(BaseModel):
    """
    A model under a short name; other keys, such as ``temperature``, are parameters.

    Attributes:
        model: the model, as ``provider/name``.
    """

    model_config = ConfigDict(extra="allow")

    model: str

    def model_post_init(self, context: Any, /) -> None:
        """Mask the keys among its headers."""
        headers = (self.model_extra or {}).get("extra_headers")
        if isinstance(headers, Mapping):
            register_headers(headers)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, "****" if name and is_secret_name(name) else value


class _Route(BaseModel):
    """
    Models that are tried in turn.

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
    """

    model_config = ConfigDict(extra="forbid")

    input_usd: float = Field(ge=0)
    output_usd: float | None = Field(None, ge=0)
    cached_usd: float | None = Field(None, ge=0)
    written_usd: float | None = Field(None, ge=0)


def _parse_price(value: Any) -> Any:
    """``0`` stands for what costs nothing."""
    return {"input_usd": 0.0, "output_usd": 0.0} if value in (0, "0") else value


class Settings(BaseModel):
    """Every setting with its default. The descriptions are what ``%llm config`` shows."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field("local/smollm2-135m", description="asked where a cell names none")
    embedding_model: str = Field("local/minilm-l6-v2", description="embeds where none is named")
    image_model: str = Field("openai/gpt-image-2", description="makes pictures")
    transcription_model: str = Field("openai/gpt-4o-transcribe", description="writes down speech")
    system: str | None = Field(None, description="the system message of every prompt")
    temperature: float | None = Field(None, ge=0, allow_inf_nan=False, description="0 or more")
    max_tokens: int | None = Field(None, ge=1, description="longest answer, in tokens")
    top_p: float | None = Field(None, gt=0, le=1, description="above 0, at most 1")
    seed: int | None = Field(None, description="the same seed, the same draw")
    stop: Annotated[tuple[str, ...], BeforeValidator(_as_list)] = Field(
        (), description="an answer ends before any of these"
    )
    aliases: dict[str, str | _Alias] = Field(
        {}, description="short names: a model, or a model with parameters"
    )
    routes: dict[str, list[str] | _Route] = Field(
        {}, description="models tried in turn: a list, or models and a policy"
    )
    retries: int = Field(2, ge=0, le=20, description="how often a failed call is repeated")
    retry_timeout_s: float = Field(
        120.0, ge=0, description="so long after a call began nothing is repeated"
    )
    schema_retries: int = Field(
        1, ge=0, le=10, description="an answer that does not fit its schema is asked for again"
    )
    tool_rounds: int = Field(
        8, ge=1, le=100, description="how often a model may call tools before it must answer"
    )
    tool_calls_max: int = Field(
        20, ge=1, le=1000, description="so many calls of tools at once are run, and no more"
    )
    tool_result_max_chars: int = Field(
        20_000, ge=100, description="a longer result of a tool is cut for the model, and says so"
    )
    max_retry_delay_s: float = Field(
        30.0, ge=0, description="a longer wait before a retry is not waited"
    )
    budget: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="US dollars that may be spent"
    )
    confirm_above_usd: float = Field(
        1.0,
        ge=0,
        description="a column that may cost more is asked about first, if there is no budget",
    )
    prices: dict[str, Annotated[_Price, BeforeValidator(_parse_price)]] = Field(
        {}, description="of models, by name or pattern: lab/*"
    )
    cache: bool = Field(False, description="an answer given before is given again")
    cache_mb: int = Field(500, ge=1, description="how large the cache may grow")
    vectors: Path | None = Field(
        None, description="vectors are kept in this folder; off: nowhere; else in cache_dir"
    )
    record: Path | None = Field(None, description="answers are kept in this file")
    replay: Path | None = Field(None, description="answers come from this file; off: live")
    replay_strict: bool = Field(False, description="a call that is not in the file is an error")
    replay_speed: float = Field(
        0, ge=0, allow_inf_nan=False, description="1: as fast as it was recorded; 0: at once"
    )
    max_line_mb: float = Field(
        16.0, gt=0, allow_inf_nan=False, description="longest line of a streamed answer, in MB"
    )
    max_response_mb: float = Field(
        512.0, gt=0, allow_inf_nan=False, description="longest answer, decompressed, in MB"
    )
    render: Literal["auto", "live", "static", "text"] = Field(
        "auto", description="how answers are shown; auto: live where somebody watches"
    )
    footer: Literal["auto", "always", "never"] = Field(
        "never", description="a line under each answer; auto: where somebody watches"
    )
    loop: Literal["thread", "nested"] = Field(
        "thread", description="nested: asyncio.run() works in a cell; patches asyncio for good"
    )
    tracebacks: Literal["short", "full"] = Field("short", description="how errors are shown")
    cache_dir: Path = Field(
        default_factory=lambda: user_cache_path("llm_magics", appauthor=False),
        description="weights and caches go here",
    )
    providers: dict[Annotated[str, Field(pattern=r"^[\w-]+$")], dict[str, Any]] = Field(
        {}, description="settings of a provider, by its name"
    )
