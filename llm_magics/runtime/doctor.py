"""Diagnose every provider: its health, its models, one chat and one embedding."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from llm_magics._util.table_text import format_columns
from llm_magics.errors import UnsupportedError
from llm_magics.parameters import ModelParameters
from llm_magics.providers.base import BaseModelProvider, ModelInfo
from llm_magics.runtime.session import Session
from llm_magics.secrets import redact
from llm_magics.types import ChatMessage, ModelResponse

if TYPE_CHECKING:
    from pandas import DataFrame

# Enough tokens for one word, even by a model that thinks first.
_TRIAL_PARAMETERS = ModelParameters(max_tokens=64, temperature=0)

_OK, _FAILED, _NOTHING = "ok", "failed", "–"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """
    The results of the diagnosis of one provider.

    ``health``, ``models``, ``chat`` and ``embedding`` are ``ok``, ``failed``, or ``–`` if there was
    nothing to try. ``detail`` contains the models that were tried, or the error, and where the API
    key was found.
    """

    provider: str
    health: str
    models: str = _NOTHING
    chat: str = _NOTHING
    embedding: str = _NOTHING
    detail: str = ""

    @property
    def has_failed(self) -> bool:
        """Whether any of the tried functions failed."""
        return _FAILED in (self.health, self.models, self.chat, self.embedding)


async def diagnose(session: Session, names: Sequence[str] = ()) -> list[Diagnosis]:
    """
    Try the providers in ``names``, or all that are set up.

    A provider that is not configured and does not respond does not count as failed.
    """
    requested = names or session.providers.listed_names()
    found = await asyncio.gather(*(_diagnose(session, name, bool(names)) for name in requested))
    return [
        replace(each, detail=_with_key_source(session, each.provider, each.detail))
        for each in found
    ]


def describe_unlisted(session: Session) -> str:
    """Return a line with the services that are not set up; empty if there are none."""
    names = session.providers.unlisted_names()
    return f"Not set up: {', '.join(names)} (%llm providers shows how)." if names else ""


def format_table(found: Sequence[Diagnosis]) -> str:
    """Return one line per provider, below a heading."""
    columns = [each.name for each in fields(Diagnosis)]
    rows = [[str(getattr(each, name)) for name in columns] for each in found]
    return format_columns([columns, *rows])


async def _diagnose(session: Session, name: str, is_requested: bool) -> Diagnosis:
    try:
        provider = session.provider(name, in_use=is_requested)
        health = await provider.health_check()
    except Exception as error:  # providers of third parties may raise any exception
        return Diagnosis(provider=name, health=_FAILED, detail=_error_text(error))
    if health.get("status") != "ok":
        is_expected = is_requested or provider.is_set_up
        state = _FAILED if is_expected else "not set up"
        return Diagnosis(provider=name, health=state, detail=redact(str(health.get("detail", ""))))
    try:
        models = await provider.describe_models()
    except Exception as error:
        return Diagnosis(provider=name, health=_OK, models=_FAILED, detail=_error_text(error))
    chat, chat_detail = await _try_model(
        provider, models, ("chat", session.config.model), _try_chat
    )
    embedding, embedding_detail = await _try_model(
        provider, models, ("embeddings", session.config.embedding_model), _try_embedding
    )
    listed = f"{len(models)}" if models else "none"
    return Diagnosis(
        provider=name,
        health=_OK,
        models=listed,
        chat=chat,
        embedding=embedding,
        detail="; ".join(filter(None, (chat_detail, embedding_detail))),
    )


async def _try_model(
    provider: BaseModelProvider,
    models: Sequence[ModelInfo],
    what: tuple[str, str],
    attempt: Callable[[BaseModelProvider, str], Awaitable[Any]],
) -> tuple[str, str]:
    capability, preferred = what
    model = _select_model(provider, models, capability, preferred)
    if model is None:
        return _NOTHING, ""
    try:
        await attempt(provider, model)
    except UnsupportedError:
        return _NOTHING, ""
    except Exception as error:
        return _FAILED, f"{model}: {_error_text(error)}"
    return _OK, model


def _select_model(
    provider: BaseModelProvider, models: Sequence[ModelInfo], capability: str, preferred: str
) -> str | None:
    """Return the preferred model, or else the cheapest: loaded, then by price, then by size."""
    able = [
        model
        for model in models
        if capability in (model.capabilities or _guess_capabilities(model.name))
    ]
    chosen = preferred.removeprefix(f"{provider.name}/")
    if any(model.name == chosen for model in able) and chosen != preferred:
        return chosen
    unknown = math.inf
    able.sort(
        key=lambda model: (
            not model.loaded,
            unknown if model.input_usd is None else model.input_usd,
            unknown if model.size_bytes is None else model.size_bytes,
            model.name,
        )
    )
    return able[0].name if able else None


def _guess_capabilities(name: str) -> tuple[str, ...]:
    """Guess the capabilities of a model from its name."""
    return ("embeddings",) if "embed" in name.lower() else ("chat",)


async def _try_chat(provider: BaseModelProvider, model: str) -> None:
    answer = await provider.generate_chat(
        [ChatMessage("user", "Say hi.")], model, _TRIAL_PARAMETERS
    )
    assert isinstance(answer, ModelResponse)
    if not (answer.text or answer.reasoning):
        msg = "empty answer"
        raise ValueError(msg)


async def _try_embedding(provider: BaseModelProvider, model: str) -> None:
    vectors = await provider.generate_embeddings(["hi"], model)
    if len(vectors) != 1 or not vectors[0]:
        msg = "no vector returned"
        raise ValueError(msg)


def _error_text(error: BaseException) -> str:
    hint = getattr(error, "hint", None)
    return redact(f"{error} {hint or ''}".strip()) or type(error).__name__


async def check_health(session: Session, names: Sequence[str] | None = None) -> DataFrame:
    """
    Return one row per provider, of all or of ``names``: its status, and the reason in words.

    The reason includes where the API key was found.
    """
    from llm_magics._util.tables import WideFrame

    for name in names or ():
        with suppress(Exception):  # the same error is in the table
            session.provider(name, in_use=True)
    names = names or session.providers.listed_names()
    found = await session.ask_all(names, lambda provider: provider.health_check())
    rows = []
    for name, result in zip(names, found, strict=True):
        status, detail = _status(result)
        rows.append((name, status, _with_key_source(session, name, detail)))
    return WideFrame(rows, columns=["provider", "status", "detail"])


def _with_key_source(session: Session, name: str, detail: str) -> str:
    """Return ``detail`` with where the key of ``name`` was found, if it has one."""
    try:
        source = session.providers.key_source(name)
    except Exception:  # its settings are invalid, which is in ``detail``
        return detail
    if not source:
        return detail
    # The detail is an error, which ends with a full stop, or a few words.
    separator = " Key" if detail.endswith(".") else "; key" if detail else "key"
    return f"{detail}{separator}: {source}"


def _status(result: dict[str, Any] | BaseException) -> tuple[str, str]:
    if isinstance(result, BaseException):
        hint = getattr(result, "hint", None) or ""
        return "unavailable", redact(f"{type(result).__name__}: {result} {hint}".strip())
    return redact(str(result.get("status", ""))), redact(str(result.get("detail", "")))
