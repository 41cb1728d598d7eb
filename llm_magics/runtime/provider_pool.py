"""Providers created from the user's settings and keys, and the lists of their models."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from llm_magics.errors import ConfigurationError, ConnectionError, nearest
from llm_magics.providers import (
    built_in_providers,
    create_provider,
    get_available_providers,
    provider_type,
)
from llm_magics.providers.base import BaseModelProvider, ModelInfo
from llm_magics.secrets import OpaqueKey, Secret, environment_value, strip_whitespace
from llm_magics.settings import credentials
from llm_magics.settings.config import Config, provider_variables
from llm_magics.settings.files import is_project_file


@dataclass(frozen=True, slots=True, kw_only=True)
class _Created:
    """
    A provider, and what it was created from.

    Attributes:
        state: its settings and the environment variables of its service.
        changes: how often the settings had changed.
        environment: the variables that any of its settings may come from.
        files: the version of the files of trust and keys; ``None`` where it depends on neither.
    """

    provider: BaseModelProvider
    state: OpaqueKey
    changes: int
    environment: Mapping[str, str | None] = field(repr=False)
    files: object

    def is_current(self, changes: int) -> bool:
        """Return whether nothing has changed since; ``changes`` of the settings are counted."""
        return (
            self.changes == changes
            and all(os.environ.get(name) == value for name, value in self.environment.items())
            and (self.files is None or self.files == credentials.files_version())
        )


class ProviderPool:
    """All providers; each is created at first use, and again when its settings change."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._created: dict[str, _Created] = {}
        self._changes = 0
        config.watch(self._count_change)

    def _count_change(self) -> None:
        self._changes += 1

    def get(self, name: str) -> BaseModelProvider:
        """Return the provider called ``name``; it is created again when its settings change."""
        known = self._created.get(name)
        if known is None or not known.is_current(self._changes):
            known = self._created[name] = self._refresh(name, known)
        return known.provider

    def _refresh(self, name: str, known: _Created | None) -> _Created:
        """Return the provider as the settings are now: ``known``'s, where they are the same."""
        changes = self._changes
        self._check_names()
        kind = provider_type(self._type_of(name))
        settings = self.config.for_provider(name, kind.config_type.model_fields)
        if isinstance(key := settings.get("api_key"), str) and not strip_whitespace(key):
            del settings["api_key"]  # a blank key counts as unset
        for limit in ("max_line_mb", "max_response_mb"):
            if limit in kind.config_type.model_fields:
                settings.setdefault(limit, self.config.get(limit))
        own = (*kind.environment, kind.config_type.named_key_variable(name, settings))
        needs_key = "api_key" in kind.config_type.model_fields and not settings.get("api_key")
        is_of_project = bool(self._address_of_project(name)[1])
        files = credentials.files_version() if needs_key or is_of_project else None
        if needs_key:
            settings |= self._key_of_the_keyring(name, kind, settings)
        environment = {each: os.environ.get(each) for each in own}
        state = OpaqueKey((settings, environment, files if is_of_project else None))
        if known is not None and known.state == state:
            provider = known.provider
        else:
            self._check_address_of_project(name, kind, settings)
            provider = self._create(name, settings)
        variables = provider_variables(name, ["type", *kind.config_type.model_fields]).values()
        return _Created(
            provider=provider,
            state=state,
            changes=changes,
            environment={each: os.environ.get(each) for each in (*own, *variables)},
            files=files,
        )

    def takes_key(self, name: str) -> bool:
        """Whether the provider called ``name`` can have a key."""
        return "api_key" in provider_type(self._type_of(name)).config_type.model_fields

    def known_names(self) -> list[str]:
        """The providers that are known without looking through what is installed."""
        return sorted({*built_in_providers(), *self._configured_names()})

    def names(self) -> list[str]:
        """Return the names of all providers, with those that the settings add by a type."""
        return sorted({*get_available_providers(), *self._configured_names()})

    def _configured_names(self) -> set[str]:
        parts = [key.split(".") for key, _, _ in self.config.items()]
        return {part[1] for part in parts if part[0] == "providers" and part[2] == "type"}

    def _type_of(self, name: str) -> str:
        return str(self.config.get(f"providers.{name}.type") or name)

    def _check_address_of_project(
        self, name: str, kind: type[BaseModelProvider], settings: dict[str, Any]
    ) -> None:
        """A project's file may say where to ask, but not have the user's own key sent there."""
        where, source = self._address_of_project(name)
        if not source or credentials.is_trusted(self.config):
            return
        secret_source = self._secret_source(name, kind, settings, source)
        if not secret_source:
            return
        value = settings[where]
        msg = f"{source} sets the address of {name} to {value}, and your API key ({secret_source}) would be sent there."
        hint = f"If you trust it, run %llm trust, or %llm config providers.{name}.{where} {value}"
        raise ConfigurationError(msg, hint=hint, provider=name)

    def _address_of_project(self, name: str) -> tuple[str, str]:
        """The setting by which a project's file decides where ``name`` is, and that file."""
        for key in credentials.LOCATION_SETTINGS:
            source = self.config.source(f"providers.{name}.{key}")
            if is_project_file(source):
                return key, source
            if key == "base_url" and source != "default":
                break  # said by the user, whatever else the project says
        return "", ""

    def _secret_source(
        self, name: str, kind: type[BaseModelProvider], settings: dict[str, Any], project: str
    ) -> str:
        """Where a key of the user's that would be sent comes from; nothing where there is none."""
        if isinstance(settings.get("api_key"), Secret):  # from the keyring; others are revealed
            return "keyring"
        for key in ("api_key", "extra_headers"):
            source = self.config.source(f"providers.{name}.{key}")
            if settings.get(key) and source != project:
                return source
        if settings.get("api_key"):  # the project's own
            return ""
        if self._type_of(name) == name:
            return kind.own_key_source()
        variable = kind.config_type.named_key_variable(name, settings)
        # A well-known service at its own address is where its key belongs.
        is_own_place = "base_url" not in settings
        return variable if environment_value(variable) and not is_own_place else ""

    def _create(self, name: str, settings: dict[str, Any]) -> BaseModelProvider:
        try:
            return create_provider(name, settings)
        except ConfigurationError as error:
            source = self.config.source(f"providers.{name}.{error.code}")
            prefix = "" if source == "default" else f"{source}: "
            raise ConfigurationError(
                f"{prefix}{error}", hint=error.hint, provider=name, code=error.code
            ) from None

    def _key_of_the_keyring(
        self, name: str, kind: type[BaseModelProvider], settings: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the key in the system keyring, if settings and environment have none."""
        if environment_value(kind.config_type.named_key_variable(name, settings)):
            return {}
        if self._type_of(name) == name and kind.own_key_source():
            return {}
        key = credentials.load_key(name)
        return {"api_key": key} if key else {}

    def _check_names(self) -> None:
        named = {
            key.split(".")[1]: source
            for key, _, source in self.config.items()
            if key.startswith("providers.")
        }
        # To know of those of other packages all that is installed is looked through: this is
        # done for every call, and so only where a name is not known otherwise.
        unknown = set(named) - set(self.known_names())
        available = self.names() if unknown else []
        for name in sorted(unknown):
            if name not in available:
                source = named[name]
                msg = f'{source}: no provider is named "{name}".'
                hint = f"{nearest(name, available)} For a compatible server set providers.{name}.type."
                raise ConfigurationError(msg, hint=hint)

    async def close(self) -> None:
        """Close all of them."""
        closing = (each.provider.close() for each in self._created.values())
        await asyncio.gather(*closing, return_exceptions=True)


ModelList = list[ModelInfo]

# How long an answer is waited for: where there is an older one, and where there is none.
_REFRESH_TIMEOUT_S = 1.0
_FIRST_TIMEOUT_S = 8.0


class ModelListCache:
    """The models of each provider, by name. Use it only on the bridge's loop."""

    def __init__(self, provider: Callable[[str], BaseModelProvider]) -> None:
        """Create the cache for the providers that ``provider`` returns by name."""
        self._provider = provider
        self._known: dict[str, tuple[BaseModelProvider, float, ModelList]] = {}
        self._asking: dict[BaseModelProvider, asyncio.Task[ModelList]] = {}

    async def of(
        self, names: Sequence[str], max_age_s: float = 2.0
    ) -> list[ModelList | BaseException]:
        """
        The models of each provider in ``names``, or its error, all requested at once.

        A list older than ``max_age_s`` is requested again. A slow provider does not hold up the
        caller for long: its last list counts meanwhile, and the new one the next time.
        """
        return list(
            await asyncio.gather(
                *(self._one(name, max_age_s) for name in names), return_exceptions=True
            )
        )

    async def _one(self, name: str, max_age_s: float) -> ModelList:
        provider = self._provider(name)
        known = self._known.get(name)
        last = known[2] if known and known[0] is provider else None
        if known and last is not None and time.monotonic() - known[1] <= max_age_s:
            return last
        asking = self._asking.get(provider)
        if asking is None:
            asking = self._asking[provider] = asyncio.create_task(self._ask(name, provider))
            asking.add_done_callback(lambda done: self._ended(provider, done))
        timeout_s = _FIRST_TIMEOUT_S if last is None else _REFRESH_TIMEOUT_S
        await asyncio.wait([asking], timeout=timeout_s)
        if asking.done():
            return asking.result()
        if last is not None:
            return last
        msg = f"{name} did not list its models within {timeout_s:.0f} s."
        raise ConnectionError(msg, hint="Try again in a moment.", provider=name)

    def _ended(self, provider: BaseModelProvider, asking: asyncio.Task[ModelList]) -> None:
        self._asking.pop(provider, None)
        if not asking.cancelled():
            asking.exception()  # a failure that no caller waits for is not reported

    async def _ask(self, name: str, provider: BaseModelProvider) -> ModelList:
        models = await provider.describe_models()
        self._known[name] = (provider, time.monotonic(), models)
        return models

    def names(self) -> list[str]:
        """Return the full names of all models in the cache."""
        known = self._known.copy()
        return [f"{name}/{info.name}" for name, (_, _, models) in known.items() for info in models]

    def forget(self, name: str) -> None:
        """What ``name`` has was changed."""
        self._known.pop(name, None)

    async def close(self) -> None:
        """Cancel all requests."""
        for asking in list(self._asking.values()):
            asking.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)
