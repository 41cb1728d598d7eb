"""The settings there are. (Imports pydantic, so it is imported when a setting is first read.)"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from platformdirs import user_cache_path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class _Alias(BaseModel):
    """A model and its parameters under a short name; ``temperature`` and so on beside it."""

    model_config = ConfigDict(extra="allow")

    model: str


class _Route(BaseModel):
    """Models that are tried in turn, and in which order."""

    model_config = ConfigDict(extra="forbid")

    models: list[str] = Field(min_length=1)
    policy: Literal["order", "cheapest", "fastest", "round-robin"] = "order"


class Settings(BaseModel):
    """Every setting with its default. The descriptions are what ``%llm config`` shows."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field("local/smollm2-135m", description="asked where a cell names none")
    embedding_model: str = Field("local/minilm-l6-v2", description="embeds where none is named")
    system: str | None = Field(None, description="the system message of every prompt")
    temperature: float | None = Field(None, ge=0, allow_inf_nan=False, description="0 or more")
    max_tokens: int | None = Field(None, ge=1, description="longest answer, in tokens")
    top_p: float | None = Field(None, gt=0, le=1, description="above 0, at most 1")
    seed: int | None = Field(None, description="the same seed, the same draw")
    stop: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        (), description="an answer ends before any of these"
    )
    aliases: dict[str, str | _Alias] = Field(
        {}, description="short names: a model, or a model with parameters"
    )
    routes: dict[str, list[str] | _Route] = Field(
        {}, description="models tried in turn: a list, or models and a policy"
    )
    retries: int = Field(2, ge=0, le=20, description="how often a failed call is repeated")
    longest_wait_s: float = Field(
        30.0, ge=0, description="a longer wait before a retry is not waited"
    )
    record: Path | None = Field(None, description="answers are kept in this file")
    replay: Path | None = Field(None, description="answers come from this file; off: live")
    replay_strict: bool = Field(False, description="a call that is not in the file is an error")
    render: Literal["auto", "live", "static", "text"] = Field(
        "auto", description="how answers are shown; auto: live where somebody watches"
    )
    tracebacks: Literal["short", "full"] = Field("short", description="how errors are shown")
    cache_dir: Path = Field(
        default_factory=lambda: user_cache_path("llm_magics", appauthor=False),
        description="weights and caches go here",
    )
    providers: dict[str, dict[str, Any]] = Field(
        {}, description="settings of a provider, by its name"
    )
