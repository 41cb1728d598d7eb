"""The available models, as a table."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from fnmatch import fnmatch
from typing import TYPE_CHECKING

from llm_magics._util.text import display_name
from llm_magics.errors import LLMError, ModelNotFoundError, UnsupportedError, nearest
from llm_magics.host import Progress, warn
from llm_magics.providers.base import TEXT_CAPABILITIES, ModelInfo
from llm_magics.providers.identity import credential_name, describe_identity
from llm_magics.providers.profiles import profiles
from llm_magics.providers.services import services
from llm_magics.runtime import pricing
from llm_magics.runtime.routing import find_candidates, find_route
from llm_magics.runtime.session import Session
from llm_magics.secrets import redact

if TYPE_CHECKING:
    from pandas import DataFrame


_COLUMNS = [
    "provider",
    "model",
    "capabilities",
    "context",
    "size_mb",
    "input_usd",
    "output_usd",
    "pulled",
    "loaded",
]


# The name of a model contains that of its provider.
_DISPLAYED_COLUMNS = [name for name in _COLUMNS if name not in ("provider", "pulled")]


async def model_table(session: Session, pattern: str = "") -> DataFrame:
    """
    Return one row for each model of each provider whose name matches ``pattern``.

    A provider that does not respond is omitted, unless it is the requested one. If the user has set
    it up, a warning is shown.
    """
    from llm_magics._util.tables import SafeFrame, display_columns

    provider = pattern.partition("/")[0]
    is_provider = bool(provider) and provider in session.providers.names()
    names = [provider] if is_provider else session.providers.listed_names()
    if is_provider:
        with suppress(LLMError):  # the listing raises the same error
            session.provider(provider, in_use=True)
    found = await session.listings.of(names)
    for name, models in zip(names, found, strict=True):
        if isinstance(models, BaseException):
            if pattern.rstrip("/") == name:
                raise models
            if not pattern:
                _warn(session, name, models)
    rows = [
        _row(name, with_price(session, name, model))
        for name, models in zip(names, found, strict=True)
        if not isinstance(models, BaseException)
        for model in models
        if _matches(f"{name}/{model.name}", pattern, names)
    ]
    types = {
        "context": "Int64",
        "size_mb": "Float64",
        "input_usd": "Float64",
        "output_usd": "Float64",
    }
    frame = SafeFrame(rows, columns=_COLUMNS)
    return display_columns(frame.astype(types), *_DISPLAYED_COLUMNS)


def provider_table(session: Session) -> DataFrame:
    """Return one row per provider: how to set it up, and its capabilities. No request is sent."""
    from llm_magics._util.tables import WideFrame

    rows: list[tuple[object, ...]] = []
    listed = {*session.providers.listed_names()}
    for name in session.providers.names():
        if name not in listed:
            rows.append(_service_row(session, name))
            continue
        try:
            provider = session.provider(name)
            can = ", ".join(provider.capabilities)
            credential = credential_name(provider)
            rows.append((name, provider.is_set_up, credential, provider.start, can))
        except Exception as error:  # an invalid provider must not hide the others
            rows.append((name, False, "", f"not usable: {redact(str(error))}", ""))
    return WideFrame(rows, columns=["provider", "set_up", "key", "start", "capabilities"])


def _service_row(session: Session, name: str) -> tuple[object, ...]:
    """Return the row of a service that is not set up."""
    missing = session.providers.missing_parts(name)
    settings = [next(iter(part.variables), f"providers.{name}.{part.name}") for part in missing]
    start = f"set {', '.join(settings)}" if settings else ""
    can = ", ".join(profiles()[name].capabilities or TEXT_CAPABILITIES)
    credential = profiles()[name].key_variable
    if identity := services()[name].token_provider:
        credential = describe_identity(identity)
    return (name, False, credential, start, can)


def _warn(session: Session, name: str, error: BaseException) -> None:
    """Warn about a provider that the user has set up, and that does not respond."""
    with suppress(LLMError):
        if session.provider(name).is_set_up:
            warn(f"Could not list the models of {name}: {error}")


def with_price(session: Session, provider: str, model: ModelInfo) -> ModelInfo:
    """Return ``model`` with the price used for its calls: configured, free, or the service's."""
    own = pricing.configured_price(session.config, f"{provider}/{model.name}")
    if own is not None:
        return replace(model, input_usd=own.input_usd, output_usd=own.output_usd)
    if session.provider(provider).is_free(model.name):
        return replace(model, input_usd=0.0, output_usd=0.0)
    return model


def _row(provider: str, model: ModelInfo) -> tuple[object, ...]:
    return (
        provider,
        f"{provider}/{model.name}",
        ", ".join(model.capabilities),
        model.context,
        round(model.size_bytes / 1e6, 1) if model.size_bytes is not None else None,
        model.input_usd,
        model.output_usd,
        model.pulled,
        model.loaded,
    )


def _matches(name: str, pattern: str, providers: Sequence[str]) -> bool:
    provider, _, bare = name.partition("/")
    if pattern.rstrip("/") in providers:  # "local" must not match "huggingface-local/…"
        return provider == pattern.rstrip("/")
    return pattern in name or fnmatch(name, pattern) or fnmatch(bare, pattern)


async def select_model(session: Session, name: str) -> list[str]:
    """
    Make ``name`` — a model, an alias or a route — the default, and return its models.

    Raises:
        ModelNotFoundError: the model does not exist.
        UnsupportedError: it cannot chat.
    """
    if name in {*session.config.aliases, *session.config.routes}:
        names = [each.model for each in await find_candidates(session, name)]
        session.config.model = name
        return names
    route = await find_route(session, name)
    listed = {info.name: info for info in await route.provider.describe_models()}
    # A service without a list of models has no models to compare with, and none to pull.
    is_listed = bool(listed) or "pull" in route.provider.capabilities
    if is_listed and route.model not in listed and not route.model.endswith(".gguf"):
        msg = f'{route.provider.name} has no model "{display_name(route.model)}".'
        raise ModelNotFoundError(msg, hint=nearest(route.model, listed))
    require_chat(route.name, listed[route.model].capabilities if route.model in listed else ())
    session.config.model = route.name
    return [route.name]


def require_chat(model: str, capabilities: Sequence[str]) -> None:
    """Raise `UnsupportedError` for a model that is known to be unable to chat."""
    if capabilities and "chat" not in capabilities:
        msg = f"{display_name(model)} does not support chat, only {display_name(' and '.join(capabilities))}."
        hint = f"To use it for embeddings: %llm config embedding_model {display_name(model)}"
        raise UnsupportedError(msg, hint=hint)


class PullCall:
    """The download of a model to this machine."""

    def __init__(self, session: Session, model: str) -> None:
        self._session = session
        self._model = model

    async def events(self) -> AsyncGenerator[Progress, None]:
        """Download it and yield the progress."""
        route = await find_route(self._session, self._model)
        async with aclosing(route.provider.pull_model(route.model)) as steps:
            async for progress in steps:
                yield progress
        self._session.listings.forget(route.provider.name)


async def delete_model(session: Session, model: str) -> None:
    """Delete the weights of ``model``."""
    route = await find_route(session, model)
    await route.provider.delete_model(route.model)
    session.listings.forget(route.provider.name)
