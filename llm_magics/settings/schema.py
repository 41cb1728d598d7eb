"""The settings there are. (Imports pydantic, so it is imported when a setting is first read.)"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from platformdirs import user_cache_path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


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
